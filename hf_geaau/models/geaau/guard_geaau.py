"""Keep weights that licensed data has trained from being published by accident.

What a checkpoint was trained on stands in its config (`trained_on`), and this file travels with the model, so that the
guard also holds where the package is not installed. It is a guard rail, not a lock: files that somebody uploads by
other means pass it. The licence binds all the same.
"""

import sys
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

FREE_DATA = frozenset({"synthetic"})
"""Datasets whose licence lets anybody publish weights trained on them. All others count as bound, also unknown ones."""


def bound_data(trained_on: list[str] | None) -> list[str]:
    """Name the datasets whose licence may forbid to publish weights that were trained on them.

    Example:
        >>> bound_data(["synthetic", "disfa"])
        ['disfa']
    """
    return [name for name in trained_on or [] if name not in FREE_DATA]


def keep_private(config: Any, repo_id: str, private: bool | None = None, token: Any = None) -> None:
    """Make sure that weights bound by a licence go to a private repository: create one, or check the one that exists.

    Args:
        config: Of the model.
        repo_id: Where it is to be pushed.
        private: What the caller asked for; None leaves it to us.
        token: Of the Hub.

    Raises:
        PermissionError: If the repository is, or was asked to be, public.
    """
    names = bound_data(config.trained_on)
    if not names:
        return
    if private is not False:
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=True, exist_ok=True).repo_id
        if api.repo_info(repo_id).private:
            return
    raise PermissionError(
        f"Weights trained on {', '.join(names)} need a private repository, got the public '{repo_id}'. Choose a new"
        " name or make it private; if your agreement allows you to publish them, say why:"
        f' `hf-geaau push DIR {repo_id} --i-may-publish "reason"`.'
    )


class PublicationGuard:
    """What `GeaauPreTrainedModel` adds to pushing: weights bound by a licence go to private repositories only."""

    config: Any

    def push_to_hub(self, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Push as every transformers model does; see `keep_private`."""
        keep_private(self.config, repo_id, kwargs.get("private"), kwargs.get("token"))
        return super().push_to_hub(repo_id, *args, **kwargs)  # type: ignore[misc]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save as every transformers model does; with `push_to_hub=True`, see `keep_private`."""
        if kwargs.get("push_to_hub"):
            repo_id = kwargs.get("repo_id") or Path(save_directory).name
            keep_private(self.config, repo_id, kwargs.get("private"), kwargs.get("token"))
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]


def guard_trainer(config: Any) -> None:
    """Let every `Trainer` ask `keep_private` before it pushes: it uploads its folder by itself, past the model.

    A callback among Trainer's default ones is the only place from which a plain Trainer can be reached. Trainer is
    imported only for weights that are bound, because that takes a quarter of a second.
    """
    if not bound_data(config.trained_on) and "transformers.trainer" not in sys.modules:
        return
    try:
        from transformers import trainer
    except ImportError:  # without accelerate there is no Trainer to guard
        return

    if not any(getattr(kind, "__name__", "") == "PublicationGuardCallback" for kind in trainer.DEFAULT_CALLBACKS):
        trainer.DEFAULT_CALLBACKS.append(_callback(trainer.TrainerCallback))


def _callback(base: Any) -> Any:
    class PublicationGuardCallback(base):
        """Asks `keep_private` when a Trainer that pushes is made, and before each push."""

        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.push_to_hub:
                self.on_push_begin(args, state, control, **kwargs)

        def on_push_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            config = getattr(model, "config", None)
            if state.is_world_process_zero and getattr(config, "model_type", None) == "geaau":
                repo_id = args.hub_model_id or Path(args.output_dir).absolute().name
                keep_private(config, repo_id, args.hub_private_repo, args.hub_token)

    return PublicationGuardCallback


__all__ = ["FREE_DATA", "PublicationGuard", "bound_data", "guard_trainer", "keep_private"]
