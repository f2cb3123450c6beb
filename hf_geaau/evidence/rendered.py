"""Evidence on rendered faces: scores, calibration, groups of faces, steadiness, and the worst failures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hf_geaau import facs, metrics
from hf_geaau.data import load
from hf_geaau.evaluation import Predictions, predict_dataset, score

from .scorer import Scorer, by_name

BINS = 10  # of the calibration curve
LEAST = 100
"""A group needs this many faces to count for the largest gap; below, single faces decide. Our choice."""
RESAMPLES = 50  # of the people, for a gap's standard error
POINT_NOISE = 0.05  # of the distance between the eyes
_MARGIN = 0.15  # mirrored at the crop's edges, so that a moved crop sees no black
# No traits: what tells rows apart, and from where the action units were drawn, which decides how many there are.
_STRUCTURE = {
    "file_name", "labels", "intensities", "subject_id", "sequence_id", "frame", "points", "index", "au_source", "style",
}  # fmt: skip
_TENS = (lambda angle: np.abs(np.degrees(angle)), (10, 20, 30, 40),
         ("0 to 10", "10 to 20", "20 to 30", "30 to 40", "40 and more"))  # fmt: skip
_CLASSES: dict[str, tuple[str, Callable[[Any], Any], tuple[float, ...], tuple[str, ...]]] = {
    "yaw": ("head turned, degrees", *_TENS),
    "pitch": ("head nodded, degrees", *_TENS),
    "roll": ("head tilted, degrees", *_TENS),
    "skin_ita": (
        "skin tone, typology angle", np.asarray, (-30, 10, 28, 41, 55),
        ("-90 to -30, dark", "-30 to 10, brown", "10 to 28, tan", "28 to 41, intermediate", "41 to 55, light",
         "55 to 90, very light"),
    ),
    "age": (
        "drawn age, years", lambda age: 20 + 60 * age, (35, 50, 65),
        ("20 to 35", "35 to 50", "50 to 65", "65 to 80"),
    ),
    "feminine": ("sex-typed looks", np.asarray, (1 / 3, 2 / 3), ("masculine", "in between", "feminine")),
    "face_pixels": (
        "face, pixels", np.asarray, (32, 48, 64, 96), ("0 to 32", "32 to 48", "48 to 64", "64 to 96", "96 and more"),
    ),
}  # fmt: skip
"""Columns with groups of their own: title, what is grouped, upper ends, names. Skin: the individual typology angle's
classes (Del Bino and Bernerd, 2013). Age from 0 (twenty) to 1 (eighty) and 0 masculine to 1 feminine are those of
`FaceFacts`. The other ends are our choice."""
_TITLES = {"quality": "JPEG or WebP quality, 0: not compressed", "point_error": "point error, eye distances"}
_MOST_GROUPS = 12  # of a column of texts or whole numbers; more are no groups


@dataclass(frozen=True, eq=False)
class RenderedSet:
    """A rendered set and what a checkpoint says of it; all rows belong together.

    Attributes:
        name: Such as "test".
        rows: The dataset.
        predictions: Of all rows.
        labels, probabilities: (F, N) of the AUs that model and renderer share.
        names: Their labels.
        traits: By title, (F,) the group of each face.
    """

    name: str
    rows: Any
    predictions: Predictions
    labels: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    names: list[str]
    traits: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, folder: Path, scorer: Scorer, workers: int = 0) -> "RenderedSet":
        """Predict a rendered folder."""
        rows = load("synthetic", folder, fold=None, split="train")
        found = predict_dataset(
            scorer.network, scorer.processor, rows, scorer.batch_size, scorer.device, num_workers=workers
        )
        rows = rows.select(found.rows)
        take, put = facs.index_map(scorer.network.config.action_units, facs.SYNTHETIC)
        names = facs.labels([facs.SYNTHETIC[place] for place in put])
        return cls(
            name, rows, found, found.labels[:, put], found.probabilities[:, take], names, traits_of(folder, rows)
        )


def score_rendered(predictions: Predictions, config: Any) -> dict[str, Any]:
    """Score a rendered set: what `hf_geaau.evaluation.score` gives, with the calibration error of each AU."""
    take, put = facs.index_map(config.action_units, facs.SYNTHETIC)
    scores = score(predictions, config, facs.SYNTHETIC)
    labels, chances = predictions.labels[:, put], predictions.probabilities[:, take]
    errors = metrics.expected_calibration_error(labels, chances)
    for row, value in zip(scores["action_units"].values(), errors["expected_calibration_error"].tolist(), strict=True):
        row["expected_calibration_error"] = value
    scores["mean"] |= errors["mean"]
    return scores


def rendered_evidence(faces: RenderedSet, scorer: Scorer, limit: int) -> dict[str, Any]:
    """Collect the evidence of one set; see `gather_evidence` for its parts."""
    config = scorer.network.config
    neutral = (faces.labels == 0).all(axis=1)
    limits = thresholds_of(config)
    groups = {title: _by_group(faces, trait, limits) for title, trait in faces.traits.items()}
    said = faces.probabilities[neutral] >= limits
    return {
        **score_rendered(faces.predictions, config),
        "neutral_frames": int(neutral.sum()),
        "false_alarms": by_name(faces.names, said.mean(axis=0)) if neutral.any() else None,
        "calibration": calibration_curve(faces.labels, faces.probabilities, faces.names),
        "groups": groups,
        "gaps": [{**gap, "error": _gap_error(faces, gap)} for gap in gaps_of(groups)],
        "steadiness": steadiness(scorer, images_at(faces, spread(faces, limit))),
    }


def thresholds_of(config: Any) -> NDArray[np.float32]:
    """Give the thresholds of the AUs that model and renderer share."""
    return np.asarray(config.thresholds, np.float32)[facs.index_map(config.action_units, facs.SYNTHETIC)[0]]


def calibration_curve(labels: NDArray[Any], probabilities: NDArray[Any], names: list[str]) -> dict[str, Any]:
    """Give, for each AU and all together ("all"), the bins of a reliability diagram.

    Returns:
        By name: "predicted" and "observed", the mean probability and the share of positives in each bin that is not
        empty, and "faces", their number.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    known, count = labels >= 0, len(names)
    places = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(count)
    sums = [
        np.bincount(places[known], weights[known], count * BINS).reshape(count, BINS)
        for weights in (np.ones_like(probabilities), probabilities, labels)
    ]
    result = {}
    for name, (faces, chance, positive) in zip(
        [*names, "all"], [*zip(*sums, strict=True), [part.sum(0) for part in sums]], strict=True
    ):
        full = faces > 0
        shares = {"predicted": chance[full] / faces[full], "observed": positive[full] / faces[full]}
        result[name] = {key: values.round(4).tolist() for key, values in shares.items()}
        result[name]["faces"] = faces[full].astype(int).tolist()
    return result


