"""`hf_geaau.metrics.expected_calibration_error` as an `evaluate.Metric`."""

import evaluate

from hf_geaau.metrics import expected_calibration_error
from hf_geaau.metrics.modules import metric_info, plain


class ExpectedCalibrationError(evaluate.Metric):
    """Distance of probabilities from observed frequencies, for each action unit.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labelled). bins: their number.
    """

    def _info(self):
        return metric_info(self)

    def _compute(self, predictions, references, bins=15):
        return plain(expected_calibration_error(references, predictions, bins))
