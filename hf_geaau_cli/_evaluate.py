"""`hf-geaau evaluate`, `calibrate` and `evidence`: score a checkpoint, set its thresholds, show what it can do."""

import os
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from ._console import (
    OptionList,
    check_file,
    complain,
    dataset_options,
    one_line_warnings,
    progress,
    quiet_libraries,
    say,
    show_table,
)

ModelArgument = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Hub id or checkpoint directory. Default: bundled weights.")
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="bp4d, bp4d_plus, disfa, fec, synthetic or folder. May stand in place of MODEL. Default: that of MODEL.",
    ),
]
DataDirOption = Annotated[
    Path, typer.Option(metavar="DIR", help="Crops made by hf-geaau prepare, rendered faces, or your own table.")
]
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
    data_dir: DataDirOption,
    model: ModelArgument = None,
    dataset: DatasetOption = None,
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
    check_file(page, (".md",), "--page")
    evaluation = _load_evaluation()
    model, dataset = _pair(evaluation, model, dataset)
    folds = evaluation.fold_numbers(model) if model else []
    if folds and fold is not None:
        raise typer.BadParameter(f"leave it out for a directory of folds, got {fold}.", param_hint="--fold")
    target = output or (Path(model or "") / "folds.json" if folds else Path("evaluation.json"))
    check_file(target, (".json",), "--output")
    with one_line_warnings(), progress("frames", 1) as show_done:
        arguments = {"split": split, "protocol": protocol, "threshold": threshold, "progress": show_done}
        arguments |= _computing(batch_size, device, workers, bf16) | dataset_options(option, dataset)
        if folds and model:
            report = evaluation.evaluate_folds(model, dataset, data_dir, **arguments)
        else:
            chosen = evaluation.trained_fold(model, dataset) or 1 if fold is None else fold
            report = evaluation.evaluate(model, dataset, data_dir, chosen, **arguments)
    _show(report)
    content = report if folds else {"reports": {split: report}}
    from hf_geaau.files import whole_file, write_json

    write_json(content, target)
    say(f"The report is in {target}")
    if page is not None:
        with whole_file(page) as partial:
            partial.write_text(evaluation.results_page(content), encoding="utf-8")
        say(f"The page is in {page}")


def calibrate(
    data_dir: DataDirOption,
    model: ModelArgument = None,
    dataset: DatasetOption = None,
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
    model, dataset = _pair(evaluation, model, dataset)
    options = dataset_options(option, dataset)
    with one_line_warnings(), progress("frames", 1) as show_done:
        report = evaluation.calibrate(
            model,
            dataset,
            data_dir,
            evaluation.trained_fold(model, dataset) or 1 if fold is None else fold,
            output=output,
            protocol=protocol,
            false_alarm_rate=false_alarm_rate,
            progress=show_done,
            **_computing(batch_size, device, workers, bf16),
            **options,
        )
    _show_calibration(report)
    folder = Path(output or model or "")
    say(f"Thresholds and temperature are in {folder / 'config.json'}, the scores in {folder / 'calibration.json'}")


def evidence(
    model: ModelArgument = None,
    renders: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Rendered sets `test` and `unseen`, as `train-rendered` writes them."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(metavar="DIR", help="Photos, with --photo-labels.")] = None,
    photo_labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='JSON: {"faces": [{"file", "points": 5×[x, y], "labels": {"AU12": 1}}]}.'),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the results. Default: that of MODEL.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rendered faces for what is measured more than once.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces per forward pass.")] = 64,
    device: DeviceOption = None,
    workers: WorkersOption = 0,
) -> None:
    """Measure a checkpoint on rendered faces and labeled photos: scores, calibration, groups, stability, failures.

    Writes evidence.json, evidence.md and pictures, and renews the generated card of the checkpoint.
    """
    evaluation = _load_evaluation()
    with one_line_warnings():
        evaluation.gather_evidence(
            model, output, renders=renders, photos=photos, photo_labels=photo_labels, limit=limit,
            batch_size=batch_size, device=device, num_workers=workers, report=say,
        )  # fmt: skip
    folder = output or Path(model or "")
    say(f"The results are in {folder}: evidence.md, evidence.json")
    if (folder / "config.json").is_file():
        from hf_geaau.model_card import write_card

        if (card := write_card(folder)) is not None:
            say(f"The card is in {card}")


def _load_evaluation() -> ModuleType:
    """Import the package, whose imports take seconds, without the progress bars of other libraries."""
    quiet_libraries()
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from hf_geaau import evaluation

    return evaluation


def _pair(evaluation: ModuleType, model: str | None, dataset: str | None) -> tuple[str | None, str]:
    """Return the checkpoint and the dataset's name, which may be the only argument or that of the training."""
    from hf_geaau.data import list_datasets

    if dataset is None and model in list_datasets() and not Path(model, "config.json").is_file():
        return None, model
    if dataset is None and model is not None:
        folds = evaluation.fold_numbers(model)
        dataset = evaluation.trained_dataset(Path(model) / f"fold{folds[0]}" if folds else model)
    if dataset is None:
        raise typer.BadParameter(f"is needed: one of {', '.join(list_datasets())}.", param_hint="--dataset")
    return model, dataset


def _computing(batch_size: int | None, device: str | None, workers: int, bf16: bool) -> dict[str, Any]:
    """Return how to compute. On a CPU, batches of 16 take 60 % of the time of those of 64, which overflow its cache."""
    import torch

    on_cpu = device == "cpu" or (device is None and not torch.accelerator.is_available())
    batch_size = batch_size or (16 if on_cpu else 64)
    return {"batch_size": batch_size, "device": device, "num_workers": workers, "bf16": bf16}


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
