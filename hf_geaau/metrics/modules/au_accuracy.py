"""`hf_geaau.metrics.au_accuracy` as an `evaluate.Metric`."""

import evaluate

from hf_geaau.metrics import au_accuracy
from hf_geaau.metrics.modules import metric_info, plain


class AUAccuracy(evaluate.Metric):
    """Share of rightly decided frames of each action unit.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labelled). threshold: one, or N.
    """

    def _info(self):
        return metric_info(self)

    def _compute(self, predictions, references, threshold=0.5):
        return plain(au_accuracy(references, predictions, threshold))
