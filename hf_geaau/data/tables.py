"""Read somebody's own table: csv, tsv, jsonl or parquet, as columns of plain values with the place of each row."""

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_geaau.errors import DatasetError
from hf_geaau.files import parse_json, whole_file

from .base import require

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
"""What tables and files call a split, and what it is called here."""

_METADATA = "metadata"  # the name of the table in the layout `imagefolder` of `datasets`
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),  # what PowerShell writes
    (b"\xfe\xff", "utf-16"),
)


class StoredImage(NamedTuple):
    """An image whose encoded bytes lie in a parquet file, or the path that stands there instead."""

    file: Path
    column: str
    row: int


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one or several files.

    Attributes:
        columns: R values by name, in the order of the file; None where a file lacks the column. Values of csv and tsv
            are texts; an image inside a parquet file is a `StoredImage`.
        places: (file, number) of each row: the line of a text file or the row of a parquet file, from 1.
        splits: By file: what its name says, "train", "validation" or "test"; None if nothing.
    """

    columns: dict[str, list[Any]]
    places: list[tuple[Path, int]]
    splits: dict[Path, str | None]

    def __len__(self) -> int:
        return len(self.places)

    def place(self, row: int) -> str:
        """Name the place of a row for a message."""
        file, number = self.places[row]
        return f"{'row' if file.suffix.lower() == '.parquet' else 'line'} {number} of {str(file)!r}"


def find_tables(source: Path) -> dict[Path, str | None]:
    """Find the tables of a file or folder, and the split that each one's name states.

    A folder holds one table, or one for each split: train.csv and test.csv, train/metadata.csv and test/metadata.csv,
    data/train-00000-of-00002.parquet, …

    Raises:
        DatasetError: If it holds none, or several that are no splits.
    """
    if source.is_file():
        if source.suffix.lower() not in ENDINGS:
            raise DatasetError(
                f"A table must end in {', '.join(ENDINGS)}, got {str(source)!r}. Save it as one of these."
            )
        return {source: _split_of(source.stem)}
    found = _tables_in(source)
    if not found:
        folders = [path for path in sorted(source.iterdir()) if path.is_dir()]
        found = {
            table: split or _split_of(folder.name)
            for folder in folders
            if folder.name == "data" or _split_of(folder.name)
            for table, split in _tables_in(folder).items()
        }
    if not found:
        raise DatasetError(
            f"Cannot find a table in {str(source)!r}: no file ends in {', '.join(ENDINGS)}. Pass the table itself."
        )
    if len(found) > 1 and not all(found.values()):
        names = ", ".join(repr(str(path.relative_to(source))) for path in found)
        raise DatasetError(f"{str(source)!r} holds several tables: {names}. Pass the one with the labels.")
    return found


def _tables_in(folder: Path) -> dict[Path, str | None]:
    tables = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith(".")
    ]
    tables = [path for path in tables if path.stem.lower() == _METADATA] or tables
    return {path: _split_of(path.stem) for path in tables}


def _split_of(name: str) -> str | None:
    """Return the split that the first word of a name states."""
    word = re.match(r"[a-z]*", name.lower())
    return SPLITS.get(word[0]) if word else None


def read_tables(found: Mapping[Path, str | None]) -> Table:
    """Read tables and put their rows one below the other.

    Raises:
        DatasetError: If one cannot be read, or there is no row.
    """
    columns: dict[str, list[Any]] = {}
    places: list[tuple[Path, int]] = []
    for path in found:
        part, numbers = _read(path)
        for name in [*columns, *part]:
            column = columns.setdefault(name, [None] * len(places))
            if len(column) == len(places):
                column.extend(part.get(name, [None] * len(numbers)))
        places += [(path, number) for number in numbers]
    if not places:
        raise DatasetError(f"The table {', '.join(repr(str(path)) for path in found)} has no rows. Add labeled images.")
    return Table(columns, places, dict(found))


def _read(path: Path) -> tuple[dict[str, list[Any]], list[int]]:
    """Return the columns of one file and the number of each row."""
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    try:
        return readers.get(path.suffix.lower(), _read_separated)(path)
    except OSError as error:
        raise DatasetError(f"Cannot read {str(path)!r}: {error.strerror or error}. Copy it again.") from error


def _text(path: Path) -> str:
    content = path.read_bytes()
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"Cannot read {str(path)!r} as {encoding.upper()}: {error.reason} at byte {error.start}. Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise DatasetError(
            f"Cannot read {str(path)!r}: it is not a text file, or UTF-16 without a mark. Save it as UTF-8."
        )
    return text


def _read_separated(path: Path) -> tuple[dict[str, list[Any]], list[int]]:
    """Read lines whose values are separated by commas, semicolons, tabs or bars, whichever splits the header most."""
    text = _text(path)
    stated = re.match(r"sep=(.)\r?\n", text)  # the line by which Excel is told the separator
    first_line = 1 + bool(stated)
    body = text[stated.end() :] if stated else text
    marks = stated[1] if stated else ",;\t|"
    header_line = body.lstrip("\r\n").partition("\n")[0]
    separator = max(marks, key=lambda mark: len(next(csv.reader([header_line], delimiter=mark), [])))
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator)
    rows, numbers = [], []
    header: list[str] | None = None
    try:
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            if header is None:
                header = _checked_header(row, path)
                continue
            line = reader.line_num + first_line - 1
            rows.append(_fitted(row, len(header), path, line))
            numbers.append(line)
    except csv.Error as error:
        raise DatasetError(f"Cannot read line {reader.line_num} of {str(path)!r}: {error}. Save it again.") from error
    if header is None:
        raise DatasetError(f"{str(path)!r} is empty. The first line must name the columns.")
    return {name: [row[index] for row in rows] for index, name in enumerate(header) if name}, numbers


def _checked_header(names: list[str], path: Path) -> list[str]:
    header = [name.strip() for name in names]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{str(path)!r} has two columns named {twice!r}. Rename or remove one.")
    return header


def _fitted(row: list[str], count: int, path: Path, line: int) -> list[str]:
    """Check the number of values; blank ones at the end, as spreadsheets write them, do not count."""
    if len(row) > count and not any(value.strip() for value in row[count:]):
        return row[:count]
    if len(row) != count:
        raise DatasetError(
            f"Line {line} of {str(path)!r} has {len(row)} values for {count} columns. Put values that hold the "
            "separator into double quotes."
        )
    return row


def _read_jsonl(path: Path) -> tuple[dict[str, list[Any]], list[int]]:
    rows, numbers = [], []
    for number, line in enumerate(io.StringIO(_text(path), newline=None), 1):  # a text may hold U+2028 and the like
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DatasetError(
                f"Line {number} of {str(path)!r} is not JSON: {error}. Write one object a line."
            ) from error
        if not isinstance(row, dict):
            raise DatasetError(f"Line {number} of {str(path)!r} is not a JSON object. Write one object a line.")
        rows.append(row)
        numbers.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name.strip(): [row.get(name) for row in rows] for name in names}, numbers


def _read_parquet(path: Path) -> tuple[dict[str, list[Any]], list[int]]:
    """Read the plain columns, and where images lie. Class labels, which are stored as numbers, get their names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema, count = file.schema_arrow, file.metadata.num_rows
        plain = [field.name for field in schema if not pa.types.is_nested(field.type) and not _is_binary(field.type)]
        table = file.read(columns=plain)
    except pa.ArrowException as error:
        raise DatasetError(f"Cannot read {str(path)!r}: {' '.join(str(error).split())}. Write it again.") from error
    classes = _class_names(schema)
    columns: dict[str, list[Any]] = {}
    for field in schema:
        if _holds_images(field.type):
            columns[field.name.strip()] = [StoredImage(path, field.name, row) for row in range(count)]
        elif field.name in plain:
            values = table[field.name].to_pylist()
            names = classes.get(field.name)
            columns[field.name.strip()] = values if names is None else [_class_name(value, names) for value in values]
    return columns, list(range(1, count + 1))


