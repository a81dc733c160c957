"""Named places where a test may strike: ``MLBATCH_FAILPOINT=after_commit:kill:2``.

The second time that the place is reached, the process is killed there. Nothing is armed in normal
use, and then a place costs one comparison.
"""

from __future__ import annotations

import os
import signal
import time

from mlbatch.errors import TemporaryError, UsageError

PLACES = (
    "before_lease",
    "in_lease",
    "after_lease",
    "after_create",
    "before_unload",
    "after_unload",
    "in_adopt",
    "after_adopt",
    "before_score",
    "after_score",
    "after_move",
    "after_rows",
    "before_commit",
    "after_commit",
    "before_verify",
    "before_finish",
    "in_finish",
    "after_finish",
    "after_record",
)
"""In the order in which a run reaches them."""
SWITCH_PLACES = ("before_cut_over", "before_rename", "after_rename", "after_active")
"""In the order in which a switch reaches them, beside those of its runs."""
ACTIONS = ("kill", "raise", "sleep")
SLEEP_SECONDS = 5.0


class _Armed:
    def __init__(self, text: str) -> None:
        given = text.split(":") if text else ["", "", "0"]
        place, action, count = (given + ["", "kill", "1"][len(given) :])[:3]
        if text and (
            place not in PLACES + SWITCH_PLACES or action not in ACTIONS or not count.isdecimal()
        ):
            message = f"MLBATCH_FAILPOINT={text!r} is none: PLACE:ACTION:COUNT"
            hint = f"places: {', '.join(PLACES + SWITCH_PLACES)}; actions: {', '.join(ACTIONS)}"
            raise UsageError(message, hint=hint)
        self.place, self.action, self.left = place, action, int(count)


_armed = _Armed(os.environ.get("MLBATCH_FAILPOINT", ""))


def arm(text: str) -> None:
    """Arm this process, or with an empty text disarm it; a malformed one raises UsageError."""
    global _armed  # noqa: PLW0603  one process, one failpoint
    _armed = _Armed(text)


def reach(place: str) -> None:
    """Strike here, if this place is the armed one and its time has come."""
    if _armed.place != place:
        return
    _armed.left -= 1
    if _armed.left == 0:
        _strike(place)


def _strike(place: str) -> None:
    if _armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if _armed.action == "raise":
        message = f"the failpoint {place} was armed"
        raise TemporaryError(message)
    time.sleep(SLEEP_SECONDS)
