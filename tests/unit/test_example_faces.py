"""The faces of imitations: found by the detector, the same each time, and moved by their action units."""

import numpy as np
import pytest

from hf_geaau.data.imitations.faces import example_face
from hf_geaau.faces import FaceDetector


def test_the_detector_finds_drawn_faces():
    detect = FaceDetector()
    for seed in range(6):
        faces = detect(example_face(seed, 96 + 32 * (seed % 3), intensities={12: 4.0} if seed % 2 else {43: 5.0}))
        assert len(faces) == 1
        assert faces[0].score > 0.8


def test_the_seed_decides_and_the_identity_stays():
    one, same, later = (np.asarray(example_face(seed, 96, identity=7), float) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != later).any()
    other = np.asarray(example_face(1, 96, identity=8), float)
    assert np.abs(one - other).mean() > 5


@pytest.mark.parametrize("unit", [1, 2, 4, 5, 6, 7, 12, 15, 25, 26, 43])
def test_action_units_show(unit):
    rest, active = (np.asarray(example_face(3, 96, intensities={unit: level}), float) for level in (0.0, 5.0))
    assert np.abs(rest - active).max() > 30


@pytest.mark.slow
def test_faces_are_rendered_with_a_face_model(face_model_path):
    pytest.importorskip("moderngl")
    image = example_face(0, 128, intensities={12: 4.0}, face_model=face_model_path)
    assert image.size == (128, 128)
    assert len(FaceDetector()(image)) == 1
