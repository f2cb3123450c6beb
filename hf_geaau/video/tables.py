"""One table of faces, frames and action units, written in chunks so that a kill loses the last one at most."""

import json
import math
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_geaau.errors import TableError
from hf_geaau.faces import Face
from hf_geaau.facs import ACTION_UNITS, sided
from hf_geaau.files import FolderClaim, parse_json, reason_of, whole_file
from hf_geaau.tables import Finishing, action_units
from hf_geaau.tables.finishing import write_blocks
from hf_geaau.video.stream import AnalyzedFrame
from hf_geaau.video.tracking import head_pose

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SUFFIXES = (".csv", ".jsonl", ".parquet")
POINT_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")  # left and right in the image
FACE_COLUMNS = ("source", "frame", "time_s", "track_id", "face", "score", "xmin", "ymin", "xmax", "ymax")
POINTS = tuple(f"{name}_{axis}" for name in POINT_NAMES for axis in "xy")
POSE = ("roll", "yaw")
CHUNK_ROWS, CHUNK_SECONDS = 5000, 30.0
RECORD = "run.json"
_KEY = b"hf_geaau"  # of the metadata of parquet files


def columns(
    action_units: Sequence[str], has_intensities: bool = False, has_sides: bool = False, has_visibility: bool = False
) -> list[str]:
    """Return the names of a table's columns.

    Example:
        >>> columns(["AU12"])[-4:]
        ['yaw', 'quality', 'AU12', 'AU12_present']
    """
    units = [*action_units, *(f"{unit}_present" for unit in action_units)]
    intensities = [f"{unit}_intensity" for unit in action_units] if has_intensities else []
    sides = side_columns(dict.fromkeys(sided(action_units), (0.0, 0.0))) if has_sides else {}
    visible = [f"{unit}_visible" for unit in action_units] if has_visibility else []
    return [*FACE_COLUMNS, *POINTS, *POSE, "quality", *units, *intensities, *sides, *visible]


def face_row(frame: AnalyzedFrame, index: int, face: Face) -> dict[str, Any]:
    """Return the table row of an analyzed face, the `index`-th of its frame or photo."""
    values = face.to_dict()
    units, present = values["action_units"], set(values["present"])
    return {
        "source": frame.source.name,
        "frame": frame.number,
        "time_s": frame.time_s,
        "track_id": face.track_id,
        "face": index,
        "score": values["score"],
        **values["box"],
        **dict(zip(POINTS, np.asarray(face.points, float).ravel().tolist(), strict=True)),
        **dict(zip(POSE, head_pose(face.points), strict=True)),
        "quality": "; ".join(face.quality) or "good",
        **units,
        **{f"{unit}_present": int(unit in present) for unit in units},
        **{f"{unit}_intensity": value for unit, value in values.get("intensities", {}).items()},
        **side_columns(face.sides),
        **{f"{unit}_visible": value for unit, value in values.get("visibility", {}).items()},
    }


