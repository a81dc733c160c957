"""What a recipe says."""

from datetime import datetime
from typing import Annotated

from mlbatch import Doc, FeatureView


class RecipeText(FeatureView, entity="recipe_id", cursor="updated_at", tombstone="deleted_at"):
    """題名、材料、手順。1行 = 1レシピ。"""

    owner = "研究開発部 #ml-recipes"

    recipe_id: Annotated[int, Doc("レシピの番号。recipes.id と同じ。")]
    title: Annotated[str, Doc("題名。投稿されたまま。")]
    ingredients: Annotated[str, Doc("材料を並び順に空白でつないだもの。")]
    steps: Annotated[str, Doc("手順欄のすべての行。手順でない行も含む。")]
    updated_at: Annotated[datetime, Doc("レシピ、材料、手順のどれかが最後に変わった時刻 (UTC)。")]
    deleted_at: Annotated[datetime | None, Doc("消された時刻。あれば推論結果も消す。")]
