"""The stream with a stub for the network: order, groups, batches, memory, stopping and resuming."""

import json
import threading
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from hf_geaau.errors import VideoError
from hf_geaau.faces import Face, FaceDetector
from hf_geaau.faces.five_points import upright_points
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.video.decoding import VideoReader
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import AnalyzedFrame, FaceStream, Settings, SourceEnd
from tests.clips import numbered, walking, write_clip

pytest.importorskip("av", reason="PyAV is not installed")


class BrightFace(FaceAnalyzer):
    """Sees a face in the middle of every picture that is not dark; its probability is the picture's brightness."""

    batch_size = 16

    def __init__(self):
        self.finds, self.batches, self.aligned = 0, [], False

    def find(self, image, near=()):
        self.finds += 1
        height, width = image.shape[:2]
        if image.mean() < 17:
            return []
        points = upright_points(min(height, width), 0.3 * min(height, width)).astype(np.float32)
        return [Face(np.float32([0, 0, width, height]), 0.9, points)]

    def crop(self, image, faces):
        return np.full((len(faces), 1), image.mean(), np.float32)

    def analyze(self, faces, crops):
        self.batches.append(len(crops))
        return [replace(face, probabilities=row) for face, row in zip(faces, crops.copy(), strict=True)]


def brightness(item):
    return [round(float(face.probabilities[0])) for face in item.faces]


def frames_of(items):
    return [item for item in items if isinstance(item, AnalyzedFrame)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", numbered(30))


def test_frames_come_in_order_with_their_own_faces_in_full_batches(clip):
    network = BrightFace()
    stream = FaceStream(network, Settings(detect_every=1, batch_size=8, workers=4))
    items = list(stream.run([Source("video", str(clip))]))
    assert isinstance(items[-1], SourceEnd)
    assert items[-1].decoded == 30
    frames = frames_of(items)
    assert [frame.number for frame in frames] == list(range(30))
    for frame in frames:
        expected = [] if frame.number < 2 else [10 + 5 * frame.number]
        assert brightness(frame) == pytest.approx(expected, abs=2)
    assert {face.track_id for frame in frames for face in frame.faces} == {1}
    assert sorted(network.batches) == [4, 8, 8, 8]
    assert all(frame.image is None for frame in frames)


def test_detection_runs_in_every_kth_frame_and_in_the_first_of_a_shot(tmp_path, portrait):
    shot = walking(portrait[0], 8)
    path = write_clip(tmp_path / "two.mp4", shot + [255 - frame for frame in shot])
    network = BrightFace()
    frames = frames_of(FaceStream(network, Settings(detect_every=5)).run([Source("video", str(path))]))
    assert network.finds == 4  # frames 0 and 5, and after the cut 8 and 13
    assert [len(frame.faces) for frame in frames] == [1] * 16
    assert [frame.faces[0].track_id for frame in frames] == [1] * 8 + [2] * 8
    moved = [frames[number].faces[0].points.mean(0)[0] for number in (0, 4)]
    assert moved[1] - moved[0] == pytest.approx(16, abs=3)  # followed 4 pixels a frame


def test_photos_and_videos_mix_and_failures_do_not_stop_the_rest(tmp_path, clip):
    Image.new("RGB", (50, 50), "white").save(tmp_path / "white.png")
    Image.new("RGB", (50, 50), "black").save(tmp_path / "black.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "empty.mp4").touch()
    names = ["white.png", "empty.png", "empty.mp4", "black.png", "white.png"]
    sources = [Source("video" if name.endswith("mp4") else "photo", str(tmp_path / name)) for name in names]
    items = list(FaceStream(BrightFace(), Settings(workers=3)).run([*sources, Source("video", str(clip))]))
    ends = [item for item in items if isinstance(item, SourceEnd)]
    assert [end.source_index for end in ends] == list(range(6))
    assert [end.error is not None for end in ends] == [False, True, True, False, False, False]
    photos = [item for item in frames_of(items) if item.source.kind == "photo"]
    assert [(item.source_index, brightness(item)) for item in photos] == [(0, [255]), (3, []), (4, [255])]
    assert all(face.track_id is None for item in photos for face in item.faces)
    assert [end.source_index for end in ends] == sorted(end.source_index for end in ends)


@pytest.mark.parametrize("settings", [{}, {"detect_every": 4}, {"fps": 10.0}, {"smooth_s": 0.2, "every": 2}])
def test_resuming_from_a_checkpoint_gives_what_an_unbroken_run_gives(tmp_path, portrait, settings):
    path = write_clip(tmp_path / "walk.mp4", walking(portrait[0], 24))
    sources = [Source("photo", "none.jpg"), Source("video", str(path))]

    def rows(frames):
        return [(frame.number, frame.time_s, face.track_id, face.box.tolist(), face.probabilities.tolist())
                for frame in frames for face in frame.faces]  # fmt: skip

    unbroken = frames_of(FaceStream(BrightFace(), Settings(**settings)).run(sources))
    places = [number for number, frame in enumerate(unbroken) if frame.checkpoint is not None]
    place = places[len(places) // 2]
    state = json.loads(json.dumps(unbroken[place].checkpoint()))
    rest = frames_of(FaceStream(BrightFace(), Settings(**settings)).run(sources, done=1, checkpoint=state))
    assert 0 < len(rest) < len(unbroken)
    assert rows(unbroken[: place + 1]) + rows(rest) == rows(unbroken)


def test_probabilities_and_intensities_are_smoothed_each_by_itself(clip):
    class WithIntensities(BrightFace):
        def analyze(self, faces, crops):
            return [replace(face, intensities=-face.probabilities) for face in super().analyze(faces, crops)]

    stream = FaceStream(WithIntensities(), Settings(smooth_s=0.1))
    faces = [face for frame in frames_of(stream.run([Source("video", str(clip))])) for face in frame.faces]
    assert [-float(face.intensities[0]) for face in faces] == pytest.approx(
        [float(face.probabilities[0]) for face in faces]
    )
    assert faces[-1].probabilities[0] < 10 + 5 * 29 - 5  # behind the rising brightness


def test_closing_a_stream_stops_its_threads(clip):
    stream = FaceStream(BrightFace(), Settings(workers=2)).run([Source("video", str(clip))] * 5)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("faces")]
    for thread in threading.enumerate():
        if thread.name == "decoding":
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize("step", ["find", "crop", "analyze"])
@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), MemoryError(), AttributeError("x\ny")])
def test_whatever_one_source_raises_is_its_own_error(clip, tmp_path, step, error):
    for name, gray in (("good.png", 80), ("bad.png", 200)):
        Image.new("RGB", (64, 48), (gray,) * 3).save(tmp_path / name)
    network = BrightFace()
    works = getattr(network, step)

    def fails_on_bright(first, second=None, **near):
        seen = second if step == "analyze" else first
        if float(np.asarray(seen, np.float32).max()) > 190:
            raise error
        return works(first, **near) if step == "find" else works(first, second)

    setattr(network, step, fails_on_bright)
    names = ("good.png", "bad.png", "good.png")
    sources = [Source("photo", str(tmp_path / name)) for name in names] + [Source("video", str(clip))]
    items = list(FaceStream(network, Settings()).run(sources))
    ends = [item for item in items if isinstance(item, SourceEnd)]
    assert [end.error is None for end in ends] == [True, False, True, True]
    message = str(ends[1].error)
    assert "bad.png" in message
    assert "\n" not in message
    assert [item.source_index for item in frames_of(items)] == [0, 2] + [3] * 30


