"""The licence-free benchmark: do GTLE-Net's two ideas help where people are few, as in the real benchmarks?

On rendered faces of 24 people it trains, with everything else equal, a backbone with a linear layer, LAM in its place,
and both again on an encoder that was first trained on expression triplets of many other people (GEE). It scores them on
people that none of them has seen. No licence is needed, and the same seeds give the same data.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_geaau import facs
from hf_geaau.errors import TrainingError
from hf_geaau.files import whole_file

from .report import ARMS, Arm, Run, count_by_person, summarise, write_report

if TYPE_CHECKING:
    import datasets

    from hf_geaau.models.geaau import GeaauModel
    from hf_geaau.training import Recipe


@dataclass(frozen=True)
class Scale:
    """How large a run is. Images are rendered at 128 px.

    Attributes:
        train_identities, train_images: People with AU labels, few as in the real sets, and images of each.
        test_identities, test_images: People of the test set, and images of each.
        expression_identities, expression_images: Other people, without AU labels, for the triplets of stage 1.
        triplets: Triplets drawn from them.
        image_size: Side of the network's input in pixels.
        au_steps, expression_steps: Optimiser steps of stage 2 and stage 1.
        au_batch, expression_batch: Images and triplets of one step.
        seeds: How many repetitions; each draws weights of the heads, order and augmentation anew.
        backbone, backbone_stage: The network; the expression map's stage.
    """

    train_identities: int
    train_images: int
    test_identities: int
    test_images: int
    expression_identities: int
    expression_images: int
    triplets: int
    image_size: int
    au_steps: int
    expression_steps: int
    au_batch: int
    expression_batch: int
    seeds: int
    backbone: str
    backbone_stage: int


SCALES = {
    # Every arm learns 20 images of each person by heart: people are scarce then, as in the real sets, and not steps.
    "full": Scale(24, 20, 60, 50, 2500, 8, 51_200, 80, 600, 1600, 32, 32, 3, "tf_efficientnet_lite0", -2),
    "smoke": Scale(24, 4, 30, 4, 60, 4, 200, 64, 6, 4, 16, 8, 1, "test_efficientnet", -2),
}
RENDER_SEED = 41
TRAIN_SAMPLE = 1200
"""Training images that are scored as well: how much better a model does on people it knows."""
SETS = {  # folder: first identity; the ranges share nobody, and each has its own seed
    "train": 0,
    "test": 100_000,
    "expression": 200_000,
    "expression_test": 300_000,
}


def run_benchmark(
    face_model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    scale: str = "full",
    *,
    workers: int | None = None,
    device: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Render, train every arm with every seed, score, and write the report. Started again, it goes on.

    Args:
        face_model: ICT-FaceKit, see `hf_geaau.synthetic.load_face_model`.
        output: Folder of everything: renders, `seed<k>/<arm>/`, `results.json`, `report.md`, `arms.png`, `masks.png`.
        scale: One of `SCALES`.
        workers: Processes that render.
        device: Such as "cpu"; None takes what there is.
        report: Called with a line whenever something is done.

    Returns:
        What `results.json` holds.

    Raises:
        TrainingError: If the folder holds a benchmark of another scale.
        MissingExtraError: Without the extra "benchmark".
    """
    from hf_geaau.files import write_json

    if scale not in SCALES:
        raise TrainingError(f"`scale` must be one of {', '.join(SCALES)}, got '{scale}'.")
    size, folder = SCALES[scale], Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "scale.json", {"scale": scale, **asdict(size)})
    minutes = _render(face_model, folder / "renders", size, workers or os.cpu_count() or 1, report)
    encoders: list[dict[str, Any]] = []
    runs: list[Run] = []
    for seed in range(size.seeds):  # seed by seed, so that an interrupted benchmark has whole seeds
        home = folder / f"seed{seed}"
        encoders.append(_train_encoder(folder / "renders", home / "encoder", size, seed, device))
        report(f"seed {seed}: GEE, triplet accuracy {encoders[-1]['triplet_accuracy']:.3f}")
        for name, arm in ARMS.items():
            runs.append(_train_arm(folder / "renders", home, name, arm, size, seed, device))
            report(f"seed {seed}: {arm.title}, mean F1 {runs[-1].facts['f1']:.3f}")
    results = {
        "scale": asdict(size),
        "render_minutes": minutes,
        "machine": _machine(device),
        "encoders": encoders,
        **summarise(runs),
        "runs": [run.facts for run in runs],
    }
    write_json(results, folder / "results.json")
    write_report(results, folder)
    return results


