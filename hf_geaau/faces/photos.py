"""Read a photo from a file, a URL, bytes, a PIL image, an array or a tensor: RGB, 8 bit, upright."""

import base64
import binascii
import io
import os
import re
import stat
import threading
import urllib.request
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau.errors import PhotoError, PhotoWarning, hide_secrets

from .fetching import fetch, is_url
from .orientation import ORIENTATION, stored_orientation
from .pixels import as_array, to_uint8

MAX_PIXELS = 100_000_000
MAX_SIDE = 65_535
"""The longest side that JPEG can express. Longer strips are no photos, and no detector takes them."""
TIMEOUT_S = 10.0
MAX_BYTES = 2**30
"""Larger files are no photos; an open file may even be a pipe without an end."""

# Photo formats only: Pillow also opens EPS, for which it starts Ghostscript on whatever the file holds.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")

# Brands of ISO 14496-12 files that hold pictures. Pillow reads AVIF; HEIF goes through libheif.
HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))

# A progressive JPEG repaints its pixels with each scan. Cameras and encoders write about ten; a thousand keep a
# decoder busy for minutes. The limit on pixels times scans is ten scans of the largest photo.
MAX_SCANS, MAX_SCANNED_PIXELS = 100, 10 * MAX_PIXELS
MAX_PNM_HEADER = 65_536  # Pillow reads comments byte by byte
MAX_PLAIN_PNM, MAX_PLAIN_COMMENTS = 16 * 2**20, 100  # numbers as text: 5 MB a second, and each comment starts over

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip

_PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....WEBP|BM|II[*+]\0|MM\0[*+]"
    rb"|\xff\x4f\xff\x51|\0\0\0\x0cjP  |P[1-7Ff][\s#]",
    re.DOTALL,
)

_header_lock = threading.Lock()  # warnings.catch_warnings is not thread-safe


class Photo(NamedTuple):
    """A photo that was read.

    Attributes:
        image: Upright 8-bit RGB.
        notes: What a reader should know of it, such as that it is the first frame of an animation.
    """

    image: Image.Image
    notes: list[str]


def read_photo(source: Any, *, max_pixels: int = MAX_PIXELS, timeout: float = TIMEOUT_S) -> Image.Image:
    """Read a photo as an upright 8-bit RGB image.

    The EXIF orientation is applied, transparency is composited on white, and 16 bits are scaled to 8. The content of a
    file decides its format, not its name. Where something of the file is left out or guessed, a `PhotoWarning` says so.

    Args:
        source: Path, http(s), file or data URL, encoded bytes, also as base64 text, an open binary file, PIL image,
            array or tensor; or what `datasets.Image(decode=False)` gives, {"bytes", "path"}. Files may be JPEG, PNG,
            WebP, GIF, BMP, TIFF, AVIF, HEIF, JPEG 2000 or PNM. Arrays are H×W, H×W×1, H×W×3 (RGB) or H×W×4 (RGBA) of
            uint8, uint16 or float (0 to 1). Torch tensors are 1 or 3×H×W with the same dtypes, as torchvision lays
            them out; never H×W×3. Values of 10 or 12 bits in uint16 are scaled by their own range.
        max_pixels: Larger photos are refused before they are decoded. Pillow's own guard against
            decompression bombs (179 megapixels as shipped) holds as well.
        timeout: Seconds that a download may take, from the first connection to the last byte.

    Returns:
        A new RGB image; `source` stays as it was.

    Raises:
        PhotoError: If the source is missing, empty, damaged, too large or no image.

    Example:
        >>> import numpy as np
        >>> read_photo(np.full((480, 640), 0.5)).getpixel((0, 0))
        (128, 128, 128)
    """
    image, notes = load_photo(source, max_pixels=max_pixels, timeout=timeout)
    for note in notes:
        warnings.warn(f"{source_name(source)}: {note}.", PhotoWarning, stacklevel=2)
    return image


