"""`hf_geaau.metrics.triplet_accuracy` as a file for `evaluate.load`."""

from hf_geaau.metrics.modules import TripletAccuracy

__all__ = ["TripletAccuracy"]
