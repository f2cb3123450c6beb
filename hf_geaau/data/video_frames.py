"""Read single frames out of a video, exact to the frame, and let `datasets` read them as if they were files.

Frame n is the n-th frame that decoding from the start gives. Timestamps and containers' own indices are not trusted
to say which that is: packets without a frame and missing timestamps are common in AVI files. They only shorten the way
back to frames that were counted before.

An image column can name a frame, `videoframe://000012.bmp::/path/video.avi`: nothing is decoded, copied or extracted
until somebody looks at that row.
"""

import bisect
import io
import os
import threading
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
from fsspec.spec import AbstractFileSystem
from numpy.typing import NDArray

from hf_geaau.errors import DatasetError

PROTOCOL = "videoframe"


class VideoFrames:
    """The frames of a video by number, counted from 0; quick in order, slower at random."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        self._times: list[int] = []  # timestamp of each frame counted so far
        self._rises = True  # whether these timestamps can find a frame again
        self._lock = threading.RLock()
        self._container: Any = None
        self._next = 0  # number of the frame that the decoder gives next
        self._start()

    @property
    def declared_count(self) -> int:
        """Number of frames by the container's header; 0 if it does not say."""
        return int(self._stream.frames)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        """Decode a frame: (H, W, 3), uint8, RGB.

        Raises:
            DatasetError: If the video ends or is damaged before it.
        """
        with self._lock:
            if number < self._next:
                self._go_back(number)
            for frame in self._decoder:
                index = self._index(frame)
                self._next = index + 1
                if index == number:
                    return frame.to_ndarray(format="rgb24")
                if index > number:  # the decoder left out frames after a seek: from now on only counting is trusted
                    self._rises = False
                    return self[number]
            raise DatasetError(
                f"The video {self.path!r} has no frame {number} (counted from 0), only {len(self._times)} frames. "
                "The video ends early; copy it again."
            )

    def count(self) -> int:
        """Decode to the end and count."""
        with self._lock:
            for frame in self._decoder:
                self._next = self._index(frame) + 1
        return len(self._times)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _index(self, frame: av.VideoFrame) -> int:
        """Return a decoded frame's number: by count when it is new, by timestamp when it was counted before."""
        if self._next < len(self._times):
            return bisect.bisect_left(self._times, frame.pts or 0) if self._rises else self._next
        if frame.pts is None or (self._times and self._rises and frame.pts <= self._times[-1]):
            self._rises = False
        self._times.append(frame.pts or 0)  # 0 where it is missing, and then none is trusted
        return self._next

    def _start(self) -> None:
        """Open the file, at frame 0."""
        if self._container is not None:
            self._container.close()
        try:
            self._container = av.open(self.path)
            self._stream = self._container.streams.video[0]
        except (av.error.FFmpegError, OSError, IndexError) as error:
            raise DatasetError(f"FFmpeg cannot open the video {self.path!r}: {error}. Copy it again.") from error
        self._decoder = self._decode()
        self._next = 0

    def _go_back(self, number: int) -> None:
        """Make the next frame decoded one at or before `number`."""
        if not self._rises:
            return self._start()
        self._container.seek(self._times[number], stream=self._stream)
        decoder = self._decode()
        first = next(decoder, None)
        if first is None or first.pts is None:
            return self._start()
        index = bisect.bisect_left(self._times, first.pts)
        if index > number or self._times[index] != first.pts:
            return self._start()
        self._decoder, self._next = chain([first], decoder), index
        return None

    def _decode(self) -> Iterator[Any]:
        try:
            yield from self._container.decode(self._stream)
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, EOFError):
                return
            raise DatasetError(
                f"Cannot decode the video {self.path!r} after frame {self._next - 1} (counted from 0): {error}. It is "
                "damaged there; copy it again."
            ) from error


@lru_cache(maxsize=4)  # open decoders hold memory; rows of one video lie together
def _opened(path: str, changed_ns: int, process: int, thread: int) -> VideoFrames:
    return VideoFrames(path)


def read_frame(path: str, number: int) -> NDArray[np.uint8]:
    """Decode a frame with a decoder that stays open for the next one.

    A decoder belongs to one process and thread: after a fork two processes would move one file's position.
    """
    changed_ns = Path(path).stat().st_mtime_ns
    return _opened(path, changed_ns, os.getpid(), threading.get_ident())[number]


def frame_url(path: str | os.PathLike[str], number: int) -> str:
    """Return the URL by which fsspec opens a frame, counted from 0.

    Example:
        >>> frame_url("/data/video.avi", 12)
        'videoframe://000012.bmp::/data/video.avi'
    """
    return f"{PROTOCOL}://{number:06d}.bmp::{path}"


class VideoFrameFileSystem(AbstractFileSystem):
    """The frames of a video as BMP files: lossless, and quick to write and read."""

    protocol = PROTOCOL
    root_marker = ""

    def __init__(self, fo: str = "", target_protocol: str | None = None, **options: Any) -> None:
        super().__init__(fo=fo, target_protocol=target_protocol, **options)
        if target_protocol not in (None, "file", "local"):
            raise DatasetError(
                f"Frames can be read from local videos only, not by {target_protocol!r}. Download the video first."
            )
        self.fo = fo

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
        from PIL import Image

        number = int(Path(self._strip_protocol(path)).stem)
        content = io.BytesIO()
        Image.fromarray(read_frame(self.fo, number)).save(content, "BMP")
        content.seek(0)
        return content


# Also an entry point of the package, for processes that read a cached dataset without importing this module.
fsspec.register_implementation(PROTOCOL, VideoFrameFileSystem, clobber=True)