def test_a_failure_of_an_abandoned_run_does_not_reach_the_next(clip):
    stream = FaceStream(BrightFace(), Settings())
    stream._failed[0] = VideoError("of a run that was closed")
    *frames, end = stream.run([Source("video", str(clip))])
    assert end.error is None
    assert len(frames) == 30


def test_a_video_that_fails_half_way_ends_with_its_error(clip):
    network = BrightFace()
    works = network.analyze

    def fails_late(faces, crops):
        if float(crops.max()) > 100:
            raise ValueError("no such brightness")
        return works(faces, crops)

    network.analyze = fails_late
    items = list(FaceStream(network, Settings()).run([Source("video", str(clip))] * 2))
    ends = [item for item in items if isinstance(item, SourceEnd)]
    assert [str(end.error) for end in ends] == [f"Cannot analyze '{clip}': ValueError: no such brightness."] * 2
    numbers = [item.number for item in frames_of(items) if item.source_index == 1]
    assert numbers == list(range(len(numbers)))
    assert 10 < len(numbers) < 20


def test_a_lost_face_is_detected_again(clip, monkeypatch):
    monkeypatch.setattr("hf_geaau.video.stream.carry_on", lambda before, after, faces: [])
    network = BrightFace()
    frames = frames_of(FaceStream(network, Settings(detect_every=5)).run([Source("video", str(clip))]))
    assert [len(frame.faces) for frame in frames] == [0] * 5 + [1] * 25  # dark at first: nobody to follow
    assert network.finds == 26


