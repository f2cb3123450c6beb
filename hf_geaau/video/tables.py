"""One table of faces, frames and action units, written in chunks so that a kill loses the last one at most."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_geaau.errors import TableError
from hf_geaau.faces import Face
from hf_geaau.files import FolderClaim, whole_file
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
RECORD, INDEX = "run.json", "_index.json"
_KEY = b"hf_geaau"  # of the metadata of parquet files


def columns(action_units: Sequence[str], has_intensities: bool = False) -> list[str]:
    """Return the names of a table's columns.

    Example:
        >>> columns(["AU12"])[-4:]
        ['yaw', 'quality', 'AU12', 'AU12_present']
    """
    units = [*action_units, *(f"{unit}_present" for unit in action_units)]
    intensities = [f"{unit}_intensity" for unit in action_units] if has_intensities else []
    return [*FACE_COLUMNS, *POINTS, *POSE, "quality", *units, *intensities]


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
        "quality": "; ".join(face.quality),
        **units,
        **{f"{unit}_present": int(unit in present) for unit in units},
        **{f"{unit}_intensity": value for unit, value in values.get("intensities", {}).items()},
    }


class TableWriter:
    """Collect rows in chunks beside a table, and write the table from them at the end.

    A chunk is a parquet file that is either whole or absent. It holds rows and, as metadata, the progress of the run
    after them, so that a resumed run continues exactly there. The chunks lie in `_NAME.unfinished`, which readers of
    parquet folders skip, and which is locked while the writer is open.

    Args:
        path: The table: .csv, .jsonl or .parquet.
        names: Its columns, from `columns`.
        settings: What must be the same to resume: inputs, model, settings; as JSON expresses it.
        thresholds: Threshold of each action unit, kept in the parquet file's metadata.
        resume: Continue an interrupted run.
        overwrite: Replace an existing table, and drop what an interrupted run left.
        chunk_rows: Approximate number of rows per chunk.

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
    ) -> None:
        check_output(path, overwrite=overwrite, resume=resume)
        self.path, self.names, self.chunk_rows = path, list(names), chunk_rows
        self.folder = unfinished(path)
        self.progress: dict[str, Any] = {}
        self._thresholds = dict(thresholds or {})
        self._rows: list[dict[str, Any]] = []
        self._written = monotonic()
        self._claim = FolderClaim(
            self.folder,
            settings,
            record=RECORD,
            error=TableError,
            content="rows of a table",
            start_over=overwrite and not resume,
            hint="Pass the same arguments, or start over with --overwrite.",
        )
        self._chunks = sorted(self.folder.glob("chunk-*.parquet"))
        if self._chunks:
            import pyarrow.parquet as pq

            self.progress = json.loads(pq.read_schema(self._chunks[-1]).metadata[_KEY])

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        self._rows += rows

    @property
    def is_due(self) -> bool:
        """Whether it is time to commit."""
        return len(self._rows) >= self.chunk_rows or monotonic() - self._written > CHUNK_SECONDS

    def commit(self, progress: Mapping[str, Any]) -> None:
        """Write the rows added so far, with the progress of the run after them.

        Raises:
            TableError: If the disk is full or gone; what was committed before stays.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(self._rows, schema=self._schema(progress))
        chunk = self.folder / f"chunk-{len(self._chunks):06d}.parquet"
        try:
            with whole_file(chunk) as part:
                pq.write_table(table, part)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._chunks.append(chunk)
        self._rows, self._written = [], monotonic()
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
        import pyarrow.parquet as pq

        if self.path.suffix.lower() == ".parquet":
            schema = self._schema({"thresholds": self._thresholds})
            with pq.ParquetWriter(target, schema) as writer:
                for chunk in self._chunks:
                    writer.write_table(pq.read_table(chunk, partitioning=None).cast(schema))
            return
        with target.open("w", encoding="utf-8", newline="") as stream:
            if self.path.suffix.lower() == ".csv":
                stream.write(",".join(self.names) + "\n")
            for chunk in self._chunks:
                rows = pq.read_table(chunk, partitioning=None).to_pandas(integer_object_nulls=True)
                rows["track_id"] = rows["track_id"].astype("Int64")
                if self.path.suffix.lower() == ".csv":
                    # A name with a carriage return, which a reader would take as the end of a row, is not quoted else.
                    is_odd = rows["source"].str.contains("\r", regex=False).any()
                    quoting = csv.QUOTE_NONNUMERIC if is_odd else csv.QUOTE_MINIMAL
                    rows.to_csv(stream, index=False, header=False, lineterminator="\n", quoting=quoting)
                elif len(rows):
                    stream.write(rows.to_json(orient="records", lines=True, force_ascii=False, double_precision=6))

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


def unfinished(path: Path) -> Path:
    """Return the folder that holds a table's chunks until it is finished."""
    return path.with_name(f"_{path.name}.unfinished")


