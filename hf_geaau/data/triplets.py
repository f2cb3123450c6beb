"""Triplet data: three faces of which the first two show the most similar expressions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .arrow import fixed_lists, image_column

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

    def blocks(self, size: int = BLOCK_SIZE) -> list["TripletBlock"]:
        """Divide into blocks of at most `size` triplets."""
        return [self.select(np.arange(first, min(first + size, len(self)))) for first in range(0, len(self), size)]

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
