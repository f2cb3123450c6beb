"""The command `hf-geaau`.

It lies beside the package, not in it: importing `hf_geaau` registers the model with transformers and so imports torch,
which `hf-geaau --help` must not pay for. Each command imports what it needs when it runs.
"""

import io
import sys
from typing import Annotated

import typer

from ._console import complain, out
from ._data import download_fec, example_data, prepare, render
from ._evaluate import calibrate, evaluate, evidence
from ._hub import models, push
from ._plot import plot
from ._predict import predict
from ._similar import similar
from ._train import train, train_rendered

app = typer.Typer(
    help="Detect facial action units (AUs) with GTLE-Net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    predict, plot, similar, render, prepare, example_data, download_fec, train, train_rendered, evaluate, calibrate,
    evidence, push, models,
)  # fmt: skip
for command in COMMANDS:
    app.command(command.__name__.replace("_", "-"))(command)


def main() -> None:
    """Run the command; an expected error is one line and exit code 1, not a traceback."""
    from importlib import import_module

    for stream in (sys.stdout, sys.stderr):  # a console or pipe of Windows in cp1252 has no bars and no arrows
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except Exception as error:
        if not isinstance(error, import_module("hf_geaau.errors").GeaauError):
            raise
        complain(str(error))
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out.print(f"hf-geaau {version('hf_geaau')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
