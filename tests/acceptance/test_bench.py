"""The benchmark of scoring runs, and what it compares is compared: tiny, and without anybody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from servers import need_mariadb

from benchmarks.scoring import corpus, report

ROOT = Path(__file__).parents[2]


def test_no_two_texts_are_alike_and_all_have_their_length(tmp_path):
    given = [f"{n}番の文です。" for n in range(50)]
    texts = list(corpus.texts("recipes", 200, given))
    assert len(set(texts)) == 200
    assert all(270 <= len(text) <= 400 for text in texts)
    assert texts == list(corpus.texts("recipes", 200, given))


def raced(**seconds):
    runs = {
        name: [{"seconds": s, "whole_seconds": s + 1, "cpu_seconds": 2 * s} for s in (s, s, 3 * s)]
        for name, s in seconds.items()
    }
    peaks = dict.fromkeys(seconds, 100.0)
    told = {"runs": runs, "peak_pss_mb": peaks, "floor": [0.5], "left_out": {}}
    return {"rows": 1_000, "source": "x", **told}


def test_keys_are_ratios_of_medians(tmp_path):
    wires = tmp_path / "wires.json"
    wires.write_text(json.dumps({"sink_vs_bare_load_data": 0.9}))
    race = raced(mlbatch=1.0, script=0.8, naive=4.0, ray=2.0)
    found = report.keys({"recipes": race}, wires)
    assert found["recipes_vs_best_peer"] == found["recipes_vs_ray"] == 2.0
    assert found["recipes_vs_naive"] == 4.0
    assert found["recipes_vs_floor"] == 0.5
    assert found["safety_cost_max"] == 1.25
    assert found["sink_vs_bare_load_data"] == 0.9
    assert found["recipes_vs_awswrangler"] is None
    assert set(found) == set(report.GOALS)


def test_the_page_says_what_was_reached_and_who_was_left_out(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    race = raced(mlbatch=1.0, script=0.8, naive=2.0) | {"left_out": {"ray": "no wheel"}}
    results = {"machine": {"cpu": "c", "cores": 2, "python": "3"}, "rounds": 3, "recipes": race}
    results["keys"] = report.keys(results, tmp_path / "none.json")
    report.write(results, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `recipes_vs_naive` | >= 2.8 | **2.00** |" in text
    assert "| `safety_cost_max` | <= 1.15 | **1.25** |" in text
    assert "a whole inference, with every safety on | 1,000 | 2.0 | 2,000 | 100 |" in text
    assert "Left out: ray: no wheel." in text
    assert "<svg" in (tmp_path / "performance.svg").read_text()


def test_ours_and_the_script_write_the_same_table(tmp_path):
    need_mariadb()
    code = f"""
from pathlib import Path
import benchmarks.scoring.__main__ as bench
bench.HOME, bench.RESULTS = Path({str(tmp_path)!r}), Path({str(tmp_path / "results.json")!r})
bench.report.write = lambda *_: None
bench.main()
"""
    options = "--recipes 300 --steps 0 --rounds 1 --growth 0 --no-delta --without-peers"
    environment = os.environ | {"MLBATCH_SHARED_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *options.split()], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["recipes"]["left_out"] == {}
    assert [len(runs) for runs in results["recipes"]["runs"].values()] == [1, 1]
    assert results["recipes"]["source"] == "sample kitchen"
    assert results["keys"]["safety_cost_max"] > 0
    assert results["keys"]["peak_pss_mb_max"] > 0


def test_a_profile_names_every_stage(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scoring.profiled", "--recipes", "60", "--steps", "80"],
        cwd=ROOT, env=os.environ | {"MLBATCH_SHARED_DATA": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for kind in ("60 recipes", "80 steps"):
        assert f"{kind} on " in done.stdout
    for stage in ("unload", "ledger", "verify", "normal form", "MeCab", "hashing", "checksum"):
        assert done.stdout.count(f"  {stage} ") == 2, stage
