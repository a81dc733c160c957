"""``make profile``: where the time of a small inference goes, by stage, for long texts and for short ones.

Twice the real thing into a private MariaDB, or into SQLite where there is none: once on all cores, and
once in this process alone, under Python's profiler, which makes functions of Python dearer than they are.
A run's stages are seconds on the clock; a row's are CPU time, which others on the machine do not change.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scoring import corpus, model
from benchmarks.scoring.declared import JOBS
from benchmarks.scoring.prepare import prepare
from mlbatch.connectors.mysql.address import MysqlAddress, connect
from mlbatch.connectors.mysql.sink import MysqlSink
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.sqlite import SqliteSink
from mlbatch.devstack.mariadb import MariaDb, private_mariadb
from mlbatch.engines.local import LocalEngine
from mlbatch.errors import UsageError
from mlbatch.inference import infer
from mlbatch.planner import Request
from mlbatch.sink import Sink
from mlbatch.testing import JobHarness

MICRO = 1e6
SCORE = ("mlbatch/scoring.py", "score")
STAGES = {
    "judging rows": (
        ("mlbatch/judging.py", "judge_input"),
        ("mlbatch/judging.py", "judge_duplicates"),
        ("mlbatch/judging.py", "judge_output"),
    ),
    "texts out of Arrow": (("text/features.py", "transform"),),
    "normal form": (("text/tokeniser.py", "normalised"),),
    "MeCab": (("text/tokeniser.py", "surface_lines"),),
    "where words lie": (("text/spans.py", "word_spans"),),
    "hashing": (("text/hashing.py", "_counted"),),
    "weights": (("linear_model/_base.py", "decision_function"),),
    "labels and scores": (("mlbatch/model.py", "answer"),),
    "rows of the table": (("mlbatch/scoring.py", "_rows"), ("mlbatch/scoring.py", "sorted_by")),
    "checksum": (("mlbatch/checksum.py", "checksum"),),
}
"""Functions, none of which calls another, as the profiler names them: end of the file's path, and name."""


def main() -> None:
    """Print a table for each kind of text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=8_000)
    parser.add_argument("--steps", type=int, default=40_000)
    options = parser.parse_args()
    engine = LocalEngine(os.cpu_count() or 1)
    engine.warm_up()
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as server:
        for kind, rows in (("recipes", options.recipes), ("steps", options.steps)):
            home = Path(folder) / kind
            home.mkdir()
            print("\n".join(_profile(kind, rows, home, server, engine)), flush=True)


@contextmanager
def _server(folder: Path) -> Iterator[MariaDb | None]:
    try:
        with private_mariadb(folder / "db") as server:
            yield server
    except UsageError as error:
        print(f"SQLite stands in: {error.message}; {error.hint}")
        yield None


def _profile(
    kind: str, rows: int, home: Path, server: MariaDb | None, engine: LocalEngine
) -> Iterator[str]:
    _, parts = corpus.parts(home, kind, rows)
    folder = Path(prepare(kind, parts, model.made(kind, parts[0]), home)["folder"])
    cores = engine.workers
    part_rows = -(-rows // cores)

    def harness(engine: LocalEngine) -> JobHarness:
        sink = _sink(server, f"{kind}_{engine.workers}", home)
        return JobHarness(JOBS[kind], folder, part_rows=part_rows, sink=sink, engine=engine)

    started = time.perf_counter()
    ended = harness(engine).infer()
    seconds = time.perf_counter() - started
    told = ", ".join(f"{stage} {spent:.1f}" for stage, spent in ended.stage_seconds.items())
    yield f"\n{rows:,} {kind} on {cores} cores: {seconds:.2f} s; of the workers' seconds: {told}"
    yield from _alone(harness(LocalEngine(1)), rows)


def _sink(server: MariaDb | None, database: str, home: Path) -> Sink:
    if server is None:
        return SqliteSink(home / f"{database}.db")
    password = FixedPassword(server.admin_password)
    admin = MysqlAddress(
        server.host, server.port, "mysql", server.admin, password, verify_tls=False
    )
    with closing(connect(admin)) as connection:
        connection.query(f'CREATE DATABASE "{database}"')
    return MysqlSink(replace(admin, database=database))


def _alone(harness: JobHarness, rows: int) -> Iterator[str]:
    """One process: the stages of the run, then those of scoring a row."""
    spent: dict[str, float] = {}
    tools, profiler = harness.tools, cProfile.Profile(time.thread_time, builtins=False)
    watched = replace(
        tools,
        warehouse=_Watched(tools.warehouse, spent, {"fetch": "count", "unload": "unload"}.get),
        tracking=_Watched(tools.tracking, spent, lambda _: "registry"),
        sink=_WatchedSink(tools.sink, spent, {"prepare": "prepare", "checksum": "verify"}.get),
    )
    started = time.perf_counter()
    ended = profiler.runcall(infer, harness.job, Request(), watched)
    seconds = time.perf_counter() - started
    yield f"the same in one process, profiled: {seconds:.2f} s"
    spent["score and write parts, and the rest"] = seconds - sum(spent.values())
    yield from (f"  {stage:<38}{took:>8.2f} s" for stage, took in spent.items())
    stages = _stages(profiler)
    yield f"a row: {sum(stages.values()) / rows * MICRO:.1f} µs of CPU to score"
    yield from (f"  {stage:<38}{took / rows * MICRO:>8.1f} µs" for stage, took in stages.items())
    took = ended.stage_seconds["write"] / rows * MICRO
    yield f"  beside it, on the clock: writing      {took:>8.1f} µs"


class _Watched:
    """A connector whose calls are timed, each under the stage that ``stage`` gives its name."""

    def __init__(
        self, inner: object, spent: dict[str, float], stage: Callable[[str], str | None]
    ) -> None:
        self._inner: Any = inner
        self._spent, self._stage = spent, stage

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the connector has
        found, stage = getattr(self._inner, name), self._stage(name)
        if stage is None or not callable(found):
            return found

        def timed(*given: object, **named: object) -> object:
            started = time.perf_counter()
            try:
                return found(*given, **named)
            finally:
                took = time.perf_counter() - started
                self._spent[stage] = self._spent.get(stage, 0.0) + took

        return timed


class _WatchedSink(_Watched):
    def ledger(self) -> _Watched:
        return _Watched(self._inner.ledger(), self._spent, lambda _: "ledger")


def _stages(profiler: cProfile.Profile) -> Mapping[str, float]:
    """Seconds of scoring by stage; what belongs to none is the last."""
    timed = vars(pstats.Stats(profiler))["stats"]
    found = {stage: sum(_spent(timed, f) for f in all_of) for stage, all_of in STAGES.items()}
    return found | {"everything else": _spent(timed, SCORE) - sum(found.values())}


def _spent(timed: Mapping[tuple[str, int, str], Sequence[Any]], function: tuple[str, str]) -> float:
    """Seconds in a function and what it calls. Raises KeyError when it was never called."""
    for (file, _, name), figures in timed.items():
        if name == function[1] and file.endswith(function[0]):
            return float(figures[3])
    raise KeyError(function)


if __name__ == "__main__":
    main()