def _claim(path: Path, settings: dict[str, Any]) -> None:
    from hf_geaau.files import write_json

    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise TrainingError(
            f"'{path.parent}' must be new or hold the same benchmark, got another one. Choose a folder."
        )
    write_json(settings, path)


def _machine(device: str | None) -> str:
    import platform

    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() and device != "cpu" else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def _render(
    face_model: str | os.PathLike[str], folder: Path, size: Scale, workers: int, report: Callable[[str], None]
) -> float:
    """Render the four sets; gives the minutes it took, also if it was an earlier run that rendered."""
    from hf_geaau.synthetic import render_dataset

    seconds = 0.0
    people = {
        "train": (size.train_identities, size.train_images),
        "test": (size.test_identities, size.test_images),
        "expression": (size.expression_identities, size.expression_images),
        "expression_test": (size.test_identities, size.expression_images),
    }
    for offset, (name, (identities, images)) in enumerate(people.items()):
        render_dataset(
            face_model,
            identities * images,
            RENDER_SEED + offset,
            folder / name,
            size=128,
            images_per_identity=images,
            first_identity=SETS[name],
            workers=workers,
        )
        began, ended = ((folder / name / file).stat().st_mtime for file in ("render.json", "labels.parquet"))
        seconds += ended - began
        report(f"{name}: {identities} people, {identities * images} images")
    return round(seconds / 60, 1)


def _recipe(stage: str, size: Scale, seed: int, steps: int, **model: Any) -> "Recipe":
    """Give the recipe of one training; all arms share everything but what they are compared for."""
    from hf_geaau.training import load_recipe

    name, batch = ("synthetic", size.au_batch) if stage == "action_units" else ("synthetic_gee", size.expression_batch)
    shape = {"backbone": size.backbone, "backbone_stage": size.backbone_stage, "image_size": size.image_size, **model}
    shape["backbone_kwargs"] = None
    if model.get("head") == "lam":
        shape |= {"mask_activation": "sigmoid", "mask_region_weight": 0.1}
    if stage == "action_units":
        data: dict[str, Any] = {
            "class_weighting": "pos_weight",  # else rare AUs score 0 at threshold 0.5 for long
            "encoder_learning_rate_scale": 1.0,  # every arm fits its few images within the steps
        }
    else:
        data = {"options.triplets": size.triplets, "options.seed": seed}
    settings = {
        **{f"model.{key}": value for key, value in shape.items()},
        **data,
        "max_steps": steps,
        "epochs": None,
        "batch_size": batch,
        "validation_share": 0.0,  # nothing is chosen: every arm is scored after its last step
        "early_stopping": None,
        "evaluate_steps": None,
        "precision": "bf16",
        "pretrained_backbone": False,
        "workers": 1,
        "seed": seed,
    }
    return load_recipe(name, settings)


