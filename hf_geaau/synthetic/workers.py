"""Run rendering tasks in this process or in several, each with a renderer of its own."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hf_geaau.errors import GeaauError
from hf_geaau.synthetic.face_model import FaceModel, load_face_model

if TYPE_CHECKING:
    from hf_geaau.synthetic.rendering import Renderer

Result = TypeVar("Result")
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class RendererSource:
    """How a process gets its renderer.

    Attributes:
        face_model: The model or its path, see `load_face_model`.
        size: Side of the crop in pixels.
    """

    face_model: FaceModel | str | os.PathLike[str]
    size: int

    def check(self) -> None:
        """Load the face model if it is a path, so that a wrong one fails early and the cache is filled once."""
        if not isinstance(self.face_model, FaceModel):
            load_face_model(self.face_model)

    def start(self) -> "Renderer":
        """Make a renderer for this process."""
        from hf_geaau.synthetic.rendering import Renderer

        model = self.face_model
        return Renderer(model if isinstance(model, FaceModel) else load_face_model(model), self.size)


def run_tasks(
    source: RendererSource, workers: int, work: Callable[..., Result], tasks: Sequence[Arguments]
) -> Iterator[Result]:
    """Call `work(renderer, *task)` for every task, and yield the results in order.

    Args:
        source: Makes the renderer of each process.
        workers: Processes. With 1, this process renders.
        work: A function that other processes can import.
        tasks: Its arguments after the renderer.
    """
    if workers > 1 and tasks:
        yield from _run_in_processes(source, workers, work, tasks)
    elif tasks:
        with closing(source.start()) as renderer:
            for task in tasks:
                yield work(renderer, *task)


_renderer: "Renderer | Exception | None" = None  # Of a worker process.


def _start_worker(source: RendererSource) -> None:
    import cv2

    global _renderer
    cv2.setNumThreads(1)
    try:
        _renderer = source.start()
    except GeaauError as error:  # Raised here, it would only break the pool. The first task raises it.
        _renderer = error


def _work(work: Callable[..., Result], task: Arguments) -> Result:
    if isinstance(_renderer, Exception):
        raise _renderer
    return work(_renderer, *task)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let processes started meanwhile use one thread each. One process per core is faster than competing threads."""
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


def _run_in_processes(
    source: RendererSource, workers: int, work: Callable[..., Result], tasks: Sequence[Arguments]
) -> Iterator[Result]:
    """Run a few tasks ahead of the consumer."""
    source.check()
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
