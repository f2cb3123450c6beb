"""Scores of AU detection: numpy functions without torch, adapters for a Trainer, and `evaluate.Metric` classes.

`AUF1` and the other classes lie in `modules/`, one file each, so that `evaluate.load(path)` loads them offline.
"""

import importlib
from typing import Any

from .folds import mean_of_folds, pooled_folds
from .intensity import au_icc, au_mae
from .occurrence import au_accuracy, au_auc, au_f1, expected_calibration_error
from .resampling import bootstrap
from .scores import (
    SCORES,
    TABLE_SCORES,
    Score,
    Table,
    format_cell,
    markdown_table,
    score_rows,
    score_table,
    text_table,
    triplet_table,
)
from .sides import au_sides
from .trainer import (
    AUMetrics,
    compute_metrics,
    compute_triplet_metrics,
    metrics_for,
    preprocess_logits_for_metrics,
)
from .triplets import triplet_accuracy

_MODULES = {
    "AUAUC": "au_auc",
    "AUAccuracy": "au_accuracy",
    "AUF1": "au_f1",
    "AUICC": "au_icc",
    "AUMAE": "au_mae",
    "ExpectedCalibrationError": "expected_calibration_error",
    "TripletAccuracy": "triplet_accuracy",
}

__all__ = [
    "SCORES",
    "TABLE_SCORES",
    "AUMetrics",
    "Score",
    "Table",
    "au_accuracy",
    "au_auc",
    "au_f1",
    "au_icc",
    "au_mae",
    "au_sides",
    "bootstrap",
    "compute_metrics",
    "compute_triplet_metrics",
    "expected_calibration_error",
    "format_cell",
    "markdown_table",
    "mean_of_folds",
    "metrics_for",
    "pooled_folds",
    "preprocess_logits_for_metrics",
    "score_rows",
    "score_table",
    "text_table",
    "triplet_accuracy",
    "triplet_table",
]


def __getattr__(name: str) -> Any:
    """Load the classes on first use: they need the package `evaluate`, the functions do not."""
    if name not in _MODULES:
        raise AttributeError(f"module 'hf_geaau.metrics' has no attribute '{name}'")
    try:
        return getattr(importlib.import_module(f".modules.{_MODULES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "evaluate":
            raise
        from hf_geaau.errors import MissingExtraError

        raise MissingExtraError(
            f"`hf_geaau.metrics.{name}` needs the package 'evaluate', which is not installed. Run `pip install"
            f" evaluate`, or call the function `hf_geaau.metrics.{_MODULES[name]}`."
        ) from error