def load_photo(source: Any, *, max_pixels: int = MAX_PIXELS, timeout: float = TIMEOUT_S) -> Photo:
    """Read a photo as `read_photo` does, and return its notes instead of warning.

    Raises:
        PhotoError: Whatever goes wrong, because one source must not end the work on others.
    """
    name = source_name(source)
    try:
        return _load(source, name, max_pixels, timeout)
    except PhotoError:
        raise
    except Exception as error:  # MemoryError, RecursionError, and anything that a decoder raises
        raise PhotoError(f"Cannot read {name}: {_reason(error)}. Convert it to JPEG or PNG.") from error


def is_picture(head: bytes) -> bool:
    """Return whether content that begins with at least 32 bytes `head` is of a picture format that we read.

    Example:
        >>> is_picture(b"GIF89a" + bytes(26)), is_picture(b"a text of at least 32 characters")
        (True, False)
    """
    brands = HEIF_BRANDS | {b"avif", b"avis"}
    return _PICTURE.match(head) is not None or (head[4:8] == b"ftyp" and head[8:12] in brands)


def source_name(source: Any) -> str:
    """Return what messages call a source: its quoted path or URL without secrets, or its kind."""
    if is_url(source):
        return _short(hide_secrets(source))
    if isinstance(source, dict) and isinstance(source.get("path"), str):
        return _short(source["path"])
    if isinstance(source, str | os.PathLike):
        return _short(os.fsdecode(source))
    if isinstance(source, Image.Image):
        return "the PIL image"
    if isinstance(source, bytes | bytearray | memoryview | dict):
        return "the bytes"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return _short(name) if isinstance(name, str) else "the open file"
    return "the array" if hasattr(source, "__array__") else type(source).__name__


def _load(source: Any, name: str, max_pixels: int, timeout: float) -> Photo:
    if isinstance(source, Image.Image):
        return _finish(source, name, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), name, max_pixels)
    if isinstance(source, dict) and {"bytes", "path"}.intersection(source):  # of datasets.Image(decode=False)
        content = source.get("bytes")
        return _load(source.get("path") if content is None else content, name, max_pixels, timeout)
    if is_url(source):
        return _decode(fetch(source, timeout), name, max_pixels)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _decode(_data_of(source), name, max_pixels)
    if isinstance(source, str | os.PathLike):
        return _decode(_content_of(source, name), name, max_pixels)
    if hasattr(source, "read"):
        return _decode(_read_open(source, name), name, max_pixels)
    if hasattr(source, "__array__"):
        return _from_array(as_array(source, name), name, max_pixels)
    raise PhotoError(
        f"A photo must be a path, URL, bytes, open file, PIL image, array or tensor, got {type(source).__name__}. "
        "Pass one photo at a time in one of these forms."
    )


