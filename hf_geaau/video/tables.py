"""One tidy table of faces, frames and action units: written in chunks, so that a kill loses the last one at most."""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_geaau.errors import TableError
from hf_geaau.faces import Face
from hf_geaau.files import whole_file
from hf_geaau.video.stream import AnalyzedFrame
from hf_geaau.video.tracking import head_pose

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMATS = (".csv", ".jsonl", ".parquet")
POINT_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")  # as seen in the picture
PLACE = ("source", "frame", "time_s", "track_id", "face", "score", "xmin", "ymin", "xmax", "ymax")
POINTS = tuple(f"{name}_{axis}" for name in POINT_NAMES for axis in "xy")
POSE = ("roll", "yaw")
CHUNK_ROWS, CHUNK_SECONDS = 5000, 30.0
_KEY = b"hf_geaau"


def columns(action_units: Sequence[str], has_intensities: bool = False) -> list[str]:
    """Name the columns of a table.

    Args:
        action_units: Such as "AU12".
        has_intensities: Whether the model estimates them.

    Example:
        >>> columns(["AU12"])[-4:]
        ['roll', 'yaw', 'AU12', 'AU12_present']
    """
    units = [*action_units, *(f"{unit}_present" for unit in action_units)]
    intensities = [f"{unit}_intensity" for unit in action_units] if has_intensities else []
    return [*PLACE, *POINTS, *POSE, *units, *intensities]


def face_row(frame: AnalyzedFrame, index: int, face: Face) -> dict[str, Any]:
    """Return the table row of a face.

    Args:
        frame: The frame or photo that shows it.
        index: Its position among the frame's faces.
        face: The analyzed face.
    """
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
        **units,
        **{f"{unit}_present": int(unit in present) for unit in units},
        **{f"{unit}_intensity": value for unit, value in values.get("intensities", {}).items()},
    }


class TableWriter:
    """Collects rows in chunks beside the table to be, and makes the table of them at the end.

    A chunk is a parquet file that is there whole or not at all. It holds its rows and, as metadata, how far the work
    was behind them; so whoever goes on starts exactly there. The chunks lie in `_NAME.unfinished`, which readers of
    parquet folders pass over.

    Args:
        path: The table: .csv, .jsonl or .parquet.
        names: Its columns, from `columns`.
        run: What must be the same to go on with a table: inputs, model, settings; as JSON has it.
        thresholds: Threshold of each action unit, kept in the parquet file's metadata.
        resume: Go on with what an interrupted run left.
        overwrite: Replace a table that exists, and drop what an interrupted run left.
        chunk_rows: Rows of a chunk, about.

    Raises:
        TableError: If the table exists, an interrupted run's chunks are there and neither flag is given, or they
            belong to another run.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        run: Mapping[str, Any],
        *,
        thresholds: Mapping[str, float] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self.path, self.names, self.chunk_rows = path, list(names), chunk_rows
        self.folder = unfinished(path)
        self.progress: dict[str, Any] = {"done": 0, "checkpoint": None, "seen": {}}
        self._thresholds = dict(thresholds or {})
        self._rows: list[dict[str, Any]] = []
        self._chunks: list[Path] = []
        self._written = monotonic()
        check_free(path, overwrite=overwrite, resume=resume)
        if overwrite and not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._begin(json.loads(json.dumps(run)))

    def _begin(self, run: dict[str, Any]) -> None:
        note = self.folder / "run.json"
        if note.is_file():
            self._go_on(json.loads(note.read_text()), run)
            return
        try:
            self.folder.mkdir(exist_ok=True)
            with whole_file(note) as part:
                part.write_text(json.dumps(run))
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _go_on(self, before: dict[str, Any], run: dict[str, Any]) -> None:
        differing = sorted(name for name in {*before, *run} if before.get(name) != run.get(name))
        if differing:
            raise TableError(
                f"A table must be gone on with as it was begun, got another {' and '.join(differing)} for"
                f" '{self.path}'. Give the same arguments, or start anew with --overwrite."
            )
        self._chunks = sorted(self.folder.glob("chunk-*.parquet"))
        if self._chunks:
            import pyarrow.parquet as pq

            self.progress = json.loads(pq.read_schema(self._chunks[-1]).metadata[_KEY])

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append the rows of a frame."""
        self._rows += rows

    @property
    def is_due(self) -> bool:
        """Whether it is time to commit."""
        return len(self._rows) >= self.chunk_rows or monotonic() - self._written > CHUNK_SECONDS

    def commit(self, progress: Mapping[str, Any]) -> None:
        """Write the rows so far for good, and how far the work is behind them.

        Raises:
            TableError: If the disk is full or gone; what was committed before stays.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(self._rows, schema=self._schema({_KEY: json.dumps(progress).encode()}))
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
        """Make the table of the chunks, one at a time, and remove them.

        Raises:
            TableError: If the disk is full or gone; the chunks stay.
        """
        try:
            with whole_file(self.path) as part:
                self._write_all(part)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_all(self, target: Path) -> None:
        import pyarrow.parquet as pq

        if self.path.suffix.lower() == ".parquet":
            schema = self._schema({_KEY: json.dumps({"thresholds": self._thresholds}).encode()})
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
                    rows.to_csv(stream, index=False, header=False, lineterminator="\n")
                elif len(rows):
                    stream.write(rows.to_json(orient="records", lines=True, force_ascii=False, double_precision=6))

    def _schema(self, metadata: Mapping[bytes, bytes]) -> "pa.Schema":
        import pyarrow as pa

        kinds = {"source": pa.string(), "frame": pa.int64(), "time_s": pa.float64(), "track_id": pa.int32()}
        kinds |= {"face": pa.int32()}
        fields = [
            (name, kinds.get(name, pa.int8() if name.endswith("_present") else pa.float32())) for name in self.names
        ]
        return pa.schema(fields, metadata=dict(metadata))


def unfinished(path: Path) -> Path:
    """Where the chunks of a table lie until it is finished."""
    return path.with_name(f"_{path.name}.unfinished")


def check_free(path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse to write over a table, or over what an interrupted run left, without being asked.

    Raises:
        TableError: If there is one, or if there is nothing to resume.
    """
    begun = (unfinished(path) / "run.json").is_file()
    if path.exists() and not overwrite and not (resume and begun):
        what = "is finished already" if resume else "exists"
        raise TableError(f"An output file must be new, got '{path}', which {what}. Pass --overwrite to replace it.")
    if begun and not (resume or overwrite):
        raise TableError(
            f"An interrupted run left its rows for '{path}' in '{unfinished(path)}'. Go on with --resume, or start"
            " anew with --overwrite."
        )


