"""Score a checkpoint on a fold, or a directory of checkpoints on their folds, as reports that JSON holds."""

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_geaau import facs, metrics
from hf_geaau.data import AUDataset, get_dataset, open_aligned
from hf_geaau.errors import DatasetWarning, EvaluationError
from hf_geaau.files import whole_file
from hf_geaau.metrics.folds import mean_of_folds, pooled_folds
from hf_geaau.metrics.triplets import TRIPLET_TYPES
from hf_geaau.models.geaau.image_processing_geaau import GeaauImageProcessor
from hf_geaau.models.loading import check_device, load_checkpoint

from .predictions import Predictions, Progress, TripletPredictions, predict_dataset, predict_triplets

FACTS = "training_facts.json"  # what `hf_geaau.training` leaves beside a checkpoint
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
        data_dir: Aligned crops: a folder that `hf-geaau prepare` made, or rendered faces.
        fold: Number of the fold; None for all subjects.
        split: "test" or "train" of the fold, or "all" subjects.
        protocol: Whose numbering `fold` follows: "jaanet" or "megraphau".
        threshold: For all AUs; None for those of the config. Published numbers are at 0.5.
        batch_size, device, num_workers, bf16, progress: As for `predict_dataset`.
        **options: The dataset's own, such as `camera="left"` for DISFA, or `triplets=1000` for rendered faces.

    Returns:
        The report; None stands for what is undefined. "checkpoint", "dataset", "title", "is_licensed", "fold",
        "protocol", "split", "identities_shared_with_training" (a number, or None where nothing tells), "notes" and
        "skipped" (texts); of AUs also "temperature" and what `score` gives, of triplets what `score_triplets` gives.

    Raises:
        CheckpointError, DatasetError, DatasetNotFoundError, DeviceError: If one of them is wrong.
        EvaluationError: If the model and the dataset do not belong together.

    Warns:
        DatasetWarning: For each of the "notes": subjects that the model was trained on, AUs left out, frames skipped.
    """
    _check_choices(split, threshold, device)
    if fold is None or split == "all":
        fold, split = None, "all"
    source = get_dataset(name, **options)
    rows = open_aligned(name, data_dir, fold, "train" if split == "all" else split, protocol, **options)
    network, processor = load_checkpoint(None if model is None else os.fspath(model))
    check_pair(network.config, is_encoder=not hasattr(network, "classifier"), dataset=source)
    notes = [*_crop_notes(processor), *_count_notes(source, fold, protocol, split, len(rows))]
    settings = (batch_size, device, num_workers, progress, bf16)
    if source.aus:
        predictions = predict_dataset(network, processor, rows, *settings)
        scores, skipped = score(predictions, network.config, source.aus, threshold), predictions.skipped
        shared, warning = shared_subjects(model, network.config, source, predictions.subject_id)
        notes += [*([warning] if warning else []), *_unit_notes(network.config.action_units, source)]
        facts = {"identities_shared_with_training": shared, "temperature": network.config.temperature}
    else:
        triplets = predict_triplets(network, processor, rows, *settings)
        scores, skipped, facts = score_triplets(triplets), triplets.skipped, {"identities_shared_with_training": None}
    if skipped:
        notes.append(f"Each image must be readable, got {len(skipped)} of {len(rows)} that are not; skipped.")
    for note in notes:
        warnings.warn(note, DatasetWarning, stacklevel=2)
    head: dict[str, Any] = {"checkpoint": Path(model or "bundled").name, "dataset": name, "title": source.TITLE}
    head |= {"is_licensed": source.IS_LICENSED, "fold": fold, "protocol": protocol, "split": split}
    return {**head, **facts, **scores, "notes": notes, "skipped": skipped}


def _check_choices(split: str, threshold: float | None, device: str | None) -> None:
    """Refuse wrong choices before anything is read."""
    if split not in SPLITS:
        raise EvaluationError(f"`split` must be one of {', '.join(map(repr, SPLITS))}, got {split!r}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise EvaluationError(f"`threshold` must lie in [0, 1], got {threshold}.")
    if device is not None:
        check_device(device)


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
        "folds": the reports by number, as text; "mean_of_folds" and "pooled": as `hf_geaau.metrics.mean_of_folds` and
        `pooled_folds` give them.

    Raises:
        EvaluationError: If there is no such folder; and as `evaluate`.
    """
    numbers = fold_numbers(directory)
    if not numbers:
        raise EvaluationError(f"A directory of folds must hold fold1, fold2, …, got none in '{directory}'.")
    reports = {
        str(fold): evaluate(Path(directory) / f"fold{fold}", name, data_dir, fold, **arguments) for fold in numbers
    }
    if any("action_units" not in report for report in reports.values()):
        raise EvaluationError("Folds must be of AU data, got triplets. Evaluate each encoder by itself.")
    every = list(reports.values())
    return {"folds": reports, "mean_of_folds": mean_of_folds(every), "pooled": pooled_folds(every)}


