"""A whole run: data, training, the test fold, and the directory that holds the result.

The test fold is opened once, after training, and scored with the checkpoint that was best on validation subjects. Those
are taken from the training subjects.
"""

import json
import math
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from hf_geaau import facs, metrics
from hf_geaau.data import class_weights, get_dataset, open_aligned
from hf_geaau.errors import TrainingError
from hf_geaau.evaluation import evaluate
from hf_geaau.files import write_json

from .checkpoints import full_disk_in_one_line, has_ended, read_state, resume_point
from .curves import save_curves
from .data import CropDataset
from .ema import load_average
from .model import build_model
from .recipe import Recipe, load_recipe
from .trainer import build_trainer

_VERSIONS = ("hf_geaau", "torch", "transformers", "timm", "datasets")
FACTS, METRICS, RECIPE, FOLDS, _RUN = "training_facts.json", "metrics.json", "recipe.yaml", "folds.json", ".run.json"


@dataclass(frozen=True)
class Split:
    """Training and validation rows of a fold; nobody is in both.

    Attributes:
        train, validation: Datasets; validation is None without a share.
        train_subjects, validation_subjects: Who; empty for triplets, which name nobody.
    """

    train: Any
    validation: Any
    train_subjects: list[str]
    validation_subjects: list[str]


def open_split(recipe: Recipe, data_dir: str | os.PathLike[str], fold: int | None) -> Split:
    """Open the train side of a fold and hold out validation subjects. The test side stays closed.

    Triplets name no people; of them a share of the rows is held out, which may show the same photos.

    Raises:
        TrainingError: If there are too few subjects to hold one out.
        DatasetError, DatasetNotFoundError: As `open_aligned`.
    """
    rows = open_aligned(recipe.dataset, data_dir, fold, "train", recipe.protocol, **recipe.options)
    named = "subject_id" in rows.column_names
    groups = np.array(rows["subject_id"][:], dtype=np.str_) if named else np.arange(len(rows))
    members = np.unique(groups)
    if not recipe.validation_share:
        return Split(rows, None, members.tolist() if named else [], [])
    count = max(1, round(recipe.validation_share * len(members)))
    if len(members) < 2:
        raise TrainingError(
            f"Validation must hold out whole {'subjects' if named else 'triplets'}, got {len(members)} to train on in "
            f"'{data_dir}'. Add data, or set validation_share=0 (then early_stopping=null)."
        )
    held_out = np.random.default_rng(recipe.seed).permutation(members)[:count]
    is_held_out = np.isin(groups, held_out)
    return Split(
        rows.select(np.flatnonzero(~is_held_out)),
        rows.select(np.flatnonzero(is_held_out)),
        sorted(set(members.tolist()) - set(held_out.tolist())) if named else [],
        sorted(held_out.tolist()) if named else [],
    )


def datasets_of(recipe: Recipe, split: Split, image_size: int, intensities: bool) -> tuple[Any, Any]:
    """Make the training set and, if there is one, the validation set."""
    row_units = get_dataset(recipe.dataset, **recipe.options).aus
    common: dict[str, Any] = {
        "row_units": row_units,
        "action_units": recipe.action_units,
        "with_intensities": intensities,
        "ignore_traces": recipe.ignore_traces,
        "seed": recipe.seed,
    }
    train = CropDataset(
        split.train,
        image_size,
        augmentation=recipe.augmentation,
        shuffle=True,
        batch_size=recipe.batch_size,
        **common,
    )
    return train, None if split.validation is None else CropDataset(split.validation, image_size, **common)


