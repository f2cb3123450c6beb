"""Measure the errors of the five points that `FaceDetector` finds, on rendered photos whose true points are known.

Prints the share of missed faces, the mean and spread of each point's error by face size and by yaw, how heavy the
tails are, and the constants of `hf_geaau.synthetic.point_errors`, to be pasted there. Errors are in the frame of
the upright crop, in eye distances of CROP_TEMPLATE. Every face counts twice, the second time mirrored. The measurements
are kept in `runs/point_errors`, and a second run resumes from them. Needs `pip install -e ".[synthetic]"` and a clone
of ICT-FaceKit.

    python benchmarks/point_errors.py --face-model ICT-FaceKit
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_geaau.faces.detector import EYES_PER_BOX, FaceDetector
from hf_geaau.files import whole_file
from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE, similarity_transform
from hf_geaau.synthetic.face_model import load_face_model
from hf_geaau.synthetic.point_errors import features
from hf_geaau.synthetic.rendering import Renderer
from hf_geaau.synthetic.scenes import MAX_PITCH, MAX_YAW, sample_scene

SEED, IMAGES_PER_IDENTITY = 401, 3
PART = 25  # photos per file; an interruption loses at most these
HEIGHT, WIDTH = 360, 480
EYES_PX = 10, 90  # distance between the eyes in the photos: faces of 24 to 215 pixels
MISSED = 0.3  # a mean error above this many eye distances is another face, or none
MIRROR = [1, 0, 2, 4, 3]
EYES = CROP_TEMPLATE[1][0] - CROP_TEMPLATE[0][0]
Array = NDArray[np.float64]


def upright_errors(found: Array, truth: Array) -> Array:
    """Errors (5, 2) in the frame of the upright crop, in eye distances of the template."""
    matrix = similarity_transform(truth, np.array(CROP_TEMPLATE))
    return (found - truth) @ matrix[:, :2].T / EYES


def measure(renderer: Renderer, detector: FaceDetector, index: int) -> Array:
    """Render photo `index` and find its face: (13,), yaw, pitch and face pixels, and the error (10), NaN if missed."""
    rng = np.random.default_rng([SEED, index])
    scene = sample_scene(SEED, index, index // IMAGES_PER_IDENTITY)
    if index % 2:  # half of the heads are turned, so that there are enough of them to fit
        scene = replace(scene, yaw=rng.uniform(-MAX_YAW, MAX_YAW), pitch=rng.uniform(-MAX_PITCH, MAX_PITCH))
    eyes, roll = np.exp(rng.uniform(*np.log(EYES_PX))), rng.normal(0, 0.12)
    free = np.maximum(np.array([WIDTH, HEIGHT]) / 2 - 2 * eyes, 0)
    middle = np.array([WIDTH, HEIGHT]) / 2 + rng.uniform(-1, 1, 2) * free
    photo = renderer.render_photo(scene, HEIGHT, WIDTH, eyes, (middle[0], middle[1]), float(roll))
    truth = photo.points.astype(np.float64) - 0.5  # from pixel edges to pixel centres
    found = [upright_errors(face.points.astype(np.float64), truth) for face in detector(photo.image)]
    found = [error for error in found if np.linalg.norm(error, axis=1).mean() < MISSED]
    pixels = eyes / EYES_PER_BOX
    if scene.camera.source_side:
        pixels = min(pixels, scene.camera.face_pixels)
    return np.array([scene.yaw, scene.pitch, pixels, *(found[0].ravel() if found else [np.nan] * 10)])


def measure_part(face_model: str, path: Path, start: int) -> None:
    """Measure the photos of one part and write them to `path`; an existing part is kept."""
    if path.exists():
        return
    renderer, detector = _tools(face_model)
    rows = np.array([measure(renderer, detector, index) for index in range(start, start + PART)])
    with whole_file(path) as part, part.open("wb") as file:
        np.save(file, rows)


@cache
def _tools(face_model: str) -> tuple[Renderer, FaceDetector]:
    return Renderer(load_face_model(face_model), supersample=1), FaceDetector()


def show(name: str, values: Array, edges: list[float], errors: Array) -> None:
    """Print rows of a table: share missed, and mean and standard deviation of each point's error."""
    for low, high in pairwise(edges):
        inside = (values >= low) & (values < high)
        rows = errors[inside & ~np.isnan(errors[:, 0, 0])]
        missed = np.isnan(errors[inside, 0, 0]).mean()
        numbers = " | ".join(f"{x:+.3f} {y:+.3f} ± {s:.3f} {t:.3f}" for (x, y), (s, t) in
                             zip(rows.mean(0), rows.std(0), strict=True))  # fmt: skip
        size = np.linalg.norm(rows, axis=2).mean(1)
        print(f"| {name} {low:.0f}–{high:.0f} | {inside.sum()} | {missed:.1%} | {np.median(size):.3f} "
              f"| {np.quantile(size, 0.95):.3f} | {numbers} |")  # fmt: skip


