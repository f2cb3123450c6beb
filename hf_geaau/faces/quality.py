"""Say of a face what makes its scores unreliable: too few pixels, a part outside of the frame, a squeezed picture."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE, similarity_transform

SMALLEST_FACE = 24
"""Pixels across the smallest face that the bundled weights were trained on (`hf_geaau.synthetic.camera`).

Measured: at 14 pixels, AU12 of a clear smile falls from .98 to .12, while the detector's score stays .89.
"""

MAX_OUTSIDE = 0.1
"""Share of the part of a crop where AUs show that may lie outside of the frame. Our choice."""

SQUEEZED = (0.57, 1.1)
"""Bounds on the box's width over its height, times the eyes' distance over that from eyes to mouth (1 on average).

Measured on 60 real faces: from .57 to 1.06 (1st and 99th percentile, median .82); squeezed to half their width, 88 % of
them are below, squeezed to half their height, 85 % above. Points alone say less, as detectors pull them to the average.
"""

# Where AUs show in the crop, as fractions of its side: from the brows to the chin.
_SHOWS = np.stack(np.meshgrid(np.linspace(0.15, 0.85, 15), np.linspace(0.2, 0.9, 15)), -1).reshape(-1, 2)
_TEMPLATE = np.asarray(CROP_TEMPLATE, np.float64)


def quality_notes(box: NDArray[Any], points: NDArray[Any], size: tuple[int, int]) -> tuple[str, ...]:
    """Return which of "small", "cut" and "squeezed" hold for a face; () for a good one.

    Args:
        box: (4,) xyxy in pixels.
        points: (5, 2), see `Face.points`.
        size: (width, height) of the photo in pixels.

    Example:
        >>> points = 200 * np.array(CROP_TEMPLATE)
        >>> quality_notes(np.array([30, 10, 170, 190]), points, (200, 200))
        ()
        >>> quality_notes(np.array([65, 10, 155, 190]), points * [0.7, 1] + [30, 0], (200, 200))
        ('squeezed',)
        >>> quality_notes(np.array([0, 10, 130, 190]), points - [60, 0], (200, 200))
        ('cut',)
    """
    notes = ["small"] if box[2] - box[0] < SMALLEST_FACE else []
    matrix = similarity_transform(_TEMPLATE, points)
    shown = _SHOWS @ matrix[:, :2].T + matrix[:, 2]
    if (((shown < 0) | (shown >= size)).any(1)).mean() > MAX_OUTSIDE:
        notes.append("cut")
    aspect = float((box[2] - box[0]) / max(box[3] - box[1], 1e-9))
    ratio = aspect * _width_to_height(np.asarray(points, np.float64)) / _width_to_height(_TEMPLATE)
    if "cut" not in notes and not SQUEEZED[0] <= ratio <= SQUEEZED[1]:  # the box ends at the frame
        notes.append("squeezed")
    return tuple(notes)


def _width_to_height(points: NDArray[np.float64]) -> float:
    down = points[3:].mean(0) - points[:2].mean(0)
    return float(np.linalg.norm(points[1] - points[0])) / max(float(np.linalg.norm(down)), 1e-9)
