"""List the sources that inputs name: photos, videos, folders, patterns, lists of paths and cameras."""

import glob
import heapq
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from hf_geaau.files import Spool

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm"}
    | {".pgm", ".pnm"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".flv"}
    | {".3gp", ".ogv", ".mxf", ".y4m"}
)
STREAM_SCHEMES = ("rtsp://", "rtmp://", "udp://")


@dataclass(frozen=True)
class Source:
    """One photo, video or camera.

    Attributes:
        kind: "photo", "video" or "webcam".
        location: Path, URL, or the camera's number; of a photo, anything that `hf_geaau.read_photo` takes.
    """

    kind: Literal["photo", "video", "webcam"]
    location: Any

    @property
    def name(self) -> str:
        r"""Return the location as text that any table can hold: bytes that are not UTF-8 are written as `\udcXX`.

        Example:
            >>> Source("photo", "Ольга 1.jpg").name
            'Ольга 1.jpg'
        """
        if not isinstance(self.location, str | os.PathLike):
            return type(self.location).__name__
        return os.fsdecode(self.location).encode("utf-8", "backslashreplace").decode()

    @property
    def shown(self) -> str:
        """Return the name for a message: on one line, even if it holds a line break."""
        return self.name if self.name.isprintable() else repr(self.name)


def source_spool(sources: Iterable[Source] = ()) -> Spool[Source]:
    """Return a sequence of sources to append to, in which a million paths take little memory.

    Example:
        >>> source_spool([Source("photo", "a.jpg")])[0].location
        'a.jpg'
    """

    def to_json(source: Source) -> list[str] | None:  # anything but text stays in memory
        return [source.kind, source.location] if isinstance(source.location, str) else None

    return Spool(to_json, lambda values: Source(*values), sources)


@dataclass
class FoundSources:
    """The sources that `find_sources` found, and what it could not use.

    Attributes:
        sources: In the order of the inputs; a folder's in the order of their names.
        problems: A line for each input without a source, and for each folder that cannot be read.
        skipped: Number of files in folders that are neither photo nor video, by suffix.
    """

    sources: Spool[Source] = field(default_factory=source_spool)
    problems: Spool[str] = field(default_factory=lambda: Spool(str, str))
    skipped: Counter[str] = field(default_factory=Counter)


def find_sources(inputs: Iterable[str | os.PathLike[str]]) -> FoundSources:
    """List the photos, videos and cameras that inputs name.

    Args:
        inputs: Any mix of: paths and URLs of photos and videos; folders, searched with all folders in them, where
            hidden files and those that are neither photo nor video by their suffix are skipped; patterns such as
            "clips/**/*.mp4"; text files (.txt) with one of these per line, or separated by zero bytes as
            `find -print0` does; the number of a camera, 0 for the first.

    Example:
        >>> find_sources(["face.jpg", "clip.mp4"]).sources[1].kind
        'video'
    """
    found = FoundSources()
    for given in inputs:
        _add(os.fspath(given), found, is_listed=False)
    return found


def is_video(source: object) -> bool:
    """Return whether a pipeline's input names a video by its suffix or scheme."""
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fspath(source).lower()
    return text.startswith(STREAM_SCHEMES) or _suffix(text) in VIDEO_SUFFIXES


def share(sources: Sequence[Source], rank: int, count: int) -> Sequence[Source]:
    """Return one process's share of the sources, such that all shares take about equally long.

    Videos are assigned by file size, the largest first, each to the process with the least so far; photos in turn.
    The result is deterministic: every process computes the same division.

    Args:
        sources: All of them.
        rank: Index of the process, from 0.
        count: Number of processes.

    Example:
        >>> photos = [Source("photo", name) for name in "abcde"]
        >>> [source.location for source in share(photos, 1, 2)]
        ['b', 'd']
    """
    if count == 1:
        return sources
    # Of a million sources, arrays of numbers fit in memory; objects would take a hundred times as much.
    sizes = np.fromiter((-1 if source.kind == "photo" else _size(source) for source in sources), np.int64)
    owner = np.empty(len(sizes), np.int64)
    photos, videos = np.flatnonzero(sizes < 0), np.flatnonzero(sizes >= 0)
    owner[photos] = np.arange(len(photos)) % count
    loads = [(0, process) for process in range(count)]
    for index in videos[np.argsort(-sizes[videos], kind="stable")]:
        load, least = loads[0]
        owner[index] = least
        heapq.heapreplace(loads, (load + int(sizes[index]) + 1, least))
    return source_spool(source for source, process in zip(sources, owner, strict=True) if process == rank)


