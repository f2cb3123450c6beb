"""`hf-geaau train`: a recipe, data, and a directory for the result."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ._console import err, one_line_warnings, out, quiet_libraries

if TYPE_CHECKING:
    from hf_geaau.training import Recipe


def train(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="A name (see --list) or a .yaml file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as learning_rate=1e-4 model.backbone=resnet18."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Crops that `prepare` wrote, or rendered faces; of recipes that render, where they go."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the checkpoint goes.")] = None,
    face_model: Annotated[
        Path | None,
        typer.Option(help="ICT-FaceKit, for recipes that render: a clone of its repository, or a packed .npz."),
    ] = None,
    render_workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = os.cpu_count() or 1,
    fold: Annotated[
        str, typer.Option("--fold", "--folds", help="Number of the test fold; 'all' in turn; 'none' for no test.")
    ] = "1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    keep_checkpoints: Annotated[bool, typer.Option("--keep-checkpoints", help="Leave them for inspection.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Stay on the CPU.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show the recipes.")] = False,
) -> None:
    """Train GTLE-Net by a recipe, and score it on the test fold.

    The recipes `bundled` and `base` render their faces first: they need --face-model, and --data-dir is optional.
    Interrupted, the same command goes on at the last checkpoint, to the same result; finished, it only shows it.
    """
    from hf_geaau.training import RenderedRecipe, list_recipes, load_recipe

    if show_list or recipe is None:
        _show_recipes(list_recipes())
        return
    plan = load_recipe(recipe, settings or [])
    if isinstance(plan, RenderedRecipe):
        if fold != "1" or keep_checkpoints:
            ignored = "--fold" if fold != "1" else "--keep-checkpoints"
            raise typer.BadParameter("has no use for a recipe that renders its own sets.", param_hint=ignored)
        _run_rendered(plan, face_model, data_dir, output, render_workers, dry_run, cpu)
        return
    if face_model is not None:
        raise typer.BadParameter("is for recipes that render, such as bundled.", param_hint="--face-model")
    tested = None if fold == "none" else 1 if fold == "all" else _number(fold)
    if data_dir is None or (output is None and not dry_run):
        missing = "--data-dir" if data_dir is None else "--output"
        raise typer.BadParameter("is needed to train.", param_hint=missing)
    quiet_libraries()
    import datasets

    datasets.disable_progress_bars()
    with one_line_warnings():
        if dry_run:
            _show_plan(plan, data_dir, tested)
            return
        _run(plan, data_dir, output, "all" if fold == "all" else tested, keep_checkpoints, cpu)


def _run(plan: "Recipe", data_dir: Path, output: Any, fold: Any, keep_checkpoints: bool, cpu: bool) -> None:
    from hf_geaau.training import train as train_one
    from hf_geaau.training import train_folds

    arguments: dict[str, Any] = {
        "callbacks": [_watcher()],
        "keep_checkpoints": keep_checkpoints,
        "use_cpu": True if cpu else None,
        "show_progress": False,  # the watcher does
    }
    if fold == "all":
        result = train_folds(plan, data_dir, output, **arguments)
        if result:
            _show_folds(result)
            out.print(f"Mean of folds and pooled scores in {output / 'folds.json'}", markup=False, highlight=False)
        return
    result = train_one(plan, data_dir, output, fold, **arguments)
    if result:
        _show_result(result)
        out.print(f"Checkpoint, metrics.json and curves.png in {output}", markup=False, highlight=False)


def _run_rendered(
    plan: Any,
    face_model: Path | None,
    renders: Path | None,
    output: Path | None,
    workers: int,
    dry_run: bool,
    cpu: bool,
) -> None:
    """Make a checkpoint from a face model, or show the recipe by which it would be."""
    if dry_run:
        import yaml

        out.print(yaml.safe_dump(plan.to_dict(), sort_keys=False), markup=False, highlight=False, end="")
        return
    if face_model is None or output is None:
        missing = "--face-model" if face_model is None else "--output"
        raise typer.BadParameter("is needed by a recipe that renders.", param_hint=missing)
    quiet_libraries()
    import datasets

    from hf_geaau.training import train_rendered

    datasets.disable_progress_bars()

    def say(line: str) -> None:
        err.print(line, markup=False, highlight=False, soft_wrap=True)

    with one_line_warnings():
        made = train_rendered(
            plan, face_model, output, renders=renders, workers=workers, callbacks=lambda: [_watcher()],
            use_cpu=True if cpu else None, report=say,
        )  # fmt: skip
    _show_scores({**made["test"]["action_units"], "mean": made["test"]["mean"]})
    out.print(f"Checkpoint with its card in {output / 'checkpoint'}", markup=False, highlight=False, soft_wrap=True)


def _number(fold: str) -> int:
    if not fold.isdecimal():
        raise typer.BadParameter(f"must be a number, 'all' or 'none', got '{fold}'.", param_hint="--fold")
    return int(fold)


def _show_recipes(recipes: dict[str, str]) -> None:
    table = Table(show_header=False, box=None)
    for name, title in recipes.items():
        table.add_row(name, title)
    out.print(table)


def _show_plan(plan: "Recipe", data_dir: Path, fold: int | None) -> None:
    """Print the resolved recipe, what the data holds, and the steps."""
    import yaml

    from hf_geaau.training.run import describe

    out.print(yaml.safe_dump(plan.to_dict(), sort_keys=False), markup=False, highlight=False, end="")
    table = Table(show_header=False, box=None)
    for name, value in describe(plan, data_dir, fold).items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    out.print(table)


def _show_result(result: dict[str, Any]) -> None:
    report = result["test"]
    if report is None:
        out.print("No test fold; see the validation scores in metrics.json.", highlight=False)
    elif "action_units" in report:
        _show_scores({**report["action_units"], "mean": report["mean"]})
    else:
        share = report["accuracy"]
        out.print(f"Triplet accuracy {share:.3f} on {report['triplets']} test triplets (chance .333)", highlight=False)


def _show_folds(result: dict[str, Any]) -> None:
    _show_scores({**result["mean_of_folds"]["action_units"], "mean": result["mean_of_folds"]["mean"]})


def _show_scores(rows: dict[str, dict[str, Any]]) -> None:
    """Print F1 and its baselines; what is undefined as a dash."""
    columns = {"f1": "F1", "precision": "precision", "recall": "recall", "auc": "AUC", "base_rate": "base rate",
               "always_on_f1": "always-on F1"}  # fmt: skip
    table = Table()
    table.add_column("AU")
    for title in columns.values():
        table.add_column(title, justify="right")
    for name, row in rows.items():
        cells = ["–" if row.get(key) is None else f"{row[key]:.3f}" for key in columns]
        table.add_row(name, *cells, style="bold" if name == "mean" else None)
    out.print(table)


def _watcher() -> Any:
    """Make a callback of the Trainer that shows a bar on a terminal, and a line for each validation."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        def __init__(self) -> None:
            self.bar: Progress | None = None
            self.task: Any = None
            self.loss, self.began = "", time.monotonic()

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if not state.is_world_process_zero:
                return
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=err, disable=not err.is_terminal, transient=True)
            self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step)
            self.bar.start()
            start = f"from step {state.global_step} " if state.global_step else ""
            err.print(f"training {start}to step {state.max_steps}", highlight=False)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.bar is not None:
                text = f"epoch {int(state.epoch or 0) + 1} {self.loss}"
                self.bar.update(self.task, completed=state.global_step, description=text)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                self.loss = f"loss {logs['loss']:.4f}"

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
            if self.bar is None or not metrics:
                return
            score = next((key for key in ("eval_f1", "eval_accuracy") if key in metrics), "eval_loss")
            name = {"eval_f1": "F1", "eval_accuracy": "triplet accuracy"}.get(score, "loss")
            epoch = f"{state.epoch or 0:.1f}".removesuffix(".0")
            err.print(
                f"step {state.global_step}, epoch {epoch}: {self.loss}, validation loss {metrics['eval_loss']:.4f}"
                f" {name} {metrics[score]:.4f}",
                highlight=False,
            )

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.bar is not None:
                self.bar.stop()
                self.bar = None

    return Watcher()
