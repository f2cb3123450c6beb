"""Render many faces: to memory for training scripts, or to a folder of JPEG files with a table of labels.

Image i of seed s depends neither on the number of workers nor on what was rendered before. Images come in blocks of one
person, because the person's texture and hair are built once per block.
"""

import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from hf_geaau.environ import environment
from hf_geaau.errors import GeaauError
from hf_geaau.files import FolderClaim, whole_file
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.descriptions import SceneDescription, describe_scene
from hf_geaau.synthetic.environments import read_environments
from hf_geaau.synthetic.face_model import FaceModel, load_face_model
from hf_geaau.synthetic.scenes import STYLES

if TYPE_CHECKING:
    from hf_geaau.synthetic.rendering import Renderer

Result = TypeVar("Result")

IMAGES_PER_TASK = 48
"""Images that a process renders in one go. An interruption loses at most so many per process."""
MAX_SIZE = 4096
"""Largest side of a crop in pixels: it is drawn 1.5 times as large, and OpenGL must take textures of 8,192 at least."""
IMAGES, LABELS_FILE, SETTINGS_FILE = "images", "labels.parquet", "render.json"
_PARTS = ".parts"


class RenderFolderError(GeaauError, ValueError):
    """A folder cannot take the renders: another process writes to it, or it holds other files or other renders."""


AnyFaceModel = FaceModel | str | os.PathLike[str]


@dataclass(frozen=True)
class RenderedFace:
    """One rendered crop and everything known about it."""

    image: NDArray[np.uint8]  # (size, size, 3) uint8 RGB
    labels: NDArray[np.float32]  # (18,) float32, 1 present and 0 absent, in the order of ACTION_UNITS
    intensities: NDArray[np.float32]  # (18,) float32, 0-5
    side_intensities: NDArray[np.float32]  # (18, 2) float32, 0-5, on the person's left and right
    points: NDArray[np.float32]  # (5, 2) float32, the true five points in pixels
    visible: NDArray[np.float32]  # (18,) float32, share of each action unit's landmarks that nothing hides, 0-1
    identity_id: int  # number of the person
    index: int  # number of the image
    frame: int  # number of the image among those of the person
    description: SceneDescription  # what else is known of the scene, such as head pose, light and camera
    face_model: str  # whose head it is, `FaceModel.name`


@dataclass(frozen=True)
class RenderPlan:
    """What decides the images, apart from their number; see the arguments of `iter_renders`.

    Example:
        >>> plan = RenderPlan(seed=0, size=64, images_per_identity=3, identities=2, first_identity=10)
        >>> plan.identity_of(4), plan.identity_of(6)
        ((11, 1), (10, 3))
    """

    seed: int
    size: int
    images_per_identity: int
    identities: int | None
    first_identity: int
    style: str = "standard"

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"`style` must be one of {', '.join(STYLES)}, got {self.style!r}.")
        if not 16 <= self.size <= MAX_SIZE:
            raise ValueError(f"`size` must be from 16 to {MAX_SIZE} pixels, got {self.size}.")
        least = {"seed": 0, "first_identity": 0, "images_per_identity": 1, "identities": 1}
        for name, smallest in least.items():
            if (value := getattr(self, name)) is not None and value < smallest:
                raise ValueError(f"`{name}` must be at least {smallest}, got {value}.")

    def identity_of(self, index: int) -> tuple[int, int]:
        """Return the person and the frame of image `index`. After the last person the first one follows."""
        block = index // self.images_per_identity
        turn, person = divmod(block, self.identities) if self.identities else (0, block)
        return self.first_identity + person, turn * self.images_per_identity + index % self.images_per_identity

    def subject(self, identity_id: int) -> str:
        """Return the name of a person. Identity numbers are namespaced by style."""
        style = "" if self.style == "standard" else f"{self.style}-"
        return f"render-{style}{self.seed}-{identity_id}"

    def render(self, renderers: "Sequence[Renderer]", index: int) -> RenderedFace:
        """Render image `index`. The face models take turns, a person each."""
        identity_id, frame = self.identity_of(index)
        renderer = renderers[identity_id % len(renderers)]
        scene = renderer.sample_scene(self.seed, index, identity_id, style=self.style)
        picture, described = renderer.render(scene), describe_scene(scene, renderer.size)
        known = scene.labels, scene.intensities, scene.side_intensities, picture.points, picture.visible
        return RenderedFace(picture.image, *known, identity_id, index, frame, described, renderer.face_model)


