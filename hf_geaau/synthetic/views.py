"""See a head from a camera, and from every light: projections, landmarks, and the matrices that OpenGL needs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_geaau.synthetic.geometry import FloatArray
from hf_geaau.synthetic.head import EYE, SKIN, HeadMesh

_DIRECTIONS, _SIZE, _BIAS_CM = 96, 256, 0.22  # of the shadow maps
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


def bake_chart(context: Any, mesh: HeadMesh, side: int) -> FloatArray:
    """Return where each texel (side, side) of the skin's texture lies in the chart of `HeadMesh.fold_uv`."""
    program = context.program(
        vertex_shader="#version 330\nin vec2 uv; in vec2 fold; out vec2 f_fold;\n"
        "void main() { gl_Position = vec4(2.0 * uv - 1.0, 0.0, 1.0); f_fold = fold; }",
        fragment_shader="#version 330\nin vec2 f_fold; out vec2 color;\nvoid main() { color = f_fold; }",
    )
    skin = mesh.triangles[mesh.material[mesh.triangles[:, 0]] == SKIN]
    data = np.column_stack([mesh.uv, mesh.fold_uv]).astype("f4")
    buffers = context.buffer(data.tobytes()), context.buffer(np.ascontiguousarray(skin).tobytes())
    array = context.vertex_array(program, [(buffers[0], "2f 2f", "uv", "fold")], buffers[1])
    texture = context.texture((side, side), 2, dtype="f4")
    target = context.framebuffer([texture])
    target.use()
    target.clear(0.0, 0.0)
    array.render()
    chart = np.frombuffer(texture.read(), np.float32).reshape(side, side, 2).copy()
    for item in (array, *buffers, target, texture, program):
        item.release()
    return chart


def bake_visibility(context: Any, mesh: HeadMesh) -> tuple[FloatArray, FloatArray]:
    """Find which directions each vertex of the neutral head sees, from shadow maps.

    Returns:
        Unit vectors (D, 3) spread evenly over the sphere, and visibility (D, V) in 0-1. A light's shadow is then a
        small weighted sum; that expression and identity move shadows a little is left out.
    """
    number = np.arange(_DIRECTIONS) + 0.5
    polar, around = np.arccos(1 - 2 * number / _DIRECTIONS), np.pi * (1 + 5**0.5) * number
    sky = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], 1)
    program = context.program(
        vertex_shader="#version 330\nin vec3 position; uniform mat4 clip;\n"
        "void main() { gl_Position = clip * vec4(position, 1); }",
        fragment_shader="#version 330\nvoid main() {}",
    )
    solid = mesh.triangles[mesh.material[mesh.triangles[:, 0]] <= EYE]
    buffers = context.buffer(mesh.neutral[mesh.source].tobytes()), context.buffer(solid.tobytes())
    array = context.vertex_array(program, [(buffers[0], "3f", "position")], buffers[1])
    depth = context.depth_texture((_SIZE, _SIZE))
    target = context.framebuffer(depth_attachment=depth)
    center, reach = mesh.neutral.mean(0), 26.0
    seen = np.empty((len(sky), len(mesh.neutral)), np.float32)
    for index, direction in enumerate(sky):
        right = np.cross([0.1, 1, 0.02], direction)
        right /= np.linalg.norm(right)
        frame = np.stack([right, np.cross(direction, right), -direction]) / reach
        clip = np.eye(4)
        clip[:3, :3], clip[:3, 3] = frame, -frame @ center
        program["clip"].write(clip.T.astype("f4").tobytes())
        target.use()
        target.clear(depth=1.0)
        array.render()
        map_ = np.frombuffer(depth.read(), "f4").reshape(_SIZE, _SIZE)
        spot = (mesh.neutral - center) @ frame.T
        x, y = (((spot[:, c] + 1) / 2 * _SIZE).clip(0, _SIZE - 1.001) for c in range(2))
        gap = (spot[:, 2] + 1) / 2 - map_[y.astype(int), x.astype(int)]
        seen[index] = 1 - ((gap * 2 * reach - _BIAS_CM) / 0.3).clip(0, 1)
    for item in (array, *buffers, target, depth, program):
        item.release()
    return sky, seen
