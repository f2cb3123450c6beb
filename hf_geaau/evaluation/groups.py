"""Evidence on rendered faces: scores, calibration, groups of faces, and stability."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hf_geaau import facs, metrics
from hf_geaau.backends.torch_runner import TorchRunner
from hf_geaau.data import load
from hf_geaau.metrics._checks import mean_of_known

from .predictions import Predictions, predict_dataset
from .reports import named, score

if TYPE_CHECKING:
    import datasets

BINS = 10  # of the calibration curve
LEAST = 100
"""Smallest group that counts for the largest gap; in smaller ones, single faces decide. Our choice."""
RESAMPLES = 50  # bootstrap draws for the standard error of a gap
POINT_NOISE = 0.05  # of the distance between the eyes
_MARGIN = 0.15  # mirrored at the edges of a crop, so that a moved crop has no black border
# Columns that are no traits: they identify rows, or say where the AUs were drawn from, which decides their number.
_STRUCTURE = {
    "file_name", "labels", "intensities", "side_intensities", "visible", "subject_id", "sequence_id", "frame", "points",
    "index", "au_source", "style",
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
"""Columns with fixed groups: title, transformation, upper ends, names. Skin: the individual typology angle's
classes (Del Bino and Bernerd, 2013). Age (0 is twenty, 1 is eighty) and looks (0 masculine, 1 feminine) are those of
`FaceFacts`. The other ends are our choice."""
_TITLES = {"quality": "JPEG or WebP quality, 0: not compressed", "point_error": "point error, eye distances"}
_MOST_GROUPS = 12  # a column of texts or whole numbers with more values makes no groups


@dataclass(frozen=True, eq=False)
class RenderedSet:
    """A rendered set and the predictions of a checkpoint, row by row.

    Attributes:
        name: Such as "test".
        rows: The dataset.
        predictions: Of all rows.
        labels, probabilities: (F, N) for the N AUs that model and renderer share.
        names: Labels of these AUs.
        traits: By title, (F,) the group of each face.
    """

    name: str
    rows: "datasets.Dataset"
    predictions: Predictions
    labels: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    names: list[str]
    traits: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    @classmethod
    def predict(
        cls, name: str, folder: Path, runner: TorchRunner, batch_size: int = 64, workers: int = 0
    ) -> "RenderedSet":
        """Predict a rendered folder."""
        rows = load("synthetic", folder, fold=None, split="train")
        model = runner.model
        predictions = predict_dataset(model, runner.image_processor, rows, batch_size, model.device, workers)
        rows = rows.select(predictions.rows)
        take, put = facs.index_map(model.config.action_units, facs.SYNTHETIC)
        names = facs.labels([facs.SYNTHETIC[index] for index in put])
        labels, probabilities = predictions.labels[:, put], predictions.probabilities[:, take]
        return cls(name, rows, predictions, labels, probabilities, names, read_traits(folder, rows))


def rendered_evidence(faces: RenderedSet, runner: TorchRunner, limit: int, batch_size: int = 64) -> dict[str, Any]:
    """Return the evidence of one set; see `gather_evidence`."""
    neutral, limits = (faces.labels == 0).all(axis=1), thresholds_of(runner.model.config)
    groups = {title: _by_group(faces, trait, limits) for title, trait in faces.traits.items()}
    alarms = faces.probabilities[neutral] >= limits
    return {
        **score(faces.predictions, runner.model.config, facs.SYNTHETIC),
        "neutral_frames": int(neutral.sum()),
        "false_alarms": named(faces.names, alarms.mean(axis=0)) if neutral.any() else None,
        "calibration": calibration_curve(faces.labels, faces.probabilities, faces.names),
        "groups": groups,
        "gaps": [{**gap, "error": gap_error(faces, gap)} for gap in widest_gaps(groups)],
        "steadiness": steadiness(runner, sample_crops(faces, limit), batch_size),
    }


def thresholds_of(config: Any) -> NDArray[np.float32]:
    """Return the thresholds of the AUs that model and renderer share."""
    return np.asarray(config.thresholds, np.float32)[facs.index_map(config.action_units, facs.SYNTHETIC)[0]]


def calibration_curve(labels: NDArray[Any], probabilities: NDArray[Any], names: list[str]) -> dict[str, Any]:
    """Return, for each AU and all together ("all"), the bins of a reliability diagram.

    Returns:
        By name: "predicted" and "observed", the mean probability and the share of positives in each bin that is not
        empty, and "faces", their number.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    labeled, count = labels >= 0, len(names)
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(count)
    sums = [
        np.bincount(bins[labeled], weights[labeled], count * BINS).reshape(count, BINS)
        for weights in (np.ones_like(probabilities), probabilities, labels)
    ]
    columns = [*zip(*sums, strict=True), [part.sum(0) for part in sums]]
    result = {}
    for name, column in zip([*names, "all"], columns, strict=True):
        faces, predicted, positive = (part[column[0] > 0] for part in column)
        result[name] = {
            "predicted": (predicted / faces).round(4).tolist(),
            "observed": (positive / faces).round(4).tolist(),
            "faces": faces.astype(int).tolist(),
        }
    return result


