"""Labeled rows before they are written: the frames of a recording, or triplets of faces."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

TRIPLET_TYPES = ("one_class", "two_class", "three_class")
"""How many expression classes the three faces come from; the index is what GeaauForExpressionEmbedding takes as
`triplet_types`."""

MARGINS = (0.1, 0.2, 0.2)
"""Margin of the triplet loss for each type. Source: Vemulapalli & Agarwala, "A compact embedding for facial expression
similarity", CVPR 2019, by three independent implementations."""

BLOCK_SIZE = 4096

FURTHER = ("side_intensities", "visible")
"""Columns of `Recording` that only some datasets have."""


@dataclass(eq=False)
class Recording:
    """The labeled frames of one recording, in order.

    Attributes:
        subject_id: As the dataset names people.
        sequence_id: Unique in the dataset.
        frames: (F,) int32, frame numbers as the label files count them.
        labels: (F, N) int8, 1 present, 0 absent, -1 not labeled.
        intensities: (F, N) int8 or float32, 0-5, -1 missing.
        images: F paths, or URLs that fsspec opens (frames in zips and videos).
        split: As the dataset's own files divide it, or "" if they do not.
        side_intensities: (F, N, 2) float32, 0-5 on the person's left and right, -1 missing; None for a dataset that
            tells no sides.
        visible: (F, N) float32, share of each AU's region that nothing hides, 0-1; None where it is not known.
    """

    subject_id: str
    sequence_id: str
    frames: NDArray[np.int32]
    labels: NDArray[np.int8]
    intensities: NDArray[np.int8] | NDArray[np.float32]
    images: list[str]
    split: str = ""
    side_intensities: NDArray[np.float32] | None = None
    visible: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, keep: NDArray[np.bool_]) -> "Recording":
        """Return the frames where `keep` is true."""
        images = [image for image, kept in zip(self.images, keep, strict=True) if kept]
        labels, intensities = self.labels[keep], self.intensities[keep]
        further: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[keep] for name in FURTHER
        }
        return replace(
            self,
            frames=self.frames[keep],
            labels=labels,
            intensities=intensities,
            images=images,
            **further,
        )

    def in_ranges(self, ranges: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
        """Return which frames lie in ranges of frame numbers (first, last), ends included."""
        inside = np.zeros(len(self), dtype=bool)
        for first, last in ranges:
            inside |= (self.frames >= first) & (self.frames <= last)
        return inside

    def table(self, contents: list[bytes] | None = None) -> "pa.Table":
        """Return the rows.

        Args:
            contents: F encoded images to embed instead of paths.
        """
        return recordings_table([self], contents)


@dataclass(eq=False)
class TripletBlock:
    """Some triplets that are read, cut and written together.

    Attributes:
        split: "train" or "test" as the dataset's own files say, or "" if it has no such division.
        triplet_ids: T names, unique in the dataset, that lead back to the source.
        images: (T, 3) paths, in the order similar, similar, odd.
        boxes: (T, 3, 4) float32, face boxes left, top, right, bottom as fractions of the photo's width and height.
        types: (T,) int, index in `TRIPLET_TYPES`.
        agreement: (T,) float32, share of the votes that the odd one got.
        votes: (T,) int32, number of votes; 0 where nobody voted.
    """

    split: str
    triplet_ids: list[str]
    images: NDArray[np.object_]
    boxes: NDArray[np.float32]
    types: NDArray[np.int64]
    agreement: NDArray[np.float32]
    votes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.triplet_ids)

    def select(self, keep: NDArray[np.integer] | NDArray[np.bool_]) -> "TripletBlock":
        """Return the triplets at some indices, or where a mask is true."""
        indices = np.arange(len(self))[keep]
        return TripletBlock(
            self.split,
            [self.triplet_ids[index] for index in indices],
            self.images[indices],
            self.boxes[indices],
            self.types[indices],
            self.agreement[indices],
            self.votes[indices],
        )

    def blocks(self) -> list["TripletBlock"]:
        """Divide into blocks of at most `BLOCK_SIZE` triplets."""
        indices = np.arange(len(self))
        return [self.select(indices[first : first + BLOCK_SIZE]) for first in range(0, len(self), BLOCK_SIZE)]

    def table(self, contents: list[bytes] | None = None) -> "pa.Table":
        """Return the rows.

        Args:
            contents: 3·T encoded images to embed instead of paths, triplet by triplet.
        """
        import pyarrow as pa

        images = image_column(self.images.reshape(-1).tolist(), contents)
        boxes = fixed_lists(self.boxes.reshape(-1, 4))
        return pa.table(
            {
                "images": pa.FixedSizeListArray.from_arrays(images, 3),
                "boxes": pa.FixedSizeListArray.from_arrays(boxes, 3),
                "triplet_type": pa.array(self.types, pa.int64()),
                "margin": pa.array(np.asarray(MARGINS)[self.types], pa.float32()),
                "agreement": pa.array(self.agreement, pa.float32()),
                "votes": pa.array(self.votes, pa.int32()),
                "triplet_id": pa.array(self.triplet_ids, pa.string()),
            }
        )


