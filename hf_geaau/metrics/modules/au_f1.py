"""`hf_geaau.metrics.au_f1` as a file for `evaluate.load`."""

from hf_geaau.metrics.modules import AUF1

__all__ = ["AUF1"]
