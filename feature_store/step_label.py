"""Whether people judged a line to be a cooking step."""

from typing import Annotated

from mlbatch import Doc, FeatureView


class StepLabel(FeatureView, entity="step_id"):
    """人の判定。1行 = 1つの「手順」。学習にだけ使う。"""

    owner = "研究開発部 #ml-recipes"

    step_id: Annotated[int, Doc("手順の番号。steps.id と同じ。")]
    is_step: Annotated[bool, Doc("本当の調理手順なら真。お礼、宣伝、日記、助言などは偽。")]
