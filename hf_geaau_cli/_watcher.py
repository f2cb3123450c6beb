"""The Trainer's progress on the terminal; apart, because importing the Trainer takes seconds."""

from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ._console import err

_SCORES = {"eval_f1": "F1", "eval_accuracy": "triplet accuracy", "eval_loss": "loss"}


class Watcher(TrainerCallback):
    """Shows a bar on a terminal, and a line for each validation. Only the first process prints."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.loss = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar, and say where training starts."""
        if not state.is_world_process_zero:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=err, disable=not err.is_terminal, transient=True)
        self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step)
        self.bar.start()
        start = f"from step {state.global_step} " if state.global_step else ""
        err.print(f"training {start}to step {state.max_steps}", highlight=False)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            text = f"epoch {int(state.epoch or 0) + 1} {self.loss}"
            self.bar.update(self.task, completed=state.global_step, description=text)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember the loss."""
        if logs and "loss" in logs:
            self.loss = f"loss {logs['loss']:.4f}"

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print the validation scores."""
        if self.bar is None or not metrics:
            return
        key = next(key for key in _SCORES if key in metrics)
        epoch = f"{state.epoch or 0:.1f}".removesuffix(".0")
        err.print(
            f"step {state.global_step}, epoch {epoch}: {self.loss}, validation loss {metrics['eval_loss']:.4f}"
            f" {_SCORES[key]} {metrics[key]:.4f}",
            highlight=False,
        )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
