"""Score checkpoints on datasets, calibrate them, compare them with published numbers, and show what they can do."""

from .calibration import best_intensity_scale, best_temperature, best_thresholds, calibrate, fit_calibration
from .evidence import gather_evidence
from .figures import failures_of
from .groups import (
    RenderedSet,
    calibration_curve,
    gap_error,
    read_traits,
    sample_crops,
    sample_rows,
    steadiness,
    widest_gaps,
)
from .labeled_photos import LabeledFace, false_alarms, find_faces, label_matrix, photo_evidence, read_labels
from .page import comparison_text, evidence_page, published, results_page
from .predictions import Predictions, TripletPredictions, predict_dataset, predict_triplets
from .reports import (
    evaluate,
    evaluate_folds,
    fold_numbers,
    score,
    score_columns,
    score_triplets,
    trained_dataset,
    trained_fold,
)

__all__ = [
    "LabeledFace",
    "Predictions",
    "RenderedSet",
    "TripletPredictions",
    "best_intensity_scale",
    "best_temperature",
    "best_thresholds",
    "calibrate",
    "calibration_curve",
    "comparison_text",
    "evaluate",
    "evaluate_folds",
    "evidence_page",
    "failures_of",
    "false_alarms",
    "find_faces",
    "fit_calibration",
    "fold_numbers",
    "gap_error",
    "gather_evidence",
    "label_matrix",
    "photo_evidence",
    "predict_dataset",
    "predict_triplets",
    "published",
    "read_labels",
    "read_traits",
    "results_page",
    "sample_crops",
    "sample_rows",
    "score",
    "score_columns",
    "score_triplets",
    "steadiness",
    "trained_dataset",
    "trained_fold",
    "widest_gaps",
]
