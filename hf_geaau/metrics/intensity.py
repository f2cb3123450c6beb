"""Scores of AU intensity, 0 to 5: agreement with the coder, and mean error."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau.errors import MetricError

from ._checks import first_of, paired, with_mean


def au_icc(intensities: ArrayLike, predictions: ArrayLike) -> dict[str, Any]:
    """Return the intraclass correlation ICC(3,1) of predictions with the coder: consistency of single raters.

    A constant offset costs nothing, a wrong scale does. The coder and the model are the two raters.

    Args:
        intensities: (F, N), 0 to 5, -1 missing.
        predictions: (F, N), 0 to 5.

    Returns:
        "icc", (N,), from -1 to 1; NaN for an AU with fewer than two coded frames, or where coder and model are both
        constant (0 / 0). A constant model beside a varying coder scores 0. "mean" leaves NaN out.

    Raises:
        MetricError: For wrong shapes, intensities or predictions.

    Source:
        Shrout & Fleiss, Psychological Bulletin 1979: (BMS - EMS) / (BMS + (k - 1) EMS) with k = 2 raters, which is
        2 cov(x, y) / (var x + var y). The measure of the FERA challenges (Valstar et al. 2015).

    Example:
        >>> round(float(au_icc([[0], [2], [4]], [[1], [3], [5]])["icc"][0]), 9)
        1.0
    """
    truth, predicted, coded = _coded(intensities, predictions)
    number = np.count_nonzero(coded, axis=0)
    x, y = (values - _mean(values, coded, number) for values in (truth, predicted))
    x, y = np.where(coded, x, 0.0), np.where(coded, y, 0.0)
    spread = (x * x).sum(axis=0) + (y * y).sum(axis=0)
    # Rounding leaves a constant column with a spread of some 1e-30, not 0.
    varies = (number > 1) & (spread > 1e-12 * number)
    icc = np.divide(2 * (x * y).sum(axis=0), spread, out=np.full(number.shape, np.nan), where=varies)
    return with_mean({"icc": icc})


def au_mae(intensities: ArrayLike, predictions: ArrayLike) -> dict[str, Any]:
    """Return the mean absolute error of intensities, in intensity levels.

    Args:
        intensities, predictions: As for `au_icc`.

    Returns:
        "mae", (N,), NaN for an AU without a coded frame; and its "mean".

    Raises:
        MetricError: As `au_icc`.

    Example:
        >>> au_mae([[0], [2], [-1]], [[1], [2], [5]])["mae"].tolist()
        [0.5]
    """
    truth, predicted, coded = _coded(intensities, predictions)
    return with_mean({"mae": _mean(np.abs(truth - predicted), coded, np.count_nonzero(coded, axis=0))})


def _coded(
    intensities: ArrayLike, predictions: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    truth, guess = paired(intensities, predictions, ("intensities", "predictions"))
    known = truth != -1
    if wrong := first_of(known & ~((truth >= 0) & (truth <= 5)), truth):
        raise MetricError(f"`intensities` must lie from 0 to 5, or be -1 (missing), got {wrong}. Map BP4D's 9 to -1.")
    return truth.astype(np.float64), guess.astype(np.float64), known


def _mean(values: NDArray[np.float64], known: NDArray[np.bool_], number: NDArray[Any]) -> NDArray[np.float64]:
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0)
