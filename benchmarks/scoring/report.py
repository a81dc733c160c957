"""What the measurements come to: the keys of results.json, a table and a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.scoring.contenders import OTHERS, OURS, SCRIPT

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
GOALS = {
    "recipes_vs_best_peer": 2.3, "steps_vs_best_peer": 3.0,
    "recipes_vs_naive": 2.8, "steps_vs_naive": 4.0,
    "recipes_vs_awswrangler": 2.7, "steps_vs_awswrangler": 3.5,
    "recipes_vs_ray": 4.0, "steps_vs_ray": 8.0,
    "recipes_vs_floor": 0.85, "steps_vs_floor": 0.70,
    "sink_vs_bare_load_data": 0.8, "read_vs_raw_get": 0.85,
    "memory_growth_1m_vs_100k_max": 1.10, "peak_pss_mb_max": 600.0,
    "delta_5k_vs_import_floor_max": 1.5, "safety_cost_max": 1.15,
    "second_epoch_speedup": 4.0,
}  # fmt: skip
"""At least this much; where a key ends in ``_max``, at most."""


def rate(raced: Mapping[str, Any], name: str) -> float | None:
    """Rows a second, from the median of the runs; None where there are none."""
    runs = raced["runs"].get(name, []) if name != "floor" else raced["floor"]
    seconds = [run["seconds"] if isinstance(run, dict) else run for run in runs]
    return raced["rows"] / statistics.median(seconds) if seconds else None


def keys(results: Mapping[str, Any], wires: Path) -> dict[str, float | None]:
    """Every key that could be measured; the others are None."""
    found: dict[str, float | None] = dict.fromkeys(GOALS)
    for kind in ("recipes", "steps"):
        if kind in results:
            found |= _race_keys(kind, results[kind])
    if "recipes" in results:
        found["peak_pss_mb_max"] = results["recipes"]["peak_pss_mb"].get(OURS.name)
        costs = [_cost(results[kind]) for kind in ("recipes", "steps") if kind in results]
        found["safety_cost_max"] = max((cost for cost in costs if cost), default=None)
    if wires.exists():
        measured = json.loads(wires.read_text())
        measured = measured.get("keys", measured)
        for key in ("sink_vs_bare_load_data", "read_vs_raw_get"):
            found[key] = measured.get(key)
    if "growth" in results:
        small, large = results["growth"].values()
        found["memory_growth_1m_vs_100k_max"] = large / small
    if "delta" in results:
        found["delta_5k_vs_import_floor_max"] = results["delta"]["ratio"]
        found["second_epoch_speedup"] = results["learning"]["ratio"]
    return {key: None if value is None else round(value, 3) for key, value in found.items()}


def _race_keys(kind: str, raced: Mapping[str, Any]) -> dict[str, float | None]:
    ours = rate(raced, OURS.name)
    peers = {peer.name: rate(raced, peer.name) for peer in OTHERS}
    best = max((value for value in peers.values() if value), default=None)
    against = {
        "best_peer": best, "naive": peers["naive"], "awswrangler": peers["awswrangler"],
        "ray": peers["ray"], "floor": rate(raced, "floor"),
    }  # fmt: skip
    return {
        f"{kind}_vs_{name}": ours / other if ours and other else None
        for name, other in against.items()
    }


def _median(raced: Mapping[str, Any], name: str, what: str) -> float | None:
    runs = raced["runs"].get(name, [])
    return statistics.median(run[what] for run in runs) if runs else None


def _cost(raced: Mapping[str, Any]) -> float | None:
    ours, script = (_median(raced, c.name, "cpu_seconds") for c in (OURS, SCRIPT))
    return ours / script if ours and script else None


def write(results: Mapping[str, Any], docs: Path) -> None:
    """Renew the measured part of docs/performance.md, and its picture."""
    page = docs / "performance.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{_measured(results)}\n{END}{after}", encoding="utf-8")
    _draw(results, docs / "performance.svg")


def _measured(results: Mapping[str, Any]) -> str:
    about = results["machine"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}; medians of"
        f" {results['rounds']} runs in turn.",
        "",
        *_key_table(results["keys"]),
    ]
    for kind in ("recipes", "steps"):
        if kind in results:
            lines += ["", *_race_table(kind, results[kind])]
    return "\n".join(lines)


def _key_table(found: Mapping[str, float | None]) -> list[str]:
    lines = ["| key | goal | measured |", "|---|---|---|"]
    for key, goal in GOALS.items():
        sign, value = "<=" if key.endswith("_max") else ">=", found[key]
        told = "not measured" if value is None else f"{value:,.2f}"
        reached = value is not None and (value <= goal if sign == "<=" else value >= goal)
        lines.append(f"| `{key}` | {sign} {goal:g} | {told if reached else f'**{told}**'} |")
    return lines


def _race_table(kind: str, raced: Mapping[str, Any]) -> list[str]:
    lines = [
        f"**{raced['rows']:,} {kind}**, from {raced['source']}:",
        "",
        "| who | rows/s | whole command s | CPU s / million rows | peak PSS MB |",
        "|---|---|---|---|---|",
    ]
    for contender in (OURS, SCRIPT, *OTHERS):
        speed = rate(raced, contender.name)
        if speed is None:
            continue
        cpu = _median(raced, contender.name, "cpu_seconds") or 0.0
        whole = _median(raced, contender.name, "whole_seconds") or 0.0
        figures = f"{speed:,.0f} | {whole:,.1f} | {cpu * 1e6 / raced['rows']:,.0f}"
        peak = raced["peak_pss_mb"][contender.name]
        lines.append(f"| {contender.name}: {contender.about} | {figures} | {peak:,.0f} |")
    floor = rate(raced, "floor")
    if floor is not None:
        lines.append(f"| the floor: C++, nothing read, nothing written | {floor:,.0f} | | | |")
    lines += [f"\nLeft out: {name}: {why}." for name, why in raced["left_out"].items()]
    return lines


def _draw(results: Mapping[str, Any], file: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "mlbatch"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    kinds = [kind for kind in ("recipes", "steps") if kind in results]
    if not kinds:
        return
    figure, axes = plt.subplots(1, len(kinds), figsize=(5 * len(kinds), 3.2), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        names = [c.name for c in (OURS, SCRIPT, *OTHERS)] + ["floor"]
        speeds = {name: rate(results[kind], name) for name in names}
        shown = [name for name in reversed(names) if speeds[name]]
        colours = [
            "#d95f02" if n == OURS.name else "#bbb" if n == "floor" else "#7a8ba3" for n in shown
        ]
        axis.barh(shown, [speeds[name] for name in shown], color=colours)
        axis.set_title(f"{kind}, rows a second")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
