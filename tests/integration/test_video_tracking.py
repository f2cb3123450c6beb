"""Identities on rendered clips whose truth is known. Needs the face model and OpenGL through EGL."""

import numpy as np
import pytest
import torch

from benchmarks.clips import Actor, render_clip
from hf_geaau.errors import MissingExtraError
from hf_geaau.faces import FaceDetector
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.synthetic import load_face_model
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import AnalyzedFrame, FaceStream, Settings
from hf_geaau.video.tracking import head_pose
from tests.clips import write_clip

pytest.importorskip("moderngl", reason="moderngl is not installed")
pytest.importorskip("av", reason="PyAV is not installed")
FPS, SIZE = 10, (480, 320)


@pytest.fixture(scope="module")
def renderer(face_model_path):
    from hf_geaau.synthetic import Renderer

    try:
        renderer = Renderer(load_face_model(face_model_path), 64, supersample=1)
    except MissingExtraError as error:
        pytest.skip(str(error))
    yield renderer
    renderer.close()


class Detector(FaceAnalyzer):
    """The real detector without a network."""

    batch_size = 16

    def __init__(self):
        self.detector, self.aligned, self.min_score = FaceDetector(), False, 0.6

    def crop(self, image, faces):
        return torch.zeros(len(faces), 1)

    def analyze(self, faces, crops):
        return list(faces)


def identities(clip, path, detect_every=3):
    """For each frame: who, by truth, has which number; faces further than half an eye distance from any are None."""
    write_clip(path, [frame.image for frame in clip], FPS)
    stream = FaceStream(Detector(), Settings(detect_every=detect_every, workers=1)).run([Source("video", str(path))])
    given = []
    for seen, truth in zip((item for item in stream if isinstance(item, AnalyzedFrame)), clip, strict=True):
        here = {}
        for face in seen.faces:
            errors = {who.actor: np.linalg.norm(face.points - who.points, axis=1).mean()
                      / np.linalg.norm(who.points[1] - who.points[0]) for who in truth.people}  # fmt: skip
            nearest = min(errors, key=errors.__getitem__)
            here[nearest if errors[nearest] < 0.5 else None] = face.track_id
        given.append(here)
    return given


def test_two_who_cross_keep_their_numbers(renderer, tmp_path):
    actors = [Actor(1, [(0, 90, 140), (3, 390, 140)], 36), Actor(2, [(0, 390, 160), (3, 90, 160)], 42)]
    given = identities(list(render_clip(renderer, actors, 3.0, FPS, SIZE, seed=3)), tmp_path / "cross.mp4")
    numbers = [{here[actor] for here in given if actor in here} for actor in (0, 1)]
    assert [len(one) for one in numbers] == [1, 1]
    assert numbers[0] != numbers[1]
    assert sum(len(here) for here in given) >= 45  # of 60; one hides the other for a while


def test_one_who_leaves_and_returns_keeps_the_number(renderer, tmp_path):
    stays = Actor(1, [(0, 130, 150), (3, 130, 150)], 40)
    leaves = Actor(
        2, [(0, 340, 150), (0.5, 340, 150), (1.0, 560, 150), (1.8, 560, 150), (2.3, 340, 150), (3, 340, 150)], 40
    )
    clip = list(render_clip(renderer, [stays, leaves], 3.0, FPS, SIZE, seed=3))
    assert any(len(frame.people) == 1 for frame in clip)
    given = identities(clip, tmp_path / "leave.mp4")
    numbers = [{here[actor] for here in given if actor in here} for actor in (0, 1)]
    assert numbers[0] != numbers[1]
    assert [len(one) for one in numbers] == [1, 1]
    assert 1 in given[-1] and 1 in given[0]


def test_a_cut_gives_new_numbers(renderer, tmp_path):
    shots = [list(render_clip(renderer, [Actor(who, [(0, 240, 150), (1, 250, 150)], 44)], 0.8, FPS, SIZE, seed=seed))
             for who, seed in ((1, 3), (2, 4))]  # fmt: skip
    given = identities(shots[0] + shots[1], tmp_path / "cut.mp4")
    assert [here.get(0) for here in given] == [1] * 8 + [2] * 8


def test_head_pose_of_rendered_faces(renderer):
    clip = list(render_clip(renderer, [Actor(5, [(0, 240, 150), (3, 240, 150)], 44, sway=0.5)], 3.0, 4, SIZE, seed=3))
    truth = np.degrees([[-frame.people[0].roll, frame.people[0].yaw] for frame in clip])
    found = np.array([head_pose(frame.people[0].points) for frame in clip])
    assert np.abs(found - truth)[:, 0].max() < 5
    assert np.corrcoef(found[:, 1], truth[:, 1])[0, 1] > 0.95
    assert np.abs(found - truth)[:, 1].max() < 15
