"""Scores of an expression embedding on triplets of faces."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_geaau.errors import MetricError

from ._checks import as_array

TRIPLET_TYPES = ("one_class", "two_class", "three_class")


def triplet_accuracy(distances: ArrayLike, triplet_types: ArrayLike | None = None) -> dict[str, float]:
    """Return the share of triplets whose most similar pair is the one that people chose.

    Three criteria are in use, and two of them are one. FECNet counts a triplet if d12 is the smallest of the three
    distances; FreeAvatar's code counts it if d(anchor, positive) is below d(anchor, negative) and below d(positive,
    negative). With the pair (1, 2) and the odd face 3 both say d12 < d13 and d12 < d23, so they are the same:
    "accuracy" here, chance 1/3. The looser d12 < d13 compares from the anchor only: "anchor_accuracy", chance 1/2;
    never compare it with the other. A tie is no decision and counts as wrong, so that an embedding that
    has collapsed to one point scores 0.

    Args:
        distances: (B, 3), of the faces 1-2, 1-3 and 2-3, where 1 and 2 are the similar pair; squared or not.
        triplet_types: (B,) 0 one-class, 1 two-class, 2 three-class; None for the overall scores only.

    Returns:
        "accuracy", "anchor_accuracy" and "triplets", and with types the same names with "_one_class", "_two_class",
        "_three_class" behind; the scores of a type without triplets are NaN.

    Raises:
        MetricError: For wrong shapes or types, no triplet, or distances that are negative or not finite.

    Source:
        Vemulapalli & Agarwala, CVPR 2019 (FECNet); FuxiVirtualHuman/free_avatar, exp_emb_code.

    Example:
        >>> triplet_accuracy([[0.1, 0.5, 0.4], [0.2, 0.3, 0.1]])
        {'accuracy': 0.5, 'anchor_accuracy': 1.0, 'triplets': 2}
    """
    values = as_array(distances)
    if values.ndim != 2 or values.shape[1] != 3 or not len(values):
        raise MetricError(f"`distances` must have shape (B, 3): d12, d13, d23 of B triplets, got {values.shape}.")
    if not np.isfinite(values).all() or values.min() < 0:
        raise MetricError("`distances` must be finite and not negative. Check the embedding for NaN.")
    anchor = values[:, 0] < values[:, 1]
    both = anchor & (values[:, 0] < values[:, 2])
    scores = _scores(both, anchor, "")
    if triplet_types is None:
        return scores
    types = as_array(triplet_types)
    if types.shape != (len(values),):
        raise MetricError(f"`triplet_types` must have shape ({len(values)},), got {types.shape}.")
    if not np.isin(types, (0, 1, 2)).all():
        raise MetricError("`triplet_types` must be 0 (one-class), 1 (two-class) or 2 (three-class).")
    for number, name in enumerate(TRIPLET_TYPES):
        scores |= _scores(both[types == number], anchor[types == number], f"_{name}")
    return scores


def _scores(both: Any, anchor: Any, ending: str) -> dict[str, Any]:
    shares = {"accuracy": both, "anchor_accuracy": anchor}
    rates = {name + ending: float(right.mean()) if len(right) else float("nan") for name, right in shares.items()}
    return {**rates, f"triplets{ending}": len(both)}
