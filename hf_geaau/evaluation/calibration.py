"""Choose decision thresholds, a temperature and the scale of intensities on validation subjects, for the config."""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from hf_geaau import facs, metrics
from hf_geaau.data import AUDataset
from hf_geaau.errors import DatasetWarning, EvaluationError
from hf_geaau.files import FolderLock, reason_of, replace_file, write_json
from hf_geaau.models.geaau.image_processing_geaau import action_unit_probabilities
from hf_geaau.models.loading import BUNDLED_CHECKPOINT

from .predictions import Predictions, Progress, predict_dataset
from .reports import named, open_pair, training_facts

if TYPE_CHECKING:
    import datasets

REPORT = "calibration.json"
VALIDATION_SHARE = 0.2  # of the training subjects, if the checkpoint names none; our choice

# Candidate thresholds. A finer grid would follow single frames. Our choice.
_GRID = np.round(np.arange(0.01, 1.0, 0.01), 2)
_TEMPERATURES = (0.05, 20.0)


def calibrate(
    model: str | os.PathLike[str] | None,
    name: str,
    data_dir: str | os.PathLike[str],
    fold: int | None = 1,
    *,
    output: str | os.PathLike[str] | None = None,
    protocol: str = "jaanet",
    validation_share: float = VALIDATION_SHARE,
    seed: int = 0,
    batch_size: int = 64,
    device: str | None = None,
    num_workers: int = 0,
    bf16: bool = False,
    false_alarm_rate: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Calibrate a checkpoint: a temperature, then a threshold for each AU, and the scale of intensities.

    All are chosen on validation subjects, never on the fold's test subjects: those that training validated on, if the
    checkpoint's training_facts.json names them, else a share of the fold's training subjects. config.json gets
    `temperature`, `thresholds` and, if model and dataset have intensities, `intensity_scale`, which makes intensities
    right on average where a present AU is detected; AUs that the dataset does not have keep their threshold.
    calibration.json beside it holds F1 and expected calibration error before and after, on the same subjects, so the
    gain is optimistic: `evaluate` shows it on the test subjects.

    Args:
        model: Directory or Hub id; None for the bundled checkpoint, which needs `output`.
        name, data_dir, fold, protocol, **options: As for `evaluate`.
        output: New folder for a calibrated copy; None changes the checkpoint itself.
        validation_share: Share of the training subjects to use if the checkpoint names no validation subjects.
        seed: Decides which subjects these are.
        false_alarm_rate: The largest share of neutral frames in which an AU may be predicted; None for no limit.
        batch_size, device, num_workers, bf16, progress: As for `predict_dataset`.

    Returns:
        The content of calibration.json.

    Raises:
        CheckpointError, DatasetError, DatasetNotFoundError, DeviceError: If one of them is wrong.
        EvaluationError: If the model predicts no AUs of the dataset, `output` is missing or not empty, or there is no
            validation subject or label; or if another process writes to the checkpoint.

    Warns:
        DatasetWarning: If the model may have been trained on the validation subjects.
    """
    target = _target(model, output)
    if not 0 < validation_share < 1:
        raise EvaluationError(f"`validation_share` must lie between 0 and 1, got {validation_share}.")
    if false_alarm_rate is not None and not 0 <= false_alarm_rate <= 1:
        raise EvaluationError(f"`false_alarm_rate` must lie in [0, 1], got {false_alarm_rate}.")
    with _locked(target, output):
        source, rows, network, processor = open_pair(model, name, data_dir, fold, "train", protocol, options)
        wanted = _known_validation(model, source, fold, protocol)
        chosen, subjects, origin = _validation_rows(rows, wanted, validation_share, seed)
        predictions = predict_dataset(
            network, processor, rows.select(chosen), batch_size, device, num_workers, progress, bf16
        )
        chosen_values, scores = fit_calibration(predictions, network.config, source.aus, false_alarm_rate)
        result = {"dataset": name, "fold": fold, "protocol": protocol, "validation_subjects": subjects}
        result |= {"validation_from": origin, "frames": len(predictions.rows), **scores}
        _write(target, model, chosen_values, result)
    return result


def fit_calibration(
    predictions: Predictions,
    config: Any,
    units: Sequence[int],
    false_alarm_rate: float | None = None,
    threshold_range: Sequence[float] = (0.0, 1.0),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose temperature, thresholds and the scale of intensities from predictions of validation subjects.

    Args:
        predictions: Of `predict_dataset`.
        config: The model's.
        units: FACS numbers of the dataset's labels, in order.
        false_alarm_rate: As for `best_thresholds`; a frame is neutral if all its AUs are labeled as absent.
        threshold_range: Lowest and highest threshold; those outside are moved to its ends, whatever the false alarms.
            The threshold of the highest F1, of probabilities that are calibrated, is half of that F1. So thresholds
            far from it tell more of the validation set, such as renders, than of faces elsewhere.

    Returns:
        Values for the config: "temperature"; "thresholds", one for each AU of the model; and "intensity_scale", if the
        model and the dataset have intensities. And the scores before and after: "temperature", "nll",
        "f1", "expected_calibration_error", "false_alarms" (means over AUs), "action_units" (by AU: "threshold", "f1",
        "expected_calibration_error", "false_alarms": the share of neutral frames in which it is predicted, None
        without such frames), each {"before", "after"}; and "neutral_frames", their number.

    Raises:
        EvaluationError: If no frame is labeled, or if false alarms are limited and no frame is neutral.

    Source:
        Half of the F1: Z. C. Lipton, C. Elkan, B. Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1
        Measure" (2014), theorem 1.
    """
    take, put = facs.index_map(config.action_units, units)
    logits, labels = predictions.logits[:, take], predictions.labels[:, put]
    labeled = labels >= 0
    if not labeled.any():
        raise EvaluationError("No frame of the validation subjects is labeled. Choose another fold.")
    neutral = (labels == 0).all(axis=1)
    if false_alarm_rate is not None and not neutral.any():
        raise EvaluationError(
            "Cannot limit false alarms: no validation frame is neutral, without any AU. Leave `false_alarm_rate` out,"
            " or add neutral faces."
        )
    temperature = best_temperature(logits, labels)
    before = np.asarray(config.thresholds, np.float64)
    after = before.copy()
    rate = 1.0 if false_alarm_rate is None else false_alarm_rate
    best = best_thresholds(labels, _probabilities(logits, temperature), neutral, rate)
    lowest, highest = threshold_range
    after[take] = np.clip(best, lowest, highest)
    names = facs.labels([units[index] for index in put])
    scores: dict[str, Any] = {"neutral_frames": int(neutral.sum()), "action_units": {name: {} for name in names}}
    for side, divisor, limits in (("before", config.temperature, before[take]), ("after", temperature, after[take])):
        by_score = {
            key: named(names, values) for key, values in _calibration_scores(logits, labels, neutral, divisor, limits)
        }
        means = {key: values.pop("mean") for key, values in by_score.items() if key != "threshold"}
        scaled = logits[labeled].astype(np.float64) / divisor
        likelihood = float(np.mean(np.logaddexp(0, scaled) - scaled * (labels[labeled] == 1)))
        for key, value in {"temperature": round(float(divisor), 6), "nll": round(likelihood, 6), **means}.items():
            scores.setdefault(key, {})[side] = value
        for key, values in by_score.items():
            for name in names:
                scores["action_units"][name].setdefault(key, {})[side] = values[name]
    chosen: dict[str, Any] = {"temperature": temperature, "thresholds": [round(float(limit), 6) for limit in after]}
    detected = _probabilities(logits, temperature) >= after[take]
    if (scale := _scale_of(predictions, take, put, detected, config.intensity_scale)) is not None:
        chosen["intensity_scale"], scores["intensity_scale"] = scale, {"before": config.intensity_scale, "after": scale}
    return chosen, scores


def _calibration_scores(
    logits: NDArray[Any], labels: NDArray[Any], neutral: NDArray[np.bool_], divisor: float, limits: NDArray[np.float64]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield scores by their name, each (N,) over AUs."""
    probabilities = _probabilities(logits, divisor)
    alarms = probabilities[neutral] >= limits
    yield "threshold", limits
    yield "f1", metrics.au_f1(labels, probabilities, limits)["f1"]
    name = "expected_calibration_error"
    yield name, metrics.expected_calibration_error(labels, probabilities)[name]
    yield "false_alarms", alarms.mean(axis=0) if len(alarms) else np.full(len(limits), np.nan)


def best_thresholds(
    labels: ArrayLike,
    probabilities: ArrayLike,
    neutral: ArrayLike | None = None,
    false_alarm_rate: float = 1.0,
) -> NDArray[np.float64]:
    """Return the threshold of the highest F1 for each AU, among 0.01, 0.02, …, 0.99.

    Ties go to the threshold nearest to 0.5; so an AU without positives gets 0.5.

    Args:
        labels: (F, N): 1, 0, or -1 (not labeled).
        probabilities: (F, N).
        neutral: (F,) bool, whether a frame shows a neutral face.
        false_alarm_rate: The largest share of neutral frames that may reach the threshold; an AU for which no candidate
            satisfies this gets the threshold 1.

    Returns:
        (N,).

    Example:
        >>> best_thresholds([[1], [0], [0]], [[0.4], [0.2], [0.1]]).tolist()
        [0.4]
        >>> best_thresholds([[1], [1], [0]], [[0.9], [0.4], [0.6]], [False, False, True], 0.0).tolist()
        [0.61]
    """
    truth, predicted = np.asarray(labels), np.asarray(probabilities)
    calm = np.zeros(len(truth), bool) if neutral is None else np.asarray(neutral, bool)
    candidates = _GRID.astype(predicted.dtype)
    order = np.argsort(np.abs(_GRID - 0.5), kind="stable")  # the first of equal F1 wins
    result = np.ones(truth.shape[1])
    for index, (column, scores) in enumerate(zip(truth.T, predicted.T, strict=True)):
        labeled, present, resting = (np.sort(scores[rows]) for rows in (column >= 0, column == 1, calm))
        positives, hits, alarms = (
            part.size - np.searchsorted(part, candidates, "left") for part in (labeled, present, resting)
        )
        f1 = 2 * hits / np.maximum(present.size + positives, 1)
        allowed = alarms <= false_alarm_rate * resting.size
        if allowed.any():
            result[index] = _GRID[order[np.argmax(np.where(allowed, f1, -1.0)[order])]]
    return result


def _scale_of(
    predictions: Predictions, take: Any, put: Any, detected: NDArray[np.bool_], current: float
) -> float | None:
    """Return the scale of intensities; None if the model predicts none, or no present AU is detected."""
    if predictions.predicted_intensities is None:
        return None
    told = np.where(detected, predictions.intensities[:, put], -1)
    return best_intensity_scale(told, predictions.predicted_intensities[:, take] / current)


def best_intensity_scale(intensities: ArrayLike, predicted: ArrayLike) -> float | None:
    """Return the factor that makes predicted intensities right on average where an AU is present (FACS A and above).

    Without it they are too low there: a regression pulls what it is unsure of towards the mean, which is near 0. Our
    choice; intensities near 0 change little.

    Args:
        intensities: (F, N) true intensities, 0-5; -1 is missing.
        predicted: (F, N).

    Returns:
        A factor from 0.1 to 10; None if no AU is present.

    Example:
        >>> best_intensity_scale([[3.0, 0.0], [4.0, -1.0]], [[1.5, 0.1], [2.0, 3.0]])
        2.0
    """
    truth, found = np.asarray(intensities, np.float64), np.asarray(predicted, np.float64)
    present = truth >= 1
    if not found[present].sum() > 0:
        return None
    return round(float(np.clip(truth[present].sum() / found[present].sum(), 0.1, 10)), 4)


def best_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature of the lowest negative log-likelihood, one for all AUs.

    Args:
        logits: (F, N).
        labels: (F, N): 1, 0, or -1 (not labeled).

    Returns:
        A temperature from 0.05 to 20.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017. The likelihood is convex in 1 / temperature,
        so bisection on its slope finds the minimum.

    Example:
        >>> best_temperature([[3.0], [3.0], [3.0], [3.0]], [[1], [1], [1], [0]]) > 1  # wrong once in four
        True
    """
    truth = np.asarray(labels)
    known = truth >= 0
    scores, targets = np.asarray(logits, np.float64)[known], (truth[known] == 1).astype(np.float64)
    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    for _ in range(60):
        middle = (low + high) / 2
        # d NLL / d (1 / temperature) = Σ (probability - label) · logit
        slope = float(np.sum((0.5 * (1 + np.tanh(0.5 * middle * scores)) - targets) * scores))
        low, high = (low, middle) if slope > 0 else (middle, high)
    return round(2 / (low + high), 4)


def _probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    return action_unit_probabilities(torch.from_numpy(logits), temperature).numpy()


def _known_validation(
    model: str | os.PathLike[str] | None, dataset: AUDataset, fold: int | None, protocol: str
) -> list[str]:
    """Return the subjects that training validated on, if it was of the same fold."""
    trained = training_facts(model).get("dataset") or {}
    trained_fold = trained.get("fold")
    if trained.get("name") != dataset.NAME or (trained_fold is None) != (fold is None):
        return []
    if fold is not None:
        other = dataset.fold(trained_fold, trained.get("protocol") or "jaanet")
        if other.part != dataset.fold(fold, protocol).part:
            return []
    return list(trained.get("validation_subject_ids") or [])


def _validation_rows(
    rows: "datasets.Dataset", wanted: list[str], share: float, seed: int
) -> tuple[NDArray[np.intp], int, str]:
    """Return the rows of the validation subjects, their number, and how they were chosen."""
    subjects = np.array(rows["subject_id"][:], dtype=np.str_)
    everybody = np.unique(subjects)
    chosen, origin = np.intersect1d(everybody, wanted), "the subjects that training validated on"
    if not len(chosen):
        count = max(1, round(share * len(everybody)))
        chosen = np.random.default_rng(seed).permutation(everybody)[:count]
        origin = f"{count} of {len(everybody)} training subjects, seed {seed}"
        warnings.warn(
            "The checkpoint names no validation subjects of this data, so it is calibrated on"
            f" {origin}. If it was trained on them, its probabilities will stay overconfident.",
            DatasetWarning,
            stacklevel=3,
        )
    return np.flatnonzero(np.isin(subjects, chosen)), len(chosen), origin


def _target(model: str | os.PathLike[str] | None, output: str | os.PathLike[str] | None) -> Path:
    """Return the folder whose config will be changed; checked before anything is computed."""
    if output is not None:
        target = Path(output)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise EvaluationError(f"`output` must be a new or empty folder, got '{target}'. Pass another name.")
        return target
    if model is None or not Path(model).is_dir() or Path(model).resolve() == BUNDLED_CHECKPOINT.resolve():
        shown = "the bundled checkpoint" if model is None or Path(model).is_dir() else f"'{model}' on the Hub"
        raise EvaluationError(f"Cannot change {shown} in place. Pass `output`, a new folder for a calibrated copy.")
    return Path(model)


@contextmanager
def _locked(target: Path, output: str | os.PathLike[str] | None) -> Iterator[None]:
    """Hold the checkpoint that is changed in place; a copy needs no lock, because it appears whole or not at all."""
    if output is not None:
        yield
        return
    with FolderLock(target, content="a checkpoint", error=EvaluationError):
        yield


def _write(target: Path, model: str | os.PathLike[str] | None, chosen: dict[str, Any], report: dict[str, Any]) -> None:
    """Change the config in place, or write a whole copy that appears at the end."""
    source = BUNDLED_CHECKPOINT if model is None else Path(model)
    if source.resolve() == target.resolve():
        _write_calibration(target, chosen, report)
        return
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(str(model)))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".calibrate-") as scratch:
        copy = Path(shutil.copytree(source, Path(scratch) / "copy"))
        _write_calibration(copy, chosen, report)
        try:
            if target.is_dir():  # and empty; Windows does not replace a folder
                target.rmdir()
            replace_file(copy, target)
        except OSError as error:
            raise EvaluationError(
                f"Cannot write the calibrated copy '{target}': {reason_of(error)}. Pass another output."
            ) from error


def _write_calibration(folder: Path, chosen: dict[str, Any], report: dict[str, Any]) -> None:
    """Write report and config. The config is written last: it marks completion."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(report, folder / REPORT)
    write_json({**config, **chosen}, path)