def read_traits(folder: Path, rows: "datasets.Dataset") -> dict[str, NDArray[np.str_]]:
    """Read the properties of each face that the renderer recorded, as groups.

    Every column of labels.parquet that describes a face counts: those of `_CLASSES` by its groups, other numbers by
    quartiles (a value that more than a quarter of the faces share, such as 0 for none, is a group of its own), texts
    and truth values as they are. New columns of the renderer are grouped without a change here.

    Args:
        folder: A rendered set.
        rows: Its rows in any order.

    Returns:
        By title, (F,) the group of each row.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "labels.parquet")
    keys = zip(table["subject_id"].to_pylist(), table["frame"].to_pylist(), strict=True)
    position = {key: index for index, key in enumerate(keys)}
    order = [position[key] for key in zip(rows["subject_id"][:], rows["frame"][:], strict=True)]
    traits = {}
    for name in table.column_names:
        if name in _STRUCTURE:
            continue
        values = np.array(table[name].to_pylist())
        if values.ndim == 1 and (groups := _groups(name, values)) is not None:
            title = _CLASSES[name][0] if name in _CLASSES else _TITLES.get(name, name.replace("_", " "))
            traits[title] = groups[order]
    return traits


def _groups(name: str, values: NDArray[Any]) -> NDArray[np.str_] | None:
    """Return the group of each value of a column; None if it makes no groups."""
    if name in _CLASSES:
        _, measure, ends, names = _CLASSES[name]
        return np.array(names)[np.searchsorted(ends, measure(values))]
    if values.dtype.kind == "f":
        return _quartiles(values)
    groups = np.array([str(value) or "none" for value in values.tolist()])
    return groups if 1 < len(np.unique(groups)) <= _MOST_GROUPS else None


def _quartiles(values: NDArray[np.floating[Any]]) -> NDArray[np.str_] | None:
    """Return groups by the quartiles of the values that no more than a quarter shares; None for a single group."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    rest = values[counts[inverse] <= len(values) / 4]
    groups = np.array([f"{value:.3g}" for value in values], dtype=object)
    if rest.size:
        edges = np.unique(np.quantile(rest, [0, 0.25, 0.5, 0.75, 1]))
        names = np.array([f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)] or [f"{edges[0]:.3g}"])
        quartiles = np.clip(np.searchsorted(edges, rest, "right") - 1, 0, len(names) - 1)
        groups[counts[inverse] <= len(values) / 4] = names[quartiles]
    return groups.astype(np.str_) if len(set(groups)) > 1 else None


