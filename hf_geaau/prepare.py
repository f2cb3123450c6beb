"""Cut the face crops of a dataset once: detect, align, and write parquet shards with embedded JPEG files.

A folder is finished when it has a README.md and a folder `data`. Until then all lies in folders whose names start with
a dot, which `datasets` passes over: half a dataset is never loaded for a whole one. Started again, the work goes on
with the shards that are missing.
"""

import csv
import errno
import io
import json
import multiprocessing
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau.data._base import (
    AUDataset,
    DatasetNotes,
    check_counts,
    choose,
    fingerprint,
    get_dataset,
    not_found,
    require,
)
from hf_geaau.data._triplets import TripletBlock, triplet_table
from hf_geaau.errors import DatasetError, DatasetWarning, GeaauError
from hf_geaau.faces import Face, FaceDetector
from hf_geaau.faces.photos import read_photo
from hf_geaau.files import whole_file
from hf_geaau.models.geaau.image_processing_geaau import GeaauImageProcessorPil

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_FRAMES = 1000  # a shard of some 10 MB at 224 pixels; what a kill can cost each worker
ROW_GROUP = 100  # rows that a random access or a stream reads at a time

DATA, REPORT, CARD = "data", "report.csv", "README.md"
_SETTINGS, _PARTIAL, _NOTES, _FACES = ".prepare.json", ".partial", ".notes", ".faces"

# Around the box that FEC gives: room for the detector, as a share of the box's longer side. Our choice.
_BOX_MARGIN = 0.6


@dataclass(frozen=True)
class Problem:
    """A frame that is not simply a crop of its own face.

    Attributes:
        subject_id, sequence_id, frame: Of the row; of a triplet's photo, empty and -1.
        image: The file.
        problem: What was found.
        action: What was done: "dropped", or whose alignment was used.
    """

    subject_id: str
    sequence_id: str
    frame: int
    image: str
    problem: str
    action: str


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


@dataclass(frozen=True)
class _Settings:
    """What decides the crops."""

    size: int
    quality: int
    faceless: str
    min_score: float
    is_aligned: bool


