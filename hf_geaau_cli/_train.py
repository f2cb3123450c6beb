"""`hf-geaau train` and `hf-geaau train-rendered`: a recipe, data, and a directory for the result."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ._console import (
    FACE_MODEL_OPTION,
    Environments,
    OptionList,
    err,
    one_line_warnings,
    out,
    parsed,
    quiet_libraries,
    show_table,
)

if TYPE_CHECKING:
    from hf_geaau.training import Recipe, RenderedRecipe

_COLUMNS = ("f1", "precision", "recall", "auc", "base_rate", "always_on_f1")

_RecipeName = Annotated[str | None, typer.Argument(metavar="RECIPE", help="A name (see --list) or a .yaml file.")]
_Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as learning_rate=1e-4 model.backbone=resnet18."),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
_Cpu = Annotated[bool, typer.Option("--cpu", help="Stay on the CPU.")]


def train(
    recipe: _RecipeName = None,
    settings: _Settings = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Crops that `prepare` wrote, rendered faces, or your own table.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the checkpoint goes.")] = None,
    fold: Annotated[
        str, typer.Option("--fold", "--folds", help="Number of the test fold; 'all' in turn; 'none' for no test.")
    ] = "1",
    dry_run: _DryRun = False,
    keep_checkpoints: Annotated[bool, typer.Option("--keep-checkpoints", help="Keep those of the run.")] = False,
    cpu: _Cpu = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show the recipes.")] = False,
    option: OptionList = None,
) -> None:
    """Train GTLE-Net by a recipe, and score it on the test fold.

    Interrupted, the same command resumes at the last checkpoint, with the same result; finished, it only shows it.
    Recipes that render their faces first, `bundled` and `base`, have their own command, `train-rendered`.
    """
    from hf_geaau.errors import TrainingError
    from hf_geaau.training import RenderedRecipe, list_recipes, load_recipe

    if show_list or recipe is None:
        _show_recipes(list_recipes())
        return
    plan = load_recipe(recipe, settings or [])
    plan = load_recipe(plan, {f"options.{name}": value for name, value in parsed(option).items()})
    if isinstance(plan, RenderedRecipe):
        raise TrainingError(
            f"The recipe '{recipe}' renders its faces first. Use `hf-geaau train-rendered {recipe} --face-model …"
            " --output …`."
        )
    number = None if fold in ("none", "all") else _number(fold)
    data_dir = _needed(data_dir, "--data-dir")
    _quiet()
    with one_line_warnings():
        if dry_run:
            _show_plan(plan, data_dir, 1 if fold == "all" else number)
        else:
            output = _needed(output, "--output")
            _train(plan, data_dir, output, "all" if fold == "all" else number, keep_checkpoints, cpu)


def train_rendered(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="bundled, base, or a .yaml file with `renders`.")],
    settings: _Settings = None,
    face_model: Annotated[list[Path] | None, FACE_MODEL_OPTION] = None,
    environments: Environments = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Gets the trainings and `checkpoint`, the result.")
    ] = None,
    renders: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the rendered sets go, to share them between runs.")
    ] = None,
    render_workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = os.cpu_count() or 1,
    dry_run: _DryRun = False,
    cpu: _Cpu = False,
) -> None:
    """Render faces, train on them, and calibrate: how the bundled checkpoint is made.

    Interrupted, the same command resumes at the step where it stopped; finished, it only shows the scores.
    """
    from hf_geaau.training import load_recipe

    plan = load_recipe(recipe, settings or [])
    if dry_run:
        _show_recipe(plan)
        return
    output = _needed(output, "--output")
    if not face_model:
        raise typer.BadParameter("is needed to render.", param_hint="--face-model")
    _quiet()
    from hf_geaau.training import train_rendered as run

    from ._watcher import Watcher

    with one_line_warnings():
        made = run(
            plan,
            face_model,
            output,
            environments=environments,
            renders=renders,
            workers=render_workers,
            callbacks=lambda: [Watcher()],
            use_cpu=True if cpu else None,
            report=lambda line: err.print(line, markup=False, highlight=False, soft_wrap=True),
        )
    _show_scores(made["reports"]["test"])
    _tell(f"Checkpoint with its card in {output / 'checkpoint'}")


def _train(
    plan: "Recipe", data_dir: Path, output: Path, fold: int | str | None, keep_checkpoints: bool, cpu: bool
) -> None:
    from hf_geaau.training import ending_process_group, train_folds
    from hf_geaau.training import train as train_one

    from ._watcher import Watcher

    arguments: dict[str, Any] = {
        "callbacks": [Watcher()],
        "keep_checkpoints": keep_checkpoints,
        "use_cpu": True if cpu else None,
        "show_progress": False,  # the watcher shows it
    }
    with ending_process_group():
        if fold == "all":
            result = train_folds(plan, data_dir, output, **arguments)
        else:
            result = train_one(plan, data_dir, output, fold, **arguments)
    if not result:  # a process beside the first
        return
    if fold == "all":
        _show_scores(result["mean_of_folds"])
        _tell(f"Mean of folds and pooled scores in {output / 'folds.json'}")
    else:
        _show_test(result["test"])
        _tell(f"Checkpoint, metrics.json and curves.png in {output}")


def _needed(path: Path | None, option: str) -> Path:
    if path is None:
        raise typer.BadParameter("is needed to train.", param_hint=option)
    return path


def _number(fold: str) -> int:
    if not fold.isdecimal():
        raise typer.BadParameter(f"must be a number, 'all' or 'none', got '{fold}'.", param_hint="--fold")
    return int(fold)


def _quiet() -> None:
    quiet_libraries()
    import datasets

    datasets.disable_progress_bars()


def _tell(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_recipes(recipes: dict[str, str]) -> None:
    table = Table(show_header=False, box=None)
    for name, title in recipes.items():
        table.add_row(name, title)
    out.print(table)


def _show_recipe(plan: "Recipe | RenderedRecipe") -> None:
    import yaml

    out.print(yaml.safe_dump(plan.to_dict(), sort_keys=False), markup=False, highlight=False, end="")


def _show_plan(plan: "Recipe", data_dir: Path, fold: int | None) -> None:
    """Print the resolved recipe, what the data holds, and the steps."""
    from hf_geaau.training import describe, resolved_recipe

    plan = resolved_recipe(plan, data_dir)
    _show_recipe(plan)
    table = Table(show_header=False, box=None)
    for name, value in describe(plan, data_dir, fold).items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else value)
    out.print(table)


def _show_test(report: dict[str, Any] | None) -> None:
    if report is None:
        _tell("No test fold; see the validation scores in metrics.json.")
    elif "action_units" in report:
        _show_scores(report)
    else:
        _tell(f"Triplet accuracy {report['accuracy']:.3f} on {report['triplets']} test triplets (chance .333)")


def _show_scores(report: dict[str, Any]) -> None:
    from hf_geaau.metrics import score_rows, score_table

    show_table(score_table(score_rows(report), _COLUMNS))
