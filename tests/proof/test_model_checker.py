"""The protocol's model: ours is clean, every broken one is caught with its way there."""

from __future__ import annotations

import pytest

from proof.model_checker import VARIANTS, Bounds, check

OURS = VARIANTS[0]
BROKEN = {variant.name: variant for variant in VARIANTS[1:]}
TAKEN_TWICE = Bounds(again=0)
GIVEN_AGAIN = Bounds(acquires=2)


@pytest.fixture(scope="module")
def ours():
    return {bounds: check(OURS, bounds) for bounds in (TAKEN_TWICE, GIVEN_AGAIN)}


@pytest.mark.parametrize("bounds", [TAKEN_TWICE, GIVEN_AGAIN], ids=["taken twice", "given again"])
def test_ours_never_goes_wrong(ours, bounds):
    verdict = ours[bounds]
    assert verdict.violation is None, verdict.trace
    assert verdict.states > 10_000


def test_the_search_of_ours_comes_everywhere(ours):
    steps = ours[TAKEN_TWICE].steps | ours[GIVEN_AGAIN].steps
    assert steps >= {
        "acquire, resume run 1",
        "acquire, resume run 2",
        "acquire for run 2",
        "give_up",
        "create",
        "adopt",
        "move",
        "write",
        "commit",
        "commit, reply lost",
        "the server applies the lost commit",
        "the server rolls the lost commit back",
        "connection dropped",
        "its part is given again",
        "resolve",
        "fenced",
        "killed",
        "finish",
    }


@pytest.mark.parametrize(
    ("name", "kind", "by_way_of"),
    [
        ("the epoch is not compared", "stale", "acquire for run 2"),
        ("the position is not compared", "twice", "its part is given again"),
        ("neither is compared", "twice", "acquire, resume run 1"),
        ("neither is compared", "stale", "acquire for run 2"),
        ("the owner is asked for before the transaction", "stale", "ask"),
        ("the position moves before the rows", "lost", "finish"),
        ("the position moves after the rows", "twice", "acquire, resume run 1"),
        ("a take-over does not fence earlier runs", "stale", "give_up"),
    ],
)
def test_a_broken_variant_is_caught(name, kind, by_way_of):
    verdict = check(BROKEN[name], GIVEN_AGAIN, (kind,))
    assert verdict.violation is not None
    assert verdict.violation.startswith(kind)
    assert any(step.endswith(by_way_of) for step in verdict.trace), verdict.trace


def test_a_blind_repeat_applies_a_lost_commit_twice():
    verdict = check(BROKEN["an unknown commit is repeated blindly"], TAKEN_TWICE, ("twice",))
    assert verdict.violation is not None
    assert "the server applies the lost commit" in verdict.trace
    looked_first = check(BROKEN["the position is not compared"], Bounds(acquires=2, again=0))
    assert looked_first.violation is None, looked_first.trace


@pytest.mark.parametrize("variant", BROKEN.values(), ids=BROKEN)
def test_every_broken_variant_is_caught(variant):
    assert check(variant).violation is not None
