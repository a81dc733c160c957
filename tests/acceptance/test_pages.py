"""Figures, names and commands on the pages, each looked up where it comes from."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from typing import get_args

import click
import pytest
from test_documents import PAGES, ROOT, kinds, page

from mlbatch.cli.main import cli
from mlbatch.devstack.redshift.faults import Fault, Kind
from mlbatch.errors import ExitCode
from mlbatch.settings import Settings, load_settings

ABSENT = {"none", "required", "AWS", "AWS's own chain", "the bucket's", "the system's"}


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def without_code(text):
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("file", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_anchors_lead_to_a_heading(file):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page(file)):
        there = (file.parent / target) if target else file
        headings = re.findall(r"^#+ (.+)$", without_code(page(there)), re.MULTILINE)
        assert anchor in map(slug, headings), f"{target}#{anchor}"


@pytest.mark.parametrize("file", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_targets_that_a_page_names_exist(file):
    makefile = page("Makefile")
    for code in re.findall(r"`([^`\n]+)`", without_code(page(file))):
        if re.fullmatch(r"(?:tests|mlbatch|sample|benchmarks|deploy|docs)/[\w./-]+\.\w+", code):
            assert (ROOT / code).exists(), code
        target = re.fullmatch(r"make ([a-z-]+)", code)
        if target:
            assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), code


def typed_commands():
    for file in PAGES:
        blocks = re.findall(r"```(?:console|sh)\n(.*?)```", page(file), re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        for line in lines:
            typed = line.removeprefix("$ ")
            if typed.startswith("mlbatch "):
                yield pytest.param(typed, id=f"{file.name}-{typed.partition('#')[0].strip()}")


@pytest.mark.parametrize("typed", list(typed_commands()))
def test_a_command_on_a_page_can_be_typed(typed):
    """Names and options are right; nothing is run."""
    words = shlex.split(typed, comments=True)[1:]
    command, context = cli, None
    while isinstance(command, click.Group):
        context = command.make_context(command.name, words, parent=context)
        rest = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, rest)
        assert command is not None, name
    command.make_context(command.name, words, parent=context)


def setting_rows():
    row = re.compile(r"^\| `([\w.]+)` \| (.+?) \| `(\w+)` \| (.+?) \|$", re.MULTILINE)
    return row.findall(page("docs/settings.md"))


def homes(name, means):
    """The fields that a row of the page is about: of the kinds that it begins with."""
    section, _, key = name.partition(".")
    if not key:
        return [Settings.model_fields[section]]
    sections = [
        k for k in kinds(Settings.model_fields[section].annotation) if hasattr(k, "model_fields")
    ]
    sections = sections or [Settings.model_fields[section].annotation]
    named = means.partition(":")[0].split(", ")
    of_kind = [s for s in sections if "kind" in s.model_fields and kind_of(s) in named]
    found = [s.model_fields[key] for s in of_kind or sections if key in s.model_fields]
    assert found, name
    return found


def kind_of(section):
    return get_args(section.model_fields["kind"].annotation)[0]


@pytest.mark.parametrize(("name", "default", "variable", "means"), setting_rows())
def test_a_setting_s_default_is_the_one_on_the_page(name, default, variable, means):
    assert variable == "MLBATCH_" + name.upper().replace(".", "__")
    told = default.strip("`")
    if name.endswith(".kind"):
        assert told == Settings.model_fields[name.partition(".")[0]].default.kind
        return
    for field in homes(name, means):
        if name == "workers":
            assert told == "one per core"
        elif field.is_required():
            assert told == "required" or (name.endswith(".endpoint") and told == "AWS")
        elif field.default is None or field.default == "":
            assert told in ABSENT - {"required"}
        else:
            assert told == str(field.default).replace("True", "true")


def test_each_kind_of_a_section_is_on_the_page():
    rows = {name: (default, means) for name, default, _, means in setting_rows()}
    for section, field in Settings.model_fields.items():
        known = [
            kind_of(k) for k in kinds(field.annotation) if "kind" in getattr(k, "model_fields", {})
        ]
        for kind in known:
            assert f"`{kind}`" in " ".join(rows[f"{section}.kind"])


def toml_blocks():
    for file in PAGES:
        for block in re.findall(r"```toml\n(.*?)```", page(file), re.DOTALL):
            yield pytest.param(block, id=str(file.relative_to(ROOT)))


@pytest.mark.parametrize("block", list(toml_blocks()))
def test_settings_on_a_page_are_taken(tmp_path, block):
    profiles = tomllib.loads(block)["profiles"]
    (tmp_path / "mlbatch.toml").write_text(block, encoding="utf-8")
    for name in profiles:
        assert load_settings(tmp_path, name).profile == name


def test_the_kills_that_the_readme_counts_are_those_of_the_proof():
    kills = re.findall(r"\| ([\d,]+) kill -9 \|", page("docs/proof.md"))
    counted = re.search(r"\[([\d,]+) kills and what they lost: nothing\]", page("README.md"))
    assert int(counted[1].replace(",", "")) == sum(int(n.replace(",", "")) for n in kills)
    kinds = "kills|workers|network|zombies|storage|warehouse|failpoints|pairs"
    lines = re.findall(rf"^\| (?:{kinds}) .*$", page("docs/proof.md"), re.MULTILINE)
    assert lines
    assert [line for line in lines if " | 0 / 0 / 0 | 0 | " not in line] == []


def test_every_fault_of_the_stand_in_is_described():
    text = page("docs/devstack.md")
    rows = dict(re.findall(r"^\| `(\w+)` \| .+? \| (.*?) ?\|$", text, re.MULTILINE))
    assert set(get_args(Kind)) <= set(rows)
    for kind in get_args(Kind):
        for name in re.findall(r"`(\w+)`", rows[kind]):
            assert name in Fault.__dataclass_fields__
    example = re.search(r"-d '(\{.*?\})'", text)[1]
    assert Fault.of(json.loads(example)).times == 1


def test_the_variables_for_real_services_are_read_by_the_tests():
    read = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"MLBATCH_TEST_\w+", page("docs/unconfirmed.md")))
    assert named
    for name in named:
        assert f'"{name}"' in read, name


def test_the_japanese_page_has_every_exit_code():
    sentence = re.search(r"終了コードは(.+?)です。", page("README.ja.md"), re.DOTALL)[1]
    told = set(map(int, re.findall(r"\d+", sentence)))
    assert told == {code.value for code in ExitCode}


def test_every_decision_is_numbered_in_order():
    files = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        assert page(file).startswith(f"# {int(file.name[:4])}. "), file.name
