"""Damaged EXIF blocks on photos of known pixels: the photo is turned as the block says, or a note says why not."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_geaau.errors import PhotoError
from hf_geaau.faces.photos import load_photo
from tests.fuzz import seeds
from tests.fuzz.mutate import FIGURES, ROUNDS, is_one_line, mutant, watched

COUNT, EXAMPLES, LIMIT_S = 1500, 200, 5.0
DAMAGED = "its EXIF data is damaged, so it was taken as upright"
ORIENTATION, SHORT = 0x0112, 3
MOST = 60_000  # bytes of a block that fit a JPEG segment
INTEGERS = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}  # bytes of TIFF's integer types


def directory(block: bytes) -> tuple[list[bytes], str, bool]:
    """Return the entries of a block's first directory, its byte order, and whether none is lost.

    Written apart from the reader's parser: the directory is cut into entries, and these are read as whole numbers.
    """
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(block[:4], "")
    if not order or len(block) < 8:
        return [], "little", not block
    start = int.from_bytes(block[4:8], order)
    count = int.from_bytes(block[start : start + 2], order)
    entries = [block[place : place + 12] for place in range(start + 2, min(start + 2 + 12 * count, len(block)), 12)]
    known = [entry for entry in entries if len(entry) >= 8]  # tag, type and count; of another tag, the rest may lack
    return known, order, len(known) == count and len(block) >= start + 2


def allowed(block: bytes) -> tuple[set[int], bool, bool]:
    """Return the orientations that a reader may apply, whether it may note damage, and whether it must."""
    entries, order, is_whole = directory(block)
    for entry in entries:
        tag, kind = int.from_bytes(entry[:2], order), int.from_bytes(entry[2:4], order)
        count, size = int.from_bytes(entry[4:8], order), INTEGERS.get(kind, 0)
        if tag != ORIENTATION:
            continue
        value = int.from_bytes(entry[8 : 8 + size], order)
        if not size or len(entry) < 8 + size or count != 1 or not 0 <= value <= 8:
            return {1}, True, True
        return {value or 1}, kind != SHORT, False
    return {1}, not is_whole, not is_whole


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels upright: what the standard says of the first row and column, in words of numpy."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    flips_rows, flips_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flips_rows else 1, :: -1 if flips_columns else 1]


def in_jpeg(block: bytes) -> bytes:
    segment = b"Exif\0\0" + block
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + JPEG[2:]


def in_png(block: bytes) -> bytes:
    chunk = b"eXIf" + block
    return PNG[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + PNG[33:]


def in_webp(block: bytes) -> bytes:
    return seeds.encoded(Image.open(io.BytesIO(PNG)), "WEBP", lossless=True, method=0, exif=b"Exif\0\0" + block)


JPEG, PNG = (seeds.encoded(seeds.picture().resize((20, 12)), name) for name in ("JPEG", "PNG"))
STORED = {wrap: np.asarray(Image.open(io.BytesIO(JPEG if wrap is in_jpeg else PNG)))
          for wrap in (in_jpeg, in_png, in_webp)}  # fmt: skip
WRAPS = tuple(STORED)


def check(wrap: Callable[[bytes], bytes], block: bytes, story: str) -> str:
    """Read a photo with a block, and return what came of it; fail if it is the wrong way up without a note."""
    content = wrap(block)
    with watched(f"exif {story}", LIMIT_S):
        try:
            image, notes = load_photo(content)
        except PhotoError as error:
            assert is_one_line(str(error), "the bytes"), f"{story}: {error}"
            return "refused"
    orientations, may_note, must_note = allowed(block)
    assert may_note if DAMAGED in notes else not must_note, f"{story}: {notes}, {block[:200].hex()}"
    expected = {1} if DAMAGED in notes else orientations
    found = {each for each in range(1, 9) if np.array_equal(image, turned(STORED[wrap], each))}
    assert found == expected, f"{story}: {found}, not {expected}, {block[:200].hex()}"
    return "read with a note" if notes else "read"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("wrap", WRAPS, ids=lambda wrap: wrap.__name__)
def test_an_intact_block_is_obeyed(wrap, orientation):
    block = seeds.exif(orientation).removeprefix(b"Exif\0\0")
    assert allowed(block) == ({orientation}, False, False)
    assert check(wrap, block, "intact") == "read"


def test_a_damaged_block_is_obeyed_or_noted():
    blocks = {f"orientation {number}": seeds.exif(number).removeprefix(b"Exif\0\0") for number in range(1, 9)}
    little = {name: b"II*\0\x08\0\0\0" + simple("<", number) for number, name in enumerate(blocks, 1)}
    blocks |= {f"{name}, little-endian": block for name, block in little.items()}
    for number in range(COUNT * ROUNDS):
        story, block = mutant(blocks, number)
        FIGURES["EXIF blocks, damaged"][check(WRAPS[number % 3 if number % 5 == 0 else 0], block[:MOST], story)] += 1


def simple(order: str, orientation: int) -> bytes:
    """Return a directory with the orientation and nothing else."""
    return struct.pack(f"{order}HHHLHHL", 1, ORIENTATION, SHORT, 1, orientation, 0, 0)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Draw a block of typed tags, counts and offsets, any of which may be wrong."""
    order = draw(st.sampled_from("<>"))
    number = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1]))
    tags = st.one_of(st.sampled_from([0x010E, 0x010F, ORIENTATION, 0x011A, 0x8769, 0x8825, 0x0201]),
                     st.integers(0, 2**16 - 1))  # fmt: skip
    entry = st.builds(partial(struct.pack, f"{order}HHLL"), tags, st.integers(0, 14), number, number)
    stored = st.one_of(st.integers(0, 9), st.integers(0, 2**16 - 1))
    orientation = st.builds(
        partial(struct.pack, f"{order}HHLHH", ORIENTATION), st.sampled_from([3, 3, 3, 1, 4, 8, 12]),
        st.sampled_from([1, 1, 1, 0, 2, 2**32 - 1]), stored, st.integers(0, 2),
    )  # fmt: skip
    entries = draw(st.lists(entry, max_size=6))
    entries.insert(draw(st.integers(0, len(entries))), draw(orientation))
    claimed = len(entries) + draw(st.sampled_from([0, 0, 0, 0, -1, 1, 1000]))
    start = draw(st.sampled_from([8, 8, 8, 8, 9, 0, 26, 2**31, 2**32 - 1]))
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HL", draw(st.sampled_from([42] * 9 + [41])), start)
    gap = bytes(start - 8) if 8 < start < 100 else b""
    second = struct.pack(f"{order}L", draw(number)) + simple(order, draw(st.integers(1, 8)))
    return head + gap + struct.pack(f"{order}H", claimed) + b"".join(entries) + second + draw(st.binary(max_size=40))


@settings(max_examples=EXAMPLES * ROUNDS)
@given(blocks(), st.sampled_from(WRAPS))
def test_a_drawn_block_is_obeyed_or_noted(block, wrap):
    FIGURES["EXIF blocks, drawn"][check(wrap, block, "drawn")] += 1
