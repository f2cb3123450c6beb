"""Evidence on photos labeled by hand, whose faces the package's own detector finds, as in a user's photos."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau import facs
from hf_geaau.errors import EvaluationError, PhotoError
from hf_geaau.faces import Face
from hf_geaau.faces.photos import read_photo
from hf_geaau.files import parse_json
from hf_geaau.inference import Runner

from .reports import named, score_columns

NEAR = 1.0  # largest distance between the centers of a labeled and a detected face, in eye distances; our choice


@dataclass(eq=False)
class LabeledFace:
    """A face in a photo, with its labels.

    Attributes:
        file: Path of the photo below the folder of photos.
        source: Origin of the photo.
        points: (5, 2) labeled points, in photo pixels.
        labels: AU label -> 1 present or 0 absent; AUs that are not listed are not labeled.
        is_neutral: Whether the whole face is labeled as neutral.
        photo: The photo; None until it is read.
        detected: (5, 2) points of the detector, in photo pixels; None if it does not find this face.
    """

    file: str
    source: str
    points: NDArray[np.float64]
    labels: dict[str, int]
    is_neutral: bool = False
    photo: Image.Image | None = field(default=None, repr=False)
    detected: NDArray[np.float32] | None = None


def read_labels(path: str | os.PathLike[str]) -> list[LabeledFace]:
    """Read labels: {"faces": [{"source", "file", "points": 5×[x, y], "labels": {"AU12": 1, …}, "neutral": true}, …]}.

    Raises:
        EvaluationError: If the file is not of this form.
    """
    try:
        content = parse_json(Path(path).read_text(encoding="utf-8"))
        entries = content["faces"] if isinstance(content, dict) else content
        faces = [
            LabeledFace(
                str(entry["file"]),
                str(entry.get("source", "")),
                np.array(entry["points"], np.float64).reshape(5, 2),
                dict(entry["labels"]),
                bool(entry.get("neutral", False)),
            )
            for entry in entries
        ]
        if not all(np.isfinite(face.points).all() for face in faces):
            raise ValueError("points must be finite")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"Cannot read labels of photos from '{path}' ({type(error).__name__} {' '.join(str(error).split())})."
            ' They are JSON: {"faces": [{"file", "points": 5×[x, y], "labels": {"AU12": 1}}]}.'
        ) from error
    if not faces:
        raise EvaluationError(f"'{path}' labels no face. Add at least one to \"faces\".")
    known = {unit.label for unit in facs.ACTION_UNITS.values()}
    for face in faces:
        wrong = [f"{name}={value}" for name, value in face.labels.items() if value not in (0, 1) or name not in known]
        if wrong:
            raise EvaluationError(
                f"A label must be an AU such as AU01 or AU12 with 1 or 0, got {wrong[0]} for '{face.file}' in '{path}'."
            )
    return faces


def find_faces(faces: list[LabeledFace], folder: Path, detector: Callable[[Image.Image], list[Face]]) -> list[str]:
    """Read the photos and detect each labeled face in them; return a line for each photo that cannot be read."""
    problems = []
    for file in dict.fromkeys(face.file for face in faces):
        try:
            photo = read_photo(folder / file)
        except PhotoError as error:
            problems.append(f"{file}: {error}")
            continue
        candidates = [face.points for face in detector(photo)]
        for face in faces:
            if face.file != file:
                continue
            face.photo = photo
            if candidates:
                distances = np.linalg.norm(np.mean(candidates, axis=1) - face.points.mean(axis=0), axis=1)
                index = int(distances.argmin())
                is_near = distances[index] < NEAR * np.linalg.norm(face.points[1] - face.points[0])
                face.detected = candidates[index] if is_near else None
    return problems


def photo_evidence(
    runner: Runner, faces: list[LabeledFace], problems: list[str], batch_size: int = 64
) -> dict[str, Any]:
    """Score the labeled faces that the detector finds.

    Args:
        runner: Of a model that predicts AUs.
        faces: After `find_faces`.
        problems: Its result.
        batch_size: Faces per forward pass.

    Returns:
        "faces", "found", "median_point_error" (between labeled and detected points, in eye distances), "auc",
        "labelled" (by AU: positives and negatives), "neutral_faces", "false_alarms", "predictions" (of each face),
        "problems".
    """
    detected = [face for face in faces if face.detected is not None]
    result: dict[str, Any] = {"faces": len(faces), "found": len(detected), "problems": problems}
    if not detected:
        return result
    names = list(runner.action_units)
    points = [np.asarray(face.detected, np.float64) for face in detected]
    prediction = runner.predict([face.photo for face in detected], points, batch_size)
    assert prediction.probabilities is not None
    labels = label_matrix(detected, names)
    neutral = np.array([face.is_neutral for face in detected]) | (labels == 0).all(axis=1)
    present = prediction.probabilities >= runner.thresholds
    errors = [
        np.linalg.norm(measured - face.points, axis=1).mean() / np.linalg.norm(face.points[1] - face.points[0])
        for measured, face in zip(points, detected, strict=True)
    ]
    predictions = []
    for index, face in enumerate(detected):
        probabilities = np.round(prediction.probabilities[index].astype(float), 3).tolist()
        entry = {"file": face.file, "source": face.source, "labels": face.labels, "neutral": face.is_neutral}
        entry["present"] = [name for name, is_present in zip(names, present[index], strict=True) if is_present]
        entry["probabilities"] = dict(zip(names, probabilities, strict=True))
        if prediction.intensities is not None:
            entry["intensities"] = np.round(prediction.intensities[index].astype(float), 2).tolist()
        predictions.append(entry)
    return {
        **result,
        "median_point_error": round(float(np.median(errors)), 4),
        "auc": score_columns(names, labels, prediction.probabilities),
        "labelled": {
            name: [int((values == 1).sum()), int((values == 0).sum())]
            for name, values in zip(names, labels.T, strict=True)
        },
        "neutral_faces": int(neutral.sum()),
        "false_alarms": named(names, false_alarms(present, labels, neutral)) if neutral.any() else None,
        "predictions": predictions,
    }


def label_matrix(faces: list[LabeledFace], names: list[str]) -> NDArray[np.float32]:
    """Return (F, N) labels of F faces, -1 for AUs that are not labeled."""
    return np.array([[face.labels.get(name, -1) for name in names] for face in faces], np.float32)


def false_alarms(
    present: NDArray[np.bool_], labels: NDArray[np.float32], neutral: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the share of neutral faces in which each AU is predicted.

    A neutral face may part its lips, and labels leave out what is not clear: a face counts for an AU that is labeled as
    absent, or for all AUs if it has no label at all.

    Args:
        present: (F, N) predictions.
        labels: (F, N): 1, 0, or -1 (not labeled).
        neutral: (F,).

    Returns:
        (N,), NaN for an AU without such faces.
    """
    counted = neutral[:, None] & ((labels == 0) | (labels == -1).all(axis=1, keepdims=True))
    return np.where(counted.any(axis=0), (present & counted).sum(axis=0) / np.maximum(counted.sum(axis=0), 1), np.nan)