def _by_group(faces: RenderedSet, trait: NDArray[np.str_], limits: NDArray[Any]) -> dict[str, dict[str, Any]]:
    """Score each group: mean F1 over the AUs that occur in it, and mean AUC over those that some of its faces lack."""
    result = {}
    for group in sorted(set(trait.tolist()), key=_first_number):
        members = trait == group
        labels, probabilities = faces.labels[members], faces.probabilities[members]
        counted = metrics.au_f1(labels, probabilities, limits)
        f1 = counted["f1"][counted["positives"] > 0]
        scores = {"f1": mean_of_known(f1), "auc": metrics.au_auc(labels, probabilities)["mean"]["auc"]}
        values = {key: None if np.isnan(value) else round(value, 4) for key, value in scores.items()}
        result[group] = {"faces": int(members.sum()), **values}
    return result


def _first_number(group: str) -> tuple[float, str]:
    """Return a key that sorts ranges by their lower end, and texts after them."""
    try:
        return float(group.split()[0]), group
    except ValueError:
        return float("inf"), group


def widest_gaps(groups: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return for each trait the two groups of at least `LEAST` faces whose mean AUC differs most, widest gap first."""
    gaps = []
    for title, members in groups.items():
        large = {name: row["auc"] for name, row in members.items() if row["faces"] >= LEAST}
        rated = [(auc, name) for name, auc in large.items() if auc is not None]
        if len(rated) > 1:
            (low, worst), (high, best) = min(rated), max(rated)
            gap = round(high - low, 4)
            gaps.append({"trait": title, "worst": worst, "auc": low, "best": best, "best_auc": high, "gap": gap})
    return sorted(gaps, key=lambda entry: -entry["gap"])


def gap_error(faces: RenderedSet, gap: dict[str, Any]) -> float:
    """Return the standard error of a gap: by the bootstrap over people, because faces of one person are alike.

    It does not account for the two groups being chosen as the worst and the best.
    """
    trait = faces.traits[gap["trait"]]

    def measure(rows: NDArray[np.intp]) -> float:
        best, worst = (rows[trait[rows] == gap[side]] for side in ("best", "worst"))
        if not best.size or not worst.size:
            return float("nan")
        high, low = (metrics.au_auc(faces.labels[part], faces.probabilities[part]) for part in (best, worst))
        return high["mean"]["auc"] - low["mean"]["auc"]

    return round(float(np.nanstd(metrics.bootstrap(faces.predictions.subject_id, measure, RESAMPLES))), 4)


def sample_rows(faces: RenderedSet, limit: int) -> NDArray[np.int64]:
    """Return at most `limit` row numbers, evenly spread over the set."""
    return np.linspace(0, len(faces.rows) - 1, min(limit, len(faces.rows))).astype(np.int64)


def sample_crops(faces: RenderedSet, limit: int) -> list[Image.Image]:
    """Return the crops of `sample_rows`."""
    return [faces.rows[int(row)]["image"].convert("RGB") for row in sample_rows(faces, limit)]


def steadiness(runner: TorchRunner, images: list[Image.Image], batch_size: int = 64) -> dict[str, Any]:
    """Measure how much probabilities change while the expression stays the same.

    Returns:
        "faces"; "mirrored": by AU, the mean absolute change between a crop and its mirror image; "point_noise": the
        same when each of the five points is off by a normal error of 5 % of the distance between the eyes, in x and y.
    """
    template = np.asarray(runner.facts.crop_template, np.float64)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, POINT_NOISE * np.linalg.norm(template[1] - template[0]), (len(images), 5, 2))
    padded, points = [], []
    for image, offset in zip(images, noise, strict=True):
        margin = round(_MARGIN * image.width)
        pixels = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), "reflect")
        padded.append(Image.fromarray(pixels))
        points.append((template + offset) * image.size + margin)
    flipped = [ImageOps.mirror(image) for image in images]
    predicted = [
        runner.predict(crops, where, batch_size).probabilities
        for crops, where in ((images, None), (flipped, None), (padded, points))
    ]
    plain, *others = (np.asarray(values) for values in predicted)
    changes = [named(runner.action_units, np.abs(values - plain).mean(axis=0)) for values in others]
    return {"faces": len(images), "mirrored": changes[0], "point_noise": changes[1]}
