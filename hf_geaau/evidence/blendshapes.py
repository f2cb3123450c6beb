"""MediaPipe's blendshapes as a yardstick, where the user has its model file; no dependency.

Needs `pip install mediapipe` and the file face_landmarker.task, which Google offers at
https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import EvaluationError, MissingExtraError

from .scorer import aucs

STANDS_FOR: dict[str, tuple[tuple[str, ...], ...]] = {
    "AU01": (("browInnerUp",),),
    "AU02": (("browOuterUpLeft", "browOuterUpRight"),),
    "AU04": (("browDownLeft", "browDownRight"),),
    "AU05": (("eyeWideLeft", "eyeWideRight"),),
    "AU06": (("cheekSquintLeft", "cheekSquintRight"), ("eyeSquintLeft", "eyeSquintRight")),
    "AU07": (("eyeSquintLeft", "eyeSquintRight"),),
    "AU09": (("noseSneerLeft", "noseSneerRight"),),
    "AU10": (("mouthUpperUpLeft", "mouthUpperUpRight"), ("noseSneerLeft", "noseSneerRight")),
    "AU12": (("mouthSmileLeft", "mouthSmileRight"),),
    "AU14": (("mouthDimpleLeft", "mouthDimpleRight"),),
    "AU15": (("mouthFrownLeft", "mouthFrownRight"),),
    "AU17": (("mouthShrugLower",), ("mouthShrugUpper",)),
    "AU20": (("mouthStretchLeft", "mouthStretchRight"),),
    "AU23": (("mouthRollLower", "mouthRollUpper"), ("mouthPressLeft", "mouthPressRight")),
    "AU24": (("mouthPressLeft", "mouthPressRight"), ("mouthRollLower", "mouthRollUpper")),
    "AU25": (("jawOpen", "-mouthClose"), ("jawOpen", "-mouthClose", "mouthUpperUpLeft", "mouthUpperUpRight",
                                          "mouthLowerDownLeft", "mouthLowerDownRight")),
    "AU26": (("jawOpen",),),
    "AU43": (("eyeBlinkLeft", "eyeBlinkRight"),),
}  # fmt: skip
"""Blendshapes whose sum (with "-", difference) stands for an AU. Our choice, by Apple's descriptions of the ARKit
blendshapes, after which MediaPipe's are named. Where there are several, the one of the highest AUC on the faces at hand
counts, in MediaPipe's favour."""
_SIDE = 512  # of the picture that MediaPipe is shown; the face fills about half of it
_REACHES = (2.2, 1.7, 3.0)  # half of that picture, in sizes of the face; if one shows it no face, the next is tried


def compare(
    model: Path, names: Sequence[str], labels: NDArray[Any], ours: NDArray[Any], pictures: Sequence[tuple[Any, Any]]
) -> dict[str, Any]:
    """Give the AUC of MediaPipe's blendshapes and ours, on those of the faces that MediaPipe finds.

    Args:
        model: face_landmarker.task.
        names: The AUs' labels, N.
        labels: (F, N): 1, 0, or -1.
        ours: (F, N) probabilities.
        pictures: F pictures with their (5, 2) points, in pixels.

    Raises:
        MissingExtraError: Without the package mediapipe.
        EvaluationError: If the model file is not there.
    """
    with _landmarker(model) as find:
        shapes = [_find(find, np.asarray(image), np.asarray(points, np.float64)) for image, points in pictures]
    kept = np.array([entry is not None for entry in shapes], bool)
    found = [entry for entry in shapes if entry is not None]
    if not found:
        return {"faces": len(shapes), "found": 0}
    theirs: dict[str, float | None] = {}
    for place, name in enumerate(names):
        column = labels[kept][:, [place]]
        tries = [aucs([name], column, _sums(found, recipe))[name] for recipe in STANDS_FOR.get(name, ())]
        theirs[name] = max((value for value in tries if value is not None), default=None)
    mine = aucs(list(names), labels[kept], ours[kept])
    both = [name for name in names if mine[name] is not None and theirs[name] is not None]
    for side in (mine, theirs):
        values = [side[name] for name in both]
        side["mean"] = round(float(np.mean(np.array(values, float))), 4) if both else None
    return {
        "faces": len(shapes),
        "found": len(found),
        "ours": mine,
        "mediapipe": theirs,
    }


def _sums(found: list[dict[str, float]], recipe: tuple[str, ...]) -> NDArray[np.float64]:
    signs = [(-1 if name.startswith("-") else 1, name.removeprefix("-")) for name in recipe]
    return np.array([[sum(sign * face[name] for sign, name in signs)] for face in found])


@contextmanager
def _landmarker(model: Path) -> Iterator[Any]:
    """Open MediaPipe; gives a function from an RGB picture to its blendshapes, or None."""
    if not model.is_file():
        raise EvaluationError(
            f"MediaPipe needs its file face_landmarker.task, got '{model}', which is not there. Fetch it from"
            " https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker."
        )
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise MissingExtraError(
            "The comparison needs the package mediapipe, which is missing. Install it with `pip install mediapipe`."
        ) from error
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)),
        output_face_blendshapes=True,
        num_faces=1,
        min_face_detection_confidence=0.1,  # each picture shows a face, so it need not be sure of that
        min_face_presence_confidence=0.1,
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:

        def find(picture: NDArray[np.uint8]) -> dict[str, float] | None:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
            result = landmarker.detect(image).face_blendshapes
            return {shape.category_name: shape.score for shape in result[0]} if result else None

        yield find


def _find(find: Any, picture: NDArray[np.uint8], points: NDArray[np.float64]) -> dict[str, float] | None:
    """Show MediaPipe the face as large as it likes it."""
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    size, middle = max(np.linalg.norm(points[1] - points[0]), np.linalg.norm(mouth - eyes)), (eyes + mouth) / 2
    for reach in _REACHES:
        scale = _SIDE / (2 * reach * size)
        matrix = np.column_stack([np.eye(2) * scale, _SIDE / 2 - scale * middle])
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        shown = cv2.warpAffine(picture, matrix, (_SIDE, _SIDE), flags=how, borderMode=cv2.BORDER_REFLECT)
        if (shapes := find(shown)) is not None:
            return shapes
    return None
