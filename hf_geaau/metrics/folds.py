"""Combine the reports of several folds, in the two ways that the literature mixes up.

With unbalanced folds such as DISFA's the two differ by points: state which one you report.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hf_geaau.errors import MetricError

from ._checks import plain_number
from .occurrence import f1_of_counts
from .scores import SCORES


def mean_of_folds(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Average the scores of folds: the number that papers print.

    Args:
        reports: Results of `hf_geaau.evaluation.evaluate`, one for each fold.

    Returns:
        "action_units": by AU the mean over folds of each score; "mean": the mean over folds of each fold's mean over
        AUs; "spread": their standard deviation between folds (n - 1; None for one fold). A score that a
        fold does not have, such as the AUC of an AU that never occurs there, is left out of the AU's mean.
        With intensities also "intensity", and likewise "sides" and "visibility", by AU and "mean".

    Raises:
        MetricError: If there is no report, or they are of different AUs.

    Source:
        ZhiwenShao/PyTorch-JAANet (issues 15 and 22); ME-GraphAU's folds are averaged by hand.

    Example:
        >>> folds = [{"action_units": {"AU12": {"f1": f1}}, "mean": {"f1": f1}} for f1 in (0.5, 0.75)]
        >>> mean_of_folds(folds)["mean"]["f1"]
        0.625
    """
    names = _same_units(reports)
    overall = [report["mean"] for report in reports]
    result: dict[str, Any] = {
        "action_units": {name: _over([report["action_units"][name] for report in reports]) for name in names},
        "mean": _over(overall),
        "spread": _over(overall, lambda values: np.std(values, ddof=1) if len(values) > 1 else np.nan),
    }
    for kind in ("intensity", "sides", "visibility"):
        parts = [report[kind] for report in reports if kind in report]
        if len(parts) == len(reports):
            entries = [entry for entry in parts[0] if all(entry in part for part in parts)]
            result[kind] = {entry: _over([part[entry] for part in parts]) for entry in entries}
    return result


def pooled_folds(reports: Sequence[dict[str, Any]], zero_division: float = 0.0) -> dict[str, Any]:
    """Score the frames of all folds together, as if they were one test set: add up the counts, then score.

    Args:
        reports: As for `mean_of_folds`.
        zero_division: As for `au_f1`.

    Returns:
        "action_units" and "mean" as in a report, without the AUC: the models of different folds score on different
        scales, so their frames cannot be ranked together.

    Raises:
        MetricError: As `mean_of_folds`.
    """
    names = _same_units(reports)
    totals = {
        key: np.array([sum(report["action_units"][name][key] for report in reports) for name in names])
        for key in ("labelled", "positives", "predicted", "true_positives")
    }
    scores = f1_of_counts(**totals, zero_division=zero_division)
    wrong = totals["positives"] + totals["predicted"] - 2 * totals["true_positives"]
    labelled = totals["labelled"]
    scores["accuracy"] = np.divide(labelled - wrong, labelled, out=np.full(len(names), np.nan), where=labelled > 0)
    scores["mean"]["accuracy"] = np.nanmean(scores["accuracy"]) if labelled.any() else None
    return by_unit(names, [scores])


def _same_units(reports: Sequence[dict[str, Any]]) -> list[str]:
    if not reports or any("action_units" not in report for report in reports):
        raise MetricError(
            f"`reports` must hold at least one report, each with 'action_units', got {len(reports)} reports."
        )
    names = list(reports[0]["action_units"])
    for report in reports[1:]:
        if list(report["action_units"]) != names:
            raise MetricError(
                f"`reports` must be of the same AUs, got {', '.join(names)} and {', '.join(report['action_units'])}."
            )
    return names


def _over(entries: list[dict[str, Any]], measure: Callable[[list[float]], Any] = np.mean) -> dict[str, Any]:
    """Combine each rate over the folds that have it; means of counts and thresholds are of no use."""
    result = {}
    for key in (key for key in SCORES if key != "threshold" and key in entries[0]):
        known = [entry[key] for entry in entries if entry.get(key) is not None]
        result[key] = plain_number(measure(known)) if known else None
    return result


def by_unit(names: Sequence[str], parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Turn scores of all AUs into entries by AU, and their mean."""
    scores = {key: values for part in parts for key, values in part.items() if key != "mean"}
    means = {key: value for part in parts for key, value in part["mean"].items()}
    units = {
        name: {key: plain_number(values[index]) for key, values in scores.items()} for index, name in enumerate(names)
    }
    return {"action_units": units, "mean": {key: plain_number(value) for key, value in means.items()}}
