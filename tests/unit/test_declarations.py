"""Wrong declarations are refused at import, naming file and line."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from bad_inputs import REFUSED, bad_input

from mlbatch.errors import DeclarationError, UsageError
from mlbatch.project import code_digest, find_root, load_job, load_project

VIEW = '''
from datetime import datetime
from typing import Annotated
from mlbatch import Doc, FeatureView

class Notes(FeatureView, entity="note_id", cursor="updated_at", tombstone="deleted_at"):
    """One note a row."""
    owner = "tests"
    note_id: Annotated[int, Doc("Number.")]
    text: Annotated[str, Doc("Text.")]
    updated_at: Annotated[datetime, Doc("Changed.")]
    deleted_at: Annotated[datetime | None, Doc("Deleted.")]
'''
SQL = "SELECT id AS note_id, text, updated_at, deleted_at FROM notes"
LABELS = '''
from typing import Annotated
from mlbatch import Doc, FeatureView

class Moods(FeatureView, entity="note_id"):
    """What people said."""
    owner = "tests"
    note_id: Annotated[int, Doc("Number.")]
    label: Annotated[str, Doc("Mood.")]
'''
JOB = '''
from typing import Annotated, Literal
from mlbatch import Doc, Gate, Ge, Job, Le, Output
from feature_store.notes import Notes
from feature_store.moods import Moods

def build():
    return None

class Mood(Output, table="mood", key="note_id"):
    """Predicted moods."""
    note_id: Annotated[int, Doc("Number.")]
    label: Annotated[Literal["good", "bad"], Doc("Mood.")]
    score: Annotated[float, Ge(0), Le(1), Doc("Sureness.")]

class Toy(Job):
    """Moods of notes."""
    features = Notes
    labels = Moods
    inputs = ("text",)
    model = build
    output = Mood
    owner = "tests"
'''


@pytest.fixture
def project(tmp_path):
    """A project folder that is whole; tests break one thing."""
    (tmp_path / "mlbatch.toml").touch()
    store, job = tmp_path / "feature_store", tmp_path / "jobs" / "toy"
    store.mkdir()
    job.mkdir(parents=True)
    (store / "notes.py").write_text(VIEW)
    (store / "notes.sql").write_text(SQL)
    (store / "moods.py").write_text(LABELS)
    (store / "moods.sql").write_text("SELECT note_id, label FROM moods")
    (job / "job.py").write_text(JOB)
    yield tmp_path
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]
    for name in [n for n in sys.modules if n.partition(".")[0] in ("jobs", "feature_store")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def fault(project):
    (error,) = load_project(project).faults.values()
    return error


def test_a_whole_project_loads(project):
    loaded = load_project(project)
    assert (list(loaded.jobs), loaded.faults) == (["toy"], {})
    job = loaded.job("toy")
    assert job.name == "toy"
    assert job.classes() == ("good", "bad")
    assert job.split_key() == ("note_id",)
    assert load_job(project, "toy") is job


BROKEN_JOBS = [
    ('table="mood"', 'table="Mood!"', "not a portable name", 10),
    ('table="mood"', 'table="mlbatch_mood"', "belong to mlbatch", 10),
    ('key="note_id"', 'key="id"', "no column 'id', named as its key", 10),
    ('key="note_id"', "key=()", "has no key", 10),
    ('key="note_id"', 'key="score"', "cannot be a key", 14),
    ('    """Predicted moods."""\n', "", "has no docstring", 10),
    ('Annotated[int, Doc("Number.")]', "int", "no description", 12),
    ('Annotated[int, Doc("Number.")]', 'Annotated[complex, Doc("x")]', "not a column type", 12),
    ('Annotated[int, Doc("Number.")]', 'Annotated[intt, Doc("x")]', "intt", 12),
    ('Literal["good", "bad"]', "str", "which labels there are", 13),
    ("label: Ann", "mood: Ann", "no column 'label'", 10),
    ("Annotated[float, Ge(0), Le(1)", "Annotated[int, Ge(0), Le(1)", "must be float", 14),
    ("    note_id: Ann", '    run_no: Annotated[int, Doc("x")]\n    note_id: Ann', "written by mlbatch", 12),
    ("    note_id: Ann", '    Note: Annotated[int, Doc("x")]\n    note_id: Ann', "portable name", 10),
    ("    note_id: Ann", '    more: Annotated[int, Doc("x")]\n    note_id: Ann', "neither predicted", 12),
    ("note_id: Annotated[int,", "note_id: Annotated[str,", "differ in type", 12),
    ("    features = Notes\n", "", "lacks `features`", 16),
    ("    model = build\n", "    model = 3\n", "wrong `model`", 16),
    ('    inputs = ("text",)', '    inputs = ("titel",)', "input 'titel'", 16),
    ('    owner = "tests"', '    ownr = "x"\n    owner = "tests"', "unknown attribute `ownr`", 16),
    ("    features = Notes\n", "    features = Moods\n", "no cursor column", None),
    ("    labels = Moods\n", "    labels = Notes\n", "no column 'label' to train with", None),
    ('    """Moods of notes."""\n', "", "has no docstring", 16),
    (
        '    owner = "tests"',
        "    owner = \"tests\"\n    from mlbatch.job import Training\n    training = Training(split_by='x')",
        "unknown attribute",
        16,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message", "line"), BROKEN_JOBS)
def test_a_wrong_job_or_output(project, old, new, message, line):
    change(project / "jobs/toy/job.py", old, new)
    error = fault(project)
    assert message in error.message
    if line is not None:
        assert error.location == f"{project}/jobs/toy/job.py:{line}"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('    """Predicted moods."""\n', "say in one sentence what one row is; it is shown"),
        ('    """Moods of notes."""\n', "say in one sentence what the job tells; it is shown"),
    ],
)
def test_a_missing_docstring_is_asked_for_by_what_it_is_to_say(project, text, hint):
    change(project / "jobs/toy/job.py", text, "")
    assert fault(project).hint.startswith(hint)


BROKEN_GATES = [
    ('(Gate("f1_micro", at_least=0.5),)', "'f1_micro' of a gate is no metric", "did you mean 'f1_macro'"),
    ('(Gate("class_02_f1", at_least=0.5),)', "'class_02_f1' of a gate", "class_01_recall"),
    ('(Gate("f1_macro", at_least=0.5))', "Toy has a wrong `gates`", "(Gate(...),)"),
    ('("f1_macro",)', "Toy has a wrong `gates`", "it is a tuple of gates"),
    ('(Gate("log_loss", at_least=0.5),)', "of log_loss less is better", 'Gate("log_loss", at_most=0.5)'),
    ('(Gate("calibration_error", at_least=0),)', "of calibration_error less is", "at_most=0)"),
    ('(Gate("class_00_f1", at_most=0.5),)', "of class_00_f1 more is better", 'Gate("class_00_f1", at_least=0.5)'),
]  # fmt: skip


@pytest.mark.parametrize(("gates", "message", "hint"), BROKEN_GATES)
def test_a_wrong_gate_is_refused_before_any_training(project, gates, message, hint):
    change(project / "jobs/toy/job.py", '"tests"', f'"tests"\n    gates = {gates}')
    error = fault(project)
    assert message in error.message
    assert hint in error.hint
    assert error.location == f"{project}/jobs/toy/job.py:16"


@pytest.mark.parametrize(
    "gates", ["()", '(Gate("class_01_recall", at_least=0.5), Gate("log_loss", at_most=0.5))']
)
def test_gates_on_what_the_evaluation_has_are_taken(project, gates):
    change(project / "jobs/toy/job.py", '"tests"', f'"tests"\n    gates = {gates}')
    assert not load_project(project).faults


BROKEN_VIEWS = [
    ('entity="note_id"', 'entity="id"', "entity key column 'id'", 6),
    ('cursor="updated_at"', 'cursor="changed"', "cursor column 'changed'", 6),
    ('cursor="updated_at"', 'cursor="text"', "must be a datetime", 10),
    ('tombstone="deleted_at"', 'tombstone="gone"', "tombstone column 'gone'", 6),
    ('    owner = "tests"\n', "", "has no owner", 6),
    ("text: Ann", "texts: Ann", "gives no column 'texts'", None),
    ('Annotated[str, Doc("Text.")]', "str", "no description", 10),
    ("tombstone=", 'zone="Asia/Tokio", tombstone=', "Notes: 'Asia/Tokio' is no time zone", 6),
    ("tombstone=", 'zone="Asia", tombstone=', "Notes: 'Asia' is no time zone", 6),
    ("tombstone=", 'zone="/etc/passwd", tombstone=', "is no time zone", 6),
    ("tombstone=", "zone=None, tombstone=", "is no time zone", 6),
    ("tombstone=", 'null_cursor="nevr", tombstone=', "Notes: null_cursor is 'nevr'", 6),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message", "line"), BROKEN_VIEWS)
def test_a_wrong_view(project, old, new, message, line):
    change(project / "feature_store/notes.py", old, new)
    error = fault(project)
    assert message in str(error)
    if line is not None:
        assert error.location == f"{project}/feature_store/notes.py:{line}"


def test_a_zone_that_is_misspelt_is_met_with_the_nearest(project):
    change(project / "feature_store/notes.py", "tombstone=", 'zone="Asia/Tokio", tombstone=')
    assert fault(project).hint.startswith("did you mean 'Asia/Tokyo'?")


BROKEN_VALUES = [
    ("training = Training(epochs=0)", "Training(epochs=0)", "a whole number, at least 1"),
    ("training = Training(epochs=2.5)", "Training(epochs=2.5)", "a whole number, at least 1"),
    ("training = Training(epochs=True)", "Training(epochs=True)", "a whole number, at least 1"),
    ("training = Training(folds=0)", "Training(folds=0)", "at least 1"),
    ("training = Training(holdout=1.5)", "Training(holdout=1.5)", "more than 0 and less than 1"),
    ("training = Training(holdout=0)", "Training(holdout=0)", "more than 0 and less than 1"),
    ("training = Training(holdout=float('nan'))", "(holdout=nan)", "more than 0 and less than 1"),
    ("training = Training(holdout='a')", "Training(holdout='a')", "a number, more than 0"),
    ("training = Training(threshold_recall=97)", "(threshold_recall=97)", "at most 1"),
    ("training = Training(seed=-1)", "Training(seed=-1)", "at least 0"),
    ("training = Training(cache_megabytes=-1)", "(cache_megabytes=-1)", "at least 0"),
    ("training = Training(split_by=())", "Training(split_by=())", 'split_by="recipe_id"'),
    ("training = Training(split_by='')", "Training(split_by='')", 'split_by="recipe_id"'),
    ("training = Training(split_by=3)", "Training(split_by=3)", 'split_by="recipe_id"'),
    ("delta = Delta(overlap=timedelta(days=-3))", "Delta(overlap=", "overlap=timedelta(hours=1)"),
    ("delta = Delta(lag=timedelta(seconds=-1))", "Delta(lag=", "lag=timedelta(hours=1)"),
    ("delta = Delta(overlap=3)", "Delta(overlap=3)", "overlap=timedelta(hours=1)"),
    ("limits = Limits(quarantined_share=1.5)", "Limits(quarantined_share=1.5)", "at most 1"),
    ("limits = Limits(quarantined_share=-0.1)", "(quarantined_share=-0.1)", "at least 0"),
    ("limits = Limits(quarantined_rows=-1)", "Limits(quarantined_rows=-1)", "at least 0"),
    ("limits = Limits(quarantined_parts=-1)", "Limits(quarantined_parts=-1)", "at least 0"),
    ("limits = Limits(parts_share=50)", "Limits(parts_share=50)", "at most 1"),
    ("limits = Limits(parts_share='x')", "Limits(parts_share='x')", "a number"),
    ("limits = Limits(batch_seconds=0)", "Limits(batch_seconds=0)", "more than 0"),
    ("limits = Limits(batch_seconds='x')", "Limits(batch_seconds='x')", "a number"),
    ("limits = Limits(text_characters=0)", "Limits(text_characters=0)", "at least 1"),
    ("limits = Limits(label_distance=20)", "Limits(label_distance=20)", "at most 1"),
    ("gates = (Gate('f1_macro'),)", "needs exactly one condition", "give at_least="),
    ("training = Training", "Toy has a wrong `training`", "it is a Training(...)"),
    ("delta = timedelta(hours=1)", "Toy has a wrong `delta`", "it is a Delta(...)"),
    ("limits = None", "Toy lacks `limits`", "it is a Limits(...)"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message", "hint"), BROKEN_VALUES)
def test_a_value_that_is_wrong_by_itself(project, line, message, hint):
    job = project / "jobs/toy/job.py"
    imports = "from datetime import timedelta\nfrom mlbatch import Delta, Limits, Training\n"
    job.write_text(imports + JOB + f"    {line}\n")
    error = fault(project)
    assert message in error.message
    assert hint in error.hint
    of_class = "wrong `" in message or "lacks" in message
    assert error.location == f"{job}:{18 if of_class else 26}"


def test_an_input_has_another_name_than_the_label(project):
    store = project / "feature_store"
    change(
        store / "notes.py", "    text: Ann", '    label: Annotated[str, Doc("x")]\n    text: Ann'
    )
    change(store / "notes.sql", "text,", "text, label,")
    assert not load_project(project).faults
    change(project / "jobs/toy/job.py", '("text",)', '("text", "label")')
    # In a fresh process.
    for name in [n for n in sys.modules if n.partition(".")[0] == "jobs"]:
        del sys.modules[name]
    error = fault(project)
    assert error.message == "Toy: input 'label' is named as the label of mood"
    assert "give the column of notes another name" in error.hint.lower()
    assert error.location == f"{project}/jobs/toy/job.py:16"


def test_a_threshold_is_for_two_labels(project):
    job = project / "jobs/toy/job.py"
    change(job, "Le, Output", "Le, Output, Training")
    change(job, '"tests"', '"tests"\n    training = Training(threshold_recall=0.9)')
    assert not load_project(project).faults
    change(job, '"bad"]', '"bad", "odd"]')
    # In a fresh process.
    for name in [n for n in sys.modules if n.partition(".")[0] == "jobs"]:
        del sys.modules[name]
    assert "threshold_recall is for two labels, and its output has 3" in fault(project).message


def test_the_longest_text_of_a_column_is_declared_with_a_public_name(project):
    change(project / "jobs/toy/job.py", "Le, Output", "Le, MaxLen, Output")
    change(project / "jobs/toy/job.py", '"bad"], Doc', '"bad"], MaxLen(4), Doc')
    assert load_project(project).job("toy").output.table.column("label").max_length == 4


def test_the_place_of_an_error_is_in_the_project_s_own_folders(project):
    """An environment of Python below the root is not the project's code."""
    (project / "lent.py").write_text("def fail():\n    raise ValueError('no')\n")
    change(project / "jobs/toy/job.py", "def build():", "import lent\nlent.fail()\ndef build():")
    try:
        assert fault(project).location == f"{project}/jobs/toy/job.py:8"
    finally:
        sys.modules.pop("lent", None)