def side_columns(sides: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the columns of the AUs that have sides, from probabilities on the person's left and right.

    The asymmetry is left - right, from -1 to 1. Our choice: the quotient (left - right) / (left + right), which studies
    of measured movements use, would be decided by noise where an AU is absent and both probabilities are near 0.

    Example:
        >>> side_columns({"AU12": (0.75, 0.5)})
        {'AU12_left': 0.75, 'AU12_right': 0.5, 'AU12_asymmetry': 0.25}
    """
    return {
        name: value
        for unit, (left, right) in sides.items()
        for name, value in ((f"{unit}_left", left), (f"{unit}_right", right), (f"{unit}_asymmetry", left - right))
    }


class TableWriter:
    """Collect rows in chunks beside a table, and write the table from them at the end.

    A chunk is a parquet file that is either whole or absent. It holds rows and, as metadata, the progress of the run
    after them, so that a resumed run continues exactly there, and the entries of the sources that ended in it. The
    chunks lie in `_NAME.unfinished`, which readers of parquet folders skip, and which is locked while the writer is
    open.

    Args:
        path: The table: .csv, .jsonl or .parquet.
        names: Its columns, from `columns`.
        settings: What must be the same to resume: inputs, model, settings; as JSON expresses it.
        thresholds: Threshold of each action unit, kept in the parquet file's metadata.
        resume: Continue an interrupted run.
        overwrite: Replace an existing table, and drop what an interrupted run left.
        chunk_rows: Approximate number of rows per chunk; belongs to the settings.
        finishing: What makes the table from the rows, one source after the other.

    Attributes:
        progress: What was passed to the last `commit`, also by the run that is resumed; empty at first.

    Raises:
        TableError: If `check_output` refuses the path, another process writes this table, or the interrupted run had
            other settings.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        settings: Mapping[str, Any],
        *,
        thresholds: Mapping[str, float] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        chunk_rows: int = CHUNK_ROWS,
        finishing: Finishing = Finishing(),  # noqa: B008 (immutable)
    ) -> None:
        check_output(path, overwrite=overwrite, resume=resume)
        self.path, self.names, self.chunk_rows = path, list(names), chunk_rows
        self.folder = unfinished(path)
        self.progress: dict[str, Any] = {}
        self.finishing = finishing
        self._thresholds = dict(thresholds or {})
        self._rows: list[dict[str, Any]] = []
        self._entries: list[Mapping[str, Any]] = []
        self._written = monotonic()
        self._claim = FolderClaim(
            self.folder,
            {**settings, "chunk": chunk_rows},
            record=RECORD,
            error=TableError,
            content="rows of a table",
            start_over=overwrite and not resume,
            hint="Pass the same arguments, or start over with --overwrite.",
        )
        self._chunks = sorted(self.folder.glob("chunk-*.parquet"))
        if self._chunks:
            self.progress = _metadata(self._chunks[-1])["progress"]

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        self._rows += rows

    def add_entry(self, entry: Mapping[str, Any]) -> None:
        """Append the entry of a source that has ended, for the report; as JSON expresses it."""
        self._entries.append(entry)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries that were committed, also by the run that is resumed, one chunk after another."""
        for chunk in self._chunks:
            yield from json.loads(zlib.decompress(b64decode(_metadata(chunk)["entries"])))

    @property
    def is_due(self) -> bool:
        """Whether it is time to commit. Sources without rows count too, because their entries take space."""
        is_full = len(self._rows) >= self.chunk_rows or len(self._entries) >= min(self.chunk_rows, CHUNK_ROWS)
        return is_full or monotonic() - self._written > CHUNK_SECONDS

    def commit(self, progress: Mapping[str, Any]) -> None:
        """Write the rows and entries added so far, with the progress of the run after them.

        Raises:
            TableError: If the disk is full or gone; what was committed before stays.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        metadata = {"progress": progress, "entries": _packed(self._entries)}
        table = pa.Table.from_pylist(self._rows, schema=self._schema(metadata))
        chunk = self.folder / f"chunk-{len(self._chunks):06d}.parquet"
        try:
            with whole_file(chunk) as part:
                pq.write_table(table, part)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._chunks.append(chunk)
        self._rows, self._entries, self._written = [], [], monotonic()
        self.progress = dict(progress)

    def finish(self) -> None:
        """Write the table from the chunks, one at a time, and remove them.

        Raises:
            TableError: If the disk is full or gone; the chunks stay.
        """
        try:
            with whole_file(self.path) as part:
                self._write_all(part)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._claim.remove()

    def close(self) -> None:
        """Let other processes resume the table; rows that were not committed are lost."""
        self._claim.release()

    def _write_all(self, target: Path) -> None:
        kinds = [entry.get("kind") for entry in self.entries()] if self.finishing.format == "openface" else []
        tables = self._tables() if self.finishing.changes_nothing else _whole_sources(self._tables())
        blocks = self.finishing.blocks(
            tables,
            self._thresholds,
            with_source=len(kinds) > 1,
            as_sequence=set(kinds) != {"photo"},
        )
        has_own_columns = self.finishing.format == "geaau"
        schema = self._schema({"thresholds": self._thresholds}) if has_own_columns else None
        write_blocks(blocks, target, self.path.suffix.lower(), schema)

    def _tables(self) -> "Iterator[pd.DataFrame]":
        """Yield the rows of each chunk; without chunks, a table of no rows."""
        import pyarrow.parquet as pq

        empty = [] if self._chunks else [self._schema({}).empty_table()]
        for table in chain(empty, (pq.read_table(chunk, partitioning=None) for chunk in self._chunks)):
            yield table.to_pandas().astype({"track_id": "Int64"})

    def _schema(self, metadata: Mapping[str, Any]) -> "pa.Schema":
        import pyarrow as pa

        kinds = {
            "source": "string",
            "quality": "string",
            "frame": "int64",
            "time_s": "float64",
            "track_id": "int32",
            "face": "int32",
        }
        kinds |= {name: "int8" for name in self.names if name.endswith("_present")}
        fields = [(name, pa.type_for_alias(kinds.get(name, "float32"))) for name in self.names]
        return pa.schema(fields, metadata={_KEY: json.dumps(metadata).encode()})


