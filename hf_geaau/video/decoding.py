"""Decode videos and cameras: every frame once, in order, upright, with the container's own time."""

import io
import os
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import MissingExtraError, VideoError, hide_secrets
from hf_geaau.faces.fetching import PUBLIC_ONLY, must_be_public
from hf_geaau.faces.photos import MAX_PIXELS

from .seeking import LEAD_S, key_frame_before

# A video with at least this share of the frames that its header declares does not count as truncated: headers count
# packets, and some packets hold no frame.
COMPLETE = 0.98

TIMEOUT_S = 20.0  # for opening a URL, and for each further packet of it
MAX_PIXEL_ASPECT = 8.0  # real anamorphic pixels are at most 2:1; a damaged header may say anything
RESTART_S = 1.0  # a step back in time by more than this is the beginning of another recording
JUMP_S = 3600.0  # as between two frames of no video but a damaged one
LATE_S = 0.1  # a picture that starts later than this after the sound is worth a note


class Frame(NamedTuple):
    """One decoded frame.

    Attributes:
        number: Its index in the video, counted from 0 over all frames that decode.
        time_s: Seconds since the video's first frame, by the container's timestamps; None if there are none.
        image: (H, W, 3) uint8 RGB, upright and with square pixels.
    """

    number: int
    time_s: float | None
    image: NDArray[np.uint8]


