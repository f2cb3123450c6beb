"""Find which directions each vertex of the head sees, for shadows. Needs OpenGL."""

from typing import Any

import numpy as np

from hf_geaau.synthetic.geometry import FloatArray
from hf_geaau.synthetic.head import EYE, HeadMesh

_DIRECTIONS, _SIZE, _BIAS_CM = 96, 256, 0.22


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