def _content_of(source: str | os.PathLike[str], name: str) -> bytes:
    """Return the content of a regular file; of base64 text, where there is no such file."""
    text = os.fsdecode(source)
    try:
        path = Path(local_path(text))
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PhotoError(f"Cannot read {name}: {_kind(status.st_mode)}")
        if status.st_size > MAX_BYTES:
            raise PhotoError(f"Cannot read {name}: it is larger than {MAX_BYTES / 2**20:g} MiB. Pass a photo.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        if isinstance(error, PhotoError):
            raise
        if isinstance(source, str) and is_picture(content := _base64_content(text) or b""):
            return content
        if isinstance(error, FileNotFoundError):
            raise PhotoError(f"Cannot read {name}: there is no such file. Check the path.") from error
        raise PhotoError(f"Cannot read {name}: {_reason(error)}. Check the path and its permissions.") from error


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "it is a folder. Pass the files in it one by one."
    return "it is no regular file but a device, pipe or socket, which may never end. Pass a file."


def local_path(text: str) -> str:
    r"""Return the path of a file:// URL; any other text as it is.

    On Windows `file://server/share/a.jpg` is a path as well: `\\server\share\a.jpg`.

    Raises:
        ValueError: If the URL is of another machine, whose files have no path here.

    Example:
        >>> local_path("file:///tmp/a%20b.jpg")
        '/tmp/a b.jpg'
    """
    if text[:7].lower() != "file://":
        return text
    host, path = urlsplit(text)[1:3]
    if os.name == "nt" and re.fullmatch("[A-Za-z]:", host):  # file://C:/a.jpg, with a slash too few
        path = f"/{host}{path}"
    elif os.name == "nt" and host not in ("", "localhost"):
        path = f"//{host}{path}"
    elif host not in ("", "localhost"):
        raise ValueError(f"a file URL must be of this machine, got one of '{host}'")
    return urllib.request.url2pathname(path)


def _data_of(uri: str) -> bytes:
    """Return the content of a data URI (RFC 2397)."""
    head, comma, content = uri.partition(",")
    if not comma:
        raise PhotoError("Cannot read the data URI: it has no comma, after which the content begins. Pass it whole.")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(content)
    decoded = _base64_content(content, least=0)
    if decoded is None:
        raise PhotoError("Cannot read the data URI: its content is no base64. Pass it whole.")
    return decoded


def _base64_content(text: str, least: int = 64) -> bytes | None:
    """Return what base64 text of at least so many characters encodes, also with the URL-safe alphabet; else None."""
    compact = "".join(text.split()).translate(str.maketrans("-_", "+/"))
    if len(compact) < least:
        return None
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _read_open(stream: Any, name: str) -> bytes:
    """Read an open file from its beginning, and leave its position as it was."""
    before = stream.tell() if stream.seekable() else None
    if before is not None:
        stream.seek(0)
    try:
        content = stream.read(MAX_BYTES + 1)
    finally:
        if before is not None:
            stream.seek(before)
    if not isinstance(content, bytes | bytearray):
        raise PhotoError(f"Cannot read {name}: it is open as text. Open it in binary mode, 'rb'.")
    if len(content) > MAX_BYTES:
        raise PhotoError(f"Cannot read {name}: it is larger than {MAX_BYTES / 2**20:g} MiB. Pass a photo.")
    return bytes(content)


def _decode(content: bytes, name: str, max_pixels: int) -> Photo:
    if not content:
        raise PhotoError(f"Cannot read {name}: it is empty. Download or export it again.")
    _refuse_slow(content, name)
    if content[4:8] == b"ftyp" and content[8:12] in HEIF_BRANDS:
        return _finish(_open_heif(content, name, max_pixels), name, max_pixels, content)
    try:
        image = open_picture(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise _too_large(name, int(re.findall(r"\d+", str(error))[0]), max_pixels) from error
    except Image.UnidentifiedImageError as error:
        raise PhotoError(
            f"Cannot read {name}: its content is no image in a supported format ({', '.join((*FORMATS, 'HEIF'))}). "
            "Convert it to JPEG or PNG."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged header can make a decoder raise anything
        raise _damaged(name) from error
    with image:
        return _finish(image, name, max_pixels, content)


def open_picture(file: Any) -> Image.Image:
    """Open a path or binary file as Pillow does, in the formats of photos only and without warnings.

    Odd metadata is no matter of ours, and the limit on pixels is that of `read_photo`.
    """
    with _header_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(file, formats=FORMATS)
        if image.format == "TIFF":  # Pillow would turn it as it loads, by tags that it may misread
            with suppress(Exception):
                image.getexif()
            image.getexif().clear()
        return image


def _refuse_slow(content: bytes, name: str) -> None:
    """Refuse what would keep a decoder busy for minutes, by a look at the content alone."""
    if content.startswith(b"\xff\xd8"):
        scans = content.count(b"\xff\xda")  # in coded data, a zero follows each 0xFF
        if scans > MAX_SCANS:
            raise PhotoError(
                f"Cannot read {name}: a JPEG must have at most {MAX_SCANS} scans, got {scans}. Save it again."
            )
    elif re.match(rb"P[1-3][\s#]", content) and (
        len(content) > MAX_PLAIN_PNM or content.count(b"#") > MAX_PLAIN_COMMENTS
    ):
        raise PhotoError(
            f"Cannot read {name}: a plain PNM file must have at most {MAX_PLAIN_PNM / 2**20:g} MiB and"
            f" {MAX_PLAIN_COMMENTS} comments. Save it as PNG."
        )
    elif re.match(rb"P[4-7Ff][\s#]", content) and len(content) > MAX_PNM_HEADER:
        head = re.sub(rb"#[^\r\n]*[\r\n]", b" ", content[:MAX_PNM_HEADER])
        if len(head.partition(b"#")[0].split(maxsplit=4)) < 4:
            raise PhotoError(
                f"Cannot read {name}: its header is longer than {MAX_PNM_HEADER // 1024} KiB. Save it again."
            )


def _open_heif(content: bytes, name: str, max_pixels: int) -> Image.Image:
    """Open the primary picture of a HEIF file, whole and upright."""
    import pi_heif

    if not _has_textual_items(content):
        raise _damaged(name)
    try:
        primary = (heif := pi_heif.open_heif(io.BytesIO(content)))[heif.primary_index]
        width, height = primary.size
        if width * height > max_pixels:
            raise _too_large(name, width * height, max_pixels)
        image = primary.to_pillow()
    except PhotoError:
        raise
    except Exception as error:
        raise _damaged(name) from error
    # libheif turns by the file's own properties; EXIF repeats them, and counts only where there are none. Of its
    # copy in the Pillow image, pi_heif has reset the orientation.
    image.info = {} if b"irot" in content or b"imir" in content else dict(primary.info)
    return image


def _has_textual_items(heif: bytes) -> bool:
    """Return whether the types and names of a HEIF file's items (ISO 14496-12, 8.11.6) are text.

    pi_heif 1.4 crashes, and the process with it, while it makes Python strings of others.
    """
    for found in re.finditer(rb"infe[\0-\3]", heif):
        start, version = found.start() - 4, heif[found.end() - 1]
        size = int.from_bytes(heif[start : start + 4], "big")
        try:
            heif[found.end() + (9 if version == 3 else 7) : start + size].decode()
        except UnicodeDecodeError:
            return False
        if size < 12:  # up to the end of the file, or of 64 bits
            return False
    return True


def _finish(image: Image.Image, name: str, max_pixels: int, content: bytes | None = None) -> Photo:
    """Check the size, decode, turn upright and convert to RGB."""
    pixels, scans = image.width * image.height, content.count(b"\xff\xda") if image.format == "JPEG" and content else 1
    if pixels > max_pixels:
        raise _too_large(name, pixels, max_pixels)
    if max(image.size) > MAX_SIDE:
        raise PhotoError(
            f"A photo must have sides of at most {MAX_SIDE} pixels, got {image.width}×{image.height} from {name}."
            " Cut or shrink it."
        )
    if 0 in image.size:
        raise PhotoError(f"A photo must have pixels, got {name} of {image.width}×{image.height}. Pass another photo.")
    if pixels * scans > MAX_SCANNED_PIXELS:
        raise PhotoError(
            f"Cannot read {name}: {scans} scans of {pixels / 1e6:.4g} megapixels take too long. Save it again."
        )
    notes = _first_frame_note(image)
    is_deep = content is not None and image.mode in ("RGB", "RGBA") and ";16" in str(getattr(image, "tile", ""))
    deep = _deep_color(image, content) if content and is_deep else None
    if deep is None:
        notes += ["of its 16 bits only the upper 8 could be read"] if is_deep else []
        try:
            image.load()
        except MemoryError:
            raise
        except Exception as error:  # damaged content can make a decoder raise anything
            raise _damaged(name) from error
    else:
        deep, more = to_uint8(deep, name, is_file=True)
        notes += more
    turn = _turn(image, content, notes)
    image = image if deep is None else Image.fromarray(deep)
    result = _to_rgb(image if turn is None else image.transpose(turn), name, notes, is_file=content is not None)
    result.image.info.clear()  # its EXIF would have another reader turn it again
    return result


def _first_frame_note(image: Image.Image) -> list[str]:
    try:
        is_animated = image.format in ANIMATED and getattr(image, "is_animated", False)
    except Exception:  # the second frame may be damaged
        is_animated = True
    if not is_animated:
        return []
    return [f"it has several {'pages' if image.format == 'TIFF' else 'frames'}, of which only the first was read"]


def _deep_color(image: Image.Image, content: bytes) -> NDArray[Any] | None:
    """Return the (H, W, 3 or 4) uint16 pixels of a color file of 16 bits, of which Pillow drops the lower 8."""
    import cv2

    if image.format == "PNG" and _promises_more(content):
        return None  # OpenCV would make room for up to 2 GiB that are not there
    flags = cv2.IMREAD_UNCHANGED  # as stored: 16 bits, with alpha, not turned
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (image.height, image.width):
        return None
    order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, order))


def _promises_more(png: bytes) -> bool:
    """Return whether a chunk of a PNG is longer, by its own words, than what is left of the file."""
    place = 8
    while place + 8 <= len(png) and png[place + 4 : place + 8] != b"IEND":
        place += 12 + int.from_bytes(png[place : place + 4], "big")
    return place > len(png)


def _turn(image: Image.Image, content: bytes | None, notes: list[str]) -> Image.Transpose | None:
    """Return how to turn an image upright."""
    try:
        return _TURNS.get(stored_orientation(image, content) if content else image.getexif().get(ORIENTATION, 1))
    except Exception:  # ValueError, and of images in memory whatever Pillow raises
        notes.append("its EXIF data is damaged, so it was taken as upright")
        return None


def _to_rgb(image: Image.Image, name: str, notes: list[str], is_file: bool) -> Photo:
    if image.mode.startswith(("I", "F")):
        return _deep_gray_to_rgb(image, name, notes, is_file)
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Photo(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"), notes)
        return Photo(image.convert("RGB"), notes)
    except ValueError as error:
        raise PhotoError(
            f"Cannot convert {name} to RGB: Pillow has no conversion from mode {image.mode}. Save it as an RGB PNG."
        ) from error


def _deep_gray_to_rgb(image: Image.Image, name: str, notes: list[str], is_file: bool) -> Photo:
    """Convert Pillow's modes of more than 8 bits: I;16 and I (integers), F (floats from 0 to 1)."""
    values = np.asarray(image)
    if image.mode == "I":  # 32 bits in memory; gray PNGs and TIFFs of 16 bits may arrive in it
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise PhotoError(
                f"A gray photo must have values from 0 to 65535, got {low} to {high} in {name}. Scale it to 16 bits."
            )
    pixels, more = to_uint8(values if image.mode == "F" else values.astype(np.uint16), name, is_file)
    return Photo(Image.fromarray(pixels).convert("RGB"), notes + more)


def _from_array(array: NDArray[Any], name: str, max_pixels: int) -> Photo:
    if array.shape[0] * array.shape[1] > max_pixels:
        raise _too_large(name, array.shape[0] * array.shape[1], max_pixels)
    pixels, notes = to_uint8(array, name)
    image, more = _finish(Image.fromarray(np.ascontiguousarray(pixels)), name, max_pixels)
    return Photo(image, notes + more)


def _short(name: str) -> str:
    """Quote a name; a string far too long for one may be encoded image content, which messages never hold."""
    return repr(name) if len(name) <= 300 and name[:5] != "data:" else f"{name[:20]!r}… ({len(name)} characters)"


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or (type(error).__name__ if isinstance(error, MemoryError) else str(error))
    return " ".join(str(text).split())[:200].rstrip(".") or type(error).__name__


def _too_large(name: str, pixels: int, max_pixels: int) -> PhotoError:
    limit, setting = max_pixels, "`max_pixels`"
    if pixels <= max_pixels:  # then Pillow refused it; it does so at twice its own limit
        limit, setting = 2 * (Image.MAX_IMAGE_PIXELS or 0), "`PIL.Image.MAX_IMAGE_PIXELS`"
    return PhotoError(
        f"A photo must have at most {limit / 1e6:.4g} megapixels, got {pixels / 1e6:.4g} from {name}. "
        f"Shrink it, or raise {setting} if you trust it."
    )


def _damaged(name: str) -> PhotoError:
    return PhotoError(f"Cannot read {name}: the image is truncated or damaged. Download or export it again.")
