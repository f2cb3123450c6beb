"""The command `hf-geaau`.

It lies beside the package, not in it: importing `hf_geaau` registers the model with transformers and so imports torch,
which `hf-geaau --help` must not pay for. Each command imports what it needs when it runs.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from hf_geaau.pipeline import FacialActionUnitPipeline

app = typer.Typer(
    help="Detect facial action units (AUs) with GTLE-Net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)

TABLE_FORMATS = (".csv", ".jsonl", ".parquet")
FULL_TABLES = 5  # above this many photos, a line per photo instead of a table per face


def main() -> None:
    """Run the command; an expected error is one line and exit code 1, not a traceback."""
    from importlib import import_module

    try:
        app()
    except Exception as error:
        if not isinstance(error, import_module("hf_geaau.errors").GeaauError):
            raise
        _complain(str(error))
        sys.exit(1)


def _complain(message: str) -> None:
    err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)


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


@contextmanager
def _progress(description: str, total: int, shown: bool = True) -> Iterator[Any]:
    """Show a progress bar on stderr; gives a function that takes how many are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Into a file, a bar that is wiped at the end would leave nothing but an empty line.
    with Progress(*columns, console=err, disable=not (shown and err.is_terminal), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done, total=total: bar.update(task, completed=done, total=total)


@app.command()
def predict(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Paths or http(s) URLs of photos.")],
    model: Annotated[str | None, typer.Option(help="Hub id or checkpoint directory. Default: bundled weights.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write one row per face to this .csv, .jsonl or .parquet file.")
    ] = None,
    annotate: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write annotated photos and mask heat maps there.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu, cuda or cuda:1. Default: what is there.")] = None,
    aligned: Annotated[bool, typer.Option("--aligned", help="The photos are face crops, aligned already.")] = False,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Drop faces with a lower detector score.")] = 0.6,
    batch_size: Annotated[int, typer.Option(min=1, help="Faces per forward pass.")] = 16,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output file that exists.")] = False,
) -> None:
    """Print the action units of every face of every photo.

    A photo that cannot be read, or has no face, is named on stderr; the others go on, and the exit code is 1.
    """
    _check_output(output, overwrite)
    _quiet_libraries()
    from hf_geaau.errors import PhotoError
    from hf_geaau.pipeline import load_pipeline

    if annotate is not None:
        from hf_geaau.plots import require_matplotlib

        require_matplotlib()
        annotate.mkdir(parents=True, exist_ok=True)
    arguments = {} if device is None else {"device": device}
    pipe = load_pipeline(model, aligned=aligned, min_score=min_score, batch_size=batch_size, **arguments)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    results = pipe((photo for photo in photos), on_error="return", return_masks=annotate is not None)
    try:
        with _progress("photos", len(photos), shown=len(photos) > 1) as show_done:
            for number, (photo, faces) in enumerate(zip(photos, results, strict=True), 1):
                show_done(number)
                if isinstance(faces, PhotoError):
                    problems.append(str(faces))
                elif not faces:
                    problems.append(
                        f"A photo must show a face, got none in '{photo}'. Lower --min-score ({min_score:g} now),"
                        " or pass --aligned if it is a face crop."
                    )
                else:
                    _show(photo, faces, pipe, in_full=len(photos) <= FULL_TABLES)
                    rows += [_row(photo, index, face) for index, face in enumerate(faces)]
                    if annotate is not None:
                        _draw(
                            photo,
                            faces,
                            pipe,
                            annotate / f"{number:0{len(str(len(photos)))}d}_{_stem(photo)}",
                            aligned,
                        )
    finally:  # what is done is kept, also on Ctrl-C
        if output is not None:
            _write_table(rows, _columns(pipe), output)
    for problem in problems:
        _complain(problem)
    if problems:
        err.print(f"{len(problems)} of {len(photos)} photos gave no result.", highlight=False)
        raise typer.Exit(1)


def _check_output(output: Path | None, overwrite: bool) -> None:
    if output is None:
        return
    if output.suffix.lower() not in TABLE_FORMATS:
        raise typer.BadParameter(f"must end in {', '.join(TABLE_FORMATS)}, got '{output}'.", param_hint="--output")
    if output.exists() and not overwrite:
        raise typer.BadParameter(f"'{output}' exists; pass --overwrite to replace it.", param_hint="--output")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"its folder must exist, got '{output}'.", param_hint="--output")


