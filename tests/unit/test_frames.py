"""Videos that are pictures: animations, numbered files, frames in memory; and the clock of those that are not."""

import contextlib
import socket
import subprocess
import threading
import time
from shutil import which

import numpy as np
import pytest
from PIL import Image

from hf_geaau.errors import VideoError
from hf_geaau.video.decoding import VideoReader
from hf_geaau.video.frames import PictureReader, numbered_files
from tests.clips import numbered, write_clip

pytest.importorskip("av", reason="PyAV is not installed")
needs_ffmpeg = pytest.mark.skipif(which("ffmpeg") is None, reason="the program ffmpeg is not installed")


def shown(frames):
    return [round((float(frame.image.mean()) - 10) / 5) for frame in frames]


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *map(str, arguments)], check=True)


@pytest.mark.parametrize("form", [list, tuple, iter, np.stack, lambda frames: np.stack(frames).transpose(0, 3, 1, 2)])
def test_frames_in_memory(form):
    frames = list(PictureReader(form(numbered(5)), fps=10))
    assert shown(frames) == [frame.number for frame in frames] == list(range(5))
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_tensors_of_either_layout():
    torch = pytest.importorskip("torch")
    frames = torch.from_numpy(np.stack(numbered(3)))
    assert shown(PictureReader(frames)) == shown(PictureReader(frames.permute(0, 3, 1, 2))) == [0, 1, 2]


def test_numbered_files_in_the_order_of_their_numbers(tmp_path):
    for number, frame in enumerate(numbered(12)):
        Image.fromarray(frame).save(tmp_path / f"f{number}.png")
    (tmp_path / "f3.png").write_text("broken")
    reader = PictureReader(numbered_files(f"{tmp_path}/f%d.png"))
    assert shown(reader) == [0, 1, 2, *range(4, 12)]
    assert "1 broken frames were skipped, the first because: Cannot read" in reader.notes[0]


@pytest.mark.parametrize("suffix", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations_with_their_own_times(tmp_path, suffix):
    frames = [Image.fromarray(frame) for frame in numbered(4)]
    path = tmp_path / "moving"
    frames[0].save(path, suffix, save_all=True, append_images=frames[1:], duration=[100, 300, 200, 50])
    read = list(PictureReader(path))
    assert shown(read) == [0, 1, 2, 3]
    assert [frame.time_s for frame in read] == pytest.approx([0, 0.1, 0.4, 0.6])
    assert [frame.number for frame in PictureReader(path, fps=4)] == [0, 2, 3]


def test_nothing_to_read():
    for frames in ([], ["none.png"], np.zeros((0, 4, 4, 3), np.uint8)):
        with pytest.raises(VideoError):
            list(PictureReader(frames))


def test_a_part_of_a_video(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", numbered(30))
    part = list(VideoReader(path, start_s=0.4, end_s=0.8))
    assert [frame.number for frame in part] == shown(part) == list(range(10, 20))
    assert part[0].time_s == pytest.approx(0.4)


@needs_ffmpeg
def test_the_default_stream_is_read_else_the_largest(tmp_path):
    for default, expected in (("1", (96, 128)), ("0", (48, 64))):
        path = tmp_path / f"two{default}.mkv"
        other = "1" if default == "0" else "0"
        ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:d=1", "-f", "lavfi", "-i", "testsrc=s=128x96:d=1", "-map", "0:v",
               "-map", "1:v", f"-disposition:v:{default}", "default", f"-disposition:v:{other}", "0", path)  # fmt: skip
        reader = VideoReader(path)
        assert {frame.image.shape[:2] for frame in reader} == {expected}
        assert f"of its 2 video streams number {default} was read" in reader.notes[0]


@needs_ffmpeg
def test_a_cover_is_no_video(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "cover.png")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-i", tmp_path / "cover.png", "-map", "0", "-map", "1", "-c:v", "copy",
           "-disposition:v", "attached_pic", tmp_path / "song.mp4")  # fmt: skip
    with pytest.raises(VideoError, match="it has sound only"):
        VideoReader(tmp_path / "song.mp4")


@needs_ffmpeg
def test_times_are_the_players(tmp_path):
    picture = tmp_path / "picture.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:d=1", picture)
    ffmpeg("-f", "lavfi", "-i", "sine=d=3", "-itsoffset", "1", "-i", picture, "-map", "0:a", "-map", "1:v", "-c:v",
           "copy", tmp_path / "late.mkv")  # fmt: skip
    reader = VideoReader(tmp_path / "late.mkv")
    assert next(iter(reader)).time_s == pytest.approx(1, abs=0.05)
    list(reader)
    assert "its picture starts 1.0" in " ".join(reader.notes)


@needs_ffmpeg
def test_joined_recordings_have_one_clock(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:d=2", "-bf", "0", tmp_path / "one.ts")
    (tmp_path / "joined.ts").write_bytes((tmp_path / "one.ts").read_bytes() * 2)
    reader = VideoReader(tmp_path / "joined.ts")
    times = [frame.time_s for frame in reader]
    assert len(times) == 100
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(3.96, abs=0.1)
    assert "its clock starts over 1 times, and times go on instead" in reader.notes


@needs_ffmpeg
def test_interlaced_frames_are_deinterlaced(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=50:d=1", "-vf", "tinterlace=interleave_top,fieldorder=tff",
           "-flags", "+ilme+ildct", "-c:v", "mpeg2video", "-q:v", "2", tmp_path / "interlaced.mpg")  # fmt: skip
    reader = VideoReader(tmp_path / "interlaced.mpg")
    frames = list(reader)
    assert [frame.number for frame in frames] == list(range(len(frames)))
    assert len(frames) == 25
    assert "its frames are interlaced, and were deinterlaced" in reader.notes


def test_frames_too_large_or_of_odd_pixels_are_refused(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", numbered(3))
    monkeypatch.setattr("hf_geaau.video.decoding.MAX_PIXELS", 1000)
    with pytest.raises(VideoError, match="A frame must have at most 0.001 megapixels, got 64×48 in "):
        VideoReader(path)


@needs_ffmpeg
@pytest.mark.parametrize("aspect", [13, 100])
def test_pixels_of_an_impossible_shape(tmp_path, aspect):
    path = tmp_path / "odd.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48:d=1", "-vf", f"setsar={aspect}/1", path)
    with pytest.raises(VideoError, match=f"pixels of at most 8:1, got {aspect}:1 in"):
        list(VideoReader(path))


def test_a_video_in_memory(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", numbered(3))
    assert shown(VideoReader(path.read_bytes())) == shown(VideoReader(path.open("rb"))) == [0, 1, 2]


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n"])
def test_a_server_that_never_ends_is_left(monkeypatch, says):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("hf_geaau.video.decoding.TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                connection.sendall(says)
                for _ in range(100):
                    connection.sendall(b"\0" if says else b"")
                    time.sleep(0.05)

        threading.Thread(target=serve, daemon=True).start()
        start = time.perf_counter()
        with pytest.raises(VideoError, match="Cannot read 'http://127.0.0.1:[0-9]+/a.mp4' as a video") as caught:
            list(VideoReader(f"http://me:secret@127.0.0.1:{server.getsockname()[1]}/a.mp4?token=secret"))
        assert "secret" not in str(caught.value)
        assert time.perf_counter() - start < 4


def test_a_service_can_forbid_addresses(monkeypatch):
    monkeypatch.setenv("HF_GEAAU_PUBLIC_URLS_ONLY", "1")
    with pytest.raises(VideoError, match="HF_GEAAU_PUBLIC_URLS_ONLY is set"):
        VideoReader("http://127.0.0.1/a.mp4")
