"""What every dataset shares: its options, folds, published totals and checks.

A dataset is a subclass of `AUDataset`. It finds its files (`files`) and reads all labels at once (`read`); the rest is
here. Labels are small, images are not: labels are read and checked before anything else happens, and images stay paths
until somebody looks at them.
"""

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from hf_geaau.errors import DatasetError, DatasetNotFoundError, DatasetWarning, MissingExtraError

from .rows import Block, Recording

if TYPE_CHECKING:
    import datasets

ROWS_VERSION = "1.1.0"
"""Part of the cache key: raise it when the same files lead to other rows."""

PROTOCOLS = ("jaanet", "megraphau")
"""The two numberings of the same three subject sets. Source: the path lists of ZhiwenShao/PyTorch-JAANet
and CVI-SZU/ME-GraphAU."""


@dataclass(frozen=True)
class Fold:
    """A division of the subjects into train and test.

    Attributes:
        number: As the protocol counts, from 1; None puts all subjects into "train".
        protocol: One of `PROTOCOLS`.
        part: Index in `AUDataset.PARTS` of the test subjects; None for all subjects.
    """

    number: int | None
    protocol: str
    part: int | None

    def __str__(self) -> str:
        return "all subjects" if self.number is None else f"fold {self.number} ({self.protocol})"


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
            f"{title} is incomplete; what these {len(self.entries)} problems affect is left out. "
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
        IS_LICENSED: Whether publishing it is known to be forbidden. Of own data only its owner knows.
        IS_ALIGNED: Whether images are face crops already.
        IS_CUT_WHEN_OPENED: Whether `open_aligned` cuts the faces itself, into a cache; otherwise `prepare` has to.
        IS_OFTEN_INCOMPLETE: Whether copies lack images as a rule, for instance because links died; then each `load`
            looks again and warns, also if the rows are cached.
        LAYOUT: The directory that its owners send, as text; `hf-geaau example-data` shows it.
        PARTS: Subject ids of each part; the test set of a fold is one part, its train set the others.
        HAS_MEGRAPHAU_FOLDS: Whether ME-GraphAU numbers the parts too, backwards.
        PART_FRAMES: Published number of frames of each part, without and with the drop list; () if unknown.
        DROP_LIST: Sequence id -> frames (first, last) that published lists leave out.

    Attributes:
        drop_listed: Leave out the frames of `DROP_LIST`.
        problems: "raise" on the first thing missing, or "warn" once about all and leave out what they affect. A damaged
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
    IS_LICENSED: ClassVar[bool] = True
    IS_ALIGNED: ClassVar[bool] = False
    IS_CUT_WHEN_OPENED: ClassVar[bool] = False
    IS_OFTEN_INCOMPLETE: ClassVar[bool] = False
    PARTS: ClassVar[tuple[tuple[str, ...], ...]] = ()
    HAS_MEGRAPHAU_FOLDS: ClassVar[bool] = False
    PART_FRAMES: ClassVar[tuple[tuple[int, ...], ...]] = ()
    DROP_LIST: ClassVar[Mapping[str, tuple[tuple[int, int], ...]]] = {}

    drop_listed: bool = False
    problems: str = "raise"
    check_images: bool = False

    def __post_init__(self) -> None:
        choose("problems", self.problems, ("raise", "warn"))
        if self.drop_listed and not self.DROP_LIST:
            raise DatasetError(f"`drop_listed` must be False for {self.TITLE}, which has no drop list. Leave it out.")

    @property
    def is_resolved(self) -> bool:
        """Whether all options are known; else `resolved` fills them in."""
        return True

    @property
    def is_aligned(self) -> bool:
        """Whether images are face crops already."""
        return self.IS_ALIGNED

    @property
    def fold_count(self) -> int:
        """The number of folds."""
        return len(self.PARTS)

    def resolved(self, data_dir: Any) -> tuple["AUDataset", Path]:
        """Find the data, and fill in the options that depend on it.

        Args:
            data_dir: A path; own data may also be a `datasets.Dataset` or `DatasetDict`.

        Returns:
            The dataset to read it with, and the absolute path.

        Raises:
            DatasetNotFoundError: If it is missing.
        """
        return self, existing_folder(self, data_dir)

    @property
    @abstractmethod
    def aus(self) -> tuple[int, ...]:
        """FACS numbers of the label columns, in order; () for triplets."""

    @abstractmethod
    def files(self, data_dir: Path) -> list[Path]:
        """Find everything that decides the rows: label files, and folders or containers of images.

        Raises:
            DatasetNotFoundError: If a part of the layout is missing.
        """

    @abstractmethod
    def read(self, data_dir: Path, notes: DatasetNotes) -> SequenceOf[Block]:
        """Read and check all labels and match them with images."""

    def rows(self, data_dir: Path, notes: DatasetNotes) -> list[Block]:
        """Read all rows, without the frames of the drop list if `drop_listed`."""
        blocks = self.read(data_dir, notes)
        if self.drop_listed:
            blocks = [
                block.select(~block.in_ranges(self.DROP_LIST.get(block.sequence_id, ())))
                for block in blocks
                if isinstance(block, Recording)
            ]
        return [block for block in blocks if len(block)]

    def features(self) -> "datasets.Features":
        """Return the columns."""
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

    def fold(self, number: int | None, protocol: str = "jaanet") -> Fold:
        """Return a fold by its number, as `load` counts.

        Raises:
            DatasetError: For a fold or protocol that does not exist.
        """
        choose("protocol", protocol, PROTOCOLS)
        if number is None:
            return Fold(None, protocol, None)
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= self.fold_count:
            raise DatasetError(
                f"`fold` must be from 1 to {self.fold_count} for {self.TITLE}, got {number!r}. "
                "Pass one of these, or None for all subjects in one split."
            )
        counts_backwards = protocol == "megraphau" and self.HAS_MEGRAPHAU_FOLDS
        return Fold(number, protocol, len(self.PARTS) - number if counts_backwards else number - 1)

    def part_of(self, subject_id: str) -> int | None:
        """Return the index in `PARTS` of a subject's part, None if no part has the subject."""
        return next((index for index, part in enumerate(self.PARTS) if subject_id in part), None)

    def parts(self, blocks: SequenceOf[Block]) -> list[list[Block]]:
        """Divide rows by the part of their subject; the test set of a fold is one part."""
        rows = [block for block in blocks if isinstance(block, Recording)]
        parts = range(len(self.PARTS))
        return [[block for block in rows if self.part_of(block.subject_id) == index] for index in parts]

    def splits(self, blocks: SequenceOf[Block], fold: Fold) -> dict[str, list[Block]]:
        """Divide rows into train and test by subject; all are train if the fold has no number."""
        if fold.part is None:
            return {"train": list(blocks)}
        divided: dict[str, list[Block]] = {"train": [], "test": []}
        for block in blocks:
            if isinstance(block, Recording):
                divided["test" if self.part_of(block.subject_id) == fold.part else "train"].append(block)
        return divided

    def published_counts(self, fold: Fold) -> dict[str, int]:
        """Return the published number of frames by split; {} if unknown."""
        if not self.PART_FRAMES:
            return {}
        frames = [part[int(self.drop_listed)] for part in self.PART_FRAMES]
        if fold.part is None:
            return {"train": sum(frames)}
        test = frames[fold.part]
        return {"train": sum(frames) - test, "test": test}

    def not_found(self, folder: Path, reason: str) -> DatasetNotFoundError:
        """Return the error for a missing directory or a missing part of it."""
        licensed = f"The data is licensed and never downloaded; request it at {self.HOMEPAGE}. "
        return DatasetNotFoundError(
            f"Cannot find {self.TITLE} in {str(folder)!r}: {reason}. {licensed if self.IS_LICENSED else ''}"
            f"`hf-geaau example-data {self.NAME} ./look` shows the expected layout."
        )


