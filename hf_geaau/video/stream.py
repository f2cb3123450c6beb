"""Decode, detect, follow and analyse at the same time, in order, in bounded memory.

One thread decodes ahead and groups frames: a group starts where faces are detected, and its other frames only carry
them on, so that groups are independent. The caller's thread links the faces and fills batches across frames, faces and
sources. A pool with one thread per core works on groups and batches alike, whichever come first; so no core waits,
whether detection or the network takes longer.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hf_geaau.errors import GeaauError, PhotoError, VideoError
from hf_geaau.faces import Face
from hf_geaau.faces.photos import read_photo
from hf_geaau.video.decoding import CameraReader, Frame, VideoReader
from hf_geaau.video.sources import Source
from hf_geaau.video.tracking import CutDetector, Smoother, Tracker, carried, follow, look_of

# Frames that wait anywhere may take so much memory: 4K does not need more of it than VGA, only less of a head start.
BYTES_IN_FLIGHT = 256 * 2**20
FRAMES_WAITING = 256
CLOSING_S = 5.0  # for the decoding thread to end

# Measured by `examples/benchmark_video.py --face-model`: see docs/video.md.
DETECT_EVERY = 3

Row = dict[str, NDArray[Any]]  # what the network says of one face


class Network(Protocol):
    """What the stream needs to know about faces; calls come from several threads at once."""

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
        detect_every: Detect faces in every k-th of these frames and carry them on in between; None for every third,
            or, where frames are left out, every one: faces are carried on over so short a time only.
        smooth_s: Time constant of the smoothing over time, in seconds; 0 for none.
        batch_size: Faces per forward pass.
        workers: Threads that detect and analyse; None for one per core.
        keep_images: Whether results hold their image.
    """

    every: int = 1
    fps: float | None = None
    detect_every: int | None = None
    smooth_s: float = 0.0
    batch_size: int = 16
    workers: int | None = None
    keep_images: bool = False

    def __post_init__(self) -> None:
        for name in ("every", "detect_every", "batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"`fps` must be above 0, got {self.fps}.")
        if self.fps is not None and self.every != 1:
            raise ValueError(f"Pass `every` or `fps`, not both, got every={self.every} and fps={self.fps}.")
        if not self.smooth_s >= 0:
            raise ValueError(f"`smooth` must be a time in seconds, 0 or more, got {self.smooth_s}.")

    @property
    def stride(self) -> int:
        """In every how many of the frames that are taken faces are detected."""
        return self.detect_every or (DETECT_EVERY if self.every == 1 and self.fps is None else 1)


@dataclass
class SeenFace:
    """One face, its identity in its video (None in a photo), and a row of each of the network's arrays."""

    face: Face
    track: int | None
    values: Row = field(default_factory=dict)


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
        self.workers = settings.workers or cores()

    def run(
        self, sources: Sequence[Source], done: int = 0, checkpoint: Mapping[str, Any] | None = None
    ) -> Iterator[SeenFrame | SourceEnd]:
        """Give every frame in order, and the end of every source.

        Args:
            sources: What to go through.
            done: How many of them to leave out, being done.
            checkpoint: Where to go on in the first of the rest, from `SeenFrame.checkpoint`.
        """
        ahead = _Ahead(2 * self.settings.batch_size + 2 * self.workers)
        with _own_threads_only():
            pool = ThreadPoolExecutor(self.workers, "faces", initializer=torch.set_num_threads, initargs=(1,))
            groups = self._groups(sources, done, checkpoint)
            decoding = threading.Thread(target=self._decode, args=(groups, ahead, pool), name="decoding", daemon=True)
            decoding.start()
            try:
                yield from self._linked(ahead, pool, checkpoint)
            finally:
                ahead.close()
                pool.shutdown(wait=True, cancel_futures=True)
                decoding.join(CLOSING_S)  # a camera or a stream from the net may keep it waiting; it is a daemon

    # In the decoding thread.

    def _decode(self, groups: Generator[_Group | SourceEnd], ahead: "_Ahead", pool: ThreadPoolExecutor) -> None:
        """Hand groups to the pool as long as there is room; what goes wrong comes out in the caller's thread."""
        try:
            for group in groups:
                if isinstance(group, SourceEnd):
                    is_wanted = ahead.wait_for_room() and ahead.put(group)
                else:
                    weight = self._weight(group)
                    is_wanted = ahead.wait_for_room(weight) and ahead.put(
                        (group, pool.submit(self._search, group)), weight
                    )
                if not is_wanted:
                    break
            ahead.put(None)
        except BaseException as error:
            ahead.put(error)
        finally:
            groups.close()

    def _weight(self, group: _Group) -> int:
        """How many bytes wait with a group: a few photos and groups of a camera fill all there is room for."""
        if group.source.kind == "video":
            return sum(frame.image.nbytes for frame in group.frames)
        if group.source.kind == "webcam":
            return BYTES_IN_FLIGHT // 2  # what is shown should be now
        return BYTES_IN_FLIGHT // (2 * self.workers) if self.settings.keep_images else 0

    def _groups(
        self, sources: Sequence[Source], done: int, checkpoint: Mapping[str, Any] | None
    ) -> Generator[_Group | SourceEnd]:
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
            return CameraReader(int(source.location), every=self.settings.every, fps=self.settings.fps)
        return VideoReader(source.location, every=self.settings.every, fps=self.settings.fps, start=start)

    def _shots(self, place: int, source: Source, reader: Iterable[Frame], cuts: CutDetector) -> Iterator[_Group]:
        group = _Group(place, source, [])
        for frame in reader:
            before = copy(cuts)
            is_cut = cuts(frame.image)
            if group.frames and (is_cut or len(group.frames) >= self._length(frame)):
                group.cuts = before
                yield group
                group = _Group(place, source, [])
            group.is_cut |= is_cut
            group.frames.append(frame)
        if group.frames:
            group.cuts = copy(cuts)
            yield group

    def _length(self, frame: Frame) -> int:
        """How many frames a group has: as asked, unless they are so large that a few fill the memory."""
        return min(self.settings.stride, max(1, BYTES_IN_FLIGHT // (2 * frame.image.nbytes)))

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
            faces = _carried_on(before.image, frame.image, found[-1].faces)
            if len(faces) < len(found[-1].faces):  # someone moved too fast, turned away or left
                faces = self.network.find(frame.image)
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

    def _linked(
        self, ahead: "_Ahead", pool: ThreadPoolExecutor, checkpoint: Mapping[str, Any] | None
    ) -> Iterator[SeenFrame | SourceEnd]:
        """Give faces identities, gather batches, and hand frames on when their faces are analysed."""
        state = checkpoint or {}
        smoother = Smoother(self.settings.smooth_s, state.get("smoother"))
        batches = _Batches(self.network, pool, self.workers, self.settings.batch_size, smoother)
        tracker, here = Tracker(state.get("tracker")), -1
        while (item := ahead.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, SourceEnd):
                batches.add(item)
                continue
            group, future = item
            found = future.result()
            if here not in (-1, group.place):
                tracker = Tracker()
            here = group.place
            for seen, crops in _seen(group, found, tracker):
                batches.add(seen, crops)
            yield from batches.done(is_last=group.source.kind == "webcam")
        yield from batches.done(is_last=True)


class _Ahead:
    """What the decoding thread is ahead of the caller's: so many items, of so many bytes together, but one at least.

    Args:
        most: Items.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: deque[tuple[Any, int]] = deque()
        self._change = threading.Condition()
        self._is_closed = False

    def wait_for_room(self, weight: int = 0) -> bool:
        """Wait until an item of so many bytes fits in; False if nobody takes items any more."""
        with self._change:
            self._change.wait_for(lambda: self._is_closed or self._fits(weight))
            return not self._is_closed

    def _fits(self, weight: int) -> bool:
        held = sum(each for _, each in self._items)
        return not self._items or (len(self._items) < self._most and held + weight <= BYTES_IN_FLIGHT)

    def put(self, item: Any, weight: int = 0) -> bool:
        """Append an item; True, so that calls can be chained."""
        with self._change:
            self._items.append((item, weight))
            self._change.notify_all()
        return True

    def get(self) -> Any:
        """Take the first item, when it is there."""
        with self._change:
            self._change.wait_for(lambda: self._items)
            item, _ = self._items.popleft()
            self._change.notify_all()
            return item

    def close(self) -> None:
        """Let whoever waits for room go."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()


class _Batches:
    """Frames that wait for the network; it runs in the pool, a batch per thread, so that no core is idle."""

    def __init__(self, network: Network, pool: ThreadPoolExecutor, workers: int, size: int, smoother: Smoother) -> None:
        self.network, self.pool, self.workers, self.size, self.smoother = network, pool, workers, size, smoother
        self._place = -1
        self._waiting: list[SeenFrame | SourceEnd] = []
        self._crops: list[torch.Tensor] = []
        self._sent: deque[tuple[list[SeenFrame | SourceEnd], Future[list[Row]]]] = deque()

    def add(self, seen: SeenFrame | SourceEnd, crops: torch.Tensor | None = None) -> None:
        """Append a frame with the crops of its faces, or an end."""
        self._waiting.append(seen)
        if crops is not None:
            self._crops.append(crops)

    def done(self, is_last: bool) -> Iterator[SeenFrame | SourceEnd]:
        """Start what is full, and give in order the frames that are analysed; the last batch need not be full."""
        is_full = len(self._waiting) >= FRAMES_WAITING or _bytes(self._waiting) > BYTES_IN_FLIGHT // 4
        if is_last or is_full or sum(map(len, self._crops)) >= self.size:
            self._sent.append((self._waiting, self.pool.submit(self._analysed, self._crops)))
            self._waiting, self._crops = [], []
        while self._sent and (is_last or self._is_much() or self._sent[0][1].done()):
            waiting, future = self._sent.popleft()
            rows = iter(future.result())
            for seen in waiting:
                if isinstance(seen, SeenFrame):
                    self._fill(seen, rows)
                yield seen

    def _is_much(self) -> bool:
        """Whether frames must be given before more are taken. A batch per thread, and one to follow, is enough."""
        held = sum(_bytes(waiting) for waiting, _ in self._sent)
        return len(self._sent) > self.workers + 1 or held > BYTES_IN_FLIGHT

    def _analysed(self, waiting: list[torch.Tensor]) -> list[Row]:
        if not waiting:
            return []
        crops = torch.cat(waiting)
        parts = crops.tensor_split(max(1, round(len(crops) / self.size)))
        analysed = [(self.network.analyse(part), len(part)) for part in parts]
        return [{name: values[row] for name, values in arrays.items()} for arrays, n in analysed for row in range(n)]

    def _fill(self, seen: SeenFrame, rows: Iterator[Row]) -> None:
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


def _bytes(waiting: list[SeenFrame | SourceEnd]) -> int:
    images = [seen.image for seen in waiting if isinstance(seen, SeenFrame) and seen.image is not None]
    return sum(image.nbytes for image in images)


def cores() -> int:
    """How many cores this process may use; a cluster may grant fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _own_threads_only() -> Iterator[None]:
    """Keep the libraries from threads of their own meanwhile: with one task per core, they only get in the way."""
    import cv2

    threads, torch_threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        torch.set_num_threads(torch_threads)  # the pool's initializer also changed it for threads to come


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
    if not faces:
        return []
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
