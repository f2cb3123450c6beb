"""A Markdown page that sets a report beside the rows of the literature."""

from functools import cache
from importlib import resources
from typing import Any

import yaml

_CAUTION = (
    "Differences under about one point are not evidence: papers differ in alignment, dropped frames and choice of the"
    " epoch, and repeated subject-exclusive splits of one method differ by more than that. Published rows are quoted as"
    " printed in the named source; none was reproduced here."
)


@cache
def published() -> dict[str, Any]:
    """Read the published rows: "sources" by key, and "datasets": "folds", "action_units" and "rows" of each."""
    return yaml.safe_load(resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8"))


def results_page(report: dict[str, Any]) -> str:
    """Write a report, or the report of several folds, as a Markdown page.

    Of a licensed dataset the published F1 by AU stands beside ours.

    Args:
        report: What `evaluate` or `evaluate_folds` gives.

    Returns:
        The page.
    """
    folds = report.get("folds")
    first = next(iter(folds.values())) if folds else report
    if "action_units" not in first:
        return "\n".join([*_head(first, folds), *_triplet_table(report), ""])
    ours = report["mean_of_folds"] if folds else report
    lines = [*_head(first, folds), *_own_table(report, ours)]
    known = published()["datasets"].get(first["dataset"]) if first["is_licensed"] else None
    if known:
        lines += _published_table(first, ours, known, folds)
    notes = [note for part in (folds or {"": report}).values() for note in part.get("notes", [])]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in dict.fromkeys(notes))]
    return "\n".join([*lines, ""])


def _head(first: dict[str, Any], folds: dict[str, Any] | None) -> list[str]:
    what = (
        f"mean of folds {', '.join(folds)}" if folds else f"fold {first['fold']}" if first["fold"] else "all subjects"
    )
    reports = list(folds.values()) if folds else [first]
    lines = [f"# {first['title']}: {what}", ""]
    numbering = f"folds numbered as in {first['protocol']}, " if first["fold"] else ""
    lines += [f"- Protocol: subject-exclusive, {numbering}split '{first['split']}'"]
    if "frames" not in first:
        return [*lines, f"- {first['triplets']:,} triplets", ""]
    limits = {unit["threshold"] for report in reports for unit in report["action_units"].values()}
    shown = (
        f"{limits.pop():g} for all AUs" if len(limits) == 1 else "one for each AU, chosen by calibration or training"
    )
    subjects = sum(report["subjects"] for report in reports)
    lines += [
        f"- Frames: {sum(report['frames'] for report in reports):,} of {subjects} subjects, counts pooled over a fold"
    ]
    lines += [f"- Threshold: {shown} (the literature's is 0.5)"]
    shared = [report["identities_shared_with_training"] for report in reports]
    unknown = "not known" if None in shared else str(sum(shared))
    return [*lines, f"- Tested subjects that the model was trained on: {unknown}", ""]


def _own_table(report: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    columns = [
        ("F1", "f1"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("AUC", "auc"),
        ("base rate", "base_rate"),
    ]
    columns += [("always-on F1", "always_on_f1")]
    strength = ours.get("intensity")
    more = [("ICC", "icc"), ("MAE", "mae")] if strength else []
    lines = ["## Scores", "", f"| AU | {' | '.join(title for title, _ in columns + more)} |"]
    lines += [f"|---|{'--:|' * len(columns + more)}"]
    entries = {**ours["action_units"], "mean": ours["mean"]}
    for name, entry in entries.items():
        cells = [_cell(entry[key]) for _, key in columns]
        cells += [_cell(strength[name][key]) for _, key in more] if strength else []
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if "folds" in report:
        spread, pooled = ours["spread"]["f1"], report["pooled"]["mean"]["f1"]
        means = ", ".join(f"fold {fold} {_cell(part['mean']['f1'])}" for fold, part in report["folds"].items())
        lines += [
            "",
            f"Mean F1: {means}; standard deviation between folds {_cell(spread)}. With the frames of all folds",
        ]
        lines += [f"pooled it is {_cell(pooled)}; the literature prints the mean of folds."]
    return lines


def _published_table(
    first: dict[str, Any], ours: dict[str, Any], known: dict[str, Any], folds: dict[str, Any] | None
) -> list[str]:
    names = [f"AU{unit:02d}" for unit in known["action_units"]]
    scores = {name: entry["f1"] for name, entry in ours["action_units"].items()}
    is_same = set(scores) == set(names)
    mean = _percent(ours["mean"]["f1"]) if is_same else "other AUs"
    number, theirs = len(folds or [first]), known["folds"]
    intro = f"F1 in %, {len(names)} AUs, threshold 0.5, mean of {theirs} folds; sorted by the printed mean."
    lines = ["", "## Beside published numbers", "", f"{intro} {_CAUTION}", ""]
    if number != theirs:
        lines += [f"**Ours is of {number} of the {theirs} folds, and folds differ by several points.**", ""]
    lines += [f"| method | {' | '.join(names)} | mean | source |", f"|---|{'--:|' * (len(names) + 1)}---|"]
    own = [_percent(scores.get(name)) for name in names]
    lines += [f"| **ours** | {' | '.join(own)} | {mean} | this page |"]
    used, caveats = [], []
    for method, values, printed, source, *caveat in sorted(known["rows"], key=lambda row: -row[2]):
        used.append(source)
        mark = ""
        if caveat:
            caveats.append(f"{method}: {caveat[0]}")
            mark = f" [{len(caveats)}]"
        cells = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {method}{mark} | {cells} | {printed:.1f} | {source} |")
    sources = published()["sources"]
    lines += ["", "Sources: " + "; ".join(f"{key}: {sources[key]}" for key in dict.fromkeys(used)) + "."]
    lines += [f"\n[{number}] {text}." for number, text in enumerate(caveats, 1)]
    return lines


def _triplet_table(report: dict[str, Any]) -> list[str]:
    lines = ["## Scores", "", "| triplets | number | both sides (chance 0.333) | from the anchor (chance 0.5) |"]
    lines += ["|---|--:|--:|--:|"]
    for name, entry in {"all": report, **report["types"]}.items():
        shown = _cell(entry["accuracy"]), _cell(entry["anchor_accuracy"])
        lines.append(f"| {name.replace('_', '-')} | {entry['triplets']} | {shown[0]} | {shown[1]} |")
    return lines


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
