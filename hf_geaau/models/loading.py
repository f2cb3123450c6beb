"""Load a checkpoint; whatever is wrong with it becomes an error of one line."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor

from hf_geaau.errors import CheckpointError, DeviceError

from .geaau import GeaauForExpressionEmbedding, GeaauModel
from .zoo import BUNDLED_CHECKPOINT, find_checkpoint

__all__ = ["BUNDLED_CHECKPOINT", "check_device", "load_checkpoint"]


def load_checkpoint(
    model: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    *,
    must_predict: bool = False,
) -> tuple[Any, Any]:
    """Load a model and its image processor.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        revision: Branch, tag or commit of a Hub repository, such as "fold2".
        token: Hub token; None for the one that `hf auth login` stored.
        must_predict: Refuse expression encoders, which predict no AUs.

    Returns:
        A `GeaauModel`, or a `GeaauForExpressionEmbedding` where the config names that, in evaluation mode; and its
        image processor.

    Raises:
        CheckpointError: If the checkpoint is missing, of another model type, or not in safetensors, or the Hub does
            not serve it.
    """
    source = str(find_checkpoint(model, revision, token))
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type != "geaau":
            raise CheckpointError(
                f"'{source}' is not a checkpoint of hf_geaau: its model type is '{config.model_type}'."
            )
        is_encoder = GeaauForExpressionEmbedding.__name__ in (config.architectures or [])
        if is_encoder and must_predict:
            raise CheckpointError(
                f"'{source}' is an expression encoder, which predicts no AUs. Train the second stage from it first; see"
                " `GeaauModel.from_expression_encoder`."
            )
        kind = GeaauForExpressionEmbedding if is_encoder else GeaauModel
        return kind.from_pretrained(source, config=config).eval(), AutoImageProcessor.from_pretrained(source)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, RuntimeError, SafetensorError … here
        reason = " ".join(str(error).split())
        raise CheckpointError(f"Cannot load the checkpoint '{source}': {reason[:300]}") from error


def check_device(device: Any) -> None:
    """Check that torch can use a device before anything is loaded.

    Raises:
        DeviceError: If it cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DeviceError(
            f"`device` must be one that torch can use here, got '{device}': {reason}."
            " Leave it out to use the best one available."
        ) from error
