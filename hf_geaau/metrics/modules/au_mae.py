"""`hf_geaau.metrics.au_mae` as an `evaluate.Metric`."""

from hf_geaau.metrics import au_mae, modules


class AUMAE(modules.AUMetric):
    """Mean absolute error of the intensity of each action unit.

    predictions: intensities, a list of N for each frame. references: coded intensities 0 to 5, or -1 (missing).
    """

    scorer = staticmethod(au_mae)