class VideoReader:
    """Read the frames of a video in order; broken ones are counted, skipped and reported in `notes`.

    Rotation, mirroring and pixel shape are applied as a player applies them, and interlaced frames are deinterlaced.
    Frames may change size. Of several video streams the default one is read, of several default ones the largest.

    Args:
        path: A file, a URL that FFmpeg opens, encoded bytes, or an open binary file.
        every: Take every n-th frame.
        fps: Take about so many frames a second, by time, whatever the video's own rate.
        start: Frames before this one are decoded but not yielded.
        start_s: Frames before this time are not yielded. Those of a file are not decoded either, up to the last key
            frame, where its packets tell how many they are.
        end_s: The time from which on no frames are read; None for the end.

    Raises:
        VideoError: If the file is missing, empty, no video, of a codec that FFmpeg does not know, or of larger frames
            than `hf_geaau.faces.photos.MAX_PIXELS`.

    Example:
        >>> for frame in VideoReader("clip.mp4", fps=5):  # doctest: +SKIP
        ...     print(frame.time_s, frame.image.shape)
    """

    def __init__(
        self,
        path: Any,
        *,
        every: int = 1,
        fps: float | None = None,
        start: int = 0,
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self.name, self.start, self.start_s, self.end_s = _name(path), start, start_s, end_s
        self.decoded = self.broken = self._good = self.skipped = 0
        self._path = path
        self._is_wanted = Sampler(every, fps)
        self.notes: list[str] = []
        self._begin(self.notes)
        # One for all frames: a frame by itself would set up its own, which takes longer than the conversion.
        self._converter = VideoReformatter()
        self._check_size(self._stream.codec_context.width, self._stream.codec_context.height)

    def _begin(self, notes: list[str]) -> None:
        self._container, self._stream = _open(self._path, notes)
        self._stream.thread_type = "AUTO"

    @property
    def declared(self) -> int:
        """Return the number of frames that the header declares, else an estimate from the duration, else 0."""
        stream = self._stream
        if stream.frames:
            return int(stream.frames)
        if self._container.duration and stream.average_rate:
            return round(self._container.duration / 1e6 * float(stream.average_rate))
        return 0

    @property
    def rate(self) -> float:
        """Return the average frames per second that the container declares; 25 if it declares none."""
        return float(self._stream.average_rate or 25)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the wanted frames to the end.

        Raises:
            VideoError: If not a single frame decodes.
        """
        clock = self._clock()
        frames = self._from_key_frame(clock) or self._decoded()
        for decoded in _deinterlaced(frames, self._stream, self.notes):
            has_time = decoded.pts is not None and decoded.time_base is not None
            time = clock(float(decoded.pts * decoded.time_base) if has_time else None)
            if self.end_s is not None and time >= self.end_s:
                break
            number, self.decoded = self.decoded, self.decoded + 1
            if decoded.is_corrupt:
                self.broken += 1
                continue
            self._good += 1
            if time >= self.start_s and self._is_wanted(number, time) and number >= self.start:
                yield Frame(number, time, self._upright(decoded))
        self.notes += clock.notes
        self._conclude()

    def _clock(self) -> "_Clock":
        return _Clock(_zero(self._container, self._stream), self.rate)

    def _from_key_frame(self, clock: "_Clock") -> Iterator[Any] | None:
        """Return the frames from the last key frame before `start_s` on; None if decoding must begin at the start."""
        if not (self.start_s and isinstance(self._path, str | os.PathLike) and "://" not in os.fspath(self._path)):
            return None
        import av

        kept = list(self.notes)
        try:
            key = key_frame_before(self._stream, self._clock(), self.start_s)
            if key is not None:
                self._container.seek(key.pts - round(LEAD_S / self._stream.time_base), stream=self._stream)
                frames = self._decoded()
                first = next((frame for frame in frames if frame.pts is not None and frame.pts >= key.pts), None)
                if first is not None and first.pts == key.pts and not first.is_corrupt and not self.broken:
                    self.decoded = self.skipped = key.number
                    for second in key.before:
                        clock(second)
                    return chain([first], frames)
        except (av.error.FFmpegError, OSError, IndexError):
            pass
        self._container.close()
        self.notes[:], self.broken = kept, 0
        self._begin([])
        return None

    def _decoded(self) -> Iterator[Any]:
        """Decode packet by packet: a broken one costs only its own frames."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):  # IndexError: PyAV, after the end, of a stream that began in between
                return
            except (av.error.FFmpegError, OSError) as error:
                self.notes.append(f"reading broke off ({_reason(error)})")
                packet = None
            try:
                yield from self._stream.decode(packet)
            except EOFError:
                return
            except (av.error.FFmpegError, OSError):
                self.broken += 1
            if packet is None:
                return

    def _conclude(self) -> None:
        if not self._good:
            raise VideoError(f"Cannot decode a single frame of {self.name}: it is truncated or damaged. Copy it again.")
        declared = int(self._stream.frames) if self.end_s is None else 0
        if self.broken:
            self.notes.append(f"{self.broken} broken frames were skipped")
        if self.decoded < COMPLETE * declared:
            self.notes.append(f"it ends early: {self.decoded} of {declared} frames are there")

    def _upright(self, decoded: Any) -> NDArray[np.uint8]:
        aspect = float(self._stream.sample_aspect_ratio or 1)
        if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
            raise VideoError(
                f"A video must have pixels of at most {MAX_PIXEL_ASPECT:g}:1, got {aspect:.4g}:1 in {self.name}."
                " Convert it to square pixels."
            )
        width = max(1, round(decoded.width * aspect))
        self._check_size(width, decoded.height)
        converted = self._converter.reformat(decoded, width, decoded.height, "rgb24")
        image = np.asarray(converted.to_ndarray(), np.uint8)
        matrix = decoded.side_data.get("DISPLAYMATRIX") if decoded.side_data else None
        return image if matrix is None else oriented(image, np.frombuffer(bytes(matrix), np.int32))

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise VideoError(
                f"A frame must have at most {MAX_PIXELS / 1e6:g} megapixels, got {width}×{height} in {self.name}."
                " Scale the video down."
            )


def _zero(container: Any, stream: Any) -> float | None:
    """Return the player's zero, the start of the earliest stream, in seconds; None for the first frame's time.

    Sound that starts a little before zero is the encoder's priming, which nobody hears.
    """
    if container.start_time is None:
        return None
    start = container.start_time / 1e6
    if -LATE_S < start < 0:
        return min(0.0, float((stream.start_time or 0) * stream.time_base))
    return float(start)


class _Clock:
    """Times on the player's clock that never stand still or go back, whatever a container says."""

    def __init__(self, zero: float | None, rate: float) -> None:
        self._zero, self._rate = zero, rate
        self._last: float | None = None
        self._restarts, self._late, self._jump = 0, 0.0, 0.0

    def __call__(self, stamp: float | None) -> float:
        """Return the time of the next frame in seconds, from its time stamp in seconds."""
        if self._zero is None:
            self._zero = stamp or 0.0
        if self._last is None:
            self._last = self._late = 0.0 if stamp is None else stamp - self._zero
            return self._last
        time = self._last + 1 / self._rate if stamp is None else stamp - self._zero
        if time < self._last - RESTART_S:  # joined recordings, each with a clock of its own
            self._restarts += 1
            self._zero -= self._last + 1 / self._rate - time
            time = self._last + 1 / self._rate
        self._jump = max(self._jump, time - self._last)
        self._last = max(time, self._last + 1e-3)
        return self._last

    @property
    def notes(self) -> list[str]:
        notes = []
        if self._late > LATE_S:
            notes.append(f"its picture starts {self._late:.2f} s after its sound, and times are the player's")
        if self._jump > JUMP_S:
            notes.append(f"its clock jumps ahead by {self._jump:.0f} s, so its times may be wrong")
        if self._restarts:
            notes.append(f"its clock starts over {self._restarts} times, and times go on instead")
        return notes


def _deinterlaced(frames: Iterator[Any], stream: Any, notes: list[str]) -> Iterator[Any]:
    """Deinterlace from the first interlaced frame on; progressive videos pass as they are."""
    from av.error import BlockingIOError, EOFError
    from av.filter import Graph

    graph: Any = None
    size: tuple[int, int, str] | None = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if (frame.width, frame.height, frame.format.name) != size:
            yield from _drained(graph)
            size = frame.width, frame.height, frame.format.name
            graph = _deinterlacer(Graph(), frame, stream)
            if "its frames are interlaced, and were deinterlaced" not in notes:
                notes.append("its frames are interlaced, and were deinterlaced")
        graph.push(frame)
        try:
            while True:
                yield graph.pull()
        except (BlockingIOError, EOFError):
            continue
    yield from _drained(graph)


def _deinterlacer(graph: Any, frame: Any, stream: Any) -> Any:
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or stream.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _drained(graph: Any) -> Iterator[Any]:
    """Yield the frames that a filter still holds back."""
    from av.error import BlockingIOError, EOFError

    if graph is None:
        return
    graph.push(None)
    try:
        while True:
            yield graph.pull()
    except (BlockingIOError, EOFError):
        return


def oriented(image: NDArray[np.uint8], matrix: NDArray[Any]) -> NDArray[np.uint8]:
    """Rotate and mirror an image by a container's display matrix, to the nearest quarter turn.

    Args:
        image: (H, W, 3).
        matrix: The nine numbers (a, b, u, c, d, v, x, y, w): pixel (x, y) moves to (a x + c y, b x + d y).

    Source:
        ISO/IEC 14496-12, 8.3.2, as FFmpeg hands it over (libavutil/display.h).

    Example:
        >>> oriented(np.zeros((480, 640, 3), np.uint8), np.array([0, 1, 0, -1, 0, 0, 0, 0, 1])).shape
        (640, 480, 3)
    """
    a, b, _, c, d = (float(value) for value in matrix[:5])
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class Sampler:
    """Choose frames by number or by time."""

    def __init__(self, every: int, fps: float | None) -> None:
        self.every, self.fps, self._due = every, fps, -np.inf

    def __call__(self, number: int, time: float) -> bool:
        """Return whether the next frame is wanted."""
        if number % self.every:
            return False
        if self.fps is None:
            return True
        if time < self._due - 1e-6:
            return False
        # The next one is due on the grid of the wanted rate, so that rounding does not add up.
        self._due = max(self._due, (np.floor(time * self.fps + 1e-6)) / self.fps) + 1 / self.fps
        return True


class CameraReader:
    """Read the frames of a camera until `close` is called; times are seconds since the first frame.

    Args:
        number: 0 for the first camera.
        every: Take every n-th frame.
        fps: Take about so many frames a second, if the camera gives more.

    Raises:
        VideoError: If there is no such camera.
    """

    declared = 0
    rate = 25.0

    def __init__(self, number: int, *, every: int = 1, fps: float | None = None) -> None:
        import cv2

        self.decoded, self.broken, self.notes = 0, 0, list[str]()
        self._is_wanted = Sampler(every, fps)
        try:
            self._camera = cv2.VideoCapture(number)
            is_open = self._camera.isOpened()
        except cv2.error:  # a number that no integer of C holds
            is_open = False
        if not is_open:
            raise VideoError(
                f"Cannot open camera {str(number)[:20]}: it is not connected or another program uses it. The first"
                " camera is 0."
            )

    def __iter__(self) -> Iterator[Frame]:
        """Yield the wanted frames until the camera stops."""
        import cv2

        start = None
        while True:
            is_read, bgr = self._camera.read()
            if not is_read:
                return
            now = monotonic()
            start = now if start is None else start
            number, self.decoded = self.decoded, self.decoded + 1
            if self._is_wanted(number, now - start):
                yield Frame(number, now - start, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8))

    def close(self) -> None:
        """Release the camera."""
        self._camera.release()


