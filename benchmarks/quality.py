"""How good both classifiers are, learnt from the sample kitchen alone, and the job of CONTRIBUTING.

Real text is found through MLBATCH_SHARED_DATA, or in ``../shared/data``; what is not there is said
and left out. Prints the tables of the model cards. Run it with ``make quality``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import f1_score

from jobs.recipe_classifier import model as recipe_model
from jobs.recipe_classifier.job import RecipeCategory, RecipeClassifier
from jobs.step_classifier import model as step_model
from jobs.step_classifier.job import StepClassifier
from mlbatch.fitting import FitResult, LabelledBatch, Plan, fit
from mlbatch.labelled import BATCH_ROWS, fraction
from mlbatch.model import TrainedModel
from sample.kitchen import recipes

SPLITS = 5
FOOD_EPOCHS = 20
"""As the job in CONTRIBUTING.md declares."""
ROOT = Path(__file__).parents[1]

Rows = list[dict[str, Any]]


def shared(name: str) -> Rows | None:
    """A file of real text, or None, said aloud, where there is none."""
    folder = Path(os.environ.get("MLBATCH_SHARED_DATA", ROOT.parent / "shared" / "data"))
    file = folder / name
    if not file.exists():
        print(f"SKIPPED: {name} is not in {folder}; set MLBATCH_SHARED_DATA")
        return None
    content = file.read_bytes()
    text = gzip.decompress(content) if name.endswith(".gz") else content
    return [json.loads(line) for line in text.decode().splitlines()]


def place(*parts: object) -> float:
    """A stable hash of some values in [0, 1)."""
    return fraction(hashlib.md5("/".join(map(str, parts)).encode()).hexdigest())  # noqa: S324


def learn(
    build: Callable[[], Any],
    rows: Rows,
    label: str,
    plan: Plan,
    group: Callable[[dict[str, Any]], object] | None = None,
    at: Callable[[dict[str, Any]], float] | None = None,
) -> FitResult:
    """Fit on rows in the order of a hash.

    ``group`` keeps rows together in every split, or ``at`` says where in [0, 1) each row belongs;
    without either every label is spread evenly over all.
    """
    ordered = sorted(rows, key=lambda row: place(row["id"]))
    if at is None and group is not None:

        def at(row: dict[str, Any]) -> float:
            return place(group(row))

    split = _spread(ordered, label) if at is None else [at(row) for row in ordered]

    batches = [
        LabelledBatch(
            build()[:-1].transform(batch_of(some, plan.inputs)),
            np.array([row[label] for row in some]),
            np.array(split[low : low + BATCH_ROWS]),
        )
        for low in range(0, len(ordered), BATCH_ROWS)
        for some in [ordered[low : low + BATCH_ROWS]]
    ]
    return fit(build, lambda _: batches, plan)


def _spread(rows: Rows, label: str) -> list[float]:
    """A place in [0, 1) for each row, such that each label fills the interval evenly."""
    counts = Counter(row[label] for row in rows)
    seen: Counter[Any] = Counter()
    places = []
    for row in rows:
        places.append(seen[row[label]] / counts[row[label]])
        seen[row[label]] += 1
    return places


def batch_of(rows: Sequence[dict[str, Any]], inputs: tuple[str, ...]) -> pa.RecordBatch:
    """The input columns of some rows."""
    return pa.record_batch({name: [row[name] for row in rows] for name in inputs})


def step_rows() -> Rows:
    """Every line of the kitchen."""
    return [
        {
            "id": f"{r['id']}-{n}",
            "recipe": r["id"],
            "text": text,
            "is_step": kind == "step",
            "kind": kind,
        }
        for r in recipes()
        for n, (kind, text) in enumerate(r["lines"])
    ]


def recipe_rows() -> Rows:
    """Every recipe of the kitchen, as the feature view gives it."""
    return [
        {
            "id": r["id"],
            "title": r["title"],
            "ingredients": " ".join(r["ingredients"]),
            "steps": " ".join(text for _, text in r["lines"]),
            "label": r["category"],
            "dish": r["dish"],
        }
        for r in recipes()
    ]


def step_plan(**changed: float) -> Plan:
    """As the job declares it."""
    training = StepClassifier.training
    values: dict[str, Any] = {
        "classes": (False, True),
        "inputs": ("text",),
        "epochs": training.epochs,
        "folds": training.folds,
        "threshold_recall": training.threshold_recall,
    }
    return Plan(**(values | changed))


def recipe_plan(**changed: float) -> Plan:
    """As the job declares it."""
    training = RecipeClassifier.training
    values: dict[str, Any] = {
        "classes": RecipeCategory.table.column("label").choices,
        "inputs": RecipeClassifier.inputs,
        "epochs": training.epochs,
        "folds": training.folds,
    }
    return Plan(**(values | changed))


def rotated(rows: Rows, turn: int, group: Callable[[dict[str, Any]], object]) -> tuple[Rows, Rows]:
    """The rows of one of five splits by group: to learn from, and to be judged on."""
    out = [int(place("split", group(row)) * SPLITS) == turn for row in rows]
    kept = [row for row, is_out in zip(rows, out, strict=True) if not is_out]
    return kept, [row for row, is_out in zip(rows, out, strict=True) if is_out]


def f1_of_steps() -> list[float]:
    """F1 of "is a step" on unseen recipes, over five splits."""
    figures = []
    for turn in range(SPLITS):
        taught, judged = rotated(step_rows(), turn, lambda row: row["recipe"])
        model = learn(step_model.build, taught, "is_step", step_plan(holdout=0.05), _recipe).model
        told = model.predict(batch_of(judged, ("text",))).labels
        figures.append(f1_score([row["is_step"] for row in judged], told))
    return figures


def f1_of_recipes(group: Callable[[dict[str, Any]], object]) -> list[float]:
    """Macro F1 over five splits by ``group``."""
    figures = []
    for turn in range(SPLITS):
        taught, judged = rotated(recipe_rows(), turn, group)
        model = learn(recipe_model.build, taught, "label", recipe_plan(holdout=0.05)).model
        told = model.predict(batch_of(judged, recipe_plan().inputs)).labels
        figures.append(f1_score([row["label"] for row in judged], told, average="macro"))
    return figures


def _recipe(row: dict[str, Any]) -> object:
    return row["recipe"]


def food_rows() -> Rows | None:
    """Names of foods with their groups, where there are any."""
    found = shared("food_groups_ja.jsonl.gz")
    wanted = {"id": "id", "name": "text_plain", "label": "label"}
    return found and [{name: row[key] for name, key in wanted.items()} for row in found]


def food_model() -> Callable[[], Any]:
    """The model of the page that tells how to add a job, word for word."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(# jobs/food_group/model.py\n.*?)```", page, re.DOTALL)
    if block is None:
        raise LookupError("CONTRIBUTING.md has no jobs/food_group/model.py")
    names: dict[str, Any] = {}
    exec(block[1], names)  # noqa: S102  our own page
    return names["build"]


