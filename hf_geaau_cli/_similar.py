"""`hf-geaau similar`: faces with a similar expression, or groups of expressions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import complain, err, out, progress, quiet_libraries

if TYPE_CHECKING:
    from hf_geaau.search import ExpressionFace


def similar(
    paths: Annotated[
        list[str], typer.Argument(metavar="[QUERY] FOLDER...", help="A photo, and where to look; or only the latter.")
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
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda. Default: what is there.")] = None,
    fps: Annotated[float, typer.Option(help="Frames a second that are looked at in videos.")] = 1.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Rank the faces of photos and videos by how similar their expression is to a query's, and draw the first.

    Distances are squared L2 between expression embeddings, 0 to 4. With several faces in the query the largest counts.
    """
    if cluster is None and len(paths) < 2:
        raise typer.BadParameter("must be a query and where to look, or come with --cluster K.", param_hint="QUERY")
    for path, suffix in ((sheet, ".png"), (output, ".csv")):
        if path is not None and path.suffix.lower() != suffix:
            raise typer.BadParameter(f"must end in {suffix}, got '{path}'.")
        if path is not None and path.exists() and not overwrite:
            raise typer.BadParameter(f"'{path}' exists; pass --overwrite to replace it.")
    quiet_libraries()
    from hf_geaau.errors import FaceNotFoundError
    from hf_geaau.plots import require_matplotlib, save_contact_sheet
    from hf_geaau.search import ExpressionEmbedder, cluster_by_expression, rank_by_expression

    require_matplotlib()
    if model is None:
        err.print(
            "note: the bundled checkpoint's expression embedding was never trained on triplets; pass --model an "
            "expression encoder that was, such as the recipe synthetic_gee trains.",
            soft_wrap=True,
        )
    embedder = ExpressionEmbedder(model, device)
    faces, failed = _faces(embedder, paths if cluster else paths[1:], fps)
    if not faces:
        raise FaceNotFoundError(f"Where to look must show a face, got none in {', '.join(map(repr, paths))}.")
    if cluster:
        import numpy as np

        groups = cluster_by_expression(np.stack([face.embedding for face in faces]), cluster)
        order = [place for group in range(cluster) for place in np.flatnonzero(groups == group)[:top]]
        shown = [(faces[place], f"group {groups[place] + 1}") for place in order]
        table = [{**_where(face), "group": int(group) + 1} for face, group in zip(faces, groups, strict=True)]
        title = f"{len(faces)} faces in {cluster} groups of expressions"
        for group in range(cluster):
            out.print(f"group {group + 1}: {int((groups == group).sum())} faces", highlight=False)
    else:
        query, _ = _faces(embedder, paths[:1], fps)
        if not query:
            raise FaceNotFoundError(f"The query must show a face, got none in {paths[0]!r}.")
        others = [face for face in faces if _where(face) != _where(query[0])]
        if not others:
            raise FaceNotFoundError("Where to look must show a face besides the query's, got none.")
        ranking = rank_by_expression(query[0].embedding, others)
        shown = [(query[0], "query"), *((face, f"{distance:.3f}") for distance, face in ranking[:top])]
        table = [{**_where(face), "distance": round(distance, 6)} for distance, face in ranking]
        title = "Nearest expressions, by squared distance"
        for row in table[: min(top, 10)]:
            name = row["source"] if row["source"].isprintable() else repr(row["source"])
            text = f"{row['distance']:.3f}  {name}" + (f" at {row['time_s']:.2f} s" if row["time_s"] else "")
            out.print(text, markup=False, highlight=False, soft_wrap=True)
    save_contact_sheet([face.crop for face, _ in shown], [caption for _, caption in shown], sheet, title, columns=8)
    if output is not None:
        _write(table, output)
    out.print(f"Contact sheet: {sheet}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _faces(embedder: Any, paths: list[str], fps: float) -> "tuple[list[ExpressionFace], int]":
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
            show_done(item.place + 1)
            if item.error is not None:
                complain(str(item.error))
                failed += 1
            for note in item.notes:
                err.print(f"note: {item.source.shown}: {note}.", markup=False, highlight=False, soft_wrap=True)
    return faces, failed


def _where(face: "ExpressionFace") -> dict[str, Any]:
    return {"source": face.source, "frame": face.frame, "time_s": face.time_s, "face": face.face}


def _write(table: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    from hf_geaau.files import whole_file

    with whole_file(path) as part:
        pd.DataFrame(table).to_csv(part, index=False)
