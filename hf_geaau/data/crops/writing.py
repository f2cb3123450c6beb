"""Cut the face crops of a dataset once: detect, align, and write parquet shards with embedded JPEG files.

Started again, the work resumes with the shards that are missing.
"""

import errno
import itertools
import multiprocessing
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import DatasetError, DatasetWarning, GeaauError
from hf_geaau.files import FolderClaim, replace_file, whole_file, write_json

from ..base import (
    AUDataset,
    DatasetNotes,
    choose,
    count_warning,
    fingerprint,
    require,
)
from ..csv_files import read_rows, write_rows
from ..loading import get_dataset
from ..rows import Block, Recording, TripletBlock
from .cutting import Cropper
from .storage import (
    CARD,
    RECORD,
    REPORT,
    SHARD_PROBLEMS,
    SHARDS,
    TRIPLET_FACES,
    UNFINISHED_SHARDS,
    CropSettings,
    Problem,
    changed_option,
    part_name,
    read_record,
    run_settings,
    write_card,
    write_shard,
)

SHARD_FRAMES = 1000  # a shard of some 10 MB at 224 pixels; what a kill can cost each worker

Progress = Callable[[int, int], None]
FaceKey = tuple[str, bytes]  # a photo's path, and the float32 box of a face in it


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` wrote.

    Attributes:
        folder: For `datasets.load_dataset`.
        rows: How many rows it has.
        problems: Number of reported frames by action.
        path: The csv file that lists them.
    """

    folder: Path
    rows: int
    problems: dict[str, int]
    path: Path


def prepare(
    name: str,
    data_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    size: int = 224,
    faceless: str = "neighbor",
    min_score: float = 0.6,
    quality: int = 95,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PrepareReport:
    """Write the face crops of a dataset, so that training reads small aligned images.

    Each face is found by `FaceDetector` and cut by the model's crop template. Open the result with `open_aligned`, or
    with `datasets.load_dataset(out_dir, "fold1")`; the other configurations are "fold2", …, "fold1-megraphau", …, and
    "all". FEC has its owners' train and test only.

    A frame that cannot be read is dropped. Of several faces the largest counts; with FEC, the one in the given box.
    Everything dropped or cut by another frame's alignment is listed in `out_dir/report.csv`.

    Args:
        name, data_dir, **options: As for `hf_geaau.data.load`.
        out_dir: Folder of the crops; created if it is missing. No other process may write to it meanwhile.
        size: Side of the crops in pixels.
        faceless: What becomes of a frame in which no face is found: "neighbor" cuts it where the nearest frame of
            its sequence with a face has it (if there is none, it is dropped); "drop" leaves it out. Photos of
            triplets have no neighbors and are dropped, with the triplets they belong to.
        min_score: Detections below count as no face.
        quality: JPEG quality, 1-95.
        workers: Processes; by default one for each core. With 1, this process works alone. Scripts need
            `if __name__ == "__main__"` for more.
        progress: Called with the number of images done and the number of all images.

    Raises:
        DatasetNotFoundError, DatasetError: As for `load`; also for a full disk, or if `out_dir` holds other crops or
            another process writes to it.
        MissingExtraError: Without the extra "data".

    Warns:
        DatasetWarning: As for `load`.
    """
    require("datasets", "datasets", "hf_geaau.data.prepare")
    choose("faceless", faceless, ("neighbor", "drop"))
    _check_range("size", size, 16, 4096)
    _check_range("quality", quality, 1, 95)
    _check_range("min_score", min_score, 0, 1)
    _check_range("workers", workers if workers is not None else 1, 1, 1024)
    dataset, folder = get_dataset(name, **options).resolved(data_dir)
    out = Path(out_dir).expanduser().absolute()
    settings = CropSettings(size, quality, faceless, min_score, dataset.is_aligned)
    with _disk_errors(out), _claimed(out, folder, dataset, settings):
        if (out / SHARDS).is_dir() and (out / CARD).is_file():
            return _summary(out)
        notes = DatasetNotes(dataset.problems)
        groups = _groups(dataset, folder, notes)
        writer = _ShardWriter(dataset, settings, out, workers or os.cpu_count() or 1, progress)
        writer.write(groups)
        return _finish(dataset, settings, out, list(groups), notes)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise DatasetError(f"`{name}` must be from {least} to {most}, got {value}. Leave it out for the default.")


@contextmanager
def _claimed(out: Path, folder: Path, dataset: AUDataset, settings: CropSettings) -> Iterator[None]:
    """Hold the output folder for this run, and check that the dataset's files have not changed since it was begun."""
    if (record := read_record(out)) is not None:
        if record["dataset"] == dataset.NAME and (option := changed_option(record, dataset)):
            raise DatasetError(
                f"Cannot resume: {str(out)!r} holds crops cut with {option}={record['options'].get(option)!r}, not "
                f"{getattr(dataset, option)!r}. Pass another output, or the same options."
            )
        if (out / CARD).is_file():
            write_json(record, out / RECORD)  # an older record is brought up to date
    source = fingerprint(dataset, folder)
    with FolderClaim(out, run_settings(dataset, settings), record=RECORD, error=DatasetError, content="crops") as claim:
        if claim.recorded.setdefault("source", source) != source:
            raise DatasetError(
                f"Cannot resume: the files in {str(folder)!r} are not those that the crops in {str(out)!r} were begun "
                "with. Pass another output, or remove that one."
            )
        claim.update(source=source)
        try:
            yield
        except DatasetError:
            if not claim.is_resumed and not (out / UNFINISHED_SHARDS).exists():
                claim.record.unlink()  # nothing was cut, so that another `problems` may be passed
            raise


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """Turn an error of the disk into one line that says how to continue."""
    try:
        yield
    except OSError as error:
        if isinstance(error, GeaauError):
            raise
        remedy = "run the same command again; it resumes where it stopped."
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            raise DatasetError(
                f"Disk full while writing crops to {str(out)!r}. Free some space and {remedy}"
            ) from error
        raise DatasetError(
            f"Cannot write crops to {str(out)!r}: {error}. Check disks and rights, and {remedy}"
        ) from error


def _groups(dataset: AUDataset, folder: Path, notes: DatasetNotes) -> dict[str, list[Block]]:
    """Read the rows by part of the folds ("part1", …), triplets by split."""
    blocks = dataset.rows(folder, notes)
    if not dataset.aus:
        groups = dataset.splits(blocks, dataset.fold(1))
    else:
        everybody = dataset.fold(None)
        if message := count_warning(dataset, {"train": sum(map(len, blocks))}, everybody):
            warnings.warn(message, DatasetWarning, stacklevel=3)
        groups = {part_name(index): part for index, part in enumerate(dataset.parts(blocks))}
    return {name: members for name, members in groups.items() if members}


@dataclass(frozen=True)
class _Task:
    """One file to write, in any process: the parquet file of recordings, or the Arrow file of photos of triplets."""

    target: Path
    problems: Path  # csv; written before `target`, so that no shard is without its problems
    recordings: tuple[Recording, ...] = ()
    faces: tuple[tuple[str, NDArray[np.float32]], ...] = ()  # path and box

    def __len__(self) -> int:
        return sum(map(len, self.recordings)) + len(self.faces)


@dataclass(frozen=True)
class _ShardWriter:
    dataset: AUDataset
    settings: CropSettings
    out: Path
    workers: int
    progress: Progress | None

    def write(self, groups: dict[str, list[Block]]) -> None:
        for folder in (UNFINISHED_SHARDS, SHARD_PROBLEMS, TRIPLET_FACES):
            (self.out / folder).mkdir(exist_ok=True)
        if self.dataset.aus:
            self._write_recordings(cast(dict[str, list[Recording]], groups))
        else:
            self._write_triplets(cast(dict[str, list[TripletBlock]], groups))

    def _write_recordings(self, groups: dict[str, list[Recording]]) -> None:
        """Write the shards of AU rows; a recording is never divided, because neighbors lend their alignment."""
        tasks = []
        for name, members in groups.items():
            shards = _packed(members)
            for number, shard in enumerate(shards):
                stem = f"{name}-{number:05d}-of-{len(shards):05d}"
                tasks.append(_Task(self._shard(stem), self._problems(stem), recordings=tuple(shard)))
        self._run(tasks)

    def _write_triplets(self, groups: dict[str, list[TripletBlock]]) -> None:
        """Write the shards of triplets: each face is cut once, although it occurs in many triplets."""
        import pyarrow as pa

        indices: dict[FaceKey, int] = {}
        for block in (block for members in groups.values() for block in members):
            for key in _face_keys(block):
                indices.setdefault(key, len(indices))
        faces = [(path, np.frombuffer(box, np.float32)) for path, box in indices]
        tasks = []
        for number, first in enumerate(range(0, len(faces), SHARD_FRAMES)):
            stem = f"faces-{number:05d}"
            target = self.out / TRIPLET_FACES / f"{stem}.arrow"
            tasks.append(_Task(target, self._problems(stem), faces=tuple(faces[first : first + SHARD_FRAMES])))
        self._run(tasks)
        # Mapped into memory, so that they need not fit there.
        crops = pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(task.target))).read_all() for task in tasks)["crop"]
        for name, members in groups.items():
            lost: list[Problem] = []
            for number, block in enumerate(members):
                contents = [crops[indices[key]].as_py() for key in _face_keys(block)]
                lost += self._write_block(block, contents, self._shard(f"{name}-{number:05d}-of-{len(members):05d}"))
            write_rows(Problem, lost, self._problems(name))

    def _write_block(self, block: TripletBlock, contents: list[bytes | None], target: Path) -> list[Problem]:
        """Write the triplets whose three faces were cut, and return the others as problems."""
        has_crop = np.array([content is not None for content in contents], dtype=np.bool_).reshape(-1, 3)
        complete: NDArray[np.bool_] = np.asarray(has_crop.all(axis=1))
        if not target.is_file():  # else an earlier run wrote it
            kept = block.select(complete)
            kept.boxes[:] = (0, 0, 1, 1)  # the crop shows the face and nothing else
            rows = np.flatnonzero(np.repeat(complete, 3))
            write_shard(kept.table([contents[row] or b"" for row in rows]), self.dataset, target)
        return [
            Problem("", block.triplet_ids[index], -1, "", "a photo without a crop", "dropped triplet")
            for index in np.flatnonzero(~complete)
        ]

    def _shard(self, stem: str) -> Path:
        return self.out / UNFINISHED_SHARDS / f"{stem}.parquet"

    def _problems(self, stem: str) -> Path:
        return self.out / SHARD_PROBLEMS / f"{stem}.csv"

    def _run(self, tasks: list[_Task]) -> None:
        """Write the files that are missing, in this process or in several."""
        todo = [task for task in tasks if not task.target.is_file()]
        total = sum(map(len, tasks))
        done = total - sum(map(len, todo))
        cut = itertools.count()

        def show(new: int) -> None:
            if self.progress is not None:
                self.progress(done + new, total)

        show(next(cut))
        if self.workers == 1 or len(todo) < 2:
            cropper = Cropper(self.settings, lambda: show(next(cut)))
            for task in todo:
                _write(task, self.dataset, cropper)
        else:
            self._run_in_processes(todo, show)

    def _run_in_processes(self, todo: list[_Task], show: Callable[[int], None]) -> None:
        context = multiprocessing.get_context("spawn")  # OpenCV's threads do not survive a fork
        counter = context.Value("Q", 0)
        pool = ProcessPoolExecutor(min(self.workers, len(todo)), context, _start_worker, (self.settings, counter))
        waiting: set[Future[None]] = set()
        try:
            waiting = {pool.submit(_write_in_worker, task, self.dataset) for task in todo}
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                show(counter.value)
        except BrokenProcessPool as error:
            raise DatasetError(
                "A worker process died (probably out of memory). Run the same command again with fewer `workers`; it "
                "resumes where it stopped."
            ) from error
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown()


_cropper: Cropper | None = None  # of a worker process


def _start_worker(settings: CropSettings, counter: "Synchronized[int]") -> None:
    import cv2

    def on_image() -> None:
        with counter.get_lock():
            counter.value += 1

    global _cropper
    cv2.setNumThreads(1)  # one process per core is faster than threads that compete
    _cropper = Cropper(settings, on_image)


def _write_in_worker(task: _Task, dataset: AUDataset) -> None:
    if _cropper is None:
        raise RuntimeError("_start_worker did not run")
    _write(task, dataset, _cropper)


def _packed(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """Put consecutive recordings together until a shard is full."""
    shards: list[list[Recording]] = []
    count = SHARD_FRAMES
    for recording in recordings:
        if count >= SHARD_FRAMES:
            shards.append([])
            count = 0
        shards[-1].append(recording)
        count += len(recording)
    return shards


def _face_keys(block: TripletBlock) -> list[FaceKey]:
    """Return what identifies each of the 3·T faces."""
    boxes = block.boxes.reshape(-1, 4)
    return [(path, box.tobytes()) for path, box in zip(block.images.reshape(-1), boxes, strict=True)]


def _write(task: _Task, dataset: AUDataset, cropper: Cropper) -> None:
    """Cut the crops of one task and write its two files."""
    import pyarrow as pa

    if task.faces:
        crops, problems = zip(*(cropper.face_in_box(path, box) for path, box in task.faces), strict=True)
        write_rows(Problem, [problem for problem in problems if problem is not None], task.problems)
        table = pa.table({"crop": pa.array(crops, pa.binary())})
        with (
            whole_file(task.target) as part,
            pa.OSFile(str(part), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        return
    tables, found = [], []
    for recording in task.recordings:
        contents, problems_here = cropper.recording(recording)
        kept = recording.select(np.array([content is not None for content in contents], bool))
        tables.append(kept.table([content for content in contents if content is not None]))
        found += problems_here
    write_rows(Problem, found, task.problems)
    write_shard(pa.concat_tables(tables), dataset, task.target)


def _finish(
    dataset: AUDataset, settings: CropSettings, out: Path, groups: list[str], notes: DatasetNotes
) -> PrepareReport:
    """Write report and card, and move the shards to their final folder, which makes the dataset loadable."""
    import pyarrow.parquet as pq

    shards = sorted((out / UNFINISHED_SHARDS).glob("*.parquet"))
    rows = {
        name: sum(pq.read_metadata(path).num_rows for path in shards if path.name.startswith(f"{name}-"))
        for name in groups
    }
    if not sum(rows.values()):
        raise DatasetError(
            f"No face was found in any frame of {dataset.TITLE}; the reasons are in {str(out / SHARD_PROBLEMS)!r}. "
            "Lower `min_score`, or check the images."
        )
    problems = [
        problem for path in sorted((out / SHARD_PROBLEMS).glob("*.csv")) for problem in read_rows(Problem, path)
    ]
    problems += [Problem("", "", -1, "", text, "left out") for text in notes.entries]
    notes.warn(dataset.TITLE, stacklevel=3)
    write_rows(Problem, problems, out / REPORT)
    write_card(dataset, settings, rows, len(problems), out / CARD)
    replace_file(out / UNFINISHED_SHARDS, out / SHARDS)
    for leftover in (SHARD_PROBLEMS, TRIPLET_FACES):
        shutil.rmtree(out / leftover)
    return _summary(out)


def _summary(out: Path) -> PrepareReport:
    import pyarrow.parquet as pq

    rows = sum(pq.read_metadata(path).num_rows for path in (out / SHARDS).glob("*.parquet"))
    actions = Counter(problem.action.partition(" like frame")[0] for problem in read_rows(Problem, out / REPORT))
    return PrepareReport(out, rows, dict(actions), out / REPORT)
