"""Choose decision thresholds and a temperature on validation subjects, and write them into a checkpoint's config."""

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau import facs, metrics
from hf_geaau.data import get_dataset, open_aligned
from hf_geaau.errors import DatasetWarning, EvaluationError
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, check_device, load_checkpoint

from .predictions import Predictions, Progress, predict_dataset, probabilities_of
from .reports import check_pair, training_facts, write_json

REPORT = "calibration.json"
VALIDATION_SHARE = 0.2  # of the training subjects, where the checkpoint does not tell its own; our choice

# What thresholds are chosen from. Finer ones would follow single frames. Our choice.
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
    """Calibrate a checkpoint: a temperature, then a threshold for each AU.

    Both are chosen on validation subjects, never on the fold's test subjects: those that training validated on, if the
    checkpoint's training_facts.json tells them, else a share of the fold's training subjects. config.json gets
    `temperature` and `thresholds`; AUs that the dataset does not have keep their threshold. calibration.json beside it
    tells F1 and expected calibration error before and after. They are of the subjects that the choice was made on, so
    the gain is flattering: `evaluate` tells it on the test subjects.

    Args:
        model: Directory or Hub id; None for the bundled checkpoint, which needs `output`.
        name, data_dir, fold, protocol, **options: As for `evaluate`.
        output: New folder for a calibrated copy; None changes the checkpoint itself.
        validation_share: Share of the training subjects to take where the checkpoint names none.
        seed: Decides which.
        false_alarm_rate: The largest share of neutral frames in which an AU may be seen; None: whatever gives the
            highest F1.
        batch_size, device, num_workers, bf16, progress: As for `predict_dataset`.

    Returns:
        What calibration.json holds.

    Raises:
        CheckpointError, DatasetError, DatasetNotFoundError, DeviceError: If one of them is wrong.
        EvaluationError: If the model predicts no AUs of the dataset, `output` is needed or used, or no validation
            subject or label is there.

    Warns:
        DatasetWarning: If the model may have been trained on the validation subjects.
    """
    place = _place(model, output)
    if not 0 < validation_share < 1:
        raise EvaluationError(f"`validation_share` must lie between 0 and 1, got {validation_share}.")
    if false_alarm_rate is not None and not 0 <= false_alarm_rate <= 1:
        raise EvaluationError(f"`false_alarm_rate` must lie in [0, 1], got {false_alarm_rate}.")
    if device is not None:
        check_device(device)
    source = get_dataset(name, **options)
    rows = open_aligned(name, data_dir, fold, "train", protocol, **options)
    network, processor = load_checkpoint(None if model is None else os.fspath(model))
    config = network.config
    check_pair(config, is_encoder=not hasattr(network, "classifier"), dataset=source)
    wanted = _known_validation(model, source, fold, protocol)
    chosen, found, origin = _validation_rows(rows, wanted, validation_share, seed)
    predictions = predict_dataset(
        network, processor, rows.select(chosen), batch_size, device, num_workers, progress, bf16
    )
    result = {"dataset": name, "fold": fold, "protocol": protocol, "validation_subjects": found}
    result |= {"validation_from": origin, "frames": len(predictions.rows)}
    temperature, thresholds, scores = fit(predictions, config, source.aus, false_alarm_rate)
    _write(place, model, temperature, thresholds, result | scores)
    return result | scores


