"""Write whole files, parse JSON, lock folders, claim the folder of a run, and keep long sequences out of memory."""

import errno
import json
import os
import shutil
import tempfile
import threading
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO, Generic, TypeVar, overload

from filelock import FileLock, Timeout

from hf_geaau.errors import GeaauError

LOCK_FILE = ".lock"
"""Held while a run writes into a folder. The operating system releases it when the process ends, however it ends."""

BLOCK = 256  # items of a `Spool` that are written and read together; our choice

RETRY_AFTER_S = (0.1, 0.2, 0.4, 0.8, 1.5)  # virus scanners and indexers hold a new file that long; our choice
_IN_USE = (5, 32)  # ERROR_ACCESS_DENIED and ERROR_SHARING_VIOLATION of Windows

Item = TypeVar("Item")


class FileInUseError(PermissionError):
    """A file cannot be replaced, because another program has it open; only on Windows."""


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that takes the name `path` when the block ends, and vanishes if the block fails.

    The temporary file lies in the same folder, because only there renaming is atomic. Its name starts with a dot, so
    that listings of data files skip one that a killed process left behind. Of two processes that write the same file,
    the last one wins, whole.

    Raises:
        OSError: If the file cannot be written; its `filename` is `path`.
        FileInUseError: If another program has `path` open.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder) / "note.txt") as part:
        ...         _ = part.write_text("whole")
        ...     (Path(folder) / "note.txt").read_text()
        'whole'
    """
    path, part = Path(path), None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
        os.close(handle)
        part = Path(name)
        part.chmod(0o644)  # mkstemp makes files that only their owner can read
        yield part
        replace_file(part, path)
    except FileInUseError:
        raise
    except OSError as error:
        if error.errno and str(error.filename or ".partial").endswith(".partial"):
            # The temporary name says nothing to a user.
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error
        raise
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def replace_file(part: Path, target: Path) -> None:
    """Rename a finished file or folder, also while Windows briefly keeps one of the names busy.

    Raises:
        OSError: If it cannot be renamed.
        FileInUseError: If another program has `target` open.
    """
    for wait_s in (*RETRY_AFTER_S, None):
        try:
            part.replace(target)
            return
        except PermissionError as error:
            is_refused = target.is_dir() or (target.exists() and not os.access(target, os.W_OK))
            if is_refused or getattr(error, "winerror", None) not in _IN_USE:
                raise
            if wait_s is None:
                reason = "another program has it open; close it there"
                raise FileInUseError(errno.EACCES, reason, os.fspath(target)) from error
        sleep(wait_s)


def write_json(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a JSON object as a whole file.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON cannot express. Write None instead.
    """
    with whole_file(path) as part:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Parse JSON that others wrote.

    Args:
        text: The JSON.
        **options: Of `json.loads`.

    Raises:
        ValueError: If it is no JSON, or nested too deeply, for which `json.loads` raises a RecursionError.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: it is nested too deeply
    """
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def reason_of(error: OSError) -> str:
    """Return why the system refused, without error number and file name."""
    if isinstance(error, FileInUseError):
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else " ".join(str(error).split())


class FolderLock:
    """The lock on a folder while one process writes to it. Use it as a context manager, or call `release`.

    Args:
        folder: Created if it is missing.
        content: What is written, in the plural, for messages: "pictures".
        error: Class of the errors raised.

    Raises:
        GeaauError: Of class `error`, if another process holds the lock, or the folder cannot be written.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, FolderLock(folder) as lock:
        ...     lock.is_empty
        True
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, content: str = "results", error: type[GeaauError] = GeaauError
    ) -> None:
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / LOCK_FILE)
        try:
            if self.folder.exists() and not self.folder.is_dir():
                raise error(f"The output must be a folder, got the file '{folder}'. Pass another name.")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as problem:
            raise error(
                f"Another process is writing {content} to '{folder}'. Wait for it to end, or pass another output."
            ) from problem
        except OSError as problem:
            if isinstance(problem, GeaauError):
                raise
            raise _unwritable(self.folder, problem, error) from problem

    @property
    def is_empty(self) -> bool:
        """Whether the folder holds nothing but the lock."""
        return all(path.name == LOCK_FILE for path in self.folder.iterdir())

    def release(self) -> None:
        """Let other processes write to the folder. Calling it again has no effect."""
        if self._lock.is_locked:
            # Unlinked before it is released: a process that opened the old file notices and tries again. Windows does
            # not remove a file that is open; there, `filelock` removes it afterwards.
            with suppress(PermissionError):
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


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
        self._lock = FolderLock(folder, content=content, error=error)
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
            raise _unwritable(self.folder, error, self._error) from error

    def remove(self) -> None:
        """Delete the folder and release it."""
        self._clear()
        self.release()
        with suppress(OSError):  # someone else may have claimed it in the meantime
            self.folder.rmdir()

    def release(self) -> None:
        """Let other processes write to the folder. Calling it again has no effect."""
        self._lock.release()

    def __enter__(self) -> "FolderClaim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _clear(self) -> None:
        """Remove everything but the lock; the record last, as it marks the rest as ours.

        Numbered files go from the last to the first, so that a kill meanwhile leaves a valid earlier state.
        """
        paths = [path for path in self.folder.iterdir() if path.name != LOCK_FILE]
        for path in sorted(paths, key=lambda path: (path != self.record, path.name), reverse=True):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _compared(self, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            recorded = dict(parse_json(self.record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise self._error(
                f"Cannot read the settings in '{self.record}' ({error}). Pass another output, or remove that folder."
            ) from error
        changed = [
            f"{name} was {shortened(recorded.get(name))}, is {shortened(value)}"
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


class Spool(Sequence[Item], Generic[Item]):
    """A sequence to append to that keeps its items in a temporary file: a million of them take little memory.

    Each block of `BLOCK` items is a line of JSON there; the items after the last whole block stay in memory, so that
    a short sequence needs no file. Any thread may read.

    Args:
        to_json: Returns what an item is restored from, as JSON expresses it; None keeps the item itself in memory.
        from_json: Restores an item.
        items: The first items.

    Example:
        >>> names = Spool(str, str, ["a.jpg"])
        >>> names.append("b.jpg")
        >>> names[-1], len(names), names == ["a.jpg", "b.jpg"]
        ('b.jpg', 2, True)
    """

    def __init__(
        self, to_json: Callable[[Item], Any], from_json: Callable[[Any], Item], items: Iterable[Item] = ()
    ) -> None:
        self._to_json, self._from_json = to_json, from_json
        self._file: BinaryIO | None = None
        self._ends = array("Q", [0])  # where each block ends in the file
        self._kept: dict[int, Item] = {}
        self._last: list[Item] = []
        self._read: tuple[int, list[Item]] = -1, []  # the block that was read last
        self._lock = threading.RLock()
        self.extend(items)

    def append(self, item: Item) -> None:
        """Add an item at the end.

        Raises:
            GeaauError: If the temporary file cannot be written.
        """
        with self._lock:
            self._last.append(item)
            if len(self._last) == BLOCK:
                self._write_block()

    def extend(self, items: Iterable[Item]) -> None:
        """Add items at the end."""
        for item in items:
            self.append(item)

    def __len__(self) -> int:
        return (len(self._ends) - 1) * BLOCK + len(self._last)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        with self._lock:
            number, at = divmod(range(len(self))[index], BLOCK)
            return self._last[at] if number == len(self._ends) - 1 else self._block(number)[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it changes, as a list does

    def __repr__(self) -> str:
        return f"Spool({self[:3]!r})" if len(self) <= 3 else f"Spool({self[:3]!r}… {len(self)} items)"

    def _write_block(self) -> None:
        first, values = (len(self._ends) - 1) * BLOCK, [self._to_json(item) for item in self._last]
        self._kept |= {first + at: self._last[at] for at, value in enumerate(values) if value is None}
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the sequence
                weakref.finalize(self, self._file.close)
            self._file.seek(self._ends[-1])
            self._file.write(json.dumps(values).encode())
            self._file.flush()
        except OSError as error:
            raise GeaauError(
                f"Cannot write a temporary file in '{tempfile.gettempdir()}': {reason_of(error)}. Free space there, or"
                " set TMPDIR to another folder."
            ) from error
        self._ends.append(self._file.tell())
        self._last = []

    def _block(self, number: int) -> list[Item]:
        if self._read[0] != number:
            assert self._file is not None
            self._file.seek(self._ends[number])
            values = json.loads(self._file.read(self._ends[number + 1] - self._ends[number]))
            first = number * BLOCK
            items = [
                self._kept[first + at] if value is None else self._from_json(value) for at, value in enumerate(values)
            ]
            self._read = number, items
        return self._read[1]


def _unwritable(folder: Path, problem: OSError, error: type[GeaauError]) -> GeaauError:
    return error(f"Cannot write to '{folder}': {reason_of(problem)}. Check the disk and the rights.")


def shortened(value: object) -> str:
    """Return a value for a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