def _quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice out of a command's output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _show(photo: str, faces: list[dict[str, Any]], pipe: "FacialActionUnitPipeline", in_full: bool) -> None:
    if not in_full:
        texts = [" ".join(face["present"]) or "none" for face in faces]
        out.print(f"{photo}: {' | '.join(texts)}", markup=False, highlight=False, soft_wrap=True)
        return
    from hf_geaau.facs import ACTION_UNITS

    for index, face in enumerate(faces):
        box = face["box"]
        size = f"{box['xmax'] - box['xmin']:.0f}×{box['ymax'] - box['ymin']:.0f} px"
        title = f"{photo} · face {index + 1} of {len(faces)} · {size} · score {face['score']:.2f}"
        out.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
        table = Table()
        for name in ("AU", "name"):
            table.add_column(name)
        table.add_column("probability", justify="right")
        table.add_column("", min_width=20)
        table.add_column("present")
        for label, probability in face["action_units"].items():
            unit = ACTION_UNITS.get(int(label[2:]))
            bar = "█" * round(probability * 20)
            is_present = label in face["present"]
            style = "bold" if is_present else "dim"
            name = unit.name if unit else ""
            table.add_row(label, name, f"{probability:.2f}", bar, "present" if is_present else "", style=style)
        out.print(table)


def _row(photo: str, index: int, face: dict[str, Any]) -> dict[str, Any]:
    units = face["action_units"]
    present = {f"{label}_present": int(label in face["present"]) for label in units}
    return {"source": photo, "face": index, "score": face["score"], **face["box"], **units, **present}


def _columns(pipe: "FacialActionUnitPipeline") -> list[str]:
    labels = list(pipe.model.config.id2label.values())
    base = ["source", "face", "score", "xmin", "ymin", "xmax", "ymax"]
    return [*base, *labels, *(f"{label}_present" for label in labels)]


def _write_table(rows: list[dict[str, Any]], columns: list[str], path: Path) -> None:
    """Write the rows of all faces; never half a table."""
    import pandas as pd

    from hf_geaau.files import whole_file

    table = pd.DataFrame(rows, columns=columns)
    with whole_file(path) as part:
        match path.suffix.lower():
            case ".csv":
                table.to_csv(part, index=False)
            case ".jsonl":
                table.to_json(part, orient="records", lines=True, force_ascii=False, double_precision=6)
            case _:
                table.to_parquet(part, index=False)


def _stem(photo: str) -> str:
    """Make a file name of a path or URL."""
    stem = Path(photo.split("?")[0]).stem
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem) or "photo"


def _draw(
    photo: str, faces: list[dict[str, Any]], pipe: "FacialActionUnitPipeline", target: Path, aligned: bool
) -> None:
    from hf_geaau.photos import read_photo
    from hf_geaau.plots import annotate_photo, save_mask_sheet

    picture = read_photo(photo)
    if not aligned:
        annotate_photo(picture, faces).save(target.with_name(f"{target.name}.jpg"), quality=92)
    for index, face in enumerate(faces):
        points = None if aligned else face["points"]
        crop = pipe.image_processor(picture, points=points, do_rescale=False, do_normalize=False).pixel_values[0]
        save_mask_sheet(crop, face, target.with_name(f"{target.name}_face{index + 1}_masks.png"))


