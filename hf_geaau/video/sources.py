"""List what there is to look at: photos, videos, folders, patterns, lists of paths and cameras become sources."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

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
        kind: What it is.
        location: Path, URL, or the camera's number; of a photo, anything that `hf_geaau.read_photo` takes.
    """

    kind: Literal["photo", "video", "webcam"]
    location: Any

    @property
    def name(self) -> str:
        r"""The location as text that any table can hold: bytes that are no UTF-8 are written as `\udcXX`.

        Example:
            >>> Source("photo", "Ольга 1.jpg").name
            'Ольга 1.jpg'
        """
        if not isinstance(self.location, str | os.PathLike):
            return type(self.location).__name__
        return os.fsdecode(self.location).encode("utf-8", "backslashreplace").decode()

    @property
    def shown(self) -> str:
        """The name for a message: on one line, also if it holds a line break."""
        return self.name if self.name.isprintable() else repr(self.name)


@dataclass
class FoundSources:
    """The sources that `find_sources` found, and what it could not use.

    Attributes:
        sources: In the order of the inputs; a folder's in the order of their names.
        problems: A line for each input that gave nothing, and for each folder that cannot be read.
        skipped: How many files of folders are neither photo nor video, by suffix.
    """

    sources: list[Source] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def find_sources(inputs: Iterable[str | os.PathLike[str]]) -> FoundSources:
    """List the photos, videos and cameras that inputs name.

    Args:
        inputs: Any mix of: paths and URLs of photos and videos; folders, searched with all folders in them, where
            hidden files and those that are neither photo nor video by their suffix are passed over; patterns such as
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
    """Whether a pipeline's input names a video by its suffix or scheme."""
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fspath(source).lower()
    return text.startswith(STREAM_SCHEMES) or _suffix(text) in VIDEO_SUFFIXES


def share(sources: list[Source], rank: int, count: int) -> list[Source]:
    """Pick one process's part of the sources, so that all parts take about as long.

    Videos are dealt out by the size of their files, the largest first, each to whoever has least; photos in turn.
    Every process comes to the same division by itself.

    Args:
        sources: All of them.
        rank: Which process, from 0.
        count: How many processes.

    Example:
        >>> photos = [Source("photo", name) for name in "abcde"]
        >>> [source.location for source in share(photos, 1, 2)]
        ['b', 'd']
    """
    videos = [place for place, source in enumerate(sources) if source.kind != "photo"]
    sizes = {place: _size(sources[place]) for place in videos}
    loads, owner = [0] * count, {}
    for place in sorted(videos, key=lambda place: (-sizes[place], place)):
        least = min(range(count), key=lambda process: (loads[process], process))
        owner[place] = least
        loads[least] += sizes[place] + 1
    others = [place for place in range(len(sources)) if place not in owner]
    owner |= {place: number % count for number, place in enumerate(others)}
    return [source for place, source in enumerate(sources) if owner[place] == rank]


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
    before, troubles = len(found.sources), len(found.problems)

    def unreadable(error: OSError) -> None:
        found.problems.append(f"Cannot read the folder {error.filename!r}: {error.strerror}. Check its permissions.")

    for path in _files(folder, unreadable):
        suffix = _suffix(path)
        if suffix in PHOTO_SUFFIXES or suffix in VIDEO_SUFFIXES:
            found.sources.append(Source("video" if suffix in VIDEO_SUFFIXES else "photo", path))
        else:
            found.skipped[suffix or "no suffix"] += 1
    if len(found.sources) == before and len(found.problems) == troubles:
        found.problems.append(f"Found no photo or video in the folder {folder!r}. Pass the files themselves.")


def _files(folder: str, unreadable: Callable[[OSError], None]) -> Iterator[str]:
    """Walk a folder in the order of names; hidden ones, such as the twins macOS leaves, are passed over."""
    for here, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield str(Path(here, name))


def _add_list(path: Path, found: FoundSources) -> None:
    try:
        text = os.fsdecode(path.read_bytes())
    except OSError as error:
        found.problems.append(f"Cannot read the list of paths {str(path)!r}: {error.strerror}. Check its permissions.")
        return
    lines = text.split("\0") if "\0" in text else text.splitlines()
    entries = [line for line in lines if line.strip()]
    if not entries:
        found.problems.append(f"The list of paths {str(path)!r} is empty. Write one path per line.")
    for entry in entries:
        _add(entry, found, is_listed=True)


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
    except Exception:  # whatever a foreign header leads a decoder to
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
