"""`hf-geaau evaluate` and `hf-geaau calibrate`: score a checkpoint on a dataset, and set its thresholds."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ._console import OptionList, complain, one_line_warnings, out, parsed, progress, quiet_libraries

ModelArgument = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Hub id or checkpoint directory. Default: bundled weights.")
]
DatasetOption = Annotated[str, typer.Option(metavar="NAME", help="bp4d, bp4d_plus, disfa, fec or synthetic.")]
DataDirOption = Annotated[Path, typer.Option(metavar="DIR", help="Crops made by hf-geaau prepare, or rendered faces.")]
FoldOption = Annotated[
    int | None, typer.Option(help="Number of the fold. Default: the one the checkpoint was trained for, else 1.")
]
ProtocolOption = Annotated[str, typer.Option(help="Whose numbering of the folds: jaanet or megraphau.")]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="Frames per forward pass. Default: 64, on a CPU 16, which is faster there.")
]
DeviceOption = Annotated[str | None, typer.Option(help="Such as cpu, cuda or cuda:1. Default: what is there.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes that decode images.")]
Bf16Option = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: faster on recent GPUs.")]

WORKERS = min(8, (os.cpu_count() or 1) // 2)
SHOWN_PROBLEMS = 20


def evaluate(
    dataset: DatasetOption,
    data_dir: DataDirOption,
    model: ModelArgument = None,
    fold: FoldOption = None,
    split: Annotated[str, typer.Option(help="test or train subjects of the fold, or all subjects.")] = "test",
    protocol: ProtocolOption = "jaanet",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="For all AUs. Default: those of the checkpoint.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where the report goes, a .json file. Default: evaluation.json here, or MODEL/folds.json."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Also write a page, beside published numbers.")
    ] = None,
    batch_size: BatchOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = WORKERS,
    bf16: Bf16Option = False,
    option: OptionList = None,
) -> None:
    """Score a checkpoint on the test subjects of a fold.

    A directory with fold1, fold2, … is scored fold by fold, each with its own checkpoint. Files that are there are
    replaced.
    """
    _check_target(output, ".json", "--output")
    _check_target(page, ".md", "--page")
    evaluation = _load_evaluation()
    folds = evaluation.fold_numbers(model) if model else []
    if folds and fold is not None:
        raise typer.BadParameter(f"leave it out for a directory of folds, got {fold}.", param_hint="--fold")
    arguments: dict[str, Any] = {
        "split": split,
        "protocol": protocol,
        "threshold": threshold,
        "batch_size": batch_size or _batch_size(device),
        "device": device,
        "num_workers": workers,
        "bf16": bf16,
        **parsed(option),
    }
    with one_line_warnings(), progress("frames", 1) as show_done:
        arguments["progress"] = show_done
        if folds and model:
            report = evaluation.evaluate_folds(model, dataset, data_dir, **arguments)
        else:
            chosen = evaluation.trained_fold(model, dataset) or 1 if fold is None else fold
            report = evaluation.evaluate(model, dataset, data_dir, chosen, **arguments)
    _show(report)
    target = output or (Path(model or "") / "folds.json" if folds else Path("evaluation.json"))
    evaluation.write_json(report, target)
    _say(f"The report is in {target}")
    if page is not None:
        from hf_geaau.files import whole_file

        with whole_file(page) as part:
            part.write_text(evaluation.results_page(report), encoding="utf-8")
        _say(f"The page is in {page}")


def calibrate(
    dataset: DatasetOption,
    data_dir: DataDirOption,
    model: ModelArgument = None,
    fold: FoldOption = None,
    protocol: ProtocolOption = "jaanet",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A calibrated copy goes there. Default: MODEL itself is changed.")
    ] = None,
    batch_size: BatchOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = WORKERS,
    bf16: Bf16Option = False,
    option: OptionList = None,
) -> None:
    """Choose decision thresholds and a temperature on validation subjects, and write them into the config.

    Validation subjects are those of the checkpoint's training, else a share of the fold's training subjects; never
    its test subjects. calibration.json beside the config tells what changed.
    """
    evaluation = _load_evaluation()
    with one_line_warnings(), progress("frames", 1) as show_done:
        report = evaluation.calibrate(
            model,
            dataset,
            data_dir,
            evaluation.trained_fold(model, dataset) or 1 if fold is None else fold,
            output=output,
            protocol=protocol,
            batch_size=batch_size or _batch_size(device),
            device=device,
            num_workers=workers,
            bf16=bf16,
            progress=show_done,
            **parsed(option),
        )
    _show_calibration(report)
    _say(f"Thresholds and temperature are in {Path(output or model or '') / 'config.json'}, what changed beside it")


def _load_evaluation() -> Any:
    """Import what the commands need; only our own progress bar is to be seen."""
    quiet_libraries()
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from hf_geaau import evaluation

    return evaluation


def _batch_size(device: str | None) -> int:
    """Give the default: on a CPU, batches of 16 took 60 % of the time of those of 64, whose maps leave its caches."""
    import torch

    on_cpu = device == "cpu" or (device is None and not torch.accelerator.is_available())
    return 16 if on_cpu else 64


def _check_target(path: Path | None, ending: str, hint: str) -> None:
    """Say that a file cannot be written before anything is computed."""
    if path is None:
        return
    if path.suffix.lower() != ending:
        raise typer.BadParameter(f"must end in {ending}, got '{path}'.", param_hint=hint)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"its folder must exist, got '{path}'.", param_hint=hint)


def _show(report: dict[str, Any]) -> None:
    folds = report.get("folds")
    for part in folds.values() if folds else [report]:
        where = f"fold {part['fold']} ({part['protocol']}), {part['split']}" if part["fold"] else "all subjects"
        if "triplets" in part:
            _say(f"{part['title']}, {where}: {part['triplets']:,} triplets", style="bold")
            out.print(_triplets(part))
        else:
            count = f"{part['frames']:,} frames of {part['subjects']} subjects"
            _say(f"{part['title']}, {where}: {count}", style="bold")
            out.print(_scores(part))
        for problem in part["skipped"][:SHOWN_PROBLEMS]:
            complain(problem)
        if len(part["skipped"]) > SHOWN_PROBLEMS:
            complain(f"and {len(part['skipped']) - SHOWN_PROBLEMS} more; all are in the report")
    if folds:
        _say(f"Mean of folds {', '.join(folds)}, as the literature prints it", style="bold")
        out.print(_scores(report["mean_of_folds"]))
        spread = _cell(report["mean_of_folds"]["spread"]["f1"])
        pooled = _cell(report["pooled"]["mean"]["f1"])
        _say(f"Mean F1 differs between folds by {spread} (standard deviation); of all frames pooled it is {pooled}")


def _scores(report: dict[str, Any]) -> Table:
    columns = {"F1": "f1", "precision": "precision", "recall": "recall", "AUC": "auc"}
    columns |= {"base rate": "base_rate", "always-on F1": "always_on_f1"}
    if "threshold" in next(iter(report["action_units"].values())):
        columns["threshold"] = "threshold"
    strength = report.get("intensity")
    more = {"ICC": "icc", "MAE": "mae"} if strength else {}
    table = Table()
    table.add_column("AU")
    for title in (*columns, *more):
        table.add_column(title, justify="right")
    for name, entry in {**report["action_units"], "mean": report["mean"]}.items():
        cells = [_cell(entry[key], 2 if key == "threshold" else 3) if key in entry else "" for key in columns.values()]
        cells += [_cell(strength[name][key]) for key in more.values()] if strength else []
        if name == "mean":
            table.add_section()
        table.add_row(name, *cells, style="bold" if name == "mean" else None)
    return table


def _triplets(report: dict[str, Any]) -> Table:
    table = Table()
    table.add_column("triplets")
    for title in ("number", "both sides (chance .333)", "from the anchor (chance .5)"):
        table.add_column(title, justify="right")
    for name, entry in {**report["types"], "all": report}.items():
        scores = _cell(entry["accuracy"]), _cell(entry["anchor_accuracy"])
        table.add_row(name.replace("_", "-"), str(entry["triplets"]), *scores)
    return table


def _show_calibration(report: dict[str, Any]) -> None:
    fold = "all subjects" if report["fold"] is None else f"fold {report['fold']} ({report['protocol']})"
    people = f"{report['validation_subjects']} validation subjects"
    _say(f"{report['dataset']}, {fold}: {report['frames']:,} frames of {people}", style="bold")
    _say(f"They are {report['validation_from']}")
    table = Table()
    table.add_column("AU")
    for title in ("threshold", "→", "F1", "→", "calibration error", "→"):
        table.add_column(title, justify="right")
    keys = ("threshold", "f1", "expected_calibration_error")
    means = {key: report[key] for key in keys[1:]}
    for name, entry in {**report["action_units"], "mean": means}.items():
        cells = [
            _cell(entry[key][side], 2 if key == "threshold" else 3) if key in entry else ""
            for key in keys
            for side in ("before", "after")
        ]
        if name == "mean":
            table.add_section()
        table.add_row(name, *cells, style="bold" if name == "mean" else None)
    out.print(table)
    _say(
        f"Temperature {report['temperature']['before']:g} → {report['temperature']['after']:g}, negative log-likelihood"
        f" {_cell(report['nll']['before'])} → {_cell(report['nll']['after'])}. These are the frames that the choice was"
        " made on: `hf-geaau evaluate` tells what it is worth on test subjects."
    )


def _cell(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _say(text: str, style: str | None = None) -> None:
    out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
