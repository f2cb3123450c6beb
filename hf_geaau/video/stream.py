"""Decode, detect, follow and analyze at the same time, in order, in bounded memory.

One thread decodes ahead and groups frames. The first frame of a group is searched as a whole; in the others its faces
are carried on or found again where they were, so groups are independent of each other. The caller's thread links the
faces over time and fills batches across frames, faces and sources. A pool with one thread per core works on groups and
batches alike, in the order in which they arrive, so that no core waits, whether detection or the network takes longer.
"""

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import GeaauError, PhotoError, VideoError
from hf_geaau.faces import Face, can_be_aligned
from hf_geaau.faces.photos import load_photo
from hf_geaau.inference import FaceAnalyzer, assessed
from hf_geaau.video.decoding import CameraReader, Frame, VideoReader
from hf_geaau.video.frames import PictureReader, open_video
from hf_geaau.video.sources import Source
from hf_geaau.video.tracking import CutDetector, Smoother, Tracker, appearance_of, follow_points, move_face

# Limits on what waits between threads: by bytes, so that 4K takes no more memory than VGA, and by number.
BYTES_IN_FLIGHT = 256 * 2**20
FRAMES_WAITING = 256
CLOSING_S = 5.0  # how long to wait for the decoding thread to end

# Measured by benchmarks/video.py with --face-model: see docs/photos_and_videos.md.
DETECT_EVERY = 3
LATEST_S = 0.335  # after which a new face is seen: every ninth frame is searched at 24, 25 or 30 a second


