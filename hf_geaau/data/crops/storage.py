"""What a folder of crops looks like.

A finished folder has a README.md, whose header lists the configurations for `datasets`, and parquet shards with
embedded JPEG files in `data`. Until then everything lies in folders whose names start with a dot, which `datasets`
skips: half a dataset is never loaded as a whole one.
"""

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_geaau import facs
from hf_geaau.errors import DatasetError
from hf_geaau.files import parse_json, whole_file

from ..base import PROTOCOLS, AUDataset
from ..loading import DATASETS, dataset_class

if TYPE_CHECKING:
    import pyarrow as pa

SHARDS, REPORT, CARD = "data", "report.csv", "README.md"
RECORD = ".prepare.json"
UNFINISHED_SHARDS, SHARD_PROBLEMS, TRIPLET_FACES = ".partial", ".notes", ".faces"

ROW_GROUP = 100  # rows that a random access or a stream reads at a time


@dataclass(frozen=True)
class CropSettings:
    """What decides the crops, besides the dataset and its options; see `prepare`."""

    size: int
    quality: int
    faceless: str
    min_score: float
    is_aligned: bool


@dataclass(frozen=True)
class Problem:
    """A frame that is not simply a crop of its own face; a line of the report."""

    subject_id: str  # of a triplet's photo, empty, and -1 as `frame`
    sequence_id: str
    frame: int
    image: str
    problem: str
    action: str  # "dropped", or whose alignment was used


def run_settings(dataset: AUDataset, settings: CropSettings) -> dict[str, Any]:
    """Return what `.prepare.json` records and a resumed run must agree with."""
    return {"dataset": dataset.NAME, "options": _options(dataset), **asdict(settings)}


def _options(dataset: AUDataset) -> dict[str, Any]:
    """Return the dataset's options as JSON expresses them."""
    return dict(json.loads(json.dumps(asdict(dataset), default=str)))  # folders may be given as paths


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the settings that a folder was begun with, None if it has none; older records are brought up to date.

    Raises:
        DatasetError: If the record cannot be read.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        return record if "options" in record else _updated(record)
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, AttributeError) as error:
        raise DatasetError(
            f"Cannot read the settings in {str(path)!r} ({error}). Pass another folder, or remove this one."
        ) from error


def _updated(record: dict[str, Any]) -> dict[str, Any]:
    """Convert a record of before 0.1, which held the repr of the dataset."""
    call = ast.parse(record["dataset"], mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError("it names no dataset")
    classes = {dataset_class(name).__name__: name for name in DATASETS}
    options = {entry.arg: ast.literal_eval(entry.value) for entry in call.keywords}
    faceless = record["faceless"].replace("neighbour", "neighbor")
    return {**record, "dataset": classes[call.func.id], "options": options, "faceless": faceless}


def changed_option(record: Mapping[str, Any], dataset: AUDataset, options: Iterable[str] | None = None) -> str | None:
    """Return the first option (None: of all) whose value differs from the recorded one, None if they agree."""
    wanted = _options(dataset)
    recorded = {entry.name: entry.default for entry in fields(dataset)} | record["options"]
    return next((name for name in (wanted if options is None else options) if recorded[name] != wanted[name]), None)


def read_card(folder: Path) -> dict[str, Any]:
    """Read the header of the folder's card; {} without one."""
    if not (folder / CARD).is_file():
        return {}
    from huggingface_hub.repocard import metadata_load

    try:
        return metadata_load(folder / CARD) or {}
    except ValueError:  # somebody else's page
        return {}


def holds_crops(folder: Path) -> bool:
    """Return whether a folder is that of crops, finished or not. Other datasets may have cards as well."""
    card = read_card(folder)
    return (folder / RECORD).is_file() or ("configs" in card and card.get("license_name") in DATASETS)


def write_shard(table: "pa.Table", dataset: AUDataset, target: Path) -> None:
    """Write a parquet file whose metadata hold the features for `datasets`."""
    import pyarrow.parquet as pq

    with whole_file(target) as part:
        # JPEG does not get smaller; without compression nothing is unpacked when reading.
        pq.write_table(table.cast(dataset.features().arrow_schema), part, row_group_size=ROW_GROUP, compression="none")


def config_name(fold: int | None, protocol: str, dataset: AUDataset) -> str:
    """Return the configuration that holds a fold of AU rows."""
    if fold is None:
        return "all"
    return f"fold{fold}{'-megraphau' if protocol == 'megraphau' and dataset.HAS_MEGRAPHAU_FOLDS else ''}"


def _configurations(dataset: AUDataset, rows: Mapping[str, int]) -> dict[str, dict[str, list[str]]]:
    """Return the groups of shards of each split of each configuration, the default configuration first."""
    groups = [name for name, count in rows.items() if count]
    if not dataset.aus:
        return {"default": {name: [name] for name in groups}}
    folds = {}
    for protocol in PROTOCOLS if dataset.HAS_MEGRAPHAU_FOLDS else PROTOCOLS[:1]:
        for number in range(1, dataset.fold_count + 1):
            test = part_name(dataset.fold(number, protocol).part)
            if test in groups and len(groups) > 1:
                train = [name for name in groups if name != test]
                folds[config_name(number, protocol, dataset)] = {"train": train, "test": [test]}
    return {**folds, "all": {"train": groups}}


def part_name(part: int | None) -> str:
    """Name the group of shards of one part of the folds."""
    return f"part{(part or 0) + 1}"


_CARD = """---
{header}---

# Face crops of {dataset.TITLE}

{terms}

- License of the source: {dataset.LICENSE}
- Source: {dataset.HOMEPAGE}
- Cite: {dataset.CITATION}
- Read as: `{dataset!r}`
- Rows: {counts}
- Crops: {settings.size} × {settings.size} pixels by the crop template of hf_geaau, JPEG quality {settings.quality}, \
faces by YuNet with a score of at least {settings.min_score}
- Frames without a face: {settings.faceless}; {problems} entries in `{report}`

```python
import datasets

datasets.load_dataset("path/to/this/folder")
```
"""
_LICENSED = """\
**Do not publish, upload or pass on these files, in whole or in part.** They are derived from data that
is not yours to share: crops show the same people as the originals, and the same terms bind them.
A dataset loaded from this folder has no guard of its own: do not call `push_to_hub` on it."""
_TERMS = {
    "synthetic": "These faces are rendered; no license of face data restricts them.",
    "folder": "These crops show the people of your own images. Their consent and your terms decide who may have them.",
}


def write_card(dataset: AUDataset, settings: CropSettings, rows: Mapping[str, int], problems: int, path: Path) -> None:
    """Write the dataset card; its header lists the splits for `load_dataset`, from the rows of each group of shards."""
    import yaml

    configs = [
        {
            "config_name": name,
            "default": number == 0,
            "data_files": [
                {"split": split, "path": [f"{SHARDS}/{group}-*.parquet" for group in groups]}
                for split, groups in splits.items()
            ],
        }
        for number, (name, splits) in enumerate(_configurations(dataset, rows).items())
    ]
    header = {"license": "other", "license_name": dataset.NAME, "viewer": False, "configs": configs}
    if dataset.aus:
        header["action_units"] = facs.labels(dataset.aus)  # the order of labels and intensities
    text = _CARD.format(
        header=yaml.safe_dump(header, sort_keys=False),
        dataset=dataset,
        terms=_LICENSED if dataset.IS_LICENSED else _TERMS[dataset.NAME],
        counts=", ".join(f"{name} {count}" for name, count in rows.items()),
        settings=settings,
        problems=problems,
        report=REPORT,
    )
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
