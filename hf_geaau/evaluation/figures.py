"""Pictures of the evidence: calibration curves, and faces on which the weakest action units fail."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau import facs
from hf_geaau.files import whole_file
from hf_geaau.metrics import au_auc
from hf_geaau.plots import COLORS

from .groups import RenderedSet

WEAKEST, WORST = 6, 3  # action units whose failures are drawn, and faces of either kind


def draw_calibration(rendered: dict[str, Any], names: list[str], path: Path) -> None:
    """Draw a reliability diagram of each AU, with a line for each set."""
    from matplotlib.figure import Figure

    columns = min(6, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.75 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for axis, name in zip(axes, names, strict=False):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for color, (title, entry) in zip(COLORS, rendered.items(), strict=False):
            curve = entry["calibration"][name]
            axis.plot(curve["predicted"], curve["observed"], ".-", color=color, label=title, linewidth=1.2)
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    axes[0].legend(frameon=False, fontsize=7)
    figure.supxlabel("predicted probability", fontsize=8)
    figure.supylabel("share of faces that show it", fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    with whole_file(path) as part:  # a palette needs a third of the bytes
        Image.open(content).convert("RGB").quantize(64).save(part, "PNG", optimize=True)


def failures_of(faces: RenderedSet, thresholds: NDArray[Any]) -> dict[int, dict[str, list[int]]]:
    """Return the faces on which the weakest AUs fail.

    Args:
        faces: The set.
        thresholds: (N,) of its AUs.

    Returns:
        By column of the AU, lowest AUC first: the rows of the faces in which it is "missed" and "falsely seen", worst
        first.
    """
    areas = au_auc(faces.labels, faces.probabilities)["auc"]
    result = {}
    for unit in np.argsort(areas)[: min(WEAKEST, np.count_nonzero(~np.isnan(areas)))].tolist():  # NaN is last
        probabilities, labels = faces.probabilities[:, unit], faces.labels[:, unit]
        order, present = np.argsort(probabilities, kind="stable"), probabilities >= thresholds[unit]
        missed, false = order[((labels == 1) & ~present)[order]], order[((labels == 0) & present)[order]]
        result[unit] = {"missed": missed.tolist(), "falsely seen": false[::-1].tolist()}
    return result


def draw_failures(faces: RenderedSet, thresholds: NDArray[Any], path: Path) -> None:
    """Draw the weakest AUs' worst misses and worst false alarms as a JPEG; see `failures_of`."""
    from matplotlib.figure import Figure

    failures = failures_of(faces, thresholds)
    count = max(1, len(failures))
    figure = Figure(figsize=(1.4 + 1.4 * 2 * WORST, 1.75 * count), layout="constrained")
    grid = figure.subplots(count, 2 * WORST, squeeze=False)
    for axis in grid.ravel():
        axis.set(xticks=[], yticks=[], frame_on=False)
    for axes, (unit, sides) in zip(grid, failures.items(), strict=False):
        label = faces.names[unit]
        lines = [f"{label} {facs.ACTION_UNITS[int(label[2:])].name.lower()}"]
        intensities = faces.predictions.intensities[:, facs.SYNTHETIC.index(int(label[2:]))]
        for first, truth, (title, rows) in zip((0, WORST), (1, 0), sides.items(), strict=True):
            people: dict[str, int] = {}  # the worst failure of each
            for row in rows:
                people.setdefault(faces.predictions.subject_id[row], row)
            for axis, row in zip(axes[first : first + WORST], people.values(), strict=False):
                axis.imshow(np.asarray(faces.rows[row]["image"].convert("RGB")))
                axis.set_title(f"{title}, p = {faces.probabilities[row, unit]:.2f}, {intensities[row]:.1f}", fontsize=7)
            lines.append(f"{title} {len(rows)} of {np.count_nonzero(faces.labels[:, unit] == truth)}")
        axes[0].set_ylabel("\n".join(lines), fontsize=7)
    with whole_file(path) as part:
        figure.savefig(part, format="jpeg", dpi=100, pil_kwargs={"quality": 80, "optimize": True})
