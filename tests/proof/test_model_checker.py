"""The protocol's model: ours is clean, every broken one is caught with its way there."""

from __future__ import annotations

import pytest

from proof.model_checker import VARIANTS, check


def test_ours_never_goes_wrong():
    verdict = check(VARIANTS[0])
    assert verdict.violation is None, verdict.trace
    assert verdict.states > 100


@pytest.mark.parametrize("variant", VARIANTS[1:], ids=lambda v: v.name)
def test_every_broken_variant_is_caught(variant):
    verdict = check(variant)
    assert verdict.violation is not None
    assert len(verdict.trace) >= 2