def fold_numbers(directory: str | os.PathLike[str]) -> list[int]:
    """Give the folds of a directory with fold1/, fold2/, …; none if it is a checkpoint itself."""
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
        "accuracy", "base_rate", "always_on_f1", "labelled", "positives", "predicted", "true_positives", "threshold";
        "mean": the same without threshold; and if the model predicts intensities, "intensity": by AU and "mean", "icc"
        and "mae".

    Raises:
        EvaluationError: If model and dataset share no AU.
    """
    take, put = facs.index_map(config.action_units, units)
    check_pair(config, False, SimpleNamespace(aus=tuple(units), NAME="the dataset"))
    labels, chances = predictions.labels[:, put], predictions.probabilities[:, take]
    limits = np.asarray(config.thresholds, np.float32)[take] if threshold is None else np.full(len(take), threshold)
    names = facs.labels([units[place] for place in put])
    parts = [metrics.au_f1(labels, chances, limits), metrics.au_auc(labels, chances)]
    parts.append(metrics.au_accuracy(labels, chances, limits))
    result: dict[str, Any] = {
        "frames": len(labels),
        "subjects": len(np.unique(predictions.subject_id)),
        **_by_unit(names, parts),
    }
    for entry, limit in zip(result["action_units"].values(), limits.tolist(), strict=True):
        entry["threshold"] = round(limit, 6)
    if predictions.predicted_intensities is not None:
        pair = predictions.intensities[:, put], predictions.predicted_intensities[:, take]
        scored = _by_unit(names, [metrics.au_icc(*pair), metrics.au_mae(*pair)])
        result["intensity"] = {**scored["action_units"], "mean": scored["mean"]}
    return result


def score_triplets(predictions: TripletPredictions) -> dict[str, Any]:
    """Score distances of triplets: "triplets", "accuracy", "anchor_accuracy", and the same by type in "types"."""
    scores = metrics.triplet_accuracy(predictions.distances, predictions.triplet_types)
    kinds = ("accuracy", "anchor_accuracy", "triplets")
    return {
        **{kind: scores[kind] for kind in kinds},
        "types": {name: {kind: _number(scores[f"{kind}_{name}"]) for kind in kinds} for name in TRIPLET_TYPES},
    }


def check_pair(config: Any, is_encoder: bool, dataset: Any) -> None:
    """Check that a model can be scored on a dataset.

    Raises:
        EvaluationError: If one has triplets and the other has not, or they share no AU.
    """
    if is_encoder and dataset.aus:
        raise EvaluationError(
            f"An expression encoder must be evaluated on triplets, got AU data of {dataset.NAME}. Pass fec, or"
            " synthetic with the option triplets=1000."
        )
    if not is_encoder and not dataset.aus:
        raise EvaluationError(
            f"Triplets of {dataset.NAME} must be evaluated with an expression encoder, got a model that predicts AUs."
            " Pass a GeaauForExpressionEmbedding, or AU data."
        )
    if dataset.aus and not set(config.action_units) & set(dataset.aus):
        raise EvaluationError(
            f"Model and dataset must share an AU, got {', '.join(facs.labels(config.action_units))} and"
            f" {', '.join(facs.labels(dataset.aus))}."
        )


def training_facts(model: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Read what a checkpoint's training left beside it; {} where nothing is, as on the Hub, where it never goes."""
    path = Path(model or "") / FACTS
    if model is None or not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(f"'{path}' must hold a JSON object, got something else. Remove it.") from error
    return facts if isinstance(facts, dict) else {}


def trained_fold(model: str | os.PathLike[str] | None, name: str) -> int | None:
    """Give the fold of a dataset that a checkpoint was trained for; None where nothing tells."""
    trained = training_facts(model).get("dataset") or {}
    return trained.get("fold") if trained.get("name") == name else None


