"""What a file is, photo or video: by its content first, by its name where there is none."""

import mimetypes
import os
import re
import stat
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from hf_geaau.faces.photos import is_picture, open_picture

Kind = Literal["photo", "video"]

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm"}
    | {".pgm", ".pnm", ".heic", ".heif", ".hif"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".flv"}
    | {".3gp", ".ogv", ".mxf", ".y4m"}
)
STREAM_SCHEMES = ("rtsp://", "rtmp://", "udp://")
URL_SCHEMES = ("http://", "https://", *STREAM_SCHEMES)

# How videos begin: ISO media, Matroska, AVI, ASF, FLV, MPEG program and elementary streams, transport streams with
# packets of 188 or 192 bytes, Ogg, YUV4MPEG2, MXF.
_VIDEO = re.compile(
    rb"....(?:ftyp|moov|mdat|wide|pnot)|\x1a\x45\xdf\xa3|RIFF....AVI |\x30\x26\xb2\x75\x8e\x66|FLV\x01"
    rb"|\0\0\x01[\xba\xb3]|\x47.{187}\x47|.{4}\x47.{191}\x47|OggS|YUV4MPEG2|\x06\x0e\x2b\x34",
    re.DOTALL,
)
_HEAD = 512  # bytes of a file that tell what it is


def is_video(source: object) -> bool:
    """Return whether a pipeline's input is a video: by its content, or by its name where it is no file here.

    Animated GIF, WebP, PNG and AVIF are videos.
    """
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fspath(source)
    return kind_of(text) == "video" if "://" not in text else kind_by_name(text) == "video"


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
    """Return what a file is: by its content, else by its suffix; None if neither says it.

    Example:
        >>> kind_of("not/there.MOV"), kind_of("not/there.csv")
        ('video', None)
    """
    path = os.fspath(path)
    head, by_name = _head(path), kind_by_name(path)
    if is_picture(head):
        if by_name is None and head[:2] in (b"II", b"MM", b"BM") and suffix_of(path):
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


def kind_by_name(text: str) -> Kind | None:
    """Return what a path or URL names, by its suffix or scheme."""
    suffix = suffix_of(text)
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
    try:
        with open_picture(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged header can make a decoder raise anything
        return False


def kind_by_ffmpeg(path: str) -> Kind:
    """Ask FFmpeg about a file whose beginning and suffix say nothing."""
    if not _head(path):
        return "photo"
    from hf_geaau.video.decoding import has_video

    return "video" if has_video(path) else "photo"


def suffix_of(text: str) -> str:
    """Return the suffix of a path or URL in lower case, with its dot; "" without one."""
    if "://" in text:
        try:
            return PurePosixPath(urlsplit(text).path).suffix.lower()
        except ValueError:
            return ""
    return os.path.splitext(text)[1].lower()  # noqa: PTH122
