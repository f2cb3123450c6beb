"""What is asked of a table: who speaks, how often and how long an action unit is shown, and what happened then."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import TableError
from hf_geaau.facs import ACTION_UNITS
from hf_geaau.tables.rows import GAP, action_units

if TYPE_CHECKING:
    import pandas as pd

MAIN_SPEAKERS = ("largest", "longest")
TOLERANCE_S = 0.02  # half a frame at 25 frames per second
_LABELS = ("label", "event", "trial_type", "annotation", "value")  # trial_type: BIDS
_ONSETS = ("onset", "start", "begin", "time", "begin time - ss.msec")  # the last: an export of ELAN
_OFFSETS, _DURATIONS = ("offset", "end", "end time - ss.msec"), ("duration", "duration - ss.msec")


def main_speaker(table: "pd.DataFrame", which: str = "longest") -> "pd.DataFrame":
    """Return the rows of one face per frame; of a photo, the largest face.

    Args:
        table: From `hf-geaau predict`, or `pandas.DataFrame(predict_video(...))`.
        which: "longest": the track with most rows of each video; after a cut, tracks are new. "largest": the largest
            box of each frame, whoever it is.

    Raises:
        TableError: If `which` is something else.
    """
    if which not in MAIN_SPEAKERS:
        raise TableError(f"`which` must be one of {', '.join(MAIN_SPEAKERS)}, got '{which}'.")
    if which == "longest":
        sizes = table.groupby(["source", "track_id"]).size().reset_index(name="rows")
        best = sizes.sort_values(["rows", "track_id"], ascending=[False, True]).drop_duplicates("source")
        longest = table["source"].map(best.set_index("source")["track_id"])
        table = table[table["track_id"].isna() | (table["track_id"] == longest).fillna(False).astype(bool)]
    area = (table["xmax"] - table["xmin"]) * (table["ymax"] - table["ymin"])
    order = table.assign(_area=area).sort_values("_area", ascending=False, kind="stable")
    return table.loc[order.drop_duplicates(["source", "frame"]).index.sort_values()]


def summarize(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row per clip, person and action unit: how often, how strongly and how long it is shown.

    A run is a time in which an action unit is present in all rows. It ends, too, where the face is not seen for more
    than 2.5 usual steps. A row counts until the next one, so that variable frame rates are weighted by true time.

    Args:
        table: From `hf-geaau predict`, or `pandas.DataFrame(predict_video(...))`.

    Returns:
        source, track_id (empty for photos), AU, name, frames (rows of this person), seconds (in which the face is
        seen), rate (share of rows in which the action unit is present), mean (probability), mean_intensity (while
        present; empty if never, or not estimated), mean_asymmetry (of left - right while present; empty if never, or
        without sides), onsets (number of runs), mean_duration_s and longest_s (of the
        runs). What concerns time is empty for photos.
    """
    import pandas as pd

    units = action_units(table)
    names = [ACTION_UNITS[int(unit[2:])].name for unit in units]
    parts = []
    for (source, track), part in table.groupby(["source", "track_id"], dropna=False, sort=False):
        part = part.sort_values("frame", kind="stable")
        present = part[[f"{unit}_present" for unit in units]].to_numpy() == 1
        values = {
            "source": source,
            "track_id": track,
            "AU": units,
            "name": names,
            "frames": len(part),
            "seconds": np.nan,
            "rate": present.mean(0),
            "mean": part[units].to_numpy(float).mean(0),
            "mean_intensity": _mean_while_present(part, units, "intensity", present),
            "mean_asymmetry": _mean_while_present(part, units, "asymmetry", present),
            **dict.fromkeys(_TIMED, np.nan),
        }
        if pd.notna(track):
            values |= _durations(part["time_s"].to_numpy(float), present)
        parts.append(pd.DataFrame(values))
    if not parts:
        return pd.DataFrame(columns=["source", "track_id", "AU", "name", "frames", *_MEASURES])
    return (
        pd.concat(parts, ignore_index=True)
        .round(dict.fromkeys(_MEASURES, 4))
        .astype({"track_id": "Int64", "onsets": "Int64"})
    )


_TIMED = ("onsets", "mean_duration_s", "longest_s")
_MEASURES = ("seconds", "rate", "mean", "mean_intensity", "mean_asymmetry", *_TIMED)


