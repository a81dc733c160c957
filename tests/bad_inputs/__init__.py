"""Says of a test which bad input of the catalogue it is about, and what becomes of it.

``docs/bad-inputs.md`` is made from these marks, see `bad_inputs.page`.
"""

from __future__ import annotations

from enum import StrEnum

import pytest


class Outcome(StrEnum):
    """What becomes of a bad input."""

    ACCEPTED = "accepted"
    NOTICED = "accepted, with a notice"
    REFUSED = "refused (exit 2)"
    QUARANTINED = "the row is set aside (exit 4)"
    FAILS = "the run fails (exit 1)"
    TEMPORARY = "temporary (exit 75): the next start goes on"
    UNLAWFUL = "accepted; a law of mlbatch.checks finds it"


ACCEPTED, NOTICED, REFUSED, QUARANTINED, FAILS, TEMPORARY, UNLAWFUL = Outcome


def bad_input(*numbers: int, outcome: Outcome, says: str = "") -> pytest.MarkDecorator:
    """Mark a test with numbers of the catalogue, or those of its parameters that carry them.

    Without ``numbers`` the id of a parameter set says it, as in ``8-two-statements``; one without a
    number is about no bad input. ``says`` are words that the test expects; where it is left out,
    the parameter ``reason`` or ``message`` is taken.
    """
    return pytest.mark.bad_input(*numbers, outcome=outcome, says=says)
