"""Write annotated frames into an H.264 video."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau.errors import VideoError
from hf_geaau.video.decoding import require_av

TIME_BASE = 90_000  # ticks per second, as MPEG counts; fine enough for any frame rate


class OverlayWriter:
    """Write frames with their times; the file is playable once `close` was called.

    Frames keep their times from the source, also where some are left out. A frame of another size than the first is
    scaled to fit, with black bars. There is no sound.

    Args:
        path: The .mp4 to write.
        rate: Approximate frames per second; used in the header only.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "clip.mp4"
        ...     writer = OverlayWriter(path)
        ...     writer.add(Image.new("RGB", (64, 48)), 0.0)
        ...     writer.close()
        ...     path.stat().st_size > 0
        True
    """

    def __init__(self, path: str | Path, rate: float = 25.0) -> None:
        require_av()
        import av

        self.path = str(path)
        try:
            self._container = av.open(self.path, "w", format="mp4")
        except OSError as error:
            raise self._unwritable(error) from error
        self._stream: Any = None
        self._rate = max(1, round(rate))
        self._ticks = -1

    def add(self, picture: Image.Image, time_s: float) -> None:
        """Append a frame.

        Raises:
            VideoError: If the file cannot be written.
        """
        import av

        if self._stream is None:
            self._begin(*picture.size)
        frame = av.VideoFrame.from_ndarray(self._resized(picture), format="rgb24")
        self._ticks = max(self._ticks + 1, round(time_s * TIME_BASE))  # times must rise
        frame.pts = self._ticks
        frame.time_base = self._stream.time_base
        self._mux(frame)

    def close(self) -> None:
        """Finish the file.

        Raises:
            VideoError: If the file cannot be written.
        """
        try:
            if self._stream is not None:
                self._mux(None)
            self._container.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def abandon(self) -> None:
        """Close the file without finishing it."""
        with suppress(OSError):
            self._container.close()

    def _begin(self, width: int, height: int) -> None:
        from fractions import Fraction

        stream: Any = self._container.add_stream("libx264", rate=self._rate)
        stream.width, stream.height = width + width % 2, height + height % 2  # 4:2:0 halves both
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TIME_BASE)
        stream.options = {"crf": "20", "preset": "veryfast"}
        self._stream = stream

    def _resized(self, picture: Image.Image) -> NDArray[np.uint8]:
        size = self._stream.width, self._stream.height
        if picture.size == size:
            return np.asarray(picture)
        canvas = Image.new("RGB", size)
        if abs(picture.width - size[0]) > 1 or abs(picture.height - size[1]) > 1:
            scale = min(size[0] / picture.width, size[1] / picture.height)
            picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
        canvas.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
        return np.asarray(canvas)

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> VideoError:
        return VideoError(
            f"Cannot write the video '{self.path}': {error.strerror or error}. Check the disk's space and permissions."
        )
