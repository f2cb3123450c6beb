"""Configuration of GTLE-Net: one flat, typed, self-contained file, so that it also travels as remote code."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import logging

from .cropping_geaau import CROP_TEMPLATE

logger = logging.get_logger(__name__)

BP4D_ACTION_UNITS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)

# Keywords that transformers itself writes into a config.json or hands over on loading, beside the declared fields.
_TRANSFORMERS_KEYWORDS = frozenset(
    {"model_type", "auto_map", "torch_dtype", "name_or_path", "num_labels", "attn_implementation", "output_attentions"}
    | {"experts_implementation", "per_layer_config", "quantization_config", "custom_pipelines", "license"}
    | {"use_cache"}  # Trainer sets it on every config
)

# Entries of a config.json that would change how transformers loads or runs the model, such as code from the Hub for
# attention. None of them belongs to this model, so a file's are ignored. Other names with an underscore are, too.
_IGNORED_IN_FILES = frozenset({"attn_implementation", "experts_implementation", "per_layer_config"})
_MOST_ENTRIES = 500  # of a config.json; ours have 50

_PER_ACTION_UNIT = ("thresholds", "au_weights", "pos_weight", "mask_regions")

MAX_IMAGE_SIZE = 4096
"""Largest side of a crop in pixels. Our choice; it keeps a config from asking for more memory than machines have."""

# Smallest and largest value of each number. Our choice: far beyond what is sensible, but nothing overflows.
_RANGES: dict[str, tuple[float, float]] = {
    "image_size": (1, MAX_IMAGE_SIZE),
    "backbone_stage": (-32, 31),
    "embedding_dim": (1, 65536),
    "lam_hidden_channels": (1, 16384),
    "lam_feature_channels": (1, 1024),
    "mask_region_weight": (0, 1e6),
    "intensity_weight": (0, 1e6),
    "side_weight": (0, 1e6),
    "embedding_weight": (0, 1e6),
    "visibility_weight": (0, 1e6),
    "focal_gamma": (0, 100),
    "temperature": (1e-3, 1e3),
    "intensity_scale": (0.1, 10),
    "initializer_range": (0, 10),
}
_LIST_RANGES = {"au_weights": (0, 1e6), "pos_weight": (0, 1e6), "triplet_margins": (0, 100)}
_DTYPES = ("float32", "float16", "bfloat16", "float64")

# Arguments of `timm.create_model` that change the network and nothing else, with the range of their numbers. Lists of
# up to eight numbers, one per stage, are allowed where numbers are. Above all, none names a file or fetches anything.
_BACKBONE_NUMBERS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("drop_rate", "drop_path_rate", "drop_block_rate", "pos_drop_rate", "patch_drop_rate"), (0, 0.99)),
    **dict.fromkeys(("proj_drop_rate", "attn_drop_rate", "proj_drop", "attn_drop"), (0, 0.99)),
    **dict.fromkeys(("depth", "depths", "layers"), (0, 128)),
    **dict.fromkeys(("dims", "embed_dim", "embed_dims", "channels", "widths", "stem_width", "base_width"), (1, 8192)),
    **dict.fromkeys(("num_heads", "heads", "cardinality"), (1, 256)),
    **dict.fromkeys(("mlp_ratio", "mlp_ratios", "init_values", "bn_eps", "bn_momentum"), (0, 64)),
    "img_size": (1, MAX_IMAGE_SIZE),
    "in_chans": (1, 64),
    "output_stride": (1, 64),
    "patch_size": (1, 64),
    "window_size": (1, 64),
    "reg_tokens": (0, 64),
}
_BACKBONE_SWITCHES = frozenset(
    {"dynamic_img_size", "dynamic_img_pad", "strict_img_size", "always_partition", "class_token", "no_embed_class"}
    | {"qkv_bias", "qk_norm", "pre_norm", "avg_down"}
)
_BACKBONE_NAMES = frozenset({"norm_layer", "act_layer", "aa_layer", "pad_type", "stem_type", "pos_embed"})
_BACKBONE_ARGUMENTS = sorted({*_BACKBONE_NUMBERS, *_BACKBONE_SWITCHES, *_BACKBONE_NAMES})


def action_unit_name(number: int) -> str:
    """Name an action unit the way labels, columns and tables do.

    Example:
        >>> action_unit_name(6)
        'AU06'
    """
    return f"AU{number:02d}"


def action_unit_numbers(id2label: Mapping[Any, str]) -> list[int]:
    """Return the FACS numbers of a config's labels, in output order.

    Raises:
        ValueError: If a label is not the name of an action unit.

    Example:
        >>> action_unit_numbers({0: "AU12", 1: "AU25"})
        [12, 25]
    """
    names = [id2label[index] for index in sorted(id2label, key=int)]
    wrong = [name for name in names if not re.fullmatch(r"AU[0-9]{2}", name)]
    if wrong:
        raise ValueError(
            "`id2label` follows from `action_units` and must name action units, such as AU12, got"
            f" '{_short(wrong[0])}'. Pass `action_units=[...]` instead."
        )
    return [int(name[2:]) for name in names]


def check_crop_template(points: Any) -> None:
    """Check that a crop template has five points that span an upright face.

    Args:
        points: (x, y) of the five points as fractions of the crop's side; see `CROP_TEMPLATE`. They may lie up to half
            a side outside, for crops closer than the face.

    Raises:
        ValueError: If it has not.
    """
    if [len(point) for point in points] != [2] * 5:
        raise ValueError(f"`crop_template` must hold 5 points of 2 fractions, got {_short(points)}.")
    left, right, _, *mouth = points
    down = [sum(corner[axis] for corner in mouth) / 2 - (left[axis] + right[axis]) / 2 for axis in (0, 1)]
    area = (right[0] - left[0]) * down[1] - (right[1] - left[1]) * down[0]
    if not (all(-0.5 <= value <= 1.5 for point in points for value in point) and area > 1e-4):
        raise ValueError(
            "`crop_template` must place two eyes, a nose and two mouth corners in the crop, as fractions of its side,"
            f" got {_short(points)}."
        )


def _short(value: object) -> str:
    """Return a value for a message, cut to 80 characters."""
    text = str(value) if not isinstance(value, int) or abs(value) < 1e300 else "a huge number"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if low <= value <= high:
        return
    wanted = f"at least {low:g}" if value < low else f"at most {high:g}" if value > high else "a number"
    raise ValueError(f"`{name}` must be {wanted}, got {_short(value)}.")


def _check_backbone_kwargs(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of `timm.create_model` that are not known to be harmless, or are out of range."""
    for name, value in arguments.items():
        if name not in _BACKBONE_ARGUMENTS:
            near = get_close_matches(name[:64], _BACKBONE_ARGUMENTS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(
                f"`backbone_kwargs` cannot hold '{_short(name)}', only what shapes the network, such as drop_path_rate,"
                f" img_size or norm_layer.{hint}"
            )
        if value is None:
            continue
        where = f"backbone_kwargs.{name}"
        if name in _BACKBONE_NUMBERS:
            values = value if isinstance(value, list | tuple) else [value]
            if not 1 <= len(values) <= 8 or any(type(number) not in (int, float) for number in values):
                raise ValueError(f"`{where}` must be a number, or a list of up to 8 numbers, got {_short(value)}.")
            for number in values:
                _check_range(where, number, *_BACKBONE_NUMBERS[name])
        elif name in _BACKBONE_SWITCHES and not isinstance(value, bool):
            raise ValueError(f"`{where}` must be true or false, got {_short(value)}.")
        elif name in _BACKBONE_NAMES and not (isinstance(value, str) and len(value) <= 64):
            raise ValueError(f"`{where}` must be a name, got {_short(value)}.")


@strict
class GeaauConfig(PreTrainedConfig):
    r"""What a GTLE-Net is made of. Defaults: ResNet-50, BP4D's 12 action units, 224 px.

    Every keyword is checked: an unknown one raises and names the nearest match.

    Args:
        backbone: Name of a timm model that yields feature maps.
        backbone_kwargs: Further arguments of `timm.create_model`, such as `{"drop_path_rate": 0.1}`: those that shape
            the network. Names of files and anything that would be fetched are refused.
        backbone_stage: Which of the backbone's feature maps is the *expression map*: an index into timm's
            `feature_info`, negative from the end. A stage before the last is finer (stride 16 instead of 32), carries
            the upper-face AUs better in our measurements, and drops the later layers.
        image_size: Side of the square input in pixels.
        embedding_dim: Length D of the expression embedding (16 in FECNet and in the code of the paper's group).
        action_units: FACS numbers of the predicted AUs, in output order. `id2label` and `label2id` follow from it;
            assigning another list also resets the per-AU settings whose length no longer fits. `id2label` may be
            passed or assigned instead, if it names action units.
        head: "lam" is GTLE-Net; "pooled" reads the mean of the expression map by one linear layer, the baseline
            that LAM is measured against.
        lam_hidden_channels: Width of the projections that the two local extractors share out among the AUs; rounded
            up to a multiple of the number of AUs.
        lam_feature_channels: Channels F of each AU's feature map.
        lam_normalization: "batch" norm inside LAM, or "group" norm with a group per AU, which is independent of the
            batch: several processes then give the loss of one.
        mask_activation: "softmax" normalises each mask over positions: sharply local, down to one cell and the same one
            for every face in our measurements. "sigmoid" treats each position by itself; the features are then a mean
            weighted by the mask, because a plain mean rewards masks of one everywhere.
        mask_regions: For each AU the boxes (x0, y0, x1, y1 as fractions of the crop) where it shows, for
            `mask_region_weight`; `hf_geaau.facs.regions` gives them.
        mask_region_weight: Weight of a loss that asks the masks to lie inside their regions. 0: they are free.
        classifier_dropout: Dropout on the AU features before the classifiers.
        predict_intensity: Add a head that predicts the intensity, 0-5, of each AU.
        intensity_weight: Weight of the intensity loss beside the occurrence loss.
        predict_sides: Add a head that predicts each AU on the person's left and on the right. Needs the LAM.
        side_weight: Weight of the sides' loss beside the occurrence loss.
        predict_visibility: Add a head that predicts whether each AU can be seen, or something hides its region.
        visibility_weight: Weight of the visibility's loss beside the occurrence loss.
        embedding_weight: Weight, beside the occurrence loss, of `batch_triplet_loss` on the expression embedding, which
            trains stage 1 together with stage 2; needs batches with intensities. 0 leaves the embedding as it is.
        freeze_encoder: Keep the encoder as it is: no gradients, and fixed batch-norm statistics.
        thresholds: Decision threshold per AU, as probability. None: 0.5 each.
        intensity_scale: Predicted intensities are multiplied by it, up to 5, to calibrate them: a regression pulls what
            it is unsure of towards 0.
        temperature: Logits are divided by it before the sigmoid, to calibrate probabilities (Guo et al., ICML 2017).
        loss: Form of the occurrence loss: "bce", "bce_dice" (JAA-Net), "asymmetric" (ME-GraphAU) or "focal"; each
            with the weights below.
        focal_gamma: Exponent of the focal loss.
        au_weights: Weight of each AU in the loss; None: 1 each. The field's formula is
            `hf_geaau.data.class_weights` (JAA-Net and ME-GraphAU: inverse base rate, mean 1).
        pos_weight: Weight of the positives of each AU in the loss, as in `torch.nn.BCEWithLogitsLoss`.
        label_smoothing: Share of label mass moved to the other class before the loss, 0 to below 1.
        triplet_margins: Margins of the triplet loss for one-, two- and three-class triplets (FECNet).
        crop_template: Five points as fractions of the crop side; see `CROP_TEMPLATE`.
        trained_on: Names of the datasets whose data the weights have seen, in any stage; sharing depends on it.
        initializer_range: Standard deviation of the heads' initial weights.

    Raises:
        ValueError: For an unknown keyword, labels or a number of labels that contradict `action_units`, a per-AU list
            of the wrong length, or a value out of range.

    Example:
        >>> config = GeaauConfig(backbone="resnet18", action_units=[12, 25])
        >>> config.id2label
        {0: 'AU12', 1: 'AU25'}
    """

    model_type = "geaau"
    # Trainer gathers what evaluation needs (logits), not feature maps of the whole set.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "expression_embedding",
        "au_masks",
        "au_features",
        "expression_map",
        "side_logits",
        "temperature",
        "thresholds",
        "hidden_states",
    ]

    backbone: str = "resnet50"
    backbone_kwargs: dict[str, Any] | None = None
    backbone_stage: int = -1
    image_size: int = 224
    embedding_dim: int = 16
    action_units: list[int] | tuple[int, ...] = BP4D_ACTION_UNITS
    head: Literal["lam", "pooled"] = "lam"
    lam_hidden_channels: int = 192
    lam_feature_channels: int = 16
    lam_normalization: Literal["batch", "group"] = "batch"
    mask_activation: Literal["softmax", "sigmoid"] = "softmax"
    mask_regions: list[list[list[float]]] | None = None
    mask_region_weight: float = 0.0
    classifier_dropout: float = 0.0
    predict_intensity: bool = False
    intensity_weight: float = 1.0
    predict_sides: bool = False
    side_weight: float = 1.0
    predict_visibility: bool = False
    visibility_weight: float = 0.5
    embedding_weight: float = 0.0
    freeze_encoder: bool = False
    thresholds: list[float] | None = None
    intensity_scale: float = 1.0
    temperature: float = 1.0
    loss: Literal["bce", "bce_dice", "asymmetric", "focal"] = "bce"
    focal_gamma: float = 2.0
    au_weights: list[float] | None = None
    pos_weight: list[float] | None = None
    label_smoothing: float = 0.0
    triplet_margins: list[float] | tuple[float, ...] = (0.1, 0.2, 0.2)
    crop_template: list[list[float]] | tuple[tuple[float, float], ...] = CROP_TEMPLATE
    trained_on: list[str] | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        known = {field.name for field in fields(self)} | _TRANSFORMERS_KEYWORDS
        for name in kwargs:
            if name not in known and not name.startswith("_"):
                near = get_close_matches(name, sorted(known), n=1)
                hint = f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(sorted(known))}."
                raise ValueError(f"GeaauConfig got an unknown keyword '{name}'.{hint}")
        if self.action_units is BP4D_ACTION_UNITS and self.id2label:  # the default: only labels were passed
            self.action_units = action_unit_numbers(self.id2label)
        self.action_units = list(self.action_units)
        self._check_action_units()
        names = [action_unit_name(number) for number in self.action_units]
        labels = self.id2label and [self.id2label[index] for index in sorted(self.id2label, key=int)]
        for keyword, value in {"id2label": labels, "num_labels": kwargs.pop("num_labels", None)}.items():
            if value not in (None, names, len(names)):
                raise self._contradiction(keyword, value)
        self._follow_action_units()
        self.triplet_margins = list(self.triplet_margins)
        self.crop_template = [list(point) for point in self.crop_template]
        self.problem_type = "multi_label_classification"
        super().__post_init__(**kwargs)
        self._check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a config from a file's content; keys that another version of transformers wrote are ignored."""
        if len(config_dict) > _MOST_ENTRIES:
            raise ValueError(f"A config must have at most {_MOST_ENTRIES} entries, got {len(config_dict):,}.")
        known = {field.name for field in fields(cls)} | _TRANSFORMERS_KEYWORDS | {"_name_or_path"}
        hidden = [name for name in config_dict if name.startswith("_") and name not in known]
        foreign = [
            name
            for name in config_dict
            if name not in known and name not in hidden and not get_close_matches(name[:64], sorted(known))
        ]
        if foreign:
            shown = ", ".join(ascii(name[:64]) for name in foreign[:5])
            logger.warning(f"GeaauConfig ignores {len(foreign)} unknown entries of the config file: {shown}.")
        ignored = {*hidden, *foreign, *_IGNORED_IN_FILES}
        kept = {name: value for name, value in config_dict.items() if name not in ignored}
        return super().from_dict(kept, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        settled = getattr(self, "_post_init_done", False)
        if settled and name == "num_labels" and value != len(self.action_units):
            raise self._contradiction(name, value)
        if settled and name == "id2label" and (numbers := action_unit_numbers(value)) != self.action_units:
            self.action_units = numbers
        super().__setattr__(name, value)
        if settled and name == "action_units":
            for setting in _PER_ACTION_UNIT:
                if len(getattr(self, setting) or value) != len(value):
                    setattr(self, setting, None)
            self._follow_action_units()

    def _contradiction(self, keyword: str, value: object) -> ValueError:
        names = ", ".join(action_unit_name(number) for number in self.action_units)
        return ValueError(
            f"`{keyword}` follows from `action_units` ({names}), got {_short(value)}."
            " Pass `action_units=[...]` instead."
        )

    def _follow_action_units(self) -> None:
        self.id2label = {index: action_unit_name(number) for index, number in enumerate(self.action_units)}
        self.label2id = {name: index for index, name in self.id2label.items()}
        if self.thresholds is None:
            self.thresholds = [0.5] * len(self.action_units)

    def _check_action_units(self) -> None:
        numbers = self.action_units
        if not numbers or len(set(numbers)) != len(numbers) or not 1 <= min(numbers) <= max(numbers) <= 99:
            raise ValueError(
                f"`action_units` must be distinct FACS numbers from 1 to 99, at least one, got {_short(numbers)}."
            )

    def _check(self) -> None:
        """Check each value, and those that must fit together, before anything is built from them."""
        count = len(self.action_units)
        for name in _PER_ACTION_UNIT:
            values = getattr(self, name)
            if values is not None and len(values) != count:
                raise ValueError(f"`{name}` must have one value per action unit ({count}), got {len(values)}.")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds or []):
            raise ValueError(f"`thresholds` must be probabilities from 0 to 1, got {_short(self.thresholds)}.")
        for name, (low, high) in _RANGES.items():
            _check_range(name, getattr(self, name), low, high)
        for name, (low, high) in _LIST_RANGES.items():
            for value in getattr(self, name) or []:
                _check_range(name, value, low, high)
        for name in ("label_smoothing", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {_short(getattr(self, name))}.")
        if len(self.triplet_margins) != 3:
            raise ValueError(
                f"`triplet_margins` must hold 3 margins (one-, two-, three-class), got {_short(self.triplet_margins)}."
            )
        if self.predict_sides and self.head != "lam":
            raise ValueError(
                f"`predict_sides` needs `head='lam'`, whose masks are read on each side, got head='{self.head}'."
            )
        check_crop_template(self.crop_template)
        self._check_mask_regions()
        self._check_texts()
        _check_backbone_kwargs(self.backbone_kwargs or {})

    def _check_mask_regions(self) -> None:
        if self.mask_region_weight and not (self.mask_regions and all(self.mask_regions) and self.head == "lam"):
            raise ValueError(
                "`mask_region_weight` needs `head='lam'` and `mask_regions` with a box for each AU, got"
                f" head='{self.head}', mask_regions={_short(self.mask_regions)}. Take them from"
                " `hf_geaau.facs.regions`."
            )
        for boxes in self.mask_regions or []:
            if len(boxes) > 64 or not all(len(box) == 4 and all(0 <= side <= 1 for side in box) for box in boxes):
                raise ValueError(
                    f"`mask_regions` must hold up to 64 boxes of 4 fractions for each AU, got {_short(boxes)}."
                )

    def _check_texts(self) -> None:
        if len(self.backbone) > 128:
            raise ValueError(f"`backbone` must name a model of timm, got {_short(self.backbone)}.")
        names: Sequence[str] = self.trained_on or []
        if len(names) > 64 or any(len(name) > 200 for name in names):
            raise ValueError(f"`trained_on` must hold up to 64 names of datasets, got {_short(names)}.")
        if self.dtype is not None and str(self.dtype).removeprefix("torch.") not in _DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(_DTYPES)}, got {_short(self.dtype)}.")


__all__ = ["GeaauConfig"]
