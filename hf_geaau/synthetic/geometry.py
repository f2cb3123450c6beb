"""Vectors, rotations and surfaces of triangles.

Lengths in cm, y up, z toward the camera, x to the image's right, which is the person's left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]  # float32 or float64
IntArray = NDArray[Any]


def unit(vectors: FloatArray) -> FloatArray:
    """Scale vectors (..., 3) to length one."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


def smoothstep(low: float, high: float, value: FloatArray) -> FloatArray:
    """Rise smoothly from 0 at `low` to 1 at `high`, by the cubic polynomial of GLSL's `smoothstep`."""
    t = ((value - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def triangle_cross(vertices: FloatArray, triangles: IntArray) -> FloatArray:
    """Return the cross product (T, 3) of two edges of each triangle: its normal times twice its area."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    u, v = (b - a).T, (c - a).T
    return np.stack([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]], 1)


@dataclass(frozen=True)
class Surface:
    """A drawable surface."""

    # vertices, normals: (N, 3) float32
    vertices: FloatArray
    normals: FloatArray
    extra: FloatArray  # (N, 3) float32, values for the shader
    triangles: IntArray  # (T, 3) int32 indices


def grid_surface(grid: FloatArray, across: FloatArray, down: FloatArray) -> Surface:
    """Turn a grid of points (A, D, 3) into triangles.

    `across`, `down` (A, D) and the length along the second axis become the extra values.
    """
    normals = unit(np.cross(np.gradient(grid, axis=1), np.gradient(grid, axis=0)))
    normals[:, 0] = [0, 1, 0]
    length = np.cumsum(np.linalg.norm(np.diff(grid, axis=1, prepend=grid[:, :1]), axis=-1), 1)
    count, depth = grid.shape[:2]
    index = (np.arange(count - 1)[:, None] * depth + np.arange(depth - 1)).reshape(-1)
    quads = np.stack([index, index + 1, index + depth, index + depth, index + 1, index + depth + 1], 1)
    flat = [array.reshape(-1, 3).astype(np.float32) for array in (grid, normals, np.stack([across, down, length], -1))]
    return Surface(flat[0], flat[1], flat[2], quads.reshape(-1, 3).astype(np.int32))


def tube(path: FloatArray, radius: float, closed: bool) -> Surface:
    """Sweep a hexagon along a path (K, 3). The extra values are 0."""
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent = unit(tangent)
    first = unit(np.cross(tangent, [0.3, 0.2, 0.93]))
    second = np.cross(tangent, first)
    angle = np.arange(6) * np.pi / 3
    normals = first[:, None] * np.cos(angle)[:, None] + second[:, None] * np.sin(angle)[:, None]
    vertices = path[:, None] + radius * normals
    count = len(path)
    rings = np.arange(count if closed else count - 1)
    i, j = rings[:, None] * 6, ((rings + 1) % count)[:, None] * 6
    a, b = np.arange(6), (np.arange(6) + 1) % 6
    triangles = np.concatenate([np.stack([i + a, i + b, j + a], -1), np.stack([j + a, i + b, j + b], -1)])
    flat = [array.reshape(-1, 3).astype(np.float32) for array in (vertices, normals)]
    return Surface(flat[0], flat[1], np.zeros_like(flat[0]), triangles.reshape(-1, 3).astype(np.int32))


def merge_surfaces(parts: Sequence[Surface]) -> Surface:
    """Join surfaces to one."""
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    triangles = np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=True)])
    columns = zip(*((part.vertices, part.normals, part.extra) for part in parts), strict=True)
    vertices, normals, extra = (np.concatenate(column).astype(np.float32) for column in columns)
    return Surface(vertices, normals, extra, triangles.astype(np.int32))


def rotation(yaw: float, pitch: float, roll: float) -> FloatArray:
    """Return the rotation matrix (3, 3) of a head pose in radians: roll first, then pitch, then yaw.

    Example:
        >>> rotation(0, 0, 0).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn @ nod @ tilt
