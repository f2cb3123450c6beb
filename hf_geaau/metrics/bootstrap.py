"""The uncertainty of a score, by drawing people again."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._checks import as_array


def bootstrap(
    groups: ArrayLike, statistic: Callable[[NDArray[np.int64]], float], resamples: int, seed: int = 0
) -> NDArray[np.float64]:
    """Return a statistic of resamples of whole groups of rows.

    Rows of one group, such as the faces of one person, are alike, so resampling single rows would promise too much.

    Args:
        groups: (F,) group of each row, such as `subject_id`.
        statistic: Called with the (n,) row indices of a resample, in which rows occur several times; may return NaN.
        resamples: Number of resamples.
        seed: Of the draws.

    Returns:
        (resamples,) values; their standard deviation is the standard error of the statistic.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979.

    Example:
        >>> values = np.array([1.0, 2.0, 3.0, 4.0])
        >>> drawn = bootstrap(["a", "a", "b", "b"], lambda rows: float(values[rows].mean()), 100)
        >>> sorted(set(drawn.tolist()))
        [1.5, 2.5, 3.5]
    """
    number = np.unique(as_array(groups), return_inverse=True)[1]
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(members), size=len(members)) for _ in range(resamples))
    return np.array([statistic(np.concatenate([members[index] for index in draw])) for draw in draws], np.float64)