@dataclass(frozen=True)
class RendererSource:
    """How a process gets its renderers.

    Args:
        face_models: One or several. If one of them has photographed skins, many people of the others wear these.
        size: Side of the crops in pixels.
        environments: Folder of panoramas, see `environments.read_environments`; None for drawn light only.
    """

    face_models: Sequence[AnyFaceModel]
    size: int
    environments: str | os.PathLike[str] | None = None

    @classmethod
    def of(
        cls,
        face_model: AnyFaceModel | Sequence[AnyFaceModel],
        size: int,
        environments: str | os.PathLike[str] | None = None,
    ) -> "RendererSource":
        """Take one face model or several."""
        if isinstance(face_model, FaceModel | str | os.PathLike):
            return cls([face_model], size, environments)
        return cls(list(face_model), size, environments)

    def settings(self) -> dict[str, list[str]]:
        """Load everything, so that a wrong path fails early and caches are filled once; return the names."""
        lit_by = read_environments(self.environments).names if self.environments is not None else ()
        return {"face_models": [self._loaded(model).name for model in self.face_models], "environments": list(lit_by)}

    @contextmanager
    def started(self) -> "Iterator[list[Renderer]]":
        """Make renderers for this process, one of each face model."""
        from hf_geaau.synthetic.rendering import Renderer

        lit_by = None if self.environments is None else read_environments(self.environments)
        with ExitStack() as stack:
            models = [self._loaded(model) for model in self.face_models]
            donor = next((model for model in models if model.scans), None)
            renderers = (Renderer(model, self.size, environments=lit_by, donor=donor) for model in models)
            yield [stack.enter_context(closing(renderer)) for renderer in renderers]

    @staticmethod
    def _loaded(model: AnyFaceModel) -> FaceModel:
        return model if isinstance(model, FaceModel) else load_face_model(model)


def iter_renders(
    face_model: AnyFaceModel | Sequence[AnyFaceModel],
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
    environments: str | os.PathLike[str] | None = None,
) -> Iterator[RenderedFace]:
    """Render faces one after another.

    Args:
        face_model: The model or its path, see `load_face_model`; several take turns, a person each.
        count: How many images.
        seed: Decides identities and images.
        size: Side of the crop in pixels.
        identities: How many people share the images. None for a new one after every `images_per_identity` images.
        images_per_identity: Images of one person in a row.
        first_identity: Number of the first person. Disjoint ranges give disjoint people.
        first_image: Number of the first image.
        workers: Processes. With 1, this process renders. Scripts need `if __name__ == "__main__"` for more.
        style: "standard", or "shifted" for people and settings of the renderer that "standard" never shows.
        environments: Folder of panoramas that light half of the images, but for "shifted" ones, see `environments`.
    """
    plan = RenderPlan(seed, size, images_per_identity, identities, first_identity, style)
    tasks = _task_bounds(first_image, first_image + count)
    source = RendererSource.of(face_model, size, environments)
    if workers <= 1:
        with source.started() as renderers:
            yield from (plan.render(renderers, index) for index in range(first_image, first_image + count))
        return
    for faces in run_tasks(source, workers, _render_task, [(plan, *bounds) for bounds in tasks]):
        yield from faces


def render_dataset(
    face_model: AnyFaceModel | Sequence[AnyFaceModel],
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
    environments: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render faces into a folder. An interrupted run resumes where it stopped.

    The folder gets `images/…jpg` and, when all are there, `labels.parquet` with the columns file_name, labels (18),
    intensities (18), side_intensities (36: left and right of each action unit), face_model, subject_id, sequence_id,
    frame, points (10: x, y of the five points in pixels), visible (18: share of each action unit's landmarks that
    nothing hides, see `visibility`), and those of `descriptions.SceneDescription`.

    Args:
        face_model, count, seed, size, identities, images_per_identity, first_identity, workers, style,
            environments: See `iter_renders`.
        output: The folder; made if missing.
        quality: JPEG quality, 1–100.
        progress: Called with images done and in all, after each task.

    Returns:
        The path of the table.

    Raises:
        RenderFolderError: If another process writes to the folder, or it holds other files or renders of other
            settings.
        FaceModelError: If the face model cannot be read.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}.")
    plan, folder = RenderPlan(seed, size, images_per_identity, identities, first_identity, style), Path(output)
    source = RendererSource.of(face_model, size, environments)
    loaded = source.settings()  # A wrong path must not leave a claimed folder behind.
    settings = {"count": count, "quality": quality, "action_units": list(ACTION_UNITS), **asdict(plan), **loaded}
    table = folder / LABELS_FILE
    with FolderClaim(folder, settings, record=SETTINGS_FILE, error=RenderFolderError, content="renders"):
        if not table.is_file():
            _render_to(folder, plan, count, source, workers, quality, progress)
        shutil.rmtree(folder / _PARTS, ignore_errors=True)
    return table


