"""List the sources that inputs name: photos, videos, folders, patterns, lists of paths and cameras."""

import glob
import locale
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

from hf_geaau.errors import hide_secrets
from hf_geaau.faces.photos import local_path
from hf_geaau.files import Spool
from hf_geaau.video.frames import numbered_files
from hf_geaau.video.kinds import URL_SCHEMES, kind_by_ffmpeg, kind_by_name, kind_of, suffix_of

_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}  # as PowerShell writes lists
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # OWASP, "CSV injection"


@dataclass(frozen=True)
class Source:
    """One photo, video or camera.

    Attributes:
        kind: "photo", "video" or "webcam".
        location: Path, URL, or the camera's number; of a photo, anything that `hf_geaau.read_photo` takes; of a video,
            also frames, as `hf_geaau.video.frames.PictureReader` takes them, bytes, or an open file.
        label: What it is called in tables, if that is not its location, such as the URI that bytes come from.
    """

    kind: Literal["photo", "video", "webcam"]
    location: Any
    label: str | None = None

    @property
    def name(self) -> str:
        r"""Return the location as text that any table can hold.

        Bytes that are not UTF-8 are written as `\udcXX`. URLs come without what may be secret. A name that spreadsheets
        would take as a formula, as it begins with =, +, - or @, gets "./" before it.

        Example:
            >>> Source("photo", "Ольга 1.jpg").name
            'Ольга 1.jpg'
        """
        named = self.location if self.label is None else self.label
        if not isinstance(named, str | os.PathLike):
            return type(named).__name__
        name = os.fsdecode(named).encode("utf-8", "backslashreplace").decode()
        if "://" in name:
            return hide_secrets(name)
        return name if name[:1] not in _FORMULA else f"./{name}"

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
        is_text = isinstance(source.location, str) and source.label is None
        return [source.kind, source.location] if is_text else None

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


def _add(text: str, found: FoundSources, is_listed: bool) -> None:
    """Add what one input names; whatever the file system says of it becomes that input's problem."""
    try:
        _add_named(text, found, is_listed)
    except (OSError, ValueError, RecursionError) as error:
        found.problems.append(f"Cannot look for {text[:300]!r}: {getattr(error, 'strerror', None) or error}.")


def _add_named(text: str, found: FoundSources, is_listed: bool) -> None:
    if not text:
        found.problems.append("An input must be a path, got an empty text. Check the quotes of the command.")
        return
    text = local_path(text)
    exists = os.path.lexists(text)  # unlike `Path`, these answer instead of raising for a path that cannot be
    if text.lower().startswith(URL_SCHEMES):
        found.sources.append(Source(kind_by_name(text) or "photo", text))
    elif os.path.isdir(text):  # noqa: PTH112
        _add_folder(text, found)
    elif suffix_of(text) == ".txt" and os.path.isfile(text) and not is_listed:  # noqa: PTH113
        _add_list(Path(text), found)
    elif text.isdecimal() and not exists:
        found.sources.append(Source("webcam", text))
    elif not exists and numbered_files(text):
        found.sources.append(Source("video", text))
    elif glob.has_magic(os.path.splitdrive(text)[1]) and not exists:  # the drive of \\?\C:\a.jpg is no pattern
        is_empty = True
        for match in _matches(text):
            is_empty = False
            _add(match, found, is_listed)
        if is_empty:
            found.problems.append(f"No file matches the pattern {text!r}. Check it with `ls`.")
    else:
        found.sources.append(Source(kind_of(text) or kind_by_ffmpeg(text), text))


def _matches(pattern: str) -> Iterator[str]:
    """Yield what a pattern matches, sorted, without hidden files; `**` does not follow links, which may lead upward."""
    folder, wanted = split_pattern(Path(pattern))
    for path in sorted(Path(folder).glob(str(wanted))):
        shown = path.parts[len(folder.parts) :]
        if not any(each.startswith(".") for each in shown) or any(part.startswith(".") for part in wanted.parts):
            yield str(path)


def split_pattern(pattern: PurePath) -> tuple[PurePath, PurePath]:
    r"""Divide a pattern into the folder to search and what to search there.

    A last `**` becomes `*`, because the folders that it finds are searched anyway.

    Example:
        >>> from pathlib import PurePosixPath, PureWindowsPath
        >>> split_pattern(PurePosixPath("clips/day*/**"))
        (PurePosixPath('clips'), PurePosixPath('day*/*'))
        >>> split_pattern(PureWindowsPath(r"\\?\C:\clips\**\*.mp4"))
        (PureWindowsPath('//?/C:/clips'), PureWindowsPath('**/*.mp4'))
    """
    parts = pattern.parts if pattern.name != "**" else (*pattern.parts[:-1], "*")
    fixed = next(index for index, part in enumerate(parts) if part != pattern.anchor and glob.has_magic(part))
    return type(pattern)(*parts[:fixed]), type(pattern)(*parts[fixed:])


def _add_folder(folder: str, found: FoundSources) -> None:
    sources_before, problems_before = len(found.sources), len(found.problems)

    def unreadable(error: OSError) -> None:
        found.problems.append(f"Cannot read the folder {error.filename!r}: {error.strerror}. Check its permissions.")

    for root, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = suffix_of(name)
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
        head = content.read(3)
        encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
        blocks = iter(lambda: content.read(2**20), b"")
        has_zeros = not encoding and (b"\0" in head or any(b"\0" in block for block in blocks))
    errors = "replace" if encoding else sys.getfilesystemencodeerrors()
    if encoding is None:
        encoding = sys.getfilesystemencoding()
        try:
            with path.open(encoding=encoding, errors=errors) as stream:
                while stream.read(2**20):
                    pass
        except UnicodeDecodeError:  # on Windows, where older programs write lists in the system's code page
            encoding, errors = locale.getencoding(), "replace"
    with path.open(encoding=encoding, errors=errors, newline="" if has_zeros else None) as stream:
        if not has_zeros:
            yield from (line.removesuffix("\n") for line in stream)
            return
        rest = ""
        while block := stream.read(2**20):
            *whole, rest = (rest + block).split("\0")
            yield from whole
        yield rest
