"""Decode, detect, follow and analyse at the same time, in order, in bounded memory.

One thread decodes ahead and groups frames: a group starts where faces are detected, and its other frames only carry
them on, so that groups are independent and a pool of threads works on several. The caller's thread links the faces,
fills batches across frames, faces and sources, and runs the network.
"""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hf_geaau.errors import GeaauError, PhotoError, VideoError
from hf_geaau.faces import Face
from hf_geaau.photos import read_photo
from hf_geaau.video.decoding import CameraReader, Frame, VideoReader
from hf_geaau.video.sources import Source
from hf_geaau.video.tracking import CutDetector, Smoother, Tracker, carried, follow, look_of

# Frames that wait anywhere may take so much memory: 4K does not need more of it than VGA, only less of a head start.
BYTES_IN_FLIGHT = 256 * 2**20
FRAMES_WAITING = 256

# Measured by `examples/benchmark_video.py --face-model`: see docs/video.md.
DETECT_EVERY = 3


class Network(Protocol):
    """What the stream needs to know about faces; calls come from several threads, `analyse` from one."""

    def find(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find the faces of an RGB image."""

    def crop(self, image: NDArray[np.uint8], points: NDArray[Any]) -> torch.Tensor:
        """Cut aligned crops for (n, 5, 2) points: (n, 3, H, W)."""

    def analyse(self, crops: torch.Tensor) -> Mapping[str, NDArray[Any]]:
        """Give arrays with one row per crop, among them "probabilities"."""


@dataclass(frozen=True)
class Settings:
    """How to go through the sources.

    Attributes:
        every: Take every n-th frame of a video.
        fps: Take about so many frames a second instead.
        detect_every: Detect faces in every k-th of these frames and carry them on in between.
        smooth_s: Time constant of the smoothing over time, in seconds; 0 for none.
        batch_size: Faces per forward pass.
        workers: Threads that detect; None for one per core.
        keep_images: Whether results hold their image.
    """

    every: int = 1
    fps: float | None = None
    detect_every: int = DETECT_EVERY
    smooth_s: float = 0.0
    batch_size: int = 16
    workers: int | None = None
    keep_images: bool = False

    def __post_init__(self) -> None:
        for name in ("every", "detect_every", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"`fps` must be above 0, got {self.fps}.")
        if self.fps is not None and self.every != 1:
            raise ValueError(f"Pass `every` or `fps`, not both, got every={self.every} and fps={self.fps}.")
        if not self.smooth_s >= 0:
            raise ValueError(f"`smooth` must be a time in seconds, 0 or more, got {self.smooth_s}.")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"`workers` must be at least 1, got {self.workers}.")


@dataclass
class SeenFace:
    """One face, its identity in its video (None in a photo), and a row of each of the network's arrays."""

    face: Face
    track: int | None
    values: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass
class SeenFrame:
    """One frame or photo and its faces.

    Attributes:
        place: Which of the sources, from 0.
        source: That source.
        number: Frame number, 0 for a photo.
        time_s: Seconds; None for a photo.
        faces: Largest first where they were detected.
        image: RGB, if `keep_images`.
        missing: Boxes of faces that were there just before, where they should be now.
        checkpoint: Gives what `stream` needs to go on behind this frame, as JSON has it; None where it cannot.
    """

    place: int
    source: Source
    number: int
    time_s: float | None
    faces: list[SeenFace]
    image: NDArray[np.uint8] | None = None
    missing: list[NDArray[Any]] = field(default_factory=list)
    checkpoint: Callable[[], dict[str, Any]] | None = None


@dataclass
class SourceEnd:
    """A source is done.

    Attributes:
        place: Which of the sources.
        source: That source.
        error: Why it gave nothing, or no more.
        notes: What was wrong with it otherwise.
        decoded: Frames in it.
    """

    place: int
    source: Source
    error: GeaauError | None = None
    notes: list[str] = field(default_factory=list)
    decoded: int = 1


@dataclass
class _Group:
    """Frames of one shot: faces are detected in the first. Without frames, a photo that is still to be read."""

    place: int
    source: Source
    frames: list[Frame]
    is_cut: bool = False
    cuts: CutDetector | None = None  # as it was behind the last frame


@dataclass
class _Found:
    """What a worker found in one frame."""

    frame: Frame
    faces: list[Face]
    crops: torch.Tensor | None
    looks: list[NDArray[np.float32]]


class FaceStream:
    """Goes through sources; iterate over `run`.

    Args:
        network: Finds, cuts and analyses faces.
        settings: How.
    """

    def __init__(self, network: Network, settings: Settings) -> None:
        self.network, self.settings = network, settings
        self.workers = settings.workers or os.cpu_count() or 1
        self._in_flight = 0
        self._limit = 2 * settings.batch_size + 2 * self.workers

    def run(
        self, sources: Sequence[Source], done: int = 0, checkpoint: Mapping[str, Any] | None = None
    ) -> Iterator[SeenFrame | SourceEnd]:
        """Give every frame in order, and the end of every source.

        Args:
            sources: What to go through.
            done: How many of them to leave out, being done.
            checkpoint: Where to go on in the first of the rest, from `SeenFrame.checkpoint`.
        """
        stop = threading.Event()
        ahead = _ahead(self._groups(sources, done, checkpoint), stop)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="faces")
        try:
            yield from self._linked(self._searched(ahead, pool), checkpoint)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    # In the decoding thread.

    def _groups(
        self, sources: Sequence[Source], done: int, checkpoint: Mapping[str, Any] | None
    ) -> Iterator[_Group | SourceEnd]:
        for place, source in enumerate(sources):
            if place < done:
                continue
            if source.kind == "photo":
                yield _Group(place, source, [])
                continue
            reader: Any = None
            error = None
            try:
                reader = self._open(source, (checkpoint or {}).get("frame", 0))
                yield from self._shots(place, source, reader, CutDetector((checkpoint or {}).get("cuts")))
            except VideoError as problem:
                error = problem
            finally:
                if reader is not None:
                    reader.close()
            notes, decoded = (reader.notes, reader.decoded) if reader else ([], 0)
            yield SourceEnd(place, source, error, notes, decoded)
            checkpoint = None

    def _open(self, source: Source, start: int) -> VideoReader | CameraReader:
        if source.kind == "webcam":
            return CameraReader(int(source.location), every=self.settings.every)
        return VideoReader(source.location, every=self.settings.every, fps=self.settings.fps, start=start)

    def _shots(self, place: int, source: Source, reader: Iterable[Frame], cuts: CutDetector) -> Iterator[_Group]:
        group = _Group(place, source, [])
        for frame in reader:
            before = copy(cuts)
            is_cut = cuts(frame.image)
            if group.frames and (is_cut or len(group.frames) == self.settings.detect_every):
                group.cuts = before
                yield group
                group = _Group(place, source, [])
            group.is_cut |= is_cut
            group.frames.append(frame)
        if group.frames:
            group.cuts = copy(cuts)
            yield group

    # In the pool.

    def _search(self, group: _Group) -> list[_Found] | PhotoError:
        if not group.frames:
            try:
                image = np.asarray(read_photo(group.source.location))
                return [self._cut_out(Frame(0, None, image), self.network.find(image), with_looks=False)]
            except PhotoError as error:
                return error
        faces = self.network.find(group.frames[0].image)
        found = [self._cut_out(group.frames[0], faces)]
        for before, frame in zip(group.frames, group.frames[1:], strict=False):
            faces = _carried_on(before.image, frame.image, found[-1].faces) if found[-1].faces else []
            found.append(self._cut_out(frame, faces))
        return found

    def _cut_out(self, frame: Frame, faces: list[Face], with_looks: bool = True) -> _Found:
        size = frame.image.shape[1::-1]
        faces = [face for face in faces if _can_be_cut_out(face.points, size)]
        crops = self.network.crop(frame.image, np.stack([face.points for face in faces])) if faces else None
        looks = [look_of(frame.image, face.points) for face in faces] if with_looks else []
        kept = frame if self.settings.keep_images else frame._replace(image=np.empty((0, 0, 3), np.uint8))
        return _Found(kept, faces, crops, looks)

    # In the caller's thread.

    def _searched(
        self, groups: Iterator[_Group | SourceEnd], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[_Group, list[_Found] | PhotoError] | SourceEnd]:
        """Keep the pool busy, and give its results in order."""
        pending: deque[tuple[_Group, Future, int] | SourceEnd] = deque()
        size = 0
        for group in groups:
            if isinstance(group, SourceEnd):
                pending.append(group)
            else:
                weight = sum(frame.image.nbytes for frame in group.frames)
                pending.append((group, pool.submit(self._search, group), weight))
                size += weight
            is_live = not isinstance(group, SourceEnd) and group.source.kind == "webcam"
            while pending and (size > BYTES_IN_FLIGHT or len(pending) > self._limit or is_live or _is_done(pending[0])):
                size -= 0 if isinstance(pending[0], SourceEnd) else pending[0][2]
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())

    def _linked(
        self,
        searched: Iterator[tuple[_Group, list[_Found] | PhotoError] | SourceEnd],
        checkpoint: Mapping[str, Any] | None,
    ) -> Iterator[SeenFrame | SourceEnd]:
        """Give faces identities, gather batches, and hand frames on when their faces are analysed."""
        batch = _Batch(self.network, self.settings)
        batch.smoother = Smoother(self.settings.smooth_s, (checkpoint or {}).get("smoother"))
        tracker, here = Tracker((checkpoint or {}).get("tracker")), -1
        for item in searched:
            if isinstance(item, SourceEnd):
                batch.add(item)
            else:
                group, found = item
                if here not in (-1, group.place):
                    tracker = Tracker()
                here = group.place
                for seen, crops in _seen(group, found, tracker):
                    batch.add(seen, crops)
            is_live = not isinstance(item, SourceEnd) and item[0].source.kind == "webcam"
            if batch.is_full or is_live:
                yield from batch.flush()
        yield from batch.flush()


