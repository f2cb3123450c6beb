"""`hf_geaau.metrics.au_f1` as an `evaluate.Metric`."""

from typing import Any

import evaluate
from numpy.typing import ArrayLike

from hf_geaau.metrics import au_f1
from hf_geaau.metrics.modules import metric_info, plain


class AUF1(evaluate.Metric):
    """F1, precision and recall of each action unit, with base rate and the F1 of predicting always on.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labeled). threshold: one, or N. zero_division: what 0 / 0 becomes.
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self)

    def _compute(
        self, predictions: ArrayLike, references: ArrayLike, threshold: ArrayLike = 0.5, zero_division: float = 0.0
    ) -> dict[str, Any]:
        return plain(au_f1(references, predictions, threshold, zero_division))
