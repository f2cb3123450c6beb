"""Small videos for tests: drawn, pasted from the public portrait, or rendered."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int = 25,
    codec: str = "libx264",
    times: list[float] | None = None,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB frames; with `times`, at a variable rate."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = None
        for number, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=fps)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "12", "preset": "ultrafast", "g": "5", "bf": "0"}
                if times:
                    stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
                if rotation:
                    stream.set_display_rotation(rotation)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))
            if times:
                picture.pts, picture.time_base = round(times[number] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def numbered(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Grey frames whose brightness says which one they are: 10, 15, 20, …"""
    return [np.full((size[1], size[0], 3), 10 + 5 * number, np.uint8) for number in range(count)]


def walking(portrait: np.ndarray, count: int, step: int = 4, size: tuple[int, int] = (320, 240)) -> list[np.ndarray]:
    """The portrait, at 240 pixels, walking to the right before grey."""
    import cv2

    person = cv2.resize(portrait, (240, 240), interpolation=cv2.INTER_AREA)
    frames = []
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 110, np.uint8)
        left = step * number
        shown = min(240, size[0] - left)
        frame[:240, left : left + shown] = person[: size[1], :shown]
        frames.append(frame)
    return frames