def _mean_while_present(
    part: "pd.DataFrame", units: Sequence[str], column: str, present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the mean of a column of each action unit over the rows in which it is present."""
    means = np.full(len(units), np.nan)
    for index, unit in enumerate(units):
        if f"{unit}_{column}" in part and present[:, index].any():
            means[index] = part[f"{unit}_{column}"].to_numpy(float)[present[:, index]].mean()
    return means


def _durations(times: NDArray[np.float64], present: NDArray[np.bool_]) -> dict[str, Any]:
    """Return how long a person is seen, and number, mean and longest of each action unit's runs, from (T, N) rows."""
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    is_gap = steps > GAP * usual
    spans = np.append(np.where(is_gap, usual, steps), usual)
    before = np.vstack([np.zeros_like(present[:1]), present[:-1] & ~is_gap[:, None]])
    runs = (present & ~before).cumsum(axis=0)
    measures = np.full((3, present.shape[1]), np.nan)
    for index, shown in enumerate(present.T):
        lengths = np.bincount(runs[shown, index], weights=spans[shown])[1:]
        measures[0, index] = len(lengths)
        if len(lengths):
            measures[1:, index] = lengths.mean(), lengths.max()
    return {"seconds": spans.sum(), **dict(zip(_TIMED, measures, strict=True))}


def join_events(table: "pd.DataFrame", events: "pd.DataFrame", tolerance_s: float = TOLERANCE_S) -> "pd.DataFrame":
    """Return the table with the event of each row's time: stimuli, annotations of ELAN, button presses.

    Args:
        table: From `hf-geaau predict`, or `pandas.DataFrame(predict_video(...))`.
        events: A row per event, in seconds of the video's clock: `onset` (or start, begin, time), `offset` (or end) or
            `duration`, none of them for a moment, and `label` (or event, trial_type, annotation, value). A column
            `source` limits an event to one video.
        tolerance_s: Seconds before and after an event that belong to it; by default half a frame at 25 frames per
            second.

    Returns:
        A copy with the columns `event` (empty outside of all events), `event_onset` and `event_offset` in seconds, and
        `event_` before the name of every other column of `events`. In events that overlap, the one that began last
        counts.

    Raises:
        TableError: If an event has no number as its onset or offset, or there are no labels.
    """
    import pandas as pd

    known = _events(events).sort_values("onset", kind="stable")
    times, sources = table["time_s"].to_numpy(float), table["source"].to_numpy()
    order = np.argsort(times, kind="stable")  # photos, which have no time, come last
    chosen = np.full(len(table), -1)
    starts = np.searchsorted(times[order], known["onset"] - tolerance_s, "left")
    ends = np.searchsorted(times[order], known["offset"] + tolerance_s, "right")
    only = known["source"] if "source" in known else pd.Series(None, index=known.index, dtype=object)
    for number, (start, end, source) in enumerate(zip(starts, ends, only, strict=True)):
        rows = order[start:end]
        chosen[rows if pd.isna(source) else rows[sources[rows] == source]] = number
    known = known.drop(columns="source", errors="ignore").rename(columns=lambda name: f"event_{name}")
    found = known.rename(columns={"event_label": "event"}).reset_index(drop=True).reindex(chosen)
    return pd.concat([table, found.set_axis(table.index)], axis=1)


def _events(events: "pd.DataFrame") -> "pd.DataFrame":
    """Return events with the columns label, onset and offset, under whatever of the known names they came."""
    from pandas.api.types import is_numeric_dtype

    named = {str(name).strip().lower(): name for name in events.columns}

    def find(names: Sequence[str]) -> Any:
        return next((named[name] for name in names if name in named), None)

    label, onset, offset, duration = find(_LABELS), find(_ONSETS), find(_OFFSETS), find(_DURATIONS)
    if label is None or onset is None:
        raise TableError(
            f"The events lack a column '{'label' if label is None else 'onset'}'. They need label, onset and, unless"
            " they are moments, offset or duration."
        )
    seconds = events[[name for name in (onset, offset, duration) if name is not None]]
    if not all(is_numeric_dtype(kind) for kind in seconds.dtypes) or events[onset].isna().any():
        raise TableError("The events' onsets, offsets and durations must be numbers, in seconds.")
    result = events.rename(columns={label: "label", onset: "onset", **({} if offset is None else {offset: "offset"})})
    if offset is None:
        result["offset"] = result["onset"] + (0 if duration is None else result[duration].fillna(0))
    result["offset"] = result["offset"].fillna(result["onset"])
    return result
