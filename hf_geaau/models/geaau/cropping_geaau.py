"""Cut aligned face crops out of photos: the geometry that every backend shares, and the cutting with Pillow.

Needs numpy and Pillow only, so that exported networks run without torch.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

CROP_TEMPLATE = ((0.34, 0.36), (0.66, 0.36), (0.50, 0.543), (0.367, 0.73), (0.633, 0.73))
"""Where the five points lie in the square crop, as fractions of its side (x, then y).

Order: image-left eye, image-right eye, nose tip, image-left mouth corner, image-right mouth corner.
Our choice: the proportions of an average frontal face (eye line to mouth line = 1.16 eye distances) at an eye distance
of 0.32 sides, so that a raised brow with its forehead lines and a dropped jaw both stay inside the crop.
"""

# A photo is shrunk with antialiasing to this many times the crop's resolution before the bilinear warp: at 1 the warp
# would blur, at 2 it would start to alias.
_OVERSAMPLING = 1.5


class CropPlan(NamedTuple):
    """How to cut one crop: take a box of the photo, shrink it, then warp it.

    Attributes:
        box: Left, top, right, bottom in pixels of the photo; it may reach beyond its edges.
        shrunk: Height and width to which the box is resized with antialiasing.
        inverse: (2, 3) matrix from pixels of the crop to pixels of the shrunk box.
    """

    box: tuple[int, int, int, int]
    shrunk: tuple[int, int]
    inverse: NDArray[np.float64]


def similarity_transform(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Fit rotation, one scale and shift, without reflection, that bring points onto a target (least squares).

    Args:
        source: (..., K, 2) points, x then y.
        target: (K, 2) or (..., K, 2) points.

    Returns:
        (..., 2, 3) matrices M with `target ≈ M[:, :2] @ source + M[:, 2]`.

    Source:
        Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns", in its
        closed form for the plane.

    Example:
        >>> square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        >>> similarity_transform(square, 2 * square + 3).astype(int).tolist()
        [[2, 0, 3], [0, 2, 3]]
    """
    source, target = np.broadcast_arrays(np.asarray(source, np.float64), np.asarray(target, np.float64))
    source_mean, target_mean = source.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    x, y = np.moveaxis(source - source_mean, -1, 0)
    u, v = np.moveaxis(target - target_mean, -1, 0)
    spread = np.maximum((x * x + y * y).sum(-1), 1e-12)
    a, b = (x * u + y * v).sum(-1) / spread, (x * v - y * u).sum(-1) / spread
    linear = np.stack([np.stack([a, -b], -1), np.stack([b, a], -1)], -2)
    shift = target_mean[..., 0, :] - np.einsum("...ij,...j->...i", linear, source_mean[..., 0, :])
    return np.concatenate([linear, shift[..., None]], -1)


def plan_crop(matrix: NDArray[np.float64], size: tuple[int, int]) -> CropPlan:
    """Plan a crop: the face's surroundings, shrunk with antialiasing, then warped bilinearly.

    Args:
        matrix: (2, 3), from pixels of the photo to pixels of the crop.
        size: Height and width of the crop.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    shrink = min(1.0, scale * _OVERSAMPLING)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    corners = np.array([[0, 0, 1], [size[1], 0, 1], [0, size[0], 1], [size[1], size[0], 1]]) @ inverse.T
    margin = 2 / shrink  # room for the filters
    left, top = np.floor(corners.min(0) - margin).astype(int).tolist()
    right, bottom = np.ceil(corners.max(0) + margin).astype(int).tolist()
    shrunk = (max(1, round((bottom - top) * shrink)), max(1, round((right - left) * shrink)))
    inverse[:, 2] -= (left, top)
    inverse *= np.array([[shrunk[1] / (right - left)], [shrunk[0] / (bottom - top)]])
    return CropPlan((left, top, right, bottom), shrunk, inverse)


def cut_crop(photo: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut one crop out of a photo.

    Args:
        photo: (H, W, 3) RGB.
        matrix: (2, 3), from pixels of the photo to pixels of the crop.
        size: Height and width of the crop.

    Returns:
        (height, width, 3); black where it reaches beyond the photo.
    """
    (left, top, right, bottom), shrunk, inverse = plan_crop(matrix, size)
    inside = photo[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    picture = Image.fromarray(np.ascontiguousarray(inside))
    if inside.shape[:2] != (bottom - top, right - left):  # black beyond the photo
        shift_x, shift_y = max(left, 0), max(top, 0)
        picture = picture.crop((left - shift_x, top - shift_y, right - shift_x, bottom - shift_y))
    region = picture.resize(shrunk[::-1], Image.Resampling.BILINEAR)
    crop = region.transform(size[::-1], Image.Transform.AFFINE, inverse.ravel().tolist(), Image.Resampling.BILINEAR)
    return np.asarray(crop)


def crop_faces(
    photo: NDArray[np.uint8], points: ArrayLike | None, template: ArrayLike, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Cut the crops of the faces of a photo, or resize a photo that is an aligned crop.

    Args:
        photo: (H, W, 3) RGB.
        points: (5, 2) or (n, 5, 2), x then y in pixels of the photo; None if it is an aligned crop.
        template: The five points as fractions of the crop side.
        size: Height and width of the crops.

    Returns:
        (n, height, width, 3).

    Raises:
        ValueError: If the photo is no RGB picture, or the points are mirrored, on one spot or outside it.
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise ValueError(f"A photo must be uint8 of shape (H, W, 3), got {photo.dtype} of {photo.shape}.")
    if points is None:
        if photo.shape[:2] != size:
            photo = np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BILINEAR))
        return photo[None]
    faces = checked_points(points, photo.shape[1], photo.shape[0])
    target = np.asarray(template) * size[::-1]
    return np.stack([cut_crop(photo, matrix, size) for matrix in similarity_transform(faces, target)])


def checked_points(points: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """Return (faces, 5, 2) points that can be aligned, or say why they cannot."""
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-2:] != (5, 2) or array.ndim > 3:
        raise ValueError(f"`points` must have shape (5, 2) or (faces, 5, 2) for each photo, got {array.shape}.")
    array = array.reshape(-1, 5, 2)
    if not np.isfinite(array).all():
        raise ValueError("`points` must be finite, got NaN or infinity.")
    center = array.mean(1)
    if not ((center >= 0) & (center < (width, height))).all():
        outside = center[((center < 0) | (center >= (width, height))).any(1)][0]
        raise ValueError(
            f"`points` must lie in the photo, {width}×{height} pixels, got a face around ({outside[0]:.0f},"
            f" {outside[1]:.0f}). Give them in pixels (x, y) of the upright photo."
        )
    eyes, down = array[:, 1] - array[:, 0], array[:, 3:].mean(1) - array[:, :2].mean(1)
    area = eyes[:, 0] * down[:, 1] - eyes[:, 1] * down[:, 0]
    if (np.abs(area) < 1).any():
        raise ValueError("`points` must span a face, got eyes and mouth on one line or spot.")
    if (area < 0).any():
        raise ValueError(
            "`points` must come in the order image-left eye, image-right eye, nose, image-left mouth corner,"
            " image-right mouth corner, got left and right swapped."
        )
    return array
