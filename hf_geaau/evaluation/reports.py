"""Score a checkpoint on a fold, or each checkpoint of a directory on its fold, as reports that fit JSON."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_geaau import facs, metrics
from hf_geaau.data import AUDataset, Fold, get_dataset, open_aligned
from hf_geaau.errors import DatasetWarning, EvaluationError
from hf_geaau.files import parse_json
from hf_geaau.metrics._checks import mean_of_known, plain_number, with_mean
from hf_geaau.metrics.folds import by_unit, mean_of_folds, pooled_folds
from hf_geaau.metrics.triplets import TRIPLET_TYPES
from hf_geaau.models.geaau.image_processing_geaau import GeaauImageProcessor
from hf_geaau.models.loading import load_checkpoint

from .predictions import Predictions, Progress, TripletPredictions, predict_dataset, predict_triplets

if TYPE_CHECKING:
    import datasets

FACTS = "training_facts.json"  # written by `hf_geaau.training` beside a checkpoint
SPLITS = ("test", "train", "all")


def evaluate(
    model: str | os.PathLike[str] | None,
    name: str,
    data_dir: str | os.PathLike[str],
    fold: int | None = 1,
    *,
    split: str = "test",
    protocol: str = "jaanet",
    threshold: float | None = None,
    batch_size: int = 64,
    device: str | None = None,
    num_workers: int = 0,
    bf16: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a checkpoint on one fold: action units, or triplets if the dataset has them.

    Frames are pooled over the fold. AUs that model and dataset do not share are left out and named in a note.

    Args:
        model: Directory or Hub id; None for the bundled checkpoint.
        name: One of `hf_geaau.data.list_datasets()`.
        data_dir: Aligned crops: a folder that `hf-geaau prepare` made, or rendered faces. Own data as for `load`.
        fold: Number of the fold; None for all subjects.
        split: "test" or "train" of the fold, or "all" subjects.
        protocol: Numbering that `fold` follows: "jaanet" or "megraphau".
        threshold: For all AUs; None for those of the config. Published numbers are at 0.5.
        batch_size, device, num_workers, bf16, progress: As for `predict_dataset`.
        **options: The dataset's own, such as `camera="left"` for DISFA, or `triplets=1000` for rendered faces.

    Returns:
        The report; undefined scores are None. "checkpoint", "dataset", "title", "is_licensed", "fold",
        "protocol", "split", "identities_shared_with_training" (a number, None if unknown), "notes" and "skipped"
        (texts); for AUs also "temperature" and the result of `score`, for triplets that of `score_triplets`.

    Raises:
        CheckpointError, DatasetError, DatasetNotFoundError, DeviceError: If one of them is wrong.
        EvaluationError: If the model and the dataset do not belong together.

    Warns:
        DatasetWarning: For each of the "notes": subjects that the model was trained on, AUs left out, frames skipped.
    """
    if split not in SPLITS:
        raise EvaluationError(f"`split` must be one of {', '.join(map(repr, SPLITS))}, got {split!r}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise EvaluationError(f"`threshold` must lie in [0, 1], got {threshold}.")
    if fold is None or split == "all":
        fold, split = None, "all"
    part = "train" if split == "all" else split
    source, rows, network, processor = open_pair(model, name, data_dir, fold, part, protocol, options)
    notes = _comparability_notes(processor, source, source.fold(fold, protocol), part, len(rows))
    settings = (batch_size, device, num_workers, progress, bf16)
    if source.aus:
        predictions = predict_dataset(network, processor, rows, *settings)
        scores, skipped = score(predictions, network.config, source.aus, threshold), predictions.skipped
        shared, warning = shared_subjects(model, network.config, source, predictions.subject_id)
        notes += [*([warning] if warning else []), *_unit_notes(network.config.action_units, source)]
        scores = {"identities_shared_with_training": shared, "temperature": network.config.temperature, **scores}
    else:
        triplets = predict_triplets(network, processor, rows, *settings)
        scores, skipped = {"identities_shared_with_training": None, **score_triplets(triplets)}, triplets.skipped
    if skipped:
        notes.append(f"{len(skipped)} of {len(rows)} rows are skipped because their images cannot be read.")
    for note in notes:
        warnings.warn(note, DatasetWarning, stacklevel=2)
    head: dict[str, Any] = {"checkpoint": Path(model or "bundled").name, "dataset": name, "title": source.TITLE}
    head |= {"is_licensed": source.IS_LICENSED, "fold": fold, "protocol": protocol, "split": split}
    return {**head, **scores, "notes": notes, "skipped": skipped}


def _comparability_notes(processor: Any, source: AUDataset, fold: Fold, part: str, count: int) -> list[str]:
    """Name what keeps scores from being comparable: another crop template, or other frames than published."""
    notes = []
    template = getattr(processor, "crop_template", None)
    if template is not None and not np.allclose(template, GeaauImageProcessor.crop_template):
        notes.append(
            "The checkpoint was trained with another crop template than that of these crops, so faces lie elsewhere and"
            " scores will be too low."
        )
    # Crops may have been cut with the drop list or without; both counts are published.
    kinds = [source, replace(source, drop_listed=True)] if source.DROP_LIST else [source]
    published, *others = [kind.published_counts(fold).get(part) for kind in kinds]
    if published is not None and count not in (published, *others):
        notes.append(
            f"{source.TITLE} has {published:,} frames in this split in the literature, but {count:,} here: the"
            " scores are not comparable."
        )
    return notes


def evaluate_folds(
    directory: str | os.PathLike[str],
    name: str,
    data_dir: str | os.PathLike[str],
    **arguments: Any,
) -> dict[str, Any]:
    """Score each fold with the checkpoint that was trained for it.

    Args:
        directory: Holds a checkpoint for each fold: fold1/, fold2/, …
        name, data_dir: As for `evaluate`.
        **arguments: What else `evaluate` takes.

    Returns:
        "folds": the reports by number, as text; "mean_of_folds" and "pooled": the results of
        `hf_geaau.metrics.mean_of_folds` and `pooled_folds`.

    Raises:
        EvaluationError: If there is no such folder; and as `evaluate`.
    """
    numbers = fold_numbers(directory)
    if not numbers:
        raise EvaluationError(f"`directory` must hold fold1, fold2, …, got none in '{directory}'.")
    reports = {
        str(fold): evaluate(Path(directory) / f"fold{fold}", name, data_dir, fold, **arguments) for fold in numbers
    }
    if any("action_units" not in report for report in reports.values()):
        raise EvaluationError(
            f"`name` must be a dataset with AUs, got triplets of '{name}'. Evaluate each encoder by itself."
        )
    every = list(reports.values())
    return {"folds": reports, "mean_of_folds": mean_of_folds(every), "pooled": pooled_folds(every)}


def fold_numbers(directory: str | os.PathLike[str]) -> list[int]:
    """Return the folds of a directory with fold1/, fold2/, …; none if it is a checkpoint itself."""
    folder = Path(directory)
    if not folder.is_dir() or (folder / "config.json").is_file():
        return []
    names = (path.name.removeprefix("fold") for path in folder.glob("fold*") if (path / "config.json").is_file())
    return sorted(int(name) for name in names if name.isdecimal())


def score(
    predictions: Predictions, config: Any, units: Sequence[int], threshold: float | None = None
) -> dict[str, Any]:
    """Score predictions of AUs.

    Args:
        predictions: Of `predict_dataset`.
        config: The model's.
        units: FACS numbers of the dataset's labels, in order.
        threshold: For all AUs; None for those of the config.

    Returns:
        "frames", "subjects"; "action_units": by AU, in the dataset's order, "f1", "precision", "recall", "auc",
        "accuracy", "base_rate", "always_on_f1", "labelled", "positives", "predicted", "true_positives",
        "expected_calibration_error", "threshold"; "mean": the same without threshold; and if the model predicts
        intensities, "intensity": by AU and "mean", "icc" and "mae"; if it predicts sides and the dataset tells them,
        "sides": by AU that has them and "mean", "side_auc" and "side_choice"; and likewise "visibility": by AU that is
        hidden in some frames and "mean", "visibility_auc".

    Raises:
        EvaluationError: If model and dataset share no AU.
    """
    _check_shared(config.action_units, units)
    take, put = facs.index_map(config.action_units, units)
    labels, probabilities = predictions.labels[:, put], predictions.probabilities[:, take]
    limits = np.asarray(config.thresholds, np.float32)[take] if threshold is None else np.full(len(take), threshold)
    names = facs.labels([units[index] for index in put])
    parts = [
        metrics.au_f1(labels, probabilities, limits),
        metrics.au_auc(labels, probabilities),
        metrics.au_accuracy(labels, probabilities, limits),
        metrics.expected_calibration_error(labels, probabilities),
        {"threshold": [round(limit, 6) for limit in limits.tolist()], "mean": {}},
    ]
    subjects = len(np.unique(predictions.subject_id))
    result: dict[str, Any] = {"frames": len(labels), "subjects": subjects, **by_unit(names, parts)}
    if predictions.predicted_intensities is not None:
        pair = predictions.intensities[:, put], predictions.predicted_intensities[:, take]
        scored = by_unit(names, [metrics.au_icc(*pair), metrics.au_mae(*pair)])
        result["intensity"] = {**scored["action_units"], "mean": scored["mean"]}
    if predictions.sides is not None and predictions.side_probabilities is not None:
        told = predictions.sides[:, put]
        known = np.flatnonzero((told >= 0).any((0, 2)))
        found = predictions.side_probabilities[:, take]
        if len(known):
            scored = by_unit([names[unit] for unit in known], [metrics.au_sides(told[:, known], found[:, known])])
            result["sides"] = {**scored["action_units"], "mean": scored["mean"]}
    if predictions.visible is not None and predictions.visibility is not None:
        told, seen = predictions.visible[:, put], predictions.visibility[:, take]
        known = np.flatnonzero((told == 0).any(0) & (told == 1).any(0))
        if len(known):
            aucs = {"visibility_auc": metrics.au_auc(told[:, known], seen[:, known])["auc"]}
            scored = by_unit([names[unit] for unit in known], [with_mean(aucs)])
            result["visibility"] = {**scored["action_units"], "mean": scored["mean"]}
    return result


def score_triplets(predictions: TripletPredictions) -> dict[str, Any]:
    """Return the scores of triplets: "triplets", "accuracy", "anchor_accuracy", and the same by type in "types"."""
    scores = metrics.triplet_accuracy(predictions.distances, predictions.triplet_types)
    kinds = ("accuracy", "anchor_accuracy", "triplets")
    return {
        **{kind: scores[kind] for kind in kinds},
        "types": {name: {kind: plain_number(scores[f"{kind}_{name}"]) for kind in kinds} for name in TRIPLET_TYPES},
    }


def named(names: Sequence[str], values: NDArray[Any]) -> dict[str, float | None]:
    """Return values by AU, rounded and None for NaN, and "mean", the mean of those that are not NaN."""
    entries = [*zip(names, values.tolist(), strict=True), ("mean", mean_of_known(values))]
    return {name: None if value != value else round(float(value), 6) for name, value in entries}


def score_columns(names: Sequence[str], labels: NDArray[Any], scores: NDArray[Any]) -> dict[str, float | None]:
    """Return the AUC of scores on any scale, such as those of another system.

    Args:
        names: Labels of N AUs.
        labels: (F, N): 1, 0, or -1 (not labeled).
        scores: (F, N); higher for present. NaN where there is none.

    Returns:
        By AU, and "mean"; None for an AU that lacks positives or negatives.
    """
    areas = []
    for column, values in zip(labels.T, scores.T, strict=True):
        finite = np.isfinite(values)
        # The AUC depends only on the order: ranks in [0, 1] stand for the probabilities that the metric expects.
        ranks = np.unique(values[finite], return_inverse=True)[1]
        ranks = ranks / max(1, ranks.max(initial=1))
        areas.append(metrics.au_auc(column[finite][:, None], ranks[:, None])["auc"][0] if finite.any() else np.nan)
    return named(names, np.array(areas))


def open_pair(
    model: str | os.PathLike[str] | None,
    name: str,
    data_dir: str | os.PathLike[str],
    fold: int | None,
    part: str,
    protocol: str,
    options: dict[str, Any],
) -> tuple[AUDataset, "datasets.Dataset", Any, Any]:
    """Return a dataset, its rows, and a network with its image processor; the arguments are those of `evaluate`.

    Raises:
        EvaluationError: If only one of dataset and network has triplets, or they share no AU.
    """
    dataset, _ = get_dataset(name, **options).resolved(data_dir)
    rows = open_aligned(name, data_dir, fold, part, protocol, **options)
    network, processor = load_checkpoint(None if model is None else os.fspath(model))
    is_encoder = not hasattr(network, "classifier")
    if is_encoder and dataset.aus:
        raise EvaluationError(
            f"An expression encoder cannot be scored on the AUs of {dataset.NAME}. Pass triplets: fec, or synthetic"
            " with the option triplets=1000."
        )
    if not is_encoder and not dataset.aus:
        raise EvaluationError(
            f"A model that predicts AUs cannot be scored on the triplets of {dataset.NAME}. Pass a"
            " GeaauForExpressionEmbedding, or AU data."
        )
    if dataset.aus:
        _check_shared(network.config.action_units, dataset.aus)
    return dataset, rows, network, processor


def _check_shared(model_units: Sequence[int], data_units: Sequence[int]) -> None:
    if not set(model_units) & set(data_units):
        raise EvaluationError(
            f"Model and dataset share no AU: the model has {', '.join(facs.labels(model_units))}, the dataset"
            f" {', '.join(facs.labels(data_units))}. Pass another dataset."
        )


def training_facts(model: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Read the training facts beside a checkpoint; {} without, as on the Hub, where they are never uploaded."""
    path = Path(model or "") / FACTS
    if model is None or not path.is_file():
        return {}
    try:
        facts = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(f"Cannot read '{path}', which is no JSON ({error}). Remove it.") from error
    return facts if isinstance(facts, dict) else {}


def trained_fold(model: str | os.PathLike[str] | None, name: str) -> int | None:
    """Return the fold of a dataset that a checkpoint was trained for; None if it is unknown."""
    trained = training_facts(model).get("dataset") or {}
    return trained.get("fold") if trained.get("name") == name else None


def trained_dataset(model: str | os.PathLike[str] | None) -> str | None:
    """Return the name of the dataset that a checkpoint was trained on; None if it is unknown."""
    return (training_facts(model).get("dataset") or {}).get("name")


def shared_subjects(
    model: str | os.PathLike[str] | None, config: Any, dataset: AUDataset, tested: ArrayLike
) -> tuple[int | None, str | None]:
    """Count the tested subjects that a checkpoint was trained on, or selected by.

    Returns:
        The number, None if it is unknown; and a warning of one line, or None.
    """
    facts = training_facts(model)
    trained = facts.get("dataset") or {}
    subjects = set(np.unique(np.asarray(tested)).tolist())
    if trained.get("name") == dataset.NAME:
        seen = subjects & _subjects_seen(facts, dataset, subjects)
        if not seen:
            return 0, None
        where = "without folds" if trained.get("fold") is None else f"for fold {trained['fold']}"
        return len(seen), (
            f"The model has seen {len(seen)} of the {len(subjects)} tested subjects in training or selection (it was"
            f" trained {where} of {dataset.TITLE}, {trained.get('protocol', 'jaanet')}). These scores do not show how"
            " it does on new people."
        )
    names = [*(config.trained_on or []), *(facts.get("trained_on") or [])]
    if dataset.NAME in names:
        return None, (
            f"The model may have seen the tested subjects: it was trained on {dataset.TITLE}, and without its {FACTS}"
            " nobody knows on which subjects. These scores may not show how it does on new people."
        )
    return (0, None) if names else (None, None)


def _subjects_seen(facts: dict[str, Any], dataset: AUDataset, subjects: set[str]) -> set[str]:
    """Return the subjects that a checkpoint has seen; without a list, those outside of its fold's test set.

    Earlier checkpoints, from which training started, count too.
    """
    trained = facts.get("dataset") or {}
    seen: set[str] = set()
    if trained.get("name") == dataset.NAME:
        if isinstance(listed := trained.get("train_subject_ids"), list):
            seen = {*listed, *(trained.get("validation_subject_ids") or [])}
        elif trained.get("fold") is None:
            seen = subjects
        else:
            fold = dataset.fold(trained["fold"], trained.get("protocol") or "jaanet")
            seen = {subject for subject in subjects if dataset.part_of(subject) != fold.part}
    start = facts.get("started_from")
    earlier = training_facts(start) if start and Path(start).is_dir() else None
    return seen | _subjects_seen(earlier, dataset, subjects) if earlier else seen


def _unit_notes(model_units: Sequence[int], dataset: AUDataset) -> list[str]:
    only_model = [unit for unit in model_units if unit not in dataset.aus]
    only_data = [unit for unit in dataset.aus if unit not in model_units]
    sides = [(only_model, "model"), (only_data, "dataset")]
    left_out = " and ".join(f"{', '.join(facs.labels(units))} of the {side}" for units, side in sides if units)
    count = len(dataset.aus) - len(only_data)
    return [f"Model and dataset share {count} AUs, which are scored; left out are {left_out}."] if left_out else []
