"""What one writes first: pandas, a part at a time, and `to_sql`."""

import time

import pandas as pd
from common import Model, done, files, scored, settings
from sqlalchemy import URL, create_engine

told = settings()
model = Model(told["weights"])
engine = create_engine(
    URL.create(
        "mysql+pymysql", told["user"], told["password"], told["host"], told["port"],
        told["database"], {"ssl_disabled": "true"},
    )
)  # fmt: skip
started = time.perf_counter()
for file in files(told):
    rows = scored(model, pd.read_parquet(file))
    rows.to_sql(told["table"], engine, if_exists="append", index=False)
done(time.perf_counter() - started)
