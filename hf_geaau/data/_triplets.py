"""Columns of triplet data: three faces of which the first two show the most similar expressions."""

from dataclasses import dataclass
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


@dataclass(eq=False)
class TripletBlock:
    """Some triplets; one shard of the work.

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

    def select(self, keep: NDArray[Any]) -> "TripletBlock":
        """Give the triplets at the given places, or where a mask is true."""
        places = np.arange(len(self))[keep]
        return TripletBlock(
            self.split,
            [self.triplet_ids[place] for place in places],
            *(values[places] for values in (self.images, self.boxes, self.types, self.agreement, self.votes)),
        )

    def blocks(self, size: int = BLOCK_SIZE) -> list["TripletBlock"]:
        """Cut into blocks of at most `size` triplets."""
        return [self.select(np.arange(first, min(first + size, len(self)))) for first in range(0, len(self), size)]


def triplet_features() -> "datasets.Features":
    """Give the columns of triplet data."""
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


def triplet_table(block: TripletBlock, contents: list[bytes] | None = None) -> "pa.Table":
    """Turn triplets into rows.

    Args:
        block: The triplets.
        contents: The 3·T encoded images to embed instead of paths, triplet by triplet.
    """
    import pyarrow as pa

    count = len(block)
    if contents is None:
        images = [pa.nulls(3 * count, pa.binary()), pa.array(block.images.reshape(-1).tolist(), pa.string())]
    else:
        images = [pa.array(contents, pa.binary()), pa.nulls(3 * count, pa.string())]
    coordinates = pa.FixedSizeListArray.from_arrays(pa.array(block.boxes.reshape(-1), pa.float32()), 4)
    return pa.table(
        {
            "images": pa.FixedSizeListArray.from_arrays(pa.StructArray.from_arrays(images, ["bytes", "path"]), 3),
            "boxes": pa.FixedSizeListArray.from_arrays(coordinates, 3),
            "triplet_type": pa.array(block.types, pa.int64()),
            "margin": pa.array(np.asarray(MARGINS)[block.types], pa.float32()),
            "agreement": pa.array(block.agreement, pa.float32()),
            "votes": pa.array(block.votes, pa.int32()),
            "triplet_id": pa.array(block.triplet_ids, pa.string()),
        }
    )