def shared_subjects(
    model: str | os.PathLike[str] | None, config: Any, dataset: AUDataset, tested: ArrayLike
) -> tuple[int | None, str | None]:
    """Tell how many of the tested subjects a checkpoint was trained on, or chosen by, and the warning that is due.

    Returns:
        The number, None where nothing tells; and one line, or None.
    """
    facts = training_facts(model)
    trained = facts.get("dataset") or {}
    people = set(np.unique(np.asarray(tested)).tolist())
    if trained.get("name") == dataset.NAME:
        seen = people & (_training_subjects(trained, dataset, people) | _seen_before(facts, dataset, people))
        if not seen:
            return 0, None
        where = "without folds" if trained.get("fold") is None else f"for fold {trained['fold']}"
        return len(seen), (
            f"Tested subjects must be new to the model, got {len(seen)} of {len(people)} that it was trained on or"
            f" chosen by (it was trained {where} of {dataset.TITLE}, {trained.get('protocol', 'jaanet')}): these scores"
            " do not tell how it does on new people."
        )
    names = [*(config.trained_on or []), *(facts.get("trained_on") or [])]
    if dataset.NAME in names:
        return None, (
            f"Tested subjects must be new to the model, got weights that have seen {dataset.TITLE}, and nothing tells"
            f" which subjects (no {FACTS} of it): these scores may not tell how it does on new people."
        )
    return (0, None) if names else (None, None)


def _seen_before(facts: dict[str, Any], dataset: AUDataset, people: set[str]) -> set[str]:
    """Give those of some people whom the checkpoint that training started from had seen, as far as it is at hand."""
    start = facts.get("started_from")
    if not start or not Path(start).is_dir():
        return set()
    earlier = training_facts(start)
    trained = earlier.get("dataset") or {}
    own = _training_subjects(trained, dataset, people) if trained.get("name") == dataset.NAME else set()
    return own | _seen_before(earlier, dataset, people)


def _training_subjects(trained: dict[str, Any], dataset: AUDataset, people: set[str]) -> set[str]:
    """Give those of some people who were not in the test set of the fold that a checkpoint was trained for."""
    if isinstance(listed := trained.get("train_subject_ids"), list):
        return set(listed) | set(trained.get("validation_subject_ids") or [])
    if trained.get("fold") is None:
        return people
    fold = dataset.fold(trained["fold"], trained.get("protocol") or "jaanet")
    return {person for person in people if dataset.part_of(person) != fold.part}


def _unit_notes(model_units: Sequence[int], dataset: AUDataset) -> list[str]:
    only_model = [unit for unit in model_units if unit not in dataset.aus]
    only_data = [unit for unit in dataset.aus if unit not in model_units]
    found = [
        f"{', '.join(facs.labels(units))} of the {side}"
        for units, side in ((only_model, "model"), (only_data, "dataset"))
        if units
    ]
    if not found:
        return []
    count = len(dataset.aus) - len(only_data)
    return [f"Model and dataset share {count} AUs, which are scored; left out are {' and '.join(found)}."]


def _count_notes(dataset: AUDataset, fold: int | None, protocol: str, split: str, found: int) -> list[str]:
    # Crops may have been cut with the drop list or without; both counts are published.
    kinds = [dataset, replace(dataset, drop_listed=True)] if dataset.DROP_LIST else [dataset]
    counts = [
        kind.published_counts(kind.fold(fold, protocol)).get("train" if split == "all" else split) for kind in kinds
    ]
    published = counts[0]
    if published is None or found in counts:
        return []
    return [
        f"{dataset.TITLE} must have the published {published:,} frames in this split, got {found:,}: the scores are not"
        " comparable with the literature."
    ]


def _crop_notes(processor: Any) -> list[str]:
    template = getattr(processor, "crop_template", None)
    if template is None or np.allclose(template, GeaauImageProcessor.crop_template):
        return []
    return [
        "The checkpoint's crop template must be that of the crops, got another one: faces lie elsewhere than it was"
        " trained with, and scores will be too low."
    ]


def _by_unit(names: list[str], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Turn scores of all AUs into entries by AU, and their mean."""
    scores = {key: values for part in parts for key, values in part.items() if key != "mean"}
    means = {key: value for part in parts for key, value in part["mean"].items()}
    units = {name: {key: _number(values[place]) for key, values in scores.items()} for place, name in enumerate(names)}
    return {"action_units": units, "mean": {key: _number(value) for key, value in means.items()}}


def _number(value: Any) -> Any:
    """Make a plain number for JSON, which knows no NaN."""
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value


def write_json(content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a report; nobody finds half of one."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
