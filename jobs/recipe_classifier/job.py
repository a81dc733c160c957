"""Which kind of dish is this recipe?"""

from typing import Annotated, Literal

from feature_store.recipe_label import RecipeLabel
from feature_store.recipe_text import RecipeText
from jobs.recipe_classifier.model import build
from mlbatch import Doc, Gate, Ge, Job, Le, Output, Training

Category = Literal[
    "肉のおかず", "魚介のおかず", "野菜・卵・豆腐のおかず", "サラダ", "ごはんもの",
    "麺類", "汁物", "パン", "お菓子", "飲み物",
]  # fmt: skip


class RecipeCategory(Output, table="recipe_category", key="recipe_id"):
    """レシピを料理の種類に分けた推論結果。1行 = 1レシピ。人手の正解ではない。"""

    recipe_id: Annotated[int, Doc("レシピの番号。recipes.id と同じ。")]
    label: Annotated[Category, Doc("いちばん当てはまる種類。")]
    score: Annotated[float, Ge(0), Le(1), Doc("label が正しい確率の見積もり。較正ずみ。")]


class RecipeClassifier(Job):
    """レシピの題名、材料、手順から料理の種類を当てる。"""

    features = RecipeText
    labels = RecipeLabel
    inputs = ("title", "ingredients", "steps")
    model = build
    output = RecipeCategory
    owner = "研究開発部 #ml-recipes"
    training = Training(epochs=10)
    gates = (Gate("f1_macro", at_least=0.60), Gate("f1_macro", not_worse_than_champion_by=0.02))
