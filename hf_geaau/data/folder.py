"""Own data: a table that names images and action units, through the columns of the benchmarks."""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError, DatasetWarning

from .base import AUDataset, DatasetNotes, Fold, require
from .rows import Block, Recording
from .table_columns import ROLES, Columns, find_columns, intensities, occurrences, plain_text
from .tables import SPLITS, StoredImage, Table, find_tables, read_tables, stored_paths, written_dataset

FOLDS = 3  # unless the table has a split; the number of the benchmarks


@dataclass(frozen=True)
class Folder(AUDataset):
    """A table of images and AUs: csv, tsv, jsonl, parquet, or a `datasets.Dataset`.

    Columns are told by their names, whatever their case: the image (a path, or its bytes), AUs (`AU01`, `AU1`, `au_1`,
    `AU01_c` for occurrence, `AU01_r` for intensity), and optionally subject, split, sequence and frame. A split column
    with test rows, or files named train and test, are the one fold; without, there are subject-exclusive ones.

    Attributes:
        images: The folder that paths start from. Default: that of the table; for a `Dataset`, the working directory.
        aligned: Whether the images are aligned crops of faces. By default they are taken as photos, whose largest face
            is found and cut: that is right for crops as well, if slower.
        image_column, subject_column, split_column, sequence_column, frame_column: Names, where the guess is wrong.
        action_units: FACS numbers to read; default: all in the table.
        present_from: Intensity from which an AU counts as present, where the table has no occurrence. 2 as for DISFA.
        folds: How many folds to make, 1 for the table's own split. Default: 1 if it has one, else 3.
        fold_seed: Decides who is in which fold.
    """

    NAME = "folder"
    TITLE = "own data"
    LICENSE = "The terms of whoever owns the images and labels; not known to hf_geaau"
    HOMEPAGE = "https://github.com/geaau/hf_geaau/blob/main/docs/own_data.md"
    CITATION = "None known"
    LAYOUT = """
faces.csv          image,subject,AU01,AU12,AU25_r    one row for each image; also .tsv, .jsonl or .parquet
                   photos/ada_1.jpg,ada,1,0,2.5      1 present, 0 absent, blank not labeled; AU25_r is an intensity
photos/ada_1.jpg   found from the folder of the table; a whole photo, or an aligned crop with aligned=true
Optional columns: subject, split, sequence, frame. The layout `imagefolder` of `datasets` is read as well."""
    IS_LICENSED = False
    IS_CUT_WHEN_OPENED = True

    images: str | os.PathLike[str] | None = None
    aligned: bool = False
    image_column: str | None = None
    subject_column: str | None = None
    split_column: str | None = None
    sequence_column: str | None = None
    frame_column: str | None = None
    action_units: facs.AUList | None = None
    present_from: float = 2
    folds: int | None = None
    fold_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.aligned, bool):
            raise DatasetError(f"`aligned` must be true or false, got {self.aligned!r}.")
        if isinstance(self.present_from, bool) or not 0 < self.present_from <= 5:
            raise DatasetError(f"`present_from` must be an intensity above 0 and up to 5, got {self.present_from!r}.")
        if self.folds is not None and (isinstance(self.folds, bool) or self.folds not in range(1, 1001)):
            raise DatasetError(f"`folds` must be a whole number from 1, got {self.folds!r}. 1 takes the table's split.")
        if self.fold_seed < 0:
            raise DatasetError(f"`fold_seed` must be at least 0, got {self.fold_seed!r}.")
        if self.images is not None:
            object.__setattr__(self, "images", str(Path(self.images).expanduser().absolute()))
        if self.action_units is not None:
            try:
                object.__setattr__(self, "action_units", facs.numbers(self.action_units))
            except ValueError as error:
                raise DatasetError(f"`action_units` does not fit: {error}") from error

    @property
    def aus(self) -> tuple[int, ...]:
        """The AUs of the table."""
        if self.action_units is None:
            raise DatasetError("The AUs of own data are those of its table. Call `resolved(data_dir)` first.")
        return facs.numbers(self.action_units)

    @property
    def is_resolved(self) -> bool:
        """Whether AUs and number of folds are known."""
        return self.action_units is not None and self.folds is not None

    @property
    def is_aligned(self) -> bool:
        """Whether images are face crops already, as the user says."""
        return self.aligned

    @property
    def fold_count(self) -> int:
        """The number of folds."""
        return self.folds or FOLDS

    def resolved(self, data_dir: Any) -> tuple["Folder", Path]:
        """Find the table, and fill in AUs and number of folds from it, or from the card of crops."""
        images = self.images
        if not isinstance(data_dir, str | Path):
            images = images or str(Path.cwd())
            source = written_dataset(data_dir, _cache())
        else:
            source = Path(data_dir).expanduser().absolute()
        if not source.exists():
            raise self.not_found(source, "no such file or folder")
        from .crops.storage import holds_crops, read_card

        if holds_crops(source):
            card = read_card(source)
            found = tuple(facs.numbers(card["action_units"])) if "action_units" in card else None
            made = sum(entry["config_name"].startswith("fold") for entry in card.get("configs", ()))
            return replace(self, action_units=self.action_units or found, folds=self.folds or made or None), source
        table, columns = self._table(source)
        folds = self.folds or (1 if self._test_name(table, columns) else FOLDS)
        if folds == 1 and not self._test_name(table, columns):
            raise DatasetError(f"`folds` must be at least 2 for {str(source)!r}, which has no test rows, got 1.")
        for note in [*columns.notes, *self._notes_on_people(table, columns, repr(str(source)), folds)]:
            warnings.warn(note, DatasetWarning, stacklevel=2)
        return replace(self, images=images, action_units=columns.action_units, folds=folds), source

    def files(self, data_dir: Path) -> list[Path]:
        """Find the tables; where missing images are left out, also the folder of the images."""
        tables = list(find_tables(data_dir))
        return tables + ([Path(self.images or tables[0].parent)] if self.problems == "warn" else [])

    def read(self, data_dir: Path, notes: DatasetNotes) -> list[Recording]:
        """Read the table: one recording for each sequence, or for each image if no column names sequences."""
        table, columns = self._table(data_dir)
        images = self._images(table, columns)
        keep = self._existing(images, table, notes)
        people, sequences = self._people(table, columns, self._names(table, columns, images, data_dir))
        frames = self._frames(table, columns)
        parts = self._splits(table, columns) or [""] * len(table)
        labels, levels = self._labels(table, columns)
        groups: dict[tuple[str, str, str], list[int]] = {}
        for row in np.flatnonzero(keep).tolist():
            groups.setdefault((people[row], sequences[row], parts[row]), []).append(row)
        owners: dict[str, set[str]] = {}
        for person, sequence, _ in groups:
            owners.setdefault(sequence, set()).add(person)
        recordings = []
        for (person, sequence, part), members in groups.items():
            rows = np.array(sorted(members, key=lambda row: frames[row]))
            name = sequence if len(owners[sequence]) == 1 else f"{person}/{sequence}"
            paths = [images[row] or "" for row in rows.tolist()]
            recordings.append(Recording(person, name, frames[rows], labels[rows], levels[rows], paths, part))
        return recordings

    def parts(self, blocks: Sequence[Block]) -> list[list[Block]]:
        """Divide rows into the test rows and the others, or into folds of equal size that share nobody."""
        rows = [block for block in blocks if isinstance(block, Recording)]
        if self.folds == 1:
            test = "test" if any(block.split == "test" for block in rows) else "validation"
            return [[block for block in rows if (block.split == test) is wanted] for wanted in (True, False)]
        part = self._parts_of_people(rows)
        return [[block for block in rows if part[block.subject_id] == index] for index in range(self.fold_count)]

    def splits(self, blocks: Sequence[Block], fold: Fold) -> dict[str, list[Block]]:
        """Divide rows into train and test; all are train if the fold has no number."""
        if fold.part is None:
            return {"train": list(blocks)}
        parts = self.parts(blocks)
        train = [block for index, part in enumerate(parts) if index != fold.part for block in part]
        return {"train": train, "test": parts[fold.part]}

    def _parts_of_people(self, rows: Sequence[Recording]) -> dict[str, int]:
        """Put people, the one with the most frames first, into the part that has the fewest frames so far."""
        frames: dict[str, int] = {}
        for block in rows:
            frames[block.subject_id] = frames.get(block.subject_id, 0) + len(block)
        if len(frames) < self.fold_count:
            raise DatasetError(
                f"{self.fold_count} folds need as many subjects, got {len(frames)}. Pass fewer `folds`, add a split "
                "column, or pass `fold=None` for all in one."
            )
        people = np.random.default_rng(self.fold_seed).permutation(sorted(frames)).tolist()
        totals = [0] * self.fold_count
        part = {}
        for person in sorted(people, key=lambda name: -frames[name]):
            part[person] = int(np.argmin(totals))
            totals[part[person]] += frames[person]
        return part

    def _table(self, source: Path) -> tuple[Table, Columns]:
        table = _read(tuple((path, split, _state(path)) for path, split in find_tables(source).items()))
        chosen = {role: getattr(self, f"{role}_column") for role in ROLES}
        return table, find_columns(
            list(table.columns), chosen, repr(str(source)), None if self.action_units is None else self.aus
        )

    def _column(self, table: Table, columns: Columns, role: str) -> list[Any] | None:
        return table.columns[columns.roles[role]] if role in columns.roles else None

    def _splits(self, table: Table, columns: Columns) -> list[str] | None:
        """Return the split of each row, None if neither a column nor the files' names state it."""
        values = self._column(table, columns, "split")
        if values is None:
            names = [table.splits[file] for file, _ in table.places]
            return None if None in names else [name or "" for name in names]
        known = {}
        for row, text in enumerate(plain_text(value).lower() for value in values):
            if text not in known and text not in SPLITS:
                raise DatasetError(
                    f"{columns.roles['split']!r} must be train, validation or test, got {values[row]!r} in "
                    f"{table.place(row)}. Correct it, or pass split_column."
                )
            known[text] = SPLITS[text]
        return [known[plain_text(value).lower()] for value in values]

    def _notes_on_people(self, table: Table, columns: Columns, where: str, folds: int) -> Iterable[str]:
        """Yield warnings if the same person may be, or is, in train and test."""
        people = self._column(table, columns, "subject")
        if people is None and folds > 1:
            unit = "sequence" if "sequence" in columns.roles else "image"
            yield (
                f"No column of {where} names the subject, so each {unit} counts as one: the same person may be in "
                "train and test, and scores may be too high. Add a column 'subject'."
            )
        if people is not None and folds == 1:
            test, splits = self._test_name(table, columns), self._splits(table, columns) or []
            sides: dict[bool, set[str]] = {True: set(), False: set()}
            for person, split in zip(people, splits, strict=True):
                sides[split == test].add(plain_text(person))
            if both := sorted(sides[True] & sides[False]):
                yield (
                    f"{len(both)} subjects of {where} are in train and test, such as {both[0]!r}, so scores may be too "
                    "high. Correct the split, or pass `folds=3` for folds that share nobody."
                )

    def _test_name(self, table: Table, columns: Columns) -> str | None:
        """Return which split is the test set: "test", or "validation" if there is no other; None without any."""
        names = set(self._splits(table, columns) or ())
        return next((name for name in ("test", "validation") if name in names and len(names) > 1), None)

    def _labels(self, table: Table, columns: Columns) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Return labels and intensities, each (R, N); occurrence without a column is made of intensity."""
        shape = len(table), len(self.aus)
        labels, levels = np.full(shape, -1, np.int8), np.full(shape, -1, np.float32)
        for index, unit in enumerate(self.aus):
            if name := columns.intensity.get(unit):
                levels[:, index] = intensities(table.columns[name], name, table.place)
                known = levels[:, index] >= 0
                labels[known, index] = levels[known, index] >= self.present_from
            if name := columns.occurrence.get(unit):
                labels[:, index] = occurrences(table.columns[name], name, table.place)
        return labels, levels

    def _images(self, table: Table, columns: Columns) -> list[str | None]:
        """Return the absolute path of each image, None where the table names none."""
        values = self._column(table, columns, "image") or []
        stored = {
            key: stored_paths(*key, _cache())
            for key in dict.fromkeys((cell.file, cell.column) for cell in values if isinstance(cell, StoredImage))
        }
        roots = {file: self.images or str(file.parent) for file in table.splits}
        paths: list[str | None] = []
        for value, (file, _) in zip(values, table.places, strict=True):
            text = stored[value.file, value.column][value.row] if isinstance(value, StoredImage) else plain_text(value)
            if text and "://" not in text:
                # A table from Windows; no file name holds a backslash by intention.
                text = os.path.normpath(os.path.join(roots[file], text.replace("\\", "/")))  # noqa: PTH118 - faster
            paths.append(text or None)
        return paths

    def _existing(self, images: Sequence[str | None], table: Table, notes: DatasetNotes) -> NDArray[np.bool_]:
        """Return which rows have an image that exists and that no earlier row has."""
        first: dict[str, int] = {}
        missing, twice = [], []
        for row, path in enumerate(images):
            if not path or ("://" not in path and not os.path.isfile(path)):  # noqa: PTH113 - 5 times faster than Path
                missing.append(row)
            elif first.setdefault(path, row) != row:
                twice.append(row)
        if missing:
            shown = f"{images[missing[0]]!r} does not exist" if images[missing[0]] else "it names none"
            notes.add(
                f"{len(missing)} of {len(table)} rows have no image; the first is {table.place(missing[0])}: {shown}. "
                "Copy the images, or pass `images`, the folder that the paths start from."
            )
        if twice:
            notes.add(
                f"{len(twice)} rows have the image of an earlier row; the first is {table.place(twice[0])}: "
                f"{images[twice[0]]!r}, as in {table.place(first[images[twice[0]] or ''])}. Remove one."
            )
        keep = np.ones(len(table), bool)
        keep[missing + twice] = False
        return keep

    def _people(self, table: Table, columns: Columns, names: list[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Return the subject and the sequence of each row. What has no column is replaced by the next smaller unit."""
        given = {role: self._column(table, columns, role) for role in ("subject", "sequence")}
        texts = {role: cells and [plain_text(cell) for cell in cells] for role, cells in given.items()}
        for role, values in texts.items():
            if values is not None and "" in values:
                raise DatasetError(f"{columns.roles[role]!r} is blank in {table.place(values.index(''))}. Fill it in.")
        sequences = texts["sequence"] or names
        return texts["subject"] or sequences, sequences

    def _names(self, table: Table, columns: Columns, images: Sequence[str | None], data_dir: Path) -> list[str]:
        """Name each image without the path of this machine, which crops that are passed on would carry."""
        base = os.path.join(self.images or (data_dir if data_dir.is_dir() else data_dir.parent), "")  # noqa: PTH118
        names = []
        for path, cell in zip(images, self._column(table, columns, "image") or [], strict=True):
            if path and path.startswith(base):
                names.append(path.removeprefix(base).replace(os.sep, "/"))
            elif isinstance(cell, StoredImage):
                names.append(f"{cell.file.stem}-{cell.row}")
            else:
                names.append(path or "")
        return names

    def _frames(self, table: Table, columns: Columns) -> NDArray[np.int32]:
        """Return the frame number of each row; without a column, the row's number from 0."""
        values = self._column(table, columns, "frame")
        if values is None:
            return np.arange(len(table), dtype=np.int32)
        frames = np.zeros(len(table), np.int32)
        for row, value in enumerate(values):
            text = plain_text(value)
            if not text.isdecimal() or int(text) >= 2**31:
                raise DatasetError(
                    f"{columns.roles['frame']!r} must be a whole number, got {value!r} in {table.place(row)}. Correct "
                    "it, or pass frame_column."
                )
            frames[row] = int(text)
        return frames


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1)
def _read(found: tuple[tuple[Path, str | None, tuple[int, int]], ...]) -> Table:
    """Read tables; one command asks for the same several times."""
    return read_tables({path: split for path, split, _ in found})


def _cache() -> Path:
    """Return the folder for tables and images that exist in memory or inside another file only."""
    return Path(require("datasets", "datasets", "hf_geaau.data").config.HF_DATASETS_CACHE)


DATASET = Folder
