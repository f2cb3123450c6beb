"""`hf-geaau plot`: pictures and a summary of a table that `hf-geaau predict` wrote."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ._console import complain, out, quiet_libraries

if TYPE_CHECKING:
    import pandas as pd


def plot(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="The .csv, .jsonl or .parquet of `predict`.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the pictures.")] = Path("plots"),
    max_tracks: Annotated[int, typer.Option(min=1, help="Draw so many faces, those seen longest first.")] = 12,
    contact_sheet: Annotated[
        bool,
        typer.Option(
            "--contact-sheet",
            help="Also draw, per AU, faces in which it is most likely, cut out; none where it is not present.",
        ),
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Faces per AU on the contact sheet.")] = 6,
    blur: Annotated[bool, typer.Option("--blur", help="Make faces unrecognisable on the contact sheet.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that exist.")] = False,
) -> None:
    """Draw action units over time, which come together, and print a summary.

    No face is drawn unless --contact-sheet asks for it.
    """
    quiet_libraries()
    from hf_geaau.plots import require_matplotlib, save_cooccurrence, save_time_series
    from hf_geaau.video.tables import read_table

    require_matplotlib()
    rows, thresholds = read_table(table)
    if rows.empty:
        complain(f"A table must have rows to be drawn, got none in '{table}'.")
        raise typer.Exit(1)
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise typer.BadParameter(f"'{output}' is not empty; pass --overwrite.", param_hint="--output")
    output.mkdir(parents=True, exist_ok=True)
    longest = rows[rows.track_id.notna()].groupby(["source", "track_id"]).size().sort_values(ascending=False)
    longest = longest[longest > 1]
    for number, ((source, track), _) in enumerate(list(longest.items())[:max_tracks], 1):
        part = rows[(rows.source == source) & (rows.track_id == track)]
        title = f"{_shown(source)} · face {int(track)} · {len(part)} frames"
        save_time_series(part, thresholds, output / f"{number:02d}_face{int(track)}_over_time.png", title)
    save_cooccurrence(rows, list(thresholds), output / "together.png")
    summary = _summary(rows, thresholds)
    summary.to_csv(output / "summary.csv", index=False)
    if contact_sheet:
        _draw_sheet(rows, list(thresholds), top, blur, output / "strongest.png")
    _print(summary)
    note = f"; {len(longest) - max_tracks} more faces not drawn, see --max-tracks" if len(longest) > max_tracks else ""
    out.print(f"Pictures and summary.csv in {output}{note}", markup=False, highlight=False, soft_wrap=True)


def _shown(source: str) -> str:
    name = Path(source).name
    return name if name.isprintable() else repr(name)


def _summary(rows: "pd.DataFrame", thresholds: dict[str, float]) -> "pd.DataFrame":
    """One row per action unit: how often it is present, how likely on average, and when it is strongest."""
    import pandas as pd

    from hf_geaau.facs import ACTION_UNITS

    lines = []
    for unit, threshold in thresholds.items():
        strongest = rows.loc[rows[unit].idxmax()]
        lines.append(
            {
                "AU": unit,
                "name": ACTION_UNITS[int(unit[2:])].name,
                "threshold": round(threshold, 3),
                "present": round(float(rows[f"{unit}_present"].mean()), 4),
                "mean": round(float(rows[unit].mean()), 4),
                "strongest": round(float(strongest[unit]), 4),
                "strongest_source": strongest["source"],
                "strongest_frame": int(strongest["frame"]),
                "strongest_time_s": strongest["time_s"],
            }
        )
    return pd.DataFrame(lines)


def _print(summary: "pd.DataFrame") -> None:
    table = Table()
    for name in ("AU", "name"):
        table.add_column(name)
    for name in ("present", "mean", "strongest", "at"):
        table.add_column(name, justify="right")
    for row in summary.itertuples():
        time: Any = row.strongest_time_s
        at = f"frame {row.strongest_frame}" if time is None or time != time else f"{time:.2f} s"
        values = f"{row.present:.1%}", f"{row.mean:.2f}", f"{row.strongest:.2f}", at
        table.add_row(str(row.AU), str(row.name), *values)
    out.print(table)


def _draw_sheet(rows: "pd.DataFrame", units: list[str], top: int, blur: bool, path: Path) -> None:
    """Draw the faces in which each unit is likeliest, of those in which it is present; name units that never are."""
    from hf_geaau.plots import save_contact_sheet

    chosen = [(unit, index) for unit in units for index in _strongest(rows, unit, top)]
    crops = _crops(rows, sorted({index for _, index in chosen}), blur)
    kept = [(unit, index) for unit, index in chosen if index in crops]
    present = {unit for unit, _ in chosen}
    absent = [unit for unit in units if unit not in present]
    if not chosen:
        complain("A contact sheet shows faces in which an AU is present, got none in the table: no contact sheet.")
        return
    if not kept:
        complain("The photos and videos of the table must be where they were, got none of them: no contact sheet.")
        return
    captions = []
    for unit, index in kept:
        row = rows.loc[index]
        when = "" if row["time_s"] != row["time_s"] or row["time_s"] is None else f"\n{row['time_s']:.1f} s"
        captions.append(f"{unit} {row[unit]:.2f}{when}")
    title = "Highest probability of each AU that is present" + (f"; not present: {', '.join(absent)}" if absent else "")
    save_contact_sheet([crops[index] for _, index in kept], captions, path, title, top)


def _strongest(rows: "pd.DataFrame", unit: str, top: int) -> list[Any]:
    chosen: list[Any] = []
    ordered = rows[rows[f"{unit}_present"] == 1].sort_values(unit, ascending=False)
    for index, row in ordered.head(50 * top).iterrows():
        others = [rows.loc[other] for other in chosen if rows.loc[other, "source"] == row["source"]]
        is_video = row["time_s"] is not None and row["time_s"] == row["time_s"]
        if not (is_video and any(abs(other["time_s"] - row["time_s"]) < 0.5 for other in others)):
            chosen.append(index)
        if len(chosen) == top:
            break
    return chosen


def _crops(rows: "pd.DataFrame", indices: list[Any], blur: bool) -> dict[Any, Any]:
    """Read the frames again and cut the faces out where the table says they are."""
    import numpy as np
    from PIL import Image

    from hf_geaau.models.geaau import GeaauImageProcessor
    from hf_geaau.plots import blur_faces
    from hf_geaau.video.tables import POINTS

    processor = GeaauImageProcessor(size={"height": 128, "width": 128}, do_rescale=False, do_normalize=False)
    crops = {}
    for source, part in rows.loc[indices].groupby("source"):
        for number, image in _frames(str(source), set(part["frame"])):
            for index, row in part[part["frame"] == number].iterrows():
                picture = Image.fromarray(image)
                if blur:
                    same = rows[(rows.source == source) & (rows.frame == number)]
                    picture = blur_faces(picture, same[["xmin", "ymin", "xmax", "ymax"]].to_numpy().tolist())
                points = row[list(POINTS)].to_numpy(float).reshape(5, 2)
                crop = processor(picture, points=points).pixel_values[0]
                crops[index] = np.moveaxis(np.asarray(crop), 0, -1).astype(np.uint8)
    return crops


def _frames(source: str, numbers: set[int]) -> Any:
    import numpy as np

    from hf_geaau.errors import GeaauError
    from hf_geaau.faces.photos import read_photo
    from hf_geaau.video.decoding import VideoReader
    from hf_geaau.video.sources import find_sources

    try:
        kind = find_sources([source]).sources[0].kind
        if kind == "photo":
            yield 0, np.asarray(read_photo(source))
        elif kind == "video":
            reader = VideoReader(source)
            for frame in reader:
                if frame.number in numbers:
                    yield frame.number, frame.image
                if frame.number >= max(numbers):
                    break
            reader.close()
    except GeaauError as error:
        complain(str(error))
