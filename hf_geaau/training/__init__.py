"""Training the paper's way: a recipe becomes a plain `transformers.Trainer`.

Stage 1 trains the expression encoder GEE on triplets of faces, stage 2 fine-tunes the whole network on action units.
The recipes in the folder `recipes` are YAML files with the source of every published value.
"""

import importlib
from typing import Any

from .recipe import (
    ActionUnitRecipe,
    Augmentation,
    ExpressionRecipe,
    Recipe,
    RenderedRecipe,
    Renders,
    list_recipes,
    load_recipe,
    resolved_recipe,
)

_LAZY = {
    "Collator": "data",
    "CropDataset": "data",
    "WeightAverage": "ema",
    "build_model": "model",
    "build_trainer": "trainer",
    "datasets_of": "splits",
    "describe": "splits",
    "ending_process_group": "run",
    "open_split": "splits",
    "parameter_groups": "trainer",
    "start_from_imagenet": "model",
    "train": "run",
    "train_folds": "run",
    "train_rendered": "rendered",
    "training_config": "splits",
}

__all__ = [
    "ActionUnitRecipe", "Augmentation", "ExpressionRecipe", "Recipe", "RenderedRecipe", "Renders", "resolved_recipe",
    "list_recipes", "load_recipe", *_LAZY,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
