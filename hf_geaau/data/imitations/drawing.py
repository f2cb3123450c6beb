"""What the imitations of official layouts share: intensities over time, images, label files."""

import io
from collections.abc import Iterable, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from .faces import example_face

Side = Annotated[int, Field(ge=16, le=4096)]
"""Side of a picture in pixels."""


def random_levels(seed: Sequence[int], frames: int, units: int, rate: float = 0.35) -> NDArray[np.int8]:
    """Draw intensities 0-5 of some AUs over time, each held for a few frames.

    Returns:
        (frames, units) int8. Over all frames each AU is absent at least once and present at least once, if there are
        two frames.
    """
    generator = np.random.default_rng(seed)
    held = np.repeat(generator.random((frames // 3 + 1, units)) < rate, 3, axis=0)[:frames]
    levels = np.where(held, generator.integers(1, 6, (frames, units)), 0).astype(np.int8)
    levels[0] = 0
    levels[-1] = 3 if frames > 1 else 0
    return levels


def draw(
    identity: int,
    number: int,
    levels: NDArray[np.int8],
    units: Sequence[int],
    size: int,
    face_model: str | PathLike[str] | None,
) -> Image.Image:
    """Draw or render the face of one frame, with the intensities of its AUs."""
    shown = {unit: float(level) for unit, level in zip(units, levels.tolist(), strict=True) if level > 0}
    return example_face(number, size, identity=identity, intensities=shown, face_model=face_model)


def jpeg(image: Image.Image) -> bytes:
    """Encode an image as JPEG."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=92)
    return content.getvalue()


@lru_cache(1)
def dot() -> bytes:
    """Return a JPEG file of one pixel, for trees in which only names matter."""
    return jpeg(Image.new("RGB", (1, 1)))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a label file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def shares(total: int, parts: int) -> list[int]:
    """Divide a total into whole parts as equal as possible.

    Example:
        >>> shares(11, 3)
        [4, 4, 3]
    """
    return [total // parts + (index < total % parts) for index in range(parts)]
