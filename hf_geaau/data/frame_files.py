"""Find the images of a recording by their frame numbers, in folders and in zips, whatever the numbers' padding.

Releases and code bases differ in padding (none, 3, 4 or 5 digits) and in whether the image of label frame n is called n
or n - 1 (one public loader subtracts one, the path lists of JAA-Net and ME-GraphAU do not). Here the
names on disk decide, and where they cannot, an error asks.
"""

import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import DatasetError

from .base import DatasetNotes
from .rows import Recording

_IMAGE = re.compile(r"(\d+)\.(?:jpe?g|png|bmp)", re.IGNORECASE)


@dataclass(eq=False)
class Frames:
    """The images of one recording."""

    path: str  # of the folder or zip
    names: dict[int, str]  # by frame number
    is_zip: bool = False
    inner: str = ""  # folder inside the zip

    def url(self, number: int) -> str:
        """Return the path of an image, or the URL by which fsspec reads it out of the zip."""
        name = self.names[number]
        return f"zip://{self.inner}{name}::{self.path}" if self.is_zip else f"{self.path}{os.sep}{name}"


def by_number(names: Iterable[str], folder: str) -> dict[int, str]:
    """Return image names by their numbers; other files do not count.

    Raises:
        DatasetError: If two names have one number, such as 12.jpg and 0012.jpg.
    """
    found: dict[int, str] = {}
    for name in names:
        if match := _IMAGE.fullmatch(name):
            number = int(match[1])
            if number in found:
                raise DatasetError(
                    f"Frame {number} has two images, {found[number]!r} and {name!r}, in {folder!r}. "
                    "Two extractions seem to be mixed; remove one of them."
                )
            found[number] = name
    return found


def in_folder(folder: Path) -> Frames:
    """List the images of a folder."""
    return Frames(str(folder), by_number(os.listdir(folder), str(folder)))  # noqa: PTH208 - names only, 5 times faster


def in_zip(path: Path) -> dict[str, Frames]:
    """List the images in a zip by the name of the folder that holds them.

    Raises:
        DatasetError: If the file is no complete zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise DatasetError(f"Cannot read the zip {str(path)!r}: {error}. Copy it again.") from error
    folders: dict[str, list[str]] = {}
    for member in members:
        inner, _, name = member.rpartition("/")
        if inner and _IMAGE.fullmatch(name):  # also skips what macOS adds, such as __MACOSX/T1/._0001.jpg
            folders.setdefault(inner, []).append(name)
    found: dict[str, Frames] = {}
    for inner, names in folders.items():
        recording = inner.rpartition("/")[2]
        if recording in found:
            raise DatasetError(
                f"One recording lies in two folders of a zip, {found[recording].inner!r} and {inner + '/'!r}, in "
                f"{str(path)!r}. Remove one of them."
            )
        found[recording] = Frames(str(path), by_number(names, f"{path}/{inner}"), True, f"{inner}/")
    return found


def offset_of(frames: NDArray[np.int32], images: Frames) -> int | None:
    """Return image number minus label number of a recording: 0 or -1, or None if the names allow both or neither."""
    numbers, labeled = set(images.names), frames.tolist()
    for offset in (0, -1):
        if len(numbers) == len(labeled) and all(frame + offset in numbers for frame in labeled):
            return offset
    # There are more images than labeled frames: the first image shows where counting starts.
    first = min(numbers, default=None)
    if first == 0:
        return -1
    if first == 1 and len(numbers) > len(labeled):
        return 0
    # Some are missing, or the middle of a recording was extracted: the better fit decides, if there is one.
    unchanged, shifted = (sum(frame + offset in numbers for frame in labeled) for offset in (0, -1))
    return None if unchanged == shifted else 0 if unchanged > shifted else -1


def common_offset(votes: dict[str, int | None], setting: str) -> int:
    """Return the one offset that the recordings agree on.

    Args:
        votes: By recording, see `offset_of`.
        setting: The option by which the user can decide.

    Raises:
        DatasetError: If they contradict each other, or none decides.
    """
    unchanged = [name for name, vote in votes.items() if vote == 0]
    shifted = [name for name, vote in votes.items() if vote == -1]
    if unchanged and shifted:
        raise DatasetError(
            f"Images follow two numberings: the image of label frame n is image n in {unchanged[0]} and image n - 1 in "
            f"{shifted[0]}. Two extractions seem to be mixed; extract again, or decide with `{setting}=0` or `-1`."
        )
    if not unchanged and not shifted:
        raise DatasetError(
            "Cannot tell from the image names whether the image of label frame n is image n or n - 1: there are images "
            "on both sides of the labeled ones, and neither an image 0 nor an image 1 that would show where counting "
            f"starts. Decide with `{setting}=0` or `{setting}=-1`; the wrong one shifts labels by 40 ms."
        )
    return 0 if unchanged else -1


def add_images(recording: Recording, images: Frames, offset: int, notes: DatasetNotes) -> Recording:
    """Return the labeled frames that have an image, with their paths, and report the others.

    Args:
        offset: Image number minus label number.
    """
    numbers = (recording.frames + offset).tolist()
    has_image = np.array([number in images.names for number in numbers], dtype=np.bool_)
    if not has_image.all():
        missing = recording.frames[~has_image]
        notes.add(
            f"{len(missing)} labeled frames of {recording.sequence_id} have no image in {images.path!r}; the first is "
            f"frame {missing[0]} (image {missing[0] + offset}). Extract them again, or pass `problems='warn'` to go "
            "without them."
        )
    recording.images = [images.url(number) if number in images.names else "" for number in numbers]
    return recording.select(has_image)
