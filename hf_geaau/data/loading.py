"""Datasets by name, and `load`, which makes them `datasets.Dataset` objects."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import AUDataset, choose, require
from .options import checked_options

if TYPE_CHECKING:
    import datasets

DATASETS = ("bp4d", "bp4d_plus", "disfa", "fec", "folder", "synthetic")
"""The modules of this package that read a dataset; each names its class `DATASET`."""


def list_datasets() -> list[str]:
    """Return the names of the datasets that `load` knows.

    Example:
        >>> "disfa" in list_datasets()
        True
    """
    return list(DATASETS)


def dataset_class(name: str) -> type[AUDataset]:
    """Return the class that reads a dataset; its class attributes describe the data.

    Raises:
        DatasetError: For an unknown name.

    Example:
        >>> dataset_class("bp4d").IS_LICENSED
        True
    """
    choose("name", name, DATASETS)
    return import_module(f"hf_geaau.data.{name}").DATASET


def get_dataset(name: str, /, **options: Any) -> AUDataset:
    """Return a dataset with its options set.

    Args:
        name: One of `list_datasets()`.
        **options: See the dataset's class.

    Raises:
        DatasetError: For an unknown name, option or value.

    Example:
        >>> get_dataset("disfa", camera="left").aus
        (1, 2, 4, 6, 9, 12, 25, 26)
    """
    kind = dataset_class(name)
    return kind(**checked_options(kind, options))


def load(
    name: str,
    data_dir: "str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict",
    fold: int | None = 1,
    split: str | None = None,
    *,
    protocol: str = "jaanet",
    num_proc: int | None = None,
    streaming: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Load a benchmark from the directory that its owners sent you, or your own data from a table.

    Args:
        name: One of `list_datasets()`.
        data_dir: The directory; see `dataset_class(name).LAYOUT`. For "folder" a table, its directory, or a `Dataset`
            or `DatasetDict` of `datasets`.
        fold: Number of the fold whose subjects are the test set, or None for all subjects as "train".
        split: "train" or "test"; None for both.
        protocol: Whose numbering `fold` follows: "jaanet", or "megraphau", which counts the same subject sets
            backwards. Without effect on datasets that have one numbering.
        num_proc: Processes that write the cache.
        streaming: Return iterable datasets and write no cache.
        cache_dir: Folder of the cache of labels and paths; None for that of `datasets`.
        **options: The dataset's own, such as `camera="left"` for DISFA; and `drop_listed`, `problems`.

    Returns:
        A `Dataset` (`IterableDataset` when streaming), or a dictionary of them with "train" and "test". No image
        is decoded before you ask for it. Licensed data refuses `push_to_hub` to a public repository.

    Raises:
        DatasetNotFoundError: If the directory or a part of it is missing.
        DatasetError: If a file is damaged, or an option does not fit. The message names file, line and remedy.
        MissingExtraError: Without the extra "data".

    Warns:
        DatasetWarning: If your copy has other frame counts than the published protocol.
    """
    dataset, folder = get_dataset(name, **options).resolved(data_dir)
    chosen = dataset.fold(fold, protocol)
    choose("split", split, [None, "train"] if fold is None else [None, "train", "test"])
    builder = require("datasets", ".builder", "hf_geaau.data")
    return builder.build(
        dataset, folder, chosen, split=split, num_proc=num_proc, streaming=streaming, cache_dir=cache_dir
    )
