"""Write files so that nobody ever finds half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to; what was written takes the name `path` at the end, and vanishes after an error.

    The temporary file lies in the same folder, because only there renaming is atomic; its name starts with a dot, so
    that listings of data files pass over one that a kill left behind.

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
        part.chmod(0o644)  # mkstemp makes files that only their owner reads
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
