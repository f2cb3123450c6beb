"""What a run trains and validates on, and what the model's config takes from it."""

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.data import class_weights, get_dataset, open_aligned
from hf_geaau.errors import TrainingError
from hf_geaau.models.geaau import GeaauConfig

from .data import CropDataset, label_targets
from .recipe import Recipe, geaau_config, resolved_recipe

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Split:
    """Training and validation rows of a fold. No subject is in both.

    Attributes:
        train, validation: Datasets; validation is None without a share.
        train_subjects, validation_subjects: Their subjects; empty for triplets, which name none.
    """

    train: "Dataset"
    validation: "Dataset | None" = None
    train_subjects: list[str] = field(default_factory=list)
    validation_subjects: list[str] = field(default_factory=list)

    @property
    def counts(self) -> list[int]:
        """Training and validation rows."""
        return [len(self.train), 0 if self.validation is None else len(self.validation)]


def open_split(recipe: Recipe, data_dir: str | os.PathLike[str], fold: int | None, *, cut: bool = True) -> Split:
    """Open the train side of a fold and hold out validation subjects. The test side stays closed.

    Triplets name no people; a share of their rows is held out, which may show the same photos.

    Args:
        recipe: Decides data and share.
        data_dir, fold: As for `train`.
        cut: As for `open_aligned`.

    Raises:
        TrainingError: If there are too few subjects to hold one out.
        DatasetError, DatasetNotFoundError: As `open_aligned`.
    """
    rows = open_aligned(recipe.dataset, data_dir, fold, "train", recipe.protocol, cut=cut, **recipe.options)
    named = "subject_id" in rows.column_names
    groups = np.array(rows["subject_id"][:], dtype=np.str_) if named else np.arange(len(rows))
    members = np.unique(groups)
    if not recipe.validation_share:
        return Split(rows, train_subjects=members.tolist() if named else [])
    if len(members) < 2:
        kind = "subjects" if named else "triplets"
        raise TrainingError(
            f"Validation holds out whole {kind}, and '{data_dir}' has only {len(members)} to train on. Add data, or set"
            " validation_share=0 early_stopping=null."
        )
    count = max(1, round(recipe.validation_share * len(members)))
    held_out = np.random.default_rng(recipe.seed).permutation(members)[:count]
    is_held_out = np.isin(groups, held_out)
    return Split(
        rows.select(np.flatnonzero(~is_held_out)),
        rows.select(np.flatnonzero(is_held_out)),
        sorted(set(members.tolist()) - set(held_out.tolist())) if named else [],
        sorted(held_out.tolist()) if named else [],
    )


def datasets_of(recipe: Recipe, split: Split, config: GeaauConfig) -> tuple[CropDataset, CropDataset | None]:
    """Build the training set and, if there is one, the validation set.

    Args:
        recipe: Decides augmentation, order and labels.
        split: The rows.
        config: The model's, for the size of its input and whether it predicts intensities, sides and visibility.

    Raises:
        TrainingError: If the model predicts sides or visibility, and no training row tells them.
    """
    common: dict[str, Any] = {
        "row_units": get_dataset(recipe.dataset, **recipe.options).aus,
        "action_units": recipe.action_units,
        "with_intensities": config.predict_intensity or config.embedding_weight > 0,
        "with_sides": config.predict_sides,
        "with_visibility": config.predict_visibility,
        "ignore_traces": recipe.ignore_traces,
        "seed": recipe.seed,
    }
    train = CropDataset(
        split.train,
        config.image_size,
        augmentation=recipe.augmentation,
        shuffle=True,
        batch_size=recipe.batch_size,
        **common,
    )
    if config.predict_sides and not (train.targets["sides"] >= 0).any():
        raise TrainingError(
            f"`model.predict_sides` needs data that tells left and right apart, and {recipe.dataset} tells none. Render"
            " faces with `hf-geaau render`, or leave it out."
        )
    if config.predict_visibility and not (train.targets["visible"] >= 0).any():
        raise TrainingError(
            f"`model.predict_visibility` needs data that tells what is hidden, not {recipe.dataset}. Render"
            " faces with `hf-geaau render`, or leave it out."
        )
    return train, None if split.validation is None else CropDataset(split.validation, config.image_size, **common)


def training_config(recipe: Recipe, split: Split) -> GeaauConfig:
    """Build the config of a recipe's model with what the training data decides: class weights.

    Args:
        recipe: Its `class_weighting` is applied in stage 2.
        split: Of `open_split`; the weights are those of its training rows.
    """
    if recipe.stage == "expression" or recipe.class_weighting == "none":
        return geaau_config(recipe)
    labels = training_labels(recipe, split)
    # An AU that never occurs has no rate. It is weighted as if one frame showed it (our choice).
    labels[0, ~(labels == 1).any(axis=0)] = 1
    if recipe.class_weighting == "inverse_rate":
        return geaau_config(recipe, au_weights=class_weights(labels).tolist())
    pos_weight = (labels == 0).sum(0).clip(min=1) / (labels == 1).sum(0)
    return geaau_config(recipe, pos_weight=pos_weight.tolist())


def training_labels(recipe: Recipe, split: Split) -> NDArray[np.float32]:
    """Return the labels (rows, AUs) of the training rows, in the model's order of AUs."""
    row_units = get_dataset(recipe.dataset, **recipe.options).aus
    return label_targets(split.train, row_units, recipe.action_units, recipe.ignore_traces)["labels"].numpy()


def never_shown(recipe: Recipe, split: Split) -> list[str]:
    """Return the names of AUs that no training frame shows."""
    if recipe.stage == "expression":
        return []
    shown = (training_labels(recipe, split) == 1).any(axis=0)
    return facs.labels([unit for unit, is_shown in zip(recipe.action_units, shown, strict=True) if not is_shown])


def describe(recipe: Recipe, data_dir: str | os.PathLike[str], fold: int | None) -> dict[str, int | str]:
    """Count what a run would use, without loading an image or a weight.

    Returns:
        Numbers of rows, subjects and steps, by their names.

    Raises:
        TrainingError, DatasetError, DatasetNotFoundError: As `train`.
    """
    recipe = resolved_recipe(recipe, data_dir)
    split = open_split(recipe, data_dir, fold, cut=False)
    per_epoch = max(1, len(split.train) // recipe.batch_size)
    counts: dict[str, int | str] = {"training rows": len(split.train)}
    if split.train_subjects:
        counts["training subjects"] = len(split.train_subjects)
    if split.validation is not None:
        counts["validation rows"] = len(split.validation)
    if split.validation_subjects:
        counts["validation subjects"] = ", ".join(split.validation_subjects)
    if fold is not None:
        test = open_aligned(recipe.dataset, data_dir, fold, "test", recipe.protocol, cut=False, **recipe.options)
        counts["test rows"] = len(test)
    steps = recipe.max_steps or math.ceil((recipe.epochs or 1) * per_epoch)
    return {**counts, "steps per epoch": per_epoch, "steps": steps}
