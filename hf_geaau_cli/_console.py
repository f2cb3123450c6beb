"""What the commands share: consoles, progress, one-line errors and warnings, NAME=VALUE options."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from hf_geaau.metrics import Table

# Control characters but newline and tab, line separators, marks of writing direction, and halves of surrogate pairs,
# which stand for bytes of a file name that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text whose control characters are written out, so that a file name cannot command the terminal.

    Example:
        >>> print(printable("a\x1b[31m.jpg"))
        a\x1b[31m.jpg
    """

    def written_out(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _UNPRINTABLE.sub(written_out, text)


class _SafeConsole(Console):
    """A console that shows every text by `printable`, also the cells of tables."""

    def render_str(self, text: str, **options: Any) -> Any:
        """Turn a text into what rich prints."""
        return super().render_str(printable(text), **options)


out = _SafeConsole(emoji=False)  # ":smile:" in a file name stays as it is
err = _SafeConsole(stderr=True, emoji=False)

FACE_MODEL_OPTION: Any = typer.Option(
    metavar="DIR", help="A clone of ICT-FaceKit or of VALID's avatars. Repeat it: they take turns, a person each."
)
FaceModels = Annotated[list[Path], FACE_MODEL_OPTION]
Environments = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Panoramas (*.hdr) that light half of the faces, such as those of pmndrs/assets."),
]
OptionList = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the dataset, such as camera=left. Repeatable."),
]


def check_file(path: Path | None, suffixes: tuple[str, ...], option: str, *, overwrite: bool = True) -> None:
    """Refuse an output file before any work is done for it.

    Args:
        path: The file; None if there is none to write.
        suffixes: One of which it must have.
        option: Which states it, for the message.
        overwrite: Whether it may exist.
    """
    if path is None:
        return
    problem = None
    if path.suffix.lower() not in suffixes:
        problem = f"must end in {', '.join(suffixes)}, got '{path}'."
    elif not path.absolute().parent.is_dir():
        problem = f"its folder must exist, got '{path}'."
    elif path.is_dir():
        problem = f"must be a file, got the folder '{path}'."
    elif path.exists() and not overwrite:
        problem = f"'{path}' exists; pass --overwrite."
    if problem is not None:
        raise typer.BadParameter(problem, param_hint=option)


def say(message: str, console: Console = out) -> None:
    """Print a line as it is, without markup, colors or wrapping."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error as one line on stderr."""
    line = message.replace("\n", " ")
    err.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(description: str, total: int, shown: bool = True) -> Iterator[Any]:
    """Show a progress bar on stderr, and yield a function that takes the number of finished items."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # In a file, a bar that is removed at the end would leave an empty line.
    with Progress(*columns, console=err, disable=not (shown and err.is_terminal), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done, total=total: bar.update(task, completed=done, total=total)


def quiet_libraries() -> None:
    """Keep the progress bars and advice of libraries out of a command's output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from wrapt import register_post_import_hook

    def quiet(logging: Any) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    register_post_import_hook(quiet, "transformers.utils.logging")  # importing it takes two seconds, so not before


def dataset_options(options: list[str] | None, dataset: str) -> dict[str, Any]:
    """Read the options of a dataset, and check that it has them: they travel among the arguments of our functions."""
    from hf_geaau.data import dataset_class
    from hf_geaau.data.options import check_names

    result = parsed(options)
    check_names(dataset_class(dataset), result)
    return result


def parsed(options: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs; numbers, true, false, null and lists as in JSON, all else as text."""
    from hf_geaau.files import parse_json

    result: dict[str, Any] = {}
    for text in options or []:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"must be NAME=VALUE, got '{text}'.", param_hint="--option")
        try:
            result[name] = parse_json(value)
        except ValueError:
            result[name] = value
    return result


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Show each of the package's warnings once and as one line, without the position in the code."""
    import warnings

    from hf_geaau.errors import DatasetWarning

    with warnings.catch_warnings():
        show = warnings.showwarning
        shown: set[str] = set()  # a command reads a table more than once

        def show_short(message: Any, category: type[Warning], *position: Any, **arguments: Any) -> None:
            if issubclass(category, DatasetWarning):
                if str(message) in shown:
                    return
                shown.add(str(message))
                err.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)
            else:
                show(message, category, *position, **arguments)

        warnings.showwarning = show_short
        yield


def show_table(table: "Table") -> None:
    """Print a table of `hf_geaau.metrics`; the row "mean" is set apart."""
    from rich.box import SIMPLE
    from rich.table import Table as RichTable

    shown = RichTable(box=SIMPLE, padding=0, show_edge=False)  # ten columns fit into 80 characters
    for title, letter in zip(table.header, table.align, strict=True):
        shown.add_column(title, justify="right" if letter == "r" else "left")
    for row in table.rows:
        if is_mean := row[0] == "mean":
            shown.add_section()
        shown.add_row(*row, style="bold" if is_mean else None)
    out.print(shown)
