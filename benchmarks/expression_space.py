"""Draw the expression embedding of rendered faces as a map: what lies close, the network takes for alike.

The two axes are the first principal components of the embeddings; each face is drawn at its place, as far as another
leaves room, with a frame in the color of the facial region of its strongest AU.

    python -m benchmarks.expression_space CHECKPOINT RENDERS docs/images/expression_space.jpg
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from hf_geaau import facs
from hf_geaau.backends import load_runner
from hf_geaau.data.synthetic import expression_class
from hf_geaau.faces import read_photo

COLORS = np.array([[150, 150, 150], [31, 119, 180], [255, 127, 14], [140, 86, 75], [148, 103, 189], [214, 39, 40],
                   [44, 160, 44]], np.uint8)  # fmt: skip
"""Of no AU, then of the regions in the order of `expression_class`."""


def places(embeddings: np.ndarray) -> np.ndarray:
    """Return the ranks (F, 2), 0 to 1, of the faces along the first two principal components."""
    centered = embeddings - embeddings.mean(0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    return np.argsort(np.argsort(centered @ axes[:2].T, axis=0), axis=0) / (len(embeddings) - 1)


def draw(faces: np.ndarray, spots: np.ndarray, colors: np.ndarray, width: int, tile: int) -> np.ndarray:
    """Draw as many faces as fit, each in the nearest free cell of a grid; (H, W, 3) uint8."""
    columns, rows = width // tile, width * 5 // 8 // tile
    canvas, taken = np.full((rows * tile, columns * tile, 3), 255, np.uint8), np.zeros((rows, columns), bool)
    for face, (x, y), color in zip(faces, spots, colors, strict=True):
        column, row = min(int(x * columns), columns - 1), min(int((1 - y) * rows), rows - 1)
        if taken[row, column]:
            continue
        taken[row, column] = True
        framed = cv2.copyMakeBorder(
            cv2.resize(face, (tile - 6, tile - 6), interpolation=cv2.INTER_AREA), 2, 2, 2, 2, cv2.BORDER_CONSTANT,
            value=color.tolist(),
        )  # fmt: skip
        canvas[row * tile + 1 : (row + 1) * tile - 1, column * tile + 1 : (column + 1) * tile - 1] = framed
    return canvas


def main() -> None:
    """Embed the faces and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("renders", type=Path, help="folder with labels.parquet, of people that training did not see")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--faces", type=int, default=1500)
    parser.add_argument("--width", type=int, default=1200)
    arguments = parser.parse_args()
    rows = pd.read_parquet(arguments.renders / "labels.parquet").head(arguments.faces)
    rows = rows[(rows["occluder"] == "") & (rows["yaw"].abs() < 0.4)]
    faces = np.stack([np.asarray(read_photo(arguments.renders / name)) for name in rows["file_name"]])
    runner = load_runner(arguments.checkpoint, backend="torch", device="cpu", keep=("embedding",))
    spots = places(runner.predict(list(faces)).embedding)
    colors = COLORS[expression_class(np.stack(rows["intensities"]))]
    picture = draw(faces, spots, colors, arguments.width, arguments.width // 20)
    cv2.imwrite(str(arguments.picture), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    names = ["none", *sorted({facs.ACTION_UNITS[number].region for number in facs.SYNTHETIC})]
    print("frames:", ", ".join(f"{name} {tuple(color)}" for name, color in zip(names, COLORS.tolist(), strict=True)))


if __name__ == "__main__":
    main()