def describe(recipe: Recipe, data_dir: str | os.PathLike[str], fold: int | None) -> dict[str, Any]:
    """Count what a run would use, without loading an image or a weight.

    Raises:
        TrainingError, DatasetError, DatasetNotFoundError: As `train`.
    """
    split = open_split(recipe, data_dir, fold)
    per_epoch = max(1, len(split.train) // recipe.batch_size)
    steps = recipe.max_steps or math.ceil((recipe.epochs or 1) * per_epoch)
    counts: dict[str, Any] = {"training rows": len(split.train)}
    if split.train_subjects:
        counts["training subjects"] = len(split.train_subjects)
    if split.validation is not None:
        counts["validation rows"] = len(split.validation)
    if split.validation_subjects:
        counts["validation subjects"] = ", ".join(split.validation_subjects)
    if fold is not None:
        test = open_aligned(recipe.dataset, data_dir, fold, "test", recipe.protocol, **recipe.options)
        counts["test rows"] = len(test)
    return {**counts, "steps per epoch": per_epoch, "steps": steps}


def train(
    recipe: Recipe | str,
    data_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    fold: int | None = 1,
    *,
    model: Any = None,
    callbacks: list[TrainerCallback] | None = None,
    keep_checkpoints: bool = False,
    use_cpu: bool | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Train one fold and score its test subjects. Interrupted, the same call goes on; finished, it does nothing.

    Args:
        recipe: A recipe, its name, or the path of its file.
        data_dir: Aligned crops: what `hf-geaau prepare` wrote, or rendered faces.
        output: Becomes a checkpoint directory, with metrics.json, training_facts.json, curves.png and recipe.yaml.
        fold: Whose subjects are the test set; None trains on all subjects and tests on none.
        model: A prepared model instead of the recipe's.
        callbacks: Further callbacks of the Trainer.
        keep_checkpoints: Leave the checkpoints of the run where they are.
        use_cpu: Stay on the CPU; None: only if there is nothing else.
        show_progress: Whether the Trainer shows its own bar and log.

    Returns:
        The content of metrics.json: "test", a report as `hf_geaau.evaluation.evaluate` gives (None without a test
        fold), "validation", the scores of the chosen checkpoint, and "step".

    Raises:
        TrainingError: If recipe, data and what `output` holds do not fit, training diverges, or the disk is full.
        DatasetError, DatasetNotFoundError: As `hf_geaau.data.load`.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    folder = Path(output)
    if (folder / FACTS).is_file() and not (folder / _RUN).is_file():
        _check_same(folder, recipe, fold)
        return json.loads((folder / METRICS).read_text(encoding="utf-8"))
    split = open_split(recipe, data_dir, fold)
    model = build_model(recipe) if model is None else model
    train_set, validation_set = datasets_of(
        recipe, split, model.config.image_size, getattr(model.config, "predict_intensity", False)
    )
    notes = _weigh_classes(model.config, recipe, train_set)
    _note_data(model.config, recipe)
    clock = _Clock(folder / _RUN)
    extra = [clock, _Divergence(recipe.precision), *(callbacks or [])]
    trainer = build_trainer(recipe, train_set, validation_set, model, output=folder, callbacks=extra, use_cpu=use_cpu)
    for kind in () if show_progress else (PrinterCallback, ProgressCallback):
        trainer.remove_callback(kind)
    with trainer.args.main_process_first(local=False):
        if trainer.is_world_process_zero():
            _claim(folder, recipe, fold, split)
        checkpoint = resume_point(folder)
    clock.start()
    with full_disk_in_one_line(folder):
        _train(trainer, checkpoint, recipe)
        if recipe.ema_decay is not None and trainer.is_world_process_zero():
            load_average(trainer, folder)
        trainer.save_model(str(folder))
    if not trainer.is_world_process_zero():
        return {}
    clock.stop()
    facts = _facts(recipe, fold, split, trainer, clock.minutes, notes)
    with full_disk_in_one_line(folder):
        result = _score(trainer, recipe, data_dir, folder, fold, facts)
        save_curves(trainer.state.log_history, folder / "curves.png", recipe.stage)
    _tidy(folder, keep_checkpoints)
    return result


def train_folds(
    recipe: Recipe | str, data_dir: str | os.PathLike[str], output: str | os.PathLike[str], **arguments: Any
) -> dict[str, Any]:
    """Train and score every fold, into fold1/, fold2/, …; folds that are finished are passed over.

    Args:
        recipe, data_dir: As for `train`.
        output: Gets the folders, and folds.json.
        **arguments: What else `train` takes, but no `model`.

    Returns:
        The content of folds.json: "folds", "mean_of_folds" (what papers print) and "pooled".

    Raises:
        TrainingError: If the dataset has no folds; and as `train`.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    count = len(get_dataset(recipe.dataset, **recipe.options).PARTS)
    if recipe.stage == "expression" or not count:
        raise TrainingError(f"All folds need AU data with folds, got {recipe.dataset} in stage '{recipe.stage}'.")
    folder = Path(output)
    reports: dict[str, Any] = {}
    for fold in range(1, count + 1):
        reports[str(fold)] = train(recipe, data_dir, folder / f"fold{fold}", fold, **arguments).get("test")
    if not all(reports.values()):  # a process beside the first
        return {}
    every = list(reports.values())
    result = {"folds": reports, "mean_of_folds": metrics.mean_of_folds(every), "pooled": metrics.pooled_folds(every)}
    write_json(result, folder / FOLDS)
    return result


def _train(trainer: Trainer, checkpoint: Path | None, recipe: Recipe) -> None:
    """Train from the start or a checkpoint; of a run that had ended, only load the best weights."""
    if checkpoint is None or not has_ended(read_state(checkpoint), recipe.early_stopping):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return
    state = trainer.state.load_from_json(str(checkpoint / "trainer_state.json"))
    trainer.state = state
    best = checkpoint.parent / f"checkpoint-{state.best_global_step}"
    source = best if trainer.args.load_best_model_at_end and best.is_dir() else checkpoint
    trainer.model.load_state_dict(type(trainer.model).from_pretrained(source).state_dict())


def _tidy(folder: Path, keep_checkpoints: bool) -> None:
    """Remove what only an unfinished run needs; last the note that tells it from a finished one."""
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, and recipe.yaml says the same
    if not keep_checkpoints:
        for path in folder.glob("checkpoint-*"):
            shutil.rmtree(path)
    (folder / _RUN).unlink()


def _claim(folder: Path, recipe: Recipe, fold: int | None, split: Split) -> None:
    """Write down what the folder holds, or check that it holds the beginning of the same run."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [len(split.train), 0 if split.validation is None else len(split.validation)]
    if (folder / _RUN).is_file():
        _check_same(folder, recipe, fold)
        found = json.loads((folder / _RUN).read_text(encoding="utf-8"))["rows"]
        if found != rows:
            raise TrainingError(
                f"The run in '{folder}' must go on with the same data, got {sum(rows)} rows instead of {sum(found)}. "
                "Pass another output, or the same data."
            )
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise TrainingError(
            f"The output must be new, empty, or an earlier run, got '{folder}' with other files. Pass another folder."
        )
    write_json({"fold": fold, "rows": rows, "minutes": 0.0}, folder / _RUN)
    recipe.save(folder / RECIPE)


def _check_same(folder: Path, recipe: Recipe, fold: int | None) -> None:
    """Refuse to mix two runs in one folder."""
    before = load_recipe(folder / RECIPE).to_dict() if (folder / RECIPE).is_file() else {}
    for key, value in recipe.to_dict().items():
        if key in before and before[key] != value:
            raise TrainingError(
                f"The run in '{folder}' must go on as it began, with {key}={before[key]!r}, got {value!r}. "
                "Pass another output for another run."
            )
    record = folder / (_RUN if (folder / _RUN).is_file() else FACTS)
    content = json.loads(record.read_text(encoding="utf-8"))
    found = content["fold"] if "fold" in content else content["dataset"]["fold"]
    if found != fold:
        raise TrainingError(f"'{folder}' must be used for one fold, got {fold} where {found} is. Pass another output.")


def _weigh_classes(config: Any, recipe: Recipe, train_set: CropDataset) -> list[str]:
    """Put class weights of the training subjects into the config; give notes on AUs that never occur there."""
    if recipe.stage == "expression":
        return []
    labels: NDArray[Any] = train_set.targets["labels"].numpy()
    missing = np.flatnonzero(~(labels == 1).any(axis=0))
    notes = [f"No training frame shows {name}." for name in facs.labels([config.action_units[n] for n in missing])]
    if recipe.class_weighting == "none":
        return notes
    labels = labels.copy()
    labels[0, missing] = 1  # weighted as if one frame showed it: an AU that never occurs has no rate (our choice)
    if recipe.class_weighting == "inverse_rate":
        config.au_weights = class_weights(labels).tolist()
    else:
        config.pos_weight = ((labels == 0).sum(0).clip(min=1) / (labels == 1).sum(0)).tolist()
    return notes


def _note_data(config: Any, recipe: Recipe) -> None:
    config.trained_on = list(dict.fromkeys([*(config.trained_on or []), recipe.dataset]))


def _score(
    trainer: Trainer, recipe: Recipe, data_dir: Any, folder: Path, fold: int | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """Score the test fold with the finished checkpoint, and write metrics and facts."""
    write_json(facts, folder / FACTS)  # tells `evaluate` whom the model was trained on
    test = None
    if fold is not None:
        test = evaluate(
            folder,
            recipe.dataset,
            data_dir,
            fold,
            protocol=recipe.protocol,
            batch_size=2 * recipe.per_device_batch_size,
            device=str(trainer.args.device),
            num_workers=recipe.workers,
            **recipe.options,
        )
        facts["dataset"]["test_rows"] = test.get("frames", test.get("triplets"))
        facts["dataset"]["test_subjects"] = test.get("subjects")
    result = {"test": test, "validation": _validation(trainer), "step": trainer.state.best_global_step}
    write_json(result, folder / METRICS)
    write_json({**facts, "evaluation": test}, folder / FACTS)
    return result


def _validation(trainer: Trainer) -> dict[str, Any] | None:
    """Give the validation scores of the chosen checkpoint."""
    wanted = trainer.state.best_global_step
    for entry in trainer.state.log_history:
        if entry.get("step") == wanted and "eval_loss" in entry:
            scores = {key.removeprefix("eval_"): value for key, value in entry.items() if key.startswith("eval_")}
            return {
                key: None if value != value else value
                for key, value in scores.items()
                if not key.endswith(("runtime", "per_second", "preparation_time"))
            }
    return None


def _facts(
    recipe: Recipe, fold: int | None, split: Split, trainer: Trainer, minutes: float, notes: list[str]
) -> dict[str, Any]:
    """Collect what a model card tells."""
    source = get_dataset(recipe.dataset, **recipe.options)
    held_out = 0 if split.validation is None else len(split.validation)
    return {
        "recipe": recipe.to_dict(),
        "dataset": {
            "name": source.NAME,
            "title": source.TITLE,
            "license": source.LICENSE,
            "homepage": source.HOMEPAGE,
            "citation": source.CITATION,
            "is_licensed": source.IS_LICENSED,
            "fold": fold,
            "folds": len(source.PARTS),
            "protocol": recipe.protocol,
            "train_rows": len(split.train),
            "validation_rows": held_out,
            "test_rows": None,
            "train_subjects": len(split.train_subjects),
            "validation_subjects": len(split.validation_subjects),
            "test_subjects": None,
            "train_subject_ids": split.train_subjects,
            "validation_subject_ids": split.validation_subjects,
            "notes": notes,
        },
        "trained_on": trainer.model.config.trained_on,
        "started_from": recipe.expression_encoder or recipe.start_from,
        "seed": recipe.seed,
        "versions": {
            name: metadata.version(name) for name in ("hf_geaau", "torch", "transformers", "timm", "datasets")
        },
        "commit": _commit(),
        "hardware": {
            "device": str(trainer.args.device),
            "processes": trainer.args.world_size,
            "threads": torch.get_num_threads(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
        "minutes": round(minutes, 2),
        "steps": trainer.state.global_step,
        "evaluation": None,
    }


def _commit() -> str | None:
    """Give the commit of this package, if it runs from a clone."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], check=True, capture_output=True)
        found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


class _Clock(TrainerCallback):
    """Counts the minutes of a run over its interruptions."""

    def __init__(self, record: Path) -> None:
        self.record, self.minutes, self.began = record, 0.0, time.monotonic()

    def start(self) -> None:
        """Go on from what is written down."""
        if self.record.is_file():
            self.minutes = json.loads(self.record.read_text(encoding="utf-8")).get("minutes", 0.0)
        self.began = time.monotonic()

    def stop(self) -> None:
        """Add the time since the start."""
        self.minutes += (time.monotonic() - self.began) / 60
        self.began = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.record.is_file():
            self.stop()
            content = json.loads(self.record.read_text(encoding="utf-8"))
            write_json({**content, "minutes": self.minutes}, self.record)


class _Divergence(TrainerCallback):
    """Stops when gradients are no numbers any more; the Trainer's log leaves such losses out."""

    def __init__(self, precision: str) -> None:
        self.is_strict = precision != "fp16"  # whose scaler meets infinity on purpose

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.is_strict and logs and not np.isfinite(logs.get("grad_norm", 0.0)):
            raise TrainingError(
                f"Gradients must be finite, got NaN or infinity at step {state.global_step}. "
                "Lower `learning_rate`, or raise `warmup`."
            )
