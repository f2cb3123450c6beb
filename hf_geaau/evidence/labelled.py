"""Evidence on photos that somebody labelled: read through the package's own detector, as a user's photos are."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau import facs
from hf_geaau.errors import EvaluationError, PhotoError
from hf_geaau.faces import FaceDetector
from hf_geaau.faces.photos import read_photo

from .scorer import Scorer, aucs, by_name

NEAR = 1.0  # a detected face is the labelled one if their middles are nearer than this, in eye distances; our choice


@dataclass(eq=False)
class LabelledFace:
    """A face in a photo, as somebody sees it.

    Attributes:
        file, source: Where it is, below the folder of photos; and where that came from.
        points: (5, 2) in photo pixels.
        labels: AU label -> 1 present or 0 absent; others are not judged.
        is_neutral: Whether the whole face is.
        photo: The photo, once it is read.
        found: (5, 2) points by the detector; None if it does not find this face.
    """

    file: str
    source: str
    points: NDArray[np.float64]
    labels: dict[str, int]
    is_neutral: bool = False
    photo: Image.Image | None = field(default=None, repr=False)
    found: NDArray[np.float32] | None = None


def read_labels(path: str | os.PathLike[str]) -> list[LabelledFace]:
    """Read labels: {"faces": [{"source", "file", "points": 5×[x, y], "labels": {"AU12": 1, …}, "neutral": true}, …]}.

    Raises:
        EvaluationError: If the file is not of this form.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        entries = content["faces"] if isinstance(content, dict) else content
        faces = [
            LabelledFace(
                entry["file"],
                entry.get("source", ""),
                np.array(entry["points"], np.float64).reshape(5, 2),
                dict(entry["labels"]),
                bool(entry.get("neutral", False)),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            'Labels of photos must be JSON, {"faces": [{"file", "points": 5×[x, y], "labels": {"AU12": 1}}]}, got '
            f"'{path}', which is not: {type(error).__name__} {' '.join(str(error).split())}."
        ) from error
    if not faces:
        raise EvaluationError(f"Labels of photos must name a face, got none in '{path}'.")
    known = {unit.label for unit in facs.ACTION_UNITS.values()}
    for face in faces:
        wrong = [f"{name}={value}" for name, value in face.labels.items() if value not in (0, 1) or name not in known]
        if wrong:
            raise EvaluationError(
                f"Labels must be AUs, such as AU01 or AU12, with 1 or 0, got {wrong[0]} for '{face.file}' in '{path}'."
            )
    return faces


def find_faces(faces: list[LabelledFace], folder: Path, detector: FaceDetector) -> list[str]:
    """Read the photos and find each labelled face in them; give a line for each photo that cannot be read."""
    problems = []
    for file in dict.fromkeys(face.file for face in faces):
        members = [face for face in faces if face.file == file]
        try:
            photo = read_photo(folder / file)
        except PhotoError as error:
            problems.append(f"{file}: {error}")
            continue
        seen = [found.points for found in detector(photo)]
        for face in members:
            face.photo = photo
            face.found = _nearest(face.points, seen)
    return problems


def _nearest(points: NDArray[Any], seen: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    """Give the detected points whose middle is nearest to that of the labelled ones, if it is near at all."""
    if not seen:
        return None
    far = np.linalg.norm(np.mean(seen, axis=1) - points.mean(axis=0), axis=1)
    place = int(far.argmin())
    return seen[place] if far[place] < NEAR * np.linalg.norm(points[1] - points[0]) else None


def photo_evidence(scorer: Scorer, faces: list[LabelledFace], problems: list[str]) -> dict[str, Any]:
    """Collect the evidence on photos, of the faces that the detector finds.

    Returns:
        "faces", "found", "median_point_error" (between the labelled and the found points, in eye distances), "auc",
        "labelled" (by AU: positives and negatives), "neutral_faces", "false_alarms", "predictions" (of each face),
        "problems".
    """
    found = [face for face in faces if face.found is not None]
    result: dict[str, Any] = {"faces": len(faces), "found": len(found), "problems": problems}
    if not found:
        return result
    names = scorer.names
    points = [np.asarray(face.found, np.float64) for face in found]
    chances, strengths = scorer([face.photo for face in found], points)
    labels, neutral = label_matrix(found, names), np.array([_is_neutral(face, names) for face in found])
    said = chances >= np.asarray(scorer.network.config.thresholds, np.float32)
    errors = [
        np.linalg.norm(here - face.points, axis=1).mean() / np.linalg.norm(face.points[1] - face.points[0])
        for here, face in zip(points, found, strict=True)
    ]
    counts = {
        name: [int((column == 1).sum()), int((column == 0).sum())] for name, column in zip(names, labels.T, strict=True)
    }
    return {
        **result,
        "median_point_error": round(float(np.median(errors)), 4),
        "auc": aucs(names, labels, chances),
        "labelled": counts,
        "neutral_faces": int(neutral.sum()),
        "false_alarms": by_name(names, _alarms(said, labels, neutral)) if neutral.any() else None,
        "predictions": [
            {
                "file": face.file,
                "source": face.source,
                "labels": face.labels,
                "neutral": face.is_neutral,
                "present": [name for name, present in zip(names, said[place], strict=True) if present],
                "probabilities": dict(zip(names, np.round(chances[place].astype(float), 3).tolist(), strict=True)),
                **({} if strengths is None else {"intensities": np.round(strengths[place].astype(float), 2).tolist()}),
            }
            for place, face in enumerate(found)
        ],
    }


def label_matrix(faces: list[LabelledFace], names: list[str]) -> NDArray[np.float32]:
    """Give (n, N) labels, -1 for what nobody judged."""
    return np.array([[face.labels.get(name, -1) for name in names] for face in faces], np.float32)


def _alarms(said: NDArray[np.bool_], labels: NDArray[np.float32], neutral: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of neutral faces in which each AU is seen, where it is labelled as absent or the face has no label at all.

    A neutral face may part its lips, and labels leave out what is not clear.
    """
    judged = neutral[:, None] & ((labels == 0) | (labels == -1).all(axis=1, keepdims=True))
    return np.where(judged.any(axis=0), (said & judged).sum(axis=0) / np.maximum(judged.sum(axis=0), 1), np.nan)


def _is_neutral(face: LabelledFace, names: list[str]) -> bool:
    """Neutral is what is said to be, or where every AU of the model is labelled as absent."""
    return face.is_neutral or all(face.labels.get(name) == 0 for name in names)
