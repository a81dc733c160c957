"""The rows that everybody scores: Parquet parts of 20,000 texts, no two alike, made from real sentences.

Real ones are found through MLBATCH_SHARED_DATA; without them, the sample kitchen's lines are put together,
which is said in the results.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sample.kitchen import recipes

ROOT = Path(__file__).parents[2]
PART_ROWS = 20_000
CHANGED = datetime(2026, 1, 1)
LENGTHS = {"recipes": (270, 400), "steps": (30, 50)}
"""Fewest and most characters of a text of each kind."""


def sentences() -> tuple[str, list[str]]:
    """Where the sentences come from, and they."""
    folder = Path(os.environ.get("MLBATCH_SHARED_DATA", ROOT.parent / "shared" / "data"))
    file = folder / "economy_watchers_current_ja.jsonl.gz"
    if not file.exists():
        print(f"SKIPPED: {file.name} is not in {folder}; the sample kitchen's lines stand in")
        return "sample kitchen", [text for recipe in recipes() for _, text in recipe["lines"]]
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    found = [f"{part}。" for text in texts for part in re.findall("[^。]{5,80}(?=。)", text)]
    return file.name, found


def texts(kind: str, count: int, given: list[str]) -> Iterator[str]:
    """``count`` different texts of a kind, the same for the same sentences."""
    fewest, most = LENGTHS[kind]
    chance, seen = random.Random(kind), set()
    while len(seen) < count:
        text = ""
        while len(text) < fewest:
            text += chance.choice(given)
        text = text[: chance.randint(fewest, most)]
        if text not in seen:
            seen.add(text)
            yield text


def parts(folder: Path, kind: str, rows: int) -> tuple[str, list[Path]]:
    """Source and files of ``rows`` rows (id, text, updated_at, deleted_at), made when missing."""
    target = folder / f"{kind}-{rows}"
    note = folder / f"{kind}-{rows}.source"
    if not note.exists():
        target.mkdir(parents=True, exist_ok=True)
        source, given = sentences()
        stream = texts(kind, rows, given)
        for low in range(0, rows, PART_ROWS):
            size = min(PART_ROWS, rows - low)
            pq.write_table(_table(low, [next(stream) for _ in range(size)]), _file(target, low))
        note.write_text(source)
    return note.read_text(), sorted(target.glob("*.parquet"))


def _file(target: Path, low: int) -> Path:
    return target / f"{low // PART_ROWS:05}.parquet"


def _table(low: int, lines: list[str]) -> pa.Table:
    count, moment = len(lines), pa.timestamp("us")
    return pa.table(
        {
            "id": pa.array(range(low, low + count), pa.int64()),
            "text": lines,
            "updated_at": pa.array([CHANGED] * count, moment),
            "deleted_at": pa.nulls(count, moment),
        }
    )
