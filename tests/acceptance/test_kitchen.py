"""The sample kitchen is what it says: varied, labelled, dated, and written line by line."""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import datetime
from unittest import mock

import pytest

from jobs.recipe_classifier.job import RecipeCategory
from mlbatch.text import normalise, surfaces
from sample.demo import choose
from sample.kitchen import recipes, stamped

KITCHEN = list(recipes())
LINES = [(kind, text) for recipe in KITCHEN for kind, text in recipe["lines"]]
STEPS = [text for kind, text in LINES if kind == "step"]
OTHERS = [text for kind, text in LINES if kind != "step"]
KINDS = {
    "step", "advice", "diary", "arrangement", "thanks", "featured", "advertising", "ingredient",
    "heading",
}  # fmt: skip


def test_it_is_large_enough():
    assert len(KITCHEN) >= 1_800
    assert len(LINES) >= 15_000
    assert 0.33 <= len(OTHERS) / len(LINES) <= 0.39
    assert {kind for kind, _ in LINES} == KINDS


def test_every_category_has_recipes():
    counts = Counter(recipe["category"] for recipe in KITCHEN)
    assert set(counts) == set(RecipeCategory.table.column("label").choices)
    assert min(counts.values()) >= 20


def test_a_family_of_dishes_stands_in_one_category():
    """Else it would be on both sides of a split by dish."""
    categories: dict[str, set[str]] = {}
    for recipe in KITCHEN:
        categories.setdefault(recipe["dish"], set()).add(recipe["category"])
    assert {dish: found for dish, found in categories.items() if len(found) > 1} == {}


def test_no_two_lines_titles_or_ids_are_equal():
    for values in (
        [text for _, text in LINES],
        [recipe["title"] for recipe in KITCHEN],
        [recipe["id"] for recipe in KITCHEN],
    ):
        assert [value for value, n in Counter(values).items() if n > 1] == []


def test_no_skeleton_is_filled_in_again_and_again():
    """Lines alike but for katakana, kanji and numbers would be a template."""
    skeletons = Counter(
        re.sub(r"[一-龠々]+|[ァ-ヴー]+|[0-9]+", "_", normalise(text))
        for _, text in LINES
        if len(text) > 12
    )
    worst, times = skeletons.most_common(1)[0]
    assert times <= 6, worst
    assert len(skeletons) / sum(skeletons.values()) > 0.97


def test_words_are_many():
    grams = Counter()
    for _, text in LINES:
        words = surfaces(normalise(text))
        grams.update(zip(words, words[1:], words[2:], strict=False))
    assert len(grams) / sum(grams.values()) > 0.55


@pytest.mark.parametrize("texts", [STEPS, OTHERS], ids=["steps", "others"])
def test_politeness_does_not_reveal_the_label(texts):
    polite = sum(text.rstrip("。").endswith("ます") for text in texts)
    assert polite / len(texts) >= 0.2


def test_short_and_long_steps_are_in():
    lengths = [len(text) for text in STEPS]
    assert sum(n < 15 for n in lengths) / len(lengths) >= 0.25
    assert sum(n >= 45 for n in lengths) / len(lengths) >= 0.1


def test_an_endings_only_baseline_is_not_enough():
    """What the last two words alone tell, learnt from half of the recipes."""
    votes: dict[tuple[str, ...], Counter[bool]] = {}
    for recipe in KITCHEN[::2]:
        for kind, text in recipe["lines"]:
            votes.setdefault(_ending(text), Counter())[kind == "step"] += 1
    told = right = 0
    for recipe in KITCHEN[1::2]:
        for kind, text in recipe["lines"]:
            guess = votes.get(_ending(text), Counter({True: 1})).most_common(1)[0][0]
            told += kind != "step"
            right += kind != "step" and not guess
    assert right / told < 0.75


def _ending(text):
    return tuple(w for w in surfaces(normalise(text)) if w not in "。.!、♪☆")[-2:]


def test_it_looks_like_what_people_post():
    everything = "".join(text for _, text in LINES)
    assert re.search(r"[ｦ-ﾟ]", everything)
    assert re.search(r"[\U0001F300-\U0001FAFF]", everything)
    assert re.search(r"\d{4}[./]\d", everything)
    assert re.search(r"やで|ばい|しんしゃい|べ", everything)


def test_it_spans_a_year():
    created = [datetime.fromisoformat(recipe["created_at"]) for recipe in KITCHEN]
    assert (max(created) - min(created)).days > 300
    for recipe in KITCHEN:
        times = [recipe["created_at"], recipe["updated_at"], recipe["deleted_at"]]
        known = [time for time in times if time]
        assert known == sorted(known)
    assert sum(bool(recipe["deleted_at"]) for recipe in KITCHEN) >= 5


def test_the_next_day_adds_edits_and_deletes():
    before = {recipe["id"]: recipe for recipe in KITCHEN}
    changes = list(stamped(recipes("next_day"), before))
    assert {"add", "edit", "delete"} == {change["op"] for change in changes}
    for change in changes:
        assert (change["op"] == "add") == (change["id"] not in before)
        if change["op"] == "edit":
            old = before[change["id"]]
            assert (old["title"], old["ingredients"], old["lines"]) != (
                change["title"], change["ingredients"], change["lines"],
            )  # fmt: skip


@mock.patch.dict(
    os.environ, {"MLBATCH_PROFILE": "production", "MLBATCH_SINK__HOST": "db.example.com"}
)
def test_the_sample_never_writes_where_somebody_works():
    choose("default")
    ours = {name: value for name, value in os.environ.items() if name.startswith("MLBATCH_")}
    assert ours == {"MLBATCH_PROFILE": "default"}
