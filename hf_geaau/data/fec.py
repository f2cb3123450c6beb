"""FEC, Google's Facial Expression Comparison data: photos by URL, triplets of faces, and votes on the odd one out.

The two csv files hold no photos. `download_fec` (or `hf-geaau download-fec`) fetches them into the folder `images`,
each under the SHA-1 of its URL; photos that you have already may keep the file name of their URL if that is unique.
Many of the links are dead by now; triplets that lack a photo are left out, with a warning that gives their number.

Source: Vemulapalli & Agarwala, "A compact embedding for facial expression similarity", CVPR 2019 (arXiv 1811.11283),
and the notes that come with the files, as public loaders quote them.
"""

import csv
import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import DatasetError, DatasetWarning
from hf_geaau.files import FolderLock

from .base import AUDataset, DatasetNotes, Fold, choose
from .downloads import REPORT, DownloadReport, DownloadSettings, fetch_all
from .rows import Block, TripletBlock, triplet_features

if TYPE_CHECKING:
    import datasets
    import pandas as pd

CSV_FILES = {
    "train": "faceexp-comparison-data-train-public.csv",
    "test": "faceexp-comparison-data-test-public.csv",
}
IMAGES = "images"

URL_COLUMNS = (0, 5, 10)
BOX_COLUMNS = ((1, 2, 3, 4), (6, 7, 8, 9), (11, 12, 13, 14))  # left, right, top, bottom
TYPE_COLUMN, FIRST_VOTE = 15, 17  # then every second column; the ones between name the annotators
TYPES = ("ONE_CLASS_TRIPLET", "TWO_CLASS_TRIPLET", "THREE_CLASS_TRIPLET")
MIN_VOTES = 6
"""Source: the notes that come with the files, "at least six annotators"."""

# Boxes come from a face detector and may overstep the photo a little; more than this share is another column order or
# pixels. Our choice.
BOX_SLACK = 0.05

# By the odd image, counted from 0: which image comes first, second and last.
_ORDERS = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])


