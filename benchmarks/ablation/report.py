"""The results of the ablation: differences with their uncertainty, the tables, and the figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.files import whole_file
from hf_geaau.metrics import markdown_table
from hf_geaau.plots import require_matplotlib

BOOTSTRAPS = 2000
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#F0E442")
"""Of Okabe and Ito, which color-blind readers can tell apart."""


@dataclass(frozen=True)
class Arm:
    """One way to train: an ablation.

    Attributes:
        title: Its name in tables.
        head: `GeaauConfig.head`.
        encoder: Whether it starts from the encoder of stage 1.
        length: Factor of the steps on action units.
    """

    title: str
    head: str
    encoder: bool = False
    length: int = 1


ARMS = {
    "pooled": Arm("backbone + pooling + linear", "pooled"),
    "lam": Arm("backbone + LAM", "lam"),
    "gee-pooled": Arm("GEE + pooling + linear", "pooled", encoder=True),
    "gee-lam": Arm("GEE + LAM (GTLE-Net)", "lam", encoder=True),
    "lam-longer": Arm("backbone + LAM, three times the steps", "lam", length=3),
}


@dataclass(frozen=True)
class Run:
    """One arm, trained with one seed and scored.

    Attributes:
        result: Arm, seed, F1 and AUC by AU and their means, minutes.
        counts: (3, S, N) true positives, false positives and false negatives of each of S test people.
    """

    result: dict[str, Any]
    counts: NDArray[np.int64]


def count_by_person(
    probabilities: NDArray[Any], labels: NDArray[Any], people: NDArray[Any], threshold: float = 0.5
) -> NDArray[np.int64]:
    """Count true positives, false positives and false negatives of each person.

    Args:
        probabilities, labels: (F, N).
        people: (F,) names.
        threshold: Probability from which an AU counts as present.

    Returns:
        (3, S, N), people in sorted order.
    """
    predicted, present, labeled = probabilities >= threshold, labels == 1, labels >= 0
    names, person = np.unique(np.asarray(people), return_inverse=True)
    counts = np.zeros((3, len(names), labels.shape[1]), np.int64)
    outcomes = (predicted & present, predicted & ~present & labeled, ~predicted & present)
    for row, outcome in zip(counts, outcomes, strict=True):
        np.add.at(row, person, outcome)
    return counts


def mean_f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean over AUs of F1 from counts (3, ..., N); an AU without positives and predictions counts as 0."""
    tp, fp, fn = counts
    return (2 * tp / np.maximum(2 * tp + fp + fn, 1)).mean(axis=-1)


def summarize(runs: list[Run]) -> dict[str, Any]:
    """Return each arm's mean and spread over seeds, and the differences between arms with their uncertainty.

    The interval of a difference comes from 2,000 bootstrap samples of the test people, because another test set would
    have other people; the spread over seeds stands beside it.
    """
    by_arm = {name: [run for run in runs if run.result["arm"] == name] for name in ARMS}
    arms = {
        name: {
            "title": ARMS[name].title,
            "seeds": len(members),
            "minutes": float(np.mean([run.result["minutes"] for run in members])),
            "steps": members[0].result["steps"],
            **{
                key: float(np.mean([run.result[key] for run in members]))
                for key in ("f1", "train_f1", "auc", "cross_f1", "cross_auc")
                if key in members[0].result
            },
            "f1_spread": float(np.std([run.result["f1"] for run in members], ddof=min(1, len(members) - 1))),
            "f1_by_seed": [run.result["f1"] for run in members],
        }
        for name, members in by_arm.items()
        if members
    }
    counts = {name: np.sum([run.counts for run in members], axis=0) for name, members in by_arm.items() if members}
    pairs = [("lam", "pooled"), ("gee-pooled", "pooled"), ("gee-lam", "gee-pooled"), ("gee-lam", "lam"),
             ("gee-lam", "lam-longer"), ("gee-lam", "pooled")]  # fmt: skip
    differences = [difference(counts, *pair) for pair in pairs if set(pair) <= set(counts)]
    return {"arms": arms, "differences": differences, "always_on_f1": runs[0].result["always_on_f1"]}