class _Batch:
    """Frames that wait for the network, and the crops of their faces."""

    def __init__(self, network: Network, settings: Settings) -> None:
        self.network, self.size = network, settings.batch_size
        self.smoother = Smoother(settings.smooth_s)
        self._place = -1
        self._waiting: list[SeenFrame | SourceEnd] = []
        self._crops: list[torch.Tensor] = []
        self._faces = self._bytes = 0

    def add(self, seen: SeenFrame | SourceEnd, crops: torch.Tensor | None = None) -> None:
        """Append a frame with the crops of its faces, or an end."""
        self._waiting.append(seen)
        if crops is not None:
            self._crops.append(crops)
            self._faces += len(crops)
        if isinstance(seen, SeenFrame) and seen.image is not None:
            self._bytes += seen.image.nbytes

    @property
    def is_full(self) -> bool:
        """Whether it is time to run the network."""
        is_long = len(self._waiting) >= FRAMES_WAITING or self._bytes > BYTES_IN_FLIGHT
        return is_long or self._faces >= self.size

    def flush(self) -> Iterator[SeenFrame | SourceEnd]:
        """Run the network over all crops, and give the frames in order."""
        waiting, rows = self._waiting, self._analysed(self._crops)
        self._waiting, self._crops, self._faces, self._bytes = [], [], 0, 0
        for seen in waiting:
            if isinstance(seen, SeenFrame):
                self._fill(seen, rows)
            yield seen

    def _analysed(self, waiting: list[torch.Tensor]) -> Iterator[dict[str, NDArray[Any]]]:
        if not waiting:
            return
        crops = torch.cat(waiting)
        for part in crops.tensor_split(max(1, round(len(crops) / self.size))):
            arrays = self.network.analyse(part)
            for row in range(len(part)):
                yield {name: values[row] for name, values in arrays.items()}

    def _fill(self, seen: SeenFrame, rows: Iterator[dict[str, NDArray[Any]]]) -> None:
        if seen.place != self._place:
            if self._place != -1:
                self.smoother = Smoother(self.smoother.seconds)
            self._place = seen.place
        for face in seen.faces:
            face.values = next(rows)
            if face.track is not None and seen.time_s is not None:
                for name in ("probabilities", "intensities"):
                    if name in face.values:
                        face.values[name] = self.smoother(face.track, seen.time_s, face.values[name])
        if seen.checkpoint is not None:
            seen.checkpoint = _with_smoother(seen.checkpoint, copy(self.smoother))