def choose(name: str, value: object, allowed: Iterable[object]) -> None:
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


def existing_folder(dataset: AUDataset, data_dir: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a dataset's folder.

    Raises:
        DatasetNotFoundError: If there is no such folder.
    """
    folder = Path(data_dir).expanduser().absolute()
    if not folder.is_dir():
        raise dataset.not_found(folder, "no such folder")
    return folder


def require(package: str, module: str, user: str) -> ModuleType:
    """Import a module that needs a package of the extra "data".

    Raises:
        MissingExtraError: If that package is not installed.
    """
    try:
        import_module(package)
        return import_module(module, __package__)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != package.split(".")[0]:
            raise
        raise MissingExtraError(
            f"`{user}` needs the package '{package}', which is not installed. Run `pip install \"hf_geaau[data]\"`."
        ) from error


def count_warning(dataset: AUDataset, counts: Mapping[str, int], fold: Fold) -> str | None:
    """Return the text of a warning if numbers of rows by split differ from the published ones, else None."""
    expected = dataset.published_counts(fold)
    present = {name: sum(counts.get(part, 0) for part in name.split("+")) for name in expected}
    differences = [
        f"{present[name]:,} instead of {count:,} in {name} ({present[name] - count:+,})"
        for name, count in expected.items()
        if present[name] != count
    ]
    if not differences:
        return None
    return (
        f"This copy of {dataset.TITLE} does not have the published number of frames: {' and '.join(differences)} for "
        f"{fold}. Results from it are not comparable with the literature; complete the copy, or report the difference."
    )


def fingerprint(dataset: AUDataset, folder: Path) -> str:
    """Return a hash of all that decides the rows: options, version, and name, size and time of each file.

    Of folders, the names in them count, because frames are matched by name.
    """
    digest = hashlib.sha256(f"{ROWS_VERSION} {dataset!r} {folder}".encode())
    for path in sorted(dataset.files(folder)):
        status = path.stat()
        digest.update(f"\0{path}\0{status.st_mtime_ns}\0".encode())
        content = "\0".join(sorted(os.listdir(path))) if path.is_dir() else str(status.st_size)  # noqa: PTH208 - names only: 5 times faster than iterdir
        digest.update(content.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
