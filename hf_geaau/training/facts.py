"""How a checkpoint was made: what training_facts.json tells the model card and `evaluate`."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from hf_geaau.data import get_dataset

from .recipe import Recipe
from .splits import Split, never_shown

FACTS = "training_facts.json"


def training_facts(recipe: Recipe, fold: int | None, split: Split, trainer: Trainer, minutes: float) -> dict[str, Any]:
    """Collect the facts of a finished training; "evaluation" and the test rows are still None."""
    assert trainer.model is not None
    return {
        "recipe": recipe.to_dict(),
        "dataset": _dataset(recipe, fold, split),
        "trained_on": trainer.model.config.trained_on,
        "started_from": recipe.expression_encoder or recipe.start_from,
        "seed": recipe.seed,
        "versions": {
            name: metadata.version(name) for name in ("hf_geaau", "torch", "transformers", "timm", "datasets")
        },
        "commit": _commit(),
        "hardware": {
            "device": str(trainer.args.device),
            "processes": trainer.args.world_size,
            "threads": torch.get_num_threads(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
        "minutes": round(minutes, 2),
        "steps": trainer.state.global_step,
        "evaluation": None,
    }


def _dataset(recipe: Recipe, fold: int | None, split: Split) -> dict[str, Any]:
    source = get_dataset(recipe.dataset, **recipe.options)
    train_rows, validation_rows = split.counts
    return {
        "name": source.NAME,
        "title": source.TITLE,
        "license": source.LICENSE,
        "homepage": source.HOMEPAGE,
        "citation": source.CITATION,
        "is_licensed": source.IS_LICENSED,
        "fold": fold,
        "folds": source.fold_count,
        "protocol": recipe.protocol,
        "train_rows": train_rows,
        "validation_rows": validation_rows,
        "test_rows": None,
        "train_subjects": len(split.train_subjects),
        "validation_subjects": len(split.validation_subjects),
        "test_subjects": None,
        "train_subject_ids": split.train_subjects,
        "validation_subject_ids": split.validation_subjects,
        "notes": [f"No training frame shows {name}." for name in never_shown(recipe, split)],
    }


def _commit() -> str | None:
    """Return the commit of this package, if it runs from a clone."""
    file = Path(__file__)
    git = ["git", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], check=True, capture_output=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip()
