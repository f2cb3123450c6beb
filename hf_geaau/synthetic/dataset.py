"""Render many faces: to memory for training scripts, or to a folder of JPEG files with a table of labels.

Image i of seed s does not depend on the number of workers, nor on what was rendered before. Images come in blocks of
one identity, because an identity's texture and hair are built once per block.
"""

import json
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import GeaauError
from hf_geaau.files import whole_file
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.descriptions import SceneDescription, describe_scene
from hf_geaau.synthetic.face_model import FaceModel, load_face_model
from hf_geaau.synthetic.scenes import STYLES, sample_scene

if TYPE_CHECKING:
    from hf_geaau.synthetic.rendering import Renderer

_CHUNK = 48  # images of one task; also what an interruption can cost
LABELS_FILE, _SETTINGS_FILE, _PARTS = "labels.parquet", "render.json", ".parts"


class RenderFolderError(GeaauError, ValueError):
    """A folder cannot take the renders: it holds others."""


@dataclass(frozen=True)
class RenderedFace:
    """One rendered crop and everything known about it.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        labels: (18,) float32, 1 present and 0 absent, in the order of sampling.ACTION_UNITS.
        intensities: (18,) float32, 0–5.
        points: (5, 2) float32, true five points in pixels.
        identity_id: Who.
        index: Number of the image.
        frame: Number of the image within its identity.
        facts: What else is known of the scene, as head pose, light, camera and person.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.float32]
    intensities: NDArray[np.float32]
    points: NDArray[np.float32]
    identity_id: int
    index: int
    frame: int
    facts: SceneDescription


@dataclass(frozen=True)
class _Plan:
    """What decides the images, apart from their number."""

    seed: int
    size: int
    images_per_identity: int
    identities: int | None
    first_identity: int
    style: str = "standard"

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"`style` must be one of {', '.join(STYLES)}, got {self.style!r}.")
        for name, value in (("images_per_identity", self.images_per_identity), ("identities", self.identities)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")

    def identity_of(self, index: int) -> tuple[int, int]:
        """Identity and frame of image `index`; identities start over after the last."""
        block = index // self.images_per_identity
        turn, place = divmod(block, self.identities) if self.identities else (0, block)
        return self.first_identity + place, turn * self.images_per_identity + index % self.images_per_identity

    def subject(self, identity_id: int) -> str:
        """Name of a person; people of another style are others, whatever their number."""
        style = "" if self.style == "standard" else f"{self.style}-"
        return f"render-{style}{self.seed}-{identity_id}"

    def render(self, renderer: "Renderer", index: int) -> RenderedFace:
        identity_id, frame = self.identity_of(index)
        scene = sample_scene(self.seed, index, identity_id, style=self.style)
        picture = renderer.render(scene)
        return RenderedFace(
            picture.image,
            scene.labels,
            scene.intensities,
            picture.points,
            identity_id,
            index,
            frame,
            describe_scene(scene, renderer.size),
        )


def iter_renders(
    face_model: FaceModel | str | os.PathLike[str],
    count: int,
    seed: int,
    *,
    size: int = 128,
    identities: int | None = None,
    images_per_identity: int = 6,
    first_identity: int = 0,
    first_image: int = 0,
    workers: int = 1,
    style: str = "standard",
) -> Iterator[RenderedFace]:
    """Render faces one after another.

    Args:
        face_model: The model or its path, see `load_face_model`.
        count: How many images.
        seed: Decides identities and images.
        size: Side of the crop in pixels.
        identities: How many people share the images; None for a new one per `images_per_identity` images.
        images_per_identity: Images of one person in a row.
        first_identity: Number of the first person; disjoint ranges give disjoint people.
        first_image: Number of the first image.
        workers: Processes; with 1, this process renders. Scripts need `if __name__ == "__main__"` for more.
        style: "standard", or "shifted" for people and settings of the renderer that "standard" never shows.
    """
    plan = _Plan(seed, size, images_per_identity, identities, first_identity, style)
    chunks = _chunks(first_image, first_image + count)
    if workers <= 1:
        with closing(_start(face_model, size)) as renderer:
            for start, stop in chunks:
                yield from (plan.render(renderer, index) for index in range(start, stop))
        return
    for faces in _parallel(face_model, size, workers, _render_chunk, [(plan, *chunk) for chunk in chunks]):
        yield from faces


def render_dataset(
    face_model: FaceModel | str | os.PathLike[str],
    count: int,
    seed: int,
    output: str | os.PathLike[str],
    *,
    size: int = 128,
    identities: int | None = None,
    images_per_identity: int = 6,
    first_identity: int = 0,
    workers: int = 2,
    quality: int = 92,
    style: str = "standard",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render faces into a folder; an interrupted run continues where it stopped.

    The folder gets `images/…jpg` and, when all are there, `labels.parquet` with the columns file_name, labels (18),
    intensities (18), subject_id, sequence_id, frame, points (10: x, y of the five points in pixels), and those of
    `facts.SceneDescription`.

    Args:
        face_model, count, seed, size, identities, images_per_identity, first_identity, workers, style: See
            `iter_renders`.
        output: The folder; made if missing.
        quality: JPEG quality, 1–100.
        progress: Called with images done and in all, after each chunk.

    Returns:
        The path of the table.

    Raises:
        RenderFolderError: If the folder holds renders of other settings.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}.")
    plan, folder = _Plan(seed, size, images_per_identity, identities, first_identity, style), Path(output)
    if not isinstance(face_model, FaceModel):
        load_face_model(face_model)  # a wrong path must not leave a claimed folder behind
    _claim(folder, {"count": count, "quality": quality, "action_units": list(ACTION_UNITS), **asdict(plan)})
    table = folder / LABELS_FILE
    if table.is_file():
        return table
    parts = {chunk: folder / _PARTS / f"{chunk[0]:08d}.parquet" for chunk in _chunks(0, count)}
    open_chunks = [chunk for chunk, part in parts.items() if not part.is_file()]
    done = count - sum(stop - start for start, stop in open_chunks)
    if progress:
        progress(done, count)
    tasks = [(plan, *chunk, str(folder), quality, str(parts[chunk])) for chunk in open_chunks]
    for number in _run(face_model, size, workers, _write_chunk, tasks):
        done += number
        if progress:
            progress(done, count)
    _merge(list(parts.values()), table)
    return table


def _chunks(start: int, stop: int) -> list[tuple[int, int]]:
    return [(first, min(first + _CHUNK, stop)) for first in range(start, stop, _CHUNK)]


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write down what the folder holds, or check that it holds the same."""
    (folder / _PARTS).mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    note = folder / _SETTINGS_FILE
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if differ := {key: (found.get(key), value) for key, value in settings.items() if found.get(key) != value}:
            shown = ", ".join(f"{key}={old!r} instead of {new!r}" for key, (old, new) in differ.items())
            raise RenderFolderError(
                f"{str(folder)!r} must hold renders of these settings, but has {shown}. Pass another output."
            )
        return
    if any((folder / "images").iterdir()):
        raise RenderFolderError(
            f"{str(folder)!r} has images but no {_SETTINGS_FILE}. Pass an empty or new output folder."
        )
    _replace(note, json.dumps(settings, indent=1).encode())


