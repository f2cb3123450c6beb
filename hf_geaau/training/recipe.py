"""Recipes: everything that decides a training run, typed and checked, as YAML files.

A recipe is complete: the same recipe on the same data gives the same weights on the same machine.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import yaml

from hf_geaau import facs
from hf_geaau.data import get_dataset
from hf_geaau.data.options import expectation
from hf_geaau.errors import DatasetError, MissingExtraError, TrainingError
from hf_geaau.files import whole_file

try:
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        TypeAdapter,
        ValidationError,
        create_model,
        field_validator,
        model_validator,
    )
except ImportError as error:
    raise MissingExtraError("Training needs pydantic. Install it with `pip install 'hf_geaau[training]'`.") from error

if TYPE_CHECKING:
    from hf_geaau.models.geaau import GeaauConfig

RECIPES = Path(__file__).parent / "recipes"

_NESTED = ("model", "options", "augmentation", "renders", "expression")
MOST_CHARACTERS = 1200  # of a message; the list of all keys has 900
_MOST_VALUES = 10_000  # of a recipe; ours have 60
_RENAMED = {"augmentation.grey": "augmentation.gray"}  # keys of recipes written before, and what they are called now
_CHECKS = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Batch = Annotated[int, Field(ge=1, le=2**20)]


class Augmentation(BaseModel):
    """Random changes to the training crops. A change with value 0 is left out. The ranges are our choice.

    Attributes:
        mirror: Probability of mirroring, which exchanges the labels of left and right.
        rotation: Largest angle, in degrees, to either side.
        scale: Largest change of size, as a share.
        shift: Largest shift in each direction, as a share of the side.
        points: Standard deviation, in x and in y, of an error of each of the five points that the crop is aligned by,
            as a share of the distance between the eyes.
        style: Probability of moving each channel's mean and deviation toward those of another training image.
        gamma: Largest logarithm of the exponent of brightness.
        gain: Largest change of each channel's gain, as a share: white balance.
        brightness, contrast, saturation: Largest change, as a share.
        hue: Largest turn of the color circle, from 0 to 0.5.
        gray: Probability of a gray picture. Files may call it `grey`.
        frequency: Probability of moving the amplitudes of low frequencies toward those of another training image.
        coarse: Probability of a loss of resolution, of up to a third.
        blur: Probability of a Gaussian blur.
        noise: Largest standard deviation of noise on each pixel, as a share of the whole range.
        jpeg: Probability of JPEG artifacts, of quality 20 to 80.
        erasing: Probability of blanking a rectangle of 2 to 20 % of the area.
    """

    model_config = _CHECKS

    mirror: Share = 0.5
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Share = 0.0
    shift: Share = 0.0
    points: Share = 0.0
    style: Share = 0.0
    gamma: Share = 0.0
    gain: Share = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    gray: Share = 0.0
    frequency: Share = 0.0
    coarse: Share = 0.0
    blur: Share = 0.0
    noise: Share = 0.0
    jpeg: Share = 0.0
    erasing: Share = 0.0


class Recipe(BaseModel):
    """A training run; `load_recipe` makes one. It is an `ExpressionRecipe` or an `ActionUnitRecipe`, by its stage.

    Attributes:
        stage: "expression" trains GEE on triplets, "action_units" the whole network on AU labels.
        dataset: One of `hf_geaau.data.list_datasets()`.
        options: The dataset's own options, such as `{"camera": "left"}`.
        protocol: Whose numbering the folds follow: "jaanet" or "megraphau".
        model: Keywords of `GeaauConfig`. The AUs are the dataset's, unless `action_units` names some of them.
        pretrained_backbone: Start from timm's ImageNet weights (fetched on first use).
        expression_encoder: Folder or Hub id of a stage-1 model, whose GEE stage 2 starts from.
        start_from: Folder or Hub id of an AU model to continue from; heads are taken over by AU number.
        ignore_traces: Leave out of the occurrence loss what is neither absent nor present: an intensity above 0 and
            below 1, FACS's A. Datasets whose intensities are whole numbers have none. Of sides, a trace stays in the
            loss as absent if the other side has at least 2, FACS's B.
        class_weighting: "inverse_rate" gives the field's `au_weights`, "pos_weight" the negatives per positive of each
            AU; both from the training subjects alone.
        augmentation: Random changes to the crops.
        optimizer: "adamw", or "sgd" with Nesterov momentum.
        momentum: Of SGD.
        learning_rate: Its highest value.
        encoder_learning_rate_scale: Factor for GEE's parameters.
        layer_decay: Factor from each of the backbone's layers to the one before it, by timm's grouping.
        weight_decay: Of all parameters but norms and biases.
        max_grad_norm: Gradients are clipped to this norm; 0 does not clip.
        warmup: Steps of linear warm-up, or a share of all steps if below 1.
        scheduler: How the learning rate falls after the warm-up.
        ema_decay: Validate and keep an exponential moving average of the weights, with this factor per step; None
            keeps the weights themselves.
        epochs: Passes over the training subjects.
        max_steps: Optimizer steps, instead of `epochs`.
        batch_size: Images (or triplets) of one step over all processes.
        per_device_batch_size: What one device takes at a time; if its share is larger, gradients are accumulated.
        evaluate_steps: Validate and save a checkpoint every so many steps; None: every epoch, and without validation
            after every tenth of the training.
        early_stopping: Stop after so many validations without improvement; None: never.
        validation_share: Share of the training subjects that is held out to choose the checkpoint; 0: none.
        precision: "bf16" or "fp16" autocast, or "fp32"; CPUs without fast bfloat16 use "fp32" instead of "bf16".
        workers: Processes that load images; 0 loads them in the training process.
        seed: Decides weights, order, augmentation and the validation subjects.
    """

    model_config = _CHECKS
    _UNRELATED_TO_WEIGHTS: ClassVar[frozenset[str]] = frozenset({"workers"})

    stage: Literal["expression", "action_units"]
    dataset: str
    options: dict[str, Any] = Field(default_factory=dict)
    protocol: Literal["jaanet", "megraphau"] = "jaanet"
    model: dict[str, Any] = Field(default_factory=dict)
    pretrained_backbone: bool = False
    expression_encoder: str | None = None
    start_from: str | None = None
    ignore_traces: bool = False
    class_weighting: Literal["inverse_rate", "pos_weight", "none"] = "inverse_rate"
    augmentation: Augmentation = Field(default_factory=Augmentation)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Share = 0.9
    learning_rate: Positive = 1e-4
    encoder_learning_rate_scale: Annotated[float, Field(ge=0, le=1000)] = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.05
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    warmup: Annotated[float, Field(ge=0)] = 0.05
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    ema_decay: Share | None = None
    epochs: Positive | None = None
    max_steps: Count | None = None
    batch_size: Batch = 64
    per_device_batch_size: Batch = 64
    evaluate_steps: Count | None = None
    early_stopping: Count | None = None
    validation_share: Annotated[float, Field(ge=0, le=0.9)] = 0.15
    precision: Literal["bf16", "fp16", "fp32"] = "fp32"
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @property
    def action_units(self) -> tuple[int, ...]:
        """FACS numbers of the label columns, in the model's order; () in stage 1, and for unresolved own data."""
        if self.stage == "expression":
            return ()
        dataset = get_dataset(self.dataset, **self.options)
        return tuple(self.model.get("action_units") or (dataset.aus if dataset.is_resolved else ()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `load_recipe` takes them."""
        return self.model_dump()

    def weight_settings(self) -> dict[str, Any]:
        """Return the values that decide the weights: two runs that share them give the same weights."""
        return self.model_dump(exclude=set(self._UNRELATED_TO_WEIGHTS))

    def save(self, path: Path) -> None:
        """Write the recipe as YAML."""
        with whole_file(path) as part:
            part.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

    @field_validator("model")
    @classmethod
    def _check_keywords(cls, keywords: dict[str, Any]) -> dict[str, Any]:
        checked = _keywords_model().model_validate(keywords).model_dump()
        return {name: checked[name] for name in keywords}

    @model_validator(mode="after")
    def _check_together(self) -> Recipe:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError(
                f"Exactly one of `epochs` and `max_steps` must be set, got epochs={self.epochs} and"
                f" max_steps={self.max_steps}."
            )
        if self.early_stopping and not self.validation_share:
            raise ValueError("`early_stopping` needs a `validation_share` above 0, got 0. Set early_stopping=null.")
        if self.expression_encoder and self.start_from:
            raise ValueError("Only one of `expression_encoder` and `start_from` can be set, got both.")
        self._check_labels()
        geaau_config(self)
        return self

    def _check_labels(self) -> None:
        """Check that the dataset has what the stage learns from."""
        dataset = get_dataset(self.dataset, **self.options)
        has_labels = not dataset.is_resolved or bool(dataset.aus)
        if self.stage == "expression" and has_labels:
            raise ValueError(
                f"Stage 'expression' needs triplets, but '{self.dataset}' has AU labels. For rendered faces pass"
                " options.triplets=20000; otherwise train on fec."
            )
        if self.stage == "action_units" and not has_labels:
            raise ValueError(f"Stage 'action_units' needs AU labels, but '{self.dataset}' has triplets.")
        if dataset.is_resolved and (unknown := sorted(set(self.action_units) - set(dataset.aus))):
            raise ValueError(
                f"`model.action_units` must be among those of {self.dataset}, {list(dataset.aus)}, got {unknown}."
            )


class ExpressionRecipe(Recipe):
    """A recipe of stage 1, which trains GEE on triplets. What only stage 2 can start from is null."""

    stage: Literal["expression"]
    expression_encoder: None = None
    start_from: None = None


class ActionUnitRecipe(Recipe):
    """A recipe of stage 2, which trains the whole network on AU labels."""

    stage: Literal["action_units"]


class Renders(BaseModel):
    """Which faces a recipe renders for itself. No person occurs in two sets.

    Attributes:
        train, validation, test: Images of each set.
        unseen: Images of a second test set, rendered with settings that occur in no other set; 0: none.
        calibration: Images for temperature and thresholds, under the settings of `unseen`, because photos differ from
            the training set, too; 0: they are chosen on `validation`.
        expression: Images of further people for stage 1; 0: its triplets are drawn from those of `train`.
        images_per_identity: Images of one person in a row.
        size: Side of the images in pixels, at least the model's, so that nothing is enlarged.
        seed: Decides all images; each set derives its own from it.
    """

    model_config = _CHECKS

    train: Count
    validation: Count
    test: Count
    unseen: NonNegative = 0
    calibration: NonNegative = 0
    expression: NonNegative = 0
    images_per_identity: Count = 8
    size: Annotated[int, Field(ge=16, le=4096)] = 128
    seed: NonNegative = 2026


class RenderedRecipe(ActionUnitRecipe):
    """A recipe that renders its own faces and ends with a small calibrated checkpoint; see `train_rendered`.

    Attributes:
        renders: Which faces.
        gee: Train the expression encoder first, on triplets of rendered faces, and start from it.
        expression: Changes to the recipe `synthetic_gee`, which trains that encoder; its network is that of `model`.
        false_alarm_rate: The largest share of neutral validation faces in which an AU may be predicted; thresholds are
            chosen within it.
        threshold_range: Lowest and highest threshold, see `hf_geaau.evaluation.fit_calibration`.
        max_megabytes: Largest size of the weights as float16.
    """

    _UNRELATED_TO_WEIGHTS: ClassVar[frozenset[str]] = frozenset(
        {"workers", "false_alarm_rate", "threshold_range", "max_megabytes"}
    )

    dataset: Literal["synthetic"]
    renders: Renders
    gee: bool = False
    expression: dict[str, Any] = Field(default_factory=dict)
    false_alarm_rate: Share = 0.05
    threshold_range: Annotated[list[Share], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [0.0, 1.0]
    )
    max_megabytes: float | None = None

    @model_validator(mode="after")
    def _check_start(self) -> RenderedRecipe:
        if self.gee and (self.expression_encoder or self.start_from):
            raise ValueError("`gee` must be false where `expression_encoder` or `start_from` is set, got both.")
        return self

    @model_validator(mode="after")
    def _check_thresholds(self) -> RenderedRecipe:
        lowest, highest = self.threshold_range
        if lowest > highest:
            raise ValueError(f"`threshold_range` must be [lowest, highest], got {self.threshold_range}.")
        return self


_ByStage = Annotated[ExpressionRecipe | ActionUnitRecipe, Field(discriminator="stage")]


def list_recipes() -> dict[str, str]:
    """List the recipes of the package, each with the first line of its file.

    Example:
        >>> "bp4d" in list_recipes()
        True
    """
    files = sorted(RECIPES.glob("*.yaml"))
    return {path.stem: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for path in files}


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Iterable[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Load a recipe and change some of its values.

    Args:
        source: One of `list_recipes()`, the path of a YAML file, the values themselves, or another recipe.
        overrides: "key=value" texts, or a dictionary; dots lead into `model`, `options`, `augmentation`, and where a
            recipe has them, `renders` and `expression`.

    Returns:
        A `RenderedRecipe` if there is the key "renders", else an `ExpressionRecipe` or an `ActionUnitRecipe`.

    Raises:
        TrainingError: For an unknown recipe or key (with the nearest match), or a value of the wrong type or range.

    Example:
        >>> load_recipe("bp4d", ["model.backbone=resnet18", "learning_rate=1e-3"]).model["backbone"]
        'resnet18'
    """
    try:
        return _loaded(source, overrides)
    except TrainingError as error:
        raise TrainingError(_printable(str(error))) from error.__cause__
    except Exception as error:  # nesting without end, a date that cannot be, and whatever else the parts of YAML raise
        raise TrainingError(_printable(f"Cannot read the recipe: {type(error).__name__}: {error}")) from error


def _printable(text: str) -> str:
    """Return a message on one line of bounded length, whatever a recipe holds."""
    text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text[:MOST_CHARACTERS])
    return text if len(text) < MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def _loaded(source: str | Path | Mapping[str, Any] | Recipe, overrides: Iterable[str] | Mapping[str, Any]) -> Recipe:
    if isinstance(source, Recipe):
        source = source.to_dict()
    values = dict(source) if isinstance(source, Mapping) else _read(source)
    values.pop("threshold_slack", None)  # of recipes written before `threshold_range`
    for old, new in _RENAMED.items():
        outer, _, key = old.partition(".")
        inner = values.get(outer)
        if isinstance(inner, dict) and key in inner:
            values[outer] = {new.partition(".")[2] if name == key else name: inner[name] for name in inner}
    if not isinstance(overrides, Mapping):
        overrides = dict(_assignment(text) for text in overrides)
    for key, value in overrides.items():
        _set(values, _RENAMED.get(key, key), value)
    return _validated(values)


def resolved_recipe(recipe: Recipe | str, data_dir: Any) -> Recipe:
    """Load a recipe, and state as options what only the data says, such as the AUs of one's own table.

    Args:
        recipe: A recipe, its name, or the path of its file.
        data_dir: The data; it is read only if the recipe's dataset depends on it.

    Raises:
        TrainingError: If recipe and data do not fit.
        DatasetError, DatasetNotFoundError: As `hf_geaau.data.load`.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    dataset = get_dataset(recipe.dataset, **recipe.options)
    if dataset.is_resolved:
        return recipe
    found, _ = dataset.resolved(data_dir)
    values = {entry.name: getattr(found, entry.name) for entry in fields(found)}
    changed = {name: value for name, value in values.items() if value != getattr(dataset, name)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
    return load_recipe(recipe, {f"options.{name}": value for name, value in plain.items()})


def geaau_config(recipe: Recipe, **settings: Any) -> GeaauConfig:
    """Build the config of a recipe's model, which names the dataset it is trained on.

    Regions of masks come from FACS if a weight asks for them.

    Args:
        recipe: Its `model` holds the keywords.
        **settings: Further keywords, such as class weights; they win over the recipe's.

    Raises:
        ValueError: If the keywords do not fit together.
    """
    from hf_geaau.models.geaau import GeaauConfig

    values = {**recipe.model, **settings}
    values["trained_on"] = list(dict.fromkeys([*(values.get("trained_on") or []), recipe.dataset]))
    if recipe.action_units:
        values["action_units"] = list(recipe.action_units)
        if values.get("mask_region_weight") and not values.get("mask_regions"):
            values["mask_regions"] = facs.regions(recipe.action_units)
    return GeaauConfig(**values)


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings into dotted ones, which as overrides add to a recipe's own instead of replacing them.

    Example:
        >>> dotted({"model": {"head": "lam"}, "seed": 1})
        {'model.head': 'lam', 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


# Reading.


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-4 as a number; YAML 1.1 wants 1.0e-4."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


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
        raise TrainingError(f"Cannot read the recipe '{path}': {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TrainingError(f"Cannot read the recipe '{path}' as YAML: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise TrainingError(f"A recipe must hold `key: value` lines, got '{path}' with {type(values).__name__}.")
    _check_number_of_values(values, path)
    return values


def _check_number_of_values(values: Any, path: Path | str) -> None:
    """Refuse a recipe whose aliases stand for more values than anybody writes, or for themselves."""
    waiting, count = [values], 0
    while waiting:
        value, count = waiting.pop(), count + 1
        if count > _MOST_VALUES:
            raise TrainingError(f"A recipe must hold at most {_MOST_VALUES:,} values, got more in '{path}'.")
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise TrainingError(f"A setting must be KEY=VALUE, such as learning_rate=1e-3, got '{text}'.")
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise TrainingError(f"Cannot read the value of '{key}' as YAML: '{value}'.") from error
    _check_number_of_values(parsed, key)
    return key.strip(), parsed


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key."""
    first, _, rest = key.partition(".")
    if not rest:
        values[first] = value
        return
    if first not in _NESTED:
        raise TrainingError(f"Dots must lead into {', '.join(_NESTED)}, got '{key}'.{_hint(first, _NESTED)}")
    values[first] = dict(values.get(first) or {})
    if first == "model" and rest.partition(".")[0] == "backbone_kwargs" and "." in rest:
        name = rest.partition(".")[2]
        values[first]["backbone_kwargs"] = {**(values[first].get("backbone_kwargs") or {}), name: value}
    else:
        values[first][rest] = value


# Checking.


@cache
def _keywords_model() -> type[BaseModel]:
    """Build a model that checks the types of `GeaauConfig`'s keywords; their names and ranges are its own matter."""
    from hf_geaau.models.geaau import GeaauConfig

    declared = {entry.name for entry in fields(GeaauConfig)}
    hints = inspect.get_annotations(GeaauConfig, eval_str=True)
    known = {name: (kind, None) for name, kind in hints.items() if name in declared}
    config = ConfigDict(extra="allow", strict=True, protected_namespaces=())
    return create_model("ModelKeywords", __config__=config, **known)  # type: ignore[call-overload]


def _validated(values: dict[str, Any]) -> Recipe:
    """Build the recipe, or raise what is wrong with its values as one line."""
    for name in ("augmentation", "renders"):
        if name in values and values[name] is None:  # a key without a value in YAML
            values = {**values, name: {}}
    kind: type[Recipe] = RenderedRecipe if "renders" in values else Recipe
    try:
        if kind is RenderedRecipe:
            return RenderedRecipe.model_validate(values)
        return TypeAdapter[Recipe](_ByStage).validate_python(values)
    except ValidationError as error:
        raise TrainingError(_one_line(error, kind, values)) from error


_FIRST = ("extra_forbidden", "missing", "union_tag_not_found")  # a misspelled key explains what else is wrong


def _one_line(error: ValidationError, kind: type[Recipe], values: Mapping[str, Any]) -> str:
    """Describe the most telling error of a validation by its type, location and input."""
    entries = error.errors(include_url=False)
    entry = min(entries, key=lambda one: _FIRST.index(one["type"]) if one["type"] in _FIRST else len(_FIRST))
    code, context, found = entry["type"], entry.get("ctx", {}), entry["input"]
    path = [str(part) for part in entry["loc"]]
    if kind is Recipe:
        path = path[1:]  # the first part is the stage, by which the kind of recipe was found
    if code == "value_error":
        text = " ".join(str(context["error"]).split())
        return f"`dataset` and `options` do not fit: {text}" if isinstance(context["error"], DatasetError) else text
    if code == "union_tag_invalid":
        path, found = ["stage"], context["tag"]
    part, path = _part(kind, path)
    name = ".".join(path)
    if code == "extra_forbidden":
        hint = _hint(path[-1], part.model_fields) or f" Known keys: {', '.join(part.model_fields)}."
        return f"A recipe has no key '{name}'.{hint}"
    if code in ("missing", "union_tag_not_found"):
        given = values if len(path) < 2 else values[path[0]]
        return f"A recipe must have the key '{name or 'stage'}', got {', '.join(given) or 'none'}."
    choices = [choice for choice in get_args(part.model_fields[path[-1]].annotation) if isinstance(choice, str)]
    expected = "null in stage 'expression'" if code == "none_required" else expectation(entry)
    if choices and not code.startswith(("greater", "less")):
        expected = f"one of {', '.join(map(repr, choices))}" if len(choices) > 1 else repr(choices[0])
    shown = repr(found)
    return (
        f"`{name}` must be {expected}, got {shown if len(shown) <= 80 else shown[:60] + '…'}."
        f"{_hint(str(found)[:64], choices)}"
    )


def _part(kind: type[BaseModel], path: list[str]) -> tuple[type[BaseModel], list[str]]:
    """Find the model that an error's last key belongs to, and the path to that key in the recipe."""
    nested: dict[str, type[BaseModel]] = {
        "augmentation": Augmentation, "renders": Renders, "model": _keywords_model(),
    }  # fmt: skip
    if len(path) > 1 and path[0] in nested:
        return nested[path[0]], path[:2]  # deeper parts are pydantic's names for the parts of a type
    return kind, path[:1]


def _hint(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