def _with_smoother(checkpoint: Callable[[], dict[str, Any]], smoother: Smoother) -> Callable[[], dict[str, Any]]:
    return lambda: {**checkpoint(), "smoother": smoother.state()}


def _seen(
    group: _Group, found: list[_Found] | PhotoError, tracker: Tracker
) -> Iterator[tuple[SeenFrame | SourceEnd, torch.Tensor | None]]:
    """Turn what workers found into frames whose faces have identities."""
    if isinstance(found, PhotoError):
        yield SourceEnd(group.place, group.source, found), None
        return
    if group.is_cut:
        tracker.cut()
    for here in found:
        frame, image = here.frame, here.frame.image if here.frame.image.size else None
        seen = SeenFrame(group.place, group.source, frame.number, frame.time_s, [], image)
        tracks: Sequence[int | None] = [None] * len(here.faces)
        if frame.time_s is not None:
            tracks = tracker.update(frame.time_s, here.faces, here.looks)
            seen.missing = tracker.missing(frame.time_s)
        seen.faces = [SeenFace(face, track) for face, track in zip(here.faces, tracks, strict=True)]
        if here is found[-1] and group.cuts is not None:
            seen.checkpoint = _checkpoint(frame.number + 1, group.cuts, copy(tracker))
        yield seen, here.crops
    if group.source.kind == "photo":
        yield SourceEnd(group.place, group.source), None


