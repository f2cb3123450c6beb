"""`hf_geaau.metrics.au_auc` as a file for `evaluate.load`."""

from hf_geaau.metrics.modules import AUAUC

__all__ = ["AUAUC"]