def _replace(path: Path, content: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(content)


def _write_chunk(renderer: "Renderer", plan: _Plan, start: int, stop: int, folder: str, quality: int, part: str) -> int:
    import cv2
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for index in range(start, stop):
        face = plan.render(renderer, index)
        name = f"images/{index:08d}.jpg"
        _, coded = cv2.imencode(".jpg", face.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        _replace(Path(folder) / name, coded.tobytes())
        rows.append(
            {
                "file_name": name,
                "labels": face.labels,
                "intensities": face.intensities,
                "subject_id": plan.subject(face.identity_id),
                "sequence_id": "render",
                "frame": face.frame,
                "points": face.points.reshape(-1),
                **asdict(face.facts),
            }
        )
    schema = pa.schema(_columns())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    _replace(Path(part), sink.getvalue().to_pybytes())
    return stop - start


def _columns() -> list[tuple[str, Any]]:
    """Names and arrow types of the table's columns."""
    import pyarrow as pa

    floats, simple = pa.list_(pa.float32()), {float: pa.float32(), str: pa.string(), bool: pa.bool_()}
    return [
        ("file_name", pa.string()), ("labels", floats), ("intensities", floats), ("subject_id", pa.string()),
        ("sequence_id", pa.string()), ("frame", pa.int32()), ("points", floats),
        *((name, simple[kind]) for name, kind in get_type_hints(SceneDescription).items()),
    ]  # fmt: skip


def _merge(parts: list[Path], table: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables([pq.read_table(part) for part in parts]), sink)
    _replace(table, sink.getvalue().to_pybytes())
    for part in parts:
        part.unlink()
    parts[0].parent.rmdir()


def _render_chunk(renderer: "Renderer", plan: _Plan, start: int, stop: int) -> list[RenderedFace]:
    return [plan.render(renderer, index) for index in range(start, stop)]


def _start(face_model: FaceModel | str | os.PathLike[str], size: int) -> "Renderer":
    from hf_geaau.synthetic.rendering import Renderer

    return Renderer(face_model if isinstance(face_model, FaceModel) else load_face_model(face_model), size)


def _run(face_model: Any, size: int, workers: int, work: Callable, tasks: list[tuple]) -> Iterator[Any]:
    if workers > 1:
        yield from _parallel(face_model, size, workers, work, tasks)
    elif tasks:
        with closing(_start(face_model, size)) as renderer:
            for task in tasks:
                yield work(renderer, *task)


_renderer: "Renderer | Exception | None" = None  # of a worker process


def _start_worker(face_model: Any, size: int) -> None:
    import cv2

    global _renderer
    cv2.setNumThreads(1)
    try:
        _renderer = _start(face_model, size)
    except GeaauError as error:  # raised here, it would only break the pool; the first task tells it
        _renderer = error


def _in_worker(work: Callable, task: tuple) -> Any:
    if isinstance(_renderer, Exception):
        raise _renderer
    return work(_renderer, *task)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let processes started meanwhile use one thread each: one per core is faster than threads that compete."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _parallel(face_model: Any, size: int, workers: int, work: Callable, tasks: list[tuple]) -> Iterator[Any]:
    """Run tasks in processes and give their results in order, a few tasks ahead of the consumer."""
    if not tasks:
        return
    if not isinstance(face_model, FaceModel):
        load_face_model(face_model)  # fail here with a clear line, and fill the cache once
    context = multiprocessing.get_context("spawn")  # OpenGL and threads do not survive a fork
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (face_model, size)) as pool,
    ):
        waiting, remaining = deque[Future[Any]](), iter(tasks)
        try:
            for task in remaining:
                waiting.append(pool.submit(_in_worker, work, task))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
