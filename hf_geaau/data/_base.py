"""What every dataset shares: columns, checks, folds, totals, caching, the licence guard.

A dataset is a subclass of `AUDataset`. It finds its files (`files`), reads all labels at once (`sequences`), and leaves
the rest to this module. Labels are small, images are not: labels are read and checked before anything else happens,
images stay paths until somebody looks at them.
"""

import hashlib
import importlib
import inspect
import os
import pkgutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import DatasetError, DatasetNotFoundError, DatasetWarning, MissingExtraError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

BUILDER_VERSION = "1.0.0"
"""Part of the cache key: raise it when the same files lead to other rows."""

PROTOCOLS = ("jaanet", "megraphau")
"""The two numberings of the same three subject sets. Source: the path lists of ZhiwenShao/PyTorch-JAANet
and CVI-SZU/ME-GraphAU."""

PROBLEM_POLICIES = ("raise", "warn")


@dataclass(eq=False)
class Sequence:
    """The labelled frames of one recording, in order; one shard of the work.

    Attributes:
        subject_id: Who, as the dataset names people.
        sequence_id: Which recording, unique in the dataset.
        frames: (F,) int32, frame numbers as the label files count them.
        labels: (F, N) int8, 1 present, 0 absent, -1 not labelled.
        intensities: (F, N) int8, 0-5, -1 missing.
        images: F paths, or URLs that fsspec opens (frames in zips and videos).
    """

    subject_id: str
    sequence_id: str
    frames: NDArray[np.int32]
    labels: NDArray[np.int8]
    intensities: NDArray[np.int8]
    images: list[str]

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, keep: NDArray[np.bool_]) -> "Sequence":
        """Give the frames where `keep` is true."""
        images = [image for image, kept in zip(self.images, keep, strict=True) if kept]
        return Sequence(
            self.subject_id, self.sequence_id, self.frames[keep], self.labels[keep], self.intensities[keep], images
        )


