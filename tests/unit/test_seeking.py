"""Decoding from a key frame on gives the frames, numbers and times that decoding from the start gives."""

import numpy as np
import pytest

import hf_geaau.video.decoding as decoding
from hf_geaau.errors import VideoError
from hf_geaau.video.decoding import VideoReader
from hf_geaau.video.seeking import KeyFrame

av = pytest.importorskip("av", reason="PyAV is not installed")

X264 = "keyint=20:bframes=3:scenecut=0"
FORMATS = {
    "b-frames.mp4": ("libx264", {"x264-params": X264}),
    "open-groups.mkv": ("libx264", {"x264-params": f"{X264}:open-gop=1"}),
    "open-groups.ts": ("libx264", {"x264-params": f"{X264}:open-gop=1"}),
    "refreshed.mp4": ("libx264", {"x264-params": "keyint=20:bframes=0:intra-refresh=1"}),
    "interlaced.ts": ("libx264", {"flags": "+ildct+ilme", "x264-params": f"{X264}:tff=1"}),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=20:open-gop=1:log-level=0"}),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "mpeg4.avi": ("mpeg4", {"g": "20", "bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "20", "bf": "2"}),
    "pictures.avi": ("mjpeg", {}),
}


def encoded(path, codec, options):
    """100 frames of a pattern that moves, at 25 frames/s."""
    pattern = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pattern.shape[:2]
        stream.pix_fmt, stream.options = "yuvj420p" if codec == "mjpeg" else "yuv420p", options
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(pattern, 3 * number, 1)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(reader):
    frames = [(frame.number, frame.time_s, frame.image.tobytes()) for frame in reader]
    return frames, reader.decoded, reader.broken, reader.notes


@pytest.fixture
def from_the_start(monkeypatch):
    """Read a video as if no key frame were known."""

    def reading(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "key_frame_before", lambda *arguments: None)
            return read(VideoReader(*arguments, **options))

    return reading


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_those_from_the_start(name, tmp_path, from_the_start):
    path = encoded(tmp_path / name, *FORMATS[name])
    for options in ({"start_s": 0.3}, {"start_s": 2.5, "end_s": 3.1}, {"start_s": 3.9, "fps": 10}, {"start_s": 9.0}):
        reader = VideoReader(path, **options)
        assert read(reader) == from_the_start(path, **options)
    assert reader.skipped > 60


@pytest.mark.parametrize("codec", ["libvpx", "libx264"])
def test_what_packets_do_not_tell_is_decoded_from_the_start(codec, tmp_path, from_the_start, monkeypatch):
    path = encoded(tmp_path / "clip.mkv", codec, {"g": "20"})  # VP8 has packets that are not shown
    if codec == "libx264":  # a container that calls frames key frames that are none
        monkeypatch.setattr(decoding, "key_frame_before", lambda *arguments: KeyFrame(1001, 25, []))
    reader = VideoReader(path, start_s=3.0)
    assert read(reader) == from_the_start(path, start_s=3.0)
    assert reader.skipped == 0


def test_two_recordings_in_one_file_are_decoded_from_the_start(tmp_path, from_the_start):
    content = encoded(tmp_path / "clip.ts", *FORMATS["open-groups.ts"]).read_bytes()
    (tmp_path / "joined.ts").write_bytes(2 * content)
    reader = VideoReader(tmp_path / "joined.ts", start_s=6.0)
    assert read(reader) == from_the_start(tmp_path / "joined.ts", start_s=6.0)
    assert reader.skipped == 0


@pytest.mark.parametrize("seed", range(12))
def test_damage_never_ends_it_otherwise_than_from_the_start(seed, tmp_path, from_the_start):
    content = bytearray(encoded(tmp_path / "clip.mp4", *FORMATS["b-frames.mp4"]).read_bytes())
    for place in np.random.default_rng(seed).integers(len(content) // 20, len(content), 8):
        content[place] ^= 255
    (tmp_path / "clip.mp4").write_bytes(content)
    try:
        expected = from_the_start(tmp_path / "clip.mp4", start_s=2.5)
    except VideoError as error:
        with pytest.raises(VideoError) as caught:
            read(VideoReader(tmp_path / "clip.mp4", start_s=2.5))
        assert str(caught.value) == str(error)
        return
    frames, _, _, _ = read(VideoReader(tmp_path / "clip.mp4", start_s=2.5))
    assert [time for _, time, _ in frames] == pytest.approx([time for _, time, _ in expected[0]])