def fit(conditions: Array, errors: Array) -> tuple[Array, Array, Array, float]:
    """Fit mean (6, 10), factor (10, 10), scale (6) and degrees of freedom of the multivariate t by EM."""
    from scipy.special import gammaln

    x, y = features(*conditions.T), errors.reshape(-1, 10)
    scaled, dimension = np.zeros(6), y.shape[1]
    best: tuple = (-np.inf,)
    for freedom in (2.5, 3, 4, 5, 6, 8, 10, 15, 30):
        weights, scale = np.ones(len(y)), scaled.copy()
        for _ in range(30):
            strength = weights * np.exp(-2 * x @ scale)
            mean = np.linalg.lstsq(x * np.sqrt(strength)[:, None], y * np.sqrt(strength)[:, None], rcond=None)[0]
            rest = y - x @ mean
            covariance = (rest * strength[:, None]).T @ rest / len(y)
            square = (rest @ np.linalg.inv(covariance) * rest).sum(1)
            # A log-linear scale: regress the log of the distance, without its constant.
            found = np.linalg.lstsq(x, 0.5 * np.log(square), rcond=None)[0]
            scale = np.array([0, *found[1:]])
            square *= np.exp(-2 * x @ scale)
            weights = (freedom + dimension) / (freedom + square)
        likelihood = np.sum(
            gammaln((freedom + dimension) / 2) - gammaln(freedom / 2) - dimension / 2 * np.log(freedom)
            - np.linalg.slogdet(covariance)[1] / 2 - dimension * x @ scale
            - (freedom + dimension) / 2 * np.log1p(square / freedom)
        )  # fmt: skip
        if likelihood > best[0]:
            best = likelihood, mean, np.linalg.cholesky(covariance), scale, float(freedom)
    return best[1:]  # type: ignore[return-value]


def main() -> None:
    """Render, find, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--face-model", required=True, help="clone of ICT-FaceKit, or its packed .npz")
    parser.add_argument("--count", type=int, default=1200, help="photos")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--output", type=Path, default=Path("runs/point_errors"), help="where measurements are kept")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    starts = range(0, arguments.count, PART)
    paths = [arguments.output / f"{SEED}-{start:06d}.npy" for start in starts]
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(measure_part, [arguments.face_model] * len(paths), paths, starts))
    measured = np.concatenate([np.load(path) for path in paths])
    conditions, errors = measured[:, :3], measured[:, 3:].reshape(-1, 5, 2)
    print("| faces | photos | missed | median | 95 % | image-left eye x y ± sd | right eye | nose | mouth | mouth |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    yaw, pixels = np.rad2deg(np.abs(conditions[:, 0])), conditions[:, 2]
    show("all, |yaw|°", yaw, [0, 90], errors)
    show("|yaw|°", yaw, [0, 10, 20, 30, 46], errors)
    show("face, pixels", pixels, [20, 36, 64, 128, 220], errors)
    found = ~np.isnan(errors[:, 0, 0])
    conditions, errors = conditions[found], errors[found]
    mirrored = errors[:, MIRROR] * [-1, 1]
    mean, factor, scale, freedom = fit(
        np.concatenate([conditions, conditions * [-1, 1, 1]]), np.concatenate([errors, mirrored])
    )
    spread = (errors - errors.mean(0)).reshape(len(errors), -1)
    kurtosis = (spread**4).mean(0) / (spread**2).mean(0) ** 2 - 3
    print(f"\n{len(errors)} of {len(measured)} faces found; mean excess kurtosis {kurtosis.mean():.1f} (normal: 0)\n")
    with np.printoptions(precision=4, suppress=True, linewidth=110):
        for name, value in (("MEAN", mean), ("FACTOR", factor), ("SCALE", scale), ("FREEDOM", freedom)):
            text = np.array2string(np.asarray(value), separator=", ")
            print(f"{name} = {text if name == 'FREEDOM' else f'np.array({text})'}")


if __name__ == "__main__":
    main()
