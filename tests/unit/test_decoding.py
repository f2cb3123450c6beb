"""Frames, times, rotation and what can be wrong with a video."""

import numpy as np
import pytest

from hf_geaau.errors import VideoError
from hf_geaau.video.decoding import CameraReader, VideoReader
from tests.clips import numbered, write_clip

av = pytest.importorskip("av", reason="PyAV is not installed")


def shown(frames):
    """Which of `numbered`'s frames these are."""
    return [round((float(frame.image.mean()) - 10) / 5) for frame in frames]


def noise(count):
    return [np.random.default_rng(number).integers(0, 255, (96, 128, 3)).astype(np.uint8) for number in range(count)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", numbered(30))


def test_every_frame_once_with_its_time(clip):
    reader = VideoReader(clip)
    frames = list(reader)
    assert [frame.number for frame in frames] == shown(frames) == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx([number / 25 for number in range(30)])
    assert (reader.decoded, reader.broken, reader.notes, reader.declared) == (30, 0, [], 30)


def test_sampling_by_count_and_by_time(clip):
    assert [frame.number for frame in VideoReader(clip, every=7)] == [0, 7, 14, 21, 28]
    assert [frame.number for frame in VideoReader(clip, fps=10)] == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]
    assert len(list(VideoReader(clip, fps=100))) == 30
    late = list(VideoReader(clip, fps=10, start=12))
    assert [frame.number for frame in late] == [13, 15, 18, 20, 23, 25, 28]
    assert shown(late) == [frame.number for frame in late]


def test_a_variable_rate_keeps_its_times(tmp_path):
    times = [0.0, 0.04, 0.5, 0.52, 1.7, 3.0]
    path = write_clip(tmp_path / "variable.mp4", numbered(6), times=times)
    assert [frame.time_s for frame in VideoReader(path)] == pytest.approx(times, abs=1e-3)
    assert [frame.number for frame in VideoReader(path, fps=1)] == [0, 4, 5]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
    frame = np.full((48, 64, 3), 30, np.uint8)
    frame[:16, :16] = 220  # the upper left corner of what the camera stored
    path = write_clip(tmp_path / "turned.mp4", [frame] * 3, rotation=rotation)
    image = next(iter(VideoReader(path))).image
    decoded = next(av.open(str(path)).decode(video=0))
    expected = np.rot90(decoded.to_ndarray(format="rgb24"), decoded.rotation // 90)  # anticlockwise, as FFmpeg says
    assert decoded.rotation % 360 != 0
    assert np.array_equal(image, expected)


def test_frames_that_change_size(tmp_path):
    first, second = (write_clip(tmp_path / f"{n}.mpg", numbered(4, size), 25, "mpeg2video")
                     for n, size in enumerate([(64, 48), (96, 64)]))  # fmt: skip
    joined = tmp_path / "joined.mpg"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    sizes = [frame.image.shape[:2] for frame in VideoReader(joined)]
    assert set(sizes) == {(48, 64), (64, 96)}


def test_broken_frames_are_skipped_and_counted(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", noise(20))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    reader = VideoReader(path)
    frames = list(reader)
    assert 10 <= len(frames) < 20
    assert frames[-1].number >= 15 or reader.notes
    assert any("broken" in note or "ends early" in note or "broke off" in note for note in reader.notes)


def test_as_many_broken_packets_as_frames_are_still_a_video(tmp_path):
    reader = VideoReader(write_clip(tmp_path / "clip.mp4", noise(6)))
    numbers = []
    for frame in reader:
        numbers.append(frame.number)
        reader.broken += 1  # as for a packet that does not decode
    assert numbers == list(range(6))
    assert "6 broken frames were skipped" in reader.notes


def test_a_truncated_video_gives_what_is_there(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", noise(20), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    reader = VideoReader(path)
    frames = list(reader)
    assert 5 < len(frames) < 16
    assert "of 20 frames are there" in " ".join(reader.notes)


def audio(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_what_is_no_video_says_so(tmp_path, clip):
    cases = {"empty.mp4": "it is empty", "text.mp4": "as a video: "}
    cases |= {"headless.mp4": "truncated, damaged", "sound.mp4": "has sound only", "none.mp4": "there is no such file"}
    cases |= {"foreign.mp4": "FFmpeg does not know its codec"}
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is no video. " * 99)
    data = clip.read_bytes()
    (tmp_path / "headless.mp4").write_bytes(data[: len(data) // 2])  # the index comes at the end
    (tmp_path / "foreign.mp4").write_bytes(data.replace(b"avc1", b"zzzz"))
    audio(tmp_path / "sound.mp4")
    for name, message in cases.items():
        with pytest.raises(VideoError, match=message) as caught:
            list(VideoReader(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_camera_that_is_not_there_and_one_that_is(monkeypatch):
    import cv2

    class Camera:
        def __init__(self, number):
            self.number, self.left = number, 5

        def isOpened(self):
            return self.number == 0

        def read(self):
            self.left -= 1
            return self.left >= 0, np.full((4, 4, 3), (255, 0, 0), np.uint8)  # blue, as OpenCV orders it

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    with pytest.raises(VideoError, match="Cannot open camera 7: it is not connected"):
        CameraReader(7)
    with pytest.raises(VideoError, match="Cannot open camera 99999999999999999999: it is not"):
        CameraReader(10**30 - 1)
    times = iter([10.0, 10.1, 10.2, 10.3, 10.4])
    monkeypatch.setattr("hf_geaau.video.decoding.monotonic", lambda: next(times))
    assert [frame.number for frame in CameraReader(0, fps=4)] == [0, 3]
    monkeypatch.undo()
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    frames = list(CameraReader(0, every=2))
    assert [frame.number for frame in frames] == [0, 2, 4]
    assert frames[0].image[0, 0].tolist() == [0, 0, 255]
