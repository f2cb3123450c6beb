"""`hf_geaau.metrics.triplet_accuracy` as an `evaluate.Metric`."""

from typing import Any

from numpy.typing import ArrayLike

from hf_geaau.metrics import modules, triplet_accuracy


class TripletAccuracy(modules.AUMetric):
    """Share of expression triplets whose most similar pair is the one that people chose.

    predictions: squared distances d12, d13, d23 of each triplet. references: 0 one-class, 1 two-class, 2 three-
    class.
    """

    reference_type = "int64"

    def _compute(self, predictions: ArrayLike, references: ArrayLike, **options: Any) -> dict[str, Any]:
        return triplet_accuracy(predictions, references, **options)
