"""List the sources that inputs name: photos, videos, folders, patterns, lists of paths and cameras."""

import glob
import mimetypes
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from hf_geaau.faces.fetching import url_name
from hf_geaau.faces.photos import FORMATS, is_picture, local_path
from hf_geaau.video.frames import numbered_files

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm"}
    | {".pgm", ".pnm", ".heic", ".heif", ".hif"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".flv"}
    | {".3gp", ".ogv", ".mxf", ".y4m"}
)
STREAM_SCHEMES = ("rtsp://", "rtmp://", "udp://")

# How videos begin: ISO media, Matroska, AVI, ASF, FLV, MPEG program and elementary streams, transport streams with
# packets of 188 or 192 bytes, Ogg, YUV4MPEG2, MXF.
_VIDEO = re.compile(
    rb"....(?:ftyp|moov|mdat|wide|pnot)|\x1a\x45\xdf\xa3|RIFF....AVI |\x30\x26\xb2\x75\x8e\x66|FLV\x01"
    rb"|\0\0\x01[\xba\xb3]|\x47.{187}\x47|.{4}\x47.{191}\x47|OggS|YUV4MPEG2|\x06\x0e\x2b\x34",
    re.DOTALL,
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # OWASP, "CSV injection"
_HEAD = 512  # bytes of a file that tell what it is


@dataclass(frozen=True)
class Source:
    """One photo, video or camera.

    Attributes:
        kind: "photo", "video" or "webcam".
        location: Path, URL, or the camera's number; of a photo, anything that `hf_geaau.read_photo` takes; of a video,
            also frames, as `hf_geaau.video.frames.PictureReader` takes them, bytes, or an open file.
    """

    kind: Literal["photo", "video", "webcam"]
    location: Any

    @property
    def name(self) -> str:
        r"""Return the location as text that any table can hold.

        Bytes that are not UTF-8 are written as `\udcXX`. URLs come without what may be secret. A name that spreadsheets
        would take as a formula, as it begins with =, +, - or @, gets "./" before it.

        Example:
            >>> Source("photo", "Ольга 1.jpg").name
            'Ольга 1.jpg'
        """
        if not isinstance(self.location, str | os.PathLike):
            return type(self.location).__name__
        name = os.fsdecode(self.location).encode("utf-8", "backslashreplace").decode()
        if "://" in name:
            return url_name(name)
        return name if name[:1] not in _FORMULA else f"./{name}"

    @property
    def shown(self) -> str:
        """Return the name for a message: on one line, even if it holds a line break."""
        return self.name if self.name.isprintable() else repr(self.name)


@dataclass
class FoundSources:
    """The sources that `find_sources` found, and what it could not use.

    Attributes:
        sources: In the order of the inputs; a folder's in the order of their names.
        problems: A line for each input without a source, and for each folder that cannot be read.
        skipped: Number of files in folders that are neither photo nor video, by suffix.
    """

    sources: list[Source] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def find_sources(inputs: Iterable[str | os.PathLike[str]]) -> FoundSources:
    """List the photos, videos and cameras that inputs name.

    Args:
        inputs: Any mix of: paths and URLs of photos and videos; folders, searched with all folders in them, where
            hidden files and those that are neither photo nor video by content or suffix are skipped; patterns such as
            "clips/**/*.mp4"; numbered frames of a video, such as "frames/%04d.png"; text files (.txt) with one of
            these per line, or separated by zero bytes as `find -print0` does; the number of a camera, 0 for the first.

    Example:
        >>> find_sources(["face.jpg", "clip.mp4"]).sources[1].kind
        'video'
    """
    found = FoundSources()
    for given in inputs:
        _add(os.fspath(given), found, is_listed=False)
    return found


def is_video(source: object) -> bool:
    """Return whether a pipeline's input is a video: by its content, or by its name where it is no file here.

    Animated GIF, WebP, PNG and AVIF are videos.
    """
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fspath(source)
    return kind_of(text) == "video" if "://" not in text else _kind_by_name(text) == "video"


def kind_of(path: str | os.PathLike[str]) -> Literal["photo", "video"] | None:
    """Return what a file is: by its content, else by its suffix; None if neither says it.

    Example:
        >>> kind_of("not/there.MOV"), kind_of("not/there.csv")
        ('video', None)
    """
    path = os.fspath(path)
    head, by_name = _head(path), _kind_by_name(path)
    if is_picture(head):
        if by_name is None and head[:2] in (b"II", b"MM", b"BM") and _suffix(path):
            return None  # camera raw files are TIFFs with a thumbnail first
        return "video" if _is_animated(path, head) else "photo"
    if _VIDEO.match(head):
        is_sound = by_name is None and (mimetypes.guess_type(path)[0] or "").startswith("audio/")
        return None if is_sound or head[8:11] == b"M4A" else "video"
    return by_name


def is_animation(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a picture with several frames that are shown one after the other."""
    head = _head(os.fspath(path))
    return is_picture(head) and _is_animated(os.fspath(path), head)


def _kind_by_name(text: str) -> Literal["photo", "video"] | None:
    suffix = _suffix(text)
    if suffix in VIDEO_SUFFIXES or text.lower().startswith(STREAM_SCHEMES):
        return "video"
    return "photo" if suffix in PHOTO_SUFFIXES else None


def _head(path: str) -> bytes:
    """Return the beginning of a regular file; nothing of any other, which might wait for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 a path may hold anything
            return b""
        with open(path, "rb") as stream:  # noqa: PTH123
            return stream.read(_HEAD)
    except (OSError, ValueError):
        return b""


def _is_animated(path: str, head: bytes) -> bool:
    if not (head.startswith((b"GIF8", b"\x89PNG")) or head[8:12] in (b"WEBP", b"avis")):
        return False
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged header can make a decoder raise anything
        return False


def share(sources: list[Source], rank: int, count: int) -> list[Source]:
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
    videos = [index for index, source in enumerate(sources) if source.kind != "photo"]
    sizes = {index: _size(sources[index]) for index in videos}
    loads, owner = [0] * count, {}
    for index in sorted(videos, key=lambda index: (-sizes[index], index)):
        least = min(range(count), key=lambda process: (loads[process], process))
        owner[index] = least
        loads[least] += sizes[index] + 1
    others = [index for index in range(len(sources)) if index not in owner]
    owner |= {index: number % count for number, index in enumerate(others)}
    return [source for index, source in enumerate(sources) if owner[index] == rank]


def _add(text: str, found: FoundSources, is_listed: bool) -> None:
    """Add what one input names; whatever the file system says of it becomes that input's problem."""
    try:
        _add_named(text, found, is_listed)
    except (OSError, ValueError, RecursionError) as error:
        found.problems.append(f"Cannot look for {text[:300]!r}: {getattr(error, 'strerror', None) or error}.")


def _add_named(text: str, found: FoundSources, is_listed: bool) -> None:
    text = local_path(text)
    exists = os.path.lexists(text)  # unlike `Path`, these answer instead of raising for a path that cannot be
    if text.lower().startswith(("http://", "https://", *STREAM_SCHEMES)):
        found.sources.append(Source(_kind_by_name(text) or "photo", text))
    elif os.path.isdir(text):  # noqa: PTH112
        _add_folder(text, found)
    elif _suffix(text) == ".txt" and os.path.isfile(text) and not is_listed:  # noqa: PTH113
        _add_list(Path(text), found)
    elif text.isdecimal() and not exists:
        found.sources.append(Source("webcam", text))
    elif not exists and numbered_files(text):
        found.sources.append(Source("video", text))
    elif glob.has_magic(text) and not exists:
        is_empty = True
        for match in _matches(text):
            is_empty = False
            _add(match, found, is_listed)
        if is_empty:
            found.problems.append(f"No file matches the pattern {text!r}. Check it with `ls`.")
    else:
        found.sources.append(Source(kind_of(text) or _kind_by_ffmpeg(text), text))


def _matches(pattern: str) -> Iterator[str]:
    """Yield what a pattern matches, sorted, without hidden files; `**` does not follow links, which may lead upward."""
    head, _, tail = pattern.rstrip("/").rpartition("/")
    if tail == "**":
        pattern = f"{head or '.'}/*"  # its folders are searched anyway
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    for path in sorted(Path(*parts[:fixed]).glob(str(Path(*parts[fixed:])))):
        shown = path.parts[len(Path(*parts[:fixed]).parts) :]
        if not any(each.startswith(".") for each in shown) or any(part.startswith(".") for part in parts[fixed:]):
            yield str(path)


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
            path = str(Path(root, name))
            if (kind := kind_of(path)) is not None:
                found.sources.append(Source(kind, path))
            else:
                found.skipped[suffix or "no suffix"] += 1
    if len(found.sources) == sources_before and len(found.problems) == problems_before:
        found.problems.append(f"Found no photo or video in the folder {folder!r}. Pass the files themselves.")


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


def _kind_by_ffmpeg(path: str) -> Literal["photo", "video"]:
    """Ask FFmpeg about a file whose beginning and suffix say nothing."""
    if not _head(path):
        return "photo"
    from hf_geaau.video.decoding import has_video

    return "video" if has_video(path) else "photo"


def _suffix(text: str) -> str:
    if "://" in text:
        try:
            return PurePosixPath(urlsplit(text).path).suffix.lower()
        except ValueError:
            return ""
    return os.path.splitext(text)[1].lower()  # noqa: PTH122


def _size(source: Source) -> int:
    try:
        return Path(source.location).stat().st_size
    except OSError:
        return 0
