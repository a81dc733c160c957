"""Ray Data: two actors that score and write."""

import os
import time

import ray
from common import Model, connect, done, scored, settings, upsert

told = settings()


class Score:
    def __init__(self):
        self.model, self.connection = Model(told["weights"]), connect(told)

    def __call__(self, frame):
        upsert(self.connection, told["table"], scored(self.model, frame))
        return frame[["id"]]


ray.init(
    num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False,
    runtime_env={"env_vars": {"PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}},
)  # fmt: skip
ray.data.DataContext.get_current().enable_progress_bars = False
ray.data.range(8).map_batches(lambda batch: batch).count()
started = time.perf_counter()
rows = ray.data.read_parquet(told["parts"]).map_batches(
    Score, concurrency=os.cpu_count(), num_cpus=0.5, batch_size=4_096, batch_format="pandas"
)
rows.materialize()
done(time.perf_counter() - started)
