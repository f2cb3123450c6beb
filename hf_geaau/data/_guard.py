"""Refuse to publish licensed data by accident.

What `load` returns for licensed data are subclasses of the classes of `datasets` whose `push_to_hub` refuses a public
repository. The usual transforms return the same subclasses. It is a guard rail, not a lock: `concatenate_datasets`,
files that you write and upload, and other libraries do not know it. The license binds all the same.
"""

from typing import Any

import datasets

from hf_geaau.errors import LicenseError


def guard(dataset: Any) -> Any:
    """Return a dataset, or a dictionary of datasets, that refuses a public `push_to_hub`; anything else as it is."""
    if isinstance(dataset, datasets.DatasetDict):
        return LicensedDatasetDict({name: guard(split) for name, split in dataset.items()})
    if isinstance(dataset, datasets.IterableDatasetDict):
        return LicensedIterableDatasetDict({name: guard(split) for name, split in dataset.items()})
    kind = {datasets.Dataset: LicensedDataset, datasets.IterableDataset: LicensedIterableDataset}.get(type(dataset))
    if kind is None:
        return dataset
    licensed = object.__new__(kind)
    vars(licensed).update(vars(dataset))  # the same rows, format and fingerprint
    return licensed


class _Licensed:
    """Refuses a public repository, and hands that on to the results of transforms."""

    def push_to_hub(self, repo_id: str, *args: Any, private: bool | None = None, **kwargs: Any) -> Any:
        """Push to a private repository.

        Raises:
            LicenseError: Unless `private=True` is passed and the repository is private or new.
        """
        info: Any = next(iter(self.values())).info if isinstance(self, dict) else vars(self)["_info"]
        if not private or _is_public(repo_id, kwargs.get("token")):
            raise LicenseError(
                f"Cannot push '{info.dataset_name}' to '{repo_id}': it is licensed and must not be published"
                f" ({info.license}). Keep it on your machines, or pass `private=True` for a private repository of"
                " people whom your agreement covers."
            )
        return super().push_to_hub(repo_id, *args, private=True, **kwargs)  # type: ignore[misc]


def _guarded(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return guard(getattr(super(_Licensed, self), name)(*args, **kwargs))

    return method


_TRANSFORMS = """
    add_column batch cast cast_column class_encode_column filter flatten flatten_indices map remove_columns
    rename_column rename_columns repeat select select_columns shard shuffle skip sort take to_iterable_dataset
    train_test_split with_format with_transform
"""
for _name in _TRANSFORMS.split():
    setattr(_Licensed, _name, _guarded(_name))


class LicensedDataset(_Licensed, datasets.Dataset):
    """A `datasets.Dataset` that refuses a public repository."""


class LicensedDatasetDict(_Licensed, datasets.DatasetDict):
    """A `datasets.DatasetDict` that refuses a public repository."""


class LicensedIterableDataset(_Licensed, datasets.IterableDataset):
    """A `datasets.IterableDataset` that refuses a public repository."""


class LicensedIterableDatasetDict(_Licensed, datasets.IterableDatasetDict):
    """A `datasets.IterableDatasetDict` that refuses a public repository."""


def _is_public(repo_id: str, token: str | None) -> bool:
    """Whether a repository exists and is public: `private=True` would not change that."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import BucketNotFoundError, RepositoryNotFoundError

    try:
        if repo_id.startswith("buckets/"):  # push_to_hub also takes storage buckets: buckets/owner/name/folder
            return not HfApi(token=token).bucket_info("/".join(repo_id.split("/")[1:3])).private
        return not HfApi(token=token).repo_info(repo_id, repo_type="dataset").private
    except (BucketNotFoundError, RepositoryNotFoundError):
        return False
