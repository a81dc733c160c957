"""awswrangler's upsert of the same rows; runs in an environment of its own, prints seconds."""

from __future__ import annotations

import sys
import time

import awswrangler as wr  # type: ignore[import-not-found]
import pandas as pd
import pymysql

file, host, port, user, password, database, table = sys.argv[1:]
frame = pd.read_parquet(file)
connection = pymysql.connect(
    host=host, port=int(port), user=user, password=password, database=database, ssl_disabled=True
)
started = time.perf_counter()
wr.mysql.to_sql(
    frame,
    connection,
    table,
    database,
    mode="upsert_duplicate_key",
    use_column_names=True,
    # Its own default is 200, which is slower.
    chunksize=5_000,
)
print(time.perf_counter() - started)
