"""Pixels that are in memory already: arrays and tensors of any common layout become (H, W, C) uint8."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import PhotoError

CHANNELS = (1, 3, 4)
RANGES = (255, 1023, 4095, 65535)
"""Largest values of 8, 10, 12 and 16 bits. Cameras and microscopes store 10 and 12 bits unscaled in 16-bit files."""


def is_batch(source: Any) -> bool:
    """Return whether an array or tensor holds several images: it has four axes."""
    return getattr(source, "ndim", 0) == 4 and hasattr(source, "__array__")


def split_batch(source: Any) -> list[Any]:
    """Return the images of a batch, channels last for arrays, first for tensors, as `read_photo` takes them.

    Args:
        source: NHWC or NCHW, 1, 3 or 4 channels. Where both readings are possible, arrays are NHWC, tensors NCHW.

    Raises:
        PhotoError: If neither axis can hold channels.
    """
    shape, is_tensor = tuple(source.shape), hasattr(source, "detach")
    is_last, is_first = shape[-1] in CHANNELS, shape[1] in (1, 3)
    if not (is_last or is_first):
        raise PhotoError(f"A batch of photos must have shape (N, H, W, C) or (N, C, H, W), got {shape}.")
    if is_tensor:
        return list(source if is_first else source.permute(0, 3, 1, 2))
    return list(source if is_last else np.moveaxis(np.asarray(source), 1, -1))


def as_array(source: Any, name: str) -> NDArray[Any]:
    """Return an array H×W or H×W×C; a torch tensor (recognized by its `detach`) of 1 or 3×H×W becomes H×W×C.

    Raises:
        PhotoError: If the shape is another, or numpy has no such dtype. It calls the source `name`.
    """
    if not hasattr(source, "detach"):
        array = np.asarray(source)
    else:
        try:
            array = np.asarray(source.detach().cpu())
        except TypeError as error:  # bfloat16 has no numpy type
            raise PhotoError(
                f"A photo tensor must have a dtype that numpy knows, got {source.dtype}. Pass `photo.float()`."
            ) from error
        if array.ndim != 3 or array.shape[0] not in (1, 3):
            raise PhotoError(
                f"A photo tensor must have shape (3, H, W), got {array.shape}. "
                "Pass one photo of the batch, or `photo.numpy()` if it is H×W×3."
            )
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        raise PhotoError(
            f"A photo array must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}. "
            "Pass one photo, channels last."
        )
    if 0 in array.shape:
        raise PhotoError(f"A photo must have pixels, got an array of shape {array.shape}. Pass another photo.")
    return array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array


def to_uint8(array: NDArray[Any], name: str, is_file: bool = False) -> tuple[NDArray[np.uint8], list[str]]:
    """Scale values to 0 to 255.

    Args:
        array: uint8; uint16, whose range is that of the fewest bits (8, 10, 12 or 16) that hold its largest value; or
            float from 0 to 1.
        name: What messages call the source.
        is_file: Whether it comes from a file, whose remedy is another than an array's.

    Returns:
        The pixels, and a note where 16-bit values were read as fewer bits.

    Raises:
        PhotoError: If the dtype is another, or a float is not finite or out of range.
    """
    if array.dtype == np.uint8:
        return array, []
    if array.dtype == np.uint16:
        most = int(array.max())
        limit = next(value for value in RANGES if most <= value) if most else RANGES[-1]
        notes = [f"its 16-bit values end at {most}, so they were read as {limit.bit_length()}-bit values"]
        scaled = (array.astype(np.uint32) * 255 + limit // 2) // limit
        return scaled.astype(np.uint8), notes if limit != RANGES[-1] else []
    kind, where = ("file", f" in {name}") if is_file else ("array", "")
    if not np.issubdtype(array.dtype, np.floating):
        raise PhotoError(
            f"A photo {kind} must be uint8, uint16 or float, got {array.dtype}{where}. "
            + _remedy(is_file, "Convert values from 0 to 255 with `photo.astype('uint8')`.")
        )
    if not np.isfinite(array).all():
        raise PhotoError(
            f"A photo {kind} must be finite, got {int((~np.isfinite(array)).sum())} NaN or infinite values{where}. "
            + _remedy(is_file, "Replace them before, for instance with `numpy.nan_to_num`.")
        )
    low, high = float(array.min()), float(array.max())
    if low < -0.01 or high > 1.01:  # resizing with cubic kernels oversteps 0 and 1 a little
        raise PhotoError(
            f"A float photo must have values from 0 to 1, got {low:.4g} to {high:.4g}{where}. "
            + _remedy(is_file, "Divide by its largest possible value, or pass uint8.")
        )
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8), []


def _remedy(is_file: bool, for_array: str) -> str:
    return "Convert the file to an 8-bit PNG or JPEG." if is_file else for_array
