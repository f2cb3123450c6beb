"""The evidence as a Markdown page, which a card carries, with two pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau import facs
from hf_geaau.files import whole_file
from hf_geaau.metrics import au_auc
from hf_geaau.plots import COLOURS

from .rendered import BINS, LEAST, POINT_NOISE, RESAMPLES, RenderedSet

SHOWN = (
    "skin tone, typology angle", "drawn age, years", "sex-typed looks", "head turned, degrees", "head nodded, degrees",
    "light", "occluder", "glasses", "face, pixels",
)  # fmt: skip
"""Traits whose groups the page lists; those of the others are in evidence.json."""
MOST_FACES = 30  # of photos, whose predictions the page lists
WEAKEST, WORST = 6, 3  # action units whose failures are drawn, and how many of either kind
TITLES = {
    "test": "rendered people it has not seen",
    "unseen": "the same under settings of the renderer it has not seen",
}


def evidence_page(evidence: dict[str, Any]) -> str:
    """Write the page; its headings are of level 3."""
    parts = ["Measured by `hf-geaau evidence`."]
    rendered, photos = evidence["rendered"], evidence.get("photos")
    if rendered:
        parts += ["### Rendered faces, by action unit", _unit_table(rendered), _steady_text(rendered)]
        parts += ["### Calibration", _calibration_text(rendered)]
        parts += ["### Groups of rendered faces", *(_group_tables(name, entry) for name, entry in rendered.items())]
        parts += ["### Known failures", _failure_text(list(rendered)[-1])]
    if photos:
        parts += ["### Photos", _photo_text(photos)]
    compared = {name: entry["mediapipe"] for name, entry in rendered.items() if "mediapipe" in entry}
    if photos and "mediapipe" in photos:
        compared["photos"] = photos["mediapipe"]
    if compared:
        parts += ["### Beside MediaPipe's blendshapes", *(_comparison(name, entry) for name, entry in compared.items())]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: list[str], rows: dict[str, list[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_cell, [name, *cells]))} |" for name, cells in rows.items())])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _unit_table(rendered: dict[str, Any]) -> str:
    """Scores of each AU, one block of columns for each set."""
    columns = {"f1": "F1", "auc": "AUC", "icc": "ICC", "mae": "MAE", "expected_calibration_error": "ECE"}
    head = ["AU"]
    rows: dict[str, list[Any]] = {}
    for name, entry in rendered.items():
        head += [f"{title}, {name}" for title in columns.values()]
        head += [f"{title}, {name}" for title in ("neutral alarms", "mirrored", "points")]
        strength = entry.get("intensity") or {}
        steady, alarms = entry["steadiness"], entry["false_alarms"] or {}
        for label, scores in {**entry["action_units"], "mean": entry["mean"]}.items():
            cells = {**scores, **strength.get(label, {})}
            rows.setdefault(label, []).extend(
                [
                    *(cells.get(key) for key in columns),
                    alarms.get(label),
                    *(steady[kind].get(label) for kind in ("mirrored", "point_noise")),
                ]
            )
    sets = "; ".join(
        f"{name}: {TITLES.get(name, name)}, {entry['frames']:,} faces of {entry['subjects']:,} people"
        for name, entry in rendered.items()
    )
    return (
        f'{sets}. ICC(3,1) and MAE (in steps of the scale 0-5) are of the intensity. "Neutral alarms": share of faces'
        ' without any action unit, at intensity A or more, in which this one is seen; "mirrored": mean absolute'
        ' change of the probability between a face and its mirror image; "points": the same when each of the five'
        f" points is off by {POINT_NOISE:.0%} of the distance between the eyes.\n\n{_table(head, rows)}"
    )


def _steady_text(rendered: dict[str, Any]) -> str:
    texts = []
    for name, entry in rendered.items():
        mirrored, moved = (entry["steadiness"][kind]["mean"] for kind in ("mirrored", "point_noise"))
        count = f"{entry['steadiness']['faces']:,} faces"
        texts.append(f"{name}: {mirrored:.3f} mirrored, {moved:.3f} with noise on the points ({count})")
    return f"Mean absolute change of a probability: {'; '.join(texts)}."


def _calibration_text(rendered: dict[str, Any]) -> str:
    errors = [f"{name} {entry['mean']['expected_calibration_error']:.3f}" for name, entry in rendered.items()]
    return (
        f"Expected calibration error (15 bins), mean over action units: {', '.join(errors)}. The curves have"
        f" {BINS} bins.\n\n"
        "![Share of faces that show an action unit, by predicted probability](calibration.png)"
    )


def _group_tables(name: str, entry: dict[str, Any]) -> str:
    """Name the largest gap; then those of all traits, and every group of the traits that matter most."""
    if not entry["groups"]:
        return f"{name}: the renderer noted nothing to group by."
    gaps, text = entry["gaps"], f"{name}: no two groups of a kind have {LEAST} faces."
    if gaps:
        widest = gaps[0]
        text = (
            f'**Largest gap on {name}**: {widest["trait"]}, mean AUC {widest["auc"]:.3f} for "{widest["worst"]}"'
            f' against {widest["best_auc"]:.3f} for "{widest["best"]}", a gap of'
            f" {widest['gap']:.3f} ± {widest['error']:.3f}. Each trait's widest gap, among groups of at"
            f" least {LEAST} faces, with its standard error (bootstrap over people, {RESAMPLES} draws). The worst and"
            " the best of several groups differ by chance, too: less than two or three errors tell nothing.\n\n"
        )
        kept = ("worst", "auc", "best", "best_auc", "gap", "error")
        rows = {gap["trait"]: [gap[key] for key in kept] for gap in gaps}
        text += _table([f"trait, {name}", "worst", "AUC", "best", "AUC", "gap", "±"], rows)
    keys = ("f1", "auc")  # of few faces they would be chance
    rows = {
        f"{title}: {group}": [scores["faces"], *(scores[key] if scores["faces"] >= LEAST else None for key in keys)]
        for title, members in entry["groups"].items()
        if title in SHOWN
        for group, scores in members.items()
    }
    return f"{text}\n\n{_table([f'group, {name}', 'faces', 'F1', 'AUC'], rows)}" if rows else text


def _photo_text(photos: dict[str, Any]) -> str:
    """What was found, AUC and false alarms by AU, and the predictions of each face."""
    text = (
        f"The detector finds {photos['found']} of {photos['faces']} faces. Labels are by eye, of clear cases, by"
        " whoever labelled these photos: no benchmark, and no claim of accuracy beyond these faces. Photos that were"
        " looked at while renderer and recipe were mended flatter what came of it."
    )
    if photos["problems"]:
        text += f" {len(photos['problems'])} photos could not be read."
    if not photos["found"]:
        return text
    alarms = photos["false_alarms"] or {}
    head, rows = ["AU", "present", "absent", "AUC", "neutral alarms"], {}
    for name, (present, absent) in photos["labelled"].items():
        rows[name] = [present, absent, photos["auc"][name], alarms.get(name)]
    rows["mean"] = ["", "", photos["auc"]["mean"], alarms.get("mean")]
    sources = sorted({row["source"] for row in photos["predictions"] if row["source"]})
    text += (
        f" Neutral faces: {photos['neutral_faces']}; the last column is the share in which the unit is seen, of those"
        " where it is labelled as absent."
    )
    text += (
        f" The points differ from the labelled ones by {photos['median_point_error']:.1%} of the distance between the"
    )
    text += f" eyes, in the median. Photos from: {', '.join(sources) or 'not named'}."
    return f"{text}\n\n{_table(head, rows)}\n\n{_predictions(photos['predictions'])}"


def _predictions(predictions: list[dict[str, Any]]) -> str:
    """What is seen in each face, beside what was labelled."""
    rows = {}
    for number, face in enumerate(predictions[:MOST_FACES]):
        wrong = [
            name
            for name, value in face["labels"].items()
            if value != (name in face["present"]) and name in face["probabilities"]
        ]
        rows[f"{number + 1}, {face['file']}"] = [" ".join(face["present"]), " ".join(wrong)]
    more = f" The others are in evidence.json ({len(predictions)} faces)." if len(predictions) > MOST_FACES else ""
    return f"Predictions, by face.{more}\n\n{_table(['face', 'seen', 'labelled otherwise'], rows)}"


def _comparison(name: str, entry: dict[str, Any]) -> str:
    if not entry["found"]:
        return f"{name}: MediaPipe finds none of {entry['faces']} faces."
    rows = {label: [value, entry["mediapipe"][label]] for label, value in entry["ours"].items() if value is not None}
    return (
        f"{name}: AUC on the {entry['found']:,} of {entry['faces']:,} faces that MediaPipe finds; the mean is over the"
        " action units that both have. A blendshape is no action unit: which one stands for which is our choice, and"
        f" where there are several, the best on these faces counts.\n\n{_table(['AU', 'ours', 'MediaPipe'], rows)}"
    )


def draw_calibration(rendered: dict[str, Any], names: list[str], path: Path) -> None:
    """Draw a reliability diagram of each AU, with a line for each set."""
    from matplotlib.figure import Figure

    columns = min(6, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.75 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for axis, name in zip(axes, names, strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for colour, (title, entry) in zip(COLOURS, rendered.items(), strict=False):
            curve = entry["calibration"][name]
            axis.plot(curve["predicted"], curve["observed"], ".-", color=colour, label=title, linewidth=1.2)
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    axes[0].legend(frameon=False, fontsize=7)
    figure.supxlabel("predicted probability", fontsize=8)
    figure.supylabel("share of faces that show it", fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    with whole_file(path) as part:  # few colours: a third of the bytes
        Image.open(content).convert("RGB").quantize(64).save(part, "PNG", optimize=True)


def _failure_text(name: str) -> str:
    return (
        f"On {name}, the {WEAKEST} action units of the lowest AUC, a row each: the faces in which the unit is missed at"
        " the lowest probability p (left), and those in which it is falsely seen at the highest (right), with the true"
        " intensity behind p; no person twice on a side. Left of each row, how often that happens.\n\n"
        "![Faces whose weak action units are missed or wrongly seen](failures.jpg)"
    )


def failures_of(faces: RenderedSet, thresholds: NDArray[Any]) -> dict[int, dict[str, list[int]]]:
    """Find the faces on which the weakest AUs fail.

    Args:
        faces: The set.
        thresholds: (N,) of its AUs: a failure is on the wrong side of them.

    Returns:
        By the column of the AU, that of the lowest AUC first: the rows of the faces in which it is "missed", and of
        those in which it is "falsely seen", the worst first.
    """
    areas = au_auc(faces.labels, faces.probabilities)["auc"]
    result = {}
    for unit in np.argsort(areas)[: min(WEAKEST, np.count_nonzero(~np.isnan(areas)))].tolist():  # NaN is last
        chances, labels = faces.probabilities[:, unit], faces.labels[:, unit]
        order, seen = np.argsort(chances, kind="stable"), chances >= thresholds[unit]
        missed, false = order[((labels == 1) & ~seen)[order]], order[((labels == 0) & seen)[order]]
        result[unit] = {"missed": missed.tolist(), "falsely seen": false[::-1].tolist()}
    return result


def draw_failures(faces: RenderedSet, thresholds: NDArray[Any], path: Path) -> None:
    """Draw the weakest AUs' worst misses and worst false alarms as a JPEG; see `failures_of`."""
    from matplotlib.figure import Figure

    found = failures_of(faces, thresholds)
    rows = max(1, len(found))
    figure = Figure(figsize=(1.4 + 1.4 * 2 * WORST, 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, 2 * WORST, squeeze=False)
    for axis in grid.ravel():
        axis.set(xticks=[], yticks=[], frame_on=False)
    for row, (unit, sides) in zip(grid, found.items(), strict=False):
        name, lines = faces.names[unit], []
        strength = faces.predictions.intensities[:, facs.SYNTHETIC.index(int(name[2:]))]
        for first, label, (title, places) in zip((0, WORST), (1, 0), sides.items(), strict=True):
            people: dict[str, int] = {}  # who -> their worst
            for place in places:
                people.setdefault(faces.predictions.subject_id[place], place)
            for axis, place in zip(row[first : first + WORST], people.values(), strict=False):
                axis.imshow(np.asarray(faces.rows[place]["image"].convert("RGB")))
                shown = f"{title}, p = {faces.probabilities[place, unit]:.2f}, {strength[place]:.1f}"
                axis.set_title(shown, fontsize=7)
            lines.append(f"{title} {len(places)} of {np.count_nonzero(faces.labels[:, unit] == label)}")
        long_name = facs.ACTION_UNITS[int(name[2:])].name.lower()
        row[0].set_ylabel("\n".join([f"{name} {long_name}", *lines]), fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    with whole_file(path) as part:
        Image.open(content).convert("RGB").save(part, "JPEG", quality=80, optimize=True)
