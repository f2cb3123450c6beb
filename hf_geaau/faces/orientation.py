"""Read which way up a photo is from its file's metadata, of which any other part may be damaged."""

import re
import struct

from PIL import Image

ORIENTATION = 0x0112
MAX_TAGS = 65_535  # of a directory; BigTIFF could claim 2**64

# Integers, by their TIFF type. EXIF wants SHORT (3); some writers use others, and other readers take them.
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}
_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])(?=[\"'<])")


def stored_orientation(image: Image.Image, content: bytes) -> int:
    """Return the orientation of a file as EXIF numbers it: 1, upright, to 8; 1 if it says nothing.

    Pillow reads EXIF tags in order and stops at one that is damaged; here all others are skipped.

    Args:
        image: The opened file.
        content: The whole file.

    Raises:
        ValueError: If the metadata is damaged, so that an orientation may be lost, or holds an impossible one.
    """
    block, xmp = _exif(image, content), image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    found = _XMP.search(xmp.encode(errors="replace") if isinstance(xmp, str) else xmp)
    try:
        orientation = exif_orientation(block) if block else 0
    except ValueError:
        if found is None:
            raise
        orientation = 0
    return orientation or (int(found[1]) if found else 1)


def exif_orientation(block: bytes) -> int:
    """Return the orientation in a TIFF file or an EXIF block, 1 to 8; 0 if there is none.

    Raises:
        ValueError: If the block is damaged before an orientation is found, or the value is impossible.

    Example:
        >>> exif_orientation(b"II*\\0" + struct.pack("<LHHHLL", 8, 1, ORIENTATION, 3, 1, 6))
        6
    """
    block = re.sub(rb"^(Exif\0\0)+", b"", block)
    order = {b"II": "<", b"MM": ">"}.get(block[:2], "") if block[2:4] in (b"*\0", b"\0*", b"+\0", b"\0+") else ""
    if not block:
        return 0
    if not order:
        raise ValueError("it does not begin as TIFF does")
    is_big = b"+" in block[2:4]
    entry, directory = struct.Struct(order + ("HHQ" if is_big else "HHL")), order + ("Q" if is_big else "H")
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "L"), block, 8 if is_big else 4)
        (count,) = struct.unpack_from(directory, block, start)
        for number in range(min(count, MAX_TAGS)):
            place = start + struct.calcsize(directory) + number * (20 if is_big else 12)
            tag, kind, values = entry.unpack_from(block, place)
            if tag == ORIENTATION:
                return _checked(block, order, place + entry.size, kind, values)
    except (struct.error, OverflowError) as error:
        raise ValueError("it is cut off") from error
    return 0


def _checked(block: bytes, order: str, place: int, kind: int, values: int) -> int:
    if values == 1 and kind in _INTEGERS:
        (orientation,) = struct.unpack_from(order + _INTEGERS[kind], block, place)
        if 0 <= orientation <= 8:  # 0 is what scanners write that do not know
            return int(orientation)
    raise ValueError("its orientation is impossible")


def _exif(image: Image.Image, content: bytes) -> bytes:
    if image.format == "TIFF":
        return content
    if (block := image.info.get("exif")) is not None:
        return bytes(block)
    text = str(image.info.get("Raw profile type exif", ""))  # in PNGs: name, length, and lines of hexadecimal digits
    return bytes.fromhex("".join(text.split("\n")[3:]))
