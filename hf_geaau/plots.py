"""Pictures of what the model sees: annotated photos, heat maps of the LAM masks, action units over time, sheets."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hf_geaau.errors import MissingExtraError
from hf_geaau.facs import ACTION_UNITS

if TYPE_CHECKING:
    import pandas as pd

# Okabe & Ito's color-blind-safe palette, without black and the dark blue that cannot be read on it.
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#F0E442")


def require_matplotlib() -> None:
    """Raise `MissingExtraError` if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError('Pictures need matplotlib. Install it with `pip install "hf_geaau[plots]"`.')


def annotate_photo(photo: Image.Image, faces: list[dict[str, Any]], heat_map: int | None = None) -> Image.Image:
    """Draw each face's box, its identity if it has one, and its present action units on a copy of the photo.

    Args:
        photo: The upright photo, RGB.
        faces: The pipeline's result for it; "track_id", if there is one, is written down and selects the color.
        heat_map: Index of an action unit whose LAM mask is laid over the face; the faces then need "masks" and
            "to_crop", the (2, 3) matrix from photo pixels to the unit square of the crop.

    Returns:
        A new image of the photo's size.
    """
    picture = photo.copy() if heat_map is None else _with_heat(photo, faces, heat_map)
    draw = ImageDraw.Draw(picture)
    labels: list[tuple[str, dict[str, float], str, float]] = []
    for index, face in enumerate(faces):
        box = face["box"]
        track = face.get("track_id")
        color = COLORS[(index if track is None else track - 1) % len(COLORS)]
        height = box["ymax"] - box["ymin"]
        width = max(2, round(height / 80))
        draw.rectangle((box["xmin"], box["ymin"], box["xmax"], box["ymax"]), outline=color, width=width)
        for x, y in face["points"]:
            draw.ellipse((x - width, y - width, x + width, y + width), fill=color)
        name = "" if track is None else f"face {track}\n"
        present = [f"{label} {ACTION_UNITS[int(label[2:])].name.lower()}" for label in face["present"]]
        labels.append((name + ("\n".join(present) or "no AU present"), box, color, float(np.clip(height / 11, 10, 40))))
    taken = [(box["xmin"], box["ymin"], box["xmax"], box["ymax"]) for _, box, _, _ in labels]
    for text, box, color, points in labels:  # last, so that no box is drawn over a label
        taken.append(_label(draw, text, box, color, points, picture.size, taken))
    return picture