def _add(text: str, found: FoundSources, is_listed: bool) -> None:
    path = Path(text)
    if text.lower().startswith(("http://", "https://", *STREAM_SCHEMES)):
        found.sources.append(Source("video" if is_video(text) else "photo", text))
    elif path.is_dir():
        _add_folder(text, found)
    elif path.suffix.lower() == ".txt" and path.is_file() and not is_listed:
        _add_list(path, found)
    elif text.isdecimal() and not path.exists():
        found.sources.append(Source("webcam", text))
    elif glob.has_magic(text) and not path.exists():
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 Path.glob refuses absolute patterns
        if not matches:
            found.problems.append(f"No file matches the pattern {text!r}. Check it with `ls`.")
        for match in matches:
            _add(match, found, is_listed)
    else:
        found.sources.append(Source("video" if is_video(text) or _looks_like_video(path) else "photo", text))


def _add_folder(folder: str, found: FoundSources) -> None:
    sources_before, problems_before = len(found.sources), len(found.problems)

    def unreadable(error: OSError) -> None:
        found.problems.append(f"Cannot read the folder {error.filename!r}: {error.strerror}. Check its permissions.")

    for root, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = _suffix(name)
            if name.startswith("."):  # such as the copies that macOS leaves
                continue
            if suffix in PHOTO_SUFFIXES or suffix in VIDEO_SUFFIXES:
                found.sources.append(Source("video" if suffix in VIDEO_SUFFIXES else "photo", str(Path(root, name))))
            else:
                found.skipped[suffix or "no suffix"] += 1
    if len(found.sources) == sources_before and len(found.problems) == problems_before:
        found.problems.append(f"Found no photo or video in the folder {folder!r}. Pass the files themselves.")


def _add_list(path: Path, found: FoundSources) -> None:
    is_empty = True
    try:
        for entry in _entries(path):
            if entry.strip():
                _add(entry, found, is_listed=True)
                is_empty = False
    except OSError as error:
        found.problems.append(f"Cannot read the list of paths {str(path)!r}: {error.strerror}. Check its permissions.")
        return
    if is_empty:
        found.problems.append(f"The list of paths {str(path)!r} is empty. Write one path per line.")


def _entries(path: Path) -> Iterator[str]:
    """Yield the entries of a list one at a time, because it may hold a million."""
    with path.open("rb") as content:
        has_zeros = any(b"\0" in block for block in iter(lambda: content.read(2**20), b""))
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    with path.open(encoding=encoding, errors=errors, newline="" if has_zeros else None) as stream:
        if not has_zeros:
            yield from (line.removesuffix("\n") for line in stream)
            return
        rest = ""
        while block := stream.read(2**20):
            *whole, rest = (rest + block).split("\0")
            yield from whole
        yield rest


def _looks_like_video(path: Path) -> bool:
    """Ask FFmpeg about a file whose suffix says nothing."""
    if _suffix(str(path)) in PHOTO_SUFFIXES or not path.is_file():
        return False
    from PIL import Image

    from hf_geaau.faces.photos import FORMATS
    from hf_geaau.video.decoding import has_video

    try:
        with Image.open(path, formats=FORMATS):
            return False
    except Exception:  # a foreign header can make a decoder raise anything
        return has_video(path)


def _suffix(text: str) -> str:
    if "://" in text:
        try:
            return PurePosixPath(urlsplit(text).path).suffix.lower()
        except ValueError:
            return ""
    return Path(text).suffix.lower()


def _size(source: Source) -> int:
    try:
        return Path(source.location).stat().st_size
    except OSError:
        return 0
