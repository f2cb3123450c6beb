"""`hf_geaau.metrics.au_auc` as an `evaluate.Metric`."""

from typing import Any

import evaluate
from numpy.typing import ArrayLike

from hf_geaau.metrics import au_auc
from hf_geaau.metrics.modules import metric_info, plain


class AUAUC(evaluate.Metric):
    """Area under the ROC curve of each action unit.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labeled).
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self)

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, Any]:
        return plain(au_auc(references, predictions))
