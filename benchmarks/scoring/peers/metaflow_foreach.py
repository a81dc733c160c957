"""Metaflow: a foreach over the parts, one branch a core."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from metaflow import FlowSpec, Parameter, step


class ScoreFlow(FlowSpec):
    told = Parameter("told")

    @step
    def start(self):
        cores = os.cpu_count()
        found = sorted(map(str, Path(json.loads(self.told)["parts"]).glob("*.parquet")))
        self.shares = [found[n::cores] for n in range(cores) if found[n::cores]]
        self.next(self.score, foreach="shares")

    @step
    def score(self):
        import pandas as pd
        from common import Model, connect, scored, upsert

        told = json.loads(self.told)
        model, connection = Model(told["weights"]), connect(told)
        self.began = time.time()
        for file in self.input:
            upsert(connection, told["table"], scored(model, pd.read_parquet(file)))
        self.ended = time.time()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.seconds = max(i.ended for i in inputs) - min(i.began for i in inputs)
        self.next(self.end)

    @step
    def end(self):
        Path(os.environ["SCORE_RESULT"]).write_text(json.dumps({"seconds": self.seconds}))


if __name__ == "__main__" and "SCORE_RESULT" in os.environ:
    ScoreFlow()
elif __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        environment = os.environ | {
            "SCORE_RESULT": str(result), "USERNAME": "bench", "METAFLOW_HOME": folder,
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": folder,
        }  # fmt: skip
        command = [sys.executable, __file__, "--quiet", "--no-pylint", "run", "--told", sys.argv[1]]
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr, cwd=folder)
        print(result.read_text(), flush=True)
