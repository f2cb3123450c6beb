"""`hf_geaau.metrics.triplet_accuracy` as an `evaluate.Metric`."""

from typing import Any

import evaluate
from numpy.typing import ArrayLike

from hf_geaau.metrics import triplet_accuracy
from hf_geaau.metrics.modules import metric_info


class TripletAccuracy(evaluate.Metric):
    """Share of expression triplets whose most similar pair is the one that people chose.

    predictions: squared distances d12, d13, d23 of each triplet. references: 0 one-class, 1 two-class, 2 three-
    class.
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self, "int64")

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, Any]:
        return triplet_accuracy(predictions, references)
