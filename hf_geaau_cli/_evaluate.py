"""`hf-geaau evaluate` and `hf-geaau calibrate`: score a checkpoint on a dataset, and set its thresholds."""

import os
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from ._console import OptionList, complain, one_line_warnings, parsed, progress, quiet_libraries, say, show_table

ModelArgument = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Hub id or checkpoint directory. Default: bundled weights.")
]
DatasetOption = Annotated[str, typer.Option(metavar="NAME", help="bp4d, bp4d_plus, disfa, fec or synthetic.")]
DataDirOption = Annotated[Path, typer.Option(metavar="DIR", help="Crops made by hf-geaau prepare, or rendered faces.")]
FoldOption = Annotated[
    int | None, typer.Option(help="Number of the fold. Default: the one the checkpoint was trained for, else 1.")
]
ProtocolOption = Annotated[str, typer.Option(help="Numbering of the folds: jaanet or megraphau.")]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="Frames per forward pass. Default: 64, on a CPU 16, which is faster there.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Such as cpu, cuda or cuda:1. Default: the accelerator if there is one.")
]
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
        typer.Option(help="The .json file for the report. Default: evaluation.json here, or MODEL/folds.json."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Also write a page with published numbers.")
    ] = None,
    batch_size: BatchOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = WORKERS,
    bf16: Bf16Option = False,
    option: OptionList = None,
) -> None:
    """Score a checkpoint on the test subjects of a fold.

    A directory with fold1, fold2, … is scored fold by fold, each with its own checkpoint. Existing files are
    replaced.
    """
    _check_target(output, ".json", "--output")
    _check_target(page, ".md", "--page")
    evaluation = _load_evaluation()
    folds = evaluation.fold_numbers(model) if model else []
    if folds and fold is not None:
        raise typer.BadParameter(f"leave it out for a directory of folds, got {fold}.", param_hint="--fold")
    with one_line_warnings(), progress("frames", 1) as show_done:
        arguments: dict[str, Any] = {
            "split": split,
            "protocol": protocol,
            "threshold": threshold,
            "batch_size": batch_size or _batch_size(device),
            "device": device,
            "num_workers": workers,
            "bf16": bf16,
            "progress": show_done,
            **parsed(option),
        }
        if folds and model:
            report = evaluation.evaluate_folds(model, dataset, data_dir, **arguments)
        else:
            chosen = evaluation.trained_fold(model, dataset) or 1 if fold is None else fold
            report = evaluation.evaluate(model, dataset, data_dir, chosen, **arguments)
    _show(report)
    target = output or (Path(model or "") / "folds.json" if folds else Path("evaluation.json"))
    _write(report if folds else {"reports": {split: report}}, target, page)


def _write(report: dict[str, Any], target: Path, page: Path | None) -> None:
    from hf_geaau.evaluation import results_page
    from hf_geaau.files import whole_file, write_json

    write_json(report, target)
    say(f"The report is in {target}")
    if page is not None:
        with whole_file(page) as part:
            part.write_text(results_page(report), encoding="utf-8")
        say(f"The page is in {page}")


def calibrate(
    dataset: DatasetOption,
    data_dir: DataDirOption,
    model: ModelArgument = None,
    fold: FoldOption = None,
    protocol: ProtocolOption = "jaanet",
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for a calibrated copy. Default: MODEL itself is changed."),
    ] = None,
    batch_size: BatchOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = WORKERS,
    bf16: Bf16Option = False,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="Largest share of neutral frames in which an AU may be predicted. Default: any."),
    ] = None,
    option: OptionList = None,
) -> None:
    """Choose decision thresholds and a temperature on validation subjects, and write them into the config.

    Validation subjects are those of the checkpoint's training, else a share of the fold's training subjects; never
    its test subjects. calibration.json beside the config holds the scores before and after.
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
            false_alarm_rate=false_alarm_rate,
            progress=show_done,
            **parsed(option),
        )
    _show_calibration(report)
    folder = Path(output or model or "")
    say(f"Thresholds and temperature are in {folder / 'config.json'}, the scores in {folder / 'calibration.json'}")


def _load_evaluation() -> ModuleType:
    """Import the package, whose imports take seconds, without the progress bars of other libraries."""
    quiet_libraries()
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from hf_geaau import evaluation

    return evaluation


def _batch_size(device: str | None) -> int:
    """Return the default: on a CPU, batches of 16 took 60 % of the time of those of 64, which overflow its caches."""
    import torch

    on_cpu = device == "cpu" or (device is None and not torch.accelerator.is_available())
    return 16 if on_cpu else 64


def _check_target(path: Path | None, ending: str, hint: str) -> None:
    """Refuse a file that cannot be written before anything is computed."""
    if path is None:
        return
    if path.suffix.lower() != ending:
        raise typer.BadParameter(f"must end in {ending}, got '{path}'.", param_hint=hint)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"its folder must exist, got '{path}'.", param_hint=hint)


def _show(report: dict[str, Any]) -> None:
    from hf_geaau.metrics import format_cell, score_rows, score_table, triplet_table

    folds = report.get("folds")
    for part in folds.values() if folds else [report]:
        where = f"fold {part['fold']} ({part['protocol']}), {part['split']}" if part["fold"] else "all subjects"
        if "triplets" in part:
            say(f"{part['title']}, {where}: {part['triplets']:,} triplets")
            show_table(triplet_table(part))
        else:
            say(f"{part['title']}, {where}: {part['frames']:,} frames of {part['subjects']} subjects")
            show_table(score_table(score_rows(part)))
        for problem in part["skipped"][:SHOWN_PROBLEMS]:
            complain(problem)
        if len(part["skipped"]) > SHOWN_PROBLEMS:
            complain(f"and {len(part['skipped']) - SHOWN_PROBLEMS} more; all are in the report")
    if folds:
        means = report["mean_of_folds"]
        say(f"Mean of folds {', '.join(folds)}, as the literature prints it")
        show_table(score_table(score_rows(means)))
        spread, pooled = format_cell(means["spread"]["f1"]), format_cell(report["pooled"]["mean"]["f1"])
        say(f"Standard deviation of the mean F1 between folds: {spread}. Mean F1 of all frames pooled: {pooled}.")


def _show_calibration(report: dict[str, Any]) -> None:
    from hf_geaau.metrics import SCORES, format_cell, text_table

    fold = "all subjects" if report["fold"] is None else f"fold {report['fold']} ({report['protocol']})"
    subjects = f"{report['validation_subjects']} validation subjects"
    say(f"{report['dataset']}, {fold}: {report['frames']:,} frames of {subjects}: {report['validation_from']}")
    keys = ("threshold", "f1", "expected_calibration_error")
    rows = {**report["action_units"], "mean": {"threshold": {"before": "", "after": ""}, **report}}
    cells = [[name, *(row[key][side] for key in keys for side in ("before", "after"))] for name, row in rows.items()]
    header = ["AU", *(title for key in keys for title in (SCORES[key].title, "→"))]
    show_table(text_table(header, cells))
    temperature, likelihood = (
        " → ".join(format_cell(report[key][side]) for side in ("before", "after")) for key in ("temperature", "nll")
    )
    say(
        f"Temperature {temperature}, negative log-likelihood {likelihood}. These scores are of the frames used for the"
        " choice: run `hf-geaau evaluate` for those of test subjects."
    )