def fit(
    predictions: Predictions,
    config: Any,
    units: tuple[int, ...],
    false_alarm_rate: float | None = None,
    slack: float = 0.0,
) -> tuple[float, list[float], dict[str, Any]]:
    """Choose temperature and thresholds from predictions of validation subjects.

    Args:
        predictions: Of `predict_dataset`.
        config: The model's.
        units: FACS numbers of the dataset's labels, in order.
        false_alarm_rate: As for `best_thresholds`; neutral is a frame whose AUs are all labelled as absent.
        slack: As for `best_thresholds`.

    Returns:
        The temperature; a threshold for each AU of the model; and the scores before and after: "temperature", "nll",
        "f1", "expected_calibration_error", "false_alarms" (means over AUs), "action_units" (by AU: "threshold", "f1",
        "expected_calibration_error", "false_alarms": the share of neutral frames in which it is seen, None without
        such frames), each {"before", "after"}; and "neutral_frames", their number.

    Raises:
        EvaluationError: If no frame is labelled, or the false alarms are limited and no frame is neutral.
    """
    take, put = facs.index_map(config.action_units, units)
    logits, labels = predictions.logits[:, take], predictions.labels[:, put]
    if not (labels >= 0).any():
        raise EvaluationError("The validation subjects must have labelled frames, got none. Choose another fold.")
    old, new = config.temperature, best_temperature(logits, labels)
    limits = np.asarray(config.thresholds, np.float64)
    chosen = limits.copy()
    tempered = probabilities_of(logits, new)
    neutral = (labels == 0).all(axis=1)
    if false_alarm_rate is not None and not neutral.any():
        raise EvaluationError(
            "To limit false alarms, validation must have neutral frames, got none without any AU. Leave"
            " `false_alarm_rate` out, or add neutral faces."
        )
    rate = 1.0 if false_alarm_rate is None else false_alarm_rate
    chosen[take] = best_thresholds(labels, tempered, neutral, rate, slack)
    sides = {
        "before": (probabilities_of(logits, old), limits[take], old),
        "after": (tempered, chosen[take], new),
    }
    names = facs.labels([units[index] for index in put])
    scores: dict[str, Any] = {"neutral_frames": int(neutral.sum()), "action_units": {name: {} for name in names}}
    for side, (chances, cuts, temperature) in sides.items():
        parts = metrics.au_f1(labels, chances, cuts), metrics.expected_calibration_error(labels, chances)
        kept = ("f1", "expected_calibration_error")
        found: dict[str, Any] = {key: part[key] for part in parts for key in kept if key in part}
        found["false_alarms"] = _rates(chances[neutral] >= cuts)
        values: dict[str, Any] = {"temperature": temperature, "nll": _nll(logits, labels, temperature)}
        values |= {key: _mean(rows) for key, rows in found.items()}
        for key, value in values.items():
            scores.setdefault(key, {})[side] = _number(value)
        for index, name in enumerate(names):
            own = {key: rows[index] for key, rows in found.items()}
            for key, value in {"threshold": cuts[index], **own}.items():
                scores["action_units"][name].setdefault(key, {})[side] = _number(value)
    return new, [round(float(cut), 6) for cut in chosen], scores


def best_thresholds(
    labels: ArrayLike,
    probabilities: ArrayLike,
    neutral: ArrayLike | None = None,
    false_alarm_rate: float = 1.0,
    slack: float = 0.0,
) -> NDArray[np.float64]:
    """Find the threshold of the highest F1 for each AU, among 0.01, 0.02, …, 0.99.

    Without `slack`, of several with the same F1 the one nearest to 0.5 is taken; so is for an AU without positives,
    where there is nothing to choose by.

    Args:
        labels: (F, N): 1, 0, or -1 (not labelled).
        probabilities: (F, N).
        neutral: (F,) which frames show a neutral face.
        false_alarm_rate: Only thresholds count that at most this share of neutral frames reaches; where none does, it
            is 1.
        slack: Share of the highest F1 that may be given up: the lowest threshold that keeps the rest is taken. For
            probabilities that come out lower elsewhere than where thresholds are chosen.

    Returns:
        (N,).

    Example:
        >>> best_thresholds([[1], [0], [0]], [[0.4], [0.2], [0.1]]).tolist()
        [0.4]
        >>> best_thresholds([[1], [1], [0]], [[0.9], [0.4], [0.6]], [False, False, True], 0.0).tolist()
        [0.61]
    """
    truth, chances = np.asarray(labels), np.asarray(probabilities)
    calm = np.zeros(len(truth), bool) if neutral is None else np.asarray(neutral, bool)
    cuts = _GRID.astype(chances.dtype)
    order = np.argsort(np.abs(_GRID - 0.5), kind="stable")  # the first of equal ones wins
    result = np.ones(truth.shape[1])
    for place, (marks, scores) in enumerate(zip(truth.T, chances.T, strict=True)):
        known, present, resting = (np.sort(scores[rows]) for rows in (marks >= 0, marks == 1, calm))
        predicted, hits, alarms = (
            part.size - np.searchsorted(part, cuts, "left") for part in (known, present, resting)
        )
        f1 = 2 * hits / np.maximum(present.size + predicted, 1)
        allowed = alarms <= false_alarm_rate * resting.size
        if allowed.any():
            f1 = np.where(allowed, f1, -1.0)
            lowest = np.argmax(f1 >= (1 - slack) * f1.max())
            result[place] = _GRID[lowest if slack and f1.max() > 0 else order[np.argmax(f1[order])]]
    return result


