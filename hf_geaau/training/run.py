"""A whole run: data, training, the test fold, and the directory that holds the result.

The test fold is opened once, after training, and scored with the checkpoint that was best on validation subjects. Those
are taken from the training subjects.
"""

import gc
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hf_geaau import metrics
from hf_geaau.data import get_dataset
from hf_geaau.errors import TrainingError
from hf_geaau.evaluation import evaluate
from hf_geaau.files import FolderClaim, write_json
from hf_geaau.models.geaau import GeaauForExpressionEmbedding, GeaauModel

from .checkpoints import full_disk_in_one_line, has_ended, read_state, resume_point
from .curves import save_curves
from .ema import load_average
from .facts import FACTS, training_facts
from .model import build_model
from .recipe import Recipe, dotted, load_recipe, resolved_recipe
from .splits import Split, datasets_of, open_split, training_config
from .trainer import build_trainer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

METRICS, RECIPE, FOLDS, RUN = "metrics.json", "recipe.yaml", "folds.json", ".run.json"


def train(
    recipe: Recipe | str,
    data_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    fold: int | None = 1,
    *,
    model: GeaauModel | GeaauForExpressionEmbedding | None = None,
    callbacks: list[TrainerCallback] | None = None,
    keep_checkpoints: bool = False,
    use_cpu: bool | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Train one fold and score its test subjects. Interrupted, the same call resumes; finished, it does nothing.

    Under torchrun or accelerate it leaves the process group open; see `ending_process_group`.

    Args:
        recipe: A recipe, its name, or the path of its file.
        data_dir: Aligned crops: what `hf-geaau prepare` wrote, or rendered faces. Own data as for `load`.
        output: Becomes a checkpoint directory, with metrics.json, training_facts.json, curves.png and recipe.yaml.
        fold: Whose subjects are the test set; None trains on all subjects and tests on none.
        model: A prepared model instead of the recipe's. It is trained as it is: build it from
            `training_config(recipe, open_split(recipe, data_dir, fold))`, whose class weights and `trained_on` the
            recipe and the data decide. Own data needs `resolved_recipe(recipe, data_dir)` first, which knows its AUs.
        callbacks: Further callbacks of the Trainer.
        keep_checkpoints: Keep the checkpoints of the run.
        use_cpu: Stay on the CPU; None: only if there is nothing else.
        show_progress: Whether the Trainer shows its own bar and log.

    Returns:
        The content of metrics.json: "test", a report as `hf_geaau.evaluation.evaluate` returns (None without a test
        fold), "validation", the scores of the chosen checkpoint, and "step". {} in processes beside the first.

    Raises:
        TrainingError: If recipe, data and what `output` holds do not fit, training diverges, another process writes to
            `output`, or the disk is full.
        ProcessError: If the environment says wrongly which of several processes this is.
        DatasetError, DatasetNotFoundError: As `hf_geaau.data.load`.
    """
    recipe = resolved_recipe(recipe, data_dir)
    folder = Path(output)
    if is_finished(folder):
        refuse_another_recipe(folder, recipe)
        _refuse_another_fold(folder, fold)
        return dict(json.loads((folder / METRICS).read_text(encoding="utf-8")))
    split = open_split(recipe, data_dir, fold)
    model = build_model(recipe, training_config(recipe, split)) if model is None else model
    trainer = build_trainer(
        recipe,
        *datasets_of(recipe, split, model.config),
        model,
        output=folder,
        callbacks=[_Divergence(recipe.precision), *(callbacks or [])],
        use_cpu=use_cpu,
    )
    for kind in () if show_progress else (PrinterCallback, ProgressCallback):
        trainer.remove_callback(kind)
    with _claimed(folder, trainer, recipe, fold, split) as claim:
        clock = _Clock(claim)
        trainer.add_callback(clock)
        with full_disk_in_one_line(folder):
            _train(trainer, folder, recipe)
        if claim is None:
            return {}
        facts = training_facts(recipe, fold, split, trainer, clock.stop())
        with full_disk_in_one_line(folder):
            result = _score(trainer, recipe, data_dir, folder, fold, facts)
            save_curves(trainer.state.log_history, folder / "curves.png", recipe.stage)
        _tidy(folder, keep_checkpoints)
    return result


def train_folds(
    recipe: Recipe | str, data_dir: str | os.PathLike[str], output: str | os.PathLike[str], **arguments: Any
) -> dict[str, Any]:
    """Train and score every fold, into fold1/, fold2/, …; finished folds are passed over.

    Args:
        recipe, data_dir: As for `train`.
        output: Gets the folders, and folds.json.
        **arguments: Further arguments of `train`, except `model`.

    Returns:
        The content of folds.json: "folds", "mean_of_folds" (what papers print) and "pooled".

    Raises:
        TrainingError: If the dataset has no folds; and as `train`.
    """
    recipe = resolved_recipe(recipe, data_dir)
    count = get_dataset(recipe.dataset, **recipe.options).fold_count
    if recipe.stage == "expression" or not count:
        raise TrainingError(f"All folds need AU data with folds, got {recipe.dataset} in stage '{recipe.stage}'.")
    folder = Path(output)
    reports = {
        str(fold): train(recipe, data_dir, folder / f"fold{fold}", fold, **arguments).get("test")
        for fold in range(1, count + 1)
    }
    every = [report for report in reports.values() if report]
    if len(every) < count:  # a process beside the first
        return {}
    result = {"folds": reports, "mean_of_folds": metrics.mean_of_folds(every), "pooled": metrics.pooled_folds(every)}
    write_json(result, folder / FOLDS)
    return result


@contextmanager
def ending_process_group() -> Iterator[None]:
    """End torch's process group when the block ends, if one was started inside it.

    gloo's threads live as long as an object refers to the group, such as the wrapped model of a Trainer, even after the
    group is destroyed. A process that exits with such a thread can be aborted (signal 6), although it finished: the
    thread asks for Python's lock while Python shuts down. So leave no trainer in a variable outside of the block.
    """
    group = torch.distributed
    was_there = group.is_available() and group.is_initialized()
    try:
        yield
    finally:
        if not was_there and group.is_available() and group.is_initialized():
            group.destroy_process_group()
            gc.collect()  # a Trainer and its model refer to each other


def is_finished(folder: Path) -> bool:
    """Return whether a directory holds a finished training."""
    return (folder / FACTS).is_file() and not (folder / RUN).is_file()


def claim_output(
    folder: Path, recipe: Recipe, settings: dict[str, Any] | None = None, may_hold: tuple[str, ...] = ()
) -> FolderClaim:
    """Claim the output of a run and save its recipe there.

    Raises:
        TrainingError: If the folder holds something else, or another process writes to it.
    """
    if (folder / RUN).is_file():
        refuse_another_recipe(folder, recipe)
    claim = FolderClaim(
        folder, settings or {}, record=RUN, error=TrainingError, content="checkpoints", may_hold=may_hold
    )
    try:
        recipe.save(folder / RECIPE)
    except BaseException:
        claim.release()
        raise
    return claim


def refuse_another_recipe(folder: Path, recipe: Recipe) -> None:
    """Refuse to mix two runs in one folder. Only values that decide the weights count, if both recipes have them.

    Raises:
        TrainingError: If recipe.yaml has another value.
    """
    if not (folder / RECIPE).is_file():
        return
    stored = load_recipe(folder / RECIPE).to_dict()
    now = {key: value for key, value in recipe.weight_settings().items() if key in stored}
    before = {key: stored[key] for key in now}
    if before != now:
        old, new = dotted(before), dotted(now)
        key = next(key for key in [*new, *old] if (key in old, old.get(key)) != (key in new, new.get(key)))
        raise TrainingError(
            f"Cannot resume: the training in '{folder}' had another recipe ({key} was {old.get(key)!r}, is"
            f" {new.get(key)!r}). Pass another output, or the same recipe."
        )


@contextmanager
def _claimed(
    folder: Path, trainer: Trainer, recipe: Recipe, fold: int | None, split: Split
) -> Iterator[FolderClaim | None]:
    """Hold the claim on the output in the first process; the others get None."""
    claim: AbstractContextManager[FolderClaim | None] = nullcontext()
    with trainer.args.main_process_first(local=False):
        if trainer.is_world_process_zero():
            claim = claim_output(folder, recipe, {"fold": fold, "rows": split.counts})
            resume_point(folder)  # removes half-written checkpoints before the other processes look
    with claim as held:
        yield held


def _refuse_another_fold(folder: Path, fold: int | None) -> None:
    trained = json.loads((folder / FACTS).read_text(encoding="utf-8"))["dataset"]["fold"]
    if trained != fold:
        raise TrainingError(f"'{folder}' holds the training of fold {trained}, not {fold}. Pass another output.")


def _train(trainer: Trainer, folder: Path, recipe: Recipe) -> None:
    """Train from the start or the last checkpoint, and save the chosen weights."""
    checkpoint = resume_point(folder)
    if checkpoint is not None and has_ended(read_state(checkpoint), recipe.early_stopping):
        _load_chosen(trainer, checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if recipe.ema_decay is not None and trainer.is_world_process_zero():
        load_average(trainer, folder)
    trainer.save_model(str(folder))


def _load_chosen(trainer: Trainer, checkpoint: Path) -> None:
    """Load the weights that a run chose which was interrupted after its last step."""
    assert trainer.model is not None
    trainer.state = trainer.state.load_from_json(str(checkpoint / "trainer_state.json"))
    best = checkpoint.parent / f"checkpoint-{trainer.state.best_global_step}"
    source = best if trainer.args.load_best_model_at_end and best.is_dir() else checkpoint
    trainer.model.load_state_dict(type(trainer.model).from_pretrained(source).state_dict())


def _score(
    trainer: Trainer,
    recipe: Recipe,
    data_dir: str | os.PathLike[str],
    folder: Path,
    fold: int | None,
    facts: dict[str, Any],
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
        facts["dataset"]["test_rows"] = test["frames"] if "frames" in test else test["triplets"]
        facts["dataset"]["test_subjects"] = test.get("subjects")
    result = {"test": test, "validation": _validation(trainer.state), "step": trainer.state.best_global_step}
    write_json(result, folder / METRICS)
    write_json({**facts, "evaluation": test}, folder / FACTS)
    return result


def _validation(state: TrainerState) -> dict[str, float | None] | None:
    """Return the validation scores of the chosen checkpoint; NaN becomes None."""
    for entry in state.log_history:
        if entry.get("step") == state.best_global_step and "eval_loss" in entry:
            return {
                key.removeprefix("eval_"): None if value != value else value
                for key, value in entry.items()
                if key.startswith("eval_") and not key.endswith(("runtime", "per_second", "preparation_time"))
            }
    return None


def _tidy(folder: Path, keep_checkpoints: bool) -> None:
    """Remove what only an unfinished run needs. The record goes last: without it the run counts as finished."""
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, and recipe.yaml says the same
    if not keep_checkpoints:
        for path in folder.glob("checkpoint-*"):
            shutil.rmtree(path)
    (folder / RUN).unlink()


class _Clock(TrainerCallback):
    """Counts the minutes of a run over its interruptions, in the record of the claim."""

    def __init__(self, claim: FolderClaim | None) -> None:
        self.claim = claim
        self.minutes: float = 0.0 if claim is None else claim.recorded.get("minutes", 0.0)
        self.start = time.monotonic()

    def stop(self) -> float:
        """Add the time since the last call, and return the minutes so far."""
        now = time.monotonic()
        self.minutes, self.start = self.minutes + (now - self.start) / 60, now
        return self.minutes

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.claim is not None:
            self.claim.update(minutes=self.stop())


class _Divergence(TrainerCallback):
    """Stops when a gradient is not finite; the Trainer's log leaves such losses out."""

    def __init__(self, precision: str) -> None:
        self.is_strict = precision != "fp16"  # whose scaler meets infinity on purpose

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        norm = (logs or {}).get("grad_norm", 0.0)
        if self.is_strict and not abs(norm) < float("inf"):
            raise TrainingError(
                f"Training diverged: the gradients hold NaN or infinity at step {state.global_step}. Lower"
                " `learning_rate`, or raise `warmup`."
            )
