"""The part that needs the package `datasets`: the builder, its cache, and the guard on what it returns.

Apart from `_base`, so that `hf_geaau.data` can be imported, and its datasets described, without that package.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.builder import Key
from datasets.exceptions import DatasetGenerationError

from hf_geaau import facs
from hf_geaau.errors import DatasetError, DatasetWarning, GeaauError, LicenceError

from ._base import BUILDER_VERSION, AUDataset, DatasetNotes, fingerprint


class AUBuilder(datasets.ArrowBasedBuilder):
    """Writes the rows of an `AUDataset` to the cache of `datasets`, one sequence at a time."""

    VERSION = datasets.Version(BUILDER_VERSION)

    def __init__(
        self, dataset: AUDataset, folder: Path, fold: int | None, protocol: str, notes: DatasetNotes, **arguments: Any
    ) -> None:
        self.dataset, self.folder, self.fold, self.protocol, self.notes = dataset, folder, fold, protocol, notes
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

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        sequences = self.dataset.sequences(self.folder, self.notes)
        splits = self.dataset.splits(sequences, self.fold, self.protocol)
        for name, members in splits.items():
            if not members:
                raise DatasetError(
                    f"The {name} split must have subjects, got none of fold {self.fold} ({self.protocol}) in "
                    f"{str(self.folder)!r}. Complete the copy, or pass `fold=None` for all that is there."
                )
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"sequences": members}) for name, members in splits.items()
        ]

    def _generate_tables(self, sequences: list[Any]) -> Iterator[tuple[Key, pa.Table]]:
        schema = self.info.features.arrow_schema
        for index, sequence in enumerate(sequences):
            yield Key(index, 0), self.dataset.table(sequence).cast(schema)


def build(
    dataset: AUDataset,
    folder: Path,
    fold: int | None,
    split: str | None,
    protocol: str,
    num_proc: int | None,
    streaming: bool,
    cache_dir: str | os.PathLike[str] | None,
) -> Any:
    """Do the work of `hf_geaau.data.load`, whose arguments are checked already."""
    notes = DatasetNotes(dataset.problems)
    builder = AUBuilder(
        dataset,
        folder,
        fold,
        protocol,
        notes,
        cache_dir=str(cache_dir) if cache_dir else None,
        dataset_name=dataset.NAME,
        config_name="all" if fold is None else f"fold{fold}-{protocol}",
        # `datasets` never looks at the files again once a cache exists: what they are must be in its name.
        hash=fingerprint(dataset, folder),
    )
    if streaming:
        result = builder.as_streaming_dataset(split=split)
    else:
        try:
            builder.download_and_prepare(num_proc=num_proc)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, GeaauError):
                raise error.__cause__ from None
            raise
        result = builder.as_dataset(split=split)
    return result
