"""Convert labels and predictions to arrays, and check them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau.errors import MetricError


def as_array(values: Any) -> NDArray[Any]:
    """Return an array, a list, or a torch tensor of any device and type as an array."""
    if hasattr(values, "detach"):  # a tensor: numpy knows neither other devices nor bfloat16
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def paired(
    targets: ArrayLike, predictions: ArrayLike, names: tuple[str, str]
) -> tuple[NDArray[Any], NDArray[np.floating[Any]]]:
    """Check the two arrays that every AU metric takes.

    Args:
        targets: (F, N) labels or intensities; -1 where there is none.
        predictions: (F, N).
        names: Names of the two in messages.

    Returns:
        The targets unchanged, and the predictions as floats.

    Raises:
        MetricError: If they are empty, differ in shape, are not tables, or a prediction is not finite.
    """
    try:
        left, right = as_array(targets), as_array(predictions)
        right = right if right.dtype.kind == "f" else right.astype(np.float64)
    except (TypeError, ValueError) as error:  # ragged lists, or text
        raise MetricError(f"`{names[0]}` and `{names[1]}` must be (F, N) arrays of numbers, got {error}.") from error
    if left.ndim != 2 or left.shape != right.shape:
        raise MetricError(
            f"`{names[0]}` and `{names[1]}` must have one shape, (F, N) for F frames and N AUs, got {left.shape} and"
            f" {right.shape}. Pick the shared AUs with `hf_geaau.facs.index_map`."
        )
    if left.size == 0:
        raise MetricError(f"`{names[0]}` must hold at least one frame and one AU, got shape {left.shape}.")
    if wrong := first_of(~np.isfinite(right), right):
        raise MetricError(f"`{names[1]}` must be finite, got {wrong}.")
    return left, right


def first_of(mask: NDArray[np.bool_], values: NDArray[Any]) -> str:
    """Return the first value in the mask and where it is; "" if the mask is empty."""
    for row, column in np.argwhere(mask)[:1]:
        return f"{values[row, column]} in frame {row}, column {column} (from 0)"
    return ""


def occurrence(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[Any], NDArray[np.floating[Any]]]:
    """Check labels and probabilities.

    Raises:
        MetricError: As `paired`; also for a label other than -1, 0, 1, or a probability outside [0, 1].
    """
    truth, predicted = paired(labels, probabilities, ("labels", "probabilities"))
    if wrong := first_of((truth != 0) & (truth != 1) & (truth != -1), truth):
        raise MetricError(
            f"`labels` must be 1 (present), 0 (absent) or -1 (not labeled), got {wrong}. Map BP4D's 9 to -1, and"
            " threshold intensities first."
        )
    if predicted.min() < 0 or predicted.max() > 1:
        raise MetricError(
            f"`probabilities` must lie in [0, 1], got values from {predicted.min():.3g} to {predicted.max():.3g}. Apply"
            " the sigmoid to logits first, once."
        )
    return truth, predicted


def thresholds_for(threshold: ArrayLike, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return one threshold per AU, in the precision of the probabilities: 0.7 as float32 must reach 0.7.

    Raises:
        MetricError: For another number of thresholds than AUs, or one outside [0, 1].
    """
    count = probabilities.shape[1]
    values = as_array(threshold).astype(probabilities.dtype)
    if values.shape not in ((), (1,), (count,)):
        raise MetricError(f"`threshold` must be one number, or one for each of the {count} AUs, got {values.shape}.")
    if not ((values >= 0) & (values <= 1)).all():
        raise MetricError(f"`threshold` must lie in [0, 1], got {values.tolist()}.")
    return np.broadcast_to(values, (count,))


def with_mean(scores: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Add the mean over AUs of each score; NaN, an AU without the labels that a score needs, does not count."""
    return {**scores, "mean": {name: mean_of_known(values) for name, values in scores.items()}}


def mean_of_known(values: NDArray[Any]) -> float:
    """Return the mean of the values that are not NaN, or NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def plain_number(value: Any) -> Any:
    """Return a plain number for JSON, None for NaN."""
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value
