"""The command line on a small project, as a person types it."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from mlbatch.cli.answer import typeable
from mlbatch.cli.main import _COMMANDS, cli, main
from mlbatch.settings import load_settings
from mlbatch.wiring import connect

TOY = Path(__file__).parents[1] / "toy"
MLBATCH = Path(sys.executable).with_name("mlbatch")
DAY = datetime(2026, 1, 1)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def make_project(root):
    """The toy job as a project of its own, with two hundred labelled notes."""
    (root / "mlbatch.toml").write_text("[profiles.tiny]\nwarehouse = { part_rows = 50 }\n")
    job = root / "jobs" / "toy"
    job.mkdir(parents=True)
    for file in ("notes.py", "notes.sql", "moods.py", "moods.sql"):
        (root / "feature_store").mkdir(exist_ok=True)
        shutil.copy(TOY / file, root / "feature_store")
    for file in ("job.py", "model.py"):
        text = (TOY / file).read_text().replace("from toy.model", "from jobs.toy.model")
        (job / file).write_text(text.replace("from toy.", "from feature_store."))
    load(root, [note(n) for n in range(200)])
    warehouse = connect(load_settings(root), print).warehouse
    moods = [{"note_id": n, "label": "good" if n % 2 else "bad"} for n in range(200)]
    warehouse.copy("moods", pa.Table.from_pylist(moods), replace_by=("note_id",))
    return root


def note(number, text=None):
    words = "good fine" if number % 2 else "bad sad"
    at = DAY + timedelta(hours=number)
    return {"id": number, "text": text or f"{words} {number}", "updated_at": at, "deleted_at": None}


def load(root, rows):
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("text", pa.string()),
            ("updated_at", pa.timestamp("us")),
            ("deleted_at", pa.timestamp("us")),
        ]
    )
    warehouse = connect(load_settings(root), print).warehouse
    warehouse.copy("notes", pa.Table.from_pylist(rows, schema=schema), replace_by=("id",))


@dataclass
class Done:
    stdout: str
    stderr: str


@pytest.fixture
def mlbatch(project, monkeypatch, capfd):
    return type_in(project, monkeypatch, capfd)


def type_in(root, monkeypatch, capfd):
    """What types a command in this process, where MLflow is imported but once."""

    def run(*arguments, code=0):
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, "argv", ["mlbatch", *arguments])
        for name in [n for n in sys.modules if n.partition(".")[0] in ("jobs", "feature_store")]:
            del sys.modules[name]
        with pytest.raises(SystemExit) as ended:
            main()
        done = Done(*capfd.readouterr())
        assert ended.value.code == code, done.stderr
        return done

    return run


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--full"], "--full"),
        (["--in-place"], "--in-place"),
        (["--slot", "2026-01-09"], "--slot"),
        (["--until", "2026-01-09T00:00:00Z"], "--until"),
        (["--supersede"], "--supersede"),
        (["--accept-code-change"], "--accept-code-change"),
        (["--model", "champion"], "--model"),
        (["--model", "3", "--full"], "--full and --model"),
    ],
)
def test_training_refuses_what_only_inference_heeds(mlbatch, given, named):
    refused = mlbatch("run", "toy", "--mode", "train", *given, code=2)
    assert refused.stderr.startswith(f"error: {named} would do nothing with --mode train\n")
    assert refused.stdout == ""


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        (["--drop-kept", "--max-distance", "0.3"], "--max-distance would do nothing with --drop", "--drop-kept"),
        (["--drop-kept", "--yes", "--supersede"], "--supersede would do nothing with --drop", "--drop-kept"),
        (["--drop-kept", "--workers", "2", "--accept-code-change"], "--accept-code-change and --workers would do", "--drop-kept"),
        (["--drop-kept", "--roll-back", "--model", "2"], "--model and --roll-back would do", "--drop-kept"),
        (["--roll-back", "--max-distance", "0.3"], "--max-distance would do nothing with --roll", "--roll-back"),
        (["--roll-back", "--yes"], "--yes would do nothing with --roll-back", "--roll-back"),
        (["--yes"], "--yes would do nothing: only --drop-kept asks", None),
    ],
)  # fmt: skip
def test_switch_refuses_by_name_what_it_would_not_heed(mlbatch, given, said, hint):
    refused = mlbatch("switch", "toy", *given, "--json", code=2)
    assert refused.stderr.startswith(f"error: {said}")
    told = f"mlbatch switch toy {hint}" if hint else "leave it out"
    assert json.loads(refused.stdout)["hint"] == told


def test_a_job_s_life(mlbatch, project):
    assert "toy" in mlbatch("list").stdout
    assert "never run" in mlbatch("status").stdout
    (never,) = json.loads(mlbatch("status", "--json").stdout)["jobs"]
    assert (never["state"], never["run"], never["since"]) == (None, None, None)
    planned = mlbatch("plan", "toy").stdout
    assert "backfill" in planned
    assert "200 rows, about 1 part\n" in planned
    assert "none yet: train first" in planned
    assert "Nothing was written. Train it: mlbatch run toy --mode train\n" in planned
    refused = mlbatch("run", "toy", "--mode", "infer", code=2)
    assert "hint: train one: mlbatch run toy --mode train" in refused.stderr

    trained = json.loads(mlbatch("run", "toy", "--mode", "train", "--json").stdout)
    assert (trained["model_version"], trained["promoted"]) == (1, True)
    told = mlbatch("run", "toy", "--mode", "train").stdout
    assert "it is the champion now" in told

    first = mlbatch("--profile", "tiny", "run", "toy", "--mode", "infer", "--workers", "2")
    assert "200 rows read: 200 written, 0 deleted." in first.stdout
    stages = r"Done in [\d.]+ s \(workers: read [\d.]+, score [\d.]+, write [\d.]+\)\. Table: "
    assert re.search(stages, first.stdout)
    assert "features   200 rows in 4 parts" in first.stderr

    load(project, [note(3, "good again"), note(500)])
    plan = json.loads(mlbatch("plan", "toy", "--json").stdout)
    assert (plan["kind"], plan["newer"], plan["model_version"]) == ("delta", 1, 2)
    assert plan["seconds"] >= plan["seconds_at_least"] >= 0
    assert "3 rows, about 1 part; 1 newer than the watermark\n" in mlbatch("plan", "toy").stdout
    delta = json.loads(mlbatch("run", "toy", "--mode", "infer", "--json").stdout)
    assert delta["rows_written"] == delta["rows_read"] == 3
    again = mlbatch("run", "toy", "--mode", "infer", "--slot", "2026-01-09").stdout
    assert "0 of them are newer than the watermark" in again
    assert (
        "Nothing to do: slot 2026-01-09 was done"
        in mlbatch("run", "toy", "--mode", "infer", "--slot", "2026-01-09").stdout
    )
    assert "Nothing to do." in mlbatch("plan", "toy", "--slot", "2026-01-09").stdout
    nothing = mlbatch("run", "toy", "--mode", "infer", "--full", "--until", "2020-01-01T00:00:00Z")
    assert "Nothing to do: no row of mood changed" in nothing.stdout

    load(project, [note(600, "x" * 10_001)])
    bad = mlbatch("run", "toy", "--mode", "infer", code=4)
    assert "1 quarantined (see mlbatch show toy)" in bad.stdout
    shown = mlbatch("show", "toy").stdout
    assert "quarantined 600: too_long" in shown
    assert "How sure the model is." in shown
    assert "Gate    f1_macro at least 0.50" in shown
    status = json.loads(mlbatch("status", "--json").stdout)
    assert (status["schema"], status["jobs"][0]["state"]) == ("mlbatch.status/2", "done")
    assert "done: " in mlbatch("status").stdout


def check_that_nobody_is_asked_without_a_terminal(mlbatch, monkeypatch):
    for nothing in (io.StringIO(""), None):
        monkeypatch.setattr("sys.stdin", nothing)
        unasked = mlbatch("switch", "toy", "--drop-kept", code=2).stderr
        assert "error: there is nobody to ask" in unasked
        assert "hint: mlbatch switch toy --drop-kept --yes" in unasked


def test_a_table_comes_to_a_new_model_and_back(mlbatch, project, monkeypatch):
    """After `test_a_job_s_life`, or by itself."""
    mlbatch("run", "toy", "--mode", "train")
    if json.loads(mlbatch("status", "--json").stdout)["jobs"][0]["run"] is None:
        mlbatch("run", "toy", "--mode", "infer")
        mlbatch("run", "toy", "--mode", "train")
    planned = json.loads(mlbatch("plan", "toy", "--json").stdout)
    old, new = planned["model_version"], planned["champion"]
    assert new > old
    assert (
        f"version {old} (as the table is; the champion is {new})" in mlbatch("plan", "toy").stdout
    )
    load(project, [note(600), note(700)])
    kept = mlbatch("run", "toy", "--mode", "infer")
    assert f"mood is of model v{old} and stays so, the champion is v{new}" in kept.stderr
    assert "mlbatch switch toy" in kept.stderr
    kept = mlbatch("--profile", "tiny", "run", "toy", "--mode", "infer")
    assert "`mlbatch --profile tiny switch toy` changes the model" in kept.stderr
    assert (
        "Run it: mlbatch --profile tiny run toy --mode infer\n"
        in mlbatch("--profile", "tiny", "plan", "toy").stdout
    )
    refused = mlbatch("run", "toy", "--mode", "infer", "--model", str(new), code=2)
    assert f"v{new} would be mixed into it" in refused.stderr

    refused = mlbatch("switch", "toy", "--roll-back", "--model", "1", code=2)
    assert "goes to the generation before" in refused.stderr
    assert "toy has no model ''" in mlbatch("switch", "toy", "--model", "", code=2).stderr
    switched = mlbatch("switch", "toy").stdout
    assert f"toy · mood is of model v{new} (was v{old})" in switched
    assert "predicted once more and the same" in switched
    assert (
        f"mood__g1 keeps the rows of model v{old}; back: mlbatch switch toy --roll-back" in switched
    )
    assert (
        f"Nothing to do for mood: it is of model v{new} already." in mlbatch("switch", "toy").stdout
    )
    assert f"Serves  mood: generation g2, model v{new}" in mlbatch("show", "toy").stdout

    back = json.loads(mlbatch("switch", "toy", "--roll-back", "--json").stdout)
    assert (back["switched"], back["generation"], back["model_version"]) == (True, "g1", old)
    shown = mlbatch("show", "toy").stdout
    assert f"Serves  mood: generation g1, model v{old}" in shown
    assert f"g2: rolled_back, model v{new}" in shown
    again = json.loads(mlbatch("switch", "toy", "--roll-back", "--json").stdout)
    assert (again["switched"], again["kept"]) == (False, None)

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = mlbatch("switch", "toy", "--drop-kept")
    assert "Drop mood__g2? There is no way back then [y/N]" in asked.stderr
    assert "Nothing was dropped." in asked.stdout
    check_that_nobody_is_asked_without_a_terminal(mlbatch, monkeypatch)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    left = json.loads(mlbatch("switch", "toy", "--drop-kept", "--json").stdout)
    assert (left["dropped"], left["kept"]) == ([], ["mood__g2"])
    dropped = json.loads(mlbatch("switch", "toy", "--drop-kept", "--yes", "--json").stdout)
    assert dropped == {
        "schema": "mlbatch.drop_kept/1",
        "job": "toy",
        "table": "mood",
        "dropped": ["mood__g2"],
        "kept": [],
    }
    shown = mlbatch("show", "toy").stdout
    assert "rolled_back" not in shown
    assert "        1 generation dropped\n" in shown
    assert "Nothing to drop: mood alone" in mlbatch("switch", "toy", "--drop-kept").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "tyo", "--mode", "infer"), "did you mean `toy`?"),
        (("run", "toy", "--mode", "fly"), "Invalid value for '--mode'"),
        (("runn",), "No such command 'runn'.\nhint: did you mean `run`?"),
        (("run", "toy", "--profile", "tiny"), "hint: it stands before the command"),
        (("show",), "hint: mlbatch list names the jobs"),
        (("register", "toy"), "hint: the error of the training whose model was not registered"),
        (("run", "toy", "--mode", "infer", "--until", "tomorrow"), "is not an instant"),
        (("run", "toy", "--mode", "infer", "--until", "2026-01-01"), "no time zone"),
        (("run", "toy", "--mode", "infer", "--slot", "2999-01-01"), "in the future"),
        (("--profile", "prod", "list"), "has no profile 'prod'"),
        (("switch", "toy", "--max-distance", "nan"), "'--max-distance': nan is not a number from"),
        (
            ("switch", "toy", "--max-distance", "-NaN"),
            "'--max-distance': -NaN is not a number from",
        ),
        (("switch", "toy", "--max-distance", "inf"), "'--max-distance': inf is not in the range"),
    ],
)
def test_what_is_typed_wrongly_exits_2_and_says_how(mlbatch, arguments, said):
    assert said in mlbatch(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "said", "hinted"),
    [
        (
            ("run", "tyo", "--mode", "infer"),
            "UsageError",
            "no job called `tyo`",
            "did you mean `toy`?",
        ),
        (("run", "toy", "--mode", "fly"), "UsageError", "Invalid value for '--mode'", "--help"),
        (("run", "toy", "--speed", "9"), "UsageError", "No such option", "--help"),
        (("run", "toy", "--mode", "infer", "--slot", "2999-01-01"), "UsageError", "future", "day"),
        (("plan", "tyo"), "UsageError", "tyo", "toy"),
        (("show", "tyo"), "UsageError", "tyo", "toy"),
        (("--profile", "prod", "list"), "SettingsError", "'prod'", "tiny"),
        (("--profile", "prod", "doctor"), "SettingsError", "'prod'", "tiny"),
        (("switch", "toy"), "UsageError", "nothing to switch from", "mlbatch run toy"),
        (("reconcile", "toy"), "UsageError", "there is no table mood yet", "mlbatch run toy"),
    ],
)
def test_an_error_is_one_object_for_whoever_asked_for_json(
    fresh, mlbatch_there, arguments, kind, said, hinted
):
    done = mlbatch_there(*arguments, "--json", code=2)
    facts = json.loads(done.stdout)
    assert (facts["schema"], facts["ok"]) == ("mlbatch.error/1", False)
    assert (facts["error"], facts["exit_code"], facts["try_again"]) == (kind, 2, False)
    assert said in facts["message"]
    assert hinted in facts["hint"]
    assert facts["message"] in done.stderr
    assert mlbatch_there(*arguments, code=2).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "hinted"),
    [
        (("run", "toy", "--mode", "infer"), "train one: {} run toy --mode train"),
        (("switch", "toy"), "{} run toy --mode infer"),
        (("switch", "toy", "--drop-kept", "--model", "1"), "{} switch toy --drop-kept"),
        (("reconcile", "toy"), "make it: {} run toy --mode infer"),
        (("retry", "toy"), "{} retry toy --quarantined"),
        (("show",), "{} list names the jobs"),
    ],
)
def test_commands_that_are_told_act_on_the_profile_that_was_typed(
    fresh, mlbatch_there, monkeypatch, arguments, hinted
):
    with (fresh / "mlbatch.toml").open("a") as file:
        file.write("[profiles.'my own']\n")
    told = {"tiny": "mlbatch --profile tiny", "my own": "mlbatch --profile 'my own'"}
    for profile, typed in told.items():
        refused = mlbatch_there("--profile", profile, *arguments, "--json", code=2)
        assert f"hint: {hinted.format(typed)}\n" in refused.stderr
        assert json.loads(refused.stdout)["hint"] == hinted.format(typed)
    # Where the environment chose it, it chooses for the next command as well.
    monkeypatch.setenv("MLBATCH_PROFILE", "tiny")
    assert f"hint: {hinted.format('mlbatch')}\n" in mlbatch_there(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("`mlbatch status` names it", "`mlbatch --profile p status` names it"),
        ("a; then: mlbatch run toy", "a; then: mlbatch --profile p run toy"),
        ("only models that mlbatch registered are served", None),
        ("what mlbatch runs, mlbatch run-of-the-mill, my-mlbatch run, jobs/mlbatch run", None),
        ("mlbatch --profile devstack doctor, mlbatch devstack up, mlbatch.cli.plan", None),
    ],
)
def test_commands_and_nothing_else_are_told_with_the_profile(text, told):
    CliRunner().invoke(cli, ["--profile", "p", "list", "--help"])
    assert typeable(text) == (told or text)
    CliRunner().invoke(cli, ["list", "--help"])
    assert typeable(text) == text


def test_a_faulty_declaration_is_told_with_its_place(fresh, mlbatch_there):
    (fresh / "jobs/toy/job.py").write_text("x = 1 / 0\n")
    facts = json.loads(mlbatch_there("plan", "toy", "--json", code=2).stdout)
    assert facts["error"] == "DeclarationError"
    assert facts["location"] == f"{fresh}/jobs/toy/job.py:1"


@pytest.fixture
def fresh(project, tmp_path):
    """The project before its first run."""
    left = shutil.ignore_patterns("outputs*", "mlflow*", "models", "artifacts")
    return shutil.copytree(project, tmp_path / "fresh", ignore=left)


@pytest.fixture
def mlbatch_there(fresh, monkeypatch, capfd):
    return type_in(fresh, monkeypatch, capfd)


def test_a_faulty_job_is_listed_with_its_place(project, mlbatch):
    broken = project / "jobs" / "broken"
    broken.mkdir()
    (broken / "job.py").write_text("x = 1 / 0\n")
    listed = mlbatch("list", code=2)
    assert "toy" in listed.stdout
    assert f"--> {broken}/job.py:1" in listed.stderr
    shown = mlbatch("show", "broken", code=2)
    assert "error: jobs/broken cannot be imported" in shown.stderr
    shutil.rmtree(broken)


def test_outside_a_project(tmp_path):
    done = subprocess.run(
        [MLBATCH, "list"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no mlbatch.toml" in done.stderr


def test_a_gate_that_refuses_exits_3(project, mlbatch):
    file = project / "jobs/toy/job.py"
    text = file.read_text()
    file.write_text(text.replace("at_least=0.5", "at_least=1.5"))
    refused = mlbatch("run", "toy", "--mode", "train", code=3)
    assert "NOT promoted" in refused.stdout
    assert "was not promoted" in refused.stderr
    told = json.loads(mlbatch("run", "toy", "--mode", "train", "--json", code=3).stdout)
    file.write_text(text)
    assert (told["schema"], told["ok"], told["promoted"]) == ("mlbatch.train/1", False, False)
    assert (told["error"], told["exit_code"]) == ("GateRefused", 3)
    assert "was not promoted" in told["message"]


HEAVY = {
    "alembic", "boto3", "duckdb", "MeCab", "mlflow", "numpy", "pandas", "pyarrow", "pydantic",
    "scipy", "sklearn", "skops", "sqlalchemy", "sqlglot", "rich",
}  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom mlbatch.cli import main\n"
        f"sys.argv = ['mlbatch', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert loaded & HEAVY == set()


def test_every_command_has_help():
    runner = CliRunner()
    top = runner.invoke(cli, ["--help"]).output
    for name, (_, text) in _COMMANDS.items():
        assert text in top
        assert runner.invoke(cli, [name, "--help"]).exit_code == 0


def test_the_package_gives_its_names_lazily():
    import mlbatch

    for name in mlbatch.__all__:
        assert getattr(mlbatch, name)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        mlbatch.nope  # noqa: B018
