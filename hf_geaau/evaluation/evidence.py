"""Measure a checkpoint beyond one table, and write the results, a page and pictures."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_geaau.backends.torch_runner import TorchRunner, evaluating
from hf_geaau.errors import EvaluationError
from hf_geaau.faces import FaceDetector
from hf_geaau.files import FolderLock, whole_file, write_json
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, check_device, load_checkpoint
from hf_geaau.plots import require_matplotlib

from .figures import draw_calibration, draw_failures
from .groups import RenderedSet, rendered_evidence, thresholds_of
from .labeled_photos import find_faces, photo_evidence, read_labels
from .page import evidence_page

SETS = ("test", "unseen")
LIMIT = 1000  # rendered faces for what is measured more than once; our choice


def gather_evidence(
    model: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None = None,
    *,
    renders: str | os.PathLike[str] | None = None,
    photos: str | os.PathLike[str] | None = None,
    photo_labels: str | os.PathLike[str] | None = None,
    limit: int = LIMIT,
    batch_size: int = 64,
    device: str | None = None,
    num_workers: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure a checkpoint on rendered faces and on labeled photos, and write evidence.json, evidence.md and pictures.

    A card of the checkpoint does not change; `hf_geaau.model_card.write_card` renews a generated one.

    Args:
        model: Directory, name of the zoo or Hub id; None for the bundled checkpoint.
        output: Folder for the files; None for that of the checkpoint.
        renders: Folder with one or both of the rendered sets "test" and "unseen", such as `train_rendered` writes.
        photos: Folder of photos, with `photo_labels`.
        photo_labels: JSON file with the faces' points and labels; see `read_labels`.
        limit: Largest number of faces of a rendered set for what is measured more than once.
        batch_size, device, num_workers: As for `predict_dataset`.
        report: Called with a line after each part.

    Returns:
        The content of evidence.json: "checkpoint"; "rendered", by set the result of `score` and
        "neutral_frames", "false_alarms", "calibration", "groups", "gaps", "steadiness"; "photos", the result of
        `photo_evidence`.

    Raises:
        CheckpointError, DatasetError, DeviceError: If one of them is wrong.
        EvaluationError: If there is nothing to measure on, the labels are wrong, or another process writes there.
        MissingExtraError: If matplotlib is missing.
    """
    _check_request(model, output, renders, photos, photo_labels, limit)
    labeled = [] if photo_labels is None else read_labels(photo_labels)
    require_matplotlib()
    if device is not None:
        check_device(device)
    network, processor = load_checkpoint(None if model is None else os.fspath(model), must_predict=True)
    target = Path(output or model or "")
    result: dict[str, Any] = {"checkpoint": Path(model or BUNDLED_CHECKPOINT).name, "rendered": {}}
    sets = []
    with FolderLock(target, content="results", error=EvaluationError), evaluating(network, device):
        runner = TorchRunner(network, processor, keep=())
        for name in SETS if renders is not None else ():
            folder = Path(renders or "") / name
            if folder.is_dir():
                faces = RenderedSet.predict(name, folder, runner, batch_size, num_workers)
                result["rendered"][name] = rendered_evidence(faces, runner, limit, batch_size)
                sets.append(faces)
                report(f"{name}: {len(faces.labels)} faces")
        if labeled:
            problems = find_faces(labeled, Path(photos or ""), FaceDetector())
            result["photos"] = photo_evidence(runner, labeled, problems, batch_size)
            report(f"photos: {result['photos']['found']} of {len(labeled)} faces found")
        if sets:
            draw_calibration(result["rendered"], sets[0].names, target / "calibration.png")
            draw_failures(sets[-1], thresholds_of(network.config), target / "failures.jpg")
        with whole_file(target / "evidence.md") as part:
            part.write_text(evidence_page(result), encoding="utf-8")
        write_json(result, target / "evidence.json")
    return result


def _check_request(model: Any, output: Any, renders: Any, photos: Any, photo_labels: Any, limit: int) -> None:
    if limit < 1:
        raise EvaluationError(f"`limit` must be at least 1, got {limit}.")
    if (photos is None) != (photo_labels is None):
        raise EvaluationError("`photos` and `photo_labels` belong together, got only one of them.")
    if renders is None and photos is None:
        raise EvaluationError("There is nothing to measure on. Pass `renders`, or `photos` with `photo_labels`.")
    if renders is not None and not any((Path(renders) / name).is_dir() for name in SETS):
        raise EvaluationError(f"`renders` must hold the folder {' or '.join(SETS)}, got '{renders}' without them.")
    if output is None and (model is None or not Path(model).is_dir()):
        raise EvaluationError("`output` is needed, because the checkpoint is no folder of yours. Pass a folder.")