def has_video(path: str | os.PathLike[str]) -> bool:
    """Return whether FFmpeg finds a video stream in a file."""
    try:
        container, _ = _open(os.fspath(path), [])
    except VideoError:
        return False
    container.close()
    return True


def require_av() -> None:
    """Raise `MissingExtraError` if PyAV is not installed."""
    if find_spec("av") is None:
        raise MissingExtraError('Videos need PyAV. Install it with `pip install "hf_geaau[video]"`.')


def _name(path: Any) -> str:
    """Return what messages call a video."""
    if not isinstance(path, str | os.PathLike):
        return "the bytes" if isinstance(path, bytes) else "the open file"
    return repr(hide_secrets(os.fspath(path)))


def _open(path: Any, notes: list[str]) -> tuple[Any, Any]:
    """Open a video, and choose its stream; a choice among several becomes a note."""
    require_av()
    import av

    name, options = _name(path), {}
    if isinstance(path, bytes):
        path = io.BytesIO(path)
    elif isinstance(path, str | os.PathLike):
        path = os.fspath(path)
        if "://" not in path:
            _check_file(path)
            options["protocol_whitelist"] = "file,crypto,data"  # a file that is a playlist must not fetch others
        elif must_be_public():
            raise VideoError(f"Cannot open {name}: {PUBLIC_ONLY} is set, and FFmpeg cannot keep to it. Download it.")
    try:
        container = av.open(path, metadata_errors="replace", options=options, timeout=TIMEOUT_S)
    except (av.error.FFmpegError, OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise VideoError(
            f"Cannot read {name} as a video: {_reason(error)}. It is truncated, damaged, or no video; copy or convert"
            " it again."
        ) from error
    # A picture attached to music, its cover, is a video stream by name only.
    flags = av.stream.Disposition
    streams = [stream for stream in container.streams.video if not stream.disposition & flags.attached_pic]
    if not streams:
        container.close()
        raise VideoError(f"Cannot read {name} as a video: it has sound only. Pass another file.")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        container.close()
        raise VideoError(f"Cannot decode {name}: FFmpeg does not know its codec. Convert it to H.264.")
    default = [stream for stream in known if stream.disposition & flags.default]
    chosen = max(default or known, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
    if len(streams) > 1:
        size = f"{chosen.codec_context.width}×{chosen.codec_context.height}"
        notes.append(f"of its {len(streams)} video streams number {chosen.index} was read, of {size} pixels")
    return container, chosen


def _check_file(path: str) -> None:
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        raise VideoError(f"Cannot read {path!r}: there is no such file. Check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"Cannot read {path!r}: {reason}. Check the path and its permissions.") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket, which may never end"
        raise VideoError(f"Cannot read {path!r}: it is {kind}. Pass a file.")
    if status.st_size == 0:
        raise VideoError(f"Cannot read {path!r}: it is empty. Download or export it again.")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
