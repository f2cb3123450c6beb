"""Set environment variables for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


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