class Searches(BrightFace):
    """Remembers in which of `numbered` frames it looked, and whether in the whole frame."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def find(self, image, near=()):
        self.seen.append((round((float(image.mean()) - 10) / 5), not near))
        return super().find(image, near)


def test_known_faces_are_looked_for_near_and_whole_frames_searched_less_often(clip, monkeypatch):
    monkeypatch.setattr("hf_geaau.video.stream.carry_on", lambda before, after, faces: faces)  # nothing to follow
    network = Searches()
    frames = frames_of(FaceStream(network, Settings(workers=1)).run([Source("video", str(clip))]))
    assert [len(frame.faces) for frame in frames] == [0] * 9 + [1] * 21  # dark in the first search: nobody
    near = [(12, False), (15, False), (21, False), (24, False)]
    assert network.seen == sorted([(0, True), (9, True), (18, True), (27, True), *near])


@pytest.mark.parametrize("fps", [8, 10, 12, 15, 24, 25, 30, 50, 60, 120])
def test_whole_frames_are_searched_three_times_a_second(tmp_path, fps, monkeypatch):
    monkeypatch.setattr("hf_geaau.video.stream.carry_on", lambda before, after, faces: faces)
    network = Searches()
    path = write_clip(tmp_path / "clip.mp4", numbered(48), fps)
    list(FaceStream(network, Settings(workers=1)).run([Source("video", str(path))]))
    searched = [number for number, is_whole in network.seen if is_whole]
    late = max(np.diff([*searched, 48])) - 1  # frames after which a new face is seen at worst
    assert late <= max(2, fps / 3 + 0.1)
    if fps >= 24:
        assert late >= min(47, fps / 4)


def test_faces_are_detected_in_every_frame_if_frames_are_far_apart(clip):
    assert [Settings().stride, Settings(every=2).stride, Settings(fps=5).stride] == [3, 1, 1]
    assert Settings(fps=5, detect_every=4).stride == 4


def test_who_enters_is_seen_within_a_third_of_a_second(tmp_path, portrait):
    """With the real detector; and the faces are the same whatever the number of threads."""

    class Detects(FaceAnalyzer):
        batch_size = 16

        def __init__(self):
            self.detector, self.aligned, self.min_score = FaceDetector(), False, 0.6

        def crop(self, image, faces):
            return np.zeros((len(faces), 1), np.float32)

        def analyze(self, faces, crops):
            return faces

    person = cv2.resize(portrait[0], (300, 300), interpolation=cv2.INTER_AREA)
    pictures = []
    for number in range(30):
        picture = np.full((300, 640, 3), 110, np.uint8)
        picture[:, 2 * number : 2 * number + 300] = person
        if 10 <= number < 24:
            picture[75:225, 450:600] = person[::2, ::-2]
        pictures.append(picture)
    path = write_clip(tmp_path / "enters.mp4", pictures)
    seen = [
        [(face.track_id, face.points.tolist()) for face in frame.faces]
        for workers in (1, 3)
        for frame in frames_of(FaceStream(Detects(), Settings(workers=workers)).run([Source("video", str(path))]))
    ]
    assert seen[:30] == seen[30:]
    tracks = [sorted(track for track, _ in faces) for faces in seen[:30]]
    assert all(1 in here for here in tracks)
    entered = [number for number, here in enumerate(tracks) if 2 in here]
    assert entered == list(range(entered[0], entered[-1] + 1))
    assert entered[0] <= 10 + 25 / 3
    assert entered[-1] < 24 + 3  # gone at the next detection


def test_4k_frames_take_bounded_memory(tmp_path, monkeypatch):
    """Decoding stops while two frames wait, as few as fit, whatever the number of groups and their length allow."""
    path = write_clip(tmp_path / "4k.mp4", numbered(9, (3840, 2160)))
    monkeypatch.setattr("hf_geaau.video.stream.BYTES_IN_FLIGHT", 60_000_000)
    alive, most, upright = weakref.WeakSet(), [], VideoReader._upright

    class Image(np.ndarray):
        """An array that a weak set can hold."""

        __hash__ = object.__hash__

    def remembered(self, decoded):
        image = upright(self, decoded).view(Image)
        alive.add(image)
        most.append(len(alive))
        return image

    monkeypatch.setattr(VideoReader, "_upright", remembered)
    stream = FaceStream(BrightFace(), Settings(detect_every=100, workers=1)).run([Source("video", str(path))])
    assert len(frames_of(stream)) == 9
    # Two wait, one is worked on, one waits for room, one closes its group.
    assert max(most) <= 5


@pytest.mark.parametrize("keep_images", [False, True])
def test_decoding_waits_for_a_slow_consumer(clip, keep_images):
    """Groups are bounded in number, too, so few frames are decoded ahead."""
    network = BrightFace()
    settings = Settings(detect_every=1, batch_size=2, workers=1, keep_images=keep_images)
    stream = FaceStream(network, settings).run([Source("video", str(clip))] * 10)
    next(stream)
    stream.close()
    assert network.finds <= 30


def test_wrong_settings_are_refused():
    for wrong, message in (
        ({"every": 0}, "`every` must be at least 1, got 0"),
        ({"fps": -1.0}, "`fps` must be a number above 0, got -1"),
        ({"fps": 5.0, "every": 2}, "not both"),
        ({"smooth_s": -1.0}, "`smooth_s` must be at least 0 seconds, got -1"),
        ({"workers": 0}, "`workers` must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**wrong)
