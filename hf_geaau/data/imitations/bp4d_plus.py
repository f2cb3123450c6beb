"""An imitation of BP4D+'s release: as BP4D's, with its own header, flags and frame numbers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bp4d import Key
from ..bp4d_plus import FLAG, HEADER, BP4DPlus
from .bp4d import Quirks, Release, write_release
from .drawing import shares

__all__ = ["Quirks", "full_blocks", "write"]


def write(folder: Path, quirks: Quirks) -> None:
    """Write the imitation into a folder."""
    write_release(Release(BP4DPlus, -1, full_blocks, _occurrence_lines), folder, quirks)


def full_blocks() -> dict[Key, range]:
    """Divide the published number of frames over people and tasks."""
    keys = [(subject, task) for part in BP4DPlus.PARTS for subject in part for task in BP4DPlus.TASKS]
    counts = shares(BP4DPlus.TOTAL_FRAMES, len(keys))
    return {key: range(1, count + 1) for key, count in zip(keys, counts, strict=True)}


def _occurrence_lines(block: range, levels: NDArray[np.int8], not_codable: int) -> Iterator[str]:
    """Write the header of BP4D+, and flag the last frames, as many as are not codable, as unreliable."""
    yield ",".join(map(str, HEADER))
    columns = [HEADER.index(number, 1) for number in BP4DPlus.AUS]
    for row, frame in enumerate(block):
        cells = [frame, *[0] * (len(HEADER) - 1)]
        for column, level in zip(columns, levels[row].tolist(), strict=True):
            cells[column] = int(level > 0)
        if row < not_codable:
            cells[1] = 9
        cells[FLAG] = int(row >= len(block) - not_codable)
        yield ",".join(map(str, cells))
