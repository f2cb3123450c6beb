"""Markdown pages: a report beside the rows of the literature, and the evidence on a checkpoint."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from hf_geaau.metrics import SCORES, format_cell, markdown_table, score_rows, score_table, triplet_table
from hf_geaau.metrics.scores import plain_markdown

from .figures import WEAKEST
from .groups import BINS, LEAST, POINT_NOISE, RESAMPLES

REPORT_SCORES = ("f1", "precision", "recall", "auc", "base_rate", "always_on_f1", "icc", "mae")
SHOWN_TRAITS = (
    "skin tone, typology angle", "drawn age, years", "sex-typed looks", "head turned, degrees", "head nodded, degrees",
    "light", "occluder", "glasses", "face, pixels",
)  # fmt: skip
"""Traits whose groups the page lists; the others are in evidence.json."""
MOST_FACES = 30  # faces of photos whose predictions the page lists
TITLES = {"test": "rendered people not seen in training", "unseen": "the same with renderer settings not seen either"}
_CAUTION = (
    "Differences under about one point are not evidence: papers differ in alignment, dropped frames and choice of the"
    " epoch, and repeated subject-exclusive splits of one method differ by more than that. Published rows are quoted as"
    " printed in the named source; none was reproduced here."
)


@cache
def published() -> dict[str, Any]:
    """Load the published rows: "sources" by key, and "datasets": "folds", "action_units" and "rows" of each."""
    return yaml.safe_load(resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8"))


def results_page(report: Mapping[str, Any]) -> str:
    """Return a report, or the report of several folds, as a Markdown page.

    For a licensed dataset the page shows the published F1 by AU, too.

    Args:
        report: From `evaluate`, `evaluate_folds`, or {"reports": {name: report}}, the content of evaluation.json.
    """
    if "reports" in report:
        return "\n".join(results_page({"title": name, **entry}) for name, entry in report["reports"].items())
    folds = report.get("folds")
    reports = list(folds.values()) if folds else [report]
    lines = _head(reports, folds)
    if "action_units" in reports[0]:
        scores = report["mean_of_folds"] if folds else report
        lines += ["## Scores", "", score_table(score_rows(scores), REPORT_SCORES).to_markdown()]
        if folds:
            means = [f"fold {fold} {format_cell(part['mean']['f1'])}" for fold, part in folds.items()]
            spread, pooled = (format_cell(entry["f1"]) for entry in (scores["spread"], report["pooled"]["mean"]))
            lines += [
                "",
                f"Mean F1: {', '.join(means)}; standard deviation between folds {spread}. With the frames of all folds"
                f" pooled it is {pooled}; the literature prints the mean of folds.",
            ]
        lines += _published_lines(reports, scores)
        notes = dict.fromkeys(note for part in reports for note in part.get("notes", []))
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)] if notes else []
    else:
        lines += ["## Scores", "", triplet_table(report).to_markdown()]
    return "\n".join([*lines, ""])


def _head(reports: list[Mapping[str, Any]], folds: Mapping[str, Any] | None) -> list[str]:
    first = reports[0]
    fold = first.get("fold")
    what = f"mean of folds {', '.join(folds)}" if folds else f"fold {fold}" if fold else "all subjects"
    numbering = f"folds numbered as in {first['protocol']}, " if fold else ""
    lines = [f"# {first['title']}: {what}", ""]
    lines += [f"- Protocol: subject-exclusive, {numbering}split '{first.get('split', 'all')}'"]
    if "frames" not in first:
        return [*lines, f"- {first['triplets']:,} triplets", ""]
    threshold, *others = {unit["threshold"] for report in reports for unit in report["action_units"].values()}
    shown = "one for each AU, chosen by calibration or training" if others else f"{threshold:g} for all AUs"
    frames, subjects = (sum(report[key] for report in reports) for key in ("frames", "subjects"))
    shared = [report.get("identities_shared_with_training") for report in reports]
    known = [count for count in shared if count is not None]
    return [
        *lines,
        f"- Frames: {frames:,} of {subjects} subjects, counts pooled over a fold",
        f"- Threshold: {shown} (the literature's is 0.5)",
        f"- Tested subjects that the model was trained on: {sum(known) if len(known) == len(shared) else 'not known'}",
        "",
    ]


def _published_lines(reports: list[Mapping[str, Any]], scores: Mapping[str, Any]) -> list[str]:
    first = reports[0]
    known = published()["datasets"].get(first.get("dataset")) if first.get("is_licensed") else None
    if not known:
        return []
    names, folds = [f"AU{unit:02d}" for unit in known["action_units"]], known["folds"]
    units = {name: entry["f1"] for name, entry in {**scores["action_units"], "mean": scores["mean"]}.items()}
    f1 = {name: f"{100 * value:.1f}" for name, value in units.items() if value is not None}
    mean = f1.get("mean", "–") if units.keys() == {*names, "mean"} else "other AUs"
    intro = f"F1 in %, {len(names)} AUs, threshold 0.5, mean of {folds} folds; sorted by the printed mean."
    lines = ["", "## Beside published numbers", "", f"{intro} {_CAUTION}", ""]
    if len(reports) != folds:
        lines += [f"**Ours is of {len(reports)} of the {folds} folds, and folds differ by several points.**", ""]
    rows = [["**ours**", *(f1.get(name, "–") for name in names), mean, "this page"]]
    sources, caveats = [], []
    for method, values, printed, source, *caveat in sorted(known["rows"], key=lambda row: -row[2]):
        sources.append(source)
        caveats += [f"{method}: {text}" for text in caveat[:1]]
        mark = f" [{len(caveats)}]" if caveat else ""
        rows.append([f"{method}{mark}", *(f"{value:.1f}" for value in values), f"{printed:.1f}", source])
    header = ["method", *names, "mean", "source"]
    lines.append(markdown_table(header, rows, "l" + "r" * (len(names) + 1) + "l"))
    texts = published()["sources"]
    lines += ["", "Sources: " + "; ".join(f"{key}: {texts[key]}" for key in dict.fromkeys(sources)) + "."]
    return [*lines, *(f"\n[{number}] {text}." for number, text in enumerate(caveats, 1))]


def evidence_page(evidence: Mapping[str, Any]) -> str:
    """Return the content of evidence.json as Markdown, with headings of level 3."""
    parts = ["Measured by `hf-geaau evidence`."]
    rendered, photos = evidence["rendered"], evidence.get("photos")
    if rendered:
        changes, errors = [], []
        for name, entry in rendered.items():
            mirrored, moved = (entry["steadiness"][kind]["mean"] for kind in ("mirrored", "point_noise"))
            count = f"{entry['steadiness']['faces']:,} faces"
            changes.append(f"{name}: {mirrored:.3f} mirrored, {moved:.3f} with noise on the points ({count})")
            errors.append(f"{name} {entry['mean']['expected_calibration_error']:.3f}")
        parts += [
            "### Rendered faces, by action unit",
            _unit_table(rendered),
            f"Mean absolute change of a probability: {'; '.join(changes)}.",
            "### Calibration",
            f"Expected calibration error (15 bins), mean over action units: {', '.join(errors)}. The curves have {BINS}"
            " bins.",
            "![Share of faces that show an action unit, by predicted probability](calibration.png)",
            "### Groups of rendered faces",
            *(_group_tables(name, entry) for name, entry in rendered.items()),
            "### Known failures",
            f"On {name}, the {WEAKEST} action units of the lowest AUC, a row each: the faces in which the unit is"
            " missed at the lowest probability p (left), and those in which it is falsely predicted at the highest"
            " (right), with the true intensity behind p; no person twice on a side. Left of each row, how often that"
            " happens.",
            "![Faces whose weak action units are missed or wrongly seen](failures.jpg)",
        ]
    if photos:
        parts += ["### Photos", _photo_text(photos)]
    compared = {name: entry["mediapipe"] for name, entry in rendered.items() if "mediapipe" in entry}
    if photos and "mediapipe" in photos:
        compared["photos"] = photos["mediapipe"]
    if compared:
        parts += ["### Beside MediaPipe's blendshapes", *(comparison_text(*item) for item in compared.items())]
    return "\n\n".join(part for part in parts if part) + "\n"


def _unit_table(rendered: Mapping[str, Any]) -> str:
    """Return the scores of each AU, with one block of columns for each set."""
    keys = ("f1", "auc", "icc", "mae", "expected_calibration_error")
    titles = [*(SCORES[key].title for key in keys), "neutral alarms", "mirrored", "points"]
    header = ["AU"]
    rows: dict[str, list[Any]] = {}
    for name, entry in rendered.items():
        header += [f"{title}, {name}" for title in titles]
        steady, alarms = entry["steadiness"], entry["false_alarms"] or {}
        for label, scores in score_rows(entry).items():
            further = [alarms.get(label), steady["mirrored"].get(label), steady["point_noise"].get(label)]
            rows.setdefault(label, [label]).extend([*map(scores.get, keys), *further])
    sets = "; ".join(
        f"{name}: {TITLES.get(name, name)}, {entry['frames']:,} faces of {entry['subjects']:,} people"
        for name, entry in rendered.items()
    )
    return (
        f'{sets}. ICC(3,1) and MAE (in steps of the scale 0-5) are of the intensity. "Neutral alarms": share of faces'
        ' without any action unit, at intensity A or more, in which this one is predicted; "mirrored": mean absolute'
        ' change of the probability between a face and its mirror image; "points": the same when each of the five'
        f" points is off by {POINT_NOISE:.0%} of the distance between the eyes."
        f"\n\n{markdown_table(header, rows.values(), undefined='')}"
    )


def _group_tables(name: str, entry: Mapping[str, Any]) -> str:
    """Return the widest gap of each trait, and all groups of the traits that matter most."""
    if not entry["groups"]:
        return f"{name}: the renderer recorded nothing to group by."
    gaps, text = entry["gaps"], f"{name}: no two groups of a kind have {LEAST} faces."
    if gaps:
        widest = gaps[0]
        text = (
            f'**Largest gap on {name}**: {widest["trait"]}, mean AUC {widest["auc"]:.3f} for "{widest["worst"]}"'
            f' against {widest["best_auc"]:.3f} for "{widest["best"]}", a gap of'
            f" {widest['gap']:.3f} ± {widest['error']:.3f}. The table shows each trait's widest gap, among groups of at"
            f" least {LEAST} faces, with its standard error (bootstrap over people, {RESAMPLES} draws). The worst and"
            " the best of several groups differ by chance, too: a gap below two or three errors shows nothing.\n\n"
        )
        kept = ("trait", "worst", "auc", "best", "best_auc", "gap", "error")
        header = [f"trait, {name}", "worst", "AUC", "best", "AUC", "gap", "±"]
        text += markdown_table(header, [[gap[key] for key in kept] for gap in gaps], undefined="")
    rows = []
    for title in filter(SHOWN_TRAITS.__contains__, entry["groups"]):
        for group, scores in entry["groups"][title].items():
            shown = [scores["f1"], scores["auc"]] if scores["faces"] >= LEAST else [None, None]  # else chance
            rows.append([f"{title}: {group}", scores["faces"], *shown])
    return f"{text}\n\n{markdown_table([f'group, {name}', 'faces', 'F1', 'AUC'], rows, undefined='')}" if rows else text


def _photo_text(photos: Mapping[str, Any]) -> str:
    text = (
        f"The detector finds {photos['found']} of {photos['faces']} faces. Labels are by eye, of clear cases, by"
        " whoever labeled these photos: no benchmark, and no claim of accuracy beyond these faces. If renderer and"
        " recipe were changed after looking at these photos, the scores are optimistic."
    )
    if photos["problems"]:
        text += f" {len(photos['problems'])} photos could not be read."
    if not photos["found"]:
        return text
    alarms = photos["false_alarms"] or {}
    rows = [[name, *counts, photos["auc"][name], alarms.get(name)] for name, counts in photos["labelled"].items()]
    rows.append(["mean", "", "", photos["auc"]["mean"], alarms.get("mean")])
    sources = sorted({plain_markdown(row["source"]) for row in photos["predictions"] if row["source"]})
    text += (
        f" Neutral faces: {photos['neutral_faces']}; the last column is the share in which the unit is predicted, of"
        " those where it is labeled as absent. The points differ from the labeled ones by"
        f" {photos['median_point_error']:.1%} of the distance between the eyes, in the median. Photos from:"
        f" {', '.join(sources) or 'not named'}."
    )
    table = markdown_table(["AU", "present", "absent", "AUC", "neutral alarms"], rows, undefined="")
    faces = []
    for number, face in enumerate(photos["predictions"][:MOST_FACES], 1):
        present, known = face["present"], face["probabilities"]
        wrong = [name for name, value in face["labels"].items() if name in known and value != (name in present)]
        faces.append([f"{number}, {plain_markdown(face['file'])}", " ".join(present), " ".join(wrong)])
    count = len(photos["predictions"])
    more = f" The others are in evidence.json ({count} faces)." if count > MOST_FACES else ""
    details = markdown_table(["face", "predicted", "labeled otherwise"], faces)
    return f"{text}\n\n{table}\n\nPredictions, by face.{more}\n\n{details}"


def comparison_text(name: str, entry: Mapping[str, Any]) -> str:
    """Return the comparison with MediaPipe on one set, measured by benchmarks/mediapipe_blendshapes.py."""
    if not entry["found"]:
        return f"{name}: MediaPipe finds none of {entry['faces']} faces."
    rows = [[label, value, entry["mediapipe"][label]] for label, value in entry["ours"].items() if value is not None]
    return (
        f"{name}: AUC on the {entry['found']:,} of {entry['faces']:,} faces that MediaPipe finds; the mean is over the"
        " action units that both have. A blendshape is no action unit: which one stands for which is our choice, and"
        " where there are several, the best on these faces counts."
        f"\n\n{markdown_table(['AU', 'ours', 'MediaPipe'], rows, undefined='')}"
    )
