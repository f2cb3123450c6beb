"""`hf-geaau predict`: the action units of every face of every photo."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ._console import complain, err, out, progress, quiet_libraries

if TYPE_CHECKING:
    from hf_geaau.pipeline import FacialActionUnitPipeline

TABLE_FORMATS = (".csv", ".jsonl", ".parquet")
FULL_TABLES = 5  # above this many photos, a line per photo instead of a table per face


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
    quiet_libraries()
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
        with progress("photos", len(photos), shown=len(photos) > 1) as show_done:
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
        complain(problem)
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