@dataclass
class DatasetNotes:
    """What was found wrong and, with `problems="warn"`, left out.

    Attributes:
        policy: "raise" makes the first problem an error, "warn" collects them.
        entries: One line each.
    """

    policy: str = "raise"
    entries: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Report a problem: an error, or an entry for the warning at the end."""
        if self.policy == "raise":
            raise DatasetError(message)
        self.entries.append(message)

    def warn(self, title: str, stacklevel: int = 2) -> None:
        """Warn once about all entries, and forget them."""
        if not self.entries:
            return
        more = f" And {len(self.entries) - 5} more." if len(self.entries) > 5 else ""
        warnings.warn(
            f"{title} must be complete, got {len(self.entries)} problems; what they touch is left out. "
            f"{' '.join(self.entries[:5])}{more}",
            DatasetWarning,
            stacklevel=stacklevel + 1,
        )
        self.entries.clear()


@dataclass(frozen=True)
class AUDataset(ABC):
    """What a dataset module provides; its fields are the options that `load` passes on.

    Class attributes:
        NAME: The module's name; `load(NAME, ...)`.
        TITLE: What its owners call it.
        LICENSE, HOMEPAGE, CITATION: Of the data, for the dataset's info.
        IS_LICENSED: Whether publishing it is forbidden.
        IS_ALIGNED: Whether images are face crops already.
        IS_OFTEN_INCOMPLETE: Whether copies lack images as a rule, for instance because links died; then each `load`
            looks again and warns, also where a cache is there.
        LAYOUT: The directory that its owners send, as text.
        PARTS: Subject ids of each part; the test set of a fold is one part, its train set the others.
        PART_FRAMES: Published number of frames of each part, without and with the drop list; () where none is known.
        write_example: Writes a small imitation of the layout into a folder; each dataset states its quirks.
        DROP_LIST: Sequence id -> frames (first, last) that published lists leave out.

    Attributes:
        drop_listed: Leave out the frames of `DROP_LIST`.
        problems: "raise" on the first thing missing, or "warn" once about all and leave out what they touch. A damaged
            label file is always an error.
        check_images: Decode every image while the cache is written, so that a corrupt one is found now and named,
            not in the middle of training. Takes as long as reading all images once.
    """

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    LICENSE: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    CITATION: ClassVar[str]
    LAYOUT: ClassVar[str]
    write_example: ClassVar[Callable[..., Path]]
    IS_LICENSED: ClassVar[bool] = True
    IS_ALIGNED: ClassVar[bool] = False
    IS_OFTEN_INCOMPLETE: ClassVar[bool] = False
    PARTS: ClassVar[tuple[tuple[str, ...], ...]] = ()
    MEGRAPHAU_FOLDS: ClassVar[tuple[int, ...]] = ()
    PART_FRAMES: ClassVar[tuple[tuple[int, ...], ...]] = ()
    DROP_LIST: ClassVar[Mapping[str, tuple[tuple[int, int], ...]]] = {}

    drop_listed: bool = False
    problems: str = "raise"
    check_images: bool = False

    def __post_init__(self) -> None:
        choose("problems", self.problems, PROBLEM_POLICIES)
        if self.drop_listed and not self.DROP_LIST:
            raise DatasetError(f"`drop_listed` must be False for {self.TITLE}, which has no drop list. Leave it out.")

    @property
    @abstractmethod
    def aus(self) -> tuple[int, ...]:
        """FACS numbers of the label columns, in order."""

    @abstractmethod
    def files(self, data_dir: Path) -> list[Path]:
        """Find everything that decides the rows: label files, and folders or containers of images.

        Raises:
            DatasetNotFoundError: If the layout is not there.
        """

    @abstractmethod
    def sequences(self, data_dir: Path, notes: DatasetNotes) -> list[Any]:
        """Read and check all labels and match them with images."""

    def features(self) -> "datasets.Features":
        """Give the columns."""
        from datasets import Features, Image, List, Value

        count = len(self.aus)
        return Features(
            {
                "image": Image(),
                "labels": List(Value("float32"), length=count),
                "intensities": List(Value("float32"), length=count),
                "subject_id": Value("string"),
                "sequence_id": Value("string"),
                "frame": Value("int32"),
            }
        )

    def expected(self, fold: int | None, protocol: str) -> dict[str, int]:
        """Give the published number of frames of each split; {} where none is known."""
        if not self.PART_FRAMES:
            return {}
        frames = [part[int(self.drop_listed)] for part in self.PART_FRAMES]
        if fold is None:
            return {"train": sum(frames)}
        test = frames[self.part_of(fold, protocol)]
        return {"train": sum(frames) - test, "test": test}

    def rows(self, data_dir: Path, notes: DatasetNotes) -> list[Any]:
        """Give the sequences, without the frames of the drop list if so asked."""
        sequences = self.sequences(data_dir, notes)
        if self.drop_listed:
            sequences = [
                sequence.select(~listed(sequence, self.DROP_LIST.get(sequence.sequence_id, ())))
                for sequence in sequences
            ]
        return [sequence for sequence in sequences if len(sequence)]

    def table(self, sequence: Any) -> "pa.Table":
        """Turn one sequence into rows."""
        import pyarrow as pa

        count = len(sequence)
        paths = pa.array(sequence.images, pa.string())
        return pa.table(
            {
                "image": pa.StructArray.from_arrays([pa.nulls(count, pa.binary()), paths], ["bytes", "path"]),
                "labels": _fixed_lists(sequence.labels),
                "intensities": _fixed_lists(sequence.intensities),
                "subject_id": pa.array([sequence.subject_id] * count, pa.string()),
                "sequence_id": pa.array([sequence.sequence_id] * count, pa.string()),
                "frame": pa.array(sequence.frames, pa.int32()),
            }
        )

    def splits(self, sequences: list[Any], fold: int | None, protocol: str) -> dict[str, list[Any]]:
        """Divide sequences into train and test by subject; without a fold, all are train."""
        if fold is None:
            return {"train": sequences}
        test = set(self.PARTS[self.part_of(fold, protocol)])
        return {
            "train": [sequence for sequence in sequences if sequence.subject_id not in test],
            "test": [sequence for sequence in sequences if sequence.subject_id in test],
        }

    def part_of(self, fold: int, protocol: str) -> int:
        """Give the index in `PARTS` of a fold's test subjects.

        Raises:
            DatasetError: For a fold or protocol that does not exist.
        """
        choose("protocol", protocol, PROTOCOLS)
        if isinstance(fold, bool) or not isinstance(fold, int) or not 1 <= fold <= len(self.PARTS):
            raise DatasetError(
                f"`fold` must be from 1 to {len(self.PARTS)} for {self.TITLE}, got {fold!r}. "
                "Pass one of these, or None for all subjects in one split."
            )
        return (self.MEGRAPHAU_FOLDS[fold - 1] if protocol == "megraphau" and self.MEGRAPHAU_FOLDS else fold) - 1


def choose(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Check that an option has one of its values.

    Raises:
        DatasetError: If not, with the nearest match.
    """
    allowed = tuple(allowed)
    if value in allowed:
        return
    near = get_close_matches(str(value), [str(item) for item in allowed], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else " Pass one of these."
    raise DatasetError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.{hint}")


@cache
def _datasets() -> dict[str, type[AUDataset]]:
    """Find the dataset modules beside this one: those that define `DATASET`."""
    package = __package__ or "hf_geaau.data"
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name[0] != "_"]
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    return {name: module.DATASET for name, module in sorted(modules.items()) if hasattr(module, "DATASET")}


