"""The benchmarks as `datasets`: from the directory their owners send to train and test, in one call.

One module per dataset; each defines a class that says what its files look like and how its folds are drawn, and names
it `DATASET`. `loading.DATASETS` lists the modules, `base` holds what they share, `crops` cuts and opens face crops, and
`imitations` writes small invented trees of each layout.

Nothing here downloads, copies or uploads licensed data: `load` reads the copy you hold under your own agreement, and
what it returns refuses a public `push_to_hub`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .base import AUDataset, DatasetNotes, Fold
from .columns import class_weights, column_array, side_labels, visibility_labels
from .loading import dataset_class, get_dataset, list_datasets, load
from .rows import Recording

if TYPE_CHECKING:
    from .crops import PrepareReport, open_aligned, prepare
    from .imitations import write_example

_LAZY = {  # crops needs the face detector, and imitations draw
    "PrepareReport": "hf_geaau.data.crops",
    "open_aligned": "hf_geaau.data.crops",
    "prepare": "hf_geaau.data.crops",
    "write_example": "hf_geaau.data.imitations",
}

__all__ = [
    "AUDataset",
    "DatasetNotes",
    "Fold",
    "PrepareReport",
    "Recording",
    "class_weights",
    "column_array",
    "dataset_class",
    "get_dataset",
    "list_datasets",
    "load",
    "open_aligned",
    "prepare",
    "side_labels",
    "visibility_labels",
    "write_example",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hf_geaau.data' has no attribute '{name}'")