def _checkpoint(frame: int, cuts: CutDetector, tracker: Tracker) -> Callable[[], dict[str, Any]]:
    return lambda: {"frame": frame, "cuts": cuts.state(), "tracker": tracker.state()}


def _carried_on(before: NDArray[np.uint8], after: NDArray[np.uint8], faces: list[Face]) -> list[Face]:
    """Carry faces to the next frame; those that are lost are left out."""
    import cv2

    grey, next_grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after))
    moved = [(face, follow(grey, next_grey, face.points)) for face in faces]
    size = after.shape[1], after.shape[0]
    return [carried(face, points, size) for face, points in moved if points is not None]


def _can_be_cut_out(points: NDArray[Any], size: tuple[int, ...]) -> bool:
    """Whether the image processor takes these points: in the picture, and not on one line."""
    middle = points.mean(0)
    eyes, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
    is_inside = bool(((middle >= 0) & (middle < size)).all())
    return is_inside and bool(eyes[0] * down[1] - eyes[1] * down[0] >= 1)


def _is_done(item: "tuple[_Group, Future, int] | SourceEnd") -> bool:
    return isinstance(item, SourceEnd) or item[1].done()


def _result(
    item: "tuple[_Group, Future, int] | SourceEnd",
) -> "tuple[_Group, list[_Found] | PhotoError] | SourceEnd":
    return item if isinstance(item, SourceEnd) else (item[0], item[1].result())


def _ahead(items: Iterator[Any], stop: threading.Event, depth: int = 4) -> Iterator[Any]:
    """Run an iterator in a thread of its own, a few items ahead; its exceptions come out here."""
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)

    def put(is_end: bool, item: Any) -> None:
        while not stop.is_set():
            try:
                return waiting.put((is_end, item), timeout=0.1)
            except queue.Full:
                pass
        raise InterruptedError

    def work() -> None:
        try:
            for item in items:
                put(False, item)
            put(True, None)
        except InterruptedError:
            items.close()  # type: ignore[attr-defined]
        except BaseException as error:  # it must come out in the caller's thread, whatever it is
            put(True, error)

    threading.Thread(target=work, name="decoding", daemon=True).start()
    while True:
        is_end, item = waiting.get()
        if is_end and item is not None:
            raise item
        if is_end:
            return
        yield item