def test_a_view_without_columns(project):
    lines = [line for line in VIEW.splitlines() if "Doc(" not in line]
    (project / "feature_store/notes.py").write_text("\n".join(lines))
    assert "declares no columns" in fault(project).message


def test_a_view_without_its_sql(project):
    (project / "feature_store/notes.sql").unlink()
    assert "notes.sql is missing" in fault(project).message


def test_errors_in_the_sql_name_the_sql_file(project):
    (project / "feature_store/notes.sql").write_text(SQL + "\nLIMIT 3")
    error = fault(project)
    assert "outer LIMIT" in error.message
    assert str(error.file).endswith("notes.sql")


def test_types_that_differ_between_labels_and_output(project):
    change(project / "feature_store/moods.py", "label: Annotated[str,", "label: Annotated[int,")
    assert "is not of the type of mood.label" in fault(project).message


def test_keys_that_differ(project):
    change(project / "feature_store/notes.py", 'entity="note_id"', 'entity=("note_id", "text")')
    change(
        project / "feature_store/moods.py",
        "label: Ann",
        'text: Annotated[str, Doc("x")]\n    label: Ann',
    )
    (project / "feature_store/moods.sql").write_text("SELECT note_id, text, label FROM moods")
    assert "is keyed by" in fault(project).message


