"""`hf-geaau plot`: pictures and a summary of a table that `hf-geaau predict` wrote."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ._console import complain, out, quiet_libraries, say

if TYPE_CHECKING:
    import pandas as pd


def plot(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="The .csv, .jsonl or .parquet of `predict`.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the pictures to.")] = Path("plots"),
    max_tracks: Annotated[
        int, typer.Option(min=1, help="Largest number of faces to draw, those with most frames first.")
    ] = 12,
    contact_sheet: Annotated[
        bool,
        typer.Option(
            "--contact-sheet", help="Also draw, for each AU that is present, the faces in which it is likeliest."
        ),
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Faces per AU on the contact sheet.")] = 6,
    blur: Annotated[bool, typer.Option("--blur", help="Make faces unrecognizable on the contact sheet.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that exist.")] = False,
) -> None:
    """Draw action units over time and how often they are present together, and print a summary.

    No face is drawn unless --contact-sheet asks for it.
    """
    quiet_libraries()
    from hf_geaau import plots
    from hf_geaau.errors import TableError
    from hf_geaau.files import FolderLock, whole_file
    from hf_geaau.video import summary
    from hf_geaau.video.tables import read_table

    plots.require_matplotlib()
    rows, thresholds = read_table(table)
    if rows.empty:
        raise TableError(f"Cannot plot '{table}': it has no rows.")
    tracks, lines = summary.longest_tracks(rows), summary.summarize(rows, thresholds)
    with FolderLock(output, content="pictures", error=TableError) as lock:
        if not (lock.is_empty or overwrite):
            raise typer.BadParameter(f"'{output}' is not empty; pass --overwrite.", param_hint="--output")
        for number, track in enumerate(tracks[:max_tracks], 1):
            path = output / f"{number:02d}_face{track.track_id}_over_time.png"
            plots.save_time_series(track.rows, thresholds, path, track.title)
        plots.save_cooccurrence(rows, list(thresholds), output / "together.png")
        with whole_file(output / "summary.csv") as part:
            lines.to_csv(part, index=False)
        if contact_sheet:
            try:
                sheet = summary.contact_sheet(rows, list(thresholds), top, blur=blur, on_problem=complain)
                plots.save_contact_sheet(sheet.crops, sheet.captions, output / "strongest.png", sheet.title, top)
            except TableError as error:
                complain(str(error))
    _print(lines)
    note = f"; {len(tracks) - max_tracks} more faces not drawn, see --max-tracks" if len(tracks) > max_tracks else ""
    say(f"Pictures and summary.csv in {output}{note}")


def _print(summary: "pd.DataFrame") -> None:
    table = Table("AU", "name")
    for name in ("present", "mean", "strongest", "at"):
        table.add_column(name, justify="right")
    for row in summary.itertuples():
        time: Any = row.strongest_time_s
        at = f"frame {row.strongest_frame}" if time is None or time != time else f"{time:.2f} s"
        values = f"{row.present:.1%}", f"{row.mean:.2f}", f"{row.strongest:.2f}", at
        table.add_row(str(row.AU), str(row.name), *values)
    out.print(table)
