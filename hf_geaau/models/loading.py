"""Load a checkpoint, with one line for whatever is wrong with it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor

from hf_geaau.errors import CheckpointError, DeviceError

from .geaau import GeaauForExpressionEmbedding, GeaauModel
from .zoo import BUNDLED_CHECKPOINT, find_checkpoint

__all__ = ["BUNDLED_CHECKPOINT", "check_device", "load_checkpoint"]


def load_checkpoint(
    model: str | Path | None = None, revision: str | None = None, token: str | bool | None = None
) -> tuple[Any, Any]:
    """Load a model and its image processor.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        revision: Branch, tag or commit of a Hub repository, such as "fold2".
        token: Of the Hub; None for the one that `hf auth login` stored.

    Returns:
        A `GeaauModel`, or a `GeaauForExpressionEmbedding` where the config names that, in evaluation mode; and its
        image processor.

    Raises:
        CheckpointError: If the checkpoint is missing, of another model type, or not in safetensors, or the Hub does
            not give it.
    """
    source = str(find_checkpoint(model, revision, token))
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type != "geaau":
            raise CheckpointError(
                f"A checkpoint must be of model type 'geaau', got '{config.model_type}' in '{source}'."
            )
        is_encoder = GeaauForExpressionEmbedding.__name__ in (config.architectures or [])
        kind = GeaauForExpressionEmbedding if is_encoder else GeaauModel
        return kind.from_pretrained(source, config=config).eval(), AutoImageProcessor.from_pretrained(source)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, RuntimeError, SafetensorError … here
        reason = " ".join(str(error).split())
        raise CheckpointError(f"A checkpoint must load, got '{source}', which does not: {reason[:300]}") from error


def check_device(device: Any) -> None:
    """Say that a device is not there before anything is loaded.

    Raises:
        DeviceError: If torch cannot use it.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DeviceError(
            f"`device` must be one that torch can use here, got '{device}': {reason}."
            " Leave it out for the best one that is there."
        ) from error
