"""`hf_geaau.metrics.au_accuracy` as an `evaluate.Metric`."""

from hf_geaau.metrics import au_accuracy, modules


class AUAccuracy(modules.AUMetric):
    """Share of correctly decided frames of each action unit.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labeled). threshold: one, or N.
    """

    scorer = staticmethod(au_accuracy)