def _whole_sources(tables: "Iterable[pd.DataFrame]") -> "Iterator[pd.DataFrame]":
    """Yield the same rows in parts that end with a source, so that one source is the most that memory holds."""
    import pandas as pd

    held: list[pd.DataFrame] = []
    for table in tables:
        if table.empty:
            held = held or [table]
            continue
        is_last = table["source"] == table["source"].iloc[-1]
        goes_on = bool(is_last.all()) and (not held or held[-1]["source"].isin(table["source"].iloc[-1:]).all())
        if not goes_on:
            yield pd.concat([*held, table[~is_last]], ignore_index=True)
            held = []
        held.append(table[is_last])
    yield pd.concat(held, ignore_index=True)


def _packed(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the entries as compressed text: they say almost the same, and parquet writes its metadata twice."""
    return b64encode(zlib.compress(json.dumps(entries).encode())).decode()


def _metadata(chunk: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    return dict(json.loads(pq.read_schema(chunk).metadata[_KEY]))


def unfinished(path: Path) -> Path:
    """Return the folder that holds a table's chunks until it is finished."""
    return path.with_name(f"_{path.name}.unfinished")


def check_output(path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Check whether a table can be written before any work is done for it.

    Args:
        path: The table.
        overwrite: An existing table may be replaced.
        resume: An interrupted run may be continued.

    Raises:
        TableError: If the suffix or the folder is wrong, the table exists or an interrupted run left its rows and
            neither flag covers that, there is nothing to resume, or the system refuses the path.
    """
    try:
        _check_output(path, overwrite, resume)
    except OSError as error:
        raise TableError(f"Cannot write '{path}': {reason_of(error)}. Pass another output.") from error


def _check_output(path: Path, overwrite: bool, resume: bool) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise TableError(f"The output must end in {', '.join(SUFFIXES)}, got '{path}'.")
    if not path.absolute().parent.is_dir():
        with suppress(FileNotFoundError):
            path.absolute().stat()  # says why, such as a parent that is a file
        raise TableError(f"Cannot write '{path}': its folder does not exist. Create it first.")
    if path.is_dir():
        raise TableError(f"Cannot write '{path}': it is a folder. Pass another output.")
    is_interrupted = (unfinished(path) / RECORD).is_file()
    if path.exists() and not overwrite and not (resume and is_interrupted):
        state = "is finished already" if resume else "exists"
        raise TableError(f"Cannot write '{path}': it {state}. Pass --overwrite to replace it.")
    if is_interrupted and not (resume or overwrite):
        raise TableError(
            f"Cannot write '{path}': an interrupted run left its rows in '{unfinished(path)}'. Continue it with"
            " --resume, or start over with --overwrite."
        )


def read_table(path: str | Path) -> "tuple[pd.DataFrame, dict[str, float]]":
    """Read a table, or a folder of parquet parts.

    Returns:
        The rows, and the threshold of each action unit. Where the file does not hold thresholds, they are inferred
        from the probabilities of present and absent units.

    Raises:
        TableError: If it is not a table of `hf-geaau predict`.
    """
    import pandas as pd

    path = Path(path)
    readers = {  # a source is text, even if it looks like a number, a date or a missing value
        ".csv": _read_csv,
        ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    }
    try:
        table = readers.get(path.suffix.lower(), pd.read_parquet)(path)
    except FileNotFoundError as error:
        raise TableError(f"Cannot read the table '{path}': there is no such file. Check the path.") from error
    except Exception as error:  # a foreign file can make a reader raise anything
        raise TableError(
            f"Cannot read '{path}' as a table of `hf-geaau predict`: {' '.join(str(error).split())[:200]}"
        ) from error
    if problem := _problem(table):
        raise TableError(f"'{path}' is not a table of `hf-geaau predict`: {problem}.")
    return table, _thresholds(path, table)


def read_events(path: str | Path) -> "pd.DataFrame":
    """Read a table of events for `hf_geaau.tables.join_events`: a .csv file, or one with tabs, as BIDS and ELAN write.

    Raises:
        TableError: If it cannot be read.
    """
    import pandas as pd

    path = Path(path)
    try:
        return pd.read_csv(path, sep="," if path.suffix.lower() == ".csv" else "\t")
    except OSError as error:
        raise TableError(f"Cannot read the events '{path}': {reason_of(error)}. Check the path.") from error
    except Exception as error:  # a foreign file can make a reader raise anything
        raise TableError(f"Cannot read the events '{path}': {' '.join(str(error).split())[:200]}") from error


def write_table(rows: "pd.DataFrame", path: Path, thresholds: Mapping[str, float]) -> None:
    """Write a table at once, from its rows, as .csv, .jsonl or .parquet; `read_table` reads it."""
    import pyarrow as pa

    metadata = {_KEY: json.dumps({"thresholds": dict(thresholds)}).encode()}
    schema = pa.Schema.from_pandas(rows, preserve_index=False).with_metadata(metadata)
    with whole_file(path) as part:
        write_blocks([rows], part, path.suffix.lower(), schema)


def _read_csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    gaps = {name: [""] for name in pd.read_csv(path, nrows=0) if name != "source"}
    return pd.read_csv(path, dtype={"source": str}, keep_default_na=False, na_values=gaps)


def _problem(table: "pd.DataFrame") -> str | None:
    """Return why a table is none of `hf-geaau predict`."""
    from pandas.api.types import is_numeric_dtype

    units = action_units(table)
    missing = [name for name in (*FACE_COLUMNS, *POINTS) if name not in table]
    if missing or not units:
        return f"it lacks {', '.join(missing) or 'action units'}"
    known = {f"AU{number:02d}" for number in ACTION_UNITS}
    for unit in units:
        if unit not in known:
            return f"'{unit}' is no action unit"
    if not all(isinstance(source, str) for source in table["source"]):
        return "the column source holds something else than names"
    always = ["frame", *units, *(f"{unit}_present" for unit in units)]
    for name in (*FACE_COLUMNS[1:], *POINTS, *always):
        if not is_numeric_dtype(table[name]) and table[name].notna().any():
            return f"the column {name} holds something else than numbers"
        if name in always and table[name].isna().any():
            return f"the column {name} has gaps"
    return None


def _thresholds(path: Path, table: "pd.DataFrame") -> dict[str, float]:
    if path.suffix.lower() == ".parquet" and path.is_file():
        import pyarrow.parquet as pq

        with suppress(KeyError, TypeError, ValueError):  # what another program wrote there does not matter
            stored = parse_json((pq.read_schema(path).metadata or {})[_KEY])["thresholds"]
            if set(stored) == set(action_units(table)):
                return {unit: float(threshold) for unit, threshold in stored.items()}
    inferred = {}
    for unit in action_units(table):
        present = table[f"{unit}_present"] == 1
        least = table.loc[present, unit].min() if present.any() else math.inf
        most = table.loc[~present, unit].max() if (~present).any() else -math.inf
        inferred[unit] = 0.5 if most < 0.5 <= least else float((max(most, 0.0) + min(least, 1.0)) / 2)
    return inferred


def _unwritable(path: Path, error: OSError) -> TableError:
    return TableError(
        f"Cannot write '{path}': {reason_of(error)}. What was committed before is kept: free space or repair the disk,"
        " then continue with --resume."
    )