def _render_to(
    folder: Path,
    plan: RenderPlan,
    count: int,
    source: RendererSource,
    workers: int,
    quality: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Render what is missing, and join the parts to the table of labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in (_PARTS, IMAGES):
        (folder / name).mkdir(exist_ok=True)
    parts = {bounds: folder / _PARTS / f"{bounds[0]:08d}.parquet" for bounds in _task_bounds(0, count)}
    missing = [bounds for bounds, part in parts.items() if not part.is_file()]
    done = count - sum(stop - start for start, stop in missing)
    if progress:
        progress(done, count)
    tasks = [(plan, *bounds, folder, quality, parts[bounds]) for bounds in missing]
    for number in run_tasks(source, workers, _write_task, tasks):
        done += number
        if progress:
            progress(done, count)
    with whole_file(folder / LABELS_FILE) as file:
        pq.write_table(pa.concat_tables([pq.read_table(part) for part in parts.values()]), file)


def _task_bounds(start: int, stop: int) -> list[tuple[int, int]]:
    return [(first, min(first + IMAGES_PER_TASK, stop)) for first in range(start, stop, IMAGES_PER_TASK)]


def _write_task(
    renderers: "list[Renderer]", plan: RenderPlan, start: int, stop: int, folder: Path, quality: int, part: Path
) -> int:
    """Write the images `start` to `stop` and the table of their labels, and return their number."""
    import cv2
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats, simple = pa.list_(pa.float32()), {float: pa.float32(), str: pa.string(), bool: pa.bool_()}
    columns = [
        ("file_name", pa.string()), ("labels", floats), ("intensities", floats), ("side_intensities", floats),
        ("subject_id", pa.string()),
        ("sequence_id", pa.string()), ("frame", pa.int32()), ("points", floats), ("visible", floats),
        ("face_model", pa.string()),
        *((name, simple[kind]) for name, kind in get_type_hints(SceneDescription).items()),
    ]  # fmt: skip
    rows = []
    for index in range(start, stop):
        face = plan.render(renderers, index)
        name = f"{IMAGES}/{index:08d}.jpg"
        _, coded = cv2.imencode(".jpg", face.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        with whole_file(folder / name) as file:
            file.write_bytes(coded.tobytes())
        rows.append(
            {
                "file_name": name,
                "labels": face.labels,
                "intensities": face.intensities,
                "side_intensities": face.side_intensities.reshape(-1),
                "subject_id": plan.subject(face.identity_id),
                "sequence_id": "render",
                "frame": face.frame,
                "points": face.points.reshape(-1),
                "visible": face.visible,
                "face_model": face.face_model,
                **asdict(face.description),
            }
        )
    with whole_file(part) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), file)
    return stop - start


def _render_task(renderers: "list[Renderer]", plan: RenderPlan, start: int, stop: int) -> list[RenderedFace]:
    return [plan.render(renderers, index) for index in range(start, stop)]


def run_tasks(
    source: RendererSource, workers: int, work: Callable[..., Result], tasks: Sequence[tuple[Any, ...]]
) -> Iterator[Result]:
    """Call `work(renderers, *task)` for every task, and yield the results in order. With 1 worker, do it here."""
    if workers > 1 and tasks:
        yield from _run_in_processes(source, workers, work, tasks)
    elif tasks:
        with source.started() as renderers:
            for task in tasks:
                yield work(renderers, *task)


# Of a worker process, which ends with them.
_renderers: "list[Renderer] | Exception | None" = None
_open = ExitStack()


def _start_worker(source: RendererSource) -> None:
    import cv2

    global _renderers
    cv2.setNumThreads(1)
    try:
        _renderers = _open.enter_context(source.started())
    except GeaauError as error:  # Raised here, it would only break the pool. The first task raises it.
        _renderers = error


def _work(work: Callable[..., Result], task: tuple[Any, ...]) -> Result:
    if isinstance(_renderers, Exception):
        raise _renderers
    return work(_renderers, *task)


def _single_threaded_children() -> AbstractContextManager[Any]:
    """Let processes started meanwhile use one thread each. One process per core is faster than competing threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
    return environment(**dict.fromkeys(names, "1"))


def _run_in_processes(
    source: RendererSource, workers: int, work: Callable[..., Result], tasks: Sequence[tuple[Any, ...]]
) -> Iterator[Result]:
    """Run a few tasks ahead of the consumer."""
    source.settings()
    context = multiprocessing.get_context("spawn")  # OpenGL and threads do not survive a fork.
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (source,)) as pool,
    ):
        waiting = deque[Future[Result]]()
        try:
            for task in tasks:
                waiting.append(pool.submit(_work, work, task))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
