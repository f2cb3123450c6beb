"""What inputs become, in which order, and who gets which."""

import locale
import os
import sys
from pathlib import Path, PureWindowsPath

import pytest
from PIL import Image

from hf_geaau.video.kinds import is_video, kind_of
from hf_geaau.video.sources import Source, find_sources, split_pattern


def locations(found):
    return [source.location for source in found.sources]


def test_a_folder_is_searched_in_order_and_others_skipped(tmp_path):
    for name in ("b.jpg", "a.MP4", "sub/deep/c.png", ".hidden.jpg", "._b.jpg", ".git/d.jpg", "notes.txt", "x", "b.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_sources([tmp_path])
    assert [os.path.relpath(path, tmp_path) for path in locations(found)] == ["a.MP4", "b.jpg", "sub/deep/c.png"]
    assert [source.kind for source in found.sources] == ["video", "photo", "photo"]
    assert dict(found.skipped) == {".txt": 1, "no suffix": 1, ".csv": 1}
    assert found.problems == []


def test_patterns_lists_cameras_and_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clips/one.mp4", "clips/more/two.mkv", "face.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("face.jpg\r\n\nclips/**/*.m*\n")
    found = find_sources(["list.txt", "0", "https://host/clip.mp4?key=1", "https://host/face", "rtsp://camera/1"])
    assert locations(found)[:3] == ["face.jpg", "clips/more/two.mkv", "clips/one.mp4"]
    assert [source.kind for source in found.sources[3:]] == ["webcam", "video", "photo", "video"]
    assert find_sources(["no*.jpg"]).problems == ["No file matches the pattern 'no*.jpg'. Check it with `ls`."]
    (tmp_path / "empty.txt").touch()
    assert find_sources(["empty.txt"]).problems == ["The list of paths 'empty.txt' is empty. Write one path per line."]
    (tmp_path / "void").mkdir()
    assert find_sources(["void"]).problems == [
        "Found no photo or video in the folder 'void'. Pass the files themselves."
    ]


def test_names_with_spaces_line_breaks_other_scripts_and_raw_bytes(tmp_path):
    names = ["a b.jpg", "zeile\r\numbruch.jpg", "Ольга 微笑.jpg", os.fsdecode(b"raw\xff.jpg"), "a\u2028b.jpg"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_bytes(b"\0".join(os.fsencode(tmp_path / name) for name in names))
    found = find_sources([tmp_path / "list.txt"])
    assert locations(found) == [str(tmp_path / name) for name in names]
    for source in found.sources:
        assert Path(source.location).exists()
        source.name.encode("utf-8")  # any table can hold it
        assert "\n" not in source.shown
    assert len({source.name for source in found.sources}) == 5
    (tmp_path / "lines.txt").write_bytes(b"\r\n".join(map(os.fsencode, [names[0], "", *names[2:]])))
    assert locations(find_sources([tmp_path / "lines.txt"])) == [names[0], *names[2:]]


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "face.jpg").touch()
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = find_sources([tmp_path])
    assert len(found.sources) == 1
    assert "Cannot read the folder" in found.problems[0]
    assert "closed': Permission denied. Check its permissions." in found.problems[0]


def test_ten_thousand_files(tmp_path):
    for number in range(10_000):
        (tmp_path / f"{number:05d}.jpg").touch()
    assert len(find_sources([tmp_path]).sources) == 10_000


@pytest.mark.parametrize(("name", "expected"), [("a.mp4", True), ("A.MOV", True), ("a.jpg", False), (3, False)])
def test_a_video_is_known_by_its_name(name, expected):
    assert is_video(name) is expected


HEADS = {
    "mp4": b"\0\0\0\x20ftypisom", "mov": b"\0\0\0\x14ftypqt  ", "mkv": b"\x1a\x45\xdf\xa3", "avi": b"RIFF1234AVI LIST",
    "flv": b"FLV\x01", "mpg": b"\0\0\x01\xba", "wmv": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "y4m": b"YUV4MPEG2 W64 H48",
    "ts": (b"\x47" + bytes(187)) * 2, "mts": (bytes(4) + b"\x47" + bytes(187)) * 2,
    "jpg": b"\xff\xd8\xff\xe0", "png": b"\x89PNG\r\n\x1a\n",
    "heic": b"\0\0\0\x18ftypheic", "avif": b"\0\0\0\x18ftypavif",
    "webp": b"RIFF1234WEBPVP8 ", "gif": b"GIF89a", "tif": b"II*\0", "jp2": b"\0\0\0\x0cjP  ", "ppm": b"P6 4 4 255 ",
}  # fmt: skip
VIDEOS = {"mp4", "mov", "mkv", "avi", "flv", "mpg", "wmv", "y4m", "ts", "mts"}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_content_decides_under_any_name(tmp_path, name):
    expected = "video" if name in VIDEOS else "photo"
    for suffix in (".jpg", ".mp4", ".unknown", ""):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(HEADS[name] + bytes(400))
        is_raw_or_text = name in ("tif", "ppm") and suffix == ".unknown"
        assert kind_of(path) == (None if is_raw_or_text and name == "tif" else expected)


def test_what_a_folder_of_foreign_files_holds(tmp_path):
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    (tmp_path / "raw.dng").write_bytes(b"II*\0" + bytes(99))
    (tmp_path / "notes.txt").write_text("face.jpg")
    (tmp_path / "broken.jpg").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = find_sources([tmp_path])
    assert [Path(path).name for path in locations(found)] == ["broken.jpg", "pipe.jpg"]
    assert dict(found.skipped) == {".m4a": 1, ".dng": 1, ".txt": 1}


@pytest.mark.parametrize("suffix", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_a_video_and_a_still_a_photo(tmp_path, suffix):
    still = Image.effect_noise((32, 32), 50)
    still.save(tmp_path / "still", suffix)
    still.save(tmp_path / "moving", suffix, save_all=True, append_images=[still.rotate(90)], duration=200)
    assert kind_of(tmp_path / "still") == "photo"
    assert kind_of(tmp_path / "moving") == "video"
    assert is_video(tmp_path / "moving")


def test_paths_that_cannot_be_are_problems_of_their_own(tmp_path):
    (tmp_path / "face.jpg").touch()
    given = ["a" * 300, "b\0c", "9" * 5000, "f" * 5000 + "/*.jpg", str(tmp_path / "face.jpg" / "below.jpg")]
    found = find_sources([*given, tmp_path])
    assert len(found.sources) + len(found.problems) == len(given) + 1
    assert locations(found)[-1] == str(tmp_path / "face.jpg")


def test_a_pattern_does_not_follow_links_upward(tmp_path):
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "face.jpg").touch()
    for name in ("up", "again"):
        (tmp_path / "deep" / "deeper" / name).symlink_to(tmp_path)
    for pattern in ("**/*.jpg", "**", "deep/**"):
        assert locations(find_sources([f"{tmp_path}/{pattern}"])) == [str(tmp_path / "deep" / "face.jpg")]


def test_numbered_frames_are_one_video(tmp_path):
    for number in (10, 2, 1):
        (tmp_path / f"frame_{number}.png").touch()
    (source,) = find_sources([f"{tmp_path}/frame_%d.png"]).sources
    assert source.kind == "video"


def test_names_in_tables_hold_no_secrets_and_no_formulas():
    assert Source("photo", "https://me:secret@host/a.jpg?token=secret#x").name == "https://host/a.jpg"
    for name in ("=1+1.jpg", "+a.jpg", "-a.jpg", "@a.jpg"):
        assert Source("photo", name).name == f"./{name}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_lists_as_powershell_writes_them(tmp_path, encoding):
    (tmp_path / "list.txt").write_bytes("Ольга.jpg\r\nb c.jpg\r\n".encode(encoding))
    assert locations(find_sources([tmp_path / "list.txt"])) == ["Ольга.jpg", "b c.jpg"]


def test_lists_in_the_code_page_of_windows(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_bytes("Jürgen.jpg\r\nC:\\Fotos\\Ärger.jpg\r\n".encode("cp1252"))
    monkeypatch.setattr(sys, "getfilesystemencodeerrors", lambda: "surrogatepass")  # as there
    monkeypatch.setattr(locale, "getencoding", lambda: "cp1252")
    assert locations(find_sources([tmp_path / "list.txt"])) == ["Jürgen.jpg", r"C:\Fotos\Ärger.jpg"]


@pytest.mark.parametrize("path", [r"C:\clips\a.mp4", "C:/clips/a.mp4", r"\\server\share\a.mp4"])
def test_a_path_of_windows_is_no_address(path):
    (source,) = find_sources([path]).sources
    assert (source.kind, source.location, source.name) == ("video", path, path)


@pytest.mark.parametrize(
    ("pattern", "folder", "wanted"),
    [
        (r"clips\**\*.mp4", "clips", r"**\*.mp4"),
        ("clips\\**\\", "clips", "*"),
        (r"C:\day?\*.mp4", "C:\\", r"day?\*.mp4"),
        (r"\\server\share\clips\*.mp4", r"\\server\share\clips", "*.mp4"),
        ("**", ".", "*"),
    ],
)
def test_patterns_of_windows(pattern, folder, wanted):
    assert split_pattern(PureWindowsPath(pattern)) == (PureWindowsPath(folder), PureWindowsPath(wanted))
