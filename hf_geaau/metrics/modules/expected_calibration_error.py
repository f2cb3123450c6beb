"""`hf_geaau.metrics.expected_calibration_error` as a file for `evaluate.load`."""

from hf_geaau.metrics.modules import ExpectedCalibrationError

__all__ = ["ExpectedCalibrationError"]
