"""`hf_geaau.metrics.au_icc` as an `evaluate.Metric`."""

from hf_geaau.metrics import au_icc, modules


class AUICC(modules.AUMetric):
    """Intraclass correlation ICC(3,1) of the intensity of each action unit.

    predictions: intensities, a list of N for each frame. references: coded intensities 0 to 5, or -1 (missing).
    """

    scorer = staticmethod(au_icc)
