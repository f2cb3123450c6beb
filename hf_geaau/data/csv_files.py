"""Lists of dataclasses as csv files with a header."""

import csv
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hf_geaau.files import whole_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


def write_rows(kind: type[Row], rows: Iterable[Row], path: Path) -> None:
    """Write rows of one dataclass."""
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([entry.name for entry in fields(kind)])
        writer.writerows(astuple(row) for row in rows)


def read_rows(kind: type[Row], path: Path) -> list[Row]:
    """Read what `write_rows` wrote; the fields of the dataclass are texts and whole numbers.

    Raises:
        ValueError: If the file has other columns, or no number where one is due.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    if header != [entry.name for entry in fields(kind)]:
        raise ValueError(f"the columns are {', '.join(header)}")
    types = [int if entry.type in (int, "int") else str for entry in fields(kind)]
    return [kind(*(convert(cell) for convert, cell in zip(types, line, strict=True))) for line in lines]
