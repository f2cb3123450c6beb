"""Scores of action units on the left and the right side of the face."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau.errors import MetricError

from ._checks import with_mean
from .occurrence import au_auc


def au_sides(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, Any]:
    """Return how well AUs are found on either side, and how often the correct one of two sides is chosen.

    The AUC counts either side of a face as a frame. Faces that show an AU on both sides, or on none, decide most of it;
    `side_choice` is of the others alone.

    Args:
        labels: (F, N, 2), 1 present, 0 absent, -1 not labeled, of the person's left and right.
        probabilities: (F, N, 2).

    Returns:
        "side_auc", (N,), NaN for an AU that lacks positives or negatives; "side_choice", (N,), share of the faces with
        an AU on one side only in which that side has the higher probability, a tie counting half; NaN without such
        faces; and "mean", which leaves NaN out.

    Raises:
        MetricError: If the shapes differ or have no sides, and as `au_auc`.

    Example:
        >>> scores = au_sides([[[1, 0]], [[0, 1]], [[1, 1]]], [[[0.9, 0.2]], [[0.4, 0.3]], [[0.8, 0.7]]])
        >>> scores["side_choice"].tolist()
        [0.5]
    """
    told, found = np.asarray(labels), np.asarray(probabilities)
    if told.shape != found.shape or told.ndim != 3 or told.shape[-1] != 2:
        raise MetricError(
            f"`labels` and `probabilities` must both have shape (F, N, 2), got {told.shape} and {found.shape}."
        )
    flat = (np.moveaxis(values, -1, 0).reshape(-1, values.shape[1]) for values in (told, found))
    lead = np.sign(told[..., 0] - told[..., 1]) * np.sign(found[..., 0] - found[..., 1])  # 1: the correct side leads
    is_one_sided = (told >= 0).all(-1) & (told[..., 0] != told[..., 1])
    return with_mean({"side_auc": au_auc(*flat)["auc"], "side_choice": _mean((1 + lead) / 2, is_one_sided)})


def _mean(values: NDArray[np.floating], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    number = counted.sum(0)
    total = np.where(counted, values, 0.0).sum(0)
    return np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0)
