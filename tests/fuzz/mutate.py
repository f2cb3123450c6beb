"""Damage files at random, and watch what a reader makes of it.

A mutant is decided by its number alone, so a failure can be repeated from its message. After a crash of a native
library, which ends the process, the log names the mutant that was tried: see `LOG`.
"""

import faulthandler
import os
import struct
import tempfile
import time
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROUNDS = int(os.environ.get("HF_GEAAU_FUZZ_ROUNDS", "1"))
"""How many times the usual number of mutants to try."""
LOG = Path(os.environ.get("HF_GEAAU_FUZZ_LOG", Path(tempfile.gettempdir(), f"hf_geaau_fuzz_{os.getpid()}.log")))
"""The file that names the mutant that is being tried."""
FIGURES: defaultdict[str, Counter[str]] = defaultdict(Counter)
"""What was tried and what came of it, for the summary at the end."""
HANG = 6  # times the limit of a mutant; then the process ends with a traceback of all threads

Rng = np.random.Generator


def _place(content: bytes, rng: Rng) -> int:
    """Choose a position, half of the time in the first 256 bytes, where headers are."""
    return int(rng.integers(0, len(content) if rng.random() < 0.5 else min(256, len(content))))


def _length(rng: Rng) -> int:
    return int(2 ** rng.uniform(0, 9))


def flip(content: bytes, rng: Rng) -> bytes:
    """Change one to eight bits."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        changed[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def fill(content: bytes, rng: Rng) -> bytes:
    """Overwrite a piece with zeros, ones or noise."""
    start, length = _place(content, rng), _length(rng)
    piece = (bytes(length), b"\xff" * length, rng.bytes(length))[int(rng.integers(3))]
    return content[:start] + piece[: len(content) - start] + content[start + length :]


def insert(content: bytes, rng: Rng) -> bytes:
    """Insert noise."""
    start = _place(content, rng)
    return content[:start] + rng.bytes(_length(rng)) + content[start:]


def delete(content: bytes, rng: Rng) -> bytes:
    """Leave out a piece."""
    start = _place(content, rng)
    return content[:start] + content[start + _length(rng) :]


def duplicate(content: bytes, rng: Rng) -> bytes:
    """Repeat a piece, sometimes a hundred times."""
    start, length = _place(content, rng), _length(rng)
    piece = content[start : start + length]
    return content[:start] + piece * (100 if rng.random() < 0.1 else 2) + content[start + length :]


def truncate(content: bytes, rng: Rng) -> bytes:
    """Cut off the end."""
    return content[: int(rng.integers(0, len(content)))]


def field(content: bytes, rng: Rng) -> bytes:
    """Set a number of 1, 2, 4 or 8 bytes to a value at a limit, as counts, sizes and offsets of headers are."""
    size, order = int(rng.choice([1, 2, 4, 8])), "><"[int(rng.integers(2))]
    top = 2 ** (8 * size)
    values = [0, 1, 2, top - 1, top - 2, top // 2, top // 2 - 1, min(len(content), top - 1), int(rng.integers(256))]
    number = struct.pack(f"{order}Q", values[int(rng.integers(len(values)))])
    start = _place(content, rng)
    return content[:start] + (number[8 - size :] if order == ">" else number[:size]) + content[start + size :]


KINDS: tuple[Callable[[bytes, Rng], bytes], ...] = (flip, fill, insert, delete, duplicate, truncate, field)


def with_checksums(content: bytes) -> bytes:
    """Return a PNG with the right checksums, so that damage passes them as a hostile file's would."""
    parts, start = [content[:8]], 8
    while start + 12 <= len(content):
        (length,) = struct.unpack(">I", content[start : start + 4])
        end = start + 8 + length
        if end + 4 > len(content):
            break
        parts += [content[start:end], struct.pack(">I", zlib.crc32(content[start + 4 : end]))]
        start = end + 4
    return b"".join([*parts, content[start:]])


def mutant(seeds: Mapping[str, bytes], number: int) -> tuple[str, bytes]:
    """Return the mutant of a number, and what it was made of.

    Args:
        seeds: Intact files by name; their order counts.
        number: Of the mutant. The seeds take turns.
    """
    rng = np.random.default_rng(number)
    names = list(seeds)
    name = names[number % len(names)]
    content, story = seeds[name], [name]
    if rng.random() < 0.1:  # the head of one file, the rest of another
        other = names[int(rng.integers(len(names)))]
        content = content[: _place(content, rng)] + seeds[other][_place(seeds[other], rng) :]
        story.append(f"splice {other}")
    for _ in range(rng.integers(1, 4)):
        if content:
            kind = KINDS[int(rng.integers(len(KINDS)))]
            content = kind(content, rng)
            story.append(kind.__name__)
    if content.startswith(b"\x89PNG") and rng.random() < 0.5:
        content = with_checksums(content)
    return f"mutant {number} ({', '.join(story)})", content


@contextmanager
def watched(mutant: str, limit_s: float) -> Iterator[None]:
    """Name the mutant in the log, and require that trying it takes limited time and lets no warning escape."""
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT)
    os.pwrite(log, f"{mutant[:200]:200}\n".encode(errors="backslashreplace"), 0)
    os.close(log)
    faulthandler.dump_traceback_later(HANG * limit_s, exit=True)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as escaped:
            warnings.simplefilter("always")
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    taken = time.perf_counter() - start
    assert taken < limit_s, f"{mutant} took {taken:.1f} s"
    assert not escaped, f"{mutant}: {escaped[0].category.__name__}: {escaped[0].message}"


def is_one_line(message: str, name: str = "", longest: int = 700) -> bool:
    """Return whether a message is a printable line of bounded length that names its source."""
    return len(message) < longest and message.isprintable() and name in message
