"""One line of a recipe's steps box."""

from datetime import datetime
from typing import Annotated

from mlbatch import Doc, FeatureView


class StepText(FeatureView, entity="step_id", cursor="updated_at", tombstone="deleted_at"):
    """手順欄の1行。投稿されたまま。1行 = 1つの「手順」。"""

    owner = "研究開発部 #ml-recipes"

    step_id: Annotated[int, Doc("手順の番号。steps.id と同じ。")]
    recipe_id: Annotated[int, Doc("その手順のあるレシピの番号。")]
    text: Annotated[str, Doc("書かれた文。")]
    updated_at: Annotated[datetime, Doc("手順が最後に変わった、またはレシピが消された時刻 (UTC)。")]
    deleted_at: Annotated[datetime | None, Doc("手順かレシピが消された時刻。")]
