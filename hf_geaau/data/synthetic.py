"""Rendered faces with known action units, and triplets of them, through the columns of the benchmarks.

The data is what `hf_geaau.synthetic.render_dataset` (or `hf-geaau render`) writes. No face-data licence restricts it.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError
from hf_geaau.files import whole_file

from ._base import AUDataset, DatasetNotes, Sequence, not_found
from ._example_faces import example_face
from ._triplets import TripletBlock, triplet_features, triplet_table

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

LABELS_FILE, SETTINGS_FILE, IMAGES = "labels.parquet", "render.json", "images"

_CANDIDATES = 3000
"""Faces that are looked at for each anchor. Among few, the most similar one is not similar: of 192 its median distance
is 0.65, of 2000 it is 0.47 (see `expression_distance`; 3,000 rendered faces)."""
_CHUNK = 128  # anchors at a time
_GAP = 0.5
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
    LICENSE = "No restriction by face data; geometry from ICT-FaceKit (MIT licence)"
    HOMEPAGE = "https://github.com/USC-ICT/ICT-FaceKit"
    CITATION = "Li et al., Learning formation of physically-based face attributes, CVPR 2020 (ICT-FaceKit)"
    LAYOUT = f"""
{LABELS_FILE}    file_name, labels, intensities, subject_id (render-<seed>-<identity>), frame, …
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
        if self.triplets < 0:
            raise DatasetError(f"`triplets` must be at least 0, got {self.triplets}. 0 gives AU rows.")

    @property
    def aus(self) -> tuple[int, ...]:
        """The 18 AUs of the renderer; none for triplets."""
        return () if self.triplets else facs.SYNTHETIC

    def files(self, data_dir: Path) -> list[Path]:
        """Find the table and the folder of images."""
        found = [data_dir / LABELS_FILE, data_dir / SETTINGS_FILE, data_dir / IMAGES]
        for path in found:
            if not path.exists():
                unfinished = " (an interrupted run? start it again, it goes on)" if path.name == LABELS_FILE else ""
                raise not_found(self, data_dir, f"no '{path.name}'{unfinished}")
        return found

    def sequences(self, data_dir: Path, notes: DatasetNotes) -> list[Sequence]:
        """Read the table: one sequence for each identity."""
        table, settings, images = self.files(data_dir)
        rows = _read_table(table)
        _check_units(settings)
        labels, intensities = (_matrix(rows[name], table) for name in ("labels", "intensities"))
        there = self._check_images(rows["file_name"], images, table, notes)
        _check_values(labels, intensities, table)
        names, person = np.unique(np.array(rows["subject_id"], dtype=object), return_inverse=True)
        for name in names:
            _identity(name, table)
        frames = np.array(rows["frame"], np.int32)
        paths = np.array([str(data_dir / name) for name in rows["file_name"]], dtype=object)
        order = np.lexsort((frames, person))
        order = order[there[order]]
        blocks = np.split(order, np.flatnonzero(np.diff(person[order])) + 1) if len(order) else []
        return [_person(block, names[person[block[0]]], frames, labels, intensities, paths) for block in blocks]

    def _check_images(self, names: list[str], folder: Path, table: Path, notes: DatasetNotes) -> NDArray[np.bool_]:
        with os.scandir(folder) as entries:
            on_disk = {f"{IMAGES}/{entry.name}" for entry in entries}
        there = np.array([name in on_disk for name in names], dtype=bool)
        if not there.all():
            notes.add(
                f"Each row must have its image, got none for {int((~there).sum())} rows of {str(table)!r}, the first "
                f"being {names[int(np.argmin(there))]!r}. Render again into a new folder."
            )
        if extra := len(on_disk - set(names)):
            notes.add(
                f"Each image must have its row, got {extra} images in {str(folder)!r} without one. Render again into a "
                "new folder."
            )
        return there

    def features(self) -> "datasets.Features":
        """Give the columns."""
        return triplet_features() if self.triplets else super().features()

    def table(self, sequence: Any) -> "pa.Table":
        """Turn faces or triplets into rows."""
        return triplet_table(sequence) if isinstance(sequence, TripletBlock) else super().table(sequence)

    def splits(self, sequences: list[Sequence], fold: int | None, protocol: str) -> dict[str, list[Any]]:
        """Divide by identity; triplets are drawn within a split."""
        divided: dict[str, list[Any]] = {"train": sequences}
        if fold is not None:
            test = self.part_of(fold, protocol)
            parts = [_identity(sequence.subject_id) % len(self.PARTS) for sequence in sequences]
            divided = {
                "train": [sequence for sequence, part in zip(sequences, parts, strict=True) if part != test],
                "test": [sequence for sequence, part in zip(sequences, parts, strict=True) if part == test],
            }
        if not self.triplets:
            return divided
        return {
            split: draw_triplets(members, self.triplets, self.seed, split).blocks()
            for split, members in divided.items()
        }

    @classmethod
    def write_example(
        cls,
        folder: str | os.PathLike[str],
        *,
        identities: int = 6,
        frames: int = 4,
        size: int = 128,
        missing_images: int = 0,
        face_model: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Write what `render_dataset` writes: rendered if the face model is given, else with drawn faces.

        Args:
            folder: Where; made if missing.
            identities: How many people.
            frames: Images of each.
            size: Side of the images in pixels.
            missing_images: How many images to leave out.
            face_model: ICT-FaceKit, see `hf_geaau.synthetic.load_face_model`.

        Returns:
            The folder.
        """
        root = Path(folder)
        if face_model is not None:
            from hf_geaau.synthetic import render_dataset

            count = identities * frames
            render_dataset(face_model, count, 0, root, size=size, images_per_identity=frames, workers=1)
        else:
            _draw_example(root, identities, frames, size)
        for path in sorted((root / IMAGES).iterdir())[:missing_images]:
            path.unlink()
        return root


DATASET = Synthetic


def expression_distance(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Distance of expressions: Euclidean, of AU intensities as shares of full intensity. Our choice.

    Args:
        first, second: (..., N) intensities 0-5.

    Example:
        >>> float(expression_distance(np.array([5.0, 0.0]), np.array([0.0, 0.0])))
        1.0
    """
    return np.linalg.norm(np.asarray(first, np.float64) - np.asarray(second, np.float64), axis=-1) / 5


def expression_class(intensities: NDArray[Any]) -> NDArray[np.int64]:
    """Class of an expression: the facial region of its strongest AU, or 0 if no AU is present.

    Stands in for the emotion categories by which FEC tells its triplet types. Our choice.

    Args:
        intensities: (F, 18), 0-5, in the order of `facs.SYNTHETIC`.

    Returns:
        (F,) 0 at rest, else 1 + the region's place among brow, cheek, chin, eye, mouth, nose.

    Example:
        >>> smile, rest = [5.0 * (number == 12) for number in facs.SYNTHETIC], [0.0] * 18
        >>> expression_class(np.array([smile, rest])).tolist()
        [5, 0]
    """
    names = sorted({facs.ACTION_UNITS[number].region for number in facs.SYNTHETIC})
    regions = np.array([1 + names.index(facs.ACTION_UNITS[number].region) for number in facs.SYNTHETIC])
    return np.where(intensities.max(axis=1) >= 1, regions[intensities.argmax(axis=1)], 0)


def draw_triplets(sequences: list[Sequence], count: int, seed: int, split: str = "") -> TripletBlock:
    """Draw triplets of rendered faces: three people, two of them with similar expressions, and an odd one.

    For each anchor, a third of the time each, the type is one-class (all three expressions of one class), two-class
    (the pair of one class, the odd one of another) or three-class (three classes), see `expression_class`. The second
    face is the nearest of that kind among some random ones of other people; the third is a random one of that kind,
    further from both by a margin that makes the answer certain. So `agreement` is 1, and `votes` 0: nobody voted.

    Args:
        sequences: Faces with intensities.
        count: How many triplets.
        seed: The same seed gives the same triplets.
        split: Name of the split, for the ids.

    Raises:
        DatasetError: If the faces are too few or too alike.
    """
    intensities = np.concatenate([sequence.intensities for sequence in sequences]).astype(np.float64)
    people = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    paths = np.array([path for sequence in sequences for path in sequence.images], dtype=object)
    classes = expression_class(intensities)
    rng = np.random.default_rng([seed, *split.encode()])
    chosen, types, have = [], [], 0
    for _ in range(20 + 20 * (count // _CHUNK + 1)):
        kinds = rng.integers(3, size=_CHUNK)
        places, found = _try_triplets(intensities, people, classes, kinds, rng)
        chosen.append(places[found])
        types.append(kinds[found])
        have += int(found.sum())
        if have >= count:
            break
    else:
        raise DatasetError(
            f"The faces must allow {count} triplets of three people, got {have} from {len(sequences)} people with "
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
    intensities: NDArray[Any],
    people: NDArray[Any],
    classes: NDArray[Any],
    kinds: NDArray[Any],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw one triplet for each wanted type; tells which succeeded."""
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
    usable = third_person & third_class & (far >= pair[:, None] + _GAP)
    third = usable.argmax(axis=1)  # candidates are in random order, so the first is a random one
    found = fits.any(axis=1) & usable[rows, third]
    return np.stack([anchor, second, others[rows, third]], axis=1), found


def _read_table(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["file_name", "labels", "intensities", "subject_id", "frame"]
    try:
        table = pq.read_table(path, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"The table must be a parquet file with {', '.join(names)}, got {str(path)!r} ({error}). Render again."
        ) from error
    if missing := [name for name in names if name not in table.column_names]:
        raise DatasetError(f"The table must have the column '{missing[0]}', got none in {str(path)!r}. Render again.")
    return {name: table[name].to_pylist() for name in names}


def _matrix(rows: list[list[float]], path: Path) -> NDArray[np.float32]:
    wrong = next((place for place, row in enumerate(rows) if len(row) != len(facs.SYNTHETIC)), None)
    if wrong is not None:
        raise DatasetError(
            f"Rows must have {len(facs.SYNTHETIC)} AUs, got {len(rows[wrong])} in {str(path)!r}, row {wrong + 1}. "
            "Render again."
        )
    return np.array(rows, np.float32).reshape(-1, len(facs.SYNTHETIC))


def _check_units(path: Path) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("action_units")
    except (ValueError, AttributeError) as error:
        raise DatasetError(f"{str(path)!r} must be a JSON object, got something else. Render again.") from error
    if found != list(facs.SYNTHETIC):
        raise DatasetError(f"Renders must have the AUs {list(facs.SYNTHETIC)}, got {found} in {str(path)!r}.")


def _check_values(labels: NDArray[Any], intensities: NDArray[Any], path: Path) -> None:
    for values, allowed, name in (
        (labels, np.isin(labels, (0, 1)), "0 or 1"),
        (intensities, (intensities >= 0) & (intensities <= 5), "from 0 to 5"),
    ):
        if not allowed.all():
            row, column = np.argwhere(~allowed)[0]
            kind = "Labels" if values is labels else "Intensities"
            raise DatasetError(
                f"{kind} must be {name}, got {values[row, column]:g} in {str(path)!r}, row {row + 1}. Render again."
            )


def _identity(subject: str, path: Path | None = None) -> int:
    """Read the number out of render-<seed>-<identity>."""
    match = re.fullmatch(r"render-(?:shifted-)?\d+-(\d+)", subject)
    if match is None:
        raise DatasetError(
            f"Subjects must be named render-<seed>-<identity>, got {subject!r} in {str(path)!r}. Render again."
        )
    return int(match[1])


def _person(
    block: NDArray[np.intp],
    subject: str,
    frames: NDArray[np.int32],
    labels: NDArray[np.float32],
    intensities: NDArray[np.float32],
    paths: NDArray[np.object_],
) -> Sequence:
    return Sequence(
        subject,
        subject,
        frames[block],
        labels[block].astype(np.int8),
        intensities[block],  # type: ignore[arg-type]  # rendered intensities keep their fractions
        paths[block].tolist(),
    )


def _draw_example(root: Path, identities: int, frames: int, size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_geaau.synthetic.action_units import labels_of, sample_intensities

    (root / IMAGES).mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for index in range(identities * frames):
        identity, frame = divmod(index, frames)
        levels = sample_intensities(rng)
        name = f"{IMAGES}/{index:08d}.jpg"
        shown = dict(zip(facs.SYNTHETIC, levels.tolist(), strict=True))
        example_face(index, size, identity=identity, intensities=shown).save(root / name, quality=92)
        rows.append(
            {
                "file_name": name,
                "labels": labels_of(levels),
                "intensities": levels,
                "subject_id": f"render-0-{identity}",
                "sequence_id": "render",
                "frame": frame,
            }
        )
    with whole_file(root / LABELS_FILE) as part:
        pq.write_table(pa.Table.from_pylist(rows), part)
    settings = {"count": len(rows), "action_units": list(facs.SYNTHETIC), "size": size}
    (root / SETTINGS_FILE).write_text(json.dumps(settings, indent=1), encoding="utf-8")