def _train_encoder(renders: Path, home: Path, size: Scale, seed: int, device: str | None) -> dict[str, Any]:
    """Stage 1: GEE on triplets of people who occur nowhere else; no AU label is read."""
    import torch

    from hf_geaau.data import load
    from hf_geaau.evaluation import predict_triplets
    from hf_geaau.files import write_json
    from hf_geaau.metrics import triplet_accuracy
    from hf_geaau.models.geaau import GeaauForExpressionEmbedding, GeaauImageProcessor
    from hf_geaau.training import start_from_imagenet, train
    from hf_geaau.training.recipe import model_config

    facts = home / "facts.json"
    if facts.exists():
        return json.loads(facts.read_text(encoding="utf-8"))
    recipe = _recipe("expression", size, seed, size.expression_steps)
    torch.manual_seed(seed)
    model = start_from_imagenet(GeaauForExpressionEmbedding(model_config(recipe)))
    train(recipe, renders / "expression", home, fold=None, model=model, use_cpu=_only_cpu(device), show_progress=False)
    count = max(60, size.triplets // 10)
    unseen = load("synthetic", renders / "expression_test", fold=None, split="train", triplets=count, seed=seed)
    # Not the model above: that is still new if the training had ended in an earlier run.
    model, processor = GeaauForExpressionEmbedding.from_pretrained(home), GeaauImageProcessor.from_pretrained(home)
    predictions = predict_triplets(model, processor, unseen, device=device)
    scores = triplet_accuracy(predictions.distances, predictions.triplet_types)
    found = {"triplet_accuracy": scores["accuracy"], "triplets": count, "minutes": _minutes(home)}
    write_json(found, facts)  # last: its presence says that the encoder is finished
    return found


def _train_arm(renders: Path, home: Path, name: str, arm: Arm, size: Scale, seed: int, device: str | None) -> Run:
    """Stage 2 of one arm, and its scores on the test people."""
    import torch

    from hf_geaau.data import load
    from hf_geaau.evaluation import predict_dataset, score
    from hf_geaau.files import write_json
    from hf_geaau.models.geaau import GeaauImageProcessor, GeaauModel
    from hf_geaau.training import start_from_imagenet, train
    from hf_geaau.training.recipe import model_config

    folder = home / name
    if (folder / "facts.json").exists():
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        return Run(facts, np.load(folder / "counts.npy"))
    recipe = _recipe("action_units", size, seed, arm.length * size.au_steps, head=arm.head)
    torch.manual_seed(seed)  # the heads start alike wherever they are alike
    if arm.encoder:
        model = GeaauModel.from_expression_encoder(str(home / "encoder"), model_config(recipe))
    else:
        model = start_from_imagenet(GeaauModel(model_config(recipe)))
    train(recipe, renders / "train", folder, fold=None, model=model, use_cpu=_only_cpu(device), show_progress=False)
    # Not the model above: that is still new if the training had ended in an earlier run.
    model, processor = GeaauModel.from_pretrained(folder), GeaauImageProcessor.from_pretrained(folder)
    people = load("synthetic", renders / "train", fold=None, split="train")
    some = np.sort(np.random.default_rng(0).permutation(len(people))[:TRAIN_SAMPLE])
    known = predict_dataset(model, processor, people.select(some), device=device)
    test = load("synthetic", renders / "test", fold=None, split="train")
    predictions = predict_dataset(model, processor, test, device=device)
    scores = score(predictions, model.config, facs.SYNTHETIC)
    counts = count_by_person(predictions.probabilities, predictions.labels, predictions.subject_id)
    facts = {
        "arm": name,
        "seed": seed,
        "minutes": _minutes(folder),
        "steps": recipe.max_steps,
        "train_f1": score(known, model.config, facs.SYNTHETIC)["mean"]["f1"],
        **{key: scores["mean"][key] for key in ("f1", "auc", "always_on_f1")},
        "per_au": scores["action_units"],
        **_look_at_masks(model, processor, test, folder / "masks.npy"),
    }
    with whole_file(folder / "counts.npy") as part, part.open("wb") as file:
        np.save(file, counts)
    write_json(facts, folder / "facts.json")  # last: its presence says that the arm is finished
    return Run(facts, counts)


def _only_cpu(device: str | None) -> bool | None:
    return True if device == "cpu" else None


def _minutes(folder: Path) -> float:
    """Read how long a finished training took."""
    return float(json.loads((folder / "training_facts.json").read_text(encoding="utf-8"))["minutes"])


def _look_at_masks(model: "GeaauModel", processor: Any, rows: "datasets.Dataset", target: Path) -> dict[str, Any]:
    """Average the masks over the test faces; measure where they lie and whether they are more than a constant."""
    import torch

    from hf_geaau.models.geaau.losses_geaau import mask_share
    from hf_geaau.training.data import Collator, CropDataset

    if model.config.head != "lam":
        return {}
    dataset = CropDataset(rows, model.config.image_size, facs.SYNTHETIC)
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, collate_fn=Collator(processor))
    regions = facs.regions("synthetic")
    model.eval()
    with torch.inference_mode():
        masks = torch.cat([model(batch["pixel_values"].to(model.device)).au_masks.float().cpu() for batch in loader])
    shares = mask_share(masks, regions).mean(0).tolist()
    areas = mask_share(torch.ones_like(masks[:1]), regions)[0].tolist()  # what a constant mask would reach
    chances = masks.flatten(2).clamp(min=1e-12)
    chances = chances / chances.sum(-1, keepdim=True)
    entropy = -(chances * chances.log()).sum(-1).mean(0) / math.log(chances.shape[-1])
    with whole_file(target) as part, part.open("wb") as file:
        np.save(file, masks.mean(0).numpy())
    names = facs.labels("synthetic")
    return {
        "masks": {
            name: {"share": share, "area": area, "entropy": float(value)}
            for name, share, area, value in zip(names, shares, areas, entropy, strict=True)
        }
    }
