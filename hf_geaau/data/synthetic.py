"""Rendered faces with known action units, and triplets of them, through the columns of the benchmarks.

The data is what `hf_geaau.synthetic.render_dataset` (or `hf-geaau render`) writes. No face-data license restricts it.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError
from hf_geaau.files import parse_json

from .base import AUDataset, DatasetNotes, Fold
from .rows import FURTHER, Block, Recording, TripletBlock, triplet_features

if TYPE_CHECKING:
    import datasets

LABELS_FILE, SETTINGS_FILE, IMAGES = "labels.parquet", "render.json", "images"

# Values of each row; of side_intensities left and right of one AU after the other.
_WIDTHS = {
    "labels": len(facs.SYNTHETIC),
    "intensities": len(facs.SYNTHETIC),
    "side_intensities": len(facs.SYNTHETIC) * len(facs.SIDES),
    "visible": len(facs.SYNTHETIC),
}

_CANDIDATES = 3000
"""Number of faces that are compared with each anchor. Among few, the most similar one is not similar: of 192 its median
distance is 0.65, of 2000 it is 0.47 (see `expression_distance`; 3,000 rendered faces)."""
_CHUNK = 128  # anchors at a time
MIN_GAP = 0.5
"""The odd one is at least this much further from both others than they are from each other, in units of full
intensity. Our choice: half of one AU's range is what a person sees at once."""


@dataclass(frozen=True)
class Synthetic(AUDataset):
    """Rendered faces: 18 AUs with intensities, or triplets. Identities are the subjects; three folds.

    Identity i is in part i mod 3 + 1, so that a folder that grows keeps its folds.

    Attributes:
        triplets: If above 0, this many triplets for each split instead of AU rows, with the columns of FEC. See
            `draw_triplets` for what they are.
        seed: Decides the triplets.
    """

    NAME = "synthetic"
    TITLE = "rendered faces"
    LICENSE = "No restriction by face data; heads from ICT-FaceKit or VALID (MIT license)"
    HOMEPAGE = "https://github.com/USC-ICT/ICT-FaceKit"
    CITATION = "Li et al., Learning formation of physically-based face attributes, CVPR 2020 (ICT-FaceKit)"
    LAYOUT = f"""
{LABELS_FILE}    file_name, labels, intensities, side_intensities (left, right of each AU), visible
                  (share of each AU's region), subject_id (render-<seed>-<identity>), frame, …
{SETTINGS_FILE}       how it was rendered, with the order of the action units
{IMAGES}/00000000.jpg
Made by `hf-geaau render`."""
    IS_LICENSED = False
    IS_ALIGNED = True
    PARTS = ((), (), ())

    triplets: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("triplets", "seed"):
            if getattr(self, name) < 0:
                raise DatasetError(f"`{name}` must be at least 0, got {getattr(self, name)}.")

    @property
    def aus(self) -> tuple[int, ...]:
        """The 18 AUs of the renderer; none for triplets."""
        return () if self.triplets else facs.SYNTHETIC

    def files(self, data_dir: Path) -> list[Path]:
        """Find the table and the folder of images."""
        found = [data_dir / LABELS_FILE, data_dir / SETTINGS_FILE, data_dir / IMAGES]
        for path in found:
            if not path.exists():
                resume = " (if the run was interrupted, start it again; it resumes)" if path == found[0] else ""
                raise self.not_found(data_dir, f"no '{path.name}'{resume}")
        return found

    def read(self, data_dir: Path, notes: DatasetNotes) -> list[Recording]:
        """Read the table: one recording for each identity."""
        table, settings, images = self.files(data_dir)
        rows = _read_table(table)
        _check_units(settings)
        labels, intensities, sides, visible = (_matrix(rows[name], name, table) for name in _WIDTHS)
        sides = sides.reshape(len(sides), -1, len(facs.SIDES))
        sides[:, [unit not in facs.SIDED for unit in facs.SYNTHETIC]] = -1
        has_image = self._check_images(rows["file_name"], images, table, notes)
        names, person = np.unique(np.array(rows["subject_id"], dtype=object), return_inverse=True)
        for name in names:
            _identity(name, table)
        frames = np.array(rows["frame"], np.int32)
        paths = np.array([str(data_dir / name) for name in rows["file_name"]], dtype=object)
        order = np.lexsort((frames, person))
        order = order[has_image[order]]
        blocks = np.split(order, np.flatnonzero(np.diff(person[order])) + 1) if len(order) else []
        return [
            Recording(
                names[person[block[0]]],
                names[person[block[0]]],
                frames[block],
                labels[block].astype(np.int8),
                intensities[block],
                paths[block].tolist(),
                side_intensities=sides[block],
                visible=visible[block],
            )
            for block in blocks
        ]

    def _check_images(self, names: list[str], folder: Path, table: Path, notes: DatasetNotes) -> NDArray[np.bool_]:
        with os.scandir(folder) as entries:
            on_disk = {f"{IMAGES}/{entry.name}" for entry in entries}
        has_image = np.array([name in on_disk for name in names], dtype=bool)
        if not has_image.all():
            notes.add(
                f"{int((~has_image).sum())} rows of {str(table)!r} have no image; the first is "
                f"{names[int(np.argmin(has_image))]!r}. Render again into a new folder."
            )
        if extra := len(on_disk - set(names)):
            notes.add(f"{extra} images in {str(folder)!r} have no row in the table. Render again into a new folder.")
        return has_image

    def features(self) -> "datasets.Features":
        """Return the columns; "side_intensities" has left and right of one AU after the other, -1 for AUs without.

        "visible" is the share of each AU's region that nothing hides, 0-1.
        """
        from datasets import List, Value

        if self.triplets:
            return triplet_features()
        features = super().features()
        for name in FURTHER:
            features[name] = List(Value("float32"), length=_WIDTHS[name])
        return features

    def part_of(self, subject_id: str) -> int:
        """Return the index of an identity's part."""
        return _identity(subject_id) % len(self.PARTS)

    def splits(self, blocks: Sequence[Block], fold: Fold) -> dict[str, list[Block]]:
        """Divide by identity; triplets are drawn within a split."""
        divided = super().splits(blocks, fold)
        if not self.triplets:
            return divided
        return {
            split: list(
                draw_triplets(
                    [block for block in members if isinstance(block, Recording)], self.triplets, self.seed, split
                ).blocks()
            )
            for split, members in divided.items()
        }


