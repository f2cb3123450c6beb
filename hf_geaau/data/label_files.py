"""Read many small label files at once, and say in which line of which file something is wrong.

A benchmark has hundreds of short files. Parsing each alone costs more in calls than in parsing, so files of one shape
are joined in memory and parsed together; only when that fails is each line examined, to name the faulty one.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import DatasetError


def read_columns(
    paths: Sequence[Path], width: int, columns: Sequence[int], header_lines: int = 0
) -> list[NDArray[np.int32]]:
    """Read columns of whole numbers from comma-separated files of one shape.

    Args:
        paths: The files.
        width: Cells that each line has.
        columns: Which columns to return, from 0.
        header_lines: Lines to skip at the top of each file.

    Returns:
        For each file (R, len(columns)) int32, with R its lines.

    Raises:
        DatasetError: If a line has another number of cells, a cell is not a whole number, or a file is empty; names
            file and line.
    """
    import pyarrow as pa
    from pyarrow import csv

    bodies = [_body(path, header_lines) for path in paths]
    counts = [body.count(b"\n") for body in bodies]
    if not bodies:
        return []
    names = [str(column) for column in range(width)]
    wanted = [names[column] for column in columns]
    try:
        table = csv.read_csv(
            pa.BufferReader(b"".join(bodies)),
            csv.ReadOptions(column_names=names, block_size=1 << 22),
            csv.ParseOptions(ignore_empty_lines=False),
            # No null values: an empty cell is a fault, not a missing label.
            csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.int32()), null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise DatasetError(_fault(paths, width, columns, header_lines)) from error
    values = np.stack([table[name].to_numpy() for name in wanted], axis=1)
    ends = np.cumsum([0, *counts])
    if 0 in counts or ends[-1] != len(values):
        raise DatasetError(_fault(paths, width, columns, header_lines))
    return [values[start:stop] for start, stop in pairwise(ends)]


def read_header(path: Path) -> list[str]:
    """Return the cells of a file's first line.

    Raises:
        DatasetError: If the file is empty.
    """
    with path.open("rb") as file:
        line = file.readline().decode("utf-8-sig", errors="replace").strip()
    if not line:
        raise DatasetError(_empty(path))
    return [cell.strip().strip('"') for cell in line.split(",")]


def check_values(values: NDArray[np.int32], allowed: Iterable[int], path: Path, header_lines: int) -> None:
    """Check that cells hold allowed values.

    Raises:
        DatasetError: If one does not; names file, line and value.
    """
    allowed = tuple(allowed)
    wrong = ~np.isin(values, allowed)
    if wrong.any():
        row, column = np.argwhere(wrong.reshape(len(values), -1))[0]
        value = values.reshape(len(values), -1)[row, column]
        raise DatasetError(
            f"A label must be one of {', '.join(map(str, allowed))}, got {value} in {str(path)!r}, "
            f"line {row + 1 + header_lines}. Copy the file again from the release."
        )


def check_frames(frames: NDArray[np.int32], path: Path, header_lines: int) -> list[tuple[int, int]]:
    """Check that frame numbers rise, and return the ranges (first, last) that they skip.

    Raises:
        DatasetError: If a number does not rise; names file and line.
    """
    steps = np.diff(frames)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        raise DatasetError(
            f"Frame numbers do not rise in {str(path)!r}, line {row + 1 + header_lines}: {frames[row]} follows "
            f"{frames[row - 1]}. Copy the file again from the release."
        )
    return [(int(frames[row]) + 1, int(frames[row + 1]) - 1) for row in np.flatnonzero(steps > 1)]


def _body(path: Path, header_lines: int) -> bytes:
    """Return the lines below the header, each ended, without empty lines at the end."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip()
    for _ in range(header_lines):
        content = content.partition(b"\n")[2]
    return content + b"\n" if content else b""


def _fault(paths: Sequence[Path], width: int, columns: Sequence[int], header_lines: int) -> str:
    """Describe the fault that made parsing fail."""
    for path in paths:
        body = _body(path, header_lines)
        if not body:
            return _empty(path)
        for number, line in enumerate(body.decode(errors="replace").removesuffix("\n").split("\n"), 1 + header_lines):
            cells = line.strip("\r").split(",")
            if len(cells) != width:
                return (
                    f"{str(path)!r}, line {number}, has {len(cells)} cells instead of {width}. "
                    "The file seems to be truncated; copy it again from the release."
                )
            for column in columns:
                if not _is_whole(cells[column]):
                    return (
                        f"A label must be a whole number, got {cells[column][:20]!r} in {str(path)!r}, line {number}, "
                        f"cell {column + 1}. Copy the file again from the release."
                    )
    return f"Cannot parse label files such as {str(paths[0])!r} as comma-separated text. Copy them again."


def _is_whole(cell: str) -> bool:
    return cell.strip().removeprefix("-").isdigit()


def _empty(path: Path) -> str:
    return f"The label file {str(path)!r} is empty. Copy it again from the release."
