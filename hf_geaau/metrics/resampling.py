"""The bootstrap over groups of frames, such as the people in them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bootstrap(
    groups: ArrayLike, measure: Callable[[NDArray[np.intp]], float], resamples: int, seed: int = 0
) -> NDArray[np.float64]:
    """Return a score of resampled test sets, in which whole groups are drawn with replacement.

    Frames of one person are alike, so drawing single frames would understate the error.

    Args:
        groups: (F,) group of each frame, such as the subject.
        measure: Takes the rows of a resampled set and returns its score, NaN where it is undefined.
        resamples: Number of draws.
        seed: Of the draws.

    Returns:
        (resamples,); their standard deviation is the standard error of the score.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979.

    Example:
        >>> values = np.array([0.0, 0.0, 1.0, 1.0])
        >>> sorted(set(bootstrap(["a", "a", "b", "b"], lambda rows: values[rows].mean(), 20).tolist()))
        [0.0, 0.5, 1.0]
    """
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(members), size=len(members)) for _ in range(resamples))
    return np.array([measure(np.concatenate([members[index] for index in drawn])) for drawn in draws], np.float64)
