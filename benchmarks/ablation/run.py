"""Train and score the arms of the ablation: do LAM and GEE help where people are few, as in the real benchmarks?

With everything else equal, it trains on rendered faces of 24 people a backbone with a linear layer, LAM in its place,
and both again on an encoder that was first trained on expression triplets of many other people (GEE). The test people
are new to all of them. No license is needed, and the same seeds give the same data.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import TrainingError
from hf_geaau.files import FolderClaim, whole_file, write_json

from .report import ARMS, Arm, Run, count_by_person, summarize, write_report

if TYPE_CHECKING:
    import datasets

    from hf_geaau.models.geaau import GeaauImageProcessor, GeaauModel
    from hf_geaau.training import Recipe
    from hf_geaau.training.model import Network


@dataclass(frozen=True)
class Scale:
    """Size of a run. Images are rendered at 128 px.

    Attributes:
        train_identities, train_images: People with AU labels, as few as in the real sets, and images of each.
        test_identities, test_images: People of the test set, and images of each.
        expression_identities, expression_images: Other people, without AU labels, for the triplets of stage 1.
        triplets: Triplets drawn from them.
        image_size: Side of the network's input in pixels.
        au_steps, expression_steps: Optimizer steps of stage 2 and stage 1.
        au_batch, expression_batch: Images and triplets of one step.
        seeds: Repetitions; each draws the weights of the heads, the order and the augmentation anew.
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
    # Every arm overfits 20 images of each person, so that people are scarce, as in the real sets, and not steps.
    "full": Scale(24, 20, 60, 50, 2500, 8, 51_200, 80, 600, 1600, 32, 32, 3, "tf_efficientnet_lite0", -2),
    "smoke": Scale(24, 4, 30, 4, 60, 4, 200, 64, 6, 4, 16, 8, 1, "test_efficientnet", -2),
}
RENDER_SEED = 41
TRAIN_SAMPLE = 1200
"""Training images that are scored as well, to show how much better a model is on people of the training set."""
SETS = {  # folder: first identity; the ranges share nobody, and each has its own seed
    "train": 0,
    "test": 100_000,
    "expression": 200_000,
    "expression_test": 300_000,
    "other_rig": 2_000_000,  # people of another face model, if there is one: those of its test set
}


