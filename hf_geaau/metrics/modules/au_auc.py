"""`hf_geaau.metrics.au_auc` as an `evaluate.Metric`."""

from hf_geaau.metrics import au_auc, modules


class AUAUC(modules.AUMetric):
    """Area under the ROC curve of each action unit.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labeled).
    """

    scorer = staticmethod(au_auc)
