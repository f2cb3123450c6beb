"""`hf-geaau evidence`: what a checkpoint can and cannot do."""

from pathlib import Path
from typing import Annotated

import typer

from ._console import one_line_warnings, out, quiet_libraries


def evidence(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Directory or Hub id. Default: the bundled checkpoint.")
    ] = None,
    renders: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Rendered sets `test` and `unseen`, as `train bundled` leaves them."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(metavar="DIR", help="Photos, with --photo-labels.")] = None,
    photo_labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='JSON: {"faces": [{"file", "points": 5×[x, y], "labels": {"AU12": 1}}]}.'),
    ] = None,
    mediapipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="MediaPipe's face_landmarker.task, to compare with.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where it goes. Default: beside MODEL.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Faces for what is measured more than once.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces of one forward pass.")] = 64,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda. Default: what is there.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 0,
) -> None:
    """Measure a checkpoint on rendered faces and labelled photos: scores, calibration, groups, steadiness, failures.

    Writes evidence.json, evidence.md and pictures; the card of a checkpoint that `train bundled` made is renewed.
    """
    quiet_libraries()
    import datasets

    datasets.disable_progress_bars()
    from hf_geaau.evidence import gather_evidence

    def say(line: str) -> None:
        out.print(line, markup=False, highlight=False, soft_wrap=True)

    with one_line_warnings():
        gather_evidence(
            model, output, renders=renders, photos=photos, photo_labels=photo_labels, mediapipe=mediapipe,
            limit=limit, batch_size=batch_size, device=device, num_workers=workers, report=say,
        )  # fmt: skip
    place = output or Path(model or "")
    say(f"See {place}: evidence.md, evidence.json.")
