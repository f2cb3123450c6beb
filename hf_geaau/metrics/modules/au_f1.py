"""`hf_geaau.metrics.au_f1` as an `evaluate.Metric`."""

from hf_geaau.metrics import au_f1, modules


class AUF1(modules.AUMetric):
    """F1, precision and recall of each action unit, with base rate and the F1 of predicting always on.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labeled). threshold: one, or N. zero_division: what 0 / 0 becomes.
    """

    scorer = staticmethod(au_f1)
