"""Build spectacles for a face. Lengths and axes as in `geometry`."""

import numpy as np

from hf_geaau.synthetic.geometry import FloatArray, Surface, merge_surfaces, tube, unit
from hf_geaau.synthetic.people import Glasses


def glasses_surfaces(glasses: Glasses, landmarks: FloatArray) -> tuple[Surface, Surface]:
    """Build frame and lenses.

    Args:
        glasses: What they look like.
        landmarks: (68, 3) of the face without expression.

    Returns:
        Frame and lenses. The extra values of lenses are x and y within the lens, -1 to 1, and 0.
    """
    eyes = np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0)])
    front = max(landmarks[28, 2] - 0.1, landmarks[[19, 24], 2].max() + 0.3, eyes[:, 2].max() + 1.2)
    height = eyes[:, 1].mean() - 0.25 + glasses.lift
    center = max(abs(eyes[:, 0]).mean(), glasses.half_width + 0.75)

    def depth(x: FloatArray) -> FloatArray:
        return front - 0.022 * x**2

    rim = _rim(glasses.roundness)
    frame, lenses = [], []
    for side in (-1, 1):
        x = side * center + glasses.half_width * rim[:, 0] * side
        y = height + glasses.half_height * rim[:, 1] * (1 - 0.1 * (rim[:, 1] < 0))
        path = np.stack([x, y, depth(x)], 1)
        frame.append(tube(path, glasses.rim, closed=True))
        lenses.append(_lens(path, rim))
        outer = side * (center + glasses.half_width)
        ear = np.array([side * 7.9, eyes[0, 1] + 0.6, 0.5])
        hinge = np.array([outer, height + 0.45 * glasses.half_height, depth(np.array(outer))])
        bow = np.array([side * 7.7, hinge[1], 0.7 * hinge[2]])
        t = np.linspace(0, 1, 8)[:, None]
        temple = (1 - t) ** 2 * hinge + 2 * t * (1 - t) * bow + t**2 * ear
        frame.append(tube(temple, max(glasses.rim, 0.1), closed=False))
    x = np.linspace(-(center - glasses.half_width), center - glasses.half_width, 9)
    arch = height + 0.3 * glasses.half_height + 0.25 * np.cos(np.linspace(-1.5, 1.5, 9))
    bridge = np.stack([x, arch, depth(x) + 0.1], 1)
    frame.append(tube(bridge, max(0.8 * glasses.rim, 0.07), closed=False))
    return merge_surfaces(frame), merge_surfaces(lenses)


def _rim(roundness: float) -> FloatArray:
    """Return the outline of a lens (36, 2), a superellipse within -1 to 1."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    corner = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.sign(corner) * np.abs(corner) ** (2 / roundness)


def _lens(path: FloatArray, rim: FloatArray) -> Surface:
    """Fill an outline (36, 3) with a fan of triangles."""
    count = len(path)
    vertices = np.concatenate([path.mean(0, keepdims=True), path])
    inside = np.concatenate([[[0, 0]], rim])
    fan = np.stack([np.zeros(count, int), 1 + np.arange(count), 1 + (np.arange(count) + 1) % count], 1)
    normals = unit(np.array([0, 0, 1.0]) + 0 * vertices)
    return Surface(vertices, normals, np.column_stack([inside, 0 * inside[:, 0]]), fan)
