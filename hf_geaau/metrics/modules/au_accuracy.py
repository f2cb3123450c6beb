"""`hf_geaau.metrics.au_accuracy` as a file for `evaluate.load`."""

from hf_geaau.metrics.modules import AUAccuracy

__all__ = ["AUAccuracy"]
