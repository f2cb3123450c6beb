"""The ablation on rendered faces: train variants of the network, score them on new people, write a report."""

from .run import SCALES, run_ablation

__all__ = ["SCALES", "run_ablation"]
