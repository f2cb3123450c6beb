"""What inputs become, in which order, and who gets which."""

import os
from pathlib import Path

import pytest

from hf_geaau.video.sources import Source, find_sources, is_video, share


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


def test_shares_are_disjoint_complete_and_even(tmp_path):
    sources = []
    for number, size in enumerate((900, 100, 500, 400, 0)):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(b"x" * size)
        sources += [Source("video", str(path)), Source("photo", f"{number}.jpg")]
    parts = [share(sources, rank, 2) for rank in range(2)]
    assert sorted([*parts[0], *parts[1]], key=sources.index) == sources
    sizes = [sum(Path(s.location).stat().st_size for s in part if s.kind == "video") for part in parts]
    assert sorted(sizes) == [900, 1000]
    assert all(part == sorted(part, key=sources.index) for part in parts)
    assert share(sources, 0, 1) == sources


@pytest.mark.parametrize(("name", "expected"), [("a.mp4", True), ("A.MOV", True), ("a.jpg", False), (3, False)])
def test_a_video_is_known_by_its_name(name, expected):
    assert is_video(name) is expected
