"""The command `hf-geaau`.

It lies beside the package, which prints nothing. Each command imports what it needs when it runs, so that `--help` and
`predict` wait neither for torch nor for transformers.
"""

import io
import os
import sys
from typing import Annotated

import typer

from ._app import app as serve_app
from ._console import complain, out
from ._data import download_fec, example_data, prepare, render
from ._evaluate import calibrate, evaluate, evidence
from ._export import export
from ._hub import models, push
from ._plot import plot
from ._predict import predict
from ._similar import similar
from ._table import table
from ._train import train, train_rendered

app = typer.Typer(
    help="Detect facial action units (AUs) with GTLE-Net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    predict, table, plot, similar, render, prepare, example_data, download_fec, train, train_rendered, evaluate,
    calibrate, evidence, export, push, models, serve_app,
)  # fmt: skip
for command in COMMANDS:
    app.command(command.__name__.replace("_", "-"))(command)


_OWN = ("hf_geaau", "hf_geaau_cli")
_FULL = ("No space left", "os error 28", "PytorchStreamWriter failed", "file write failed")  # Rust's and torch's words


def main() -> None:
    """Run the command; an expected error, or one of the disk, is one line and exit code 1, not a traceback."""
    for stream in (sys.stdout, sys.stderr):  # a console or pipe of Windows in cp1252 has no bars and no arrows
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except Exception as error:
        line = _expected(error)
        if line is None:
            raise
        complain(line)
        sys.exit(1)


def _expected(error: Exception) -> str | None:
    """Return an error's line for the user; None if it is a mistake of the program."""
    errors = sys.modules.get("hf_geaau.errors")  # imported by whoever raises one
    if errors is not None and isinstance(error, errors.GeaauError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "hf_geaau").split(".")[0] not in _OWN:
        return f"This command needs the package {error.name}, which is missing. Install it with `pip install hf_geaau`."
    if isinstance(error, OSError):
        from hf_geaau.files import reason_of

        where = f"'{os.fsdecode(error.filename)}'" if isinstance(error.filename, str | bytes) else "a file"
        return f"Cannot read or write {where}: {reason_of(error)}. Check the disk's space and rights, then try again."
    if any(words in str(error) for words in _FULL):
        return f"Disk full while writing: {' '.join(str(error).split())[:200]}. Free space, then try again."
    return None


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
