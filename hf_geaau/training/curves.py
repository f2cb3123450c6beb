"""The curves of a run as one picture: training and validation loss, and the score that chooses the checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_geaau.files import whole_file
from hf_geaau.plots import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's color-blind-safe palette; the line styles distinguish them in gray as well.
_TRAIN, _VALIDATION, _BEST = "#0072B2", "#D55E00", "#009E73"
_SCORES = {"expression": ("eval_accuracy", "triplet accuracy"), "action_units": ("eval_f1", "mean F1")}


def save_curves(history: list[dict[str, Any]], path: Path, stage: str) -> None:
    """Draw the Trainer's log.

    Args:
        history: `trainer.state.log_history`.
        path: The PNG to write.
        stage: The recipe's; it decides the score.

    Raises:
        MissingExtraError: Without matplotlib.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    key, name = _SCORES[stage]
    panels = 2 if any(key in entry for entry in history) else 1
    figure = Figure(figsize=(5.2 * panels, 3.6), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _line(axes[0], history, "loss", "training", _TRAIN, "-")
    _line(axes[0], history, "eval_loss", "validation", _VALIDATION, "o--")
    axes[0].set_ylabel("loss")
    if panels == 2:
        _line(axes[1], history, key, "validation subjects", _VALIDATION, "o--")
        best = max((entry for entry in history if key in entry), key=lambda entry: entry[key])
        axes[1].plot(best["step"], best[key], "*", color=_BEST, markersize=14, label=f"best, {best[key]:.3f}")
        axes[1].set_ylabel(name)
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as part:
        figure.savefig(part, format="png")


def _line(axis: "Axes", history: list[dict[str, Any]], key: str, label: str, color: str, style: str) -> None:
    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    if points:
        axis.plot(*zip(*points, strict=True), style, color=color, label=label, linewidth=1.6, markersize=4)
