"""`hf_geaau.metrics.au_mae` as a file for `evaluate.load`."""

from hf_geaau.metrics.modules import AUMAE

__all__ = ["AUMAE"]
