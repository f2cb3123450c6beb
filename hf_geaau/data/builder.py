"""The builder, its cache, and the guard on what it returns: the part of `load` that needs the package `datasets`.

It lies apart so that `hf_geaau.data` can be imported, and its datasets described, without that package.
"""

import errno
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.builder import Key
from datasets.exceptions import DatasetGenerationError

from hf_geaau import facs
from hf_geaau.errors import DatasetError, DatasetWarning, GeaauError

from ._guard import guard
from .base import ROWS_VERSION, AUDataset, DatasetNotes, Fold, count_warning, fingerprint
from .rows import Block, tables


class AUBuilder(datasets.ArrowBasedBuilder):
    """Writes the rows of an `AUDataset` to the cache of `datasets`, one block at a time."""

    VERSION = datasets.Version(ROWS_VERSION)

    def __init__(self, dataset: AUDataset, folder: Path, fold: Fold, notes: DatasetNotes, **arguments: Any) -> None:
        self.dataset, self.folder, self.fold, self.notes = dataset, folder, fold, notes
        self.counts: dict[str, int] | None = None
        super().__init__(**arguments)

    def _info(self) -> datasets.DatasetInfo:
        units = ", ".join(facs.labels(self.dataset.aus))
        return datasets.DatasetInfo(
            description=f"{self.dataset.TITLE}. Order of labels and intensities: {units}.",
            features=self.dataset.features(),
            license=self.dataset.LICENSE,
            homepage=self.dataset.HOMEPAGE,
            citation=self.dataset.CITATION,
        )

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        splits = self.dataset.splits(self.dataset.rows(self.folder, self.notes), self.fold)
        for name, blocks in splits.items():
            if not blocks:
                raise DatasetError(
                    f"The {name} split of {self.fold} is empty: none of its subjects are in {str(self.folder)!r}. "
                    "Complete the copy, or pass `fold=None` for all its subjects."
                )
        self.counts = {name: sum(map(len, blocks)) for name, blocks in splits.items()}
        return [datasets.SplitGenerator(name=name, gen_kwargs={"blocks": blocks}) for name, blocks in splits.items()]

    def _generate_tables(self, blocks: list[Block]) -> Iterator[tuple[Key, pa.Table]]:
        schema = self.info.features.arrow_schema
        if self.dataset.check_images:
            _decode_all(path for block in blocks for path in np.ravel(block.images).tolist())
        for index, table in enumerate(tables(blocks)):
            yield Key(index, 0), table.cast(schema)


def build(
    dataset: AUDataset,
    folder: Path,
    fold: Fold,
    *,
    split: str | None,
    num_proc: int | None,
    streaming: bool,
    cache_dir: str | os.PathLike[str] | None,
) -> Any:
    """Do the work of `hf_geaau.data.load`, which has checked the arguments."""
    notes = DatasetNotes(dataset.problems)
    builder = AUBuilder(
        dataset,
        folder,
        fold,
        notes,
        cache_dir=str(cache_dir) if cache_dir else None,
        # The builder's own name is that of this module, and would be shared by all datasets.
        dataset_name=dataset.NAME,
        config_name="all" if fold.number is None else f"fold{fold.number}-{fold.protocol}",
        # `datasets` never looks at the files again once a cache exists: what they are must be in its name.
        hash=fingerprint(dataset, folder),
    )
    if streaming:
        result = builder.as_streaming_dataset(split=split)
    else:
        _write_cache(builder, num_proc)
        result = builder.as_dataset(split=split)
    if builder.counts is None:  # the rows were cached, so nothing was read; what was left out is still worth a warning
        builder.counts = {name: info.num_examples for name, info in (builder.info.splits or {}).items()}
        if dataset.problems == "warn" or dataset.IS_OFTEN_INCOMPLETE:
            dataset.rows(folder, notes)
    notes.warn(dataset.TITLE, stacklevel=3)
    if message := count_warning(dataset, builder.counts, fold):
        warnings.warn(message, DatasetWarning, stacklevel=3)
    return guard(result) if dataset.IS_LICENSED else result


def _write_cache(builder: AUBuilder, num_proc: int | None) -> None:
    """Write the cache; a full disk is reported as such, not as an error of the dataset.

    Raises:
        DatasetError: If the disk is full.
    """
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except (DatasetGenerationError, OSError) as error:
        cause = error.__cause__ or error  # from another process it is a text
        if getattr(cause, "errno", None) != errno.ENOSPC and os.strerror(errno.ENOSPC) not in str(cause):
            raise
        raise DatasetError(
            f"Disk full while writing the cache in {builder.cache_dir!r}. Free some space, pass another `cache_dir`, "
            "or pass `streaming=True`, which writes none."
        ) from error


class _ImageError(DatasetError, DatasetGenerationError):
    """A DatasetError that `datasets` raises unchanged, also from another process."""


def _decode_all(paths: Iterable[str]) -> None:
    """Decode images, to find those that cannot be decoded.

    Raises:
        DatasetError: Names the first such image.
    """
    image = datasets.Image()
    for path in paths:
        try:
            image.decode_example({"path": path, "bytes": None})
        except GeaauError as error:
            raise _ImageError(str(error)) from error
        except Exception as error:  # whatever damaged content leads a decoder to
            raise _ImageError(f"Cannot decode {path!r}: {error}. Extract or copy it again.") from error