def traits_of(folder: Path, rows: Any) -> dict[str, NDArray[np.str_]]:
    """Read what the renderer noted of each face, in the order of the rows, as groups.

    Every column of labels.parquet that describes a face counts: those of `_CLASSES` by these, other numbers by
    quartiles (a value that more than a quarter share, such as 0 for none, is a group of its own), texts and truth
    values as they are. So a renderer that notes more is broken down by more.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "labels.parquet")
    where = {key: place for place, key in enumerate(zip(*_keys(table), strict=True))}
    order = [where[key] for key in zip(rows["subject_id"][:], rows["frame"][:], strict=True)]
    found = {}
    for name in table.column_names:
        if name in _STRUCTURE:
            continue
        values = np.array(table[name].to_pylist())
        if values.ndim == 1 and (groups := _groups(name, values)) is not None:
            title = _CLASSES[name][0] if name in _CLASSES else _TITLES.get(name, name.replace("_", " "))
            found[title] = groups[order]
    return found


def _keys(table: Any) -> tuple[list[Any], list[Any]]:
    return table["subject_id"].to_pylist(), table["frame"].to_pylist()


def _groups(name: str, values: NDArray[Any]) -> NDArray[np.str_] | None:
    """Turn a column into groups; None if it makes none."""
    if name in _CLASSES:
        _, measure, ends, names = _CLASSES[name]
        return np.array(names)[np.searchsorted(ends, measure(values))]
    if values.dtype.kind == "f":
        return _quartiles(values)
    groups = np.array([str(value) or "none" for value in values.tolist()])
    return groups if 1 < len(np.unique(groups)) <= _MOST_GROUPS else None


def _quartiles(values: NDArray[np.floating[Any]]) -> NDArray[np.str_] | None:
    """Group numbers by the quartiles of those that are not shared by more than a quarter; None for a single group."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    rest = values[counts[inverse] <= len(values) / 4]
    groups = np.array([f"{value:.3g}" for value in values], dtype=object)
    if rest.size:
        edges = np.unique(np.quantile(rest, [0, 0.25, 0.5, 0.75, 1]))
        names = np.array([f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)] or [f"{edges[0]:.3g}"])
        places = np.clip(np.searchsorted(edges, rest, "right") - 1, 0, len(names) - 1)
        groups[counts[inverse] <= len(values) / 4] = names[places]
    return groups.astype(np.str_) if len(set(groups)) > 1 else None


