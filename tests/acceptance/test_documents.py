"""What the documents say is what the program does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import numpy as np
import pyarrow as pa
import pytest

from mlbatch import Prediction
from mlbatch.cli.devstack import down_command, up_command
from mlbatch.cli.doctor import doctor_command
from mlbatch.cli.look import list_command, status_command
from mlbatch.cli.main import _COMMANDS
from mlbatch.cli.mend import reconcile_command, retry_command
from mlbatch.cli.plan import plan_command
from mlbatch.cli.show import show_command
from mlbatch.cli.switch import switch_command
from mlbatch.cli.work import register_command, run_command
from mlbatch.errors import ExitCode
from mlbatch.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    p
    for p in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)
)
COMMANDS = (
    run_command, register_command, plan_command, list_command, show_command, status_command, doctor_command,
    up_command, down_command, reconcile_command, retry_command, switch_command,
)  # fmt: skip


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(file):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), target


def test_every_command_option_and_exit_code_is_described():
    text = page("docs/cli.md")
    for name in _COMMANDS:
        assert f"`{name}" in text
    for command in COMMANDS:
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"`{parameter.opts[0]}`" in text
    for code in ExitCode:
        assert re.search(rf"^\| {code.value} \|", text, re.MULTILINE)


def test_the_page_of_commands_names_the_variables_of_its_settings():
    text = page("docs/cli.md")
    settings = [n for n, f in Settings.model_fields.items() if f.annotation in (int, str)]
    for name in (*settings, "section__key"):
        assert f"| `MLBATCH_{name.upper()}` |" in text


def test_every_setting_is_described():
    text = page("docs/settings.md")
    for name, field in Settings.model_fields.items():
        sections = [kind for kind in kinds(field.annotation) if hasattr(kind, "model_fields")]
        for section in sections:
            for key in section.model_fields:
                assert f"`{name}.{key}`" in text
                assert f"`MLBATCH_{name.upper()}__{key.upper()}`" in text
        if not sections and name not in ("root", "profile"):
            assert f"`{name}`" in text


def kinds(annotation):
    """The sections that a setting may be, by its kind."""
    parts = get_args(annotation)
    return [kind for part in parts for kind in kinds(part)] if parts else [annotation]


def test_every_room_has_its_floor_on_the_page():
    text = page("ARCHITECTURE.md")
    for room in (ROOT / "mlbatch").iterdir():
        name = room.stem
        if not name.startswith("_"):
            assert f"`{name}" in text, name


def test_the_job_in_the_readme_is_the_job_that_ships():
    code = page("jobs/step_classifier/job.py")
    block = re.search(r"```python\n(.*?)```", page("README.md"), re.DOTALL).group(1)
    for line in ('inputs = ("text",)', "output = StepOrNot", "training = Training("):
        assert line in block
        assert line in code
    training = re.search(r"training = (Training\(.*\))", block).group(1)
    assert training in code


def test_the_rule_beside_the_model_answers_as_the_page_says():
    block = re.search(r"```py\n(.*?)\n\n\nclass", page("CONTRIBUTING.md"), re.DOTALL).group(1)
    names = {}
    exec(block, names)
    batch = pa.record_batch({"name": ["たら でんぶ", "りんご"]})
    answer = names["predict"](_Fruit(), batch)
    assert (answer.labels, answer.scores.tolist()) == (["fish", "fruit"], [1.0, 0.5])


class _Fruit:
    def predict(self, batch):
        return Prediction(["fruit"] * len(batch), np.full(len(batch), 0.5))


def test_the_page_of_bad_inputs_is_what_the_tests_say():
    command = [sys.executable, "-m", "bad_inputs.page", "--check"]
    places = {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | places, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def blocks(text):
    for language, content in re.findall(r"```(python|sql)\n(.*?)```", text, re.DOTALL):
        marker = "#" if language == "python" else "--"
        first, _, rest = content.partition("\n")
        yield first.removeprefix(marker).strip(), rest


FOODS = {
    "fruit": ["りんご", "みかん", "バナナ", "ぶどう 生", "いちご ジャム", "もも 缶詰", "なし", "かき 干し"],
    "fish": ["まぐろ 赤身", "さけ 焼き", "さば 水煮", "いわし 生", "たら でんぶ", "あじ 干物", "ぶり", "かつお節"],
    "grain": ["米 精白", "小麦粉", "そば 生", "うどん ゆで", "もち", "オートミール", "パン 食パン", "とうもろこし"],
}  # fmt: skip


def test_the_seven_steps_lead_to_a_job_that_runs(tmp_path):
    (tmp_path / "mlbatch.toml").touch()
    lines = 0
    for name, content in blocks(page("CONTRIBUTING.md")):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        if name.startswith(("jobs", "feature_store")):
            lines += sum(bool(line.strip()) for line in content.splitlines())
    assert lines < 40
    rows = [(name, label) for label, names in FOODS.items() for name in names for _ in range(4)]
    foods = ", ".join(
        f"{{'id': {n}, 'name': '{name} {n}', 'updated_at': datetime(2026, 1, 1)}}"
        for n, (name, _) in enumerate(rows)
    )
    labels = ", ".join(
        f"{{'food_id': {n}, 'label': '{label}'}}" for n, (_, label) in enumerate(rows)
    )
    loader = tmp_path / "load_foods.py"
    text = loader.read_text(encoding="utf-8").replace("[...]", f"[{foods}]", 1)
    loader.write_text("from datetime import datetime\n" + text.replace("[...]", f"[{labels}]", 1))
    mlbatch = Path(sys.executable).with_name("mlbatch")
    for command in (
        [sys.executable, loader],
        [mlbatch, "list"],
        [mlbatch, "plan", "food_group"],
        [mlbatch, "run", "food_group", "--mode", "train"],
        [mlbatch, "run", "food_group", "--mode", "infer"],
        [mlbatch, "show", "food_group"],
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "tests"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
