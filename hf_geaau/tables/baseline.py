"""A person-specific baseline: what each person's resting face looks like is subtracted from the table."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import TableError
from hf_geaau.facs import SIDES
from hf_geaau.tables.rows import action_units, people

if TYPE_CHECKING:
    import pandas as pd

# How much of the resting face is subtracted, and how far below its threshold an action unit then rests, in logits.
# Our choice, on rendered clips of seed 900; `benchmarks/baseline.py` measures it on other people.
SHARE, REST = 0.6, 3.5
_SMALLEST = 1e-6  # probabilities are kept this far from 0 and 1, so that their logits are finite
_FIRST = re.compile(r"first\s+(\d+(?:\.\d+)?)\s*s")


def is_photo(baseline: str) -> bool:
    """Return whether `--baseline` names a neutral photo."""
    return baseline != "median" and _FIRST.fullmatch(baseline) is None


def subtract_baseline(
    table: "pd.DataFrame", thresholds: Mapping[str, float], baseline: "str | pd.DataFrame"
) -> "pd.DataFrame":
    """Return the table as if every person's resting face were alike.

    A logit z becomes z - 0.6 (b - (t - 3.5)), where b is the person's resting level and t the logit of the threshold;
    `AU.._present` is decided anew by the same thresholds. An intensity i becomes i - b, not below 0 and not above 5.
    Either side of a face is treated like its action unit.

    Args:
        table: From `hf-geaau predict`, or `pandas.DataFrame(predict_video(...))`.
        thresholds: Threshold of each action unit, as `read_table` returns them.
        baseline: Where b comes from. "first 2 s": the median over the first two seconds of each track. "median": the
            median over the whole track, for people who rest more than half of the time. A table of one row: a neutral
            photo of the one person in this table.

    Returns:
        A copy. Without a neutral photo, the faces of photos stay as they are.

    Raises:
        TableError: If `baseline` is something else.

    Source:
        Subtracting the median face of a person, and the person's resting level from the intensities: Baltrušaitis,
        Mahmoud and Robinson, "Cross-dataset learning and person-specific normalisation for automatic Action Unit
        detection", FERA 2015, and FaceAnalyser.cpp of OpenFace. In logits, by shares: our choice, see docs/tables.md.

    Example:
        >>> import pandas as pd
        >>> rows = [{"source": "a.mp4", "frame": n, "time_s": n / 10, "track_id": 1, "AU04": p, "AU04_present": 1}
        ...         for n, p in enumerate([0.6, 0.6, 0.6, 0.99])]
        >>> subtract_baseline(pd.DataFrame(rows), {"AU04": 0.5}, "median")["AU04_present"].tolist()
        [0, 0, 0, 1]
    """
    units = [unit for unit in action_units(table) if unit in thresholds]
    halves = {f"{unit}_{side}": unit for unit in units for side in SIDES if f"{unit}_{side}" in table}
    columns = {**dict(zip(units, units, strict=True)), **halves}  # of probabilities, with their action units
    strong = [f"{unit}_intensity" for unit in units if f"{unit}_intensity" in table]
    logits, intensities = _logits(table[list(columns)].to_numpy(float)), table[strong].to_numpy(float)
    rest, rest_intensities = logits.copy(), np.zeros_like(intensities)
    targets = _logits(np.array([thresholds[unit] for unit in columns.values()], float)) - REST
    rest[:] = targets  # changes nothing
    if isinstance(baseline, str):
        is_resting = _resting_rows(baseline)
        times = table["time_s"].to_numpy(float)
        for rows in people(table):
            resting = rows[is_resting(times[rows])]
            rest[rows] = np.median(logits[resting], axis=0)
            rest_intensities[rows] = np.median(intensities[resting], axis=0)
    else:
        if len(baseline) != 1 or not {*columns, *strong} <= set(baseline):
            raise TableError("The neutral photo must have one row with the action units of the table.")
        rest[:] = _logits(baseline[list(columns)].to_numpy(float))
        rest_intensities[:] = baseline[strong].to_numpy(float)
    shifted = 1 / (1 + np.exp(SHARE * (rest - targets) - logits))
    result = table.copy()
    for index, name in enumerate(columns):
        result[name] = shifted[:, index].astype(table[name].dtype)
    for index, unit in enumerate(units):
        result[f"{unit}_present"] = (shifted[:, index] >= thresholds[unit]).astype(table[f"{unit}_present"].dtype)
    for index, name in enumerate(strong):
        result[name] = (intensities - rest_intensities).clip(0, 5)[:, index].astype(table[name].dtype)
    for unit in set(halves.values()):
        result[f"{unit}_asymmetry"] = result[f"{unit}_left"] - result[f"{unit}_right"]
    return result


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = probabilities.clip(_SMALLEST, 1 - _SMALLEST)
    return np.log(kept / (1 - kept))


def _resting_rows(baseline: str) -> Callable[[NDArray[np.float64]], NDArray[np.bool_]]:
    """Return what selects the resting rows of a track by their times."""
    if baseline == "median":
        return lambda times: np.ones(len(times), bool)
    if (found := _FIRST.fullmatch(baseline)) is None:
        raise TableError(f"`baseline` must be 'first 2 s', 'median' or a table of one neutral face, got '{baseline}'.")
    seconds = float(found[1])
    return lambda times: times - times[0] <= seconds
