"""Checkpoints of an interrupted run: which are complete, where to resume, what a full disk leaves."""

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hf_geaau.errors import TrainingError

from .ema import EMA_FILE, WeightAverage

_STATE = "trainer_state.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = (
    "No space left",
    "File too large",
    "Disk quota exceeded",
    "PytorchStreamWriter failed",
    "file write failed",
)


def resume_point(output: Path) -> Path | None:
    """Return the last complete checkpoint, and remove those that were interrupted while they were written."""
    checkpoints = sorted(output.glob("checkpoint-*"), key=_step, reverse=True)
    whole = [path for path in checkpoints if is_whole(path)]
    for path in checkpoints:
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)
    return whole[0] if whole else None


def is_whole(folder: Path) -> bool:
    """Return whether a checkpoint is complete.

    The Trainer writes the state last, but processes beside the first may still be writing, and the run may have been
    killed while it removed an old checkpoint. Therefore each file is checked.
    """
    try:
        state = read_state(folder)
    except (OSError, ValueError):
        return False
    if not isinstance(state, dict) or state.get("global_step") != _step(folder):
        return False
    averaged = WeightAverage.__name__ in state.get("stateful_callbacks", {})
    if averaged and not _is_whole_tensors(folder / EMA_FILE):
        return False
    if any(folder.glob("*distcp*")) or any(folder.glob("global_step*")):  # FSDP and DeepSpeed keep their own
        return True
    parts = [*folder.glob("rng_state*.pth"), folder / "optimizer.pt", folder / "scheduler.pt"]
    return len(parts) > 2 and all(map(zipfile.is_zipfile, parts)) and _is_whole_tensors(folder / "model.safetensors")


def read_state(folder: Path) -> dict[str, Any]:
    """Read the Trainer's state of a checkpoint."""
    state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    return state


def has_ended(state: dict[str, Any], patience: int | None) -> bool:
    """Return whether a run had nothing left to train when it was interrupted."""
    entry = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback") or {}
    entry = entry[-1] if isinstance(entry, list) else entry
    waited = entry.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return bool(state["global_step"] >= state["max_steps"] or (patience is not None and waited >= patience))


def _is_whole_tensors(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):  # checks the header against the file's size
            return True
    except (SafetensorError, OSError):
        return False


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


@contextmanager
def full_disk_in_one_line(output: Path) -> Iterator[None]:
    """Report a full disk in one line, and remove the checkpoint that it cut short.

    Raises:
        TrainingError: If the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) not in _FULL and not any(text in str(error) for text in _FULL_TEXTS):
            raise
        last = resume_point(output) if int(os.environ.get("RANK", "0")) == 0 else None
        rest = f"resumes from {last.name}" if last else "starts from the beginning"
        raise TrainingError(
            f"Disk full while saving a checkpoint to '{output}'. Free some space and run the same command again; it"
            f" {rest}."
        ) from error
