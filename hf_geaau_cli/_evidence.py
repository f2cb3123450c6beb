"""`hf-geaau evidence`: what a checkpoint can and cannot do."""

from pathlib import Path
from typing import Annotated

import typer

from ._console import one_line_warnings, quiet_libraries, say


def evidence(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Directory or Hub id. Default: the bundled checkpoint.")
    ] = None,
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
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda. Default: the accelerator if there is one.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 0,
) -> None:
    """Measure a checkpoint on rendered faces and labeled photos: scores, calibration, groups, stability, failures.

    Writes evidence.json, evidence.md and pictures, and renews the generated card of the checkpoint.
    """
    quiet_libraries()
    import datasets

    datasets.disable_progress_bars()
    from hf_geaau.evaluation import gather_evidence

    with one_line_warnings():
        gather_evidence(
            model, output, renders=renders, photos=photos, photo_labels=photo_labels, limit=limit,
            batch_size=batch_size, device=device, num_workers=workers, report=say,
        )  # fmt: skip
    folder = output or Path(model or "")
    say(f"The results are in {folder}: evidence.md, evidence.json")
    if (folder / "config.json").is_file():
        from hf_geaau.model_card import write_card

        if (card := write_card(folder)) is not None:
            say(f"The card is in {card}")