def _by_group(faces: RenderedSet, trait: NDArray[np.str_], limits: NDArray[Any]) -> dict[str, dict[str, Any]]:
    """Score each group: mean F1 over the AUs that it shows, and mean AUC over those that also lack in some face."""
    result = {}
    for group in sorted(set(trait.tolist()), key=_first_number):
        here = trait == group
        labels, chances = faces.labels[here], faces.probabilities[here]
        rated = metrics.au_f1(labels, chances, limits)
        f1 = rated["f1"][rated["positives"] > 0]
        scores = {"f1": f1.mean() if f1.size else np.nan, "auc": metrics.au_auc(labels, chances)["mean"]["auc"]}
        values = {key: None if np.isnan(value) else round(float(value), 4) for key, value in scores.items()}
        result[group] = {"faces": int(here.sum()), **values}
    return result


def _first_number(group: str) -> tuple[float, str]:
    """Sort ranges by where they begin, and texts after them."""
    try:
        return float(group.split()[0]), group
    except ValueError:
        return float("inf"), group


def gaps_of(groups: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Give, of each trait, the two groups of at least `LEAST` faces whose mean AUC differ most; the widest first."""
    gaps = []
    for title, members in groups.items():
        rated = [
            (row["auc"], name) for name, row in members.items() if row["faces"] >= LEAST and row["auc"] is not None
        ]
        if len(rated) > 1:
            (low, worst), (high, best) = min(rated), max(rated)
            gap = round(high - low, 4)
            gaps.append({"trait": title, "worst": worst, "auc": low, "best": best, "best_auc": high, "gap": gap})
    return sorted(gaps, key=lambda entry: -entry["gap"])


def _gap_error(faces: RenderedSet, gap: dict[str, Any]) -> float:
    """Give a gap's standard error: by the bootstrap over people, because one person's faces are alike.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", 1979. That the two groups were chosen as the worst
        and the best is not in it.
    """
    trait = faces.traits[gap["trait"]]
    person = np.unique(faces.predictions.subject_id, return_inverse=True)[1]
    members = np.split(np.argsort(person, kind="stable"), np.cumsum(np.bincount(person))[:-1])
    rng, gaps = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[place] for place in rng.integers(len(members), size=len(members))])
        best, worst = (rows[trait[rows] == gap[side]] for side in ("best", "worst"))
        if best.size and worst.size:
            areas = [metrics.au_auc(faces.labels[part], faces.probabilities[part]) for part in (best, worst)]
            gaps.append(areas[0]["mean"]["auc"] - areas[1]["mean"]["auc"])
    return round(float(np.nanstd(gaps)), 4)


def spread(faces: RenderedSet, limit: int) -> NDArray[np.int64]:
    """Give the places of at most `limit` faces, evenly spread over the set."""
    return np.linspace(0, len(faces.rows) - 1, min(limit, len(faces.rows))).astype(np.int64)


def images_at(faces: RenderedSet, places: NDArray[np.int64]) -> list[Image.Image]:
    """Load crops."""
    return [faces.rows[int(place)]["image"].convert("RGB") for place in places]


def steadiness(scorer: Scorer, images: list[Image.Image]) -> dict[str, Any]:
    """Measure how much probabilities change when nothing of the expression does.

    Returns:
        "faces"; "mirrored": by AU, the mean absolute change between a crop and its mirror image; "point_noise": the
        same when each of the five points is off by a normal error of 5 % of the distance between the eyes, in x and y.
    """
    template = np.asarray(scorer.processor.crop_template, np.float64)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, POINT_NOISE * np.linalg.norm(template[1] - template[0]), (len(images), 5, 2))
    padded, points = [], []
    for image, offset in zip(images, noise, strict=True):
        margin = round(_MARGIN * image.width)
        pixels = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), "reflect")
        padded.append(Image.fromarray(pixels))
        points.append((template + offset) * image.size + margin)
    plain, mirrored = scorer(images)[0], scorer([ImageOps.mirror(image) for image in images])[0]
    moved = scorer(padded, points)[0]
    return {
        "faces": len(images),
        "mirrored": by_name(scorer.names, np.abs(mirrored - plain).mean(axis=0)),
        "point_noise": by_name(scorer.names, np.abs(moved - plain).mean(axis=0)),
    }