def _with_heat(photo: Image.Image, faces: list[dict[str, Any]], unit_index: int) -> Image.Image:
    """Lay the mask of one action unit over every face, each scaled to its own maximum; dark is zero."""
    import cv2

    pixels = np.asarray(photo).astype(np.float32)
    height, width = pixels.shape[:2]
    for face in faces:
        mask = np.asarray(face["masks"][unit_index], np.float32)
        mask = mask / max(float(mask.max()), 1e-9)
        # Cell centers lie at (i + 0.5) / side of the crop.
        sides = np.array(mask.shape[::-1], float)
        to_cells = face["to_crop"] * sides[:, None] - [[0, 0, 0.5]]
        heat = cv2.warpAffine(mask, to_cells, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        tint = np.array([255.0, 176.0, 0.0])
        strength = 0.75 * heat[..., None]
        pixels = pixels * (1 - strength) + tint * strength
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def blur_faces(photo: Image.Image, boxes: Sequence[Sequence[float]]) -> Image.Image:
    """Make faces unrecognizable on a copy of the photo: an ellipse around each box keeps at most 6 cells across.

    Args:
        photo: RGB.
        boxes: xyxy in pixels.
    """
    picture = photo.copy()
    for box in boxes:
        left, top, right, bottom = (float(value) for value in box)
        grow_x, grow_y = 0.2 * (right - left), 0.2 * (bottom - top)
        left, top = max(0, round(left - grow_x)), max(0, round(top - grow_y))
        right, bottom = min(photo.width, round(right + grow_x)), min(photo.height, round(bottom + grow_y))
        if right - left < 1 or bottom - top < 1:
            continue
        region = picture.crop((left, top, right, bottom))
        coarse = region.resize((min(6, region.width), min(7, region.height)), Image.Resampling.BOX)
        shape = Image.new("L", region.size)
        ImageDraw.Draw(shape).ellipse((0, 0, region.width - 1, region.height - 1), fill=255)
        picture.paste(coarse.resize(region.size, Image.Resampling.BILINEAR), (left, top), shape)
    return picture


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: dict[str, float],
    color: str,
    points: float,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Write text right of the box, left of it, below or above, where it covers least; return its rectangle."""
    font = ImageFont.load_default(points)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font)
    gap = points / 3
    width, height = right - left + 2 * gap, bottom - top + 2 * gap
    corners = [
        (box["xmax"], box["ymin"]),
        (box["xmin"] - width, box["ymin"]),
        (box["xmin"], box["ymax"]),
        (box["xmin"], box["ymin"] - height),
    ]
    candidates = []
    for x, y in corners:
        x, y = (float(np.clip(at, 0, max(0, most))) for at, most in ((x, size[0] - width), (y, size[1] - height)))
        candidates.append((x, y, x + width, y + height))
    chosen = min(candidates, key=lambda candidate: sum(_shared_area(candidate, other) for other in taken))
    draw.rectangle(chosen, fill="black")
    draw.multiline_text((chosen[0] + gap - left, chosen[1] + gap - top), text, font=font, fill=color)
    return chosen


def _shared_area(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> float:
    """Return the area that two rectangles share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def save_mask_sheet(crop: NDArray, face: dict[str, Any], path: Path) -> None:
    """Write one small picture per action unit: the crop under the heat map of its LAM mask.

    Args:
        crop: (3, H, W) aligned crop, uint8 values.
        face: A face of the pipeline's result, with "masks" (`return_masks=True`).
        path: The PNG to write.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    image = np.moveaxis(np.asarray(crop), 0, -1).astype(np.uint8)
    units = list(face["action_units"].items())
    columns = min(6, len(units))
    title = "Where each action unit looks: LAM mask, each scaled to its own maximum"
    figure, axes = _small_multiples(len(units), title, 1.75 * columns, 2.1 * -(-len(units) // columns), columns)
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
    _save(figure, path)


def save_time_series(rows: "pd.DataFrame", thresholds: Mapping[str, float], path: Path, title: str) -> None:
    """Draw one face over time: a small plot per action unit, threshold dashed, spans where it is present shaded.

    Args:
        rows: The rows of one track, from `hf_geaau.video.tables.read_table`; where the face was not seen for longer
            than usual, the line is broken.
        thresholds: Threshold of each action unit; its keys select what is drawn.
        path: The picture to write.
        title: Its heading.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure, axes = _small_multiples(len(thresholds), title)
    rows = rows.sort_values("frame")
    times = rows["time_s"].to_numpy(float) if rows["time_s"].notna().all() else rows["frame"].to_numpy(float)
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 1.0
    breaks = np.flatnonzero(steps > 2.5 * usual) + 1
    for axis, (unit, threshold) in zip(axes, thresholds.items(), strict=False):
        present = rows[f"{unit}_present"].to_numpy() == 1
        for part, shown, is_present in zip(
            np.split(times, breaks),
            np.split(rows[unit].to_numpy(float), breaks),
            np.split(present, breaks),
            strict=True,
        ):
            axis.plot(part, shown, color="#0072B2", linewidth=1.1, marker="." if len(part) == 1 else None)
            for first, last in _spans(is_present):
                axis.axvspan(part[first] - usual / 2, part[last] + usual / 2, color="#E69F00", alpha=0.35, linewidth=0)
        axis.axhline(threshold, color="#555555", linewidth=0.8, linestyle="--")
        name = ACTION_UNITS[int(unit[2:])].name
        axis.set_title(f"{unit} {name} · present {present.mean():.0%}", fontsize=8, loc="left")
        axis.set_ylim(-0.03, 1.03)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(thresholds) :]:
        axis.set_visible(False)
    figure.supxlabel("seconds" if rows["time_s"].notna().all() else "frame", fontsize=8)
    figure.supylabel("probability", fontsize=8)
    _save(figure, path)