def best_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature of the lowest negative log-likelihood, one for all AUs.

    Args:
        logits: (F, N).
        labels: (F, N): 1, 0, or -1 (not labelled).

    Returns:
        A temperature from 0.05 to 20.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017. The likelihood is convex in 1 / temperature,
        so bisection on its slope finds the minimum.

    Example:
        >>> best_temperature([[3.0], [3.0], [3.0], [3.0]], [[1], [1], [1], [0]]) > 1  # sure, and wrong once in four
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


def _nll(logits: NDArray[Any], labels: NDArray[Any], temperature: float) -> float:
    known = labels >= 0
    scores = logits[known].astype(np.float64) / temperature
    return float(np.mean(np.logaddexp(0, scores) - scores * (labels[known] == 1)))


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what is defined; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _rates(seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of frames in which each AU is seen; NaN without frames."""
    return seen.mean(axis=0) if len(seen) else np.full(seen.shape[1], np.nan)


def _known_validation(model: str | os.PathLike[str] | None, dataset: Any, fold: int | None, protocol: str) -> list[str]:
    """Give the subjects that training validated on, if it was of the same fold."""
    trained = training_facts(model).get("dataset") or {}
    if trained.get("name") != dataset.NAME:
        return []
    theirs = trained.get("fold")
    if theirs != fold and None in (theirs, fold):
        return []
    if fold is not None:
        other = dataset.fold(theirs, trained.get("protocol") or "jaanet")
        if other.part != dataset.fold(fold, protocol).part:
            return []
    return list(trained.get("validation_subject_ids") or [])


def _validation_rows(rows: Any, wanted: list[str], share: float, seed: int) -> tuple[NDArray[np.intp], int, str]:
    """Give the rows of the validation subjects, their number, and where the choice comes from."""
    subjects = np.array(rows["subject_id"][:], dtype=np.str_)
    everybody = np.unique(subjects)
    people, origin = np.intersect1d(everybody, wanted), "the subjects that training validated on"
    if not len(people):
        count = max(1, round(share * len(everybody)))
        people = np.random.default_rng(seed).permutation(everybody)[:count]
        origin = f"{count} of {len(everybody)} training subjects, seed {seed}"
        warnings.warn(
            "Calibration needs subjects that the model was not trained on, got a checkpoint that names none of this"
            f" data: {origin}, are taken. If it was trained on them, its probabilities will stay too sure.",
            DatasetWarning,
            stacklevel=3,
        )
    chosen = np.flatnonzero(np.isin(subjects, people))
    return chosen, len(people), origin


def _place(model: str | os.PathLike[str] | None, output: str | os.PathLike[str] | None) -> Path:
    """Give the folder whose config will be changed; checked before anything is computed."""
    if output is not None:
        place = Path(output)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise EvaluationError(f"`output` must be a new or empty folder, got '{place}'. Pass another name.")
        return place
    if model is None or not Path(model).is_dir() or Path(model).resolve() == BUNDLED_CHECKPOINT.resolve():
        shown = "the bundled checkpoint" if model is None or Path(model).is_dir() else f"'{model}' on the Hub"
        raise EvaluationError(
            f"Only a checkpoint of yours can be changed in its place, got {shown}. Pass `output`, a new folder for a"
            " calibrated copy."
        )
    return Path(model)


def _write(
    place: Path,
    model: str | os.PathLike[str] | None,
    temperature: float,
    thresholds: list[float],
    report: dict[str, Any],
) -> None:
    """Change the config in its place, or make a whole copy that appears at the end."""
    source = BUNDLED_CHECKPOINT if model is None else Path(model)
    if source.resolve() == place.resolve():
        _calibrated(place, temperature, thresholds, report)
        return
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(str(model)))
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".calibrate-") as scratch:
        copy = Path(shutil.copytree(source, Path(scratch) / "copy"))
        _calibrated(copy, temperature, thresholds, report)
        copy.replace(place)  # takes the place of an empty folder


def _calibrated(folder: Path, temperature: float, thresholds: list[float], report: dict[str, Any]) -> None:
    """Write report and config, the config last: once it is there, all is."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(report, folder / REPORT)
    write_json({**config, "temperature": temperature, "thresholds": thresholds}, path)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
