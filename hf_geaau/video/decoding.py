"""Decode videos and cameras: every frame once, in order, upright, with the container's own time."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import MissingExtraError, VideoError

# A video with at least this share of the frames that its header declares does not count as truncated: headers count
# packets, and some packets hold no frame.
COMPLETE = 0.98


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

    Rotation, mirroring and pixel shape are applied as a player applies them. Frames may change size.

    Args:
        path: A file, or a URL that FFmpeg opens.
        every: Take every n-th frame.
        fps: Take about so many frames a second, by time, whatever the video's own rate.
        start: Frames before this one are decoded but not yielded.

    Raises:
        VideoError: If the file is missing, empty, no video, or of a codec that FFmpeg does not know.

    Example:
        >>> for frame in VideoReader("clip.mp4", fps=5):  # doctest: +SKIP
        ...     print(frame.time_s, frame.image.shape)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, every: int = 1, fps: float | None = None, start: int = 0
    ) -> None:
        self.path, self.start = os.fspath(path), start
        self.decoded = self.broken = self._good = 0
        self._is_wanted = _Sampler(every, fps)
        self.notes: list[str] = []
        self._container, self._stream = _open(self.path)
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
        first = self._stream.start_time
        for decoded in self._decoded():
            if decoded.pts is not None and first is None:
                first = decoded.pts
            number, self.decoded = self.decoded, self.decoded + 1
            if decoded.is_corrupt:
                self.broken += 1
                continue
            self._good += 1
            time = number / self.rate
            if decoded.pts is not None and decoded.time_base is not None:
                time = float((decoded.pts - (first or 0)) * decoded.time_base)
            if self._is_wanted(number, time) and number >= self.start:
                yield Frame(number, time, self._upright(decoded))
        self._conclude()

    def _decoded(self) -> Iterator[Any]:
        """Decode packet by packet: a broken one costs only its own frames."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
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
            raise VideoError(
                f"Cannot decode a single frame of {self.path!r}: it is truncated or damaged. Copy it again."
            )
        declared = int(self._stream.frames)
        if self.broken:
            self.notes.append(f"{self.broken} broken frames were skipped")
        if self.decoded < COMPLETE * declared:
            self.notes.append(f"it ends early: {self.decoded} of {declared} frames are there")

    def _upright(self, decoded: Any) -> NDArray[np.uint8]:
        shape = self._stream.sample_aspect_ratio
        width = round(decoded.width * float(shape)) if shape else decoded.width
        image = decoded.to_ndarray(format="rgb24", width=width, height=decoded.height)
        matrix = decoded.side_data.get("DISPLAYMATRIX") if decoded.side_data else None
        return image if matrix is None else oriented(image, np.frombuffer(bytes(matrix), np.int32))


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


class _Sampler:
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
        self._is_wanted = _Sampler(every, fps)
        self._camera = cv2.VideoCapture(number)
        if not self._camera.isOpened():
            raise VideoError(
                f"Cannot open camera {number}: it is not connected or another program uses it. The first camera is 0."
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
        container, _ = _open(os.fspath(path))
    except VideoError:
        return False
    container.close()
    return True


def require_av() -> None:
    """Raise `MissingExtraError` if PyAV is not installed."""
    if find_spec("av") is None:
        raise MissingExtraError('Videos need PyAV. Install it with `pip install "hf_geaau[video]"`.')


def _open(path: str) -> tuple[Any, Any]:
    require_av()
    import av

    if "://" not in path:
        _check_file(path)
    try:
        container = av.open(path, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise VideoError(
            f"Cannot read {path!r} as a video: {_reason(error)}. It is truncated, damaged, or no video; copy or convert"
            " it again."
        ) from error
    # A picture attached to music, its cover, is a video stream by name only.
    streams = [stream for stream in container.streams.video if "attached_pic" not in str(stream.disposition).lower()]
    if not streams:
        container.close()
        raise VideoError(f"Cannot read {path!r} as a video: it has sound only. Pass another file.")
    if streams[0].codec_context is None:
        container.close()
        raise VideoError(f"Cannot decode {path!r}: FFmpeg does not know its codec. Convert it to H.264.")
    return container, streams[0]


def _check_file(path: str) -> None:
    try:
        size = Path(path).stat().st_size
    except FileNotFoundError as error:
        raise VideoError(f"Cannot read {path!r}: there is no such file. Check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"Cannot read {path!r}: {reason}. Check the path and its permissions.") from error
    if size == 0:
        raise VideoError(f"Cannot read {path!r}: it is empty. Download or export it again.")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
