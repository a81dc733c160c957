"""Spark on this machine: a pandas function over the partitions, which writes what it scored."""

import os
import sys
import time

from common import Model, connect, done, scored, settings, upsert
from pyspark.sql import SparkSession

told = settings()
os.environ["PYSPARK_PYTHON"] = sys.executable
here = os.path.dirname(os.path.abspath(__file__))


def score(frames):
    model, connection = Model(told["weights"]), connect(told)
    for frame in frames:
        upsert(connection, told["table"], scored(model, frame))
        yield frame[["id"]]


spark = (
    SparkSession.builder.master(f"local[{os.cpu_count()}]")
    .config("spark.sql.execution.arrow.maxRecordsPerBatch", 4_096)
    .config("spark.executorEnv.PYTHONPATH", here)
    .config("spark.driver.memory", "2g")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.session.timeZone", "UTC")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")
spark.sparkContext.addPyFile(os.path.join(here, "common.py"))
spark.range(8).count()
started = time.perf_counter()
rows = spark.read.parquet(told["parts"]).repartition(os.cpu_count())
rows.mapInPandas(score, "id long").count()
seconds = time.perf_counter() - started
spark.stop()
done(seconds)
