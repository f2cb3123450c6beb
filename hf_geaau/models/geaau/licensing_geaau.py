"""The one rule on sharing weights: those that licensed data has trained go to private repositories only.

What a checkpoint was trained on is recorded in its config (`trained_on`). This file travels with the model as remote
code, so that the rule also holds where the package is not installed. It is a guard rail, not a lock: files uploaded by
other means pass it, and the license binds all the same.
"""

import inspect
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import PreTrainedModel

FREE_DATA = frozenset({"synthetic"})
"""Datasets whose license lets anybody publish weights trained on them. All others count as bound, also unknown ones."""

UNKNOWN_DATA = "unknown data"
"""Stands for the data of weights whose config does not say what they were trained on."""


def bound_data(trained_on: Sequence[str] | None) -> list[str]:
    """Return the datasets whose license may forbid to publish weights that were trained on them.

    Args:
        trained_on: Of the config. None or empty: nobody recorded it, so the weights count as bound.

    Example:
        >>> bound_data(["synthetic", "disfa"]), bound_data(None)
        (['disfa'], ['unknown data'])
    """
    return [name for name in trained_on if name not in FREE_DATA] if trained_on else [UNKNOWN_DATA]


def keep_private(config: Any, repo_id: str, private: bool | None = None, token: Any = None) -> None:
    """Make sure that bound weights go to a private repository: create one, or check the one that exists.

    Args:
        config: Of the model.
        repo_id: Where it is to be pushed.
        private: What the caller asked for; None leaves it to this function.
        token: Of the Hub.

    Raises:
        PermissionError: If the repository is public, or was asked to be.
    """
    names = bound_data(getattr(config, "trained_on", None))
    if not names:
        return
    if private is not False:
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=True, exist_ok=True).repo_id
        if api.repo_info(repo_id).private:
            return
    if names == [UNKNOWN_DATA]:
        raise PermissionError(
            f"Cannot push to the public '{repo_id}': `config.trained_on` does not say what the weights were trained on."
            " Set it, such as ['synthetic'], or push to a private repository."
        )
    raise PermissionError(
        f"Cannot push to the public '{repo_id}': the weights were trained on {', '.join(names)}, whose license binds"
        " them. Use a private repository. If your agreement allows you to publish them, say why:"
        f' `hf-geaau push DIR {repo_id} --i-may-publish "reason"`.'
    )


class LicensedWeights:
    """Mixin of `GeaauPreTrainedModel` that applies `keep_private` when the model is pushed."""

    config: Any

    @wraps(PreTrainedModel.push_to_hub, assigned=())  # its signature
    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Push as every transformers model does; bound weights to private repositories only, see `keep_private`."""
        keep_private(self.config, repo_id, kwargs.get("private"), kwargs.get("token"))
        return super().push_to_hub(repo_id, **kwargs)  # type: ignore[misc]

    @wraps(PreTrainedModel.save_pretrained, assigned=())
    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save as every transformers model does; `push_to_hub=True` is checked by `keep_private`."""
        bound = inspect.signature(PreTrainedModel.save_pretrained).bind(self, save_directory, *args, **kwargs).arguments
        if bound.get("push_to_hub"):
            repo_id = kwargs.get("repo_id") or Path(save_directory).name
            keep_private(self.config, repo_id, kwargs.get("private"), bound.get("token"))
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]


__all__ = ["FREE_DATA", "UNKNOWN_DATA", "LicensedWeights", "bound_data", "keep_private"]
