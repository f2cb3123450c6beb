"""Training the paper's way: a recipe becomes a plain `transformers.Trainer`.

Stage 1 trains the expression encoder GEE on triplets of faces, stage 2 fine-tunes the whole network on action units.
The recipes beside this page are YAML files with the source of every published value.
"""

import importlib
from typing import Any

from .recipe import Augmentation, Recipe, list_recipes, load_recipe

_LAZY = {
    "Collator": "data",
    "CropDataset": "data",
    "build_model": "model",
    "build_trainer": "trainer",
    "start_from_imagenet": "model",
    "parameter_groups": "trainer",
    "train": "run",
    "train_folds": "run",
}

__all__ = ["Augmentation", "Recipe", "list_recipes", "load_recipe", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