def _spans(present: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first and last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], present.astype(int), [0]])))
    return [(int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def save_cooccurrence(table: "pd.DataFrame", units: Sequence[str], path: Path) -> None:
    """Draw how often action units are present together: in each row, the share of that unit's faces with the column's.

    Args:
        table: From `hf_geaau.video.tables.read_table`.
        units: Which action units.
        path: The picture to write.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure, axes = _small_multiples(1, "Which action units are present together", width=7.2, height=6.4)
    axis = axes[0]
    present = table[[f"{unit}_present" for unit in units]].to_numpy(float)
    counts = present.T @ present
    total = np.diag(counts)
    shares = np.divide(counts, total[:, None], out=np.full_like(counts, np.nan), where=total[:, None] > 0)
    picture = axis.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    for row, column in np.ndindex(shares.shape):
        if not np.isnan(shares[row, column]) and len(units) <= 24:
            dark = shares[row, column] < 0.5
            text = f"{100 * shares[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    axis.set_xticks(range(len(units)), units, rotation=90, fontsize=7)
    axis.set_yticks(range(len(units)), [f"{unit} ({int(n)})" for unit, n in zip(units, total, strict=True)], fontsize=7)
    axis.set_xlabel("also present", fontsize=8)
    axis.set_ylabel("of the faces with (how many)", fontsize=8)
    bar = figure.colorbar(picture, ax=axis, shrink=0.8)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("share, in %: 100 × color", fontsize=8)
    _save(figure, path)


def save_contact_sheet(
    crops: Sequence[NDArray[Any]], captions: Sequence[str], path: Path, title: str, columns: int = 6
) -> None:
    """Draw face crops with captions side by side.

    Args:
        crops: (H, W, 3) uint8 each.
        captions: One per crop.
        path: The picture to write.
        title: Its heading.
        columns: Crops per row.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    columns = max(1, min(columns, len(crops)))
    rows = max(1, -(-len(crops) // columns))
    figure, axes = _small_multiples(columns * rows, title, 1.6 * columns, 1.95 * rows + 0.3, columns)
    for axis in axes:
        axis.axis("off")
    for axis, crop, caption in zip(axes, crops, captions, strict=False):
        axis.imshow(crop)
        axis.set_title(_plain(caption), fontsize=7)
    _save(figure, path)


def _small_multiples(
    count: int, title: str, width: float | None = None, height: float | None = None, columns: int | None = None
) -> tuple[Any, NDArray[Any]]:
    """Return a figure of `count` axes that needs no display, and the axes."""
    require_matplotlib()
    from matplotlib.figure import Figure

    columns = columns or min(3, count)
    rows = -(-count // columns)
    size = (width or 3.4 * columns, height or 1.35 * rows + 0.7)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    figure.suptitle(_plain(title), fontsize=10, wrap=True)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _plain(text: str) -> str:
    """Escape text that may hold a file's name: matplotlib takes what stands between dollars for mathematics.

    `parse_math=False` does not suffice, because the wrapping of lines measures them as mathematics nevertheless.
    """
    return text.replace("$", r"\$")


def _save(figure: Any, path: Path) -> None:
    """Write a figure at once; characters that matplotlib's font lacks become boxes, without a warning."""
    import warnings

    from hf_geaau.files import whole_file

    with whole_file(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(part, format=path.suffix[1:] or "png")
