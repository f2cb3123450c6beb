"""Whole columns of a dataset as arrays, and what is computed from them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau.errors import DatasetError

if TYPE_CHECKING:
    import datasets


def column_array(dataset: "datasets.Dataset", name: str) -> NDArray[Any]:
    """Read a column of numbers or lists of numbers at once.

    Arrow gives 1.8 million labels in a tenth of a second; rows as Python lists would take a minute.

    Args:
        dataset: One split, not streamed.
        name: Of the column.

    Returns:
        (R,) for single values, (R, N) for lists of N values.

    Raises:
        DatasetError: If the dataset is streamed or has no such column.

    Example:
        >>> import datasets
        >>> column_array(datasets.Dataset.from_dict({"frame": [1, 2], "labels": [[0.0], [1.0]]}), "labels").shape
        (2, 1)
    """
    if not hasattr(dataset, "num_rows") or name not in dataset.column_names:
        columns = ", ".join(dataset.column_names or ())
        raise DatasetError(
            f"Cannot read the column '{name}' of a {type(dataset).__name__} with the columns {columns}. Pass one split "
            "that has it, loaded without `streaming`."
        )
    column = dataset.select_columns(name).with_format("arrow")[:][name].combine_chunks()
    if hasattr(column, "flatten") and column.type.num_fields:
        values = column.flatten().to_numpy(zero_copy_only=False)
        return values.reshape(len(column), getattr(column.type, "list_size", len(values) // max(len(column), 1)))
    return column.to_numpy(zero_copy_only=False)


PRESENT_FROM, CLEAR_FROM = 1.0, 2.0
"""Intensities (FACS's A and B) from which a side is present, and clearly present; the latter is our choice."""


def side_labels(dataset: "datasets.Dataset", ignore_traces: bool = False) -> NDArray[np.float32]:
    """Return the labels of the person's left and right.

    Args:
        dataset: One split, not streamed.
        ignore_traces: Return -1 where the intensity is above 0 and below 1, unless the other side has at least 2: what
            a clear movement drags along on the other side is what one-sidedness looks like.

    Returns:
        (R, N, 2): 1 present, 0 absent, -1 not labeled: AUs without sides, and datasets that tell none.
    """
    shape = (*column_array(dataset, "labels").shape, 2)
    if "side_intensities" not in dataset.column_names:
        return np.full(shape, -1, np.float32)
    strength = column_array(dataset, "side_intensities").reshape(shape)
    labels = np.where(strength < 0, -1, strength >= PRESENT_FROM).astype(np.float32)
    if ignore_traces:
        labels[(strength > 0) & (strength < PRESENT_FROM) & (strength[..., ::-1] < CLEAR_FROM)] = -1
    return labels


VISIBLE_FROM = 0.5
"""Share of an AU's region from which it counts as visible. Our choice."""


def visibility_labels(dataset: "datasets.Dataset") -> NDArray[np.float32]:
    """Return whether each AU can be seen, (R, N): 1 visible, 0 hidden, -1 where the dataset does not tell."""
    if "visible" not in dataset.column_names:
        return np.full(column_array(dataset, "labels").shape, -1, np.float32)
    share = column_array(dataset, "visible")
    return np.where(share < 0, -1, share >= VISIBLE_FROM).astype(np.float32)


def class_weights(dataset: "datasets.Dataset | ArrayLike") -> NDArray[np.float64]:
    """Weight each AU by the inverse of how often it occurs, so that weights average 1.

    Args:
        dataset: A `Dataset` with the column `labels`, normally the train split; or (F, N) labels. -1 counts neither
            as positive nor as frame.

    Returns:
        (N,) weights: N · (1 / r_i) / Σ_j (1 / r_j), where r_i is the rate of positives.

    Raises:
        DatasetError: If an AU has no positive frame.

    Source:
        ZhiwenShao/PyTorch-JAANet, dataset/write_AU_weight.py; CVI-SZU/ME-GraphAU, tool/*_calculate_AU_class_weights.py.
        They read lists without unlabeled frames; leaving out -1 is our addition and changes nothing there.

    Example:
        >>> class_weights([[1, 1], [1, 0], [0, 0], [1, 0]]).tolist()
        [0.5, 1.5]
    """
    if isinstance(dataset, Mapping):
        raise DatasetError(
            f"`dataset` must be one split, got {', '.join(map(repr, dataset))}. Pass the train split: weights must not "
            "depend on the test subjects."
        )
    is_array = not hasattr(dataset, "select_columns")
    labels = np.atleast_2d(np.asarray(dataset)) if is_array else column_array(dataset, "labels")
    positives, labeled = (labels == 1).sum(axis=0), (labels >= 0).sum(axis=0)
    if (positives == 0).any():
        columns = ", ".join(map(str, np.flatnonzero(positives == 0)))
        raise DatasetError(
            f"Cannot weight label column {columns} (counted from 0), which has no positive frame. "
            "Pass the whole train split."
        )
    inverse = labeled / positives
    return len(inverse) * inverse / inverse.sum()