def food_places(rows: Rows, turn: int, group: Callable[[dict[str, Any]], str]) -> dict[str, float]:
    """A place in [0, 1) for each group, such that the groups of each label fill it evenly."""
    labels = {group(row): row["label"] for row in rows}
    members: dict[str, list[str]] = {}
    for name in sorted(labels, key=lambda name: place(turn, name)):
        members.setdefault(labels[name], []).append(name)
    return {n: i / len(names) for names in members.values() for i, n in enumerate(names)}


def f1_of_foods(rows: Rows, group: Callable[[dict[str, Any]], str]) -> list[float]:
    """Macro F1 on a fifth of each label's groups, chosen anew five times."""
    labels = tuple(sorted({row["label"] for row in rows}))
    # Calibration does not change which label is the likeliest, so that two folds do.
    plan = Plan(classes=labels, inputs=("name",), epochs=FOOD_EPOCHS, folds=2)
    figures = []
    for turn in range(SPLITS):
        places = food_places(rows, turn, group)
        result = learn(food_model(), rows, "label", plan, at=lambda row, p=places: p[group(row)])
        figures.append(result.evaluation.f1_macro)
    return figures


def tell_foods() -> None:
    """The figures of the job that CONTRIBUTING.md adds."""
    rows = food_rows()
    if rows is None:
        return
    print(f"\n## food_group, as CONTRIBUTING.md says: {len(rows):,} foods")
    groups: dict[str, Callable[[dict[str, Any]], str]] = {
        "rows split by a stable hash": lambda row: row["id"],
        # The first word is what foods of one family share.
        "whole families held out": lambda row: row["name"].split()[0],
    }
    for name, group in groups.items():
        figures = f1_of_foods(rows, group)
        each = ", ".join(f"{f:.3f}" for f in figures)
        print(f"macro F1, {name}, five splits: {statistics.mean(figures):.3f} ({each})")


