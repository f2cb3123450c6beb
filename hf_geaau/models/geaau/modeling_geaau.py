"""GTLE-Net: Global-to-local Expression-aware Embeddings for facial action unit detection (An et al., arXiv 2210.15160).

crop -> GEE (backbone -> expression map -> 16-d expression embedding)
     -> LAM (a feature map and a mask per AU, both from the expression map; their product is the AU masked feature)
     -> one classifier per AU

Only the paper's abstract was available to us. What it leaves open is marked "our choice". The paper's F1 values are not
reproduced here, because its data are licensed.
"""

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_geaau import GeaauConfig, action_unit_numbers
from .licensing_geaau import LicensedWeights
from .losses_geaau import (
    batch_triplet_loss,
    intensity_loss,
    mask_region_loss,
    occurrence_loss,
    side_choice_loss,
    triplet_loss,
)

SIDE_CHOICE_WEIGHT = 0.25
"""Of `side_choice_loss` beside the sides' occurrence loss. Our choice: trained on 1,600 renders with two in five action
units one-sided, models chose the correct side of .55 of new one-sided faces at 0, .65 at 0.1, .69 at 0.25, and .67 at
1, where the mean AUC of all action units fell from .85 to .82."""


@dataclass
class GeaauOutput(ModelOutput):
    """What `GeaauModel` returns. B batch, N AUs, C channels, D embedding, F features per AU, h×w the map's positions.

    Attributes:
        loss: A scalar; only if labels, intensities, sides or visibilities were given.
        logits: (B, N), one per AU of `config.action_units`; `GeaauImageProcessor.post_process_action_units` makes
            probabilities of them.
        intensities: (B, N), 0 to 5 (FACS A-E are 1-5); only with `config.predict_intensity`.
        side_logits: (B, N, 2), each AU on the person's left and right, to be read like `logits`; only with
            `config.predict_sides`. Of AUs without sides they mean nothing.
        visibility_logits: (B, N), whether each AU can be seen; only with `config.predict_visibility`.
        expression_embedding: (B, D), L2-normalized.
        au_masks: (B, N, h, w), each value in [0, 1]; with softmax masks every map sums to 1. None without LAM.
        au_features: (B, N, F), the masked and pooled features that the classifiers read. None without LAM.
        expression_map: (B, C, h, w), the backbone's feature map of the configured stage.
        temperature: (B, 1) float32, by which logits are divided before the sigmoid; the config's, in every row.
        thresholds: (B, N) float32, probability from which an AU counts as present; the config's, in every row.
        hidden_states: The backbone's feature maps (B, C, h, w) up to the expression map; with `output_hidden_states`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    intensities: Tensor | None = None
    side_logits: Tensor | None = None
    visibility_logits: Tensor | None = None
    expression_embedding: Tensor | None = None
    au_masks: Tensor | None = None
    au_features: Tensor | None = None
    expression_map: Tensor | None = None
    temperature: Tensor | None = None
    thresholds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class GeaauExpressionOutput(ModelOutput):
    """What `GeaauForExpressionEmbedding` returns.

    Attributes:
        loss: Triplet loss, a scalar; only for triplets.
        distances: (B, 3), squared L2 distances d12, d13, d23 of the embeddings; only for triplets.
        expression_embedding: (B, D), or (B, 3, D) for triplets, L2-normalized.
        expression_map: (B, C, h, w), or (B, 3, C, h, w) for triplets.
        hidden_states: The backbone's feature maps up to the expression map; with `output_hidden_states`.
    """

    loss: Tensor | None = None
    distances: Tensor | None = None
    expression_embedding: Tensor | None = None
    expression_map: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


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
    except (LookupError, ArithmeticError, AssertionError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"timm cannot build '{config.backbone}' as a feature extractor with"
            f" backbone_stage={config.backbone_stage}, image_size={config.image_size},"
            f" backbone_kwargs={config.backbone_kwargs}: {error}."
        ) from error


class GeaauExpressionEncoder(nn.Module):
    """GEE, the global expression representation encoder: expression map, its pooled features, expression embedding.

    Pooling by the mean, a LayerNorm that makes any backbone's scale fit, and one linear map are our choice.
    """

    gradient_checkpointing = False  # where transformers looks whether activation checkpointing is on

    def __init__(self, config: GeaauConfig, pretrained_backbone: bool = False):
        super().__init__()
        self.backbone: Any = create_backbone(config, pretrained_backbone)
        self.num_channels = self.backbone.feature_info.channels()[-1]
        self.norm = nn.LayerNorm(self.num_channels)
        self.projection = nn.Linear(self.num_channels, config.embedding_dim, bias=False)

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Return the backbone's feature maps (B, C, h, w) of every stage up to the configured one."""
        timm_model, stages = self.backbone.model, range(self.backbone.out_indices[-1] + 1)
        return tuple(timm_model.forward_intermediates(pixel_values, indices=list(stages), intermediates_only=True))

    def forward(self, pixel_values: Tensor, all_maps: bool = False) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        maps = self.feature_maps(pixel_values) if all_maps else tuple(self.backbone(pixel_values))  # last: (B, C, h, w)
        pooled = self.norm(maps[-1].mean(dim=(2, 3)))  # (B, C)
        embedding = F.normalize(self.projection(pooled), dim=-1)  # (B, D)
        return maps, pooled, embedding


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

        def normalization(channels: int) -> nn.Module:
            grouped = config.lam_normalization == "group"
            return nn.GroupNorm(self.num_aus, channels) if grouped else nn.BatchNorm2d(channels)

        self.feature_extractor = nn.Sequential(
            nn.Conv2d(num_channels, hidden, 1, bias=False),
            normalization(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, features, 3, padding=1, groups=self.num_aus, bias=False),
            normalization(features),
            nn.ReLU(inplace=True),
        )
        self.mask_extractor = nn.Sequential(
            nn.Conv2d(num_channels, hidden, 1, bias=False),
            normalization(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, self.num_aus, 3, padding=1, groups=self.num_aus),
        )

    def forward(self, expression_map: Tensor, with_sides: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return features (B, N, F), masks (B, N, h, w) and, if asked for, the sides' features (B, N, 2, F)."""
        maps = self.feature_extractor(expression_map).unflatten(1, (self.num_aus, -1))  # (B, N, F, h, w)
        scores = self.mask_extractor(expression_map)  # (B, N, h, w)
        features, masks = self._pool(maps, scores)
        return features, masks.view_as(scores), self._side_features(maps, scores) if with_sides else None

    def _pool(self, maps: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        maps, flat = maps.flatten(3), scores.flatten(2)  # (B, N, F, hw), (B, N, hw)
        if self.softmax:
            masks = flat.softmax(dim=-1)
            features = (maps * masks.unsqueeze(2)).sum(dim=-1)  # (B, N, F)
        else:
            masks = flat.sigmoid()
            # A weighted mean: were the product summed or averaged, masks of one everywhere would be the largest signal.
            features = (maps * masks.unsqueeze(2)).sum(dim=-1) / masks.sum(dim=-1, keepdim=True).clamp(min=1e-4)
        return features, masks

    def _side_features(self, maps: Tensor, scores: Tensor) -> Tensor:
        """Pool either half of the map by its own share of the mask, which may lie almost wholly on the other half.

        The person's left, which lies to the image's right, comes first. A middle column belongs to both halves.
        """
        width = scores.shape[-1]
        halves = slice(width // 2, width), slice(0, width - width // 2)
        return torch.stack([self._pool(maps[..., half], scores[..., half])[0] for half in halves], dim=2)


# What transformers hands over to every model's forward.
_IGNORED_KEYWORDS = frozenset({"output_attentions", "use_cache", "return_loss", "num_items_in_batch"})


def _restore_buffers(module: nn.Module) -> None:
    """Compute anew the buffers of a timm module that are not saved, such as indices of relative positions."""
    restore = getattr(module, "init_non_persistent_buffers", None)
    if callable(restore):
        restore()


def _can_checkpoint(timm_model: Any) -> bool:
    """Return whether activations can be computed anew: not with batch norm, whose statistics would be updated twice."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in timm_model.modules()):
        return False
    try:
        timm_model.set_grad_checkpointing(True)
        timm_model.set_grad_checkpointing(False)
    except (AssertionError, AttributeError):  # timm's answer for models without it
        return False
    return True


class GeaauPreTrainedModel(LicensedWeights, PreTrainedModel):
    """Loading, saving, sharing and initialising, common to the two models."""

    config: GeaauConfig
    config_class = GeaauConfig
    base_model_prefix = "geaau"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False
    _supports_sdpa = True  # timm's attention uses it by itself
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
                module._is_hf_initialized = True  # timm has initialized (or loaded) them; post_init must not redo it
        self.supports_gradient_checkpointing = _can_checkpoint(self.gee.backbone.model)  # as in timm_wrapper
        # Some backbones of timm, such as coat, use one module in several places. Of such names only the first is saved.
        first: dict[int, str] = {}
        named = self.named_parameters(remove_duplicate=False)
        shared = {name: first[id(p)] for name, p in named if first.setdefault(id(p), name) != name}
        self._tied_weights_keys = shared or None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint as every transformers model does, but from safetensors only: a pickle can run code."""
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError(
                "`use_safetensors` must be True, got False: a pickle can run code. Convert one that you trust:"
                " load it with torch.load(weights_only=True) and call save_pretrained."
            )
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return which parameters share a tensor: for each name, the one it is saved as."""
        return dict(self._tied_weights_keys or {})

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load tensors as every module does, also into a model that was built on the meta device."""
        result = super().load_state_dict(state_dict, strict, assign)
        for module in self.gee.backbone.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_meta:
                    setattr(module, name, torch.empty_like(buffer, device=self.device))
            _restore_buffers(module)
        return result

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # from_pretrained builds on the meta device, where non-persistent buffers lose their values.
        _restore_buffers(module)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Compute the backbone's activations anew on the way back, which saves memory.

        Raises:
            ValueError: If the backbone has batch norm, or timm cannot do so with it.
        """
        if not self.supports_gradient_checkpointing:
            raise ValueError(
                f"Cannot use activation checkpointing with '{self.config.backbone}': it has batch norm, whose running"
                " statistics would be updated twice a step, or timm cannot split it. Choose a backbone with layer"
                " norm, or leave it off."
            )
        super().activation_checkpointing_enable(*args, **kwargs)

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        self.gee.backbone.model.set_grad_checkpointing(enable)  # of its blocks, by timm's own means
        self.gee.gradient_checkpointing = enable

    def get_input_embeddings(self) -> None:
        """Return None: images have no token embeddings."""

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Refuse, as images have no token embeddings.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{type(self).__name__} reads images. It has no token embeddings to replace.")

    def _resolve(
        self, return_dict: bool | None, output_hidden_states: bool | None, others: dict[str, Any]
    ) -> tuple[bool, bool]:
        """Return both options, by default the config's, and refuse other keywords than those of transformers."""
        unknown = sorted(others.keys() - _IGNORED_KEYWORDS)
        if unknown:
            near = get_close_matches(unknown[0], inspect.signature(self.forward).parameters, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else " Leave it out."
            raise TypeError(f"{type(self).__name__} got an unknown keyword '{unknown[0]}'.{hint}")
        if others.get("output_attentions"):
            raise ValueError("`output_attentions` must be False: backbones of timm give no attention. See `au_masks`.")
        config = self.config
        return (
            bool(config.return_dict if return_dict is None else return_dict),
            bool(config.output_hidden_states if output_hidden_states is None else output_hidden_states),
        )

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
        self.dropout = nn.Dropout(config.classifier_dropout)
        if config.head == "lam":
            self.lam = GeaauLocalFeatures(config, self.gee.num_channels)

        def head() -> nn.Module:
            if config.head == "pooled":
                return nn.Linear(self.gee.num_channels, num_aus)
            # A group per AU: each classifier sees the features of its own AU only.
            return nn.Conv1d(num_aus * num_features, num_aus, 1, groups=num_aus)

        self.classifier = head()
        self.intensity_regressor = head() if config.predict_intensity else None
        self.visibility_classifier = head() if config.predict_visibility else None
        # Each side is read from the features of both, and has weights of its own, because features have directions:
        # shared ones chose the correct side of .59 instead of .69 (our choice, measured as SIDE_CHOICE_WEIGHT was).
        self.side_classifier = (
            nn.Conv1d(num_aus * 2 * num_features, num_aus * 2, 1, groups=num_aus) if config.predict_sides else None
        )
        if config.freeze_encoder:
            self.gee.requires_grad_(False)
        self.post_init()

    def train(self, mode: bool = True) -> "GeaauModel":
        """Switch to training; a frozen encoder stays as in evaluation, so that its running statistics stay too."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.gee.eval()
        return self

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint as every transformers model does, from safetensors only.

        Raises:
            ValueError: If another AU list is asked for than the checkpoint has: rows of the heads have no names, and
                a list of the same length would silently inherit the rows of other AUs. `ignore_mismatched_sizes=True`
                allows a list of another length, whose heads start anew; `with_action_units` keeps what is shared.
        """
        config = kwargs.get("config")
        wanted = kwargs.get("action_units") if config is None else getattr(config, "action_units", None)
        if "id2label" in kwargs:
            wanted = action_unit_numbers(kwargs["id2label"])
        if wanted is not None and pretrained_model_name_or_path is not None:
            names = ("revision", "token", "cache_dir", "local_files_only", "subfolder", "force_download")
            hub = {name: kwargs[name] for name in names if name in kwargs}
            found = GeaauConfig.get_config_dict(pretrained_model_name_or_path, **hub)[0].get("action_units", wanted)
            allowed = kwargs.get("ignore_mismatched_sizes") and len(found) != len(wanted)
            if list(found) != list(wanted) and not allowed:
                raise ValueError(
                    f"`action_units` must be those of the checkpoint, {list(found)}, got {list(wanted)}. Load it as it"
                    f" is, then call `with_action_units({list(wanted)})`, which keeps the AUs that both have."
                )
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_expression_encoder(cls, path: str, config: GeaauConfig, **kwargs: Any) -> "GeaauModel":
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
        model = cls(copy.deepcopy(config))
        model.gee.load_state_dict(encoder.gee.state_dict())
        seen = [*(encoder.config.trained_on or []), *(config.trained_on or [])]
        model.config.trained_on = list(dict.fromkeys(seen)) or None
        return model

    def with_action_units(self, action_units: list[int]) -> "GeaauModel":
        """Return a model for another list of AUs: shared AUs keep all that belongs to them, others start anew.

        Loading a checkpoint with another list, `from_pretrained(path, action_units=[...])`, cannot do that: tensors
        have no names for their rows.

        Args:
            action_units: FACS numbers, in the new order.

        Example:
            >>> config = GeaauConfig(backbone="test_resnet", image_size=64, action_units=[1, 12, 25])
            >>> GeaauModel(config).with_action_units([25, 6]).config.id2label
            {0: 'AU25', 1: 'AU06'}
        """
        old, config = self.config.action_units, copy.deepcopy(self.config)
        whole_crop = [[0.0, 0.0, 1.0, 1.0]]  # asks nothing of a mask
        new = {"thresholds": 0.5, "au_weights": 1.0, "pos_weight": 1.0, "mask_regions": whole_crop}
        per_au = {
            name: [getattr(config, name)[old.index(number)] if number in old else value for number in action_units]
            for name, value in new.items()
            if getattr(config, name) is not None
        }
        share = math.ceil(config.lam_hidden_channels / len(old))  # each AU keeps its width
        changes = {"action_units": list(action_units), "lam_hidden_channels": share * len(action_units), **per_au}
        kept = {k: v for k, v in config.to_dict().items() if k not in {*changes, "id2label", "label2id", "num_labels"}}
        model = type(self)(type(config).from_dict({**kept, **changes}))
        source, target = self.state_dict(), model.state_dict()
        shared = [(place, old.index(number)) for place, number in enumerate(action_units) if number in old]
        for name, tensor in target.items():
            if name.startswith("gee.") or tensor.ndim == 0:
                tensor.copy_(source[name])
                continue
            rows, old_rows = tensor.unflatten(0, (len(action_units), -1)), source[name].unflatten(0, (len(old), -1))
            for place, old_place in shared:  # every tensor of LAM and the heads has an equal share of rows per AU
                rows[place] = old_rows[old_place]
        return model.to(self.device, self.dtype).train(self.training)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        intensities: Tensor | None = None,
        return_dict: bool | None = None,
        output_hidden_states: bool | None = None,
        sides: Tensor | None = None,
        visible: Tensor | None = None,
        **kwargs: Any,
    ) -> GeaauOutput | tuple[Tensor, ...]:
        """Predict action units.

        Args:
            pixel_values: (B, 3, H, W), normalized crops from `GeaauImageProcessor`.
            labels: (B, N): 1 present, 0 absent, -1 not labeled; or booleans.
            intensities: (B, N): 0 to 5, -1 missing. Without effect unless the config has `predict_intensity` or an
                `embedding_weight`.
            return_dict: False for a plain tuple. None: what the config says.
            output_hidden_states: Return the backbone's feature maps. None: what the config says.
            sides: (B, N, 2), labels of the person's left and right. Without effect unless the config has
                `predict_sides`. Its name lacks "label", by which a Trainer tells the inputs that evaluation needs.
            visible: (B, N): 1 if the AU can be seen, 0 if something hides its region, -1 unknown. Without effect unless
                the config has `predict_visibility`.
            **kwargs: What `transformers` hands over to every model; ignored.

        Raises:
            TypeError: If a keyword is unknown.
            ValueError: If an input has the wrong shape, or a label is none of -1, 0, 1.
        """
        return_dict, output_hidden_states = self._resolve(return_dict, output_hidden_states, kwargs)
        maps, pooled, embedding = self.gee(self._checked(pixel_values), output_hidden_states)
        expression_map = maps[-1]
        features = masks = halves = None
        if self.config.head == "lam":
            features, masks, halves = self.lam(expression_map, with_sides=self.config.predict_sides)
        read = self.dropout(pooled) if features is None else self.dropout(features).flatten(1).unsqueeze(-1)
        logits = self.classifier(read).flatten(1)  # (B, N)
        strength = None if self.intensity_regressor is None else self.intensity_regressor(read).flatten(1)
        side_logits = None if halves is None else self._side_logits(halves)
        seen = None if self.visibility_classifier is None else self.visibility_classifier(read).flatten(1)
        loss = self._loss(logits, labels, strength, intensities, side_logits, sides, masks, embedding)
        if seen is not None and visible is not None:
            hiding = occurrence_loss(seen, self._checked_labels("visible", visible, logits))
            loss = self.config.visibility_weight * hiding + (0 if loss is None else loss)
        output = GeaauOutput(
            loss=loss,
            logits=logits,
            intensities=None
            if strength is None
            else (5 * self.config.intensity_scale * strength.sigmoid()).clamp(max=5),
            side_logits=side_logits,
            visibility_logits=seen,
            expression_embedding=embedding,
            au_masks=masks,
            au_features=features,
            expression_map=expression_map,
            hidden_states=maps if output_hidden_states else None,
            **self._calibration(logits),
        )
        return output if return_dict else output.to_tuple()

    def _side_logits(self, features: Tensor) -> Tensor:
        """Return (B, N, 2) of the sides' features (B, N, 2, F)."""
        assert self.side_classifier is not None
        read = self.dropout(features).flatten(1).unsqueeze(-1)  # (B, N * 2F, 1)
        return self.side_classifier(read).unflatten(1, (-1, 2)).squeeze(-1)

    def _calibration(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the config's temperature and thresholds for each row, so that outputs can be post-processed alone."""
        values = {"temperature": [self.config.temperature], "thresholds": self.config.thresholds}
        return {
            name: torch.tensor(row, dtype=torch.float32, device=logits.device).expand(logits.shape[0], -1)
            for name, row in values.items()
        }

    def _loss(
        self,
        logits: Tensor,
        labels: Tensor | None,
        strength: Tensor | None,
        intensities: Tensor | None,
        side_logits: Tensor | None,
        sides: Tensor | None,
        masks: Tensor | None,
        embedding: Tensor,
    ) -> Tensor | None:
        config = self.config
        if strength is None and not config.embedding_weight:
            intensities = None
        if intensities is not None:
            self._check_targets("intensities", intensities, logits)
        losses = []
        if labels is not None:
            losses.append(self._occurrence_loss(logits, self._checked_labels("labels", labels, logits)))
        if strength is not None and intensities is not None:
            au_weights = self._per_au(config.au_weights, logits)
            losses.append(config.intensity_weight * intensity_loss(strength, intensities, au_weights))
        if side_logits is not None and sides is not None:
            sides = self._checked_labels("sides", sides, side_logits)
            # In the form of the occurrence loss, because temperature and thresholds are those of the occurrence, too.
            rows, targets = (values.transpose(1, 2).flatten(0, 1) for values in (side_logits, sides))  # (2B, N)
            choice = side_choice_loss(side_logits, sides, self._per_au(config.au_weights, logits))
            losses.append(config.side_weight * (self._occurrence_loss(rows, targets) + SIDE_CHOICE_WEIGHT * choice))
        if intensities is not None and config.embedding_weight:
            triplets = batch_triplet_loss(embedding, intensities, config.triplet_margins[1])
            losses.append(config.embedding_weight * triplets)
        if losses and masks is not None and config.mask_regions and config.mask_region_weight:
            losses.append(config.mask_region_weight * mask_region_loss(masks, config.mask_regions))
        return sum(losses[1:], losses[0]) if losses else None

    def _occurrence_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        config = self.config
        au_weights, pos_weight = (self._per_au(values, logits) for values in (config.au_weights, config.pos_weight))
        smoothing, gamma = config.label_smoothing, config.focal_gamma
        return occurrence_loss(logits, labels, config.loss, au_weights, pos_weight, smoothing, gamma)

    @staticmethod
    def _per_au(values: list[float] | None, logits: Tensor) -> Tensor | None:
        return None if values is None else torch.tensor(values, dtype=torch.float32, device=logits.device)

    def _checked_labels(self, name: str, labels: Tensor, logits: Tensor) -> Tensor:
        labels = labels if labels.is_floating_point() else labels.long()  # so that 255 is not taken for -1
        self._check_targets(name, labels, logits)
        return labels

    def _check_targets(self, name: str, targets: Tensor, logits: Tensor) -> None:
        if targets.shape != logits.shape:
            names = ", ".join(self.config.id2label.values())
            raise ValueError(
                f"`{name}` must have shape {tuple(logits.shape)}, got {tuple(targets.shape)}. This model predicts"
                f" {logits.shape[1]} AUs: {names}. Reorder them with `hf_geaau.facs.remap`."
            )
        if torch.compiler.is_compiling():
            return
        if name != "intensities" and not torch.isin(targets, targets.new_tensor([-1, 0, 1])).all():
            raise ValueError(
                f"`{name}` must be 1 (present), 0 (absent) or -1 (not labeled), got other values. Map BP4D's 9 to -1"
                " and threshold intensities first."
            )
        if name == "intensities" and not (((targets >= 0) & (targets <= 5)) | (targets == -1)).all():
            raise ValueError(
                "`intensities` must lie from 0 to 5, or be -1 (missing), got other values. Map BP4D's 9 to -1 first."
            )


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
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> GeaauExpressionOutput | tuple[Tensor, ...]:
        """Embed expressions.

        Args:
            pixel_values: (B, 3, H, W) crops, or (B, 3, 3, H, W) triplets in the order similar, similar, odd.
            triplet_types: (B,) 0 one-class, 1 two-class, 2 three-class; chooses the margin. None: two-class.
            return_dict: False for a plain tuple. None: what the config says.
            return_loss: Whether triplets give a loss.
            output_hidden_states: Return the backbone's feature maps. None: what the config says.
            **kwargs: What `transformers` hands over to every model; ignored.

        Raises:
            TypeError: If a keyword is unknown.
            ValueError: If `pixel_values` has neither shape.
        """
        return_dict, output_hidden_states = self._resolve(return_dict, output_hidden_states, kwargs)
        is_triplet = pixel_values.ndim == 5
        if is_triplet and pixel_values.shape[1] != 3:
            raise ValueError(f"Triplets must have shape (B, 3, 3, H, W), got {tuple(pixel_values.shape)}.")
        images = pixel_values.flatten(0, 1) if is_triplet else pixel_values
        maps, _, embedding = self.gee(self._checked(images), output_hidden_states)
        loss = distances = None
        if is_triplet:
            embedding, maps = embedding.unflatten(0, (-1, 3)), tuple(map_.unflatten(0, (-1, 3)) for map_ in maps)
            distances = (embedding.float()[:, [0, 0, 1]] - embedding.float()[:, [1, 2, 2]]).pow(2).sum(-1)
            if return_loss:
                margins = torch.tensor(self.config.triplet_margins, device=embedding.device)
                loss = triplet_loss(distances, margins[1] if triplet_types is None else margins[triplet_types.long()])
        output = GeaauExpressionOutput(
            loss=loss,
            distances=distances,
            expression_embedding=embedding,
            expression_map=maps[-1],
            hidden_states=maps if output_hidden_states else None,
        )
        return output if return_dict else output.to_tuple()


__all__ = ["GeaauForExpressionEmbedding", "GeaauModel", "GeaauPreTrainedModel"]
