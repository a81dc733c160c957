"""The kind of dish that people filed a recipe under."""

from typing import Annotated

from mlbatch import Doc, FeatureView


class RecipeLabel(FeatureView, entity="recipe_id"):
    """人が付けた料理の種類。1行 = 1レシピ。学習にだけ使う。"""

    owner = "研究開発部 #ml-recipes"

    recipe_id: Annotated[int, Doc("レシピの番号。recipes.id と同じ。")]
    label: Annotated[str, Doc("料理の種類。")]