def read_table(path: str | Path) -> "tuple[pd.DataFrame, dict[str, float]]":
    """Read a table, or a folder of parquet parts.

    Returns:
        The rows, and the thresholds of the action units; where the file does not hold them, they are inferred from
        the probabilities of present and absent ones.

    Raises:
        TableError: If it is no table of `hf-geaau predict`.
    """
    import pandas as pd

    path = Path(path)
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path)
        elif path.suffix.lower() == ".jsonl":
            table = pd.read_json(path, lines=True)
        else:
            table = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise TableError(f"A table must be an existing file, got '{path}', which is not there.") from error
    except Exception as error:  # whatever a foreign file leads a reader to
        raise TableError(
            f"A table must be a csv, jsonl or parquet file of `hf-geaau predict`, got '{path}'"
            f" ({' '.join(str(error).split())[:200]})."
        ) from error
    lacking = [name for name in PLACE if name not in table]
    if lacking or not action_units(table):
        raise TableError(
            f"A table must have the columns of `hf-geaau predict`, got '{path}' without"
            f" {', '.join(lacking) or 'action units'}."
        )
    return table, _thresholds(path, table)


def action_units(table: "pd.DataFrame") -> list[str]:
    """Name the action units of a table, in its order."""
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
    """Write one process's index of its sources; whoever is last merges all of them into `_index.json`.

    Args:
        folder: Where the parts lie.
        rank: Which process, from 0.
        count: How many processes.
        entries: One per source.

    Returns:
        Whether the index of all was written.
    """
    with whole_file(index_part(folder, rank)) as part:
        part.write_text(json.dumps(list(entries), ensure_ascii=False), encoding="utf-8")
    parts = [index_part(folder, number) for number in range(count)]
    if not all(path.is_file() for path in parts):
        return False
    everything = [entry for path in parts for entry in json.loads(path.read_text(encoding="utf-8"))]
    with whole_file(folder / "_index.json") as target:
        everything.sort(key=lambda entry: entry["source"])
        target.write_text(json.dumps(everything, ensure_ascii=False, indent=1), encoding="utf-8")
    return True


def clear_folder(folder: Path, rank: int, count: int) -> None:
    """Remove what an earlier run left: this process's index, the merged one, and other numbers of processes' parts.

    Without that, a run that is begun anew, stopped and gone on with would take this process for finished, and readers
    would find rows twice.
    """
    for path in (index_part(folder, rank), folder / "_index.json", *foreign_parts(folder, count)):
        path.unlink(missing_ok=True)


def foreign_parts(folder: Path, count: int) -> list[Path]:
    """List the parts that another number of processes wrote."""
    return [path for path in folder.glob("part-*-of-*.parquet") if not path.name.endswith(f"-of-{count:05d}.parquet")]


def index_part(folder: Path, rank: int) -> Path:
    """Where a process's index lies; readers of parquet folders pass over names with a leading underscore."""
    return folder / f"_index-{rank:05d}.json"


def part_path(folder: Path, rank: int, count: int) -> Path:
    """Where a process's rows lie."""
    return folder / f"part-{rank:05d}-of-{count:05d}.parquet"


def _unwritable(path: Path, error: OSError) -> TableError:
    reason = os.strerror(error.errno) if error.errno else error
    return TableError(
        f"A table must be writable, got {reason} at '{path}'. What was written before is kept: free"
        " space or mend the disk, and go on with --resume."
    )
