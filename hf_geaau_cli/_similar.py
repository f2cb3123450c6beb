"""`hf-geaau similar`: faces with a similar expression, or groups of expressions."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import check_file, complain, err, progress, quiet_libraries, say

if TYPE_CHECKING:
    from hf_geaau.search import ExpressionEmbedder, ExpressionFace


@dataclass
class _Result:
    """What to draw and write.

    Attributes:
        title: Title of the contact sheet.
        shown: Faces on it, with captions.
        rows: Rows of the .csv file.
    """

    title: str
    shown: "list[tuple[ExpressionFace, str]]"
    rows: list[dict[str, Any]]


def similar(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[QUERY] FOLDER...", help="A photo and where to search; only the latter with --cluster."
        ),
    ],
    cluster: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Group all faces into K expressions; takes no QUERY.")
    ] = None,
    sheet: Annotated[Path, typer.Option(help="The contact sheet to write, .png.")] = Path("similar.png"),
    output: Annotated[Path | None, typer.Option(help="Also write the ranking or groups to this .csv.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Faces on the sheet, in each group if there are groups.")] = 24,
    model: Annotated[
        str | None, typer.Option(help="Hub id or directory of an expression encoder or AU model. Default: bundled.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda. Default: the accelerator.")] = None,
    fps: Annotated[float, typer.Option(help="Frames per second to look at in videos.")] = 1.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Rank the faces of photos and videos by how similar their expression is to a query's, and draw the first.

    Distances are squared L2 between expression embeddings, 0 to 4. With several faces in the query the largest counts.
    """
    if cluster is None and len(paths) < 2:
        raise typer.BadParameter("Pass a query and a folder, or one folder and --cluster K.", param_hint="QUERY")
    if not 0 < fps < float("inf"):
        raise typer.BadParameter(f"must be a number above 0, got {fps:g}.", param_hint="--fps")
    check_file(sheet, (".png",), "--sheet", overwrite=overwrite)
    check_file(output, (".csv",), "--output", overwrite=overwrite)
    quiet_libraries()
    from hf_geaau.errors import FaceNotFoundError
    from hf_geaau.plots import require_matplotlib, save_contact_sheet
    from hf_geaau.search import ExpressionEmbedder

    require_matplotlib()
    embedder = ExpressionEmbedder(model, device)
    faces, failed = _faces(embedder, paths if cluster else paths[1:], fps)
    if not faces:
        raise FaceNotFoundError(f"No face was found in {', '.join(map(repr, paths if cluster else paths[1:]))}.")
    result = _grouped(faces, cluster, top) if cluster else _ranked(_query(embedder, paths[0], fps), faces, top)
    crops, captions = [face.crop for face, _ in result.shown], [caption for _, caption in result.shown]
    save_contact_sheet(crops, captions, sheet, result.title, columns=8)
    if output is not None:
        _write(result.rows, output)
    say(f"Contact sheet: {sheet}")
    if failed:
        raise typer.Exit(1)


def _query(embedder: "ExpressionEmbedder", path: str, fps: float) -> "ExpressionFace":
    from hf_geaau.errors import FaceNotFoundError

    faces, _ = _faces(embedder, [path], fps)
    if not faces:
        raise FaceNotFoundError(f"No face was found in the query {path!r}.")
    return faces[0]


def _grouped(faces: "list[ExpressionFace]", count: int, top: int) -> _Result:
    import numpy as np

    from hf_geaau.search import cluster_by_expression

    groups = cluster_by_expression(np.stack([face.embedding for face in faces]), count)
    for group in range(count):
        say(f"group {group + 1}: {int((groups == group).sum())} faces")
    order = [index for group in range(count) for index in np.flatnonzero(groups == group)[:top]]
    shown = [(faces[index], f"group {groups[index] + 1}") for index in order]
    rows = [{**_where(face), "group": int(group) + 1} for face, group in zip(faces, groups, strict=True)]
    return _Result(f"{len(faces)} faces in {count} groups of expressions", shown, rows)


def _ranked(query: "ExpressionFace", faces: "list[ExpressionFace]", top: int) -> _Result:
    from hf_geaau.errors import FaceNotFoundError
    from hf_geaau.search import rank_by_expression

    others = [face for face in faces if _where(face) != _where(query)]
    if not others:
        raise FaceNotFoundError("No face was found besides the query's.")
    ranking = rank_by_expression(query.embedding, others)
    for distance, face in ranking[: min(top, 10)]:
        name = face.source if face.source.isprintable() else repr(face.source)
        say(f"{distance:.3f}  {name}" + (f" at {face.time_s:.2f} s" if face.time_s else ""))
    shown = [(query, "query"), *((face, f"{distance:.3f}") for distance, face in ranking[:top])]
    rows = [{**_where(face), "distance": round(distance, 6)} for distance, face in ranking]
    return _Result("Nearest expressions, by squared distance", shown, rows)


def _faces(embedder: "ExpressionEmbedder", paths: list[str], fps: float) -> "tuple[list[ExpressionFace], int]":
    """Return the faces of the inputs, and how many inputs could not be used."""
    from hf_geaau.video.sources import find_sources
    from hf_geaau.video.stream import SourceEnd

    found = find_sources(paths)
    faces, failed = [], len(found.problems)
    for problem in found.problems:
        complain(problem)
    with progress("inputs", len(found.sources), shown=len(found.sources) > 1) as show_done:
        for item in embedder.faces(found.sources, fps):
            if not isinstance(item, SourceEnd):
                faces.append(item)
                continue
            show_done(item.source_index + 1)
            if item.error is not None:
                complain(str(item.error))
                failed += 1
            for note in item.notes:
                say(f"note: {item.source.shown}: {note}.", err)
    return faces, failed


def _where(face: "ExpressionFace") -> dict[str, Any]:
    return {"source": face.source, "frame": face.frame, "time_s": face.time_s, "face": face.face}


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    from hf_geaau.files import whole_file

    with whole_file(path) as part:
        pd.DataFrame(rows).to_csv(part, index=False)
