"""Aligned face crops: cut once by `prepare`, opened by `open_aligned` for training and evaluation."""

from .opening import open_aligned
from .writing import PrepareReport, prepare

__all__ = ["PrepareReport", "open_aligned", "prepare"]
