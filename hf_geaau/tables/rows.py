"""What the rows of a table say together: its action units, its people, and frames that have no row."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

GAP = 2.5  # a step longer than this many usual ones means that the face was not seen meanwhile; our choice


def action_units(table: "pd.DataFrame") -> list[str]:
    """Return the names of a table's action units, in its order."""
    return [name for name in table.columns if f"{name}_present" in table.columns]


def people(table: "pd.DataFrame") -> Iterator[NDArray[np.intp]]:
    """Yield the positions of each person's rows, a track of a video, in the order of time; photos have none."""
    tracked = table["track_id"].notna()
    groups = table[tracked].groupby(["source", "track_id"], sort=False).indices.values()
    positions, frames = np.flatnonzero(tracked), table["frame"].to_numpy()
    for indices in groups:
        chosen = positions[indices]
        yield chosen[np.argsort(frames[chosen], kind="stable")]


def with_empty_frames(table: "pd.DataFrame", frames: "pd.DataFrame | None") -> "pd.DataFrame":
    """Return the table with a row, without score, for each frame without a face; sorted by frame within a source.

    Args:
        table: A row per face and frame.
        frames: All frames that were looked at: source, frame and time_s. None: what `all_frames` infers.
    """
    import pandas as pd

    keys = ["source", "frame"]
    frames = (all_frames(table) if frames is None else frames).drop_duplicates(keys)[[*keys, "time_s"]]
    seen = pd.MultiIndex.from_frame(table[keys])
    empty = frames[~pd.MultiIndex.from_frame(frames[keys]).isin(seen)]
    if empty.empty:
        return table
    order = {source: number for number, source in enumerate(pd.unique(pd.concat([frames["source"], table["source"]])))}
    both = pd.concat([table, empty.reindex(columns=table.columns).astype(_nullable(table))], ignore_index=True)
    return (
        both.assign(_order=both["source"].map(order))
        .sort_values(["_order", "frame"], kind="stable")
        .drop(columns="_order")
    )


def _nullable(table: "pd.DataFrame") -> dict[str, object]:
    """Return the types in which rows without a face can stand in a table's columns."""
    return {name: "float64" if kind.kind in "iub" else kind for name, kind in table.dtypes.items() if name != "frame"}


def all_frames(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return source, frame and time_s of the frames that a table's faces were looked for in, as far as it says.

    Args:
        table: Rows without a score are frames without a face. If there are none, frames are added where the numbers of
            a video leave a gap between two faces.
    """
    import pandas as pd

    frames = table[["source", "frame", "time_s"]]
    return frames if table["score"].isna().any() else pd.concat([frames, _frames_between(table)], ignore_index=True)


def _frames_between(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return source, frame and time_s of frames that must lie between those in a video's table, but have no row.

    The usual step of the frame numbers says how many lie in a gap, so that a video of which every third frame was
    looked at gets every third one. Times are interpolated.
    """
    import pandas as pd

    parts = []
    for source, part in table[table["time_s"].notna()].groupby("source", sort=False):
        seen = part.drop_duplicates("frame").sort_values("frame")
        numbers, times = seen["frame"].to_numpy(float), seen["time_s"].to_numpy(float)
        steps = np.diff(numbers)
        usual = float(np.quantile(steps, 0.5, method="lower")) if len(steps) else 1.0
        missing = np.maximum(np.round(steps / usual).astype(int) - 1, 0)
        first = np.repeat(numbers[:-1], missing)
        nth = np.arange(len(first)) - np.repeat(np.cumsum(missing) - missing, missing) + 1
        between = np.round(first + nth * np.repeat(steps / (missing + 1), missing))
        parts.append(pd.DataFrame({"source": source, "frame": between, "time_s": np.interp(between, numbers, times)}))
    if not parts:
        return table[["source", "frame", "time_s"]].iloc[:0]
    return pd.concat(parts, ignore_index=True).astype({"frame": "int64"})
