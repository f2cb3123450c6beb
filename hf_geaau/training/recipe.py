"""Recipes: everything that decides a training run, typed and checked, as YAML files.

A recipe is complete: the same recipe on the same data gives the same weights on the same machine.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from hf_geaau.data import get_dataset
from hf_geaau.errors import DatasetError, TrainingError

RECIPES = Path(__file__).parent / "recipes"

_NESTED = ("model", "options", "augmentation", "renders", "expression")


@strict
@dataclass(kw_only=True)
class Augmentation:
    """Random changes to the training crops. What is 0 is left out. The ranges are our choice; see the recipes.

    Attributes:
        mirror: Probability of mirroring. Labels stay as they are, because AUs are coded without side.
        rotation: Largest angle, in degrees, to either side.
        scale: Largest change of size, as a share.
        shift: Largest shift in each direction, as a share of the side.
        points: Standard deviation, in x and in y, of an error of each of the five points that the crop is aligned by,
            as a share of the distance between the eyes.
        style: Probability of moving each channel's mean and deviation toward those of another training image.
        gamma: Largest logarithm of the exponent of brightness.
        gain: Largest change of each channel's gain, as a share: white balance.
        brightness, contrast, saturation: Largest change, as a share.
        hue: Largest turn of the colour circle, from 0 to 0.5.
        grey: Probability of a grey picture.
        frequency: Probability of moving the amplitudes of low frequencies toward those of another training image.
        coarse: Probability of a loss of resolution, of up to a third.
        blur: Probability of a Gaussian blur.
        noise: Largest standard deviation of noise on each pixel, as a share of the whole range.
        jpeg: Probability of JPEG artefacts, of quality 20 to 80.
        erasing: Probability of blanking a rectangle of 2 to 20 % of the area.
    """

    mirror: float = 0.5
    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    points: float = 0.0
    style: float = 0.0
    gamma: float = 0.0
    gain: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    frequency: float = 0.0
    coarse: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    erasing: float = 0.0

    def validate_ranges(self) -> None:
        """Check all values; `strict` calls it."""
        limits = {"rotation": 180.0, "hue": 0.5}
        for name, value in asdict(self).items():
            _within(f"augmentation.{name}", value, 0, limits.get(name, 1.0))


@strict
@dataclass(kw_only=True)
class Recipe:
    """A training run.

    Attributes:
        stage: "expression" trains GEE on triplets, "action_units" the whole network on AU labels.
        dataset: One of `hf_geaau.data.list_datasets()`.
        options: The dataset's own options, such as `{"camera": "left"}`.
        protocol: Whose numbering the folds follow: "jaanet" or "megraphau".
        model: Keywords of `GeaauConfig`. The AUs are the dataset's, unless `action_units` names some of them.
        pretrained_backbone: Start from timm's ImageNet weights (fetched on first use).
        expression_encoder: Folder or Hub id of a stage-1 model, whose GEE stage 2 starts from.
        start_from: Folder or Hub id of an AU model to go on from; heads are taken over by AU number.
        ignore_traces: Leave out of the occurrence loss what is neither absent nor present: an intensity above 0 and
            below 1, FACS's A. Where intensities have no fractions there is none.
        class_weighting: "inverse_rate" gives the field's `au_weights`, "pos_weight" the negatives per positive of each
            AU; both from the training subjects alone.
        augmentation: Random changes to the crops.
        optimizer: "adamw", or "sgd" with Nesterov momentum.
        momentum: Of SGD.
        learning_rate: Its highest value.
        encoder_learning_rate_scale: Factor for GEE's parameters.
        layer_decay: Factor from each of the backbone's layers to the one before it, by timm's grouping.
        weight_decay: Of all but norms and biases.
        max_grad_norm: Gradients are clipped to this norm; 0 leaves them.
        warmup: Steps of linear warm-up, or a share of all steps if below 1.
        scheduler: How the learning rate falls afterwards.
        ema_decay: Validate and keep an exponential moving average of the weights, which forgets by this factor each
            step; None: the weights themselves.
        epochs: Passes over the training subjects.
        max_steps: Optimiser steps, instead of `epochs`.
        batch_size: Images (or triplets) of one step over all processes.
        per_device_batch_size: What one device takes at a time; if its share is larger, gradients are accumulated.
        evaluate_steps: Validate and keep a checkpoint every so many steps; None: every epoch.
        early_stopping: Stop after so many validations without improvement; None: never.
        validation_share: Share of the training subjects that is held out to choose the checkpoint; 0: none.
        precision: "bf16" or "fp16" autocast, or "fp32".
        workers: Processes that load images; 0: the training process does.
        seed: Decides weights, order, augmentation and the validation subjects.
    """

    stage: Literal["expression", "action_units"]
    dataset: str
    options: dict[str, Any] = field(default_factory=dict)
    protocol: Literal["jaanet", "megraphau"] = "jaanet"
    model: dict[str, Any] = field(default_factory=dict)
    pretrained_backbone: bool = False
    expression_encoder: str | None = None
    start_from: str | None = None
    ignore_traces: bool = False
    class_weighting: Literal["inverse_rate", "pos_weight", "none"] = "inverse_rate"
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    learning_rate: float = 1e-4
    encoder_learning_rate_scale: float = 1.0
    layer_decay: float | None = None
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    warmup: float = 0.05
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    ema_decay: float | None = None
    epochs: float | None = None
    max_steps: int | None = None
    batch_size: int = 64
    per_device_batch_size: int = 64
    evaluate_steps: int | None = None
    early_stopping: int | None = None
    validation_share: float = 0.15
    precision: Literal["bf16", "fp16", "fp32"] = "fp32"
    workers: int = 0
    seed: int = 0

    @property
    def action_units(self) -> tuple[int, ...]:
        """FACS numbers of the label columns, in the model's order; () in stage 1."""
        if self.stage == "expression":
            return ()
        return tuple(self.model.get("action_units") or get_dataset(self.dataset, **self.options).aus)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, as `load_recipe` takes them."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Write the recipe as YAML."""
        from hf_geaau.files import whole_file

        with whole_file(path) as part:
            part.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

    def validate_ranges(self) -> None:
        """Check numbers; `strict` calls it."""
        for name, low, high in (
            ("encoder_learning_rate_scale", 0, 1000), ("momentum", 0, 1), ("weight_decay", 0, 10), ("workers", 0, 1024),
            ("max_grad_norm", 0, float("inf")), ("warmup", 0, float("inf")), ("validation_share", 0, 0.9),
            ("seed", 0, 2**32 - 1), ("batch_size", 1, 2**20), ("per_device_batch_size", 1, 2**20),
        ):  # fmt: skip
            _within(name, getattr(self, name), low, high)
        for name in ("learning_rate", "layer_decay", "epochs", "max_steps", "evaluate_steps", "early_stopping"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be above 0, got {value}.")
        for name in ("layer_decay", "ema_decay"):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), 0, 1)
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError(
                f"Either `epochs` or `max_steps` must be set, got epochs={self.epochs}, max_steps={self.max_steps}."
            )
        if self.early_stopping and not self.validation_share:
            raise ValueError("`early_stopping` needs a `validation_share` above 0, got 0. Set one of them otherwise.")

    def validate_stage(self) -> None:
        """Check that dataset and start fit the stage; `strict` calls it."""
        if self.stage == "expression" and (self.expression_encoder or self.start_from):
            raise ValueError("`expression_encoder` and `start_from` belong to stage 'action_units', got 'expression'.")
        if self.expression_encoder and self.start_from:
            raise ValueError("Only one of `expression_encoder` and `start_from` can be set, got both.")
        units = get_dataset(self.dataset, **self.options).aus
        if self.stage == "expression" and units:
            raise ValueError(
                f"Stage 'expression' needs triplets, got AU rows of '{self.dataset}'. For rendered faces pass"
                " options.triplets=20000; else train on fec."
            )
        if self.stage == "action_units" and not units:
            raise ValueError(f"Stage 'action_units' needs AU labels, got triplets of '{self.dataset}'.")
        unknown = sorted(set(self.action_units) - set(units))
        if unknown:
            raise ValueError(
                f"`model.action_units` must be among those of {self.dataset}, {list(units)}, got {unknown}."
            )


