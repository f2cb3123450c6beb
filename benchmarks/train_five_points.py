"""Train the cascade that finds the five points of an upright face, on rendered faces only.

Prints the error after each step of the cascade on identities that were not trained on, as a share of the distance
between the eyes. Rendering takes about 10 minutes on one CPU core, training one more; the renders are kept in
`runs/five_points`. Needs `pip install -e ".[synthetic]"` and a clone of ICT-FaceKit.

    python benchmarks/train_five_points.py --face-model ICT-FaceKit
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from hf_geaau.faces.five_points import CROP_EYES, CROP_SIDE, describe, step, upright_points
from hf_geaau.models.geaau.cropping_geaau import similarity_transform
from hf_geaau.synthetic import sample_scene
from hf_geaau.synthetic.face_model import load_face_model
from hf_geaau.synthetic.rendering import Renderer

SEED = 21
IMAGES, IMAGES_PER_IDENTITY, HELD_OUT = 9000, 3, 600
EYES_PX = 22  # distance between the eyes in the renders
STEPS, STARTS_PER_IMAGE, RIDGE = 3, 2, 20.0


def render_faces(face_model: str, folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Render heads in their surroundings: (n, 96, 96) gray and points (n, 5, 2)."""
    path = folder / f"renders-{SEED}-{IMAGES}.npz"
    if not path.exists():
        renderer = Renderer(load_face_model(face_model), supersample=1)
        rng = np.random.default_rng(SEED)
        images, points = np.empty((IMAGES, 96, 96), np.uint8), np.empty((IMAGES, 5, 2), np.float32)
        for index in range(IMAGES):
            scene = sample_scene(SEED, index, index // IMAGES_PER_IDENTITY)
            render = renderer.render_photo(scene, 192, 192, 2 * EYES_PX, (96, 80), float(rng.normal(0, 0.1)))
            small = cv2.resize(render.image, (96, 96), interpolation=cv2.INTER_AREA)
            images[index] = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
            points[index] = render.points / 2 - 0.5  # from pixel edges to pixel centres
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=images, points=points)
    data = np.load(path)
    return data["images"], data["points"].astype(np.float64)


def start(rng: np.random.Generator, truth: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """Draw points with errors like a detector's: an average face, rotated, scaled, shifted and noisy."""
    template = upright_points(CROP_SIDE, CROP_EYES)
    matrix = similarity_transform(template, truth)
    middle, angle = truth.mean(axis=0), rng.normal(0, 0.15 * spread)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.exp(rng.normal(0, 0.12 * spread))
    around = template @ matrix[:, :2].T + matrix[:, 2] - middle
    noise = rng.normal(0, 0.1 * spread, 2) + rng.normal(0, 0.06, (5, 2))
    return middle + scale * around @ turn.T + noise * EYES_PX


def fit(images: NDArray[np.uint8], truths: NDArray[np.float64], starts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Fit one step by ridge regression: (1765, 10)."""
    inputs, targets = [], []
    template = upright_points(CROP_SIDE, CROP_EYES)
    for image, truth, points in zip(images, truths, starts, strict=True):
        description, to_crop = describe(image, points)
        inputs.append(description)
        targets.append((truth @ to_crop[:, :2].T + to_crop[:, 2] - template).ravel() / CROP_EYES)
    x, y = np.array(inputs), np.array(targets, np.float32)
    gram = (x.T @ x).astype(np.float64)
    gram[np.diag_indices_from(gram)] += RIDGE
    return np.linalg.solve(gram, (x.T @ y).astype(np.float64)).astype(np.float32)


def main() -> None:
    """Render, train step by step, test on unseen identities, save in half precision."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--face-model", required=True, help="clone of ICT-FaceKit, or its packed .npz")
    parser.add_argument("--output", type=Path, default=Path("runs/five_points"))
    arguments = parser.parse_args()
    rng = np.random.default_rng(SEED)
    images, truths = render_faces(arguments.face_model, arguments.output)
    held_out = images[-HELD_OUT:], truths[-HELD_OUT:]
    images = np.repeat(images[:-HELD_OUT], STARTS_PER_IMAGE, axis=0)
    truths = np.repeat(truths[:-HELD_OUT], STARTS_PER_IMAGE, axis=0)
    points = np.array([start(rng, truth, 1.0) for truth in truths])
    tests = np.array([start(rng, truth, 0.5) for truth in held_out[1]])
    cascade = []
    for number in range(STEPS):
        weights = fit(images, truths, points).astype(np.float16)
        cascade.append(weights)
        points = np.array([step(weights.astype(np.float32), *pair) for pair in zip(images, points, strict=True)])
        tests = np.array([step(weights.astype(np.float32), *pair) for pair in zip(held_out[0], tests, strict=True)])
        eyes = np.linalg.norm(held_out[1][:, 1] - held_out[1][:, 0], axis=1)
        errors = np.linalg.norm(tests - held_out[1], axis=2).mean(axis=1) / eyes
        print(f"step {number + 1}: median {np.median(errors):.4f}, 90th percentile {np.quantile(errors, 0.9):.4f}")
    path = arguments.output / "five-points-synthetic.safetensors"
    metadata = {"trained_on": f"{IMAGES} rendered faces, benchmarks/train_five_points.py, seed {SEED}"}
    save_file({"cascade": np.array(cascade)}, path, metadata)
    print(f"Wrote {path}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
