from __future__ import annotations

import pytest

from mlbatch import failpoint
from mlbatch.errors import TemporaryError, UsageError


@pytest.fixture(autouse=True)
def disarmed():
    yield
    failpoint.arm("")


@pytest.mark.parametrize(
    ("text", "armed"),
    [
        ("", ("", "", 0)),
        ("after_commit", ("after_commit", "kill", 1)),
        ("after_commit:raise", ("after_commit", "raise", 1)),
        ("after_commit:sleep:3", ("after_commit", "sleep", 3)),
    ],
)
def test_action_and_count_may_be_left_out(text, armed):
    failpoint.arm(text)
    now = failpoint._armed
    assert (now.place, now.action, now.left) == armed


@pytest.mark.parametrize(
    "text",
    ["nowhere", "after_commit:explode", "after_commit:kill:soon", "after_commit:kill:-1", ":"],
)
def test_a_place_that_does_not_exist_is_refused_and_the_places_are_named(text):
    with pytest.raises(UsageError, match="is none: PLACE:ACTION:COUNT") as caught:
        failpoint.arm(text)
    assert all(place in caught.value.hint for place in failpoint.PLACES)


def test_it_strikes_at_its_place_and_its_time_only():
    failpoint.arm("after_commit:raise:3")
    for place in ("after_commit", "before_commit", "after_commit"):
        failpoint.reach(place)
    with pytest.raises(TemporaryError, match="the failpoint after_commit was armed"):
        failpoint.reach("after_commit")
    failpoint.reach("after_commit")


def test_nothing_happens_where_nothing_is_armed():
    failpoint.arm("")
    for place in failpoint.PLACES:
        failpoint.reach(place)