def run_ablation(
    face_model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    scale: str = "full",
    *,
    other_rig: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    device: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Render, train every arm with every seed, score, and write the report. Called again, it resumes.

    Args:
        face_model: ICT-FaceKit, see `hf_geaau.synthetic.load_face_model`.
        output: Folder of everything: renders, `seed<k>/<arm>/`, `results.json`, `report.md`, `arms.png`, `masks.png`.
        scale: One of `SCALES`.
        other_rig: Another face model, whose people are tested as well: the hardest test, because neither its meshes nor
            its skins occur in training.
        workers: Processes that render; None for one per core.
        device: Such as "cpu"; None for the accelerator if there is one.
        report: Called with a line whenever a part is done.

    Returns:
        The content of `results.json`.

    Raises:
        TrainingError: If the folder holds an ablation of another scale, or another process writes to it.
        MissingExtraError: Without the packages of the extra "benchmark".
    """
    if scale not in SCALES:
        raise TrainingError(f"`scale` must be one of {', '.join(SCALES)}, got '{scale}'.")
    size, folder = SCALES[scale], Path(output)
    settings = {"scale": scale, **asdict(size), **({} if other_rig is None else {"other_rig": Path(other_rig).name})}
    with FolderClaim(folder, settings, record="scale.json", error=TrainingError, content="an ablation"):
        minutes = _render(face_model, other_rig, folder / "renders", size, workers or os.cpu_count() or 1, report)
        encoders: list[dict[str, Any]] = []
        runs: list[Run] = []
        for seed in range(size.seeds):  # seed by seed, so that an interrupted ablation has whole seeds
            job = _Job(folder / "renders", folder / f"seed{seed}", size, seed, device)
            encoders.append(_train_encoder(job))
            report(f"seed {seed}: GEE, triplet accuracy {encoders[-1]['triplet_accuracy']:.3f}")
            for name, arm in ARMS.items():
                runs.append(_train_arm(job, name, arm))
                report(f"seed {seed}: {arm.title}, mean F1 {runs[-1].result['f1']:.3f}")
        results = {
            "scale": asdict(size),
            "render_minutes": minutes,
            "machine": _machine(device),
            "encoders": encoders,
            **summarize(runs),
            "runs": [run.result for run in runs],
        }
        write_json(results, folder / "results.json")
        write_report(results, folder)
    return results


@dataclass(frozen=True)
class _Job:
    """What all trainings of one seed share: folders of renders and results, scale, seed and device."""

    renders: Path
    folder: Path
    size: Scale
    seed: int
    device: str | None

    @property
    def use_cpu(self) -> bool | None:
        return True if self.device == "cpu" else None


def _machine(device: str | None) -> str:
    import platform

    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() and device != "cpu" else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def _render(
    face_model: str | os.PathLike[str],
    other_rig: str | os.PathLike[str] | None,
    folder: Path,
    size: Scale,
    workers: int,
    report: Callable[[str], None],
) -> float:
    """Render the sets; return the minutes it took, also if an earlier run rendered them."""
    from hf_geaau.synthetic import render_dataset

    seconds = 0.0
    people = {
        "train": (size.train_identities, size.train_images),
        "test": (size.test_identities, size.test_images),
        "expression": (size.expression_identities, size.expression_images),
        "expression_test": (size.test_identities, size.expression_images),
    }
    if other_rig is not None:
        people["other_rig"] = size.test_identities, size.test_images
    for offset, (name, (identities, images)) in enumerate(people.items()):
        render_dataset(
            other_rig if name == "other_rig" and other_rig is not None else face_model,
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


def _recipe(job: "_Job", stage: str, steps: int, **model: Any) -> "Recipe":
    """Return the recipe of one training; the arms share everything but what they are compared for."""
    from hf_geaau.training import load_recipe

    size = job.size
    name, batch = ("synthetic", size.au_batch) if stage == "action_units" else ("synthetic_gee", size.expression_batch)
    shape = {"backbone": size.backbone, "backbone_stage": size.backbone_stage, "image_size": size.image_size, **model}
    shape["backbone_kwargs"] = None
    if model.get("head") == "lam":
        shape |= {"mask_activation": "sigmoid", "mask_region_weight": 0.1}
    if stage == "action_units":
        data: dict[str, Any] = {
            "class_weighting": "pos_weight",  # without it, rare AUs score 0 at threshold 0.5 for many steps
            "encoder_learning_rate_scale": 1.0,  # every arm fits its few images within the steps
        }
    else:
        data = {"options.triplets": size.triplets, "options.seed": job.seed}
    settings = {
        **{f"model.{key}": value for key, value in shape.items()},
        **data,
        "max_steps": steps,
        "epochs": None,
        "batch_size": batch,
        "validation_share": 0.0,  # no checkpoint is chosen: every arm is scored after its last step
        "early_stopping": None,
        "evaluate_steps": None,
        "precision": "bf16",
        "pretrained_backbone": False,
        "workers": 1,
        "seed": job.seed,
    }
    return load_recipe(name, settings)


def _train_encoder(job: _Job) -> dict[str, Any]:
    """Train stage 1: GEE on triplets of people who occur nowhere else, without AU labels."""
    from hf_geaau.data import load
    from hf_geaau.evaluation import predict_triplets
    from hf_geaau.metrics import triplet_accuracy
    from hf_geaau.models.geaau import GeaauForExpressionEmbedding, GeaauImageProcessor
    from hf_geaau.training import train
    from hf_geaau.training.recipe import geaau_config

    home, size = job.folder / "encoder", job.size
    if (home / "result.json").exists():
        return dict(json.loads((home / "result.json").read_text(encoding="utf-8")))
    recipe = _recipe(job, "expression", size.expression_steps)
    _seed(job.seed)
    network = _from_imagenet(GeaauForExpressionEmbedding(geaau_config(recipe)))
    train(recipe, job.renders / "expression", home, None, model=network, use_cpu=job.use_cpu, show_progress=False)
    # Loaded, because `network` is untrained if an earlier run had finished the training.
    model, processor = GeaauForExpressionEmbedding.from_pretrained(home), GeaauImageProcessor.from_pretrained(home)
    count = max(60, size.triplets // 10)
    unseen = load("synthetic", job.renders / "expression_test", fold=None, split="train", triplets=count, seed=job.seed)
    predictions = predict_triplets(model, processor, unseen, device=job.device)
    scores = triplet_accuracy(predictions.distances, predictions.triplet_types)
    result = {"triplet_accuracy": scores["accuracy"], "triplets": count, "minutes": _minutes(home)}
    write_json(result, home / "result.json")  # written last; its presence marks completion
    return result


def _train_arm(job: _Job, name: str, arm: Arm) -> Run:
    """Train stage 2 of one arm, and score it on the test people."""
    from hf_geaau.models.geaau import GeaauImageProcessor, GeaauModel
    from hf_geaau.training import open_split, train, training_config

    folder, data = job.folder / name, job.renders / "train"
    if (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return Run(result, np.load(folder / "counts.npy"))
    recipe = _recipe(job, "action_units", arm.length * job.size.au_steps, head=arm.head)
    config = training_config(recipe, open_split(recipe, data, None))
    _seed(job.seed)  # equal heads start from equal weights
    if arm.encoder:
        network = GeaauModel.from_expression_encoder(str(job.folder / "encoder"), config)
    else:
        network = _from_imagenet(GeaauModel(config))
    train(recipe, data, folder, None, model=network, use_cpu=job.use_cpu, show_progress=False)
    # Loaded, because `network` is untrained if an earlier run had finished the training.
    model, processor = GeaauModel.from_pretrained(folder), GeaauImageProcessor.from_pretrained(folder)
    scores, counts = _score_arm(job, model, processor, folder)
    result = {"arm": name, "seed": job.seed, "minutes": _minutes(folder), "steps": recipe.max_steps, **scores}
    with whole_file(folder / "counts.npy") as part, part.open("wb") as file:
        np.save(file, counts)
    write_json(result, folder / "result.json")  # written last; its presence marks completion
    return Run(result, counts)


def _score_arm(
    job: _Job, model: "GeaauModel", processor: "GeaauImageProcessor", folder: Path
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Score a trained arm on a sample of the training people and on the test people; count hits by person."""
    from hf_geaau.data import load
    from hf_geaau.evaluation import predict_dataset, score

    people = load("synthetic", job.renders / "train", fold=None, split="train")
    sample = np.sort(np.random.default_rng(0).permutation(len(people))[:TRAIN_SAMPLE])
    seen = predict_dataset(model, processor, people.select(sample), device=job.device)
    test = load("synthetic", job.renders / "test", fold=None, split="train")
    predictions = predict_dataset(model, processor, test, device=job.device)
    report = score(predictions, model.config, facs.SYNTHETIC)
    crossed = {}
    if (job.renders / "other_rig").is_dir():
        others = load("synthetic", job.renders / "other_rig", fold=None, split="train")
        found = predict_dataset(model, processor, others, device=job.device)
        mean = score(found, model.config, facs.SYNTHETIC)["mean"]
        crossed = {"cross_f1": mean["f1"], "cross_auc": mean["auc"]}
    scores = {
        **crossed,
        "train_f1": score(seen, model.config, facs.SYNTHETIC)["mean"]["f1"],
        **{key: report["mean"][key] for key in ("f1", "auc", "always_on_f1")},
        "per_au": report["action_units"],
        **_measure_masks(model, processor, test, folder / "masks.npy"),
    }
    return scores, count_by_person(predictions.probabilities, predictions.labels, predictions.subject_id)


def _from_imagenet(network: "Network") -> "Network":
    """Give a network ImageNet weights, unless no package carries those of its backbone: that of the smallest scale."""
    from hf_geaau.training.model import IMAGENET_BACKBONES, start_from_imagenet

    return start_from_imagenet(network) if network.config.backbone in IMAGENET_BACKBONES else network


def _seed(seed: int) -> None:
    import torch

    torch.manual_seed(seed)


def _minutes(folder: Path) -> float:
    """Read how long a finished training took."""
    return float(json.loads((folder / "training_facts.json").read_text(encoding="utf-8"))["minutes"])


def _measure_masks(
    model: "GeaauModel", processor: "GeaauImageProcessor", rows: "datasets.Dataset", target: Path
) -> dict[str, Any]:
    """Average the masks over the test faces; measure where they lie and how far they are from uniform."""
    import torch

    from hf_geaau.backends.torch_runner import TorchRunner, evaluating
    from hf_geaau.models.geaau.losses_geaau import mask_share

    if model.config.head != "lam":
        return {}
    regions = facs.regions("synthetic")
    with evaluating(model, model.device) as network:
        runner = TorchRunner(network, processor, keep=("masks",))
        masks = torch.from_numpy(runner.predict([row["image"].convert("RGB") for row in rows]).masks)
    shares = mask_share(masks, regions).mean(0).tolist()
    areas = mask_share(torch.ones_like(masks[:1]), regions)[0].tolist()  # the share of a uniform mask
    weights = masks.flatten(2).clamp(min=1e-12)
    weights = weights / weights.sum(-1, keepdim=True)
    entropy = -(weights * weights.log()).sum(-1).mean(0) / math.log(weights.shape[-1])
    with whole_file(target) as part, part.open("wb") as file:
        np.save(file, masks.mean(0).numpy())
    names = facs.labels("synthetic")
    return {
        "masks": {
            name: {"share": share, "area": area, "entropy": float(value)}
            for name, share, area, value in zip(names, shares, areas, entropy, strict=True)
        }
    }