Block = Recording | TripletBlock
"""A unit of work: rows that are read, cut and written together."""


def recordings_table(recordings: Sequence[Recording], contents: list[bytes] | None = None) -> "pa.Table":
    """Return the rows of recordings, one below the other.

    Args:
        recordings: At least one.
        contents: An encoded image for each row, to embed instead of paths.
    """
    import pyarrow as pa

    counts = [len(recording) for recording in recordings]
    names = {
        name: np.repeat(np.array([getattr(recording, name) for recording in recordings], dtype=object), counts)
        for name in ("subject_id", "sequence_id")
    }
    images = [path for recording in recordings for path in recording.images]
    further = {name: [getattr(recording, name) for recording in recordings] for name in FURTHER}
    return pa.table(
        {
            "image": image_column(images, contents),
            "labels": fixed_lists(np.concatenate([recording.labels for recording in recordings])),
            "intensities": fixed_lists(np.concatenate([recording.intensities for recording in recordings])),
            **{name: pa.array(values, pa.string()) for name, values in names.items()},
            "frame": pa.array(np.concatenate([recording.frames for recording in recordings]), pa.int32()),
            **{
                name: fixed_lists(np.concatenate(values).reshape(len(images), -1))
                for name, values in further.items()
                if values[0] is not None  # a dataset tells it of all recordings or of none
            },
        }
    )


def tables(blocks: Iterable[Block]) -> Iterator["pa.Table"]:
    """Yield the rows of blocks; short recordings are put together, as own data has one for each photo."""
    waiting: list[Recording] = []
    count = 0
    for block in blocks:
        if isinstance(block, Recording):
            waiting.append(block)
            count += len(block)
        else:
            yield block.table()
        if count >= BLOCK_SIZE:
            yield recordings_table(waiting)
            waiting, count = [], 0
    if waiting:
        yield recordings_table(waiting)


def triplet_features() -> "datasets.Features":
    """Return the columns of triplet data."""
    from datasets import ClassLabel, Features, Image, List, Value

    return Features(
        {
            "images": List(Image(), length=3),
            "boxes": List(List(Value("float32"), length=4), length=3),
            "triplet_type": ClassLabel(names=list(TRIPLET_TYPES)),
            "margin": Value("float32"),
            "agreement": Value("float32"),
            "votes": Value("int32"),
            "triplet_id": Value("string"),
        }
    )


def image_column(paths: Sequence[str], contents: Sequence[bytes] | None = None) -> "pa.StructArray":
    """Return images as paths, or as encoded contents that replace the paths."""
    import pyarrow as pa

    if contents is None:
        columns = [pa.nulls(len(paths), pa.binary()), pa.array(paths, pa.string())]
    else:
        columns = [pa.array(contents, pa.binary()), pa.nulls(len(contents), pa.string())]
    return pa.StructArray.from_arrays(columns, ["bytes", "path"])


def fixed_lists(values: NDArray[np.generic]) -> "pa.FixedSizeListArray":
    """Return an (R, N) array as R lists of N float32."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
