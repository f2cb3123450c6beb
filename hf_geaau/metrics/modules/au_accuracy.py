"""`hf_geaau.metrics.au_accuracy` as an `evaluate.Metric`."""

from typing import Any

import evaluate
from numpy.typing import ArrayLike

from hf_geaau.metrics import au_accuracy
from hf_geaau.metrics.modules import metric_info, plain


class AUAccuracy(evaluate.Metric):
    """Share of correctly decided frames of each action unit.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labeled). threshold: one, or N.
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self)

    def _compute(self, predictions: ArrayLike, references: ArrayLike, threshold: ArrayLike = 0.5) -> dict[str, Any]:
        return plain(au_accuracy(references, predictions, threshold))
