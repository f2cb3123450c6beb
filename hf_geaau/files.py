"""Write whole files, and claim the folder of a run."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hf_geaau.errors import GeaauError

LOCK_FILE = ".lock"
"""Held while a run writes into a folder. The operating system releases it when the process ends, however it ends."""


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that takes the name `path` when the block ends, and vanishes if the block fails.

    The temporary file lies in the same folder, because only there renaming is atomic. Its name starts with a dot, so
    that listings of data files skip one that a killed process left behind.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder) / "note.txt") as part:
        ...         _ = part.write_text("whole")
        ...     (Path(folder) / "note.txt").read_text()
        'whole'
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    os.close(handle)
    part = Path(name)
    try:
        part.chmod(0o644)  # mkstemp makes files that only their owner can read
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a JSON object as a whole file.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON cannot express. Write None instead.
    """
    with whole_file(path) as part:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")


class FolderClaim:
    """The output folder of one run: locked while the run writes, and tied to the settings it was begun with.

    The first run records its settings as JSON. A later run resumes only with the same settings. Use it as a context
    manager, or call `release` when the run ends.

    Args:
        folder: Created if it is missing.
        settings: What decides the content of the folder, as JSON expresses it.
        record: File that holds the settings. Further keys in it are kept and not compared.
        error: Class of the errors raised.
        content: What the folder holds, in the plural, for messages: "crops", "renders".
        may_hold: Names that a folder without a record may already hold. Hidden files are always allowed.
        start_over: Remove what an earlier run left, once the folder is locked.
        hint: What to do if the settings differ, for the message.

    Attributes:
        recorded: The content of the record, including keys that are not compared.
        is_resumed: Whether an earlier run had recorded its settings here.

    Raises:
        GeaauError: Of class `error`, if another process writes to the folder, if it holds other files or a run with
            other settings, or if it cannot be written.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, FolderClaim(folder, {"seed": 1}) as claim:
        ...     claim.is_resumed
        False
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        record: str = ".run.json",
        error: type[GeaauError] = GeaauError,
        content: str = "results",
        may_hold: tuple[str, ...] = (),
        start_over: bool = False,
        hint: str = "Pass another output, or the same settings.",
    ) -> None:
        self.folder, self._error, self._content, self._hint = Path(folder), error, content, hint
        self.record = self.folder / record
        self._lock = self._acquire()
        try:
            if start_over and self.record.is_file():
                self._clear()
            self.is_resumed = self.record.is_file()
            self.recorded: dict[str, Any] = json.loads(json.dumps(settings))
            if self.is_resumed:
                self.recorded = self._compared(self.recorded)
            else:
                self._refuse_other_files(may_hold)
                self.update()
        except BaseException:
            self.release()
            raise

    def update(self, **values: Any) -> None:
        """Add or change keys of the record that are not settings, such as the minutes spent."""
        self.recorded = {**self.recorded, **values}
        try:
            write_json(self.recorded, self.record)
        except OSError as error:
            raise self._unwritable(error) from error

    def remove(self) -> None:
        """Delete the folder and release it."""
        self._clear()
        self.release()
        with suppress(OSError):  # someone else may have claimed it in the meantime
            self.folder.rmdir()

    def release(self) -> None:
        """Let other processes write to the folder. Calling it again has no effect."""
        if self._lock.is_locked:
            # Unlinked before it is released: a process that opened the old file notices and tries again.
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> "FolderClaim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _acquire(self) -> FileLock:
        if self.folder.exists() and not self.folder.is_dir():
            raise self._error(f"The output must be a folder, got the file '{self.folder}'. Pass another name.")
        lock = FileLock(self.folder / LOCK_FILE)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise self._error(
                f"Another process is writing {self._content} to '{self.folder}'. Wait for it to end, or pass another"
                " output."
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error
        return lock

    def _clear(self) -> None:
        """Remove everything but the lock; the record last, as it marks the rest as ours."""
        paths = [path for path in self.folder.iterdir() if path.name != LOCK_FILE]
        for path in sorted(paths, key=lambda path: path == self.record):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _compared(self, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            recorded = dict(json.loads(self.record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise self._error(
                f"Cannot read the settings in '{self.record}' ({error}). Pass another output, or remove that folder."
            ) from error
        changed = [
            f"{name} was {_short(recorded.get(name))}, is {_short(value)}"
            for name, value in settings.items()
            if recorded.get(name) != value
        ]
        if changed:
            raise self._error(
                f"Cannot resume: '{self.folder}' holds {self._content} made with other settings"
                f" ({'; '.join(changed)}). {self._hint}"
            )
        return recorded

    def _refuse_other_files(self, allowed: tuple[str, ...]) -> None:
        names = sorted(path.name for path in self.folder.iterdir())
        other = [name for name in names if name not in allowed and not name.startswith(".")]
        if other:
            raise self._error(
                f"The output must be a new or empty folder, or one that an earlier run left, got '{self.folder}' with"
                f" '{other[0]}'. Pass another folder."
            )

    def _unwritable(self, error: OSError) -> GeaauError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return self._error(f"Cannot write to '{self.folder}': {reason}. Check the disk and the rights.")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
