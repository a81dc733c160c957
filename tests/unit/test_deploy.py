"""The rights that we ship ask for what is needed, and nobody may do everything."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mlbatch.devstack.mariadb import WRITER_RIGHTS

DEPLOY = Path(__file__).parents[2] / "deploy"
POLICIES = sorted((DEPLOY / "iam").glob("*.json"))


def statements(file):
    return json.loads(file.read_text(encoding="utf-8"))["Statement"]


def listed(value):
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("file", POLICIES, ids=lambda f: f.stem)
def test_every_statement_is_named_and_complete(file):
    sids = [statement["Sid"] for statement in statements(file)]
    assert len(sids) == len(set(sids))
    for statement in statements(file):
        assert statement["Effect"] in ("Allow", "Deny")
        assert statement.get("Resource") or statement.get("Principal")


@pytest.mark.parametrize("file", POLICIES, ids=lambda f: f.stem)
def test_nothing_is_allowed_by_a_star(file):
    for statement in statements(file):
        if statement["Effect"] == "Allow":
            for action in listed(statement["Action"]):
                assert "*" not in action
            if "*" in listed(statement.get("Resource", [])):
                assert statement["Condition"]


def test_nobody_may_delete_objects():
    allowed = [
        action
        for file in POLICIES
        for statement in statements(file)
        if statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
    ]
    assert not [action for action in allowed if "Delete" in action]


def test_the_writer_s_grants_are_those_that_the_tests_run_with():
    text = (DEPLOY / "mysql" / "grants.sql").read_text(encoding="utf-8")
    granted = re.findall(r"GRANT (.*?) ON", text)
    assert {g for line in granted for g in line.split(", ")} == set(WRITER_RIGHTS.split(", "))
    assert "REQUIRE SSL" in text


def test_every_file_is_on_the_page():
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for file in [*POLICIES, *DEPLOY.glob("*/*.sql")]:
        assert f"({file.relative_to(DEPLOY)})" in page
