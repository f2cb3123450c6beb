"""Load a checkpoint, with one line for whatever is wrong with it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor

from hf_geaau.errors import CheckpointError, DeviceError

from .geaau import GeaauForExpressionEmbedding, GeaauModel

BUNDLED_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "geaau-efficientnet_lite0-synthetic"


def load_checkpoint(model: str | Path | None = None) -> tuple[Any, Any]:
    """Load a model and its image processor.

    Args:
        model: Hub id or directory; None for the bundled checkpoint.

    Returns:
        A `GeaauModel`, or a `GeaauForExpressionEmbedding` where the config names that, in evaluation mode; and its
        image processor.

    Raises:
        CheckpointError: If the checkpoint is missing, of another model type, or not in safetensors.
    """
    source = str(BUNDLED_CHECKPOINT if model is None else model)
    _check_directory(Path(source))
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


def _check_directory(directory: Path) -> None:
    """Say what a local checkpoint lacks, before transformers looks for it on the Hub."""
    if not directory.is_dir():
        if directory.exists():
            raise CheckpointError(f"A checkpoint must be a directory or a Hub id, got the file '{directory}'.")
        return
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"A checkpoint must hold config.json, got '{directory}' without it. Save it with save_pretrained."
        )
    if not list(directory.glob("*.safetensors")):
        found = [
            path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt") for path in directory.glob(pattern)
        ]
        got = f"only {', '.join(found)}, a pickle, which can run code" if found else "none"
        raise CheckpointError(f"A checkpoint must hold weights in safetensors, got {got} in '{directory}'.")
