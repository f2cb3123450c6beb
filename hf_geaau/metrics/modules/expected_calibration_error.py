"""`hf_geaau.metrics.expected_calibration_error` as an `evaluate.Metric`."""

from hf_geaau.metrics import expected_calibration_error, modules


class ExpectedCalibrationError(modules.AUMetric):
    """Distance of probabilities from observed frequencies, for each action unit.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labeled). bins: their number.
    """

    scorer = staticmethod(expected_calibration_error)