def real_lines() -> dict[str, tuple[list[str], bool]]:
    """Real text by name: the lines, and whether they are steps."""
    found: dict[str, tuple[list[str], bool]] = {}
    lines = shared("steps_ja.jsonl.gz") or []
    for kind, wanted, is_step in (
        ("YouCook2-JP steps", lambda r: r["source"] == "YouCook2-JP", True),
        ("CC0 recipes, steps", lambda r: r["source"].startswith("puri") and r["is_step"], True),
        ("CC0 recipes, descriptions", lambda r: r["kind"] == "description", False),
        ("CC0 recipes, ingredients", lambda r: r["kind"] == "ingredient", False),
        ("shop comments", lambda r: r["kind"] == "shop_comment", False),
    ):
        found[kind] = ([r["text"] for r in lines if wanted(r)], is_step)
    old = shared("recipes_ja_edo.jsonl") or []
    for kind, column in (
        ("Edo, modern steps", "steps"),
        ("Edo, translated steps", "translation_steps"),
        ("Edo, classical steps", "original_steps"),
    ):
        found[kind] = ([t for r in old for t in r.get(column) or []], True)
    found["Edo, tips as they stand"] = (beside_recipes(old), False)
    found["Edo, tips by sentence"] = (tip_sentences(old), False)
    return {name: value for name, value in found.items() if value[0]}


def beside_recipes(old: Rows) -> list[str]:
    """What people wrote beside a recipe, as tips or to describe it: no steps. Some of it repeats."""
    texts = [t for r in old for t in [*(r.get("description") or []), r.get("tips")]]
    return [text for text in texts if text]


def tip_sentences(old: Rows) -> list[str]:
    """The same, in different full sentences: without names of dishes and authors."""
    sentences = [s.strip() for t in beside_recipes(old) for s in re.split(r"(?<=。)|\n", t)]
    return list(dict.fromkeys(s for s in sentences if s.endswith("。")))


def tell_steps() -> None:
    """The step classifier's table."""
    rows = step_rows()
    steps = sum(row["is_step"] for row in rows)
    print(f"\n## step_classifier: {len(rows):,} lines, {steps:,} of them steps")
    figures = f1_of_steps()
    each = ", ".join(f"{f:.3f}" for f in figures)
    print(f"F1 on unseen recipes, five splits: {statistics.mean(figures):.3f} ({each})")
    model = learn(step_model.build, rows, "is_step", step_plan(holdout=0.05), _recipe).model
    print(f"threshold {model.threshold:.3f}, {model.calibration}")
    print(f"| {'real text':<26} | lines | figure      | value |\n|---|---|---|---|")
    for name, (texts, is_step) in real_lines().items():
        print(_line(name, texts, model, is_step=is_step))


def _line(name: str, texts: list[str], model: TrainedModel, *, is_step: bool) -> str:
    told = model.predict(pa.record_batch({"text": texts})).labels
    right = float(np.mean([label == is_step for label in told]))
    figure = "recall" if is_step else "specificity"
    return f"| {name:<26} | {len(texts):5,} | {figure:<11} | {right:.3f} |"


def tell_recipes() -> None:
    """The recipe classifier's table."""
    print(f"\n## recipe_classifier: {len(recipe_rows())} recipes")
    groups: dict[str, Callable[[dict[str, Any]], object]] = {
        "unseen dishes": lambda row: row["dish"],
        "unseen recipes": lambda row: row["id"],
    }
    for name, group in groups.items():
        figures = f1_of_recipes(group)
        each = ", ".join(f"{f:.3f}" for f in figures)
        print(f"macro F1, {name}, five splits: {statistics.mean(figures):.3f} ({each})")
    real = shared("recipes_ja_cc0.jsonl")
    if real is None:
        return
    model = learn(recipe_model.build, recipe_rows(), "label", recipe_plan(holdout=0.05)).model
    rows = [
        {
            "title": r["title"],
            "ingredients": " ".join(r["ingredients"]),
            "steps": " ".join(r["steps"]),
        }
        for r in real
    ]
    answer = model.predict(batch_of(rows, recipe_plan().inputs))
    for row, label, score in zip(rows, answer.labels, answer.scores, strict=True):
        print(f"  {row['title']:<24} {label} {score:.2f}")


if __name__ == "__main__":
    tell_steps()
    tell_recipes()
    tell_foods()
