"""Score checkpoints on the folds of a dataset, calibrate them, and set them beside published numbers."""

from .calibration import best_temperature, best_thresholds, calibrate
from .page import published, results_page
from .predictions import Predictions, TripletPredictions, predict_dataset, predict_triplets
from .reports import evaluate, evaluate_folds, fold_numbers, score, score_triplets, trained_fold, write_json

__all__ = [
    "Predictions",
    "TripletPredictions",
    "best_temperature",
    "best_thresholds",
    "calibrate",
    "evaluate",
    "evaluate_folds",
    "fold_numbers",
    "predict_dataset",
    "predict_triplets",
    "published",
    "results_page",
    "score",
    "score_triplets",
    "trained_fold",
    "write_json",
]
