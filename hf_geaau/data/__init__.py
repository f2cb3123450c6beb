"""The benchmarks as `datasets`: from the directory their owners send to train and test, in one call.

One module per dataset; each defines a class that says what its files look like and how its folds are drawn, and names
it `DATASET`. A new file beside them is a new dataset: `list_datasets()` finds it. `_base` holds what they share.

Nothing here downloads, copies or uploads licensed data: `load` reads the copy you hold under your own agreement, and
what it returns refuses a public `push_to_hub`.
"""

from ._base import AUDataset, DatasetNotes, Sequence, class_weights, get_dataset, list_datasets, load, write_example
from ._crops import open_aligned

__all__ = [
    "AUDataset",
    "DatasetNotes",
    "Sequence",
    "class_weights",
    "get_dataset",
    "list_datasets",
    "load",
    "open_aligned",
    "write_example",
]