@dataclass(frozen=True)
class FEC(AUDataset):
    """The Facial Expression Comparison dataset: triplets, and no AU labels.

    Its columns: `images` (3, in the order similar, similar, odd by majority), `boxes` (3×4, left, top, right, bottom as
    fractions of the photo), `triplet_type` (0 one-, 1 two-, 2 three-class), `margin` (0.1, 0.2, 0.2), `agreement`,
    `votes` and `triplet_id` ("train-12": line 12 of the train file). `fold=1` gives the train and test split of
    its owners; there are no other folds.

    Attributes:
        agreement: Triplets are used if at least this share of the votes names one odd image, and more than half.
    """

    NAME = "fec"
    TITLE = "FEC (Google facial expression comparison)"
    LICENSE = "Annotations by Google; the photos belong to their owners, under many licenses"
    HOMEPAGE = "https://research.google/resources/datasets/google-facial-expression/"
    CITATION = (
        "Vemulapalli and Agarwala: A compact embedding for facial expression similarity. CVPR 2019, arXiv 1811.11283."
    )
    IS_OFTEN_INCOMPLETE = True
    LAYOUT = f"""
{CSV_FILES["train"]}   no header: URL, left, right, top, bottom (three times),
{CSV_FILES["test"]}    triplet type, then annotator and vote (1-3, the odd one) in turn
{IMAGES}/<SHA-1 of the URL>.jpg   or {IMAGES}/<file name of the URL> where that is unique
"""

    agreement: float = 2 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.agreement <= 1:
            raise DatasetError(
                f"`agreement` must be from 0 to 1, got {self.agreement}. The published protocol uses 2/3 of the votes."
            )

    @property
    def aus(self) -> tuple[int, ...]:
        """None: FEC has no AU labels."""
        return ()

    def fold(self, number: int | None, protocol: str = "jaanet") -> Fold:
        """Return the only fold, 1: the division of FEC's owners."""
        if number is not None and (number != 1 or isinstance(number, bool)):
            raise DatasetError(
                f"`fold` must be 1 for FEC, got {number!r}. FEC has one division, the train and test files of its "
                "owners; None puts both in one split."
            )
        return Fold(number, protocol, None if number is None else 0)

    def files(self, data_dir: Path) -> list[Path]:
        """Find the csv files and the image folder."""
        tables = [data_dir / name for name in CSV_FILES.values() if (data_dir / name).is_file()]
        if not tables:
            raise self.not_found(data_dir, f"neither {' nor '.join(CSV_FILES.values())}")
        if not (data_dir / IMAGES).is_dir():
            raise self.not_found(
                data_dir, f"no folder {IMAGES}; fetch the photos with `hf-geaau download-fec {data_dir}`"
            )
        return [*tables, data_dir / IMAGES]

    def read(self, data_dir: Path, notes: DatasetNotes) -> list[TripletBlock]:
        """Read the triplets that the voters agree on and whose three photos are present."""
        self.files(data_dir)
        tables = {split: data_dir / name for split, name in CSV_FILES.items() if (data_dir / name).is_file()}
        by_split = {split: read_triplets(path, split, self.agreement, notes) for split, path in tables.items()}
        paths = local_paths(data_dir / IMAGES, [block.images for block in by_split.values()])
        blocks, lost, total = [], 0, 0
        for block in by_split.values():
            flat = [paths[url] for url in block.images.reshape(-1)]
            has_photo = np.array([path is not None for path in flat], dtype=np.bool_).reshape(-1, 3)
            complete: NDArray[np.bool_] = np.asarray(has_photo.all(axis=1))
            block.images = np.array(flat, dtype=object).reshape(-1, 3)
            blocks += block.select(complete).blocks()
            lost, total = lost + int((~complete).sum()), total + len(block)
        if lost:
            missing = sum(path is None for path in paths.values())
            remedy = f"Fetch them with `hf-geaau download-fec {data_dir}`; its report names the dead links."
            if lost == total:
                raise self.not_found(data_dir, f"no triplet with all three photos in {IMAGES}. {remedy[:-1]}")
            warnings.warn(
                f"{lost} of {total} triplets of FEC lack a photo ({missing} of {len(paths)} photos are missing). They "
                f"are left out, and results on the rest compare with others' only roughly. {remedy}",
                DatasetWarning,
                stacklevel=1,
            )
        return blocks

    def features(self) -> "datasets.Features":
        """Return the columns."""
        return triplet_features()

    def splits(self, blocks: Sequence[Block], fold: Fold) -> dict[str, list[Block]]:
        """Divide as the owners did."""
        if fold.number is None:
            return {"train": list(blocks)}
        return {
            split: [block for block in blocks if isinstance(block, TripletBlock) and block.split == split]
            for split in CSV_FILES
        }


def image_name(url: str) -> str:
    """Return the name of the file that holds the photo of a URL: its SHA-1, and .jpg whatever the format.

    Example:
        >>> image_name("http://example.org/a.jpg")
        '565a97a5a6549777660f5f83551d65ccec39051e.jpg'
    """
    return hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest() + ".jpg"


def url_name(url: str) -> str:
    """Return the file name that a URL ends in, without a query.

    Example:
        >>> url_name("http://example.org/a/photo_b.jpg?size=large")
        'photo_b.jpg'
    """
    return url.partition("?")[0].partition("#")[0].rpartition("/")[2]


def local_paths(folder: Path, images: list[NDArray[np.object_]]) -> dict[str, str | None]:
    """Return the path of each URL's file, None where there is none.

    A file with the URL's own name counts only if no other URL of the csv files ends in that name.
    """
    urls = dict.fromkeys(url for block in images for url in block.reshape(-1))
    with os.scandir(folder) as entries:
        on_disk = {entry.name for entry in entries}
    counts = Counter(url_name(url) for url in urls)
    paths: dict[str, str | None] = {}
    for url in urls:
        names = [image_name(url)] + ([url_name(url)] if counts[url_name(url)] == 1 else [])
        paths[url] = next((str(folder / name) for name in names if name in on_disk), None)
    return paths


def read_urls(data_dir: str | os.PathLike[str], *, agreement: float = 2 / 3) -> list[str]:
    """Return the distinct URLs that the usable triplets of both csv files need.

    Raises:
        DatasetNotFoundError: If there is no csv file.
    """
    folder, notes = Path(data_dir), DatasetNotes("warn")
    tables = [(split, folder / name) for split, name in CSV_FILES.items() if (folder / name).is_file()]
    if not tables:
        raise FEC().not_found(folder, f"neither {' nor '.join(CSV_FILES.values())}")
    blocks = [read_triplets(path, split, agreement, notes) for split, path in tables]
    notes.warn(FEC.TITLE)
    return list(dict.fromkeys(url for block in blocks for url in block.images.reshape(-1)))


