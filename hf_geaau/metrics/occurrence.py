"""Scores of AU occurrence: F1 with its trivial baseline, AUC, accuracy, calibration error.

All take (F, N) arrays, F frames of N AUs, and work on all AUs at once. Frames are pooled: pass all frames of a fold
together, because a mean over batches or subjects is another number. A label of -1 masks that frame for that AU.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau.errors import MetricError

from ._checks import occurrence, thresholds_for, with_mean


def au_f1(
    labels: ArrayLike,
    probabilities: ArrayLike,
    threshold: ArrayLike = 0.5,
    zero_division: float = 0.0,
) -> dict[str, Any]:
    """Return F1, precision and recall of each AU, with its base rate and the F1 of predicting it in every frame.

    Args:
        labels: (F, N): 1 present, 0 absent, -1 not labeled.
        probabilities: (F, N) in [0, 1]; an AU is predicted where its probability reaches the threshold.
        threshold: One for all AUs, or (N,).
        zero_division: Value of a score 0 / 0, as in scikit-learn; NaN is left out of the means. The literature's
            tables have 0. It decides for an AU that is labeled but never present: its recall is 0 / 0, and so are
            precision and F1 if it is never predicted either (predicted at least once, both are 0).

    Returns:
        Arrays of shape (N,): "f1", "precision", "recall", "base_rate" (share of labeled frames that are positive),
        "always_on_f1" (F1 of predicting every frame), "labelled", "positives", "predicted", "true_positives"
        (numbers of frames). An AU without any label has NaN for the rates. "mean" holds the mean of each over AUs.

    Raises:
        MetricError: For wrong shapes, labels, probabilities or thresholds.

    Source:
        Counts pooled over the whole fold at probability >= 0.5, then F1 per AU, then the mean over AUs: ZhiwenShao/
        PyTorch-JAANet and CVI-SZU/ME-GraphAU (utils.py).

    Example:
        >>> scores = au_f1([[1, 0], [1, -1], [0, 1]], [[0.9, 0.2], [0.4, 0.9], [0.6, 0.7]])
        >>> scores["f1"].tolist(), scores["labelled"].tolist()
        ([0.5, 1.0], [3, 2])
        >>> scores["mean"]["f1"]
        0.75
    """
    truth, predicted = occurrence(labels, probabilities)
    present = predicted >= thresholds_for(threshold, predicted)
    labeled, positive = truth >= 0, truth == 1
    return f1_of_counts(
        _count(labeled), _count(positive), _count(present & labeled), _count(present & positive), zero_division
    )


def f1_of_counts(
    labelled: NDArray[np.int64],
    positives: NDArray[np.int64],
    predicted: NDArray[np.int64],
    true_positives: NDArray[np.int64],
    zero_division: float = 0.0,
) -> dict[str, Any]:
    """Return the result of `au_f1` from (N,) counts, such as those of several folds added up."""
    rates = {
        "f1": _ratio(2 * true_positives, positives + predicted, zero_division),
        "precision": _ratio(true_positives, predicted, zero_division),
        "recall": _ratio(true_positives, positives, zero_division),
        "base_rate": _ratio(positives, labelled, np.nan),
        "always_on_f1": _ratio(2 * positives, positives + labelled, np.nan),
    }
    rates = {name: np.where(labelled > 0, values, np.nan) for name, values in rates.items()}
    counts = {"labelled": labelled, "positives": positives, "predicted": predicted, "true_positives": true_positives}
    return with_mean({**rates, **counts})


def au_accuracy(labels: ArrayLike, probabilities: ArrayLike, threshold: ArrayLike = 0.5) -> dict[str, Any]:
    """Return the share of labeled frames that are decided correctly.

    With rare AUs, never predicting them scores high: read it beside the base rate.

    Args:
        labels, probabilities, threshold: As for `au_f1`.

    Returns:
        "accuracy", (N,), NaN for an AU without labels; and its "mean".

    Raises:
        MetricError: As `au_f1`.

    Example:
        >>> au_accuracy([[1], [0], [-1]], [[0.9], [0.8], [0.1]])["accuracy"].tolist()
        [0.5]
    """
    truth, predicted = occurrence(labels, probabilities)
    labeled = truth >= 0
    correct = (predicted >= thresholds_for(threshold, predicted)) == (truth == 1)
    return with_mean({"accuracy": _ratio(_count(correct & labeled), _count(labeled), np.nan)})


def au_auc(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, Any]:
    """Return the area under the ROC curve: the probability that a positive frame scores higher than a negative one.

    Args:
        labels, probabilities: As for `au_f1`.

    Returns:
        "auc", (N,), NaN for an AU that lacks positives or negatives; and its "mean" over the others.

    Raises:
        MetricError: As `au_f1`.

    Source:
        The Mann-Whitney statistic with average ranks for ties: Hanley & McNeil, Radiology 1982.

    Example:
        >>> au_auc([[1], [0], [0]], [[0.8], [0.3], [0.8]])["auc"].tolist()
        [0.75]
    """
    truth, predicted = occurrence(labels, probabilities)
    areas = np.full(truth.shape[1], np.nan)
    for index, (column, scores) in enumerate(zip(truth.T, predicted.T, strict=True)):
        positive, negative = np.sort(scores[column == 1]), np.sort(scores[column == 0])
        if positive.size and negative.size:
            # For each positive, a negative below it counts one and an equal one a half.
            below = np.searchsorted(negative, positive, "left").sum()
            upto = np.searchsorted(negative, positive, "right").sum()
            areas[index] = (below + upto) / 2 / positive.size / negative.size
    return with_mean({"auc": areas})


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> dict[str, Any]:
    """Return the mean distance of probabilities from observed frequencies.

    Frames are put into bins of equal width by their probability; the error is the mean over frames of the distance,
    in their bin, between mean probability and share of positives.

    Args:
        labels, probabilities: As for `au_f1`.
        bins: Number of bins of [0, 1].

    Returns:
        "expected_calibration_error", (N,), NaN for an AU without labels; and its "mean".

    Raises:
        MetricError: As `au_f1`, or for less than one bin.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017, with 15 bins; there of the confidence in
        the chosen class, here, as AUs are not exclusive, of the probability of presence.

    Example:
        >>> round(expected_calibration_error([[1], [0]], [[0.75], [0.75]])["mean"]["expected_calibration_error"], 9)
        0.25
    """
    if bins < 1:
        raise MetricError(f"`bins` must be at least 1, got {bins}.")
    truth, predicted = occurrence(labels, probabilities)
    labeled, count = truth >= 0, truth.shape[1]
    cells = np.minimum((predicted * bins).astype(np.int64), bins - 1) + bins * np.arange(count)
    gaps = np.bincount(cells[labeled], (predicted - truth)[labeled], count * bins).reshape(count, bins)
    return with_mean({"expected_calibration_error": _ratio(np.abs(gaps).sum(axis=1), _count(labeled), np.nan)})


def _count(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.count_nonzero(mask, axis=0).astype(np.int64)


def _ratio(part: NDArray[Any], whole: NDArray[Any], empty: float) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(whole.shape, float(empty)), where=whole > 0)
