"""GTLE-Net: Global-to-local Expression-aware Embeddings for facial action unit detection (An et al., arXiv 2210.15160).

crop -> GEE (backbone -> expression map -> 16-d expression embedding)
     -> LAM (a feature map and a mask per AU, both from the expression map; their product is the AU masked feature)
     -> one classifier per AU

Only the paper's abstract was available to us. What it leaves open is marked "our choice". The paper's F1 values are not
reproduced here, because its data are licensed.
"""

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_geaau import GeaauConfig


@dataclass
class GeaauOutput(ModelOutput):
    """What `GeaauModel` returns. B batch, N AUs, C channels, D embedding, F features per AU, h×w the map's positions.

    Attributes:
        loss: Masked, weighted binary cross-entropy, a scalar; only if labels were given.
        logits: (B, N), one per AU of `config.action_units`; `sigmoid` makes them probabilities.
        expression_embedding: (B, D), L2-normalised.
        au_masks: (B, N, h, w), each value in [0, 1]; with softmax masks every map sums to 1.
        au_features: (B, N, F), the masked and pooled features that the classifiers read.
        expression_map: (B, C, h, w), the backbone's feature map of the configured stage.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    expression_embedding: Tensor | None = None
    au_masks: Tensor | None = None
    au_features: Tensor | None = None
    expression_map: Tensor | None = None


@dataclass
class GeaauExpressionOutput(ModelOutput):
    """What `GeaauForExpressionEmbedding` returns.

    Attributes:
        loss: Triplet loss, a scalar; only for triplets.
        expression_embedding: (B, D), or (B, 3, D) for triplets, L2-normalised.
        expression_map: (B, C, h, w), or (B, 3, C, h, w) for triplets.
    """

    loss: Tensor | None = None
    expression_embedding: Tensor | None = None
    expression_map: Tensor | None = None


def masked_bce_with_logits(
    logits: Tensor,
    labels: Tensor,
    au_weights: Tensor | None = None,
    pos_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Average binary cross-entropy over the labelled entries; an unlabelled one (-1) has no gradient.

    Args:
        logits: (B, N).
        labels: (B, N): 1 present, 0 absent, -1 not labelled.
        au_weights: (N,), weight of each AU.
        pos_weight: (N,), weight of each AU's positives.
        label_smoothing: Share of label mass given to the other class.

    Returns:
        A scalar, 0 if nothing is labelled.

    Source:
        Class-weighted BCE as in JAA-Net and ME-GraphAU. Dividing by the number of labelled entries is our choice.
    """
    labelled = (labels >= 0).to(torch.float32)
    targets = labels.clamp(0, 1).to(torch.float32) * (1 - label_smoothing) + 0.5 * label_smoothing
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), targets, weight=au_weights, pos_weight=pos_weight, reduction="none"
    )
    return (losses * labelled).sum() / labelled.sum().clamp(min=1)


def triplet_loss(embeddings: Tensor, margins: Tensor) -> Tensor:
    """Pull the similar pair (1, 2) together and push both away from the odd image 3.

    Args:
        embeddings: (B, 3, D), L2-normalised, in the order similar, similar, odd.
        margins: (B,) or a scalar.

    Returns:
        A scalar: the mean of (d12 - d13 + m)+ + (d12 - d23 + m)+ on squared L2 distances.

    Source:
        Vemulapalli & Agarwala, "A Compact Embedding for Facial Expression Similarity" (FECNet, arXiv 1811.11283).
    """
    first, second, odd = embeddings.float().unbind(1)
    d12 = (first - second).pow(2).sum(-1)
    d13 = (first - odd).pow(2).sum(-1)
    d23 = (second - odd).pow(2).sum(-1)
    return (F.relu(d12 - d13 + margins) + F.relu(d12 - d23 + margins)).mean()