def second_job(project, table):
    other = project / "jobs" / "other"
    other.mkdir()
    (other / "job.py").write_text(JOB.replace('table="mood"', f'table="{table}"'))


@bad_input(122, outcome=REFUSED, says="both write the table")
def test_122_two_jobs_that_write_one_table_are_both_refused(project):
    second_job(project, "mood")
    loaded = load_project(project)
    assert loaded.jobs == {}
    assert {str(f.message) for f in loaded.faults.values()} == {
        "other and toy both write the table mood"
    }


@bad_input(123, outcome=REFUSED)
@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("import nowhere", "ModuleNotFoundError", 1),
        ("x = 1\ny = 1 / 0", "ZeroDivisionError", 2),
        ("def f(:\n", "SyntaxError", 1),
        ("import sys\nsys.exit(3)", "SystemExit", 2),
        ("x = 1", "declares 0 jobs", None),
    ],
)
def test_123_one_job_s_import_error_does_not_hide_the_others(project, text, message, line):
    second_job(project, "other_mood")
    (project / "jobs/other/job.py").write_text(text)
    loaded = load_project(project)
    assert list(loaded.jobs) == ["toy"]
    error = loaded.faults["other"]
    assert message in error.message
    assert error.line == line
    with pytest.raises(DeclarationError):
        loaded.job("other")


