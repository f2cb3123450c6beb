"""See a head from a camera: projection, landmarks, and the matrices that OpenGL needs."""

from dataclasses import dataclass

import numpy as np

from hf_geaau.synthetic.geometry import FloatArray

HEAD_REACH = 5.0  # In halves of the face: nothing of a head is further from its center.


def five_points(landmarks: FloatArray) -> FloatArray:
    """Reduce landmarks (68, D) to the five points (5, D) of CROP_TEMPLATE."""
    return np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]])


def lip_gap(landmarks: FloatArray) -> float:
    """Return the distance of the inner lips in cm, from landmarks (68, 3)."""
    return float(landmarks[[61, 62, 63], 1].mean() - landmarks[[65, 66, 67], 1].mean())


@dataclass(frozen=True)
class View:
    """A shaped head in front of the camera."""

    vertices: FloatArray  # (V, 3), cm
    landmarks: FloatArray  # (68, 3), cm
    turn: FloatArray  # (3, 3) rotation of the head
    scale: float  # turns cm into halves of the face
    center: FloatArray  # (3,) point of the head that the camera looks at, cm
    focal: float  # distance of the camera, in halves of the face

    def matrices(self, matrix: FloatArray, height: int, width: int) -> tuple[FloatArray, FloatArray]:
        """Return the clip matrix (4, 4) of OpenGL, and the rotation (3, 3) of normals into the upright picture.

        Args:
            matrix: (2, 3), from the camera plane to pixels.
            height, width: Size of the picture in pixels.
        """
        model = np.eye(4)
        model[:3, :3] = self.turn * self.scale
        model[:3, 3] = -model[:3, :3] @ self.center
        model[2, 3] -= self.focal
        lens = np.zeros((4, 4))
        lens[0, 0] = lens[1, 1] = self.focal
        near, far = max(self.focal - HEAD_REACH, 0.4), self.focal + HEAD_REACH
        lens[2, 2], lens[2, 3] = -(far + near) / (far - near), -2 * far * near / (far - near)
        lens[3, 2] = -1
        to_pixels = matrix[:, :2] * [1, -1]  # the camera plane has y up, pixels have y down
        align = np.eye(4)
        align[0, :2], align[0, 3] = 2 * to_pixels[0] / width, 2 * matrix[0, 2] / width - 1
        align[1, :2], align[1, 3] = -2 * to_pixels[1] / height, 1 - 2 * matrix[1, 2] / height
        size = np.hypot(*matrix[:, 0])
        flat = np.eye(3)
        flat[:2, :2] = to_pixels / size * [[1], [-1]]
        return align @ lens @ model, flat @ self.turn


def jitter_matrix(turn: float, scale: float, shift: FloatArray, size: int) -> FloatArray:
    """Return the matrix (3, 3) that rotates and scales around the center of a crop, then shifts."""
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    center = np.full(2, size / 2)
    return np.vstack([np.column_stack([linear, center - linear @ center + shift]), [0, 0, 1]])
