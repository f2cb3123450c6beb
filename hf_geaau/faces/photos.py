"""Read a photo from a file, a URL, bytes, a PIL image, an array or a tensor: RGB, 8 bit, upright."""

import io
import os
import re
import struct
import threading
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hf_geaau.errors import PhotoError

MAX_PIXELS = 100_000_000
MAX_DOWNLOAD_BYTES = 64 * 2**20

# Photo formats only: Pillow also opens EPS, for which it starts Ghostscript on whatever the file holds.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

_header_lock = threading.Lock()  # warnings.catch_warnings is not thread-safe


def read_photo(source: Any, *, max_pixels: int = MAX_PIXELS, timeout: float = 10.0) -> Image.Image:
    """Read a photo as an upright 8-bit RGB image.

    The EXIF orientation is applied, transparency is composited on white, 16 bits are scaled to 8, and of an
    animation the first frame is taken. The content of a file decides its format, not its name.

    Args:
        source: Path, http(s) URL, encoded bytes, PIL image, array or tensor. Arrays are H×W, H×W×1, H×W×3
            (RGB) or H×W×4 (RGBA) of uint8, uint16 (0 to 65535) or float (0 to 1). Torch tensors are 3×H×W
            with the same dtypes, as torchvision lays them out; never H×W×3.
        max_pixels: Larger photos are refused before they are decoded. Pillow's own guard against
            decompression bombs (179 megapixels as shipped) holds as well.
        timeout: Seconds that a download may take.

    Returns:
        A new RGB image; `source` stays as it was.

    Raises:
        PhotoError: If the source is missing, empty, damaged, too large or no image.

    Example:
        >>> import numpy as np
        >>> read_photo(np.full((480, 640), 0.5)).getpixel((0, 0))
        (128, 128, 128)
    """
    if isinstance(source, Image.Image):
        return _finish(source, "the PIL image", max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), "the bytes", max_pixels)
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return _decode(io.BytesIO(_download(source, timeout)), _url_name(source), max_pixels)
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source), max_pixels)
    if hasattr(source, "__array__"):
        return _read_array(_as_array(source), max_pixels)
    raise PhotoError(
        f"A photo must be a path, URL, bytes, PIL image, array or tensor, got {type(source).__name__}. "
        "Pass one photo at a time in one of these forms."
    )


def _read_file(path: Path, max_pixels: int) -> Image.Image:
    name = _short(str(path))
    try:
        if path.is_dir():
            raise PhotoError(f"Cannot read {name}: it is a folder. Pass the files in it one by one.")
        with path.open("rb") as stream:
            return _decode(stream, name, max_pixels)
    except FileNotFoundError as error:
        raise PhotoError(f"Cannot read {name}: there is no such file. Check the path.") from error
    except PhotoError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"Cannot read {name}: {reason}. Check the path and its permissions.") from error