def download_fec(
    data_dir: str | os.PathLike[str],
    *,
    agreement: float = 2 / 3,
    retry_dead: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> DownloadReport:
    """Fetch the photos that the csv files name into `data_dir/images`; a second run resumes where the first stopped.

    Only photos of triplets that the voters agree on are fetched. A photo counts as present under either of its names,
    see `image_name` and `url_name`. Dead links are listed in `data_dir/dead_links.csv` and not requested again.

    Args:
        data_dir: The folder with the csv files.
        agreement: As for `load`.
        retry_dead: Request dead links again.
        progress: Called with the numbers of photos done and of all photos.
        **settings: See `DownloadSettings`: workers, rate, timeout, retries, back_off, user_agent.

    Raises:
        DatasetNotFoundError: If there is no csv file.
        DatasetError: If a file cannot be written, for instance on a full disk, or another process is fetching.
    """
    for option in settings:
        choose("option", option, [entry.name for entry in fields(DownloadSettings)])
    folder = Path(data_dir).expanduser().absolute()
    urls = read_urls(folder, agreement=agreement)
    images = folder / IMAGES
    with FolderLock(images, content="photos", error=DatasetError):
        paths = local_paths(images, [np.array(urls, dtype=object)])
        return fetch_all(
            urls,
            images,
            lambda url: Path(paths[url] or image_name(url)).name,
            settings=DownloadSettings(**settings),
            report=folder / REPORT,
            retry_dead=retry_dead,
            progress=progress,
        )


def read_triplets(path: Path, split: str, agreement: float, notes: DatasetNotes) -> TripletBlock:
    """Read one csv file; `images` of the result are URLs.

    Rows differ in length, because the number of votes does. Those with an invalid cell go to `notes`; those whose odd
    image has a lower share of the votes than `agreement` are left out.
    """
    lines = [line.rstrip(b"\r,") for line in path.read_bytes().split(b"\n")]
    widths = np.array([_width(line) for line in lines])
    is_row = (widths > FIRST_VOTE) & (widths % 2 == 0)
    for index in np.flatnonzero((widths > 0) & ~is_row):
        notes.add(
            f"A row must have 16 columns and pairs of annotator and vote, got {widths[index]} columns in {path}, "
            f"line {index + 1}. {_REMEDY}"
        )
    if not is_row.any():
        raise DatasetError(f"No usable row of triplets in {path}. Fetch the file again.")
    return _Rows.read(path, lines, np.flatnonzero(is_row), widths[is_row]).triplets(split, agreement, notes)


_REMEDY = 'Fetch the file again, or pass `problems="warn"` to leave such rows out.'


def _width(line: bytes) -> int:
    """Return the number of columns of a line; 0 if it is empty."""
    if not line.strip():
        return 0
    if b'"' not in line:
        return line.count(b",") + 1
    return len(next(csv.reader([line.decode(errors="replace")])))  # a URL in quotes may hold commas


@dataclass
class _Rows:
    """The rows of a file."""

    path: Path
    lines: NDArray[np.int64]  # (T,) indices of the rows in the file
    urls: NDArray[np.object_]  # (T, 3)
    boxes: NDArray[np.float64]  # (T, 3, 4), in the file's order
    types: NDArray[np.object_]  # (T,) names
    votes: NDArray[np.float64]  # (T, V) votes for the odd image, from 1; of each row the first `vote_counts` count
    vote_counts: NDArray[np.int64]  # (T,)

    @classmethod
    def read(cls, path: Path, content: list[bytes], lines: NDArray[np.int64], widths: NDArray[np.int64]) -> "_Rows":
        boxes = [column for columns in BOX_COLUMNS for column in columns]
        votes = list(range(FIRST_VOTE, int(widths.max()), 2))
        text = b"".join(content[line] + b"\n" for line in lines)
        table = _read_csv(path, text, [*URL_COLUMNS, TYPE_COLUMN], [*boxes, *votes])
        return cls(
            path,
            lines,
            table[list(URL_COLUMNS)].to_numpy(dtype=object),
            table[boxes].to_numpy(np.float64).reshape(-1, 3, 4),
            table[TYPE_COLUMN].to_numpy(dtype=object),
            table[votes].to_numpy(np.float64),
            (widths - FIRST_VOTE + 1) // 2,
        )

    def triplets(self, split: str, agreement: float, notes: DatasetNotes) -> TripletBlock:
        """Check the rows, and order the images of those whose voters agree."""
        valid = self._check(notes)
        counts = np.stack([(self.votes == number).sum(axis=1) for number in (1, 2, 3)], axis=1)
        odd, share = counts.argmax(axis=1), counts.max(axis=1) / self.vote_counts
        agreed = (share >= agreement - 1e-9) & (share > 0.5)
        keep = np.flatnonzero(valid & agreed)
        order = _ORDERS[odd[keep]]
        names = {name: index for index, name in enumerate(TYPES)}
        boxes = np.clip(self.boxes[keep], 0, 1)[:, :, [0, 2, 1, 3]]  # to left, top, right, bottom
        return TripletBlock(
            split,
            [f"{split}-{line + 1}" for line in self.lines[keep]],
            np.take_along_axis(self.urls[keep], order, axis=1),
            np.take_along_axis(boxes, order[:, :, None], axis=1).astype(np.float32),
            np.array([names[name] for name in self.types[keep]], dtype=np.int64),
            share[keep].astype(np.float32),
            self.vote_counts[keep].astype(np.int32),
        )

    def _check(self, notes: DatasetNotes) -> NDArray[np.bool_]:
        """Return which rows are valid, and report the others."""
        left, right, top, bottom = (self.boxes[:, :, column] for column in range(4))
        with np.errstate(invalid="ignore"):
            inside = ((self.boxes >= -BOX_SLACK) & (self.boxes <= 1 + BOX_SLACK)).all(axis=(1, 2))
            boxes: NDArray[np.bool_] = np.asarray(inside & ((left < right) & (top < bottom)).all(axis=1))
        kinds = np.isin(self.types.astype(str), TYPES)
        votes: NDArray[np.bool_] = np.isin(self.votes, (1, 2, 3)).sum(axis=1) == self.vote_counts
        enough: NDArray[np.bool_] = self.vote_counts >= MIN_VOTES
        checks: tuple[tuple[NDArray[np.bool_], str, Callable[[int], str]], ...] = (  # valid rows, rule, what is wrong
            (boxes, "A face box must be left < right, top < bottom, as fractions from 0 to 1,", self._box),
            (kinds, f"A triplet type must be one of {', '.join(TYPES)},", lambda row: repr(self.types[row])),
            (
                votes,
                "A vote must be 1, 2 or 3,",
                lambda row: "another in " + _shown(self.votes[row, : self.vote_counts[row]]),
            ),
            (enough, f"A triplet must have at least {MIN_VOTES} votes,", lambda row: str(self.vote_counts[row])),
        )
        for valid, rule, describe in checks:
            for row in np.flatnonzero(~valid).tolist():
                notes.add(f"{rule} got {describe(row)} in {self.path}, line {self.lines[row] + 1}. {_REMEDY}")
        return boxes & kinds & votes & enough

    def _box(self, row: int) -> str:
        for number, box in enumerate(self.boxes[row], 1):
            left, right, top, bottom = box
            if not (left < right and top < bottom and (box >= -BOX_SLACK).all() and (box <= 1 + BOX_SLACK).all()):
                return f"{_shown(box)} for image {number} (left, right, top, bottom)"
        raise AssertionError(row)


def _shown(values: NDArray[np.float64]) -> str:
    return ", ".join("no number" if np.isnan(value) else f"{value:g}" for value in values)


def _read_csv(path: Path, text: bytes, strings: list[int], numbers: list[int]) -> "pd.DataFrame":
    """Parse columns by number; missing cells, and cells that are no number, become NaN."""
    import pandas as pd

    try:
        table = pd.read_csv(
            io.BytesIO(text),
            names=range(max(numbers) + 1),
            usecols=[*strings, *numbers],
            dtype=dict.fromkeys(strings, object),
            na_values=dict.fromkeys(numbers, ""),
            keep_default_na=False,
            low_memory=False,
        )
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DatasetError(f"Cannot parse {path} as UTF-8 csv: {error}. Fetch the file again.") from error
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    return table


DATASET = FEC
