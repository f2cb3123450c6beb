"""Carry photographed skins of scanned people over to a face model without any: ICT-FaceKit with the skins of VALID.

Both meshes have charts of the face that nearly agree. A thin-plate spline through the 68 landmarks makes them agree.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.face_model import FaceModel
from hf_geaau.synthetic.geometry import FloatArray
from hf_geaau.synthetic.head import SKIN, HeadMesh
from hf_geaau.synthetic.skin import TEXTURE_SIZE

_MIDDLE, _RADII = (0.5, 0.575), (0.36, 0.31)  # of the part of the face that is taken over, in texture coordinates
_SMOOTHING = 1e-4  # of the spline, so that single landmarks do not fold it


def borrowed_skins(context: Any, mesh: HeadMesh, donor: FaceModel) -> NDArray[np.uint8]:
    """Paint the skins of a donor's people in the texture space of another face model.

    Args:
        context: Of moderngl.
        mesh: What is to wear the skins.
        donor: A face model with `scans`.

    Returns:
        (P, TEXTURE_SIZE, TEXTURE_SIZE, 3) uint8 sRGB. Beyond the face the colors fade into the mean skin.
    """
    assert donor.scans is not None
    where = _places(context, mesh, HeadMesh(donor))
    kept = _kept(where[..., 2])
    skins = donor.scans.skins
    u, v = (where[..., axis] * np.float32(skins.shape[1]) - np.float32(0.5) for axis in range(2))
    result = np.empty((len(skins), TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8)
    for index, skin in enumerate(skins):
        result[index] = _faded(np.asarray(cv2.remap(skin, u, v, cv2.INTER_LINEAR), np.float32), kept)
    return result


def own_chart() -> NDArray[np.float32]:
    """Return the coordinates (TEXTURE_SIZE, TEXTURE_SIZE, 2) of each texel of the texture of skin."""
    texel = (np.arange(TEXTURE_SIZE, dtype=np.float32) + 0.5) / TEXTURE_SIZE
    return np.dstack(np.meshgrid(texel, texel))


def _places(context: Any, mesh: HeadMesh, donor: HeadMesh) -> NDArray[np.float32]:
    """Return where each texel lies in the donor's texture: u, v, and 1, or 0 where the donor has no skin."""
    from scipy.interpolate import RBFInterpolator

    spline = RBFInterpolator(
        donor.landmark_uv.astype(float), mesh.landmark_uv.astype(float), kernel="thin_plate_spline",
        smoothing=_SMOOTHING,
    )  # fmt: skip
    depth = -donor.neutral[donor.source, 2] / 20  # where the mesh folds, what lies in front counts
    data = np.column_stack([spline(donor.fold_uv.astype(float)), depth, donor.uv]).astype("f4")
    skin = donor.triangles[donor.material[donor.triangles[:, 0]] == SKIN]
    program = context.program(
        vertex_shader="#version 330\nin vec3 place; in vec2 uv; out vec2 f_uv;\n"
        "void main() { gl_Position = vec4(2.0 * place.xy - 1.0, place.z, 1.0); f_uv = uv; }",
        fragment_shader="#version 330\nin vec2 f_uv; out vec3 color;\nvoid main() { color = vec3(f_uv, 1.0); }",
    )
    buffers = context.buffer(data.tobytes()), context.buffer(np.ascontiguousarray(skin).tobytes())
    array = context.vertex_array(program, [(buffers[0], "3f 2f", "place", "uv")], buffers[1])
    texture = context.texture((TEXTURE_SIZE, TEXTURE_SIZE), 3, dtype="f4")
    behind = context.depth_texture((TEXTURE_SIZE, TEXTURE_SIZE))
    target = context.framebuffer([texture], behind)
    target.use()
    target.clear(0.0, 0.0, 0.0)
    context.enable(context.DEPTH_TEST)
    array.render()
    places = np.frombuffer(texture.read(), np.float32).reshape(TEXTURE_SIZE, TEXTURE_SIZE, 3).copy()
    for item in (array, *buffers, target, texture, behind, program):
        item.release()
    return places


def _kept(is_skin: FloatArray) -> NDArray[np.float32]:
    """Return how much of the photograph each texel keeps, 0-1: all in the face, nothing near hair and border."""
    u, v = np.moveaxis(own_chart(), -1, 0)
    away = ((u - _MIDDLE[0]) / _RADII[0]) ** 4 + ((v - _MIDDLE[1]) / _RADII[1]) ** 4
    inside = ((1.25 - away) / 0.6).clip(0, 1) * (cv2.erode(is_skin, np.ones((7, 7))) > 0.5)
    soft = np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), TEXTURE_SIZE / 64))
    return soft * (is_skin > 0.5)


def _faded(photo: FloatArray, kept: FloatArray) -> FloatArray:
    """Replace what is not kept by the colors nearby, and at the ends of the texture by the mean color."""
    weight = kept[..., None]
    wide = TEXTURE_SIZE / 13
    share = np.maximum(cv2.GaussianBlur(kept, (0, 0), wide), 1e-3)[..., None]
    nearby = np.asarray(cv2.GaussianBlur(photo * weight, (0, 0), wide)) / share
    mean = (photo * weight).sum((0, 1)) / weight.sum()
    height = own_chart()[..., 1:]
    far = ((np.abs(height - _MIDDLE[1]) - 0.30) / 0.1).clip(0, 1)
    around = nearby * (1 - far) + mean * far
    return (photo * weight + around * (1 - weight)).clip(0, 255)
