"""Pictures of what the model sees: annotated photos and heat maps of the LAM masks."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hf_geaau.errors import MissingExtraError
from hf_geaau.facs import ACTION_UNITS

# Okabe & Ito's colour-blind-safe palette, without black and the dark blue that cannot be read on it.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#F0E442")


def require_matplotlib() -> None:
    """Raise `MissingExtraError` if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError('Heat maps need matplotlib. Install it with `pip install "hf_geaau[plots]"`.')


def annotate_photo(photo: Image.Image, faces: list[dict[str, Any]]) -> Image.Image:
    """Draw each face's box and the names of its present action units on a copy of the photo.

    Args:
        photo: The upright photo, RGB.
        faces: The pipeline's result for it.

    Returns:
        A new image, of the photo's size.
    """
    picture = photo.copy()
    draw = ImageDraw.Draw(picture)
    for index, face in enumerate(faces):
        box = face["box"]
        colour = COLOURS[index % len(COLOURS)]
        height = box["ymax"] - box["ymin"]
        width = max(2, round(height / 80))
        draw.rectangle((box["xmin"], box["ymin"], box["xmax"], box["ymax"]), outline=colour, width=width)
        radius = width
        for x, y in face["points"]:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        _label(draw, _present_lines(face), box, colour, float(np.clip(height / 11, 10, 40)), picture.size)
    return picture


def _present_lines(face: dict[str, Any]) -> str:
    lines = [f"{label} {ACTION_UNITS[int(label[2:])].name.lower()}" for label in face["present"]]
    return "\n".join(lines) or "no AU present"


def _label(
    draw: ImageDraw.ImageDraw, text: str, box: dict[str, float], colour: str, points: float, size: tuple[int, int]
):
    """Write text right of the box, or left of it, or inside, wherever it fits."""
    font = ImageFont.load_default(points)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font)
    width, height, gap = right - left, bottom - top, points / 3
    x = box["xmax"] + gap
    if x + width + gap > size[0]:
        x = box["xmin"] - width - 2 * gap
    if x < 0:
        x = float(np.clip(box["xmin"] + gap, 0, max(0, size[0] - width - gap)))
    y = float(np.clip(box["ymin"], 0, max(0, size[1] - height - 2 * gap)))
    draw.rectangle((x - gap, y, x + width + gap, y + height + 2 * gap), fill="black")
    draw.multiline_text((x - left, y + gap - top), text, font=font, fill=colour)


def save_mask_sheet(crop: NDArray, face: dict[str, Any], path: Path) -> None:
    """Write one small picture per action unit: the crop under the heat map of its LAM mask.

    Args:
        crop: (3, H, W) aligned crop, uint8 values.
        face: A face of the pipeline's result, with "masks" (`return_masks=True`).
        path: The PNG to write.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image = np.moveaxis(np.asarray(crop), 0, -1).astype(np.uint8)
    units = list(face["action_units"].items())
    columns = min(6, len(units))
    rows = -(-len(units) // columns)
    figure = Figure(figsize=(1.75 * columns, 2.1 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    extent = (0, image.shape[1], image.shape[0], 0)
    for axis, mask, (label, probability) in zip(axes, face["masks"], units, strict=False):
        axis.imshow(image, extent=extent)
        axis.imshow(
            mask / max(float(mask.max()), 1e-9), extent=extent, cmap="inferno", alpha=0.5, interpolation="bilinear"
        )
        name = ACTION_UNITS[int(label[2:])].name
        weight = "bold" if label in face["present"] else "normal"
        axis.set_title(f"{label} {probability:.2f}\n{name}", fontsize=8, weight=weight)
    for axis in axes:
        axis.axis("off")
    figure.suptitle("Where each action unit looks: LAM mask, each scaled to its own maximum", fontsize=9)
    figure.savefig(path)
