"""`hf_geaau.metrics.au_icc` as a file for `evaluate.load`."""

from hf_geaau.metrics.modules import AUICC

__all__ = ["AUICC"]
