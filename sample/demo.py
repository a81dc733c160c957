"""The main job, end to end: what ``make run`` and ``make run-real`` show.

Day one: load the kitchen, train both classifiers, infer everything. Day two: some recipes are added,
edited and deleted; infer again, which takes the delta only. Every step is a command that can be
typed by hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from mlbatch.project import load_job
from mlbatch.settings import DEVSTACK, HOME, load_settings
from mlbatch.wiring import connect
from sample.kitchen import load_first_day, load_next_day, recipes

ROOT = Path(__file__).parents[1]
JOBS = ("recipe_classifier", "step_classifier")
SHOWN = 8


@click.command()
@click.option("--profile", default="default", help="Where to run it; devstack: on real wires.")
def main(profile: str) -> None:
    """Run the demonstration in the project's folder, from scratch."""
    choose(profile)
    if profile == "default":
        _clear()
    else:
        _type("doctor", may_fail=True)
    tools = connect(load_settings(ROOT), lambda *_: None)
    _say("Day one: a year of recipes, labelled by hand, is copied into the warehouse")
    for table, rows in load_first_day(tools.warehouse).items():
        click.echo(f"  {table:<14} {rows:>6,} rows")
    for job in JOBS:
        _type("run", job, "--mode", "train")
    _type("plan", JOBS[0])
    for job in JOBS:
        _type("run", job, "--mode", "infer")
    _say("Day two: recipes are added, edited and deleted; only they are read again")
    changed = load_next_day(tools.warehouse)
    click.echo("  " + ", ".join(f"{len(ids)} {verb}" for verb, ids in changed.items()))
    for job in JOBS:
        _type("run", job, "--mode", "infer")
    _say("Predictions, as other departments find them in the tables")
    _show(changed["add"] + changed["edit"])
    _type("status")
    _say("Where to look next")
    click.echo("  mlbatch show recipe_classifier      what its table means, its model, its runs")
    if profile == "default":
        click.echo(f"  sqlite3 {HOME}/outputs.db           the tables themselves")
        click.echo(f"  mlflow ui --backend-store-uri sqlite:///{HOME}/mlflow/mlflow.db")
    click.echo("  jobs/recipe_classifier/README.md    the model card; CONTRIBUTING.md: add a job")


def choose(profile: str) -> None:
    """For this process and the commands that it starts: a sample does not write where somebody works."""
    for name in [name for name in os.environ if name.startswith("MLBATCH_")]:
        del os.environ[name]
    os.environ["MLBATCH_PROFILE"] = profile


def _clear() -> None:
    """Start anew, but leave the devstack alone: it may be running."""
    for found in (ROOT / HOME).glob("*"):
        if found.is_dir() and found.name != DEVSTACK:
            shutil.rmtree(found)
        elif found.is_file() and not found.name.startswith(DEVSTACK):
            found.unlink()


def _say(text: str) -> None:
    click.echo(f"\n== {text}")


def _type(*arguments: str, may_fail: bool = False) -> None:
    """Run one mlbatch command as a person would, and stop the show when it fails."""
    click.echo(f"\n$ mlbatch {' '.join(arguments)}")
    command = Path(sys.executable).with_name("mlbatch")
    code = subprocess.run([command, *arguments], cwd=ROOT, check=False).returncode
    if code and not may_fail:
        sys.exit(code)


def _show(changed: list[int]) -> None:
    tools = connect(load_settings(ROOT), lambda *_: None)
    console = Console(width=110)
    titles = {
        r["id"]: r["title"] for day in ("kitchen", "next_day") for r in recipes(day) if "title" in r
    }
    kinds = Table(
        "recipe", "title", "label", "score", title="recipe_category, of day two's recipes"
    )
    table = load_job(ROOT, "recipe_classifier").output.table
    for row in tools.sink.rows(table).read_all().to_pylist():
        if row["recipe_id"] in changed[:SHOWN]:
            title = titles[row["recipe_id"]]
            kinds.add_row(str(row["recipe_id"]), title, row["label"], f"{row['score']:.2f}")
    console.print(kinds)
    _show_steps(console, changed[:2])


def _show_steps(console: Console, changed: list[int]) -> None:
    tools = connect(load_settings(ROOT), lambda *_: None)
    texts = {
        row["id"]: row["text"]
        for row in tools.warehouse.fetch(
            "SELECT id, text FROM steps WHERE deleted_at IS NULL"
        ).to_pylist()
    }
    lines = Table("line", "text", "is_step", "score", title="step_or_not, of two of them")
    table = load_job(ROOT, "step_classifier").output.table
    for row in tools.sink.rows(table).read_all().to_pylist():
        if row["recipe_id"] in changed:
            verdict = "step" if row["is_step"] else "-"
            lines.add_row(
                str(row["step_id"]), texts[row["step_id"]], verdict, f"{row['score']:.2f}"
            )
    console.print(lines)


if __name__ == "__main__":
    main()
