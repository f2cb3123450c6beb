"""Refuse to publish licensed data by accident.

What `load` returns is a `Dataset` like any other, whose `push_to_hub` refuses a public repository. The usual
transforms (map, filter, select, shuffle, …) hand the guard on. It is a guard rail, not a lock: `concatenate_datasets`,
files that you write and upload, and other libraries do not know it. The licence binds all the same.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import datasets

from hf_geaau.errors import LicenseError

_TRANSFORMS = (
    "add_column", "cast", "cast_column", "filter", "flatten", "flatten_indices", "map", "remove_columns",
    "rename_column", "rename_columns", "repeat", "select", "select_columns", "shard", "shuffle", "skip", "sort", "take",
    "to_iterable_dataset", "train_test_split", "with_format", "with_transform",
)  # fmt: skip


def guard(dataset: Any) -> Any:
    """Make a dataset, or dictionary of datasets, refuse a public `push_to_hub`."""
    if isinstance(dataset, dict):
        for name, split in dataset.items():
            dataset[name] = guard(split)
    if (kind := _GUARDED.get(type(dataset))) is not None:
        dataset.__class__ = kind
    return dataset


def _push_to_hub(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def push_to_hub(self: Any, repo_id: str, *arguments: Any, private: bool | None = None, **options: Any) -> Any:
        info = (next(iter(self.values())) if isinstance(self, dict) else self).info
        if not private or _is_public(repo_id, options.get("token")):
            raise LicenseError(
                f"Licensed data must not be published, got push_to_hub({repo_id!r}) for '{info.dataset_name}'. Its "
                f"licence: {info.license}. Keep it on your machines, or pass `private=True` for a private repository "
                "of people whom your agreement covers."
            )
        return original(self, repo_id, *arguments, private=True, **options)

    return push_to_hub


def _is_public(repo_id: str, token: str | None) -> bool:
    """Tell whether a repository exists and is public: `private=True` would not change that."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import BucketNotFoundError, RepositoryNotFoundError

    try:
        if repo_id.startswith("buckets/"):  # push_to_hub also takes storage buckets: buckets/owner/name/folder
            return not HfApi(token=token).bucket_info("/".join(repo_id.split("/")[1:3])).private
        return not HfApi(token=token).repo_info(repo_id, repo_type="dataset").private
    except (BucketNotFoundError, RepositoryNotFoundError):
        return False


def _handing_on(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def transform(self: Any, *arguments: Any, **options: Any) -> Any:
        return guard(original(self, *arguments, **options))

    return transform


def _guarded(kind: type) -> type:
    """Make a subclass of a kind of dataset that refuses, and whose transforms refuse too."""
    methods = {name: _handing_on(getattr(kind, name)) for name in _TRANSFORMS if hasattr(kind, name)}
    methods["push_to_hub"] = _push_to_hub(kind.push_to_hub)  # type: ignore[attr-defined]
    # The module makes them picklable, for `num_proc` and data loaders.
    return type(f"Licensed{kind.__name__}", (kind,), {"__doc__": __doc__, "__module__": __name__, **methods})


LicensedDataset = _guarded(datasets.Dataset)
LicensedDatasetDict = _guarded(datasets.DatasetDict)
LicensedIterableDataset = _guarded(datasets.IterableDataset)
LicensedIterableDatasetDict = _guarded(datasets.IterableDatasetDict)

_GUARDED = {
    datasets.Dataset: LicensedDataset,
    datasets.DatasetDict: LicensedDatasetDict,
    datasets.IterableDataset: LicensedIterableDataset,
    datasets.IterableDatasetDict: LicensedIterableDatasetDict,
}