def difference(counts: dict[str, NDArray[np.int64]], arm: str, other: str) -> dict[str, Any]:
    """Bootstrap over test people the difference of mean F1 between two arms, from counts pooled over seeds."""
    people = counts[arm].shape[1]
    rng = np.random.default_rng(0)
    weights = rng.multinomial(people, np.full(people, 1 / people), size=BOOTSTRAPS)  # (R, S)
    drawn = [mean_f1(np.einsum("rs,csn->crn", weights, counts[name])) for name in (arm, other)]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    whole = [float(mean_f1(counts[name].sum(axis=1))) for name in (arm, other)]
    return {"arm": arm, "other": other, "f1": whole[0] - whole[1], "low": float(low), "high": float(high)}


def write_report(results: dict[str, Any], folder: Path) -> None:
    """Write `report.md`, `arms.png` and `masks.png`.

    Args:
        results: As `run_ablation` returns them.
        folder: Folder of the run, which holds the masks of each arm and the rendered test faces.
    """
    with whole_file(folder / "report.md") as part:
        part.write_text(render_report(results), encoding="utf-8")
    draw_arms(results, folder / "arms.png")
    draw_masks(results, folder, folder / "masks.png")


_HEADER = ("F1 on training people", "AU steps", "minutes")


def render_report(results: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    size, arms = results["scale"], results["arms"]
    crossed = {"cross_f1": "F1, other rig", "cross_auc": "AUC, other rig"}
    if not all(key in arm for key in crossed for arm in arms.values()):
        crossed = {}
    encoders = [encoder["triplet_accuracy"] for encoder in results["encoders"]]
    lines = [
        "# Rendered faces: does LAM help, does GEE help?",
        "",
        f"Training: {size['train_identities']} people × {size['train_images']} images with AU labels, "
        f"{size['au_steps']} steps of {size['au_batch']}. GEE before it: {size['expression_steps']} steps of "
        f"{size['expression_batch']} triplets of {size['expression_identities']} other people, no AU labels. "
        f"Test: {size['test_identities']} people × {size['test_images']} images whom no training saw. "
        f"Backbone {size['backbone']} at {size['image_size']} px; threshold 0.5; {size['seeds']} seeds. "
        f"{results['machine']}; rendering {results['render_minutes']:.0f} minutes.",
        "",
        f"Triplet accuracy of GEE on people it has not seen: {np.mean(encoders):.3f} (chance .333).",
        "",
        markdown_table(
            ["arm", "mean F1", "± over seeds", "mean AUC", *crossed.values(), *_HEADER],
            [
                ["always on", results["always_on_f1"], None, 0.5, *[None] * len(crossed), None, None, None],
                *(
                    [
                        *(arm[key] for key in ("title", "f1", "f1_spread", "auc", *crossed, "train_f1", "steps")),
                        f"{arm['minutes']:.1f}",
                    ]
                    for arm in arms.values()
                ),
            ],
            undefined="",
        ),
        "",
        markdown_table(
            ["difference of mean F1", "", "95 % interval over test people"],
            [
                [
                    f"{arms[entry['arm']]['title']} − {arms[entry['other']]['title']}",
                    f"{entry['f1']:+.3f}",
                    f"{entry['low']:+.3f} to {entry['high']:+.3f}",
                ]
                for entry in results["differences"]
            ],
            "lrl",
        ),
    ]
    lines += ["", "![Mean F1 of every arm](arms.png)", "", "![Mean mask of each AU](masks.png)"]
    return "\n".join([*lines, "", _au_table(results), ""])


def _au_table(results: dict[str, Any]) -> str:
    """Return the table of each AU: F1 of every arm, and where the mask of GTLE-Net lies."""
    arms, masks, keys = list(results["arms"]), _mean_masks(results, "gee-lam"), ("share", "area", "entropy")
    header = ["AU", *arms, *(["mask energy in region", "region's area", "mask entropy"] if masks else [])]
    rows: list[list[Any]] = [
        [
            name,
            *(_mean(results, arm, "per_au", name, "f1") for arm in arms),
            *(masks[name][key] for key in keys if masks),
        ]
        for name in facs.labels("synthetic")
    ]
    means = [float(np.mean([mask[key] for mask in masks.values()])) for key in keys if masks]
    return markdown_table(header, [*rows, ["mean", *(arm["f1"] for arm in results["arms"].values()), *means]])


def _mean(results: dict[str, Any], arm: str, *keys: str) -> float:
    """Average a value over an arm's seeds."""
    values = []
    for run in results["runs"]:
        if run["arm"] == arm:
            value: Any = run
            for key in keys:
                value = value[key]
            values.append(value)
    return float(np.mean(values))


def _mean_masks(results: dict[str, Any], arm: str) -> dict[str, dict[str, float]]:
    members = [run for run in results["runs"] if run["arm"] == arm and "masks" in run]
    if not members:
        return {}
    return {
        name: {key: float(np.mean([run["masks"][name][key] for run in members])) for key in first}
        for name, first in members[0]["masks"].items()
    }


def draw_arms(results: dict[str, Any], path: Path) -> None:
    """Draw the mean F1 of every arm and seed, and the F1 per AU of the first and the full network."""
    require_matplotlib()
    from matplotlib.figure import Figure

    arms = results["arms"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for row, arm in enumerate(arms.values()):
        color = COLORS[row % len(COLORS)]
        left.scatter(arm["f1_by_seed"], [row] * arm["seeds"], color=color, edgecolor="black", s=36, zorder=3)
        left.plot([arm["f1"]] * 2, [row - 0.3, row + 0.3], color="black", zorder=2)
    left.set_yticks(range(len(arms)), [arm["title"] for arm in arms.values()])
    left.invert_yaxis()
    left.set_xlabel("mean F1 of 18 AUs; a dot per seed")
    names = facs.labels("synthetic")
    shown = [name for name in ("pooled", "lam", "gee-lam") if name in arms]
    for order, (arm, marker) in enumerate(zip(shown, "osD", strict=False)):
        values = [_mean(results, arm, "per_au", name, "f1") for name in names]
        color = COLORS[list(arms).index(arm) % len(COLORS)]
        right.plot(
            names, values, marker, color=color, markeredgecolor="black", label=arms[arm]["title"], zorder=3 + order
        )
    right.tick_params(axis="x", rotation=90)
    right.set_ylabel("F1")
    right.set_ylim(0, 1)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=90)


def draw_masks(results: dict[str, Any], folder: Path, path: Path, arm: str = "gee-lam") -> None:
    """Draw each AU's mean mask over the mean test face, with the boxes of its facial region."""
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    files = sorted(folder.glob(f"seed*/{arm}/masks.npy"))
    if not files:
        return
    masks = np.mean([np.load(file) for file in files], axis=0)  # (N, h, w)
    face, shares = _mean_face(folder / "renders" / "test"), _mean_masks(results, arm)
    figure = Figure(figsize=(10, 5.8), layout="constrained")
    for axes, unit, mask in zip(figure.subplots(3, 6).flat, facs.SYNTHETIC, masks, strict=True):
        name = facs.ACTION_UNITS[unit].label
        axes.imshow(face, cmap="gray", extent=(0, 1, 1, 0))
        axes.imshow(mask, cmap="magma", alpha=0.55, extent=(0, 1, 1, 0), interpolation="bilinear", vmin=0)
        for x0, y0, x1, y1 in facs.regions([unit])[0]:
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=COLORS[1], linewidth=1.2))
        axes.set_title(f"{name}  {shares[name]['share']:.0%} inside", fontsize=9)
        axes.set_axis_off()
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=80)


def _mean_face(folder: Path, count: int = 200) -> NDArray[np.float64]:
    from PIL import Image

    paths = sorted((folder / "images").iterdir())[:count]
    return np.mean([np.asarray(Image.open(path).convert("L"), float) for path in paths], axis=0)
