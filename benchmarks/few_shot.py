"""Measure what the bundled weights save when they are fine-tuned on a few images of a user's own action units.

Two lists of AUs. "new": movements that no AU of the bundled weights covers, and that their training showed without a
label, so that the encoder had to ignore them. "known": AUs of the bundled weights whose rows start anew, as if the
user had brought them; the encoder has seen them, so these figures are an upper bound. Each run draws for each AU k
faces that show it and k that do not, fine-tunes on them as docs/fine_tuning.md does, and is scored on 300 people who
are in no training set, at threshold 0.5; for the known AUs also on photos with labels. The same is done from ImageNet
weights.

    python -m benchmarks.few_shot FACE_MODEL [--photos TABLE.csv] [--images 5 20 80] [--seeds 2]
"""

import argparse
import io
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.transforms import v2
from transformers import Trainer, TrainingArguments

from hf_geaau import GeaauImageProcessor, GeaauModel
from hf_geaau.faces import FaceDetector, read_photo
from hf_geaau.metrics import au_auc, au_f1
from hf_geaau.models.loading import BUNDLED_CHECKPOINT
from hf_geaau.synthetic import Renderer, load_face_model
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.scenes import Scene, sample_scene
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES
from hf_geaau.training.model import start_from_imagenet

NEW_UNITS: dict[int, tuple[str, ...]] = {
    18: ("mouthPucker",), 22: ("mouthFunnel",), 30: ("jawLeft", "jawRight"), 34: ("cheekPuff_L", "cheekPuff_R"),
}  # fmt: skip
FUNNEL = EXPRESSION_SHAPES.index("mouthFunnel")
KNOWN_UNITS = (1, 4, 6, 12, 17, 25, 26)  # those with nine or more positives among the photos we measured on


TRAINING_PEOPLE, TEST_PEOPLE, PER_PERSON = 500, 300, 2
EPOCHS, LEAST_STEPS, MOST_STEPS, BATCH = 20, 60, 200, 16


@dataclass
class Faces:
    """(F, 3, H, W) pixel values, and for each AU (F,) labels: 1 present, 0 absent, -1 not labeled."""

    pixel_values: torch.Tensor
    labels: dict[int, np.ndarray]

    def matrix(self, units: Sequence[int]) -> np.ndarray:
        return np.stack([self.labels[unit] for unit in units], 1)


def scene_with_new_units(seed: int, index: int, identity: int) -> tuple[Scene, dict[int, float]]:
    """Draw a scene that shows one of NEW_UNITS, or none, and return the labels that this decides."""
    scene, rng = sample_scene(seed, index, identity), np.random.default_rng([seed, index, 1])
    weights = scene.shape_weights.copy()
    for name in (name for names in NEW_UNITS.values() for name in names):
        weights[EXPRESSION_SHAPES.index(name)] = 0
    shown = int(rng.choice([0, *NEW_UNITS], p=[0.4, *[0.15] * 4]))
    if shown == 30:
        weights[EXPRESSION_SHAPES.index(str(rng.choice(NEW_UNITS[30])))] = rng.uniform(0.5, 1.2)
    elif shown:
        strength = rng.uniform(0.4, 1.2)
        for name in NEW_UNITS[shown]:
            weights[EXPRESSION_SHAPES.index(name)] = strength
    labels = {number: float(number == shown) for number in NEW_UNITS}
    # The funnel parts the lips more or less: whether that is AU25, the scene did not decide.
    is_sure = weights[FUNNEL] == scene.shape_weights[FUNNEL]
    return replace(scene, shape_weights=weights), labels if is_sure else {**labels, 25: -1.0}


