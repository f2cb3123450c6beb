"""Many photos and long videos on many cores or machines, as a Ray Data job.

The inputs are planned once as units: a few hundred photos, a row group of a table with pictures, or a time range of a
video. Ray hands units to actors, each with a model of its own, which call `predict_to_table` as one machine does and
write their own parquet file. A unit is done when its report is written. So a lost worker's unit is given to another,
and a run that starts again does what is missing.

    OUTPUT/part-*.parquet      rows, one schema with the table of one machine
    OUTPUT/_sources/*.parquet  a row for each input: rows, frames, error
    OUTPUT/_errors.parquet     those of them that gave no result, or not all

Readers of parquet folders skip names that begin with an underscore.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.utils import chunk_iterable

from hf_geaau.errors import MissingExtraError, TableError
from hf_geaau.faces.face import box_iou
from hf_geaau.files import FolderClaim, whole_file
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.video.kinds import URL_SCHEMES, kind_by_name
from hf_geaau.video.run import SourceReport, Tally, predict_to_table
from hf_geaau.video.sources import Source, find_sources
from hf_geaau.video.stream import AnalyzedFrame, Settings, cores

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PHOTOS, RANGE_S = 256, 600.0
"""Photos of a unit, and seconds of a video: enough work for a unit that its start does not matter. Our choice."""
OVERLAP_S = 5.0
"""Seconds that a range begins early, to join its faces with those before: longer than `tracking.MEMORY_S`."""
SAME_FACE = 0.3
"""Least IoU of two boxes of one frame, from two ranges, that show one face. Our choice."""
ANSWER_S = 10.0
"""Seconds that a cluster may take to accept a connection. Our choice."""
SHOWN = 20
"""Problems that a report holds; all are in the table of errors."""
TRIES = 3
"""How often an input may take its worker with it before it counts as failed."""
RECORD, PLAN, SOURCES, ERRORS, RANGES = "_run.json", "_plan.parquet", "_sources", "_errors.parquet", "_ranges"
_LAYOUT = (RECORD, PLAN, SOURCES, ERRORS, RANGES)
_PLANNED, _TOLD = 16, 1000  # units of a plan, and problems, that are written at once
_UNFINISHED = "_part-*.unfinished"  # what `predict_to_table` leaves of a unit whose worker was lost


@dataclass(frozen=True)
class Unit:
    """What one actor does at a time.

    Attributes:
        name: Of its files; the same whenever the same inputs are planned.
        sources: Kind and location of each input; of a table, its path and row group.
        kind: "photos", "video", "range" (of a video) or "table".
        start_s, end_s: The range, of a video that is divided.
        video: Name of the whole video's unit, of a range.
        columns: Columns with pictures and with their names, of a table.
    """

    name: str
    kind: str
    sources: list[tuple[str, str]]
    start_s: float = 0.0
    end_s: float | None = None
    video: str = ""
    columns: tuple[str, str | None] = ("image", None)

    def to_row(self) -> dict[str, str]:
        """Return the row of the plan."""
        return {"name": self.name, "unit": json.dumps(asdict(self))}

    @classmethod
    def from_row(cls, row: Any) -> "Unit":
        """Restore a unit from its row."""
        values = json.loads(row["unit"])
        sources, columns = [tuple(each) for each in values["sources"]], tuple(values["columns"])
        return cls(**{**values, "sources": sources, "columns": columns})


@dataclass(frozen=True)
class Job:
    """What all units share. It travels to the workers.

    Attributes:
        folder: The output, on a file system that all machines see.
        settings: How to process videos.
        loading: Arguments of `hf_geaau.backends.load_analyzer`.
        range_s: Seconds of the ranges that longer videos are divided into.
    """

    folder: Path
    settings: Settings
    loading: dict[str, Any]
    range_s: float

    @property
    def cpus(self) -> int:
        """Cores of a worker, which has as many threads."""
        return self.settings.workers or 1

    @property
    def gpus(self) -> int:
        """GPUs of a worker."""
        return int(str(self.loading.get("device") or "").startswith("cuda"))


@dataclass
class DistributedReport:
    """What a run gave.

    Attributes:
        path: Folder of the rows; `hf_geaau.video.tables.read_table` reads it.
        sources: Number of inputs.
        rows: Number of rows.
        failed: Number of inputs that gave no result, or not all.
        problems: The first of them, a line each; all are in `errors`.
        errors: The table of all problems; None if there are none.
        skipped: Number of files in folders that are neither photo nor video.
    """

    path: Path
    sources: int = 0
    rows: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    errors: Path | None = None
    skipped: int = 0


def predict_on_ray(
    inputs: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    model: str | Path | None = None,
    settings: Settings | None = None,
    *,
    address: str = "local",
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    range_s: float = RANGE_S,
    photos: int = PHOTOS,
    columns: tuple[str, str | None] = ("image", None),
    progress: Callable[[int, int], None] = lambda done, total: None,
    **loading: Any,
) -> DistributedReport:
    """Write the action units of all faces in photos and videos to a folder of parquet files, on many workers.

    An input that cannot be read becomes a row of the errors. A worker that is lost is replaced, and does its unit
    again; after a kill, `resume=True` does what is missing.

    Args:
        inputs: What `hf_geaau.video.sources.find_sources` takes but cameras; URIs that fsspec knows, such as s3://,
            gs:// and hf://, of files and folders; and parquet files or Lance datasets with pictures as bytes, or as
            `datasets` stores them.
        output: Folder, on a file system that all machines see; its name ends in .parquet.
        model: Hub id or directory; None for the bundled checkpoint.
        settings: How to process videos. `workers` is the number of cores of each worker, one by default.
        address: "local" starts workers on this machine, one for each core. "auto" or HOST:PORT joins a cluster.
        workers: At most so many; None for as many as there is room for.
        resume: Continue an interrupted run with the same inputs, model and settings.
        overwrite: Replace an earlier run.
        range_s: Videos that are longer are divided into ranges of so many seconds, which are analyzed apart, and whose
            faces are joined by their boxes in an overlap.
        photos: Photos of a unit.
        columns: Of tables with pictures: the column of pictures, and the column that names them; None for
            TABLE:ROW, counted from 0.
        progress: Called with the numbers of finished units and of all.
        **loading: `backend`, `device`, `keep`, `aligned` and `min_score` of `hf_geaau.backends.load_analyzer`. With
            device="cuda" each worker takes a GPU.

    Raises:
        MissingExtraError: Without Ray.
        TableError: If the output cannot be written, or holds a run with other settings, or there is no cluster.
        CheckpointError: If the checkpoint does not load or predicts no action units.
    """
    folder = Path(output)
    _check_output(folder, resume=resume, overwrite=overwrite)
    _check_answer(address)
    job = Job(folder.absolute(), settings or Settings(), {"model": model, **loading}, range_s)
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        plan = Path(work) / PLAN
        report, digest, units = _write_plan(inputs, plan, photos, columns)
        if overwrite and not resume:
            _clear(folder)
        claim = stack.enter_context(_claim(job, digest, photos))
        if claim.recorded.get("is_finished"):
            return _concluded(job, report)
        (folder / SOURCES).mkdir(exist_ok=True)
        (folder / RANGES).mkdir(exist_ok=True)
        _forgive(folder / RANGES)
        shutil.move(plan, folder / PLAN)
        stack.enter_context(_cluster(address))
        _run(job, units if workers is None else min(workers, units), units, progress)
        _join_videos(job)
        report = _concluded(job, report)
        _tidy(folder)
        claim.update(is_finished=True)
    return report


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    for left in (folder / RANGES, *folder.glob(_UNFINISHED)):
        shutil.rmtree(left)
    (folder / PLAN).unlink()


def _check_output(folder: Path, *, resume: bool, overwrite: bool) -> None:
    if folder.suffix != ".parquet":
        raise TableError(f"The output must end in .parquet, got '{folder}'. It becomes a folder.")
    if not folder.absolute().parent.is_dir():
        raise TableError(f"Cannot write '{folder}': its folder does not exist. Create it first.")
    if folder.is_file():
        raise TableError(f"Cannot write '{folder}': it is a file. Pass another output.")
    if folder.exists() and not (resume or overwrite):
        raise TableError(f"Cannot write '{folder}': it exists. Continue it with --resume, or pass --overwrite.")


def _clear(folder: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for path in (*(folder / name for name in _LAYOUT), *folder.glob("part-*.parquet"), *folder.glob(_UNFINISHED)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _forgive(ranges: Path) -> None:
    """Count the tries anew, because a killed driver takes workers with it. Units that are divided stay so."""
    for tries in ranges.glob("*.tries"):
        with tries.open("r+b") as count:
            count.truncate(1)


def _claim(job: Job, digest: str, photos: int) -> FolderClaim:
    deciding = {
        name: value
        for name, value in asdict(job.settings).items()
        if name in ("every", "fps", "detect_every", "smooth_s", "start_s", "end_s")
    }
    loading = {name: str(value) for name, value in sorted(job.loading.items()) if name not in ("backend", "device")}
    return FolderClaim(
        job.folder,
        {"inputs": digest, **deciding, **loading, "range_s": job.range_s, "photos": photos},
        record=RECORD,
        error=TableError,
        content="rows of a table",
        hint="Pass the same arguments, or start over with --overwrite.",
    )


# The plan.


def _write_plan(
    inputs: Iterable[str | os.PathLike[str]], path: Path, photos: int, columns: tuple[str, str | None]
) -> tuple[DistributedReport, str, int]:
    """Write the units of all inputs to a parquet file, in flat memory.

    Returns:
        A report that holds the problems of inputs without a source; what tells these inputs from others; and the number
        of units.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("name", pa.string()), ("unit", pa.string())])
    report, digest, count = DistributedReport(path), hashlib.sha256(), 0
    with pq.ParquetWriter(path, schema) as writer:
        for some in map(list, chunk_iterable(_units(inputs, report, photos, columns), _PLANNED)):
            digest.update("".join(unit.name for unit in some).encode())
            numbered = [  # files sort as the inputs
                replace(unit, name=f"{number:08d}-{unit.name}").to_row() for number, unit in enumerate(some, count)
            ]
            writer.write_table(pa.Table.from_pylist(numbered, schema))
            count += len(some)
    return report, f"{report.sources:,} sources, SHA-256 {digest.hexdigest()[:32]}", count


