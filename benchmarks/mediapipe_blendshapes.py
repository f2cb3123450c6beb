"""Compare a checkpoint with MediaPipe's blendshapes, by AUC on the same rendered faces and labeled photos.

Needs `pip install mediapipe` and the file face_landmarker.task, which Google offers at
https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker.

    python benchmarks/mediapipe_blendshapes.py CHECKPOINT --model face_landmarker.task --renders RENDERS
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.backends.torch_runner import TorchRunner, evaluating
from hf_geaau.errors import EvaluationError, GeaauError, MissingExtraError
from hf_geaau.evaluation import (
    RenderedSet,
    comparison_text,
    find_faces,
    label_matrix,
    read_labels,
    sample_crops,
    sample_rows,
    score_columns,
)
from hf_geaau.faces import FaceDetector
from hf_geaau.models.loading import load_checkpoint

Blendshapes = dict[str, float]
Picture = tuple[Any, NDArray[np.float64]]  # an RGB image, and the five points of the face in pixels

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
counts, in MediaPipe's favor."""
SIDE = 512  # of the picture that MediaPipe gets, in pixels; the face fills about half of it
REACHES = (2.2, 1.7, 3.0)  # half of that picture, in face sizes; the next is tried if MediaPipe finds no face


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", help="directory or Hub id; default: the bundled checkpoint")
    parser.add_argument("--model", type=Path, required=True, help="MediaPipe's face_landmarker.task")
    parser.add_argument("--renders", type=Path, help="folder with the rendered sets test and unseen")
    parser.add_argument("--photos", type=Path, help="folder of photos, with --photo-labels")
    parser.add_argument("--photo-labels", type=Path, help="JSON, see hf_geaau.evaluation.read_labels")
    parser.add_argument("--limit", type=int, default=1000, help="faces of a rendered set")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    if (args.photos is None) != (args.photo_labels is None) or not (args.photos or args.renders):
        parser.error("pass --renders, or --photos with --photo-labels")
    try:
        results = measure(args)
    except GeaauError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, entry in results.items():
        print(comparison_text(name, entry), end="\n\n")
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the comparison on each set."""
    network, image_processor = load_checkpoint(args.checkpoint, must_predict=True)
    results = {}
    with evaluating(network), open_landmarker(args.model) as find:
        runner = TorchRunner(network, image_processor, keep=())
        names = list(runner.action_units)
        for name in ("test", "unseen") if args.renders else ():
            if (folder := args.renders / name).is_dir():
                faces = RenderedSet.predict(name, folder, runner)
                rows, template = sample_rows(faces, args.limit), np.asarray(image_processor.crop_template)
                shown: list[Picture] = [(crop, template * crop.size) for crop in sample_crops(faces, args.limit)]
                results[name] = compare(find, faces.names, faces.labels[rows], faces.probabilities[rows], shown)
        if args.photos:
            labeled = read_labels(args.photo_labels)
            find_faces(labeled, args.photos, FaceDetector())
            if detected := [face for face in labeled if face.detected is not None]:
                points = [np.asarray(face.detected, np.float64) for face in detected]
                ours = np.asarray(runner.predict([face.photo for face in detected], points).probabilities)
                pictures: list[Picture] = [(face.photo, face.points) for face in detected]
                results["photos"] = compare(find, names, label_matrix(detected, names), ours, pictures)
    return results


def compare(
    find: Callable[[NDArray[np.uint8]], Blendshapes | None],
    names: Sequence[str],
    labels: NDArray[Any],
    ours: NDArray[Any],
    pictures: Sequence[Picture],
) -> dict[str, Any]:
    """Return the AUC of MediaPipe's blendshapes and ours, on the faces that MediaPipe finds.

    Args:
        find: From `open_landmarker`.
        names: Labels of N AUs.
        labels: (F, N): 1, 0, or -1 (not labeled).
        ours: (F, N) probabilities.
        pictures: F pictures with the five points of their face.
    """
    shapes = [find_blendshapes(find, np.asarray(image), np.asarray(points, np.float64)) for image, points in pictures]
    kept = np.array([entry is not None for entry in shapes], bool)
    detected = [entry for entry in shapes if entry is not None]
    if not detected:
        return {"faces": len(shapes), "found": 0}
    theirs: dict[str, float | None] = {}
    for index, name in enumerate(names):
        column = labels[kept][:, [index]]
        areas = [score_columns([name], column, sums(detected, recipe))[name] for recipe in STANDS_FOR.get(name, ())]
        theirs[name] = max((area for area in areas if area is not None), default=None)
    mine = score_columns(list(names), labels[kept], ours[kept])
    both = [name for name in names if mine[name] is not None and theirs[name] is not None]
    for side in (mine, theirs):
        values = [side[name] for name in both]
        side["mean"] = round(float(np.mean(np.array(values, float))), 4) if both else None
    return {"faces": len(shapes), "found": len(detected), "ours": mine, "mediapipe": theirs}


def sums(faces: list[Blendshapes], recipe: tuple[str, ...]) -> NDArray[np.float64]:
    """Return (F, 1) sums of blendshapes, those with "-" subtracted."""
    signs = [(-1 if name.startswith("-") else 1, name.removeprefix("-")) for name in recipe]
    return np.array([[sum(sign * face[name] for sign, name in signs)] for face in faces])


@contextmanager
def open_landmarker(model: Path) -> Iterator[Callable[[NDArray[np.uint8]], Blendshapes | None]]:
    """Open MediaPipe, and yield a function from an RGB picture to its blendshapes, or None without a face."""
    if not model.is_file():
        raise EvaluationError(
            f"There is no file '{model}', MediaPipe's face_landmarker.task. Fetch it from"
            " https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker."
        )
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise MissingExtraError(
            "The comparison needs the package mediapipe. Install it with `pip install mediapipe`."
        ) from error
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)),
        output_face_blendshapes=True,
        num_faces=1,
        min_face_detection_confidence=0.1,  # each picture shows a face, so a low confidence suffices
        min_face_presence_confidence=0.1,
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:

        def find(picture: NDArray[np.uint8]) -> Blendshapes | None:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
            result = landmarker.detect(image).face_blendshapes
            return {shape.category_name: shape.score for shape in result[0]} if result else None

        yield find


def find_blendshapes(
    find: Callable[[NDArray[np.uint8]], Blendshapes | None], picture: NDArray[np.uint8], points: NDArray[np.float64]
) -> Blendshapes | None:
    """Show MediaPipe the face at the size at which it detects best."""
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    size, center = max(np.linalg.norm(points[1] - points[0]), np.linalg.norm(mouth - eyes)), (eyes + mouth) / 2
    for reach in REACHES:
        scale = SIDE / (2 * reach * size)
        matrix = np.column_stack([np.eye(2) * scale, SIDE / 2 - scale * center])
        flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        shown = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT)
        if (shapes := find(shown.astype(np.uint8))) is not None:
            return shapes
    return None


if __name__ == "__main__":
    sys.exit(main())
