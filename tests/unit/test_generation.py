from __future__ import annotations

from typing import Annotated, Literal

import pytest

from mlbatch import Doc, Output
from mlbatch.errors import DeclarationError
from mlbatch.generation import FIRST, after, beside, is_beside


def test_generations_count_up():
    assert after([]) == after([FIRST]) == "g2"
    assert after(["g9", "g10", "g2"]) == "g11"


def test_the_longest_table_name_leaves_room_for_its_generations():
    assert len(beside("t" * 48, "g99999999")) <= 64


def test_a_generation_is_told_from_a_table():
    assert is_beside(beside("mood", "g12"))
    assert not is_beside("mood_g1")
    with pytest.raises(DeclarationError, match="generations of another table"):

        class Late(Output, table="mood__g2", key="note_id"):
            """A name that is taken."""

            note_id: Annotated[int, Doc("x")]
            label: Annotated[Literal["a", "b"], Doc("x")]
            score: Annotated[float, Doc("x")]