def _units(
    inputs: Iterable[str | os.PathLike[str]], report: DistributedReport, photos: int, columns: tuple[str, str | None]
) -> Iterator[Unit]:
    """Yield units of photos, videos and tables, in the order of the inputs."""
    waiting: list[tuple[str, str]] = []
    for source in _sources(inputs, report):
        if source.kind == "webcam":
            raise TableError("A camera cannot be divided among workers. Leave it out, or run without --ray.")
        report.sources += 1
        if source.kind == "photo":
            waiting.append((source.kind, str(source.location)))
            if len(waiting) >= photos:
                yield _unit("photos", waiting, columns)
                waiting = []
        else:
            yield _unit(str(source.kind), [(source.kind, str(source.location))], columns)
    if waiting:
        yield _unit("photos", waiting, columns)


def _unit(kind: str, sources: list[tuple[str, str]], columns: tuple[str, str | None]) -> Unit:
    digest = hashlib.sha256(json.dumps([kind, sources, columns]).encode()).hexdigest()[:20]
    return Unit(f"{kind}-{digest}", kind, sources, columns=columns)


@dataclass(frozen=True)
class _Table:
    """A row group of a table, in the place of a source."""

    location: str
    kind: str = "table"


def _sources(inputs: Iterable[str | os.PathLike[str]], report: DistributedReport) -> Iterator[Source | _Table]:
    for given in (os.fspath(each) for each in inputs):
        if _is_remote(given):
            found: Iterator[Source | _Table] = _remote_sources(given, report)
        elif given.endswith((".parquet", ".lance")):
            found = _table_sources(given)
        else:
            local = find_sources([given])
            for problem in local.problems:
                _add_problem(report, problem)
            report.skipped += sum(local.skipped.values())
            found = iter(local.sources)
        try:
            yield from found
        except (OSError, ImportError, ValueError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            _add_problem(report, f"Cannot look for '{given}': {reason}. Check the address and its permissions.")


def _remote_sources(given: str, report: DistributedReport) -> Iterator[Source | _Table]:
    """List the photos, videos and tables at a URI, by their suffixes."""
    import fsspec

    system, path = fsspec.core.url_to_fs(given)
    protocol, *_ = given.partition("://")
    is_empty = True
    for name in [path] if system.isfile(path) else sorted(system.find(path)):
        address = f"{protocol}://{name}"
        if name.endswith(".parquet"):
            yield from _table_sources(address)
        elif (kind := kind_by_name(name)) is not None:
            yield Source(kind, address)
        else:
            report.skipped += 1
            continue
        is_empty = False
    if is_empty:
        _add_problem(report, f"Found no photo, video or table at '{given}'. Pass the files themselves.")


def _table_sources(address: str) -> Iterator[_Table]:
    """Yield the row groups of a table with pictures, as ADDRESS#GROUP,NUMBER OF ITS FIRST ROW."""
    if address.endswith(".lance"):
        groups = [(each.fragment_id, each.count_rows()) for each in _lance(address).get_fragments()]
    else:
        import fsspec
        import pyarrow.parquet as pq

        with fsspec.open(address) as stream:
            facts = pq.ParquetFile(stream).metadata
        groups = [(number, facts.row_group(number).num_rows) for number in range(facts.num_row_groups)]
    first = 0
    for number, rows in groups:
        yield _Table(f"{address}#{number},{first}")
        first += rows


def _lance(address: str) -> Any:
    try:
        import lance
    except ImportError as error:
        raise MissingExtraError(
            "Reading .lance needs the package pylance. Install it with `pip install pylance`."
        ) from error
    return lance.dataset(address)


def _add_problem(report: DistributedReport, line: str) -> None:
    report.sources += 1
    report.problems.append(line)


# The cluster.


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Join or start a cluster, unless this process is in one already; one that was started ends."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a run leaves the machine
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what a user can act on comes as an exception
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            'Workers on several cores or machines need Ray. Install it with `pip install "hf_geaau[ray]"`.'
        ) from error
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if address == "local":  # one CPU more than the workers take, for Ray Data's own tasks
            ray.init("local", num_cpus=cores() + 1, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TableError(f"Cannot join the Ray cluster '{address}': {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answer(address: str) -> None:
    """Check that somebody listens at HOST:PORT: Ray itself tries for minutes. "local" and "auto" need no check."""
    if ":" not in address:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else "it is no HOST:PORT"
        raise TableError(
            f"Cannot join the Ray cluster '{address}': {reason}. Check the address, or run `ray start --head` there."
        ) from error


def _workers(job: Job, most: int) -> int:
    """Return how many actors to start, `most` of them at most. Ray Data stalls for ever when they take every CPU."""
    import ray

    there = ray.cluster_resources()
    count = int((there.get("CPU", 0) - 1) // job.cpus)
    if job.gpus:
        count = min(count, int(there.get("GPU", 0)))
    if count < 1:
        needed = f"{job.cpus + 1} CPUs{' and a GPU' if job.gpus else ''}"
        raise TableError(f"The Ray cluster must have {needed}, for a worker and for reading, got {there}.")
    return max(1, min(count, most))


def _run(job: Job, most: int, units: int, progress: Callable[[int, int], None]) -> None:
    """Let the actors do all units that are not done."""
    import ray

    if not units:
        return
    plan = ray.data.read_parquet(str(job.folder / PLAN)).repartition(target_num_rows_per_block=1)
    if _has_videos(job.folder / PLAN):
        plan = plan.flat_map(lambda row: _divided(row, job)).repartition(target_num_rows_per_block=1)
    # Before the actors: those that start anew after a node is lost could take the CPU that planning needs.
    plan = plan.materialize()
    done = plan.map_batches(  # Ray Data restarts lost actors, and repeats what they were doing, without limit
        _Worker,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=_workers(job, most)),
        num_cpus=job.cpus,
        num_gpus=job.gpus,
    )
    for number, _ in enumerate(done.iter_rows(), 1):
        progress(number, max(units, number))


def _has_videos(plan: Path) -> bool:
    import pyarrow.parquet as pq

    batches = pq.ParquetFile(plan).iter_batches(columns=["name"])
    return any("-video-" in name for batch in batches for name in batch["name"].to_pylist())


def _divided(row: dict[str, Any], job: Job) -> list[dict[str, Any]]:
    """Divide a long video into ranges; any other unit stays as it is."""
    unit = Unit.from_row(row)
    if unit.kind != "video" or (job.folder / SOURCES / f"{unit.name}.parquet").is_file():
        return [unit.to_row()]
    settings, duration = job.settings, _duration(unit.sources[0][1])
    start, end = settings.start_s, min(duration, settings.end_s or duration)
    if not 1.5 * job.range_s < end - start:
        return [unit.to_row()]
    count = round((end - start) / job.range_s)
    edges = [start + number * (end - start) / count for number in range(count)]
    ends: list[float | None] = [*edges[1:], settings.end_s]  # the last range goes on to the true end
    return [
        replace(
            unit, name=f"{unit.name}-{number:04d}", kind="range", video=unit.name, start_s=edge, end_s=ends[number]
        ).to_row()
        for number, edge in enumerate(edges)
    ]


def _duration(location: str) -> float:
    """Return the seconds that a video's header declares; 0 if it declares none or cannot be read."""
    import av
    import fsspec

    try:
        with ExitStack() as stack:
            opened: Any = stack.enter_context(fsspec.open(location)) if _is_remote(location) else location
            return (stack.enter_context(av.open(opened)).duration or 0) / 1e6
    except Exception:  # the worker that takes it as a whole says what is wrong
        return 0.0


# In the workers.


class _Worker:
    """An actor: a model, and a folder to write to."""

    def __init__(self, job: Job) -> None:
        from hf_geaau.backends import load_analyzer

        self.job = job
        self.analyzer = load_analyzer(**job.loading)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for unit in map(Unit.from_row, ({"unit": text} for text in batch["unit"])):
            do_unit(unit, self.job, self.analyzer)
        return {"name": batch["name"]}


def do_unit(unit: Unit, job: Job, analyzer: FaceAnalyzer) -> None:
    """Analyze a unit, write its rows, then its report, which marks it as done; nothing if it is done.

    A unit that took a worker with it is tried again photo by photo, so that only the one that did it fails.
    """
    marker, tries = job.folder / SOURCES / f"{unit.name}.parquet", job.folder / RANGES / f"{unit.name}.tries"
    if marker.is_file():
        return
    tried = tries.stat().st_size if tries.is_file() else 0
    if tried:  # its worker may have ended between the rows and the report
        _part(unit, job).unlink(missing_ok=True)
    if tried and len(unit.sources) > 1:
        for number, source in enumerate(unit.sources):
            do_unit(replace(unit, name=f"{unit.name}-{number:04d}", sources=[source]), job, analyzer)
        _write_rows([], marker)
    elif tried >= TRIES:
        line = f"It ended {tried} workers that tried to analyze it. Leave it out, or give workers more memory."
        _write_rows([SourceReport(where, kind, error=line).to_dict() for kind, where in unit.sources], marker)
    else:
        with tries.open("ab") as count:
            count.write(b".")
        _analyze(unit, job, analyzer, marker)
    tries.unlink(missing_ok=True)


def _part(unit: Unit, job: Job) -> Path:
    if unit.kind == "range":
        return job.folder / RANGES / f"{unit.name}.parquet"
    return job.folder / f"part-{unit.name}.parquet"


def _analyze(unit: Unit, job: Job, analyzer: FaceAnalyzer, marker: Path) -> None:
    is_range, place = unit.kind == "range", _part(unit, job)
    settings, counter = replace(job.settings, workers=job.cpus), _Counter(unit.start_s)
    if is_range:
        early = max(job.settings.start_s, unit.start_s - OVERLAP_S)
        settings = replace(settings, start_s=early, end_s=unit.end_s)
    with _opened(unit) as sources:
        report = predict_to_table(sources, place, analyzer, settings, overwrite=True, observers=[counter])
    rows = [replace(source, part=place.name).to_dict() for source in report.sources]
    if is_range:  # what the overlap adds is counted by the range before
        rows[0] |= {"frames": counter.frames, "frames_without_face": counter.without_face}
    _write_rows(rows, marker)


class _Counter:
    """Counts the frames from a time on (a `RunObserver`)."""

    needs_whole_videos = False

    def __init__(self, start_s: float) -> None:
        self.start_s, self.frames, self.without_face = start_s, 0, 0

    def start(self, sources: Sequence[Source], done: int) -> None:
        pass

    def frame(self, frame: AnalyzedFrame) -> None:
        if (frame.time_s or 0.0) >= self.start_s:
            self.frames += 1
            self.without_face += not frame.faces

    def end(self, source: SourceReport, tally: Tally) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def _opened(unit: Unit) -> Iterator[list[Source]]:
    """Yield sources that one machine can read: local files, URLs, or bytes with the name that they go by."""
    if unit.kind == "table":
        yield list(_pictures(unit))
        return
    with ExitStack() as stack:
        sources = []
        for kind, location in unit.sources:
            if not _is_remote(location):
                sources.append(Source(kind, location))  # type: ignore[arg-type]
            elif kind == "photo":
                sources.append(Source("photo", _content(location), location))
            else:
                sources.append(Source("video", _fetched(stack, location), location))
        yield sources


def _is_remote(location: str) -> bool:
    """Return whether fsspec reads it, and neither the file system nor FFmpeg."""
    return "://" in location and not location.lower().startswith(URL_SCHEMES)


def _content(location: str) -> Any:
    """Return a photo's bytes; what cannot be fetched becomes a missing file, which the run reports."""
    import fsspec

    try:
        with fsspec.open(location) as stream:
            return stream.read()
    except Exception:
        return location


def _fetched(stack: ExitStack, location: str) -> str:
    try:
        return stack.enter_context(_local(location))
    except Exception:
        return location


@contextmanager
def _local(location: str) -> Iterator[str]:
    """Yield a path of a video on this machine; a remote one is copied to a temporary file."""
    import fsspec

    if not _is_remote(location):
        yield location
        return
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / Path(location).name)
        system, path = fsspec.core.url_to_fs(location)
        system.get_file(path, target)
        yield target


def _pictures(unit: Unit) -> Iterator[Source]:
    """Yield the pictures of a row group as photos, named by the table and by their row or name."""
    import fsspec
    import pyarrow.parquet as pq

    ((_, location),) = unit.sources
    address, _, place = location.rpartition("#")
    number, first = map(int, place.split(","))
    pictures, names = unit.columns
    wanted = [pictures] if names is None else [pictures, names]
    if address.endswith(".lance"):
        table = _lance(address).get_fragment(number).to_table(columns=wanted)
    else:
        with fsspec.open(address) as stream:
            table = pq.ParquetFile(stream).read_row_group(number, columns=wanted)
    for row, entry in enumerate(table.to_pylist(), first):
        picture = entry.get(pictures)
        content = picture["bytes"] or picture["path"] if isinstance(picture, dict) else picture
        yield Source("photo", content, f"{address}:{row}" if names is None else str(entry[names]))


# After the workers.


def _join_videos(job: Job) -> None:
    """Join the ranges of divided videos, one after another."""
    videos: dict[str, list[Path]] = {}
    for marker in sorted((job.folder / SOURCES).glob("*-video-*-[0-9][0-9][0-9][0-9].parquet")):
        videos.setdefault(marker.stem.rpartition("-")[0], []).append(marker)
    for name, markers in videos.items():
        if not (job.folder / SOURCES / f"{name}.parquet").is_file():  # else a driver was killed after it joined them
            _join_video(job, name, markers)
        for marker in markers:
            marker.unlink()


def _join_video(job: Job, name: str, markers: Sequence[Path]) -> None:
    """Write a video's rows from those of its ranges, with one number for each face, and its report."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = job.folder / f"part-{name}.parquet"
    reports = [SourceReport(**pq.read_table(marker).to_pylist()[0]) for marker in markers]
    before, faces, rows, seen = None, 0, 0, 0
    with whole_file(target) as part, ExitStack() as stack:
        writer: Any = None
        for report in reports:
            table = pq.read_table(job.folder / RANGES / str(report.part), partitioning=None)
            found = table.to_pandas().astype({"track_id": "Int64"})
            kept, faces = joined(before, found, faces, seen)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(part, table.schema))
            writer.write_table(pa.Table.from_pandas(kept, table.schema, preserve_index=False))
            before, rows, seen = kept, rows + len(kept), max(seen, report.frames_decoded)
    whole = replace(
        reports[0],
        rows=rows,
        frames=sum(report.frames for report in reports),
        frames_without_face=sum(report.frames_without_face for report in reports),
        frames_decoded=seen,
        tracks=faces,
        error=next((report.error for report in reports if report.error), None),
        notes=list(dict.fromkeys(note for report in reports for note in report.notes)),
        part=target.name,
    )
    _write_rows([whole.to_dict()], job.folder / SOURCES / f"{name}.parquet")


def joined(
    before: "pd.DataFrame | None", found: "pd.DataFrame", faces: int, seen: int = 0
) -> "tuple[pd.DataFrame, int]":
    """Number the faces of a range as they were in the range before, and drop the rows of the overlap.

    A face keeps its number if its boxes agree in most of the frames that both ranges show; any other gets a new one.

    Args:
        before: Rows of the range before, with final numbers; None for the first.
        found: Rows of the range, from the overlap on.
        faces: Highest number given so far.
        seen: Number of the video's frames up to the end of the range before. A face that this range finds in one of
            them, and the range before did not, is dropped, too: that frame has been counted as one without it.

    Returns:
        The rows after the overlap, and the highest number.
    """
    numbers: dict[int, int] = {}
    kept = found[found["frame"] >= seen]
    if before is not None:
        votes = _votes(before, found[found["frame"] < seen])
        for (mine, theirs), _ in sorted(votes.items(), key=lambda item: -item[1]):
            if mine not in numbers and theirs not in numbers.values():
                numbers[mine] = theirs
    for mine in kept["track_id"].dropna().unique():
        if int(mine) not in numbers:
            faces += 1
            numbers[int(mine)] = faces
    return kept.assign(track_id=kept["track_id"].map(numbers).astype("Int64")), faces


def _votes(before: "pd.DataFrame", found: "pd.DataFrame") -> dict[tuple[int, int], int]:
    """Count the frames in which a face of either range has the same box as one of the other."""
    box = ["xmin", "ymin", "xmax", "ymax"]
    pairs = found.merge(before, on="frame", suffixes=("", "_before"))
    votes: dict[tuple[int, int], int] = {}
    for _, row in pairs.iterrows():
        if box_iou(row[box].to_numpy(float), row[[f"{side}_before" for side in box]].to_numpy(float)) >= SAME_FACE:
            pair = int(row["track_id"]), int(row["track_id_before"])
            votes[pair] = votes.get(pair, 0) + 1
    return votes


def _report_schema() -> "pa.Schema":
    import pyarrow as pa

    kinds: dict[str, Any] = {"source": pa.string(), "kind": pa.string()}
    kinds |= dict.fromkeys(("rows", "frames", "frames_without_face", "frames_decoded", "tracks"), pa.int64())
    return pa.schema({**kinds, "error": pa.string(), "notes": pa.list_(pa.string()), "part": pa.string()})


def _write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = [{**row, "error": row["error"] and _as_utf8(row["error"])} for row in rows]
    with whole_file(path) as part:
        pq.write_table(pa.Table.from_pylist(plain, _report_schema()), part)


def _as_utf8(text: str) -> str:
    """Return a text that parquet can hold: bytes of a file's name that are no UTF-8 are written as `\\udcXX`."""
    return text.encode("utf-8", "backslashreplace").decode()


def _concluded(job: Job, report: DistributedReport) -> DistributedReport:
    """Write the errors, and count, in flat memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    report = replace(report, path=job.folder)
    schema = pa.schema([(name, pa.string()) for name in ("source", "kind", "problem")])
    shown, failed, errors = list[str](), 0, job.folder / ERRORS
    with whole_file(errors) as part, pq.ParquetWriter(part, schema) as writer:
        for some in map(list, chunk_iterable(_problems(job, report), _TOLD)):
            writer.write_table(pa.Table.from_pylist(some, schema))
            shown += [each["problem"] for each in some[: max(0, SHOWN - len(shown))]]
            failed += len(some)
    if not failed:
        errors.unlink()
    return replace(report, failed=failed, problems=shown, errors=errors if failed else None)


def _problems(job: Job, report: DistributedReport) -> Iterator[dict[str, str]]:
    """Yield the rows of the errors, and add the rows of the table to the report."""
    import pyarrow.parquet as pq

    for line in report.problems:
        yield {"source": "", "kind": "input", "problem": _as_utf8(line)}
    for marker in sorted((job.folder / SOURCES).glob("*.parquet")):
        for row in pq.read_table(marker).to_pylist():
            source = SourceReport(**row)
            report.rows += source.rows
            if source.problem is not None:
                yield {"source": _as_utf8(source.source), "kind": source.kind, "problem": _as_utf8(source.problem)}
