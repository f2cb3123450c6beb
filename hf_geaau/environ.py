"""Set environment variables for a while, and read those of several processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from hf_geaau.errors import ProcessError

_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"), ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
_LOCAL_RANKS = ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE",)


def process_count() -> int:
    """Return how many processes torchrun, accelerate or MPI say in the environment that they started; 1 without them.

    Raises:
        ProcessError: If a value is not a whole number, or a rank is not below its count. torch would print a traceback.
    """

    def number(default: int, least: int, names: tuple[str, ...]) -> int:
        name = next((name for name in names if name in os.environ), None)
        text = str(default) if name is None else os.environ[name].strip()
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
            raise ProcessError(
                f"The environment variable {name} must be a whole number from {least}, got {text[:20]!r}. Unset it, or"
                " start the command with torchrun or accelerate launch."
            )
        return int(text)

    rank, count = number(0, 0, _RANKS[0]), number(1, 1, _RANKS[1])
    local = number(0, 0, _LOCAL_RANKS[0]), number(count, 1, _LOCAL_RANKS[1])
    for name, given, below in (("RANK", rank, count), ("LOCAL_RANK", *local)):
        if given >= below:
            raise ProcessError(
                f"The environment variable {name} must be below the number of processes, got {given} of {below}. Unset"
                " it, or start the command with torchrun or accelerate launch."
            )
    return count


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables, and set them back afterwards; all others stay as they are by then.

    Example:
        >>> with environment(HF_GEAAU_EXAMPLE="1"):
        ...     os.environ["HF_GEAAU_EXAMPLE"]
        '1'
        >>> "HF_GEAAU_EXAMPLE" in os.environ
        False
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
