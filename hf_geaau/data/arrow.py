"""Arrow arrays in the layout that features of `datasets` expect."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


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
