"""The one way to open what training and evaluation read: aligned face crops, rendered or cut by `hf-geaau prepare`."""

import json
import os
from pathlib import Path
from typing import Any

from hf_geaau.errors import DatasetError

from ._base import AUDataset, choose, get_dataset, load, not_found, require

_CARD, _DATA, _SETTINGS = "README.md", "data", ".prepare.json"  # what `hf_geaau.prepare` writes


def open_aligned(
    name: str,
    data_dir: str | os.PathLike[str],
    fold: int | None = 1,
    split: str = "train",
    protocol: str = "jaanet",
    **options: Any,
) -> Any:
    """Open aligned face crops: a folder that `hf-geaau prepare` made, or data that is aligned as it comes.

    Args:
        name: One of `list_datasets()`.
        data_dir: The folder.
        fold: Number of the fold whose subjects are the test set, or None for all subjects as "train".
        split: "train" or "test".
        protocol: Whose numbering `fold` follows, as for `load`.
        **options: The dataset's own. Crops keep those they were cut with; an option given here must agree.

    Returns:
        A `datasets.Dataset` with the columns that `load` gives.

    Raises:
        DatasetNotFoundError: If the folder is missing.
        DatasetError: If the folder holds frames that are not aligned, crops of something else, or no such fold.
        MissingExtraError: Without the extra "data".
    """
    dataset = get_dataset(name, **options)
    folder = Path(data_dir).expanduser().absolute()
    if not folder.is_dir():
        raise not_found(dataset, folder, "no such folder")
    if fold is not None and dataset.PARTS:
        dataset.part_of(fold, protocol)
    choose("split", split, ["train"] if fold is None else ["train", "test"])
    if (folder / _SETTINGS).is_file() or _metadata(folder).get("configs"):
        return _open_crops(dataset, folder, fold, split, protocol, options)
    if not dataset.IS_ALIGNED:
        raise DatasetError(
            f"Aligned face crops are needed, got {str(folder)!r}, which holds no crops of {dataset.TITLE}. Cut them "
            f"once with `hf-geaau prepare {name} --data-dir {folder} --output CROPS`, and pass CROPS instead."
        )
    return load(name, folder, fold, split, protocol=protocol, **options)


def _open_crops(
    dataset: AUDataset, folder: Path, fold: int | None, split: str, protocol: str, options: dict[str, Any]
) -> Any:
    datasets = require("datasets", "datasets", "hf_geaau.data")
    facts = _metadata(folder)
    if not facts.get("configs") or not (folder / _DATA).is_dir():
        raise DatasetError(
            f"The crops must be complete, got an unfinished folder {str(folder)!r}. "
            "Run the same `hf-geaau prepare` command again; it goes on where it stopped."
        )
    _check_source(dataset, folder, facts, options)
    known = [entry["config_name"] for entry in facts["configs"]]
    config, part = "default", split
    if "default" in known:  # FEC and triplets: the owners' own division
        part = "train+test" if fold is None else split
    else:
        ending = "-megraphau" if protocol == "megraphau" and dataset.MEGRAPHAU_FOLDS else ""
        config = "all" if fold is None else f"fold{fold}{ending}"
    if config not in known:
        raise DatasetError(
            f"The crops must have frames of both sides of '{config}', got {', '.join(known)} in {str(folder)!r}. "
            "Choose one of these, or prepare the subjects that are missing."
        )
    opened = datasets.load_dataset(str(folder), config, split=part)
    found = getattr(opened.features.get("labels"), "length", -1)
    if "labels" in opened.features and found != len(dataset.aus):
        raise DatasetError(
            f"The crops must have {len(dataset.aus)} AUs, got {found} in {str(folder)!r}. "
            "Pass the options that they were prepared with, such as the variant of DISFA."
        )
    if dataset.IS_LICENSED:
        return require("datasets", "hf_geaau.data._guard", "hf_geaau.data").guard(opened)
    return opened


def _metadata(folder: Path) -> dict[str, Any]:
    """Read the header of the folder's card, {} without one."""
    if not (folder / _CARD).is_file():
        return {}
    from huggingface_hub.repocard import metadata_load

    try:
        return metadata_load(folder / _CARD) or {}
    except ValueError:  # somebody else's page
        return {}


def _check_source(dataset: AUDataset, folder: Path, facts: dict[str, Any], options: dict[str, Any]) -> None:
    """Refuse crops of another dataset, or cut with other options than those asked for."""
    if (found := facts.get("license_name")) != dataset.NAME:
        raise DatasetError(
            f"The crops must be of {dataset.NAME}, got those of {found} in {str(folder)!r}. Pass another folder."
        )
    if not (folder / _SETTINGS).is_file():  # a copy may lack what begins with a dot
        return
    source = json.loads((folder / _SETTINGS).read_text(encoding="utf-8")).get("dataset", "")
    for option, value in options.items():
        if f"{option}={value!r}" not in source:
            raise DatasetError(
                f"The crops must be cut with {option}={value!r}, got {source} in {str(folder)!r}. "
                "Leave the option out, or prepare them with it into another folder."
            )