def list_datasets() -> list[str]:
    """Name the datasets that `load` knows.

    Example:
        >>> "disfa" in list_datasets()
        True
    """
    return list(_datasets())


def get_dataset(name: str, **options: Any) -> AUDataset:
    """Give a dataset with its options set.

    Args:
        name: One of `list_datasets()`.
        **options: See the dataset's class.

    Raises:
        DatasetError: For an unknown name, option or value.

    Example:
        >>> get_dataset("disfa", camera="left").aus
        (1, 2, 4, 6, 9, 12, 25, 26)
    """
    choose("name", name, _datasets())
    kind = _datasets()[name]
    for option in options:
        choose("option", option, [entry.name for entry in fields(kind)])
    return kind(**options)


def load(
    name: str,
    data_dir: str | os.PathLike[str],
    fold: int | None = 1,
    split: str | None = None,
    *,
    protocol: str = "jaanet",
    num_proc: int | None = None,
    streaming: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Load a benchmark from the directory that its owners sent you.

    Args:
        name: One of `list_datasets()`.
        data_dir: The directory; see `get_dataset(name).LAYOUT`.
        fold: Number of the fold whose subjects are the test set, or None for all subjects as "train".
        split: "train" or "test"; None for both.
        protocol: Whose numbering `fold` follows: "jaanet", or "megraphau", which counts the same subject sets
            backwards. Without effect on datasets that have one numbering.
        num_proc: Processes that write the cache.
        streaming: Give iterable datasets and write no cache.
        cache_dir: Where the cache of labels and paths goes; None for that of `datasets`.
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
    dataset = get_dataset(name, **options)
    folder = Path(data_dir).expanduser().absolute()
    if not folder.is_dir():
        raise not_found(dataset, folder, "no such folder")
    if fold is not None:
        dataset.part_of(fold, protocol)
    choose("split", split, [None, "train"] if fold is None else [None, "train", "test"])
    builder = require("datasets", "._builder", "hf_geaau.data")
    return builder.build(dataset, folder, fold, split, protocol, num_proc, streaming, cache_dir)


def require(needed: str, module: str, user: str) -> Any:
    """Import a module that needs a package of the extra "data".

    Raises:
        MissingExtraError: If that package is not installed.
    """
    try:
        importlib.import_module(needed)
        return importlib.import_module(module, __package__)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != needed.split(".")[0]:
            raise
        raise MissingExtraError(
            f"`{user}` needs the package '{needed}', which is not installed. Run `pip install \"hf_geaau[data]\"`."
        ) from error


def not_found(dataset: AUDataset, folder: Path, reason: str) -> DatasetNotFoundError:
    """Make the error for a missing directory or part."""
    licensed = f"It is licensed and never downloaded; ask its owners at {dataset.HOMEPAGE}. "
    return DatasetNotFoundError(
        f"`data_dir` must hold {dataset.TITLE}, got {str(folder)!r}: {reason}. "
        f"{licensed if dataset.IS_LICENSED else ''}"
        f"See the expected layout with `hf-geaau example-data {dataset.NAME} ./look`."
    )


def check_counts(dataset: AUDataset, counts: Mapping[str, int], fold: int | None, protocol: str) -> str | None:
    """Compare numbers of rows with the published ones; give the text of the warning, if they differ."""
    expected = dataset.expected(fold, protocol)
    found = {name: sum(counts.get(part, 0) for part in name.split("+")) for name in expected}
    differ = [
        f"{found[name]:,} instead of {count:,} in {name} ({found[name] - count:+,})"
        for name, count in expected.items()
        if found[name] != count
    ]
    if not differ:
        return None
    which = "all subjects" if fold is None else f"fold {fold} ({protocol})"
    return (
        f"{dataset.TITLE} must have the published number of frames, got {' and '.join(differ)} for {which}. Numbers "
        "from this copy are not comparable with the literature; complete it, or say so where you report them."
    )


def fingerprint(dataset: AUDataset, folder: Path) -> str:
    """Hash all that decides the rows: options, version, and name, size and time of each file.

    Of folders, the names in them count, because frames are matched by name.
    """
    digest = hashlib.sha256(f"{BUILDER_VERSION} {dataset!r} {folder}".encode())
    for path in sorted(dataset.files(folder)):
        status = path.stat()
        digest.update(f"\0{path}\0{status.st_mtime_ns}\0".encode())
        content = "\0".join(sorted(os.listdir(path))) if path.is_dir() else str(status.st_size)  # noqa: PTH208 - names only: 5 times faster than iterdir
        digest.update(content.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def listed(sequence: Sequence, ranges: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
    """Tell which frames lie in the given ranges, ends included."""
    inside = np.zeros(len(sequence), dtype=bool)
    for first, last in ranges:
        inside |= (sequence.frames >= first) & (sequence.frames <= last)
    return inside


def _fixed_lists(values: NDArray[Any]) -> "pa.Array":
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def class_weights(dataset: Any) -> NDArray[np.float64]:
    """Weigh each AU by the inverse of how often it occurs, so that weights average 1.

    Args:
        dataset: A `Dataset` with the column `labels`, normally the train split; or (F, N) labels. -1 counts neither
            as positive nor as frame.

    Returns:
        (N,) weights: N · (1 / r_i) / Σ_j (1 / r_j), where r_i is the rate of positives.

    Raises:
        DatasetError: If an AU has no positive frame.

    Source:
        ZhiwenShao/PyTorch-JAANet, dataset/write_AU_weight.py; CVI-SZU/ME-GraphAU, tool/*_calculate_AU_class_weights.py.
        They read lists without unlabelled frames; leaving out -1 is our addition and changes nothing there.

    Example:
        >>> class_weights([[1, 1], [1, 0], [0, 0], [1, 0]]).tolist()
        [0.5, 1.5]
    """
    labels = _label_array(dataset)
    positives, known = (labels == 1).sum(axis=0), (labels >= 0).sum(axis=0)
    if (positives == 0).any():
        where = ", ".join(map(str, np.flatnonzero(positives == 0)))
        raise DatasetError(
            f"Each AU must have at least one positive frame, got none in label column {where} (counted from 0). "
            "Pass the whole train split."
        )
    inverse = known / positives
    return len(inverse) * inverse / inverse.sum()


def _label_array(dataset: Any) -> NDArray[Any]:
    if isinstance(dataset, Mapping):
        raise DatasetError(
            f"`dataset` must be one split, got {', '.join(map(repr, dataset))}. Pass the train split: weights must not "
            "know the test subjects."
        )
    if not hasattr(dataset, "select_columns"):
        return np.atleast_2d(np.asarray(dataset))
    if not hasattr(dataset, "num_rows") or "labels" not in dataset.column_names:
        raise DatasetError(
            f"`dataset` must have all its labels at hand, in the column 'labels', got {type(dataset).__name__} with "
            f"{', '.join(dataset.column_names or ())}. Load an AU dataset without `streaming`."
        )
    # Arrow gives 1.8 million labels in a tenth of a second; rows as Python lists would take a minute.
    column = dataset.select_columns("labels").with_format("arrow")[:]["labels"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def write_example(name: str, folder: str | os.PathLike[str], **quirks: Any) -> Path:
    """Write a small imitation of a dataset's official layout, with invented labels and faces.

    Args:
        name: One of `list_datasets()`.
        folder: Where; made if missing.
        **quirks: What the dataset's own `write_example` offers.

    Returns:
        The folder, ready for `load(name, folder)`.
    """
    choose("name", name, _datasets())
    write = _datasets()[name].write_example
    for quirk in quirks:
        choose("quirk", quirk, [option for option in inspect.signature(write).parameters if option != "folder"])
    return write(folder, **quirks)
