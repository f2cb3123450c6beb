"""`hf-geaau export`: a model as a network for ONNX Runtime or OpenVINO."""

from pathlib import Path
from typing import Annotated

import typer

from ._console import out, quiet_libraries, say


def export(
    model: Annotated[
        str | None, typer.Argument(help="Hub id or checkpoint directory. Default: bundled weights.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write below DIR/onnx or DIR/openvino. Default: the checkpoint.")
    ] = None,
    network_format: Annotated[str, typer.Option("--format", metavar="NAME", help="onnx or openvino.")] = "onnx",
    dtype: Annotated[str, typer.Option(metavar="NAME", help="fp32, fp16 or int8.")] = "fp32",
    faces: Annotated[
        Path | None,
        typer.Option(
            help="Photos, rendered faces or your own table to compare on; int8 is calibrated on half of them."
        ),
    ] = None,
    aligned: Annotated[bool, typer.Option("--aligned", help="The images of --faces are aligned crops.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Take at most so many of --faces.")] = 2000,
) -> None:
    """Export a model for ONNX Runtime or OpenVINO, compared with torch before it is written.

    The network takes pixels of aligned crops and gives calibrated probabilities, intensities, the embedding and masks.
    Once it lies in the folder of its checkpoint, `predict` uses it. If --faces have labels, the loss of AUC is shown.
    """
    quiet_libraries()
    from hf_geaau.errors import GeaauError
    from hf_geaau.export import DTYPES, FORMATS, export, faces_for

    for value, known, name in ((network_format, FORMATS, "--format"), (dtype, DTYPES, "--dtype")):
        if value not in known:
            raise typer.BadParameter(f"must be one of {', '.join(known)}, got '{value}'.", param_hint=name)
    if (network_format, dtype) == ("openvino", "int8"):
        raise typer.BadParameter("int8 is offered with --format onnx only.", param_hint="--dtype")
    if dtype == "int8" and faces is None:
        raise typer.BadParameter("int8 is calibrated on faces: pass --faces.", param_hint="--dtype")
    crops, labels = (None, None) if faces is None else faces_for(model, faces, aligned=aligned, limit=limit)
    try:
        made = export(model, output, format=network_format, dtype=dtype, crops=crops, labels=labels)
    except ValueError as error:
        if isinstance(error, GeaauError):
            raise
        raise typer.BadParameter(str(error), param_hint="--faces") from error
    say(f"{made.path}: {made.path.stat().st_size / 1e6:.1f} MB, {made.dtype}")
    kind = "pictures of noise" if crops is None else "faces"
    out.print(
        f"Against torch, on {made.faces} {kind}: probabilities differ by {made.mean_change:.1g} in the mean, at most by"
        f" {made.largest_change:.1g}",
        highlight=False,
        soft_wrap=True,
    )
    if made.auc is not None:
        say(f"Mean AUC {made.auc[1]:.4f}, of torch {made.auc[0]:.4f}: a loss of {made.auc_loss:.4f}")
