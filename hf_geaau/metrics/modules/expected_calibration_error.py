"""`hf_geaau.metrics.expected_calibration_error` as an `evaluate.Metric`."""

from typing import Any

import evaluate
from numpy.typing import ArrayLike

from hf_geaau.metrics import expected_calibration_error
from hf_geaau.metrics.modules import metric_info, plain


class ExpectedCalibrationError(evaluate.Metric):
    """Distance of probabilities from observed frequencies, for each action unit.

    predictions: probabilities in [0, 1], a list of N for each frame. references: labels 1, 0, or -1 (not
    labeled). bins: their number.
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self)

    def _compute(self, predictions: ArrayLike, references: ArrayLike, bins: int = 15) -> dict[str, Any]:
        return plain(expected_calibration_error(references, predictions, bins))