@app.command()
def render(
    face_model: Annotated[Path, typer.Option(help="ICT-FaceKit: a clone of its repository, or a packed .npz.")],
    count: Annotated[int, typer.Option(min=1, help="Number of images.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the JPEG files and labels.parquet go.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    size: Annotated[int, typer.Option(min=32, help="Side of the crops in pixels.")] = 128,
    first_identity: Annotated[
        int, typer.Option(min=0, help="Number of the first identity; disjoint ranges share nobody.")
    ] = 0,
    images_per_identity: Annotated[int, typer.Option(min=1, help="Images of each identity.")] = 10,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Render faces with known action units: JPEG files and labels.parquet.

    Started again with the same arguments, it goes on where it stopped.
    """
    from hf_geaau.synthetic import render_dataset

    with _progress("images", count) as show_done:
        render_dataset(
            face_model,
            count,
            seed,
            output,
            size=size,
            images_per_identity=images_per_identity,
            first_identity=first_identity,
            workers=workers,
            progress=show_done,
        )
    out.print(f"{count} images in {output}", highlight=False)


OptionList = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the dataset, such as camera=left. Repeatable."),
]


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="bp4d, bp4d_plus, disfa, fec or synthetic.")],
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="The directory that the dataset's owners sent you.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the crops go.")],
    size: Annotated[int, typer.Option(help="Side of the crops in pixels.")] = 224,
    faceless: Annotated[
        str, typer.Option(help="A frame without a face: cut like its 'neighbour' in the sequence, or 'drop' it.")
    ] = "neighbour",
    min_score: Annotated[float, typer.Option(help="Detections with a lower score count as no face.")] = 0.6,
    workers: Annotated[int, typer.Option(help="Processes.")] = os.cpu_count() or 1,
    option: OptionList = None,
) -> None:
    """Cut the face crops of a dataset once: parquet shards that datasets.load_dataset reads.

    Started again with the same arguments, it goes on where it stopped. The crops of licensed data are licensed too:
    do not publish them.
    """
    from hf_geaau.prepare import prepare as prepare_crops

    with _one_line_warnings(), _progress("images", 1) as show_done:
        report = prepare_crops(
            name,
            data_dir,
            output,
            size=size,
            faceless=faceless,
            min_score=min_score,
            workers=workers,
            progress=show_done,
            **_parsed(option),
        )
    out.print(f"{report.rows} rows in {report.folder}", markup=False, highlight=False, soft_wrap=True)
    for action, count in report.problems.items():
        out.print(f"{count} {action}; see {report.path}", markup=False, highlight=False, soft_wrap=True)


@app.command("example-data")
def example_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="bp4d, bp4d_plus, disfa, fec or synthetic.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where; a new or empty folder.")],
    face_model: Annotated[Path | None, typer.Option(help="ICT-FaceKit, to render the faces. Default: drawn.")] = None,
    option: OptionList = None,
) -> None:
    """Write a small imitation of a dataset's official layout, with invented labels and faces."""
    from hf_geaau.data import write_example

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise typer.BadParameter(f"must be a new or empty folder, got '{folder}'.", param_hint="DIR")
    write_example(name, folder, **_parsed(option), **({"face_model": face_model} if face_model else {}))
    out.print(f"An imitation of {name}, all invented, in {folder}", markup=False, highlight=False, soft_wrap=True)


@app.command("download-fec")
def download_fec(
    data_dir: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with FEC's two csv files.")],
    workers: Annotated[int, typer.Option(help="Connections at a time.")] = 8,
    rate: Annotated[float, typer.Option(help="Requests per second to one host, at most.")] = 5.0,
    timeout: Annotated[float, typer.Option(help="Seconds that a server may take.")] = 20.0,
    retries: Annotated[int, typer.Option(help="Repetitions after a passing trouble.")] = 3,
    retry_dead: Annotated[bool, typer.Option("--retry-dead", help="Ask for dead links once more.")] = False,
) -> None:
    """Fetch the photos of FEC into DIR/images; dead links are listed in DIR/dead_links.csv.

    Started again, it goes on where it stopped. The photos belong to their owners: do not pass them on.
    """
    from hf_geaau.data.fec import download_fec as fetch

    with _one_line_warnings(), _progress("photos", 1) as show_done:
        report = fetch(
            data_dir,
            workers=workers,
            rate=rate,
            timeout=timeout,
            retries=retries,
            retry_dead=retry_dead,
            progress=show_done,
        )
    out.print(
        f"{report.fetched} photos fetched, {report.present} were there, {len(report.dead)} links gave none; see"
        f" {report.path}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _parsed(options: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs; numbers, true, false, null and lists as in JSON, all else as text."""
    import json

    result: dict[str, Any] = {}
    for text in options or []:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"must be NAME=VALUE, got '{text}'.", param_hint="--option")
        try:
            result[name] = json.loads(value)
        except ValueError:
            result[name] = value
    return result


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Show our warnings as one line, without the place in the code."""
    import warnings

    from hf_geaau.errors import DatasetWarning

    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_short(message: Any, category: type[Warning], *place: Any, **arguments: Any) -> None:
            if issubclass(category, DatasetWarning):
                err.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)
            else:
                show(message, category, *place, **arguments)

        warnings.showwarning = show_short
        yield


if __name__ == "__main__":
    main()