def test_an_unknown_job_is_met_with_the_nearest(project):
    with pytest.raises(UsageError) as caught:
        load_project(project).job("tyo")
    assert caught.value.hint == "did you mean `toy`? Jobs here: toy"


def test_two_projects_in_one_process_do_not_mix(project, tmp_path_factory):
    load_project(project)
    other = tmp_path_factory.mktemp("other")
    (other / "mlbatch.toml").touch()
    assert load_project(other).jobs == {}
    sys.path.remove(str(other))
    assert list(load_project(project).jobs) == ["toy"]


def test_the_root_is_found_from_below(project):
    assert find_root(project / "jobs" / "toy") == project
    with pytest.raises(UsageError, match=r"no mlbatch\.toml"):
        find_root(project.parent)


def test_the_code_digest_follows_job_view_and_sql(project):
    digests = {code_digest(load_project(project).job("toy"))}
    for file in ("jobs/toy/job.py", "feature_store/notes.py", "feature_store/notes.sql"):
        path = project / file
        comment = "\n-- x" if file.endswith("sql") else "\n# x"
        path.write_text(path.read_text() + comment)
        digests.add(code_digest(load_project(project).job("toy")))
    assert len(digests) == 4


def test_the_code_digest_follows_what_the_job_imports(project):
    """Also below its folder, shared beside the views, and imported late or of others."""
    files = {
        "jobs/toy/rules/words.py": "LIST = ['a']\n",
        "jobs/toy/rules/late.sql": "SELECT 1\n",
        "feature_store/shared.py": "from . import deeper\n",
        "feature_store/deeper.py": "import lists.names as n\n",
        "lists/names.py": "def f():\n    from lists import late\n",
        "lists/__init__.py": "",
        "lists/late.py": "",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(exist_ok=True, parents=True)
        (project / name).write_text(text)
    job = project / "jobs/toy/job.py"
    job.write_text("import feature_store.shared\n" + job.read_text())
    digests = {code_digest(load_project(project).job("toy"))}
    for name, text in files.items():
        (project / name).write_text(text + ("-- x" if name.endswith("sql") else "# x"))
        digests.add(code_digest(load_project(project).job("toy")))
    assert len(digests) == len(files) + 1


def test_the_code_digest_leaves_out_what_the_job_does_not_import(project):
    before = code_digest(load_project(project).job("toy"))
    (project / "feature_store" / "others.py").write_text("")
    (project / "jobs/toy/.ipynb_checkpoints").mkdir()
    (project / "jobs/toy/.ipynb_checkpoints/job.py").write_text("")
    # As in a clone of mlbatch itself.
    (project / "mlbatch").mkdir()
    for name in ("__init__.py", "job.py", "view.py"):
        (project / "mlbatch" / name).write_text("")
    assert code_digest(load_project(project).job("toy")) == before


def test_the_code_digest_is_the_same_in_every_process_and_place(project, tmp_path):
    """Files of one name stood in the order of a set."""
    (project / "jobs/toy/notes.py").write_text("def scratch(:")
    for number in range(6):
        (project / f"jobs/toy/part{number}").mkdir()
        (project / f"jobs/toy/part{number}/notes.py").write_text(f"PART = {number}")
    moved = shutil.copytree(project, tmp_path / "elsewhere")
    code = (
        "import sys; from pathlib import Path; from mlbatch.project import code_digest, load_job\n"
        "print(code_digest(load_job(Path(sys.argv[1]), 'toy')))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(root)],
            env=os.environ | {"PYTHONHASHSEED": str(seed)}, capture_output=True, check=True,
        ).stdout
        for seed, root in enumerate([project, project, moved])
    }  # fmt: skip
    assert len(found) == 1


def test_a_class_without_source_is_refused():
    code = textwrap.dedent(VIEW)
    with pytest.raises(DeclarationError, match="Notes"):
        exec(compile(code, "<string>", "exec"), {"__name__": "nowhere"})
