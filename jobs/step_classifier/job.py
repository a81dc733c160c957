"""Is this "step" a cooking step, or thanks, advertising, a diary?"""

from typing import Annotated

from feature_store.step_label import StepLabel
from feature_store.step_text import StepText
from jobs.step_classifier.model import build
from mlbatch import Doc, Gate, Ge, Job, Le, Output, Training


class StepOrNot(Output, table="step_or_not", key="step_id", label="is_step"):
    """手順欄の1行が本当の調理手順かどうかの推論結果。1行 = 1つの「手順」。人手の正解ではない。"""

    step_id: Annotated[int, Doc("手順の番号。steps.id と同じ。")]
    recipe_id: Annotated[int, Doc("その手順のあるレシピの番号。")]
    is_step: Annotated[bool, Doc("本当の調理手順なら真。お礼、宣伝、日記、助言などは偽。")]
    score: Annotated[float, Ge(0), Le(1), Doc("調理手順である確率の見積もり。較正ずみ。")]


class StepClassifier(Job):
    """手順欄の文だけを見て、本当の調理手順かどうかを当てる。"""

    features = StepText
    labels = StepLabel
    inputs = ("text",)
    model = build
    output = StepOrNot
    owner = "研究開発部 #ml-recipes"
    training = Training(split_by="recipe_id", threshold_recall=0.97)
    gates = (Gate("f1_macro", at_least=0.85), Gate("f1_macro", not_worse_than_champion_by=0.02))
