"""Benchmarks that anybody can rerun."""

from .run import SCALES, run_benchmark

__all__ = ["SCALES", "run_benchmark"]
