"""One face, from the detector to the table."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs


@dataclass(frozen=True, eq=False)
class Face:
    """One face in a photo or frame; unknown values are None.

    Attributes:
        box: (4,) float32, xyxy in pixels of the upright photo, inside the photo.
        score: YuNet's score of the upright face, 0 to 1.
        points: (5, 2) float32, x then y, in photo pixels: image-left eye, image-right eye, nose tip, image-left and
            image-right mouth corner, left and right as seen with the face turned upright. Single points may lie outside
            the photo, but those of a detected face can always be aligned (see `can_be_aligned`).
        quality: What makes its scores unreliable, of "small", "cut" and "squeezed"; see `hf_geaau.faces.quality`.
        track_id: Identity within a video; None in a photo.
        action_units: Names of the predicted AUs, N, such as "AU12".
        probabilities: (N,) float32, calibrated.
        thresholds: (N,) float32, probability from which an AU counts as present.
        intensities: (N,) float32, 0 to 5 (FACS A-E are 1-5), if the model predicts them.
        side_probabilities: (N, 2) float32, calibrated, of the person's left and right, if they were asked for. NaN for
            AUs without sides.
        visibility: (N,) float32, probability that each AU's region can be seen, if it was asked for.
        embedding: (D,) float32, L2-normalized expression embedding, if it was asked for.
        masks: (N, h, w) float32, LAM masks over the crop, if they were asked for.

    Example:
        >>> face = Face(np.float32([10, 20, 110, 150]), 0.9, np.zeros((5, 2), np.float32), action_units=("AU12",),
        ...             probabilities=np.float32([0.7]), thresholds=np.float32([0.5]))
        >>> face.area, face.present
        (13000.0, ['AU12'])
    """

    box: NDArray[np.float32]
    score: float
    points: NDArray[np.float32]
    quality: tuple[str, ...] = ()
    track_id: int | None = None
    action_units: tuple[str, ...] = ()
    probabilities: NDArray[np.float32] | None = None
    thresholds: NDArray[np.float32] | None = None
    intensities: NDArray[np.float32] | None = None
    side_probabilities: NDArray[np.float32] | None = None
    visibility: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    masks: NDArray[np.float32] | None = None

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    @property
    def present(self) -> list[str]:
        """Names of the AUs whose probability reaches the threshold."""
        if self.probabilities is None or self.thresholds is None:
            return []
        is_present = self.probabilities >= self.thresholds
        return [name for name, present in zip(self.action_units, is_present, strict=True) if present]

    @property
    def hidden(self) -> list[str]:
        """Names of the AUs whose region is rather hidden than seen; [] if visibility was not asked for."""
        if self.visibility is None:
            return []
        return [name for name, seen in zip(self.action_units, self.visibility, strict=True) if seen < 0.5]

    @property
    def sides(self) -> dict[str, tuple[float, float]]:
        """Probabilities on the person's left and right, by the names of the AUs that have sides; {} without."""
        if self.side_probabilities is None:
            return {}
        pairs = self.side_probabilities.tolist()
        return {name: (pairs[index][0], pairs[index][1]) for name, index in facs.sided(self.action_units).items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: what the pipeline returns for a face.

        Returns:
            "box" {"xmin", "ymin", "xmax", "ymax"}, "score", "points" 5×[x, y], "quality" [note, ...]; once they are
            predicted "action_units" {name: probability}, "present" [name, ...] and "intensities" {name: 0 to
            5}; and, if they were kept, "sides" {"AU12_left": probability, "AU12_right": ...} of AUs that have sides,
            "visibility" {name: probability} and "hidden" [name, ...], and "masks" and "embedding", arrays.
        """
        result: dict[str, Any] = {
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, self.box), strict=True)),
            "score": float(self.score),
            "points": np.asarray(self.points, float).tolist(),
            "quality": list(self.quality),
        }
        if self.probabilities is not None:
            result["action_units"] = dict(zip(self.action_units, self.probabilities.tolist(), strict=True))
            result["present"] = self.present
        if self.intensities is not None:
            result["intensities"] = dict(zip(self.action_units, self.intensities.tolist(), strict=True))
        if self.side_probabilities is not None:
            result["sides"] = {
                f"{name}_{side}": value
                for name, pair in self.sides.items()
                for side, value in zip(facs.SIDES, pair, strict=True)
            }
        if self.visibility is not None:
            result["visibility"] = dict(zip(self.action_units, self.visibility.tolist(), strict=True))
            result["hidden"] = self.hidden
        return result | {
            name: value for name, value in (("masks", self.masks), ("embedding", self.embedding)) if value is not None
        }


def box_iou(box: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the intersection over union of two boxes, xyxy; 0 for empty ones.

    Example:
        >>> box_iou(np.array([0, 0, 2, 1]), np.array([1, 0, 3, 1])) == 1 / 3
        True
    """
    shared = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
    areas = (box[2:] - box[:2]).clip(0).prod() + (other[2:] - other[:2]).clip(0).prod()
    return float(shared / max(areas - shared, 1e-9))


def can_be_aligned(points: NDArray[np.floating], size: tuple[int, int]) -> bool:
    """Return whether a crop can be aligned to these points: what `GeaauImageProcessor` checks, without an exception.

    Args:
        points: (5, 2), x then y, in pixels of the photo, in the order of `Face.points`.
        size: (width, height) of the photo in pixels.

    Returns:
        True if the mean of the points lies in the photo (0 <= mean < size), and the eyes and the way from the eyes
        down to the mouth span at least one square pixel, the image-left eye being on the left. False for NaN.

    Example:
        >>> points = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]])
        >>> can_be_aligned(points, (100, 100)), can_be_aligned(points - 60, (100, 100))
        (True, False)
    """
    points = np.asarray(points, np.float64)
    center = points.mean(0)
    eyes, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
    is_inside = bool(((center >= 0) & (center < size)).all())
    return is_inside and bool(eyes[0] * down[1] - eyes[1] * down[0] >= 1)
