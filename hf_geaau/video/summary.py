"""Summarize a table of predictions: each action unit over all rows, the longest tracks, the strongest faces."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau.errors import GeaauError, TableError
from hf_geaau.facs import ACTION_UNITS
from hf_geaau.video.tables import POINTS

if TYPE_CHECKING:
    import pandas as pd

CROP_SIDE = 128  # pixels of a face on a contact sheet; our choice
MIN_GAP_S = 0.5  # seconds between two faces of one video that are shown for the same action unit; our choice


def summarize(rows: "pd.DataFrame", thresholds: Mapping[str, float]) -> "pd.DataFrame":
    """Return one row per action unit: how often it is present, how likely on average, and where it is strongest.

    Args:
        rows: From `hf_geaau.video.tables.read_table`, at least one.
        thresholds: Threshold of each action unit; its keys select the action units.

    Returns:
        Columns AU, name, threshold, present (share of rows), mean and strongest (probabilities), strongest_source,
        strongest_frame, strongest_time_s.
    """
    import pandas as pd

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


class TrackRows(NamedTuple):
    """The rows of one identity in one video, and a title for them."""

    track_id: int
    rows: "pd.DataFrame"
    title: str


def longest_tracks(rows: "pd.DataFrame") -> list[TrackRows]:
    """Return the tracks of more than one frame, those with most frames first."""
    tracked = rows[rows.track_id.notna()].groupby(["source", "track_id"])
    sizes = tracked.size().sort_values(ascending=False)
    tracks = []
    for source, track in sizes[sizes > 1].index:
        part, name = tracked.get_group((source, track)), Path(source).name
        shown = name if name.isprintable() else repr(name)
        tracks.append(TrackRows(int(track), part, f"{shown} · face {int(track)} · {len(part)} frames"))
    return tracks


def strongest_faces(rows: "pd.DataFrame", unit: str, count: int) -> list[Any]:
    """Return the index labels of the rows in which an action unit is present and most likely, the likeliest first.

    Of one video's rows that are less than half a second apart only the likeliest is taken.

    Args:
        rows: From `hf_geaau.video.tables.read_table`.
        unit: The action unit, such as "AU12".
        count: Largest number of rows to return; at most 50 times as many are looked at.
    """
    import pandas as pd

    chosen: list[Any] = []
    ordered = rows[rows[f"{unit}_present"] == 1].sort_values(unit, ascending=False)
    for index, row in ordered.head(50 * count).iterrows():
        times = [rows.loc[other, "time_s"] for other in chosen if rows.loc[other, "source"] == row["source"]]
        if pd.isna(row["time_s"]) or all(abs(time - row["time_s"]) >= MIN_GAP_S for time in times):
            chosen.append(index)
        if len(chosen) == count:
            break
    return chosen


class ContactSheet(NamedTuple):
    """What `hf_geaau.plots.save_contact_sheet` draws: (H, W, 3) uint8 crops, their captions, and a title."""

    crops: list[NDArray[np.uint8]]
    captions: list[str]
    title: str


def contact_sheet(
    rows: "pd.DataFrame", units: Sequence[str], count: int, *, blur: bool, on_problem: Callable[[str], None]
) -> ContactSheet:
    """Read the strongest faces of each action unit from the photos and videos of a table.

    Args:
        rows: From `hf_geaau.video.tables.read_table`.
        units: The action units; the title names those that are never present.
        count: Faces per action unit.
        blur: Make faces unrecognizable.
        on_problem: Called with a line for each photo or video that cannot be read.

    Raises:
        TableError: If no action unit is present, or no photo or video can be read.
    """
    import pandas as pd

    chosen = [(unit, index) for unit in units for index in strongest_faces(rows, unit, count)]
    if not chosen:
        raise TableError("Cannot draw a contact sheet: no action unit is present in the table.")
    crops = _crops(rows, sorted({index for _, index in chosen}), blur, on_problem)
    kept = [(unit, index) for unit, index in chosen if index in crops]
    if not kept:
        raise TableError(
            "Cannot draw a contact sheet: no photo or video of the table can be read. Run the command where they are."
        )
    captions = []
    for unit, index in kept:
        time = rows.loc[index, "time_s"]
        captions.append(f"{unit} {rows.loc[index, unit]:.2f}" + (f"\n{time:.1f} s" if pd.notna(time) else ""))
    absent = ", ".join(unit for unit in units if unit not in dict(chosen))
    title = "Highest probability of each AU that is present" + (f"; not present: {absent}" if absent else "")
    return ContactSheet([crops[index] for _, index in kept], captions, title)


def _crops(
    rows: "pd.DataFrame", indices: Sequence[Any], blur: bool, on_problem: Callable[[str], None]
) -> dict[Any, NDArray[np.uint8]]:
    """Read the frames again and cut the faces out by the table's points; those that cannot be read are missing."""
    from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE, crop_faces
    from hf_geaau.plots import blur_faces

    crops = {}
    for source, part in rows.loc[indices].groupby("source"):
        try:
            for frame, image in _frames(str(source), set(part["frame"])):
                picture = Image.fromarray(image)
                if blur:
                    faces = rows[(rows.source == source) & (rows.frame == frame)]
                    picture = blur_faces(picture, faces[["xmin", "ymin", "xmax", "ymax"]].to_numpy().tolist())
                for index, row in part[part["frame"] == frame].iterrows():
                    points = row[list(POINTS)].to_numpy(float).reshape(5, 2)
                    (crops[index],) = crop_faces(np.asarray(picture), points, CROP_TEMPLATE, (CROP_SIDE, CROP_SIDE))
        except GeaauError as error:
            on_problem(str(error))
    return crops


def _frames(source: str, numbers: set[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    from hf_geaau.faces import read_photo
    from hf_geaau.video.frames import open_video
    from hf_geaau.video.sources import find_sources

    kind = next((found.kind for found in find_sources([source]).sources), "photo")
    if kind == "photo":
        yield 0, np.asarray(read_photo(source))
    elif kind == "video":
        reader = open_video(source)
        for frame in reader:
            if frame.number in numbers:
                yield frame.number, frame.image
            if frame.number >= max(numbers):
                break
        reader.close()