def rendered(renderer: Renderer, processor: GeaauImageProcessor, people: int, first: int) -> Faces:
    """Render PER_PERSON faces of each of `people` people, numbered from `first`."""
    images, labels = [], []
    for index in range(people * PER_PERSON):
        scene, new = scene_with_new_units(515, PER_PERSON * first + index, first + index // PER_PERSON)
        images.append(renderer.render(scene).image)
        labels.append({**dict(zip(ACTION_UNITS, scene.labels, strict=True)), **new})
    columns = {number: np.array([row[number] for row in labels], np.float32) for number in labels[0]}
    return Faces(processor(images, aligned=True, return_tensors="pt").pixel_values, columns)


def labeled_photos(table: str, processor: GeaauImageProcessor) -> Faces:
    """Read the largest face of each photo of a CSV file with the columns `image`, AU01, AU02 and so on."""
    rows, detector = pd.read_csv(table), FaceDetector()
    photos = [read_photo(Path(table).parent / name) for name in rows["image"]]
    faces = [detector(photo)[:1] for photo in photos]
    points = [np.stack([face.points for face in found]) for found in faces if found]
    found = np.array([bool(each) for each in faces])
    seen = [photo for photo, is_found in zip(photos, found, strict=True) if is_found]
    labels = {unit: rows.loc[found, f"AU{unit:02d}"].fillna(-1).to_numpy(np.float32) for unit in KNOWN_UNITS}
    return Faces(processor(seen, points=points, return_tensors="pt").pixel_values, labels)


def few(faces: Faces, units: Sequence[int], images: int, rng: np.random.Generator) -> np.ndarray:
    """Draw for each AU `images` faces that show it and as many that do not; return their indices, each once."""
    chosen = [
        rng.choice(np.flatnonzero(faces.labels[unit] == label), images, replace=False)
        for unit in units
        for label in (1, 0)
    ]
    return np.unique(np.concatenate(chosen))


def start(name: str, units: Sequence[int]) -> GeaauModel:
    """Return the bundled weights with new rows for `units`, or the same network with ImageNet weights."""
    bundled = GeaauModel.from_pretrained(BUNDLED_CHECKPOINT, dtype=torch.float32)
    model = bundled.with_action_units([11]).with_action_units(list(units))  # AU11 is none of ours: nothing is shared
    model.gee.requires_grad_(name != "frozen")
    if name == "ImageNet":
        model = start_from_imagenet(GeaauModel(model.config))
    return model


def fine_tuned(model: GeaauModel, faces: Faces, chosen: np.ndarray, units: Sequence[int], seed: int) -> GeaauModel:
    """Fine-tune on the chosen faces as docs/fine_tuning.md does."""
    labels, mirror = torch.from_numpy(faces.matrix(units)[chosen]), v2.RandomHorizontalFlip()
    rows = [{"pixel_values": faces.pixel_values[i], "labels": row} for i, row in zip(chosen, labels, strict=True)]

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        values = {name: torch.stack([row[name] for row in batch]) for name in ("pixel_values", "labels")}
        return {**values, "pixel_values": torch.stack([mirror(image) for image in values["pixel_values"]])}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=int(np.clip(EPOCHS * len(rows) / BATCH, LEAST_STEPS, MOST_STEPS)),
            per_device_train_batch_size=BATCH,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=10,
            seed=seed,
            label_names=["labels"],
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        Trainer(model, arguments, collate, rows).train()
    return model.eval()


@torch.inference_mode()
def scores(model: GeaauModel, faces: Faces, units: Sequence[int]) -> dict[str, float]:
    """Return the mean F1 at threshold 0.5 and the mean AUC over AUs."""
    logits = torch.cat([model(part).logits for part in faces.pixel_values.split(64)])
    probabilities, labels = torch.sigmoid(logits).numpy(), faces.matrix(units)
    return {"F1": au_f1(labels, probabilities)["mean"]["f1"], "AUC": au_auc(labels, probabilities)["mean"]["auc"]}


def write_example(renderer: Renderer, target: str, people: int = 42) -> None:
    """Write examples/faces.parquet: two faces of each person, which show AU12, AU18, AU34 or none."""
    rows, acts = [], (0, 18, 34, 12, 18, 34)
    for index in range(2 * people):
        shown, zeros = acts[(index + index // 6) % 6], np.zeros(len(ACTION_UNITS))
        if shown == 12:
            zeros[ACTION_UNITS.index(12)] = 3.5
        scene = replace(sample_scene(717, index, 70_000 + index // 2, zeros), occluder="")
        weights = scene.shape_weights.copy()
        for unit, names in NEW_UNITS.items():
            for name in names:
                weights[EXPRESSION_SHAPES.index(name)] = 1.0 if unit == shown else 0.0
        content = io.BytesIO()
        picture = renderer.render(replace(scene, shape_weights=weights)).image
        Image.fromarray(picture).save(content, "JPEG", quality=80)
        labels = {f"AU{unit}": int(unit == shown) for unit in (12, 18, 34)}
        rows.append(
            {"image": {"bytes": content.getvalue(), "path": None}, "subject": f"person{index // 2:02d}", **labels}
        )
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).to_parquet(target)


def main() -> None:
    """Print a row for each list of AUs, start and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("face_model", metavar="FACE_MODEL", help="clone of ICT-FaceKit, or its packed .npz")
    parser.add_argument("--photos", metavar="TABLE.csv", help="columns image, AU01, AU04, …: photos to be scored on")
    parser.add_argument("--images", type=int, nargs="+", default=[5, 20, 80], help="faces with each AU, k")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--lists", nargs="+", default=["new", "known"])
    parser.add_argument(
        "--starts", nargs="+", default=["bundled", "ImageNet"], help="also: frozen, the encoder's weights"
    )
    parser.add_argument("--example", metavar="FILE", help="write examples/faces.parquet, and measure nothing")
    arguments = parser.parse_args()
    if arguments.example:
        with closing(Renderer(load_face_model(arguments.face_model), 128)) as renderer:
            write_example(renderer, arguments.example)
        return
    processor = GeaauImageProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    renderer = Renderer(load_face_model(arguments.face_model), processor.size["height"])
    training = rendered(renderer, processor, TRAINING_PEOPLE, 50_000)
    tests = {"rendered": rendered(renderer, processor, TEST_PEOPLE, 60_000)}
    renderer.close()
    photos = {"photos": labeled_photos(arguments.photos, processor)} if arguments.photos else {}
    bundled = GeaauModel.from_pretrained(BUNDLED_CHECKPOINT, dtype=torch.float32).eval()
    print("| AUs | start | images per AU | on | F1 | AUC |\n|---|---|--:|---|--:|--:|")
    for name, faces in {**tests, **photos}.items():
        whole = scores(bundled.with_action_units(list(KNOWN_UNITS)), faces, KNOWN_UNITS)
        print(f"| known | bundled, as it is | 0 | {name} | {whole['F1']:.3f} | {whole['AUC']:.3f} |", flush=True)
    lists = {"new": tuple(NEW_UNITS), "known": KNOWN_UNITS}
    for kind, units in ((name, lists[name]) for name in arguments.lists):
        for images in arguments.images:
            for name in arguments.starts:
                found: dict[str, list[dict[str, float]]] = {}
                for seed in range(arguments.seeds):
                    chosen = few(training, units, images, np.random.default_rng([seed, images]))
                    torch.manual_seed(seed)
                    model = fine_tuned(start(name, units), training, chosen, units, seed)
                    for place, faces in {**tests, **(photos if kind == "known" else {})}.items():
                        found.setdefault(place, []).append(scores(model, faces, units))
                for place, values in found.items():
                    means = {key: np.mean([each[key] for each in values]) for key in ("F1", "AUC")}
                    print(
                        f"| {kind} | {name} | {images} | {place} | {means['F1']:.3f} | {means['AUC']:.3f} |", flush=True
                    )


if __name__ == "__main__":
    main()