def _decode(stream: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if size == 0:
        raise PhotoError(f"Cannot read {name}: it is empty. Download or export it again.")
    try:
        with _header_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides, below
            image = Image.open(stream, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(name, int(re.findall(r"\d+", str(error))[0]), max_pixels) from error
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"Cannot read {name}: its content is no image in a supported format ({', '.join(FORMATS)}). "
            "Convert it to JPEG or PNG."
        ) from error
    except Exception as error:  # a damaged header can make a decoder raise anything
        raise _damaged(name) from error
    with image:
        return _finish(image, name, max_pixels)


def _finish(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """Check the size, decode, turn upright and convert to RGB."""
    if image.width * image.height > max_pixels:
        raise _too_large(name, image.width * image.height, max_pixels)
    if 0 in image.size:
        raise PhotoError(f"A photo must have pixels, got {name} of {image.width}×{image.height}. Pass another photo.")
    try:
        image.load()
    except Exception as error:  # damaged content can make a decoder raise anything
        raise _damaged(name) from error
    try:
        image = ImageOps.exif_transpose(image)
    except (SyntaxError, struct.error, ValueError, KeyError, TypeError):
        image = image.copy()  # unreadable EXIF says nothing about orientation; the pixels are sound
    if image.mode.startswith(("I", "F")):
        return _deep_to_rgb(image, name, max_pixels)
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise PhotoError(
            f"Cannot convert {name} to RGB: Pillow has no conversion from mode {image.mode}. Save it as an RGB PNG."
        ) from error


def _deep_to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """Convert Pillow's modes of more than 8 bits: I;16 and I (integers), F (floats from 0 to 1)."""
    values = np.asarray(image)
    if image.mode == "I":  # 32 bits in memory; gray PNGs and TIFFs of 16 bits may arrive in it
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise PhotoError(
                f"A gray photo must have values from 0 to 65535, got {low} to {high} in {name}. Scale it to 16 bits."
            )
    return _read_array(values if image.mode == "F" else values.astype(np.uint16), max_pixels)


def _as_array(source: Any) -> NDArray[Any]:
    """Return an array H×W or H×W×C; a torch tensor (recognized by its `detach`) of 3×H×W becomes H×W×3."""
    if not hasattr(source, "detach"):
        return np.asarray(source)
    try:
        array = np.asarray(source.detach().cpu())
    except TypeError as error:  # bfloat16 has no numpy type
        raise PhotoError(
            f"A photo tensor must have a dtype that numpy knows, got {source.dtype}. Pass `photo.float()`."
        ) from error
    if array.ndim != 3 or array.shape[0] != 3:
        raise PhotoError(
            f"A photo tensor must have shape (3, H, W), got {array.shape}. "
            "Pass one photo of the batch, or `photo.numpy()` if it is H×W×3."
        )
    return np.moveaxis(array, 0, -1)


def _read_array(array: NDArray[Any], max_pixels: int) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise PhotoError(
            f"A photo array must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}. "
            "Pass one photo, channels last."
        )
    if 0 in array.shape:
        raise PhotoError(f"A photo must have pixels, got an array of shape {array.shape}. Pass another photo.")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise _too_large("the array", array.shape[0] * array.shape[1], max_pixels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return _finish(Image.fromarray(np.ascontiguousarray(_to_uint8(array))), "the array", max_pixels)


def _to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 257 = 255
    if not np.issubdtype(array.dtype, np.floating):
        raise PhotoError(
            f"A photo array must be uint8, uint16 or float, got {array.dtype}. "
            "Convert values from 0 to 255 with `photo.astype('uint8')`."
        )
    if not np.isfinite(array).all():
        raise PhotoError(
            f"A photo array must be finite, got {int((~np.isfinite(array)).sum())} NaN or infinite values. "
            "Replace them before, for instance with `numpy.nan_to_num`."
        )
    low, high = float(array.min()), float(array.max())
    if low < -0.01 or high > 1.01:  # resizing with cubic kernels oversteps 0 and 1 a little
        raise PhotoError(
            f"A float photo must have values from 0 to 1, got {low:.4g} to {high:.4g}. "
            "Divide by its largest possible value, or pass uint8."
        )
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8)


def _download(url: str, timeout: float) -> bytes:
    """Fetch a URL whole, but no more than `MAX_DOWNLOAD_BYTES` and no longer than `timeout` seconds."""
    from huggingface_hub.utils import httpx  # the hub's client library, whichever major version it brings

    name = _url_name(url)
    content = bytearray()
    deadline = time.monotonic() + timeout
    try:
        with httpx.stream("GET", url, timeout=timeout, follow_redirects=True) as response:
            if response.status_code != 200:
                raise PhotoError(
                    f"Cannot download {name}: the server answered with status {response.status_code}. "
                    "Check the address in a browser."
                )
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_DOWNLOAD_BYTES:
                    raise PhotoError(
                        f"Cannot download {name}: it is larger than {MAX_DOWNLOAD_BYTES / 2**20:g} MiB. "
                        "Download it yourself and pass a smaller file."
                    )
                if time.monotonic() > deadline:  # the client's timeout is per read; a slow drip would pass it
                    raise httpx.ReadTimeout("too slow")
    except httpx.TimeoutException as error:
        raise PhotoError(
            f"Cannot download {name}: no complete answer within {timeout:g} s. Raise `timeout`."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise PhotoError(
            f"Cannot download {name}: {type(error).__name__}. Check the address and the network."
        ) from error
    return bytes(content)


def _url_name(url: str) -> str:
    """Name a URL in messages without its user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
        return _short(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
    except ValueError:
        return "the URL"


def _short(name: str) -> str:
    """Quote a name; a string far too long for one may be encoded image content, which messages never hold."""
    return repr(name) if len(name) <= 300 else f"{name[:20]!r}… ({len(name)} characters)"


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
