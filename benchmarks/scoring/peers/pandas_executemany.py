"""pandas, and the driver's own upsert of many rows."""

import time

import pandas as pd
from common import Model, connect, done, files, scored, settings, upsert

told = settings()
model, connection = Model(told["weights"]), connect(told)
started = time.perf_counter()
for file in files(told):
    upsert(connection, told["table"], scored(model, pd.read_parquet(file)))
done(time.perf_counter() - started)