def expression_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the distance of expressions: Euclidean, of AU intensities as shares of full intensity. Our choice.

    Args:
        first, second: (..., N) intensities 0-5.

    Example:
        >>> float(expression_distance(np.array([5.0, 0.0]), np.array([0.0, 0.0])))
        1.0
    """
    return np.linalg.norm(np.asarray(first, np.float64) - np.asarray(second, np.float64), axis=-1) / 5


def expression_class(intensities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the class of an expression: the facial region of its strongest AU, or 0 if no AU is present.

    Stands in for the emotion categories by which FEC defines its triplet types. Our choice.

    Args:
        intensities: (F, 18), 0-5, in the order of `facs.SYNTHETIC`.

    Returns:
        (F,) 0 at rest, else 1 + the region's index in brow, cheek, chin, eye, mouth, nose.

    Example:
        >>> smile, rest = [5.0 * (number == 12) for number in facs.SYNTHETIC], [0.0] * 18
        >>> expression_class(np.array([smile, rest])).tolist()
        [5, 0]
    """
    names = sorted({facs.ACTION_UNITS[number].region for number in facs.SYNTHETIC})
    regions = np.array([1 + names.index(facs.ACTION_UNITS[number].region) for number in facs.SYNTHETIC])
    return np.where(intensities.max(axis=1) >= 1, regions[intensities.argmax(axis=1)], 0)


