"""The one way to open what training and evaluation read: aligned face crops, rendered or cut by `hf-geaau prepare`."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from hf_geaau.errors import DatasetError, DatasetWarning

from ..base import AUDataset, DatasetNotes, choose, fingerprint, require
from ..loading import get_dataset, load
from .storage import SHARDS, changed_option, config_name, holds_crops, read_card, read_record
from .writing import prepare

if TYPE_CHECKING:
    import datasets


def open_aligned(
    name: str,
    data_dir: "str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict",
    fold: int | None = 1,
    split: str = "train",
    protocol: str = "jaanet",
    *,
    cut: bool = True,
    **options: Any,
) -> "datasets.Dataset":
    """Open aligned face crops: a folder that `hf-geaau prepare` made, or data whose images are aligned already.

    The whole photos of own data are aligned on the way: their faces are cut once, into the cache of `datasets`.

    Args:
        name: One of `list_datasets()`.
        data_dir: The folder; for own data as for `load`.
        fold: Number of the fold whose subjects are the test set, or None for all subjects as "train".
        split: "train" or "test".
        protocol: Whose numbering `fold` follows, as for `load`.
        cut: False leaves the photos of own data whole, where only the rows matter.
        **options: The dataset's own. Crops keep those they were cut with; an option given here must agree.

    Returns:
        A `datasets.Dataset` with the columns that `load` gives.

    Raises:
        DatasetNotFoundError: If the folder is missing.
        DatasetError: If the folder holds frames that are not aligned, crops of something else, or no such fold.
        MissingExtraError: Without the extra "data".
    """
    dataset, folder = get_dataset(name, **options).resolved(data_dir)
    dataset.fold(fold, protocol)
    choose("split", split, ["train"] if fold is None else ["train", "test"])
    is_crops = holds_crops(folder)
    if dataset.IS_CUT_WHEN_OPENED and cut and not is_crops and not dataset.is_aligned:
        folder, is_crops, options = _cut(dataset, folder), True, {}
    if is_crops:
        opened = _open_crops(dataset, folder, options, fold, split, protocol)
        if dataset.IS_LICENSED:
            return require("datasets", "hf_geaau.data._guard", "hf_geaau.data").guard(opened)
        return opened
    if not dataset.is_aligned and not dataset.IS_CUT_WHEN_OPENED:
        raise DatasetError(
            f"{str(folder)!r} holds no aligned face crops of {dataset.TITLE}. Cut them once with "
            f"`hf-geaau prepare {name} --data-dir {folder} --output CROPS`, and pass CROPS instead."
        )
    options = {entry.name: getattr(dataset, entry.name) for entry in fields(dataset)}
    return load(name, folder, fold, split, protocol=protocol, **options)


def _cut(dataset: AUDataset, folder: Path) -> Path:
    """Cut the faces of whole photos into the cache of `datasets`, once for each state of table and photos.

    Returns:
        The folder of the crops.
    """
    datasets = require("datasets", "datasets", "hf_geaau.data")
    paths = [
        path
        for block in dataset.rows(folder, DatasetNotes(dataset.problems))
        for path in np.ravel(block.images).tolist()
    ]
    key = datasets.fingerprint.Hasher.hash([fingerprint(dataset, folder), [(path, *_state(path)) for path in paths]])
    crops = Path(datasets.config.HF_DATASETS_CACHE) / f"hf_geaau-{dataset.NAME}-{key}"
    crops.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{crops}.lock"):  # the other processes of a training wait for the first
        if read_card(crops).get("configs") and (crops / SHARDS).is_dir():
            return crops
        warnings.warn(
            f"The faces of {len(paths)} photos are found and cut once, into {str(crops)!r}. `hf-geaau prepare` does so "
            "with all cores, and `aligned=true` says that the images are aligned crops already.",
            DatasetWarning,
            stacklevel=3,
        )
        options = {entry.name: getattr(dataset, entry.name) for entry in fields(dataset)}
        report = prepare(dataset.NAME, folder, crops, workers=1, **options)
        if report.problems:
            counts = ", ".join(f"{count} {action}" for action, count in report.problems.items())
            warnings.warn(f"Of {len(paths)} photos: {counts}; see {str(report.path)!r}.", DatasetWarning, stacklevel=3)
    return crops


def _state(path: str) -> tuple[int, int]:
    """Return what changes when somebody replaces a photo."""
    if "://" in path:
        return 0, 0
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns


def _open_crops(
    dataset: AUDataset, folder: Path, options: Iterable[str], fold: int | None, split: str, protocol: str
) -> "datasets.Dataset":
    datasets = require("datasets", "datasets", "hf_geaau.data")
    card = read_card(folder)
    if not card.get("configs") or not (folder / SHARDS).is_dir():
        raise DatasetError(
            f"The crops in {str(folder)!r} are unfinished. Run the same `hf-geaau prepare` command again; it resumes "
            "where it stopped."
        )
    _check_source(dataset, folder, card, options)
    configs = [entry["config_name"] for entry in card["configs"]]
    if "default" in configs:  # triplets: the owners' own division
        config, part = "default", "train+test" if fold is None else split
    else:
        config, part = config_name(fold, protocol, dataset), split
    if config not in configs:
        raise DatasetError(
            f"The crops in {str(folder)!r} have no configuration '{config}', which needs frames of train and test "
            f"subjects; they have {', '.join(configs)}. Choose one of these, or prepare the missing subjects."
        )
    # `datasets` names its cache by the folder's last name and a hash in which neither its path nor its files count: the
    # crops of another dataset in another folder `crops` would be returned.
    shards = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted((folder / SHARDS).iterdir())]
    cache = Path(datasets.config.HF_DATASETS_CACHE) / f"hf_geaau-crops-{datasets.fingerprint.Hasher.hash(shards)}"
    opened = datasets.load_dataset(str(folder), config, split=part, cache_dir=str(cache))
    count = getattr(opened.features.get("labels"), "length", -1)
    if "labels" in opened.features and count != len(dataset.aus):
        raise DatasetError(
            f"The crops in {str(folder)!r} have {count} AUs, not {len(dataset.aus)}. "
            "Pass the options that they were prepared with, such as the variant of DISFA."
        )
    return opened


def _check_source(dataset: AUDataset, folder: Path, card: dict[str, Any], options: Iterable[str]) -> None:
    """Refuse crops of another dataset, or cut with other options than those asked for."""
    if (name := card.get("license_name")) != dataset.NAME:
        raise DatasetError(f"The crops in {str(folder)!r} are of {name}, not of {dataset.NAME}. Pass another folder.")
    record = read_record(folder)  # None in a copy without hidden files
    if record is not None and (option := changed_option(record, dataset, options)):
        raise DatasetError(
            f"The crops in {str(folder)!r} were cut with {option}={record['options'].get(option)!r}, not "
            f"{getattr(dataset, option)!r}. Leave the option out, or prepare them with it into another folder."
        )
