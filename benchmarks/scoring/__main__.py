"""``make bench``: ours and theirs in turn on the same parts, and a page of what came out."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scoring import corpus, delta, learning, model, report
from benchmarks.scoring.contenders import OTHERS, OURS, ROOT, SCRIPT, Contender, install, missing
from benchmarks.scoring.declared import JOBS
from benchmarks.scoring.floor import Floor
from benchmarks.scoring.measure import FailedError, Measured, measure
from benchmarks.scoring.prepare import prepare
from mlbatch.connectors.mysql.address import MysqlAddress, connect
from mlbatch.connectors.password import FixedPassword
from mlbatch.devstack.mariadb import MariaDb, private_mariadb

HOME = ROOT / ".mlbatch" / "bench"
RESULTS = Path(__file__).parents[1] / "results.json"
LONGEST_SECONDS = 900.0
PEER_TABLE = """
CREATE TABLE bench_peer (
  id BIGINT PRIMARY KEY, label VARCHAR(8) NOT NULL, score DOUBLE NOT NULL,
  model_version INT NOT NULL, updated_at DATETIME(6) NOT NULL)
"""
CHECK = "SELECT COUNT(*), SUM(CRC32(CONCAT_WS(',', id, label))), AVG(score) FROM {table}"


def main() -> None:
    """Measure everything, or what the options ask for."""
    options = _options()
    HOME.mkdir(parents=True, exist_ok=True)
    if not options.without_peers:
        install()
    results = json.loads(RESULTS.read_text()) if options.keep and RESULTS.exists() else {}
    results |= {"machine": machine(), "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder, private_mariadb(Path(folder) / "db") as server:
        for kind, rows in (("recipes", options.recipes), ("steps", options.steps)):
            if rows:
                results[kind] = race(kind, rows, server, options)
                _save(results)
        if options.growth:
            results["growth"] = growth(server, options)
            _save(results)
        if options.delta:
            results["delta"] = delta.measured(Path(folder), server, options.rounds)
            results["learning"] = learning.measured(HOME, options.rounds)
    _save(results)
    print(json.dumps(results["keys"], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=160_000)
    parser.add_argument("--steps", type=int, default=480_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth", type=int, default=1_000_000, help="Steps for memory; 0: none.")
    parser.add_argument("--no-delta", dest="delta", action="store_false")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--keep", action="store_true", help="Keep results of what is not measured.")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Where this was measured."""
    model_name = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {"cores": os.cpu_count(), "cpu": model_name, "python": platform.python_version()}


def race(kind: str, rows: int, server: MariaDb, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders on one kind of rows, in turn, so many rounds after one in which memory is looked at."""
    source, parts = corpus.parts(HOME, kind, rows)
    told = _told(kind, parts, server)
    contenders = [OURS, SCRIPT, *(() if options.without_peers else OTHERS)]
    reasons = {c.name: missing(c) for c in contenders}
    runs: dict[str, list[dict[str, float]]] = {c.name: [] for c in contenders}
    peaks: dict[str, float] = {}
    floor = Floor(HOME, parts, Path(str(told["weights"])))
    floors: list[float] = []
    expected = None
    for number in range(1 + options.rounds):
        for contender in contenders:
            if reasons[contender.name]:
                continue
            database = f"{kind}_{number}_{contender.name}"
            try:
                got, answer = _run(contender, told, server, database, memory=not number)
            except FailedError as error:
                reasons[contender.name] = str(error)
                continue
            expected = expected or answer
            reasons[contender.name] = _difference(answer, expected)
            if got.peak_pss_mb is None:
                runs[contender.name].append(got.to_json())
            else:
                peaks[contender.name] = got.peak_pss_mb
            print(f"{kind} round {number}: {contender.name:<12} {rows / got.seconds:>9,.0f}/s")
        if floor.missing is None and number:
            floors.append(floor.seconds())
            print(f"{kind} round {number}: floor        {rows / floors[-1]:>9,.0f}/s")
    left_out = {name: reason for name, reason in reasons.items() if reason}
    return {
        "rows": rows, "source": source, "runs": runs, "peak_pss_mb": peaks, "floor": floors,
        "left_out": left_out,
    }  # fmt: skip


def _told(kind: str, parts: list[Path], server: MariaDb) -> dict[str, Any]:
    """What each contender is told, but for its table."""
    fitted = model.made(kind, parts[0])
    weights = model.weights(fitted, HOME / f"{kind}.npz")
    told = {
        "kind": kind, "parts": str(parts[0].parent), "weights": str(weights),
        "workers": os.cpu_count(), "host": server.host, "port": server.port,
        "user": server.admin, "password": server.admin_password,
    }  # fmt: skip
    return told | prepare(kind, parts, fitted, HOME)


def _run(
    contender: Contender, told: Mapping[str, Any], server: MariaDb, database: str, *, memory: bool
) -> tuple[Measured, tuple[Any, ...]]:
    """One run into a database of its own; what it took and what the table then holds."""
    admin = MysqlAddress(
        server.host, server.port, "mysql", server.admin, FixedPassword(server.admin_password),
        verify_tls=False,
    )  # fmt: skip
    with closing(connect(admin)) as connection:
        connection.query(f'CREATE DATABASE "{database}"')
    try:
        table = JOBS[told["kind"]].output.table.name if contender is OURS else "bench_peer"
        if contender is not OURS:
            with closing(connect(replace(admin, database=database))) as connection:
                connection.query(PEER_TABLE)
        arguments = json.dumps({**told, "table": table, "database": database})
        command = [*contender.command, arguments]
        got = measure(command, contender.cwd, os.environ, LONGEST_SECONDS, memory=memory)
        # A new connection: the server closes those that slept through a slow contender.
        with (
            closing(connect(replace(admin, database=database))) as connection,
            closing(connection.cursor()) as cursor,
        ):
            cursor.execute(CHECK.format(table=table))
            return got, cursor.fetchone()
    finally:
        with closing(connect(admin)) as connection:
            connection.query(f'DROP DATABASE "{database}"')


def _difference(answer: tuple[Any, ...], expected: tuple[Any, ...]) -> str | None:
    """What is wrong with a contender's table; None when it is the same."""
    same = answer[:2] == expected[:2] and abs(answer[2] - expected[2]) < 1e-9  # noqa: PLR2004
    return None if same else f"its table differs: {answer} instead of {expected}"


def growth(server: MariaDb, options: argparse.Namespace) -> dict[str, float]:
    """Peak memory of our processes over many rows and over a tenth of them."""
    peaks = {}
    for rows in (options.growth // 10, options.growth):
        _, parts = corpus.parts(HOME, "steps", rows)
        told = _told("steps", parts, server)
        got = [
            _run(OURS, told, server, f"growth_{rows}_{n}", memory=True)[0]
            for n in range(options.rounds)
        ]
        peaks[str(rows)] = statistics.median(one.peak_pss_mb or 0.0 for one in got)
        print(f"{rows:,} steps: {peaks[str(rows)]:,.0f} MB")
    return peaks


def _save(results: dict[str, Any]) -> None:
    results["keys"] = report.keys(results, RESULTS.with_name("wires.json"))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, ROOT / "docs")


if __name__ == "__main__":
    main()