def draw_triplets(recordings: Sequence[Recording], count: int, seed: int, split: str = "") -> TripletBlock:
    """Draw triplets of rendered faces: three people, two of them with similar expressions, and an odd one.

    For each anchor, a third of the time each, the type is one-class (all three expressions of one class), two-class
    (the pair of one class, the odd one of another) or three-class (three classes), see `expression_class`. The second
    face is the nearest of that kind among some random ones of other people; the third is a random one of that kind,
    further from both by a margin that makes the answer certain. So `agreement` is 1, and `votes` 0: nobody voted.

    Args:
        recordings: Faces with intensities, one recording for each person.
        count: How many triplets.
        seed: The same seed gives the same triplets.
        split: Name of the split, for the ids.

    Raises:
        DatasetError: If the faces are too few or too alike.
    """
    intensities = np.concatenate([recording.intensities for recording in recordings]).astype(np.float64)
    people = np.repeat(np.arange(len(recordings)), [len(recording) for recording in recordings])
    paths = np.array([path for recording in recordings for path in recording.images], dtype=object)
    classes = expression_class(intensities)
    rng = np.random.default_rng([seed, *split.encode()])
    chosen, types, drawn = [], [], 0
    for _ in range(20 + 20 * (count // _CHUNK + 1)):
        kinds = rng.integers(3, size=_CHUNK)
        faces, succeeded = _try_triplets(intensities, people, classes, kinds, rng)
        chosen.append(faces[succeeded])
        types.append(kinds[succeeded])
        drawn += int(succeeded.sum())
        if drawn >= count:
            break
    else:
        raise DatasetError(
            f"Cannot draw {count} triplets of three people: {drawn} were found among {len(recordings)} people with "
            f"{len(paths)} images in the {split or 'only'} split. Render more people, or lower `triplets`."
        )
    images = paths[np.concatenate(chosen)[:count]]
    return TripletBlock(
        split,
        [f"{split or 'all'}-{number + 1}" for number in range(count)],
        images,
        np.tile(np.array([0, 0, 1, 1], np.float32), (count, 3, 1)),
        np.concatenate(types)[:count],
        np.ones(count, np.float32),
        np.zeros(count, np.int32),
    )


def _try_triplets(
    intensities: NDArray[np.float64],
    people: NDArray[np.integer],
    classes: NDArray[np.integer],
    kinds: NDArray[np.integer],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw one triplet for each wanted type; return the indices of the faces, (T, 3), and which draws succeeded."""
    count, total = len(kinds), len(people)
    anchor = rng.integers(total, size=count)
    others = rng.integers(total, size=(count, min(_CANDIDATES, 4 * total)))
    stranger = people[others] != people[anchor][:, None]
    alike = classes[others] == classes[anchor][:, None]
    distance = expression_distance(intensities[others], intensities[anchor][:, None])
    fits = stranger & np.where((kinds == 2)[:, None], ~alike, alike)
    nearest = np.where(fits, distance, np.inf).argmin(axis=1)
    rows = np.arange(count)
    second, pair = others[rows, nearest], distance[rows, nearest]
    third_person = stranger & (people[others] != people[second][:, None])
    third_class = np.where((kinds == 0)[:, None], alike, ~alike & (classes[others] != classes[second][:, None]))
    far = np.minimum(distance, expression_distance(intensities[others], intensities[second][:, None]))
    usable = third_person & third_class & (far >= pair[:, None] + MIN_GAP)
    third = usable.argmax(axis=1)  # candidates are in random order, so the first is a random one
    succeeded = fits.any(axis=1) & usable[rows, third]
    return np.stack([anchor, second, others[rows, third]], axis=1), succeeded


def _read_table(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["file_name", "labels", "intensities", "subject_id", "frame"]
    try:
        further = [name for name in FURTHER if name in pq.read_schema(path).names]  # earlier versions lack some
        table = pq.read_table(path, columns=names + further)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"Cannot read the columns {', '.join(names)} of {str(path)!r}: {error}. Render again."
        ) from error
    if missing := [name for name in names if name not in table.column_names]:
        raise DatasetError(f"{str(path)!r} has no column '{missing[0]}'. Render again.")
    rows = {name: table[name].to_pylist() for name in table.column_names}
    return {**{name: [[-1.0] * _WIDTHS[name]] * len(table) for name in FURTHER}, **rows}


def _matrix(rows: list[list[float]], name: str, path: Path) -> NDArray[np.float32]:
    """Return a column of labels, intensities or visibility as (R, 18), or of both sides' intensities as (R, 36)."""
    width = _WIDTHS[name]
    wrong = next((index for index, row in enumerate(rows) if len(row) != width), None)
    if wrong is not None:
        raise DatasetError(
            f"Row {wrong + 1} of {str(path)!r} has {len(rows[wrong])} values of {name} instead of {width}. "
            "Render again."
        )
    values = np.array(rows, np.float32).reshape(-1, width)
    is_valid = np.isin(values, (0, 1)) if name == "labels" else (values >= 0) & (values <= 5)
    is_valid |= (values == -1) & (name in FURTHER)  # -1: missing
    if not is_valid.all():
        row, column = np.argwhere(~is_valid)[0]
        rule = "0 or 1" if name == "labels" else "from 0 to 5"
        raise DatasetError(
            f"{name.capitalize()} must be {rule}, got {values[row, column]:g} in {str(path)!r}, row {row + 1}. "
            "Render again."
        )
    return values


def _check_units(path: Path) -> None:
    try:
        found = parse_json(path.read_text(encoding="utf-8")).get("action_units")
    except (ValueError, AttributeError) as error:
        raise DatasetError(f"{str(path)!r} is not a JSON object. Render again.") from error
    if found != list(facs.SYNTHETIC):
        raise DatasetError(
            f"The renders of {str(path)!r} have the AUs {found} instead of {list(facs.SYNTHETIC)}. Render again."
        )


def _identity(subject: str, path: Path | None = None) -> int:
    """Return the number of a subject named render-<seed>-<identity>."""
    match = re.fullmatch(r"render-(?:shifted-)?\d+-(\d+)", subject)
    if match is None:
        raise DatasetError(
            f"A subject must be named render-<seed>-<identity>, got {subject!r} in {str(path)!r}. Render again."
        )
    return int(match[1])


DATASET = Synthetic
