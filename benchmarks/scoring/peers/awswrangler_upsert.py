"""pandas, and awswrangler's upsert."""

import time

import awswrangler as wr
import pandas as pd
from common import Model, connect, done, files, scored, settings

told = settings()
model, connection = Model(told["weights"]), connect(told)
started = time.perf_counter()
for file in files(told):
    rows = scored(model, pd.read_parquet(file))
    wr.mysql.to_sql(
        rows, connection, told["table"], told["database"], mode="upsert_duplicate_key",
        use_column_names=True, chunksize=5_000,
    )  # fmt: skip
done(time.perf_counter() - started)