@dataclass(frozen=True)
class Settings:
    """How to process sources.

    Attributes:
        every: Take every n-th frame of a video.
        fps: Take about this many frames per second instead; of frames without times, numbered files, their rate.
        start_s: Leave out what comes before this time of a video, in seconds.
        end_s: Stop at this time of a video; None for its end.
        detect_every: Search every k-th of these frames for faces and carry them on in between. None: search about three
            a second, and find known faces again in every third frame; where frames are left out search every one,
            because faces can be carried on over a short time only.
        smooth_s: Time constant of the smoothing over time, in seconds; 0 for none.
        batch_size: Faces per forward pass; None for what suits the runner.
        workers: Threads that detect and analyze; None for one per core.
        keep_images: Whether results hold their image.
    """

    every: int = 1
    fps: float | None = None
    detect_every: int | None = None
    smooth_s: float = 0.0
    batch_size: int | None = None
    workers: int | None = None
    keep_images: bool = False
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("every", "detect_every", "batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"`fps` must be a number above 0, got {self.fps}.")
        if self.fps is not None and self.every != 1:
            raise ValueError(f"Pass `every` or `fps`, not both, got every={self.every} and fps={self.fps}.")
        if not self.smooth_s >= 0:
            raise ValueError(f"`smooth_s` must be at least 0 seconds, got {self.smooth_s}.")
        if self.end_s is not None and not self.end_s > self.start_s:
            raise ValueError(f"`end_s` must be above `start_s`, {self.start_s:g} seconds, got {self.end_s:g}.")

    @property
    def stride(self) -> int:
        """Number of frames from one detection of faces to the next."""
        return self.detect_every or (DETECT_EVERY if self.every == 1 and self.fps is None else 1)

    @property
    def latest_s(self) -> float:
        """Seconds after which a new face is seen at worst; 0 to search the whole frame in every detection."""
        return LATEST_S if self.detect_every is None and self.stride > 1 else 0.0


@dataclass
class AnalyzedFrame:
    """One frame or photo and its faces.

    Attributes:
        source_index: Position of the source among all sources.
        source: Where it comes from.
        number: Frame number, 0 for a photo.
        time_s: Seconds since the first frame; None for a photo.
        faces: Largest first where they were detected.
        image: (H, W, 3) RGB, if `Settings.keep_images`.
        missing: Expected boxes, xyxy in pixels, of faces that were visible just before and are not now.
        checkpoint: Returns the state that `FaceStream.run` needs to continue after this frame, as JSON expresses it;
            None where it cannot continue.
    """

    source_index: int
    source: Source
    number: int
    time_s: float | None
    faces: list[Face]
    image: NDArray[np.uint8] | None = None
    missing: list[NDArray[Any]] = field(default_factory=list)
    checkpoint: Callable[[], dict[str, Any]] | None = None


@dataclass
class SourceEnd:
    """The end of a source; its frames came before.

    Attributes:
        source_index: Position of the source among all sources.
        source: Which one.
        error: Why it gave nothing, or nothing further.
        notes: What else was wrong with it.
        decoded: Number of frames in it.
    """

    source_index: int
    source: Source
    error: GeaauError | None = None
    notes: list[str] = field(default_factory=list)
    decoded: int = 1


@dataclass
class _Group:
    """Frames of one shot: the first is searched as a whole. Without frames, a photo that is still to be read."""

    source_index: int
    source: Source
    frames: list[Frame]
    is_cut: bool = False
    cuts: CutDetector | None = None  # its state after the last frame
    notes: list[str] = field(default_factory=list)


@dataclass
class _DetectedFrame:
    frame: Frame
    faces: list[Face]
    crops: NDArray[np.uint8] | None
    looks: list[NDArray[np.float32]]


class FaceStream:
    """Run a `FaceAnalyzer` over photos, videos and cameras.

    Args:
        analyzer: Finds, cuts out and analyzes faces.
        settings: How to process the sources.
    """

    def __init__(self, analyzer: FaceAnalyzer, settings: Settings | None = None) -> None:
        self.analyzer, self.settings = analyzer, settings or Settings()
        self.batch_size = self.settings.batch_size or analyzer.batch_size
        if analyzer.aligned:  # a crop's face fills it, so it needs neither detection nor carrying on
            self.settings = replace(self.settings, detect_every=1)
        self.workers = self.settings.workers or cores()
        self._failed: dict[int, GeaauError] = {}  # by the index of the source, until its end is reported

    def run(
        self, sources: Iterable[Source], done: int = 0, checkpoint: Mapping[str, Any] | None = None
    ) -> Generator[AnalyzedFrame | SourceEnd]:
        """Yield every frame in order, and the end of every source.

        Whatever goes wrong while a source is opened, decoded, searched for faces or analyzed becomes the error of its
        end; the other sources go on.

        Args:
            sources: What to process. An iterator is consumed in another thread, a limited number of sources ahead.
            done: Number of sources to skip because they are done.
            checkpoint: Where to continue in the first source that is left, from `AnalyzedFrame.checkpoint`.
        """
        self._failed.clear()  # of an earlier run that nobody saw to its end
        ahead = _Ahead(2 * self.batch_size + 2 * self.workers)
        with _single_threaded_libraries():
            pool = ThreadPoolExecutor(self.workers, "faces", initializer=_use_one_thread)
            groups = self._groups(sources, done, checkpoint)
            decoding = threading.Thread(target=self._decode, args=(groups, ahead, pool), name="decoding", daemon=True)
            decoding.start()
            try:
                yield from self._linked(ahead, pool, checkpoint)
            finally:
                ahead.close()
                pool.shutdown(wait=True, cancel_futures=True)
                decoding.join(CLOSING_S)  # a camera or a network stream may keep it waiting; it is a daemon thread

    # In the decoding thread.

    def _decode(self, groups: Generator[_Group | SourceEnd], ahead: "_Ahead", pool: ThreadPoolExecutor) -> None:
        """Hand groups to the pool while there is room; errors are raised in the caller's thread."""
        try:
            for group in groups:
                weight = 0 if isinstance(group, SourceEnd) else self._weight(group)
                if not ahead.wait_for_room(weight):
                    break
                ahead.put(group if isinstance(group, SourceEnd) else (group, pool.submit(self._detect, group)), weight)
            ahead.put(None)
        except BaseException as error:
            ahead.put(error)
        finally:
            groups.close()

    def _weight(self, group: _Group) -> int:
        """Return the bytes to count for a group; some kinds count more, so that fewer of them wait."""
        if group.source.kind == "video":
            return sum(frame.image.nbytes for frame in group.frames)
        if group.source.kind == "webcam":
            return BYTES_IN_FLIGHT // 2  # a camera's frames should be shown without delay
        kept = BYTES_IN_FLIGHT // (2 * self.workers) if self.settings.keep_images else 0
        return max(kept, int(getattr(group.source.location, "nbytes", 0)))  # arrays and tensors hold their pixels

    def _groups(
        self, sources: Iterable[Source], done: int, checkpoint: Mapping[str, Any] | None
    ) -> Generator[_Group | SourceEnd]:
        for index, source in islice(enumerate(sources), done, None):
            if source.kind == "photo":
                yield _Group(index, source, [])
                continue
            reader: VideoReader | PictureReader | CameraReader | None = None
            error = None
            try:
                reader = self._open(source, (checkpoint or {}).get("frame", 0))
                yield from self._shots(index, source, reader, CutDetector((checkpoint or {}).get("cuts")))
            except Exception as problem:
                error = failure(source, problem)
            finally:
                if reader is not None:
                    reader.close()
            notes, decoded = (reader.notes, reader.decoded) if reader else ([], 0)
            yield SourceEnd(index, source, error, notes, decoded)
            checkpoint = None

    def _open(self, source: Source, start: int) -> VideoReader | PictureReader | CameraReader:
        chosen, where = self.settings, source.location
        if source.kind == "webcam":
            return CameraReader(int(where), every=chosen.every, fps=chosen.fps)
        return open_video(
            where, every=chosen.every, fps=chosen.fps, start=start, start_s=chosen.start_s, end_s=chosen.end_s
        )

    def _shots(self, index: int, source: Source, reader: Iterable[Frame], cuts: CutDetector) -> Iterator[_Group]:
        group = _Group(index, source, [])
        for frame in reader:
            if index in self._failed:
                return
            before = copy(cuts)
            is_cut = cuts(frame.image)
            if group.frames and (is_cut or self._is_whole(group, frame)):
                group.cuts = before
                yield group
                group = _Group(index, source, [])
            group.is_cut |= is_cut
            group.frames.append(frame)
        if group.frames:
            group.cuts = copy(cuts)
            yield group

    def _is_whole(self, group: _Group, following: Frame) -> bool:
        """Return whether the following frame begins a new group, because it is due or frames are large."""
        count, stride = len(group.frames), self.settings.stride
        if count >= BYTES_IN_FLIGHT // (2 * following.image.nbytes):
            return True
        if count % stride:
            return False
        start_s, end_s = group.frames[0].time_s, following.time_s
        if group.source.kind == "webcam" or start_s is None or end_s is None:  # a camera's frames are shown at once
            return True
        # How late a new face would be seen if the group went on for another stride.
        late_s = (end_s - start_s) * (count + stride - 1) / count
        return late_s >= self.settings.latest_s

    # In the pool.

    def _detect(self, group: _Group) -> list[_DetectedFrame] | GeaauError:
        try:
            return self._detected(group)
        except Exception as error:  # of a reader, OpenCV or the processor, or no memory: it must not end other sources
            return failure(group.source, error)

    def _detected(self, group: _Group) -> list[_DetectedFrame]:
        if not group.frames:
            photo, group.notes = load_photo(group.source.location)
            image = np.asarray(photo)
            return [self._cut_out(Frame(0, None, image), self.analyzer.find(image), with_looks=False)]
        detected = [self._cut_out(group.frames[0], self.analyzer.find(group.frames[0].image))]
        for number, (before, frame) in enumerate(pairwise(group.frames), 1):
            known = detected[-1].faces
            if known and number % self.settings.stride == 0:
                faces = self.analyzer.find(frame.image, near=known)
            else:
                faces = carry_on(before.image, frame.image, known)
            if len(faces) < len(known):  # someone moved too fast, turned away or left
                faces = self.analyzer.find(frame.image)
            size = frame.image.shape[1], frame.image.shape[0]
            faces = [assessed(face, size) for face in faces if can_be_aligned(face.points, size)]
            detected.append(self._cut_out(frame, faces))
        return detected

    def _cut_out(self, frame: Frame, faces: list[Face], with_looks: bool = True) -> _DetectedFrame:
        crops = self.analyzer.crop(frame.image, faces) if faces else None
        looks = [appearance_of(frame.image, face.points) for face in faces] if with_looks else []
        kept = frame if self.settings.keep_images else frame._replace(image=np.empty((0, 0, 3), np.uint8))
        return _DetectedFrame(kept, faces, crops, looks)

    # In the caller's thread.

    def _linked(
        self, ahead: "_Ahead", pool: ThreadPoolExecutor, checkpoint: Mapping[str, Any] | None
    ) -> Iterator[AnalyzedFrame | SourceEnd]:
        """Give faces identities, fill batches, and yield frames when their faces are analyzed."""
        state = checkpoint or {}
        batches = _Batches(self, pool, Smoother(self.settings.smooth_s, state.get("smoother")))
        tracker, current = Tracker(state.get("tracker")), -1
        while (item := ahead.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, SourceEnd):
                batches.add(item)
                continue
            group, future = item
            if current not in (-1, group.source_index):
                tracker = Tracker()
            current = group.source_index
            detected = future.result()
            if isinstance(detected, GeaauError):
                self._failed.setdefault(current, detected)
                detected = []
            for frame, crops in _identified(group, detected, tracker):
                batches.add(frame, crops)
            yield from batches.done(is_last=group.source.kind == "webcam")
        yield from batches.done(is_last=True)


class _Ahead:
    """The queue from the decoding thread to the caller's, bounded by number and bytes; one item always fits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[tuple[Any, int]] = deque()
        self._change = threading.Condition()
        self._is_closed = False

    def wait_for_room(self, weight: int) -> bool:
        """Wait until an item of `weight` bytes fits; return False if the queue is closed."""
        with self._change:
            self._change.wait_for(lambda: self._is_closed or self._fits(weight))
            return not self._is_closed

    def _fits(self, weight: int) -> bool:
        held = sum(each for _, each in self._items)
        return not self._items or (len(self._items) < self._limit and held + weight <= BYTES_IN_FLIGHT)

    def put(self, item: Any, weight: int = 0) -> None:
        with self._change:
            self._items.append((item, weight))
            self._change.notify_all()

    def get(self) -> Any:
        with self._change:
            self._change.wait_for(lambda: self._items)
            item, _ = self._items.popleft()
            self._change.notify_all()
            return item

    def close(self) -> None:
        with self._change:
            self._is_closed = True
            self._change.notify_all()


class _Batches:
    """Frames that wait for the network, which runs in the pool, one batch per thread."""

    def __init__(self, stream: FaceStream, pool: ThreadPoolExecutor, smoother: Smoother) -> None:
        self.analyzer, self.workers, self.size = stream.analyzer, stream.workers, stream.batch_size
        self.pool, self.smoother, self.failed = pool, smoother, stream._failed
        self._source_index = -1
        self._waiting: list[AnalyzedFrame | SourceEnd] = []
        self._crops: list[NDArray[np.uint8]] = []
        self._sent: deque[tuple[list[AnalyzedFrame | SourceEnd], Future[list[Face | Exception]]]] = deque()

    def add(self, item: AnalyzedFrame | SourceEnd, crops: NDArray[np.uint8] | None = None) -> None:
        self._waiting.append(item)
        if crops is not None:
            self._crops.append(crops)

    def done(self, is_last: bool) -> Iterator[AnalyzedFrame | SourceEnd]:
        """Start full batches and yield, in order, the frames that are analyzed; a last batch need not be full."""
        is_full = len(self._waiting) >= FRAMES_WAITING or _bytes(self._waiting) > BYTES_IN_FLIGHT // 4
        if is_last or is_full or sum(map(len, self._crops)) >= self.size:
            faces = [face for item in self._waiting if isinstance(item, AnalyzedFrame) for face in item.faces]
            self._sent.append((self._waiting, self.pool.submit(self._analyzed, faces, self._crops)))
            self._waiting, self._crops = [], []
        while self._sent and (is_last or self._is_much() or self._sent[0][1].done()):
            waiting, future = self._sent.popleft()
            analyzed = iter(future.result())
            for item in waiting:
                if isinstance(item, SourceEnd):
                    item.error = item.error or self.failed.pop(item.source_index, None)
                    yield item
                elif self._fill(item, analyzed):
                    yield item

    def _is_much(self) -> bool:
        """Return whether to yield frames before more are taken: one batch per thread and one to follow suffice."""
        held = sum(_bytes(waiting) for waiting, _ in self._sent)
        return len(self._sent) > self.workers + 1 or held > BYTES_IN_FLIGHT

    def _analyzed(self, faces: list[Face], waiting: list[NDArray[np.uint8]]) -> list[Face | Exception]:
        """Analyze a batch; if that fails, each face by itself, so that one cannot spoil the others."""
        if not waiting:
            return []
        crops = np.concatenate(waiting)
        analyzed: list[Face | Exception] = []
        for part in np.array_split(crops, max(1, round(len(crops) / self.size))):
            these = faces[len(analyzed) : len(analyzed) + len(part)]
            try:
                analyzed += self.analyzer.analyze(these, part)
            except Exception:
                analyzed += [self._alone(face, crop) for face, crop in zip(these, part, strict=True)]
        return analyzed

    def _alone(self, face: Face, crop: NDArray[np.uint8]) -> Face | Exception:
        try:
            return self.analyzer.analyze([face], crop[None])[0]
        except Exception as error:
            return error

    def _fill(self, frame: AnalyzedFrame, analyzed: Iterator[Face | Exception]) -> bool:
        """Give a frame its analyzed faces; return False if it is of a source that has failed."""
        if frame.source_index != self._source_index:
            if self._source_index != -1:
                self.smoother = Smoother(self.smoother.seconds)
            self._source_index = frame.source_index
        faces: list[Face] = []
        for face in islice(analyzed, len(frame.faces)):
            if isinstance(face, Exception):
                self.failed.setdefault(frame.source_index, failure(frame.source, face))
            else:
                faces.append(face)
        if frame.source_index in self.failed:
            return False
        frame.faces = [_smoothed(face, frame.time_s, self.smoother) for face in faces]
        if (checkpoint := frame.checkpoint) is not None:
            smoother = copy(self.smoother)
            frame.checkpoint = lambda: {**checkpoint(), "smoother": smoother.state()}
        return True


def _smoothed(face: Face, time_s: float | None, smoother: Smoother) -> Face:
    if face.track_id is None or time_s is None or face.probabilities is None:
        return face
    names = ("probabilities", "intensities", "side_probabilities", "visibility")
    known = {name: value for name in names if (value := getattr(face, name)) is not None}
    # Together, because the smoother keeps one row of values per track.
    values = smoother(face.track_id, time_s, np.concatenate([value.ravel() for value in known.values()]))
    parts = np.split(values, np.cumsum([value.size for value in known.values()])[:-1])
    smoothed: dict[str, Any] = {name: part.reshape(known[name].shape) for name, part in zip(known, parts, strict=True)}
    return replace(face, **smoothed)


def _bytes(waiting: list[AnalyzedFrame | SourceEnd]) -> int:
    return sum(item.image.nbytes for item in waiting if isinstance(item, AnalyzedFrame) and item.image is not None)


def cores() -> int:
    """Return how many cores this process may use; a cluster may grant fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _use_one_thread() -> None:
    """Keep torch, if it is there, from using further threads in this thread of the pool."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@contextmanager
def _single_threaded_libraries() -> Iterator[None]:
    """Keep OpenCV and torch from using further threads: with one task per core, these only compete."""
    import cv2

    torch = sys.modules.get("torch")  # not needed by exported networks
    threads, torch_threads = cv2.getNumThreads(), torch.get_num_threads() if torch else 0
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        if torch:
            torch.set_num_threads(torch_threads)  # the pool's initializer also changed it for threads to come


def _identified(
    group: _Group, detected: list[_DetectedFrame], tracker: Tracker
) -> Iterator[tuple[AnalyzedFrame | SourceEnd, NDArray[np.uint8] | None]]:
    """Turn detected frames into frames whose faces have identities, with the crops of these faces."""
    if group.is_cut:
        tracker.cut()
    for each in detected:
        number, time_s, image = each.frame
        kept = image if image.size else None
        frame = AnalyzedFrame(group.source_index, group.source, number, time_s, each.faces, kept)
        if time_s is not None:
            tracks = tracker.update(time_s, each.faces, each.looks)
            frame.faces = [replace(face, track_id=track) for face, track in zip(each.faces, tracks, strict=True)]
            frame.missing = tracker.missing(time_s)
        if each is detected[-1] and group.cuts is not None:
            frame.checkpoint = _checkpoint(number + 1, group.cuts, copy(tracker))
        yield frame, each.crops
    if group.source.kind == "photo":
        yield SourceEnd(group.source_index, group.source, notes=group.notes), None


def failure(source: Source, error: Exception) -> GeaauError:
    """Return the error of a source, whatever went wrong with it, as one line that names it."""
    if isinstance(error, GeaauError):
        return error
    reason = "there is not enough memory" if isinstance(error, MemoryError) else " ".join(str(error).split())[:200]
    name = f"{type(error).__name__}: {reason}" if reason and not isinstance(error, MemoryError) else reason
    kind = PhotoError if source.kind == "photo" else VideoError
    problem = kind(f"Cannot analyze '{source.shown}': {name or type(error).__name__}.")
    problem.__cause__ = error
    return problem


def _checkpoint(frame: int, cuts: CutDetector, tracker: Tracker) -> Callable[[], dict[str, Any]]:
    return lambda: {"frame": frame, "cuts": cuts.state(), "tracker": tracker.state()}


def carry_on(before: NDArray[np.uint8], after: NDArray[np.uint8], faces: list[Face]) -> list[Face]:
    """Carry faces from one (H, W, 3) RGB frame to the next, without those that are lost."""
    moved = [(face, follow_points(before, after, face.points)) for face in faces]
    size = after.shape[1], after.shape[0]
    return [move_face(face, points, size) for face, points in moved if points is not None]
