"""`hf-geaau benchmark`: what anybody can measure again."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ._console import out, quiet_libraries


def benchmark(
    name: Annotated[str, typer.Argument(metavar="NAME", help="synthetic: the ablation of GTLE-Net on rendered faces.")],
    face_model: Annotated[Path, typer.Option(help="ICT-FaceKit: a clone of its repository, or a packed .npz.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where renders, models and the report go.")] = Path(
        "benchmark"
    ),
    smoke: Annotated[
        bool, typer.Option("--smoke/--full", help="Two minutes that only show that it runs, or the real thing.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = os.cpu_count() or 1,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda. Default: what is there.")] = None,
) -> None:
    """Train and score the ablation of GTLE-Net's two ideas, with several seeds, on people nobody has seen.

    Started again with the same arguments, it goes on where it stopped.
    """
    if name != "synthetic":
        raise typer.BadParameter(f"must be 'synthetic', got '{name}'.", param_hint="NAME")
    quiet_libraries()
    from hf_geaau.benchmark import run_benchmark

    def say(line: str) -> None:
        out.print(line, markup=False, highlight=False, soft_wrap=True)

    run_benchmark(face_model, output, "smoke" if smoke else "full", workers=workers, device=device, report=say)
    say((output / "report.md").read_text(encoding="utf-8"))
    say(f"See {output}: report.md, results.json, arms.png, masks.png.")
