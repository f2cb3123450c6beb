"""Scores of AU detection: numpy functions without torch, `compute_metrics` for a Trainer, and tables.

`AUF1`, `AUAUC` and the other classes of `modules/` offer the functions as `evaluate.Metric`; `evaluate.load(path)`
takes the files of that folder offline.
"""

from typing import Any

from .bootstrap import bootstrap
from .folds import mean_of_folds, pooled_folds
from .intensity import au_icc, au_mae
from .occurrence import au_accuracy, au_auc, au_f1, auc_of_scores, expected_calibration_error
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
from .trainer import (
    AUMetrics,
    compute_metrics,
    compute_triplet_metrics,
    metrics_for,
    preprocess_logits_for_metrics,
)
from .triplets import triplet_accuracy

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
    "auc_of_scores",
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

_EVALUATE_CLASSES = {
    "AUAUC", "AUAccuracy", "AUF1", "AUICC", "AUMAE", "ExpectedCalibrationError", "TripletAccuracy",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load the metric classes on first use, because they need the package `evaluate`."""
    if name not in _EVALUATE_CLASSES:
        raise AttributeError(f"module 'hf_geaau.metrics' has no attribute '{name}'")
    try:
        from . import modules
    except ModuleNotFoundError as error:
        if error.name != "evaluate":
            raise
        from hf_geaau.errors import MissingExtraError

        raise MissingExtraError(
            f"`hf_geaau.metrics.{name}` needs the package 'evaluate', which is not installed. Run `pip install"
            " evaluate`, or call the function of this module that computes the same."
        ) from error
    return getattr(modules, name)