def prepare(
    name: str,
    data_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    size: int = 224,
    faceless: str = "neighbour",
    min_score: float = 0.6,
    quality: int = 95,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> PrepareReport:
    """Write the face crops of a dataset, so that training reads small aligned images.

    Each face is found by `FaceDetector` and cut by the model's crop template. Read the result with
    `datasets.load_dataset(out_dir, "fold1")`; the other configurations are "fold2", …, "fold1-megraphau", …, and "all".
    FEC has its owners' train and test only.

    A frame that cannot be read is dropped. Of several faces the largest counts; with FEC, the one in the given box.
    Everything dropped or kept by another frame's alignment is listed in `out_dir/report.csv`.

    Args:
        name, data_dir, **options: As for `hf_geaau.data.load`.
        out_dir: Where; made if missing.
        size: Side of the crops in pixels.
        faceless: What becomes of a frame in which no face is found: "neighbour" cuts it where the nearest frame of
            its sequence with a face has it (if there is none, it is dropped); "drop" leaves it out. Photos of
            triplets have no neighbours and are dropped, with the triplets they belong to.
        min_score: Detections below count as no face.
        quality: JPEG quality, 1-95.
        workers: Processes; by default one for each core. With 1, this process works alone. Scripts need
            `if __name__ == "__main__"` for more.
        progress: Called with images done and in all.

    Raises:
        DatasetNotFoundError, DatasetError: As for `load`; also for a full disk, or if `out_dir` holds other crops.
        MissingExtraError: Without the extra "data".

    Warns:
        DatasetWarning: As for `load`.
    """
    require("datasets", ".", "hf_geaau.prepare")
    choose("faceless", faceless, ("neighbour", "drop"))
    _check_range("size", size, 16, 4096)
    _check_range("quality", quality, 1, 95)
    _check_range("min_score", min_score, 0, 1)
    _check_range("workers", workers if workers is not None else 1, 1, 1024)
    dataset = get_dataset(name, **options)
    folder, out = Path(data_dir).expanduser().absolute(), Path(out_dir).expanduser().absolute()
    if not folder.is_dir():
        raise not_found(dataset, folder, "no such folder")
    settings = _Settings(size, quality, faceless, min_score, dataset.IS_ALIGNED)
    with _disk(out):
        _claim(out, {"dataset": repr(dataset), "source": fingerprint(dataset, folder), **asdict(settings)})
        if (out / DATA).is_dir() and (out / CARD).is_file():
            return _summary(out)
        notes = DatasetNotes(dataset.problems)
        groups = _groups(dataset, folder, notes)
        work = _Work(dataset, settings, out, workers or os.cpu_count() or 1, progress)
        if any(isinstance(block, TripletBlock) for members in groups.values() for block in members):
            work.write_triplets(groups)
        else:
            work.write_sequences(groups)
        return _finish(dataset, settings, out, list(groups), notes)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise DatasetError(f"`{name}` must be from {least} to {most}, got {value}. Leave it out for the default.")


def _groups(dataset: AUDataset, folder: Path, notes: DatasetNotes) -> dict[str, list[Any]]:
    """Give the rows by part of the folds ("part1", …), of triplets by split."""
    rows = dataset.rows(folder, notes)
    first = dataset.splits(rows, 1, "jaanet")
    if any(isinstance(block, TripletBlock) for members in first.values() for block in members):
        groups = first
    else:
        if message := check_counts(dataset, {"train": sum(map(len, rows))}, None, "jaanet"):
            warnings.warn(message, DatasetWarning, stacklevel=3)
        folds = range(1, len(dataset.PARTS) + 1)
        groups = {f"part{fold}": dataset.splits(rows, fold, "jaanet")["test"] for fold in folds}
    return {name: members for name, members in groups.items() if members}


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Write down what the folder holds, or check that it holds the same."""
    if out.exists() and not out.is_dir():
        raise DatasetError(f"`out_dir` must be a folder, got the file {str(out)!r}. Pass another name.")
    out.mkdir(parents=True, exist_ok=True)
    note = out / _SETTINGS
    if not note.is_file():
        if any(not path.name.startswith(".") for path in out.iterdir()):
            raise DatasetError(
                f"`out_dir` must be new, empty or begun by `prepare`, got {str(out)!r} with other files. "
                "Pass another folder."
            )
        with whole_file(note) as part:
            part.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{str(note)!r} must be a JSON object, got something else. Pass another folder.") from error
    for key, value in settings.items():
        if found.get(key) != value:
            shown = "other files" if key == "source" else f"{key}={found.get(key)!r} instead of {value!r}"
            raise DatasetError(
                f"`out_dir` must hold crops of the same data and settings, got {shown} in {str(out)!r}. "
                "Pass another folder, or remove this one."
            )


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    """Turn a disk's refusal into one line that says how to go on."""
    try:
        yield
    except OSError as error:
        if isinstance(error, GeaauError):
            raise
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            raise DatasetError(
                f"The crops must fit on the disk of {str(out)!r}, got a full disk. Free some space and run the same "
                "command again; it goes on where it stopped."
            ) from error
        raise DatasetError(
            f"`out_dir` must be writable and `data_dir` readable, got: {error}. Check disks and rights, and run the "
            "same command again; it goes on where it stopped."
        ) from error


@dataclass(frozen=True)
class _Task:
    """One file to write, in any process.

    Attributes:
        target: The parquet file, or of photos of triplets the Arrow file.
        notes: The csv file of its problems; written before `target`, so that no shard is without its notes.
        items: Sequences, or (path, box) of photos.
    """

    target: Path
    notes: Path
    items: tuple[Any, ...]

    def __len__(self) -> int:
        return sum(len(item) for item in self.items) if self.target.suffix == ".parquet" else len(self.items)


@dataclass(frozen=True)
class _Work:
    """Writes all files of a dataset."""

    dataset: AUDataset
    settings: _Settings
    out: Path
    workers: int
    progress: Callable[[int, int], None] | None

    def write_sequences(self, groups: dict[str, list[Any]]) -> None:
        """Write the shards of AU rows; a sequence is never divided, because neighbours lend their alignment."""
        tasks = []
        for name, members in groups.items():
            shards = _packed(members)
            for number, shard in enumerate(shards):
                stem = f"{name}-{number:05d}-of-{len(shards):05d}"
                tasks.append(_Task(self._shard(stem), self._notes(stem), tuple(shard)))
        self._run(tasks)

    def write_triplets(self, groups: dict[str, list[TripletBlock]]) -> None:
        """Write the shards of triplets: each photo is cut once, although it occurs in many triplets."""
        places: dict[tuple[str, bytes], int] = {}
        for block in (block for members in groups.values() for block in members):
            for path, box in zip(block.images.reshape(-1), block.boxes.reshape(-1, 4), strict=True):
                places.setdefault((path, box.tobytes()), len(places))
        faces = [(path, np.frombuffer(box, np.float32)) for path, box in places]
        tasks = []
        for number, first in enumerate(range(0, len(faces), SHARD_FRAMES)):
            stem = f"faces-{number:05d}"
            target = self.out / _FACES / f"{stem}.arrow"
            tasks.append(_Task(target, self._notes(stem), tuple(faces[first : first + SHARD_FRAMES])))
        self._run(tasks)
        crops = _read_faces([task.target for task in tasks])
        for name, members in groups.items():
            lost: list[Problem] = []
            for number, block in enumerate(members):
                stem = f"{name}-{number:05d}-of-{len(members):05d}"
                self._write_block(block, places, crops, self._shard(stem), lost)
            _write_notes(self._notes(name), lost)

    def _write_block(
        self,
        block: TripletBlock,
        places: dict[tuple[str, bytes], int],
        crops: "pa.ChunkedArray",
        target: Path,
        lost: list[Problem],
    ) -> None:
        keys = zip(block.images.reshape(-1), block.boxes.reshape(-1, 4), strict=True)
        contents = [crops[places[path, box.tobytes()]].as_py() for path, box in keys]
        there = np.array([content is not None for content in contents], dtype=np.bool_).reshape(-1, 3)
        complete: NDArray[np.bool_] = np.asarray(there.all(axis=1))
        for triplet in np.flatnonzero(~complete):
            lost.append(Problem("", block.triplet_ids[triplet], -1, "", "a photo without a crop", "dropped triplet"))
        if target.is_file():  # of an earlier run
            return
        kept = [content for content, keep in zip(contents, np.repeat(complete, 3), strict=True) if keep]
        block = block.select(complete)
        block.boxes[:] = (0, 0, 1, 1)  # the crop shows the face and nothing else
        _write_parquet(triplet_table(block, kept), self.dataset, target)

    def _shard(self, stem: str) -> Path:
        return self.out / _PARTIAL / f"{stem}.parquet"

    def _notes(self, stem: str) -> Path:
        return self.out / _NOTES / f"{stem}.csv"

    def _run(self, tasks: list[_Task]) -> None:
        """Write the files that are missing, in this process or in several."""
        for folder in (_PARTIAL, _NOTES, _FACES):
            (self.out / folder).mkdir(exist_ok=True)
        todo = [task for task in tasks if not task.target.is_file()]
        total = sum(map(len, tasks))
        before = total - sum(map(len, todo))
        show = self.progress or (lambda done, total: None)
        show(before, total)
        if self.workers == 1 or len(todo) < 2:
            cropper = _Cropper(self.settings)
            done = before
            for task in todo:

                def step() -> None:
                    nonlocal done
                    done += 1
                    show(done, total)

                _write(task, self.dataset, cropper, step)
        else:
            self._run_in_processes(todo, lambda done: show(before + done, total))

    def _run_in_processes(self, todo: list[_Task], show: Callable[[int], None]) -> None:
        context = multiprocessing.get_context("spawn")  # OpenCV's threads do not survive a fork
        counter = context.Value("Q", 0)
        pool = ProcessPoolExecutor(min(self.workers, len(todo)), context, _start_worker, (self.settings, counter))
        waiting: set[Future[None]] = set()
        try:
            waiting = {pool.submit(_write_in_worker, task, self.dataset) for task in todo}
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                show(counter.value)
        except BrokenProcessPool as error:
            raise DatasetError(
                "Worker processes must live to the end, got one that died, perhaps for want of memory. "
                "Run the same command again, with fewer `workers`; it goes on where it stopped."
            ) from error
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown()


_worker: "tuple[_Cropper, Any] | None" = None  # of a worker process


def _start_worker(settings: _Settings, counter: Any) -> None:
    import cv2

    global _worker
    cv2.setNumThreads(1)  # one process per core is faster than threads that compete
    _worker = _Cropper(settings), counter


def _write_in_worker(task: _Task, dataset: AUDataset) -> None:
    if _worker is None:
        raise RuntimeError("_start_worker did not run")
    cropper, counter = _worker

    def step() -> None:
        with counter.get_lock():
            counter.value += 1

    _write(task, dataset, cropper, step)


def _packed(sequences: Sequence[Any]) -> list[list[Any]]:
    """Put consecutive sequences together until a shard is full."""
    shards: list[list[Any]] = []
    filled = SHARD_FRAMES
    for sequence in sequences:
        if filled >= SHARD_FRAMES:
            shards.append([])
            filled = 0
        shards[-1].append(sequence)
        filled += len(sequence)
    return shards


def _write(task: _Task, dataset: AUDataset, cropper: "_Cropper", step: Callable[[], None]) -> None:
    """Cut the crops of one task and write its two files."""
    import pyarrow as pa

    problems: list[Problem] = []
    if task.target.suffix != ".parquet":
        contents = [cropper.photo(path, box, problems, step) for path, box in task.items]
        _write_notes(task.notes, problems)
        table = pa.table({"crop": pa.array(contents, pa.binary())})
        with (
            whole_file(task.target) as part,
            pa.OSFile(str(part), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as w,
        ):
            w.write_table(table)
        return
    tables = []
    for sequence in task.items:
        crops = cropper.sequence(sequence, problems, step)
        rows = dataset.table(sequence.select(np.array([crop is not None for crop in crops], bool)))
        contents = [crop for crop in crops if crop is not None]
        image = pa.StructArray.from_arrays(
            [pa.array(contents, pa.binary()), pa.nulls(len(contents), pa.string())], ["bytes", "path"]
        )
        tables.append(rows.set_column(rows.column_names.index("image"), "image", image))
    _write_notes(task.notes, problems)
    _write_parquet(pa.concat_tables(tables), dataset, task.target)


def _write_parquet(table: "pa.Table", dataset: AUDataset, target: Path) -> None:
    import pyarrow.parquet as pq

    table = table.cast(dataset.features().arrow_schema)  # whose metadata tell `datasets` the features
    with whole_file(target) as part:
        # JPEG does not get smaller; without compression nothing is unpacked when reading.
        pq.write_table(table, part, row_group_size=ROW_GROUP, compression="none")


def _write_notes(path: Path, problems: list[Problem]) -> None:
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(astuple(problem) for problem in problems)


def _read_faces(paths: list[Path]) -> "pa.ChunkedArray":
    """Map the crops into memory, so that they need not fit there."""
    import pyarrow as pa

    tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
    return pa.concat_tables(tables)["crop"]


class _Cropper:
    """Finds and cuts faces; one for each process."""

    def __init__(self, settings: _Settings) -> None:
        self.settings = settings
        self.detector = FaceDetector(min_score=settings.min_score)
        self.processor = GeaauImageProcessorPil(
            size={"height": settings.size, "width": settings.size}, do_rescale=False, do_normalize=False
        )

    def sequence(self, sequence: Any, problems: list[Problem], step: Callable[[], None]) -> list[bytes | None]:
        """Cut the frames of a sequence; None for those to drop."""
        crops: list[bytes | None] = []
        points: list[NDArray[Any] | None] = []
        faceless = []
        for place, path in enumerate(sequence.images):
            crop, found, problem = self._frame(path)
            crops.append(crop)
            points.append(found)
            if problem:
                problems.append(_problem(sequence, place, problem, "dropped"))
            elif crop is None:
                faceless.append(place)
            step()
        donors = [place for place, found in enumerate(points) if found is not None]
        for place in faceless:
            problem, action = "no face found", "dropped"
            if self.settings.faceless == "neighbour" and donors:
                frames = sequence.frames
                donor = min(donors, key=lambda other: (abs(int(frames[other]) - int(frames[place])), other))
                # Not held in memory meanwhile: a long faceless stretch of large photos would fill it.
                crops[place] = self._cut(_read(sequence.images[place]), points[donor])
                if crops[place] is not None:
                    action = f"aligned like frame {frames[donor]}"
            elif self.settings.faceless == "neighbour":
                problem = "no face found in the whole sequence"
            problems.append(_problem(sequence, place, problem, action))
        return crops

    def _frame(self, path: str) -> tuple[bytes | None, NDArray[Any] | None, str]:
        """Give crop, points and problem of one frame; no crop and no problem means no face."""
        try:
            photo = _read(path)
        except GeaauError as error:
            return None, None, str(error)
        if self.settings.is_aligned:
            return self._cut(photo, None), None, ""
        faces = self.detector(photo)
        crop = self._cut(photo, faces[0].points) if faces else None
        return crop, faces[0].points if crop is not None else None, ""

    def photo(self, path: str, box: NDArray[Any], problems: list[Problem], step: Callable[[], None]) -> bytes | None:
        """Cut the face that lies in a box (left, top, right, bottom as fractions); None if there is none."""
        problem, crop = "no face found in the box", None
        try:
            photo = _read(path)
            if self.settings.is_aligned:
                crop = self._cut(photo, None)
            else:
                corner, patch, inner = _around(photo, box)
                faces = self.detector(patch)
                best = max(faces, key=lambda face: _overlap(face, inner), default=None)
                if best is not None and _overlap(best, inner) > 0:
                    crop = self._cut(photo, best.points + corner)
        except GeaauError as error:
            problem = str(error)
        if crop is None:
            problems.append(Problem("", "", -1, path, problem, "dropped photo"))
        step()
        return crop

    def _cut(self, photo: Image.Image, points: NDArray[Any] | None) -> bytes | None:
        """Cut and encode; None if the points allow no alignment."""
        size = self.settings.size
        if points is None and photo.size == (size, size):
            crop = photo
        else:
            try:
                values = self.processor(photo, points=points).pixel_values[0]
            except ValueError:
                return None
            crop = Image.fromarray(np.ascontiguousarray(np.moveaxis(np.asarray(values), 0, -1).astype(np.uint8)))
        content = io.BytesIO()
        crop.save(content, "JPEG", quality=self.settings.quality)
        return content.getvalue()


def _problem(sequence: Any, place: int, problem: str, action: str) -> Problem:
    frame = int(sequence.frames[place])
    return Problem(sequence.subject_id, sequence.sequence_id, frame, sequence.images[place], problem, action)


def _read(path: str) -> Image.Image:
    """Read a photo from a file, or by a URL of fsspec out of a zip or video.

    Raises:
        GeaauError: If it cannot be read.
    """
    if "://" not in path:
        return read_photo(path)
    import fsspec

    if path.startswith("videoframe://"):
        require("av", "hf_geaau.data._video", "hf_geaau.prepare")  # registers itself with fsspec
    try:
        with fsspec.open(path, "rb") as file:
            content = file.read()
    except GeaauError:
        raise
    except Exception as error:  # whatever a damaged container leads its reader to
        raise DatasetError(f"A frame must be readable, got {path!r} ({error}). Copy its container again.") from error
    return read_photo(content)


def _around(photo: Image.Image, box: NDArray[Any]) -> tuple[NDArray[Any], Image.Image, NDArray[Any]]:
    """Cut out a box with a margin: the patch's corner in the photo, the patch, and the box in the patch."""
    sides = np.array([photo.width, photo.height] * 2)
    inner = box * sides
    margin = _BOX_MARGIN * max(inner[2] - inner[0], inner[3] - inner[1])
    outer = np.clip(np.round(inner + np.array([-margin, -margin, margin, margin])), 0, sides).astype(int)
    outer[2:] = np.maximum(outer[2:], outer[:2] + 1)
    return outer[:2], photo.crop(tuple(outer.tolist())), inner - np.tile(outer[:2], 2)


def _overlap(face: Face, box: NDArray[Any]) -> float:
    """Intersection over union of a face's box and another."""
    low, high = np.maximum(face.box[:2], box[:2]), np.minimum(face.box[2:], box[2:])
    common = float(np.prod(np.maximum(high - low, 0)))
    return common / max(face.area + float(np.prod(box[2:] - box[:2])) - common, 1e-6)


def _finish(
    dataset: AUDataset, settings: _Settings, out: Path, groups: list[str], notes: DatasetNotes
) -> PrepareReport:
    """Write report and card, and give the shards their place, which makes the dataset loadable."""
    import pyarrow.parquet as pq

    shards = sorted((out / _PARTIAL).glob("*.parquet"))
    rows = {
        name: sum(pq.read_metadata(path).num_rows for path in shards if path.name.startswith(f"{name}-"))
        for name in groups
    }
    if not sum(rows.values()):
        raise DatasetError(
            f"At least one frame must show a face, got none in all of {dataset.TITLE}; the reasons are in "
            f"{str(out / _NOTES)!r}. Lower `min_score`, or check the images."
        )
    problems = [row for path in sorted((out / _NOTES).glob("*.csv")) for row in _rows(path)]
    problems += [list(map(str, astuple(Problem("", "", -1, "", text, "left out")))) for text in notes.entries]
    notes.warn(dataset.TITLE, stacklevel=3)
    with whole_file(out / REPORT) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([entry.name for entry in fields(Problem)])
        writer.writerows(problems)
    with whole_file(out / CARD) as part:
        part.write_text(_card(dataset, settings, rows, len(problems)), encoding="utf-8")
    (out / _PARTIAL).rename(out / DATA)
    for leftover in (_NOTES, _FACES):
        shutil.rmtree(out / leftover)
    return _summary(out)


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _summary(out: Path) -> PrepareReport:
    import pyarrow.parquet as pq

    rows = sum(pq.read_metadata(path).num_rows for path in (out / DATA).glob("*.parquet"))
    actions = Counter(row[-1].partition(" like frame")[0] for row in _rows(out / REPORT)[1:])
    return PrepareReport(out, rows, dict(actions), out / REPORT)


def _configurations(dataset: AUDataset, rows: dict[str, int]) -> dict[str, dict[str, list[str]]]:
    """Give the groups of each split of each configuration, the default one first."""
    groups = [name for name, count in rows.items() if count]
    if not any(name.startswith("part") for name in rows):
        return {"default": {name: [name] for name in groups}}
    folds = {}
    for protocol, ending in (("jaanet", ""), ("megraphau", "-megraphau")):
        if ending and not dataset.MEGRAPHAU_FOLDS:
            continue
        for fold in range(1, len(dataset.PARTS) + 1):
            test = f"part{dataset.part_of(fold, protocol) + 1}"
            if test in groups and len(groups) > 1:
                train = [name for name in groups if name != test]
                folds[f"fold{fold}{ending}"] = {"train": train, "test": [test]}
    return {**folds, "all": {"train": groups}}


def _card(dataset: AUDataset, settings: _Settings, rows: dict[str, int], problems: int) -> str:
    """Write the dataset card; its header tells `load_dataset` the splits."""
    lines = ["---", "license: other", f"license_name: {dataset.NAME}", "viewer: false", "configs:"]
    for number, (name, splits) in enumerate(_configurations(dataset, rows).items()):
        lines += [f"- config_name: {name}", *(["  default: true"] if number == 0 else []), "  data_files:"]
        for split, members in splits.items():
            lines += [f"  - split: {split}", "    path:", *(f"    - {DATA}/{member}-*.parquet" for member in members)]
    lines += ["---", "", f"# Face crops of {dataset.TITLE}", ""]
    if dataset.IS_LICENSED:
        lines += [
            "**Do not publish, upload or pass on these files, in whole or in part.** They are derived from data that",
            "is not yours to share: crops show the same people as the originals, and the same terms bind them.",
            "A dataset loaded from this folder has no guard of its own: do not call `push_to_hub` on it.",
        ]
    else:
        lines += ["These faces are rendered; no licence of face data restricts them."]
    counts = ", ".join(f"{name} {count}" for name, count in rows.items())
    lines += [
        "",
        f"- Licence of the source: {dataset.LICENSE}",
        f"- Source: {dataset.HOMEPAGE}",
        f"- Cite: {dataset.CITATION}",
        f"- Read as: `{dataset!r}`",
        f"- Rows: {counts}",
        f"- Crops: {settings.size} × {settings.size} pixels by the crop template of hf_geaau, JPEG quality"
        f" {settings.quality}, faces by YuNet with a score of at least {settings.min_score}",
        f"- Frames without a face: {settings.faceless}; {problems} entries in `{REPORT}`",
        "",
        "```python",
        "import datasets",
        "",
        'datasets.load_dataset("path/to/this/folder")',
        "```",
        "",
    ]
    return "\n".join(lines)