def check_output(path: Path, *, rank: int = 0, count: int = 1, overwrite: bool = False, resume: bool = False) -> None:
    """Check whether a table can be written before any work is done for it.

    Args:
        path: The table; for several processes, the folder of their parts.
        rank: Number of this process, from 0, of `count` processes.
        overwrite: An existing table may be replaced.
        resume: An interrupted run may be continued.

    Raises:
        TableError: If the suffix or the folder is wrong, the table exists or an interrupted run left its rows and
            neither flag covers that, or there is nothing to resume.
    """
    allowed = SUFFIXES if count == 1 else (".parquet",)
    if path.suffix.lower() not in allowed:
        processes = "" if count == 1 else " with several processes"
        raise TableError(f"The output must end in {', '.join(allowed)}{processes}, got '{path}'.")
    if not path.absolute().parent.is_dir():
        raise TableError(f"Cannot write '{path}': its folder does not exist. Create it first.")
    part = path if count == 1 else part_path(path, rank, count)
    is_interrupted = (unfinished(part) / RECORD).is_file()
    exists = part.exists() or (count > 1 and (path.is_file() or (path / INDEX).exists()))
    if exists and not overwrite and not (resume and is_interrupted):
        state = "is finished already" if resume else "exists"
        raise TableError(f"Cannot write '{path}': it {state}. Pass --overwrite to replace it.")
    if is_interrupted and not (resume or overwrite):
        raise TableError(
            f"Cannot write '{path}': an interrupted run left its rows in '{unfinished(part)}'. Continue it with"
            " --resume, or start over with --overwrite."
        )
    if count > 1 and (resume or not overwrite) and (foreign := foreign_parts(path, count)):
        raise TableError(
            f"Cannot write '{path}': another number of processes wrote '{foreign[0].name}'. Use as many, or pass"
            " --overwrite to replace all parts."
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
    missing = [name for name in FACE_COLUMNS if name not in table]
    if missing or not action_units(table):
        raise TableError(
            f"'{path}' is not a table of `hf-geaau predict`: it lacks {', '.join(missing) or 'action units'}."
        )
    return table, _thresholds(path, table)


def _read_csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    gaps = {name: [""] for name in pd.read_csv(path, nrows=0) if name != "source"}
    return pd.read_csv(path, dtype={"source": str}, keep_default_na=False, na_values=gaps)


def action_units(table: "pd.DataFrame") -> list[str]:
    """Return the names of a table's action units, in its order."""
    return [name for name in table.columns if f"{name}_present" in table.columns]


def _thresholds(path: Path, table: "pd.DataFrame") -> dict[str, float]:
    if path.suffix.lower() == ".parquet" and path.is_file():
        import pyarrow.parquet as pq

        stored = json.loads((pq.read_schema(path).metadata or {}).get(_KEY, b"{}"))
        if stored.get("thresholds"):
            return dict(stored["thresholds"])
    inferred = {}
    for unit in action_units(table):
        present = table[f"{unit}_present"] == 1
        least = table.loc[present, unit].min() if present.any() else math.inf
        most = table.loc[~present, unit].max() if (~present).any() else -math.inf
        inferred[unit] = 0.5 if most < 0.5 <= least else float((max(most, 0.0) + min(least, 1.0)) / 2)
    return inferred


def write_index(folder: Path, rank: int, count: int, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Write the index of one process's sources; the last process merges all of them into `_index.json`.

    Returns:
        Whether the merged index was written.
    """
    with whole_file(index_part(folder, rank)) as part:
        part.write_text(json.dumps(list(entries), ensure_ascii=False), encoding="utf-8")
    parts = [index_part(folder, number) for number in range(count)]
    if not all(path.is_file() for path in parts):
        return False
    merged = [entry for path in parts for entry in json.loads(path.read_text(encoding="utf-8"))]
    merged.sort(key=lambda entry: entry["source"])
    with whole_file(folder / INDEX) as part:
        part.write_text(json.dumps(merged, ensure_ascii=False, indent=1), encoding="utf-8")
    return True


def clear_folder(folder: Path, rank: int, count: int) -> None:
    """Remove the indexes of an earlier run, and the parts that another number of processes wrote.

    Otherwise a run that starts over and is interrupted would count as finished when it is resumed, and readers would
    find rows twice.
    """
    for path in (index_part(folder, rank), folder / INDEX, *foreign_parts(folder, count)):
        path.unlink(missing_ok=True)


def foreign_parts(folder: Path, count: int) -> list[Path]:
    """Return the parts that another number of processes wrote."""
    return [path for path in folder.glob("part-*-of-*.parquet") if not path.name.endswith(f"-of-{count:05d}.parquet")]


def index_part(folder: Path, rank: int) -> Path:
    """Return the path of one process's index; readers of parquet folders skip names with a leading underscore."""
    return folder / f"_index-{rank:05d}.json"


def part_path(folder: Path, rank: int, count: int) -> Path:
    """Return the path of one process's rows."""
    return folder / f"part-{rank:05d}-of-{count:05d}.parquet"


def _unwritable(path: Path, error: OSError) -> TableError:
    reason = os.strerror(error.errno) if error.errno else error
    return TableError(
        f"Cannot write '{path}': {reason}. What was committed before is kept: free space or repair the disk, then"
        " continue with --resume."
    )
