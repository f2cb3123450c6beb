"""Checkpoints of an interrupted run: which are whole, where to go on, what a full disk leaves."""

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
    """Give the last whole checkpoint, and remove what a kill in the middle of writing left."""
    found = sorted(output.glob("checkpoint-*"), key=lambda path: _step(path), reverse=True)
    whole = [path for path in found if is_whole(path)]
    for path in found:
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)
    return whole[0] if whole else None


def is_whole(folder: Path) -> bool:
    """Tell whether a checkpoint was written to its end.

    The Trainer writes the state last, but processes beside the first may still be writing, and a kill may come in the
    middle of removing an old checkpoint: so each file is looked at.
    """
    try:
        state = read_state(folder)
    except (OSError, ValueError):
        return False
    if not isinstance(state, dict) or state.get("global_step") != _step(folder):
        return False
    if any(folder.glob("*distcp*")) or any(folder.glob("global_step*")):  # FSDP and DeepSpeed keep their own
        return True
    parts = [*folder.glob("rng_state*.pth"), folder / "optimizer.pt", folder / "scheduler.pt"]
    return len(parts) > 2 and all(map(zipfile.is_zipfile, parts)) and _is_whole_tensors(folder / "model.safetensors")


def read_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's account of the run so far."""
    return json.loads((folder / _STATE).read_text(encoding="utf-8"))


def has_ended(state: dict[str, Any], patience: int | None) -> bool:
    """Tell whether a run had nothing left to train when it was interrupted."""
    entry = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback") or {}
    entry = entry[-1] if isinstance(entry, list) else entry
    waited = entry.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return state["global_step"] >= state["max_steps"] or (patience is not None and waited >= patience)


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
    """Turn a disk's refusal into one line, and remove the checkpoint that it cut short.

    Raises:
        TrainingError: If the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) not in _FULL and not any(text in str(error) for text in _FULL_TEXTS):
            raise
        last = resume_point(output) if int(os.environ.get("RANK", "0")) == 0 else None
        rest = f"goes on from {last.name}" if last else "begins anew"
        raise TrainingError(
            f"The disk must have room for checkpoints, got a full one at '{output}'. Free some space and run the same "
            f"command again; it {rest}."
        ) from error
