"""Read frames that are pictures by themselves: animations, numbered files, and frames that are in memory."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from hf_geaau.errors import PhotoError, VideoError
from hf_geaau.faces.photos import load_photo, open_picture, source_name
from hf_geaau.faces.pixels import is_batch, split_batch
from hf_geaau.video.decoding import Frame, Sampler, VideoReader
from hf_geaau.video.kinds import is_animation

RATE = 25.0  # frames per second where nothing says it
SHOWN_AT_ONCE_MS, USUAL_MS = 10, 100  # browsers show an animation's frame of at most 10 ms for 100 ms

_NUMBERED = re.compile(r"%(0?\d*)d")


class PictureReader:
    """Read frames that are pictures, in order; those that cannot be read are counted, skipped and noted.

    Args:
        frames: What `hf_geaau.read_photo` takes, one by one; an array or tensor of frames, NHWC or NCHW; or the path of
            an animated GIF, WebP, PNG or AVIF.
        every: Take every n-th frame.
        fps: Frames per second, 25 if it is None; of an animation, which has its own times, take about so many a second.
        start: Frames before this one are read but not yielded.
        start_s: Frames before this time are not yielded.
        end_s: The time from which on no frames are read; None for the end.

    Raises:
        VideoError: While iterating, if not a single frame can be read.

    Example:
        >>> [frame.time_s for frame in PictureReader(np.zeros((3, 8, 8, 3), np.uint8), fps=10)]
        [0.0, 0.1, 0.2]
    """

    declared = 0

    def __init__(
        self,
        frames: Any,
        *,
        every: int = 1,
        fps: float | None = None,
        start: int = 0,
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> None:
        self.frames, self._is_file = frames, isinstance(frames, str | os.PathLike)
        self.rate = RATE if fps is None or self._is_file else fps
        self._is_wanted = Sampler(every, fps if self._is_file else None)
        self.start, self.start_s, self.end_s = start, start_s, end_s
        self.decoded, self.broken, self.notes = 0, 0, list[str]()
        self._error: PhotoError | None = None

    def close(self) -> None:
        """Do nothing; here for the sake of the other readers."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the wanted frames."""
        for number, (time, picture) in enumerate(self._animation() if self._is_file else self._sequence()):
            if self.end_s is not None and time >= self.end_s:
                break
            self.decoded += 1
            if time < self.start_s or not self._is_wanted(number, time) or number < self.start:
                continue
            try:
                image = load_photo(picture).image
            except PhotoError as error:
                self._error, self.broken = self._error or error, self.broken + 1
                continue
            yield Frame(number, time, np.asarray(image))
        if self.broken:
            self.notes.append(f"{self.broken} broken frames were skipped, the first because: {self._error}")
        if self.broken == self.decoded:
            raise VideoError(str(self._error or "A video must have frames, got none. Pass at least one."))

    def _sequence(self) -> Iterator[tuple[float, Any]]:
        frames: Iterable[Any] = split_batch(self.frames) if is_batch(self.frames) else self.frames
        for number, picture in enumerate(frames):
            yield number / self.rate, picture

    def _animation(self) -> Iterator[tuple[float, Image.Image]]:
        name, elapsed_ms = source_name(self.frames), 0.0
        try:
            with open_picture(self.frames) as animation:
                for frame in ImageSequence.Iterator(animation):
                    yield elapsed_ms / 1000, frame.copy()
                    shown_ms = frame.info.get("duration") or 0
                    elapsed_ms += shown_ms if shown_ms > SHOWN_AT_ONCE_MS else USUAL_MS
        except Exception as error:  # a damaged frame can make a decoder raise anything
            if not self.decoded:
                raise VideoError(f"Cannot read {name} as an animation: it is damaged. Save it again.") from error
            self.notes.append(f"it ends early: frame {self.decoded} is damaged")


def open_video(video: Any, **options: Any) -> VideoReader | PictureReader:
    """Return the reader of a video: a file of any kind, numbered files, encoded content, or frames in memory.

    Args:
        video: See `VideoReader` and `PictureReader`.
        **options: `every`, `fps`, `start`, `start_s` and `end_s` of these.

    Raises:
        VideoError: If it cannot be read.
    """
    if isinstance(video, str | os.PathLike):
        files = [] if os.path.lexists(video) else numbered_files(os.fspath(video))
        return (
            PictureReader(files or video, **options) if files or is_animation(video) else VideoReader(video, **options)
        )
    is_content = isinstance(video, bytes | bytearray) or hasattr(video, "read")
    return VideoReader(video, **options) if is_content else PictureReader(video, **options)


def numbered_files(pattern: str) -> list[str]:
    """Return the files that a pattern such as "frames/%04d.png" (as FFmpeg writes it) names, by their numbers.

    Example:
        >>> numbered_files("no/such/%04d.png")
        []
    """
    folder, name = os.path.split(pattern)
    parts = _NUMBERED.split(name)
    if len(parts) != 3:
        return []
    match = re.compile(f"{re.escape(parts[0])}(\\d+){re.escape(parts[2])}").fullmatch
    try:
        names = [(int(found[1]), each) for each in os.listdir(folder or ".") if (found := match(each))]  # noqa: PTH208
    except OSError:
        return []
    return [str(Path(folder, each)) for _, each in sorted(names)]
