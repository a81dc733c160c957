"""Who is measured: mlbatch, what one would write instead, and what nobody can go below."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / ".venv-peers"
PACKAGES = (
    "awswrangler[mysql]", "pandas", "pymysql", "sqlalchemy", "ray[data]", "pyspark", "metaflow",
    "mecab-python3", "ipadic", "scikit-learn", "setuptools<81",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of scoring the same parts into the same kind of table."""

    name: str
    about: str
    command: tuple[str, ...]
    cwd: Path
    needs: str = ""
    """Module that must be importable in its environment; empty for our own."""


def _ours(name: str, module: str, about: str) -> Contender:
    return Contender(name, about, (sys.executable, "-m", f"benchmarks.scoring.{module}"), ROOT)


def _peer(name: str, script: str, about: str, needs: str) -> Contender:
    python = str(PEERS / "bin" / "python")
    return Contender(name, about, (python, f"{script}.py"), HERE / "peers", needs)


OURS = _ours("mlbatch", "ours", "a whole inference, with every safety on")
SCRIPT = _ours("script", "script", "the best script by hand, without any safety")
OTHERS = (
    _peer("naive", "pandas_to_sql", "pandas and to_sql", "sqlalchemy"),
    _peer("pandas", "pandas_executemany", "pandas and executemany", "pandas"),
    _peer("awswrangler", "awswrangler_upsert", "pandas and awswrangler's upsert", "awswrangler"),
    _peer("ray", "ray_data", "Ray Data, an actor a core", "ray"),
    _peer("spark", "spark", "Spark, mapInPandas", "pyspark"),
    _peer("metaflow", "metaflow_foreach", "Metaflow, foreach over the cores", "metaflow"),
)


def install() -> None:
    """Make the peers' environment; what cannot be installed is found missing by `missing`."""
    uv = str(Path(sys.executable).with_name("uv"))
    if not PEERS.exists():
        subprocess.run([uv, "venv", "--quiet", str(PEERS)], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", str(PEERS / "bin" / "python")]
    if subprocess.run([*command, *PACKAGES], check=False).returncode:
        for package in PACKAGES:
            subprocess.run([*command, package], check=False)


def missing(contender: Contender) -> str | None:
    """Why a contender cannot run here; None when it can."""
    if not contender.needs:
        return None
    command = [contender.command[0], "-c", f"import {contender.needs}"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else None
