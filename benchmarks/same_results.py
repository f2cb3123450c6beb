"""Compare the results of two checkouts of this repository on the same inputs, by their command line.

Predicts photos and a video, prepares, evaluates and calibrates on an imitation of BP4D, and trains for a few steps,
with each checkout's own code. Every row, score and weight must be equal within the tolerance. Exit code 0 means that
all are. The checkouts share one Python environment.

    git worktree add ../before HEAD~1
    python benchmarks/same_results.py ../before . --photos PHOTOS --work compared
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

PHOTOS = 50
FRAMES = 60
NETWORK = ("pretrained_backbone=false", "model.backbone=test_resnet", "model.image_size=64", "model.backbone_stage=-1")
SCHEDULE = ("max_steps=6", "epochs=null", "batch_size=8", "per_device_batch_size=8", "workers=0", "precision=fp32")
NOT_COMPARED = {
    "minutes",
    "commit",
    "checkpoint",
    "notes",
    "expected_calibration_error",
    "runtime",
    "machine",
    "hardware",
}
"""Keys that differ from run to run, or that only the later of two checkouts has."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="another checkout")
    parser.add_argument("--photos", type=Path, required=True, help=f"a folder; its first {PHOTOS} photos are used")
    parser.add_argument("--work", type=Path, default=Path("compared"), help="a new folder for all results")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    args = parser.parse_args()
    work = args.work.absolute()
    work.mkdir(parents=True)
    photos = sorted(path for path in args.photos.iterdir() if path.suffix == ".jpg")[:PHOTOS]
    (work / "photos.txt").write_text("\n".join(map(str, map(Path.absolute, photos))))
    write_video(photos[:3], work / "clip.mp4")
    for name, checkout in (("before", args.before), ("after", args.after)):
        (work / name).mkdir()
        for command in commands(work):
            run(command, checkout.absolute(), work / name)
    worst = {name: difference(work, name) for name in ("photos", "video", "evaluate", "calibrate", "train", "weights")}
    for name, (count, largest) in worst.items():
        print(f"{name:10} {count:7,} values compared, largest difference {largest:.2g}")
    return int(any(not largest <= args.tolerance for _, largest in worst.values()))


def write_video(photos: list[Path], path: Path) -> None:
    """Write a video in which each photo moves slowly, with cuts between them."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for photo in photos:
            picture = Image.open(photo).convert("RGB").resize((400, 400))
            for index in range(FRAMES // len(photos)):
                canvas = Image.new("RGB", (640, 480), "gray")
                canvas.paste(picture, (60 + 2 * index, 40))
                container.mux(stream.encode(av.VideoFrame.from_image(canvas)))
        container.mux(stream.encode())


def commands(work: Path) -> Iterator[list[str]]:
    """Yield the arguments of `hf-geaau`, relative to a folder of each checkout."""
    yield ["predict", str(work / "photos.txt"), "--output", "photos.csv"]
    yield ["predict", str(work / "clip.mp4"), "--output", "video.csv"]
    yield ["example-data", "bp4d", "bp4d"]
    yield ["prepare", "bp4d", "--data-dir", "bp4d", "--output", "crops", "--workers", "1"]
    yield ["evaluate", "--dataset", "bp4d", "--data-dir", "crops", "--output", "evaluate.json", "--workers", "0"]
    yield ["calibrate", "--dataset", "bp4d", "--data-dir", "crops", "--output", "calibrated", "--workers", "0"]
    yield ["train", "bp4d", "--data-dir", "crops", "--output", "trained", "--cpu", *NETWORK, *SCHEDULE]


def run(command: list[str], checkout: Path, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["HF_DATASETS_CACHE"] = str(folder / "cache")  # rows that another run cached must not be compared
    done = subprocess.run(
        [sys.executable, "-m", "hf_geaau", *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode > 1 or "Traceback" in done.stderr:  # 1: some photo shows no face
        sys.exit(f"{checkout}: {' '.join(command)}\n{done.stdout}\n{done.stderr}")


def difference(work: Path, name: str) -> tuple[int, float]:
    """Return how many values were compared, and the largest difference between the two checkouts."""
    before, after = (list(values(work / side, name)) for side in ("before", "after"))
    later = dict(after)
    pairs = [(value, later.get(key, math.nan)) for key, value in before]
    return len(pairs), max((distance(*pair) for pair in pairs), default=math.nan)


def values(folder: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of one kind of result."""
    if name in ("photos", "video"):
        table = pd.read_csv(folder / f"{name}.csv")
        for column in table.columns:
            yield from ((f"{column} {row}", value) for row, value in enumerate(table[column].tolist()))
    elif name == "weights":
        from safetensors.numpy import load_file

        for key, tensor in load_file(folder / "trained" / "model.safetensors").items():
            yield from ((f"{key} {index}", value) for index, value in enumerate(np.ravel(tensor).tolist()))
    elif name == "evaluate":
        content = json.loads((folder / "evaluate.json").read_text())
        yield from flat(content.get("reports", {"test": content})["test"])
    else:
        file = {"calibrate": "calibrated/calibration.json", "train": "trained/metrics.json"}[name]
        yield from flat(json.loads((folder / file).read_text()))


def flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a JSON value."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in NOT_COMPARED:
                yield from flat(value, f"{prefix}/{key}")
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from flat(value, f"{prefix}/{index}")
    else:
        yield prefix, content


def distance(value: Any, other: Any) -> float:
    """Return the absolute difference of numbers; of anything else 0 if it is equal, infinity if not."""
    numbers = (int, float)
    if isinstance(value, numbers) and isinstance(other, numbers):
        if math.isnan(value) and math.isnan(other):
            return 0.0
        return abs(value - other) if math.isfinite(value - other) else math.inf
    return 0.0 if value == other else math.inf


if __name__ == "__main__":
    sys.exit(main())