def create_backbone(config: GeaauConfig, pretrained: bool = False) -> Any:
    """Build the timm feature extractor that ends at the configured stage.

    Raises:
        ValueError: If timm does not know the name, or the model has no such feature map.
    """
    if not timm.is_model(config.backbone):
        near = get_close_matches(config.backbone, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
        raise ValueError(f"`backbone` must name a model of timm {timm.__version__}, got '{config.backbone}'.{hint}")
    arguments = dict(config.backbone_kwargs or {})
    default = timm.get_pretrained_cfg(config.backbone)
    if default is not None and default.fixed_input_size:
        arguments.setdefault("img_size", config.image_size)
    try:
        return timm.create_model(
            config.backbone,
            pretrained=pretrained,
            features_only=True,
            feature_cls="getter",  # gives NCHW for every family and drops the layers behind the stage
            out_indices=(config.backbone_stage,),
            **arguments,
        )
    except (IndexError, AssertionError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"timm cannot build '{config.backbone}' as a feature extractor with"
            f" backbone_stage={config.backbone_stage}, image_size={config.image_size},"
            f" backbone_kwargs={config.backbone_kwargs}: {error}."
        ) from error


class GeaauExpressionEncoder(nn.Module):
    """GEE, the global expression representation encoder: expression map and expression embedding.

    Pooling by the mean, a LayerNorm that makes any backbone's scale fit, and one linear map are our choice.
    """

    def __init__(self, config: GeaauConfig, pretrained_backbone: bool = False):
        super().__init__()
        self.backbone: Any = create_backbone(config, pretrained_backbone)
        self.num_channels = self.backbone.feature_info.channels()[-1]
        self.norm = nn.LayerNorm(self.num_channels)
        self.projection = nn.Linear(self.num_channels, config.embedding_dim, bias=False)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        expression_map = self.backbone(pixel_values)[-1]  # (B, C, h, w)
        pooled = expression_map.mean(dim=(2, 3))
        embedding = F.normalize(self.projection(self.norm(pooled)), dim=-1)  # (B, D)
        return expression_map, embedding


class GeaauLocalFeatures(nn.Module):
    """LAM, the local AU features module: a feature map and a mask per AU, multiplied and pooled.

    Both extractors read the same expression map: a 1×1 convolution to a width shared out among the AUs, then a 3×3
    convolution in which each AU (a group) sees its own share. The layers are our choice.
    """

    def __init__(self, config: GeaauConfig, num_channels: int):
        super().__init__()
        self.num_aus = len(config.action_units)
        self.softmax = config.mask_activation == "softmax"
        hidden = math.ceil(config.lam_hidden_channels / self.num_aus) * self.num_aus
        features = self.num_aus * config.lam_feature_channels
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(num_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, features, 3, padding=1, groups=self.num_aus, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(inplace=True),
        )
        self.mask_extractor = nn.Sequential(
            nn.Conv2d(num_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, self.num_aus, 3, padding=1, groups=self.num_aus),
        )

    def forward(self, expression_map: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.feature_extractor(expression_map).flatten(2).unflatten(1, (self.num_aus, -1))  # (B, N, F, hw)
        scores = self.mask_extractor(expression_map)  # (B, N, h, w)
        flat = scores.flatten(2)  # (B, N, hw)
        if self.softmax:
            masks = flat.softmax(dim=-1)
            features = (maps * masks.unsqueeze(2)).sum(dim=-1)  # (B, N, F)
        else:
            masks = flat.sigmoid()
            features = (maps * masks.unsqueeze(2)).mean(dim=-1)
        return features, masks.view_as(scores)


class GeaauPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialising, shared by the two models."""

    config: GeaauConfig
    config_class = GeaauConfig
    base_model_prefix = "geaau"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ["GeaauExpressionEncoder", "GeaauLocalFeatures"]

    def __init__(self, config: GeaauConfig, pretrained_backbone: bool = False):
        super().__init__(config)
        if pretrained_backbone and torch.get_default_device().type == "meta":
            raise ValueError(
                "`pretrained_backbone=True` belongs to a new model, `GeaauModel(config, pretrained_backbone=True)`, got"
                " it in `from_pretrained`, whose checkpoint already holds the backbone. Leave it out."
            )
        self.gee = GeaauExpressionEncoder(config, pretrained_backbone)
        if not any(parameter.is_meta for parameter in self.gee.parameters()):
            for module in self.gee.backbone.modules():
                module._is_hf_initialized = True  # timm has initialised (or loaded) them; post_init must not redo it

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load a checkpoint as every transformers model does, but from safetensors only: a pickle can run code."""
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError(
                "Weights must be safetensors, got use_safetensors=False. Convert a pickle where you trust it:"
                " load it with torch.load(weights_only=True) and call save_pretrained."
            )
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # from_pretrained builds on the meta device, where non-persistent buffers lose their values; timm restores them.
        restore = getattr(module, "init_non_persistent_buffers", None)
        if callable(restore):
            restore()

    def _set_gradient_checkpointing(self, enable: bool = True, *args, **kwargs) -> None:
        backbone = self.gee.backbone
        if enable and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
            raise ValueError(
                f"Activation checkpointing needs a backbone without batch norm, got '{self.config.backbone}': its"
                " running statistics would be updated twice a step. Choose a backbone with layer norm, or leave it off."
            )
        backbone.model.set_grad_checkpointing(enable)

    def get_input_embeddings(self) -> None:
        """Return None: images have no token embeddings."""

    def _checked(self, pixel_values: Tensor) -> Tensor:
        channels = (self.config.backbone_kwargs or {}).get("in_chans", 3)
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(
                f"`pixel_values` must have shape (B, {channels}, H, W), got {tuple(pixel_values.shape)}."
                " Make them with GeaauImageProcessor."
            )
        return pixel_values.to(self.dtype)


class GeaauModel(GeaauPreTrainedModel):
    """The complete GTLE-Net: predicts action units from aligned face crops.

    Args:
        config: What to build.
        pretrained_backbone: Fetch timm's pretrained weights for the backbone. Off by default: building a model never
            touches the network unless asked.

    Example:
        >>> config = GeaauConfig(backbone="test_resnet", image_size=64, action_units=[12, 25])
        >>> model = GeaauModel(config).eval()
        >>> model(torch.zeros(1, 3, 64, 64)).logits.shape
        torch.Size([1, 2])
    """

    def __init__(self, config: GeaauConfig, pretrained_backbone: bool = False):
        super().__init__(config, pretrained_backbone)
        num_aus, num_features = len(config.action_units), config.lam_feature_channels
        self.lam = GeaauLocalFeatures(config, self.gee.num_channels)
        self.dropout = nn.Dropout(config.classifier_dropout)
        # A group per AU: each classifier sees the features of its own AU only.
        self.classifier = nn.Conv1d(num_aus * num_features, num_aus, 1, groups=num_aus)
        self.post_init()

    @classmethod
    def from_expression_encoder(cls, path: str, config: GeaauConfig, **kwargs) -> "GeaauModel":
        """Start stage 2 from the GEE of stage 1.

        Args:
            path: Directory or Hub id of a `GeaauForExpressionEmbedding` (or of a `GeaauModel`).
            config: The new model; its backbone, stage and embedding must be those of the encoder.
            **kwargs: Handed to `from_pretrained`, such as `revision`.

        Raises:
            ValueError: If the encoder has another architecture.
        """
        encoder = GeaauForExpressionEmbedding.from_pretrained(path, **kwargs)
        for name in ("backbone", "backbone_kwargs", "backbone_stage", "embedding_dim"):
            wanted, found = getattr(config, name), getattr(encoder.config, name)
            if wanted != found:
                raise ValueError(f"`{name}` must be the encoder's ({found!r}), got {wanted!r}. Change the config.")
        model = cls(config)
        model.gee.load_state_dict(encoder.gee.state_dict())
        return model

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> GeaauOutput | tuple[Tensor, ...]:
        """Predict action units.

        Args:
            pixel_values: (B, 3, H, W), normalised crops from `GeaauImageProcessor`.
            labels: (B, N): 1 present, 0 absent, -1 not labelled.
            return_dict: False for a plain tuple.
            **kwargs: Ignored; `transformers` hands over its own.

        Raises:
            ValueError: If an input has the wrong shape, or a label is none of -1, 0, 1.
        """
        expression_map, embedding = self.gee(self._checked(pixel_values))
        features, masks = self.lam(expression_map)
        logits = self.classifier(self.dropout(features).flatten(1).unsqueeze(-1)).squeeze(-1)  # (B, N)
        output = GeaauOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            expression_embedding=embedding,
            au_masks=masks,
            au_features=features,
            expression_map=expression_map,
        )
        return output if return_dict is not False else output.to_tuple()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        names = ", ".join(self.config.id2label.values())
        if labels.shape != logits.shape:
            raise ValueError(
                f"`labels` must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}. This model predicts"
                f" {logits.shape[1]} AUs: {names}. Reorder them with `hf_geaau.facs.remap`."
            )
        if not torch.compiler.is_compiling() and not torch.isin(labels, labels.new_tensor([-1, 0, 1])).all():
            raise ValueError(
                "`labels` must be 1 (present), 0 (absent) or -1 (not labelled), got other values. Map BP4D's 9 to -1"
                " and threshold intensities first."
            )
        weights = (self.config.au_weights, self.config.pos_weight)
        au_weights, pos_weight = (
            None if values is None else torch.tensor(values, dtype=torch.float32, device=logits.device)
            for values in weights
        )
        return masked_bce_with_logits(logits, labels, au_weights, pos_weight, self.config.label_smoothing)


class GeaauForExpressionEmbedding(GeaauPreTrainedModel):
    """GEE alone, trained on expression-similarity triplets (stage 1).

    Example:
        >>> config = GeaauConfig(backbone="test_resnet", image_size=64)
        >>> model = GeaauForExpressionEmbedding(config).eval()
        >>> model(torch.zeros(2, 3, 3, 64, 64)).expression_embedding.shape  # two triplets
        torch.Size([2, 3, 16])
    """

    def __init__(self, config: GeaauConfig, pretrained_backbone: bool = False):
        super().__init__(config, pretrained_backbone)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        triplet_types: Tensor | None = None,
        return_dict: bool | None = None,
        return_loss: bool = True,
        **kwargs,
    ) -> GeaauExpressionOutput | tuple[Tensor, ...]:
        """Embed expressions.

        Args:
            pixel_values: (B, 3, H, W) crops, or (B, 3, 3, H, W) triplets in the order similar, similar, odd.
            triplet_types: (B,) 0 one-class, 1 two-class, 2 three-class; chooses the margin. None: two-class.
            return_dict: False for a plain tuple.
            return_loss: Whether triplets give a loss.
            **kwargs: Ignored; `transformers` hands over its own.

        Raises:
            ValueError: If `pixel_values` has neither shape.
        """
        is_triplet = pixel_values.ndim == 5
        if is_triplet and pixel_values.shape[1] != 3:
            raise ValueError(f"Triplets must have shape (B, 3, 3, H, W), got {tuple(pixel_values.shape)}.")
        images = pixel_values.flatten(0, 1) if is_triplet else pixel_values
        expression_map, embedding = self.gee(self._checked(images))
        loss = None
        if is_triplet:
            embedding, expression_map = embedding.unflatten(0, (-1, 3)), expression_map.unflatten(0, (-1, 3))
            margins = torch.tensor(self.config.triplet_margins, device=embedding.device)
            if return_loss:
                loss = triplet_loss(embedding, margins[1] if triplet_types is None else margins[triplet_types.long()])
        output = GeaauExpressionOutput(loss=loss, expression_embedding=embedding, expression_map=expression_map)
        return output if return_dict is not False else output.to_tuple()


__all__ = ["GeaauForExpressionEmbedding", "GeaauModel", "GeaauPreTrainedModel"]