def _is_binary(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_images(kind: "pa.DataType") -> bool:
    """Whether a column holds encoded images: binary, or the structure in which `datasets` keeps bytes and path."""
    import pyarrow as pa

    return _is_binary(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _class_names(schema: "pa.Schema") -> dict[str, list[str]]:
    """Return the names of the classes of each `ClassLabel` column, which `datasets` keeps in the file's metadata."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _class_name(value: int | None, names: list[str]) -> str | None:
    return None if value is None or not 0 <= value < len(names) else names[value]


def stored_paths(file: Path, column: str, folder: Path) -> list[str | None]:
    """Write the images inside a parquet file as files, and return the path of each row's image.

    Args:
        file, column: Where the images lie.
        folder: A folder for such images; they go into one of their own there, and are written once.

    Returns:
        Absolute paths; the path in the file where it holds no bytes; None where it holds neither.
    """
    status = file.stat()
    key = hashlib.sha256(f"{file}\0{column}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:32]
    target = folder / f"hf_geaau-images-{key}"
    return [_stored(content, name, target, row) for row, (content, name) in enumerate(_contents(file, column))]


def _stored(content: bytes | None, name: str | None, target: Path, row: int) -> str | None:
    if content is None:
        return name
    path = target / f"{row:08d}{Path(name or '').suffix}"
    if not path.is_file():
        target.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_bytes(content)
    return str(path)


def _contents(file: Path, column: str) -> Iterator[tuple[bytes | None, str | None]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches(64, columns=[column]):
        for value in batch.column(0).to_pylist():
            yield (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)


def written_dataset(source: Any, folder: Path) -> Path:
    """Write a `datasets.Dataset` or `DatasetDict` as parquet, one file for each split, and return their folder.

    Images stay where they are: as paths, or as the bytes that the dataset holds.

    Raises:
        DatasetError: If the source is something else, or has other splits than train, validation and test.
    """
    datasets = require("datasets", "datasets", "hf_geaau.data")
    splits = {"train": source} if isinstance(source, datasets.Dataset) else source
    if not isinstance(splits, Mapping) or not all(isinstance(part, datasets.Dataset) for part in splits.values()):
        raise DatasetError(
            f"`data_dir` must be a path, a datasets.Dataset or a DatasetDict, got {type(source).__name__}. "
            "Make one with datasets.Dataset.from_pandas, from_list or from_dict, without streaming."
        )
    key = datasets.fingerprint.Hasher.hash([(name, part._fingerprint) for name, part in splits.items()])
    target = folder / f"hf_geaau-table-{key}"
    target.mkdir(parents=True, exist_ok=True)
    for name, part in splits.items():
        if _split_of(str(name)) is None:
            raise DatasetError(f"A split must be named train, validation or test, got {name!r}. Rename it.")
        if (path := target / f"{name}.parquet").is_file():
            continue
        raw = part.with_format(None)
        for column, feature in part.features.items():
            if isinstance(feature, datasets.Image):
                raw = raw.cast_column(column, datasets.Image(decode=False))
        with whole_file(path) as partial, partial.open("wb") as sink:
            raw.to_parquet(sink)
    return target
