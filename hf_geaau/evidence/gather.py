"""One call that measures, writes down and draws."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hf_geaau.errors import EvaluationError
from hf_geaau.evaluation import write_json
from hf_geaau.evaluation.predictions import best_device
from hf_geaau.faces import FaceDetector
from hf_geaau.files import whole_file
from hf_geaau.model_card import bundled_card, read_json
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, check_device, load_checkpoint
from hf_geaau.plots import require_matplotlib

from .blendshapes import compare
from .labelled import LabelledFace, find_faces, label_matrix, photo_evidence, read_labels
from .page import draw_calibration, draw_failures, evidence_page
from .rendered import RenderedSet, images_at, rendered_evidence, spread, thresholds_of
from .scorer import Scorer

SETS = ("test", "unseen")
LIMIT = 1000  # faces for what is measured twice or by MediaPipe; our choice


def gather_evidence(
    model: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None = None,
    *,
    renders: str | os.PathLike[str] | None = None,
    photos: str | os.PathLike[str] | None = None,
    photo_labels: str | os.PathLike[str] | None = None,
    mediapipe: str | os.PathLike[str] | None = None,
    limit: int = LIMIT,
    batch_size: int = 64,
    device: str | None = None,
    num_workers: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure a checkpoint on rendered faces and on labelled photos, and write evidence.json, evidence.md and pictures.

    The card of a checkpoint that `train_rendered` made, if the files go beside it, is renewed with the page.

    Args:
        model: Directory, name of the zoo or Hub id; None for the bundled checkpoint.
        output: Where the files go; None: beside the checkpoint.
        renders: Folder with the rendered sets "test" and "unseen" (either may lack), such as `train_rendered` leaves.
        photos: Folder of photos, with `photo_labels`.
        photo_labels: JSON that says where which faces are and what they show; see `read_labels`.
        mediapipe: MediaPipe's face_landmarker.task, to compare with its blendshapes.
        limit: At most so many faces of a rendered set for what is measured more than once.
        batch_size, device, num_workers: As for `predict_dataset`.
        report: Called with a line whenever a part is done.

    Returns:
        The content of evidence.json: "checkpoint"; "rendered", by set what `score_rendered` gives and
        "neutral_frames", "false_alarms", "calibration", "groups", "gaps", "steadiness"; "photos", what
        `photo_evidence` gives; in both, with `mediapipe`, "mediapipe": AUC by AU of both on the same faces.

    Raises:
        CheckpointError, DatasetError, DeviceError: If one of them is wrong.
        EvaluationError: If there is nothing to measure on, or the labels or the model file of MediaPipe are wrong.
        MissingExtraError: Without matplotlib, or without mediapipe where it is asked for.
    """
    place = _place(model, output)
    labelled = _check(renders, photos, photo_labels, limit)
    require_matplotlib()
    if device is not None:
        check_device(device)
    network, processor = load_checkpoint(None if model is None else os.fspath(model))
    if not hasattr(network, "classifier"):
        raise EvaluationError("Evidence needs a model that predicts AUs, got an expression encoder.")
    scorer = Scorer(network.to(device or best_device()), processor, batch_size, device)
    yardstick = None if mediapipe is None else Path(mediapipe)
    result: dict[str, Any] = {"checkpoint": Path(model or BUNDLED_CHECKPOINT).name, "rendered": {}}
    sets = []
    for name in SETS if renders is not None else ():
        folder = Path(renders or "") / name
        if not folder.is_dir():
            continue
        sets.append(RenderedSet.of(name, folder, scorer, num_workers))
        result["rendered"][name] = rendered_evidence(sets[-1], scorer, limit)
        if yardstick is not None:
            result["rendered"][name]["mediapipe"] = _compare_rendered(yardstick, sets[-1], processor, limit)
        report(f"{name}: {len(sets[-1].labels)} faces")
    if labelled:
        result["photos"] = _photos(scorer, labelled, Path(photos or ""), yardstick)
        report(f"photos: {result['photos']['found']} of {len(labelled)} faces found")
    _write(result, sets, network.config, place)
    return result


def _place(model: str | os.PathLike[str] | None, output: str | os.PathLike[str] | None) -> Path:
    if output is None and (model is None or not Path(model).is_dir()):
        raise EvaluationError("`output` must be a folder where the checkpoint is not one of yours, got none. Pass it.")
    place = Path(output if output is not None else model or "")
    place.mkdir(parents=True, exist_ok=True)
    return place


def _check(renders: Any, photos: Any, photo_labels: Any, limit: int) -> list[LabelledFace]:
    """Refuse what cannot be measured; give the labelled faces."""
    if limit < 1:
        raise EvaluationError(f"`limit` must be at least 1, got {limit}.")
    if (photos is None) != (photo_labels is None):
        raise EvaluationError("`photos` and `photo_labels` must come together, got one of them.")
    if renders is None and photos is None:
        raise EvaluationError("Evidence needs `renders`, or `photos` with `photo_labels`, got neither.")
    if renders is not None and not any((Path(renders) / name).is_dir() for name in SETS):
        raise EvaluationError(f"`renders` must hold {' or '.join(SETS)}, got '{renders}' without. Pass their parent.")
    return [] if photo_labels is None else read_labels(photo_labels)


def _compare_rendered(yardstick: Path, faces: RenderedSet, processor: Any, limit: int) -> dict[str, Any]:
    places = spread(faces, limit)
    images = images_at(faces, places)
    points = np.asarray(processor.crop_template)
    pictures = [(image, points * image.size) for image in images]
    return compare(yardstick, faces.names, faces.labels[places], faces.probabilities[places], pictures)


def _photos(scorer: Scorer, labelled: list[LabelledFace], folder: Path, yardstick: Path | None) -> dict[str, Any]:
    problems = find_faces(labelled, folder, FaceDetector())
    result = photo_evidence(scorer, labelled, problems)
    found = [face for face in labelled if face.found is not None]
    if yardstick is not None and found:
        names = scorer.names
        ours = np.array([[row["probabilities"][name] for name in names] for row in result["predictions"]])
        pictures = [(face.photo, face.points) for face in found]
        result["mediapipe"] = compare(yardstick, names, label_matrix(found, names), ours, pictures)
    return result


def _write(result: dict[str, Any], sets: list[RenderedSet], config: Any, place: Path) -> None:
    """Write the pictures, the page, the numbers, and anew the card that carries the page, if there is one."""
    if sets:
        draw_calibration(result["rendered"], sets[0].names, place / "calibration.png")
        draw_failures(sets[-1], thresholds_of(config), place / "failures.jpg")
    with whole_file(place / "evidence.md") as part:
        part.write_text(evidence_page(result), encoding="utf-8")
    write_json(result, place / "evidence.json")
    made = read_json(place / "evaluation.json", optional=True)
    if "renders" in made.get("recipe", {}):
        with whole_file(place / "README.md") as part:
            part.write_text(bundled_card(place), encoding="utf-8")