@strict
@dataclass(kw_only=True)
class Renders:
    """Which faces a recipe renders for itself. The sets share nobody.

    Attributes:
        train, validation, test: Images of each set.
        unseen: Images of a second test set, rendered with settings that occur in no other set; 0: none.
        expression: Images of further people for stage 1; 0: it draws its triplets from those of `train`.
        images_per_identity: Images of one person in a row.
        size: Side of the images in pixels, at least the model's, so that nothing is enlarged.
        seed: Decides all images; each set has its own from it.
    """

    train: int
    validation: int
    test: int
    unseen: int = 0
    expression: int = 0
    images_per_identity: int = 8
    size: int = 128
    seed: int = 2026

    def validate_counts(self) -> None:
        """Check that the sets are not empty; `strict` calls it."""
        for name, least in (("train", 1), ("validation", 1), ("test", 1), ("unseen", 0), ("expression", 0),
                            ("images_per_identity", 1), ("size", 16), ("seed", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"`renders.{name}` must be at least {least}, got {getattr(self, name)}.")


@strict
@dataclass(kw_only=True)
class RenderedRecipe(Recipe):
    """A recipe that renders its own faces, and ends with a small calibrated checkpoint; see `train_rendered`.

    Attributes:
        renders: Which faces.
        gee: Train the expression encoder first, on triplets of rendered faces, and start from it.
        expression: Changes to the recipe `synthetic_gee`, by which that is done; its network is that of `model`.
        false_alarm_rate: The largest share of neutral validation faces in which an AU may be seen: thresholds are
            chosen within it.
        threshold_slack: Share of the highest F1 on validation that thresholds may give up to lie lower, as cues on
            photos are fainter than on renders.
        max_megabytes: Weights, as float16, must not be larger.
    """

    renders: Renders
    gee: bool = False
    expression: dict[str, Any] = field(default_factory=dict)
    false_alarm_rate: float = 0.05
    threshold_slack: float = 0.0
    max_megabytes: float | None = None

    def validate_rendered(self) -> None:
        """Check what only rendered faces allow; `strict` calls it."""
        _within("false_alarm_rate", self.false_alarm_rate, 0, 1)
        _within("threshold_slack", self.threshold_slack, 0, 1)
        if (self.stage, self.dataset) != ("action_units", "synthetic"):
            raise ValueError(
                f"A recipe with `renders` must have stage 'action_units' and dataset 'synthetic', got '{self.stage}' "
                f"and '{self.dataset}'."
            )
        if self.gee and (self.expression_encoder or self.start_from):
            raise ValueError("`gee` must be false where `expression_encoder` or `start_from` is set, got both.")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be from {low:g} to {high:g}, got {value:g}.")


def list_recipes() -> dict[str, str]:
    """Name the recipes of the package, each with the first line of its file.

    Example:
        >>> "bp4d" in list_recipes()
        True
    """
    files = sorted(RECIPES.glob("*.yaml"))
    return {path.stem: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for path in files}


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any] = ()) -> Recipe:
    """Read a recipe and change some of its values.

    Args:
        source: One of `list_recipes()`, the path of a YAML file, or the values themselves.
        overrides: "key=value" texts, or a dictionary; dots lead into `model`, `options`, `augmentation`, and where a
            recipe has them, `renders` and `expression`.

    Returns:
        A `RenderedRecipe` if there is the key "renders".

    Raises:
        TrainingError: For an unknown recipe or key (with the nearest match), or a value of the wrong type or range.

    Example:
        >>> load_recipe("bp4d", ["model.backbone=resnet18", "learning_rate=1e-3"]).model["backbone"]
        'resnet18'
    """
    values = dict(source) if isinstance(source, Mapping) else _read(source)
    if not isinstance(overrides, Mapping):
        overrides = dict(_assignment(text) for text in overrides)
    for key, value in overrides.items():
        _set(values, key, value)
    values["augmentation"] = _checked("augmentation.", Augmentation, dict(values.get("augmentation") or {}))
    is_rendered = "renders" in values
    if is_rendered:
        values["renders"] = _checked("renders.", Renders, dict(values["renders"] or {}))
    recipe = _checked("", RenderedRecipe if is_rendered else Recipe, values)
    recipe.model = _model_keywords(recipe)
    return recipe


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{source}.yaml"
        if not path.is_file():
            raise TrainingError(
                f"A recipe must be one of {', '.join(list_recipes())}, or the path of a .yaml file, got '{source}'."
                f"{_hint(str(source), list_recipes())}"
            )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise TrainingError(f"A recipe must be a readable file, got '{path}' ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise TrainingError(f"A recipe must be YAML, got '{path}': {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise TrainingError(f"A recipe must hold `key: value` lines, got '{path}' with {type(values).__name__}.")
    return values


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-4 as a number; YAML 1.1 wants 1.0e-4."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise TrainingError(f"A setting must be KEY=VALUE, such as learning_rate=1e-3, got '{text}'.")
    try:
        return key.strip(), yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise TrainingError(f"The value of '{key}' must be readable as YAML, got '{value}'.") from error


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key."""
    first, _, rest = key.partition(".")
    if not rest:
        values[first] = value
        return
    if first not in _NESTED:
        raise TrainingError(f"Dots lead into {', '.join(_NESTED)}, got '{key}'.{_hint(first, _NESTED)}")
    values[first] = dict(values.get(first) or {})
    if first == "model" and rest.partition(".")[0] == "backbone_kwargs" and "." in rest:
        name = rest.partition(".")[2]
        values[first]["backbone_kwargs"] = {**(values[first].get("backbone_kwargs") or {}), name: value}
    else:
        values[first][rest] = value


def _hint(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _checked(prefix: str, kind: Any, values: dict[str, Any]) -> Any:
    """Build a strict dataclass; every problem becomes one line."""
    known = [entry.name for entry in fields(kind)]
    for name in values:
        if name not in known:
            hint = _hint(name, known) or f" Known: {', '.join(known)}."
            raise TrainingError(f"A recipe has no key '{prefix}{name}'.{hint}")
    missing = [
        entry.name for entry in fields(kind) if entry.default is entry.default_factory and entry.name not in values
    ]
    if missing:
        raise TrainingError(f"A recipe must have the key '{prefix}{missing[0]}', got {', '.join(values) or 'none'}.")
    try:
        return kind(**_floats(kind, values))
    except StrictDataclassError as error:
        raise TrainingError(_one_line(prefix, error)) from error
    except DatasetError as error:
        raise TrainingError(f"`dataset` and `options` must fit: {error}") from error


def _one_line(prefix: str, error: StrictDataclassError) -> str:
    """Say in one line what `strict` says in several."""
    text = str(error.__cause__ or error)
    if wrong := re.search(r"Field '(\w+)' expected (.+?),? got .*?\(value: (.*)\)", text, re.DOTALL):
        return f"`{prefix}{wrong[1]}` must be {wrong[2].strip()}, got {wrong[3]}."
    if choice := re.search(r"Field '(\w+)' expected one of \((.*)\), got (.*)", text):
        hint = _hint(choice[3], re.findall(r"\w+", choice[2]))
        return f"`{prefix}{choice[1]}` must be one of {choice[2]}, got {choice[3]!r}.{hint}"
    if name := getattr(error, "field", None):
        return f"`{prefix}{name}`: {' '.join(text.split())}"
    return " ".join(text.split())


@cache
def _float_fields(kind: Any) -> frozenset[str]:
    """Name the fields that hold a float, alone or beside None."""
    return frozenset(entry.name for entry in fields(kind) if entry.type is float or float in get_args(entry.type))


def _floats(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Accept 1 for 1.0 where a float is wanted."""
    wanted = _float_fields(kind)
    return {
        name: float(value) if name in wanted and isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in values.items()
    }


def _model_keywords(recipe: Recipe) -> dict[str, Any]:
    """Check the model's keywords by building its config."""
    from hf_geaau.models.geaau import GeaauConfig

    recipe.model = _floats(GeaauConfig, recipe.model)
    try:
        model_config(recipe)
    except StrictDataclassError as error:
        raise TrainingError(_one_line("model.", error)) from error
    except ValueError as error:
        raise TrainingError(f"`model` must fit: {' '.join(str(error).split())}") from error
    return recipe.model


def model_config(recipe: Recipe) -> Any:
    """Build the model's config; the regions of masks come from FACS where a weight asks for them."""
    from hf_geaau import facs
    from hf_geaau.models.geaau import GeaauConfig

    values = dict(recipe.model)
    if recipe.action_units:
        values["action_units"] = list(recipe.action_units)
        if values.get("mask_region_weight") and not values.get("mask_regions"):
            values["mask_regions"] = facs.regions(recipe.action_units)
    return GeaauConfig(**values)
