"""Pictures of the second face model. They need its heads, which are not in the repository, and OpenGL through EGL."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from hf_geaau.errors import MissingExtraError
from hf_geaau.synthetic import load_face_model, render_dataset, sample_scene
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.camera import Camera
from hf_geaau.synthetic.expressions import LIPS_APART_CM, expression
from hf_geaau.synthetic.people import Beard
from hf_geaau.synthetic.views import lip_gap
from tests.conftest import FACE_MODEL

VALID = FACE_MODEL.parents[1] / "face_model_valid"
pytest.importorskip("moderngl", reason="moderngl is not installed")
if not VALID.is_dir():
    pytest.skip(f"no heads of VALID at {VALID}", allow_module_level=True)

SIZE = 96
BROWS, EYES, NOSE, MOUTH = range(17, 27), range(36, 48), range(27, 36), range(48, 68)  # landmarks
REGIONS = {1: BROWS, 2: BROWS, 4: BROWS, 5: EYES, 6: EYES, 7: EYES, 9: NOSE, 43: EYES}  # all others: MOUTH
REGIONS |= {17: range(5, 12)}


@pytest.fixture(scope="module")
def renderer():
    from hf_geaau.synthetic import Renderer

    try:
        renderer = Renderer(load_face_model(VALID), SIZE)
    except MissingExtraError as error:
        pytest.skip(str(error))
    yield renderer
    renderer.close()


def plain(renderer, identity_id, sides=(1, 1), **levels):
    """A frontal, clean scene of one person with the given action units, on both sides or one."""
    wanted = np.zeros(len(ACTION_UNITS))
    for name, level in levels.items():
        wanted[ACTION_UNITS.index(int(name[2:]))] = level
    for seed in range(500):  # until the draw shows the sides that are asked for
        shown = expression(wanted, np.random.default_rng(seed), nuisances=False, gaps=renderer.gaps)
        present = shown.side_intensities[wanted > 0] >= 1
        if (present == sides).all():
            break
    else:
        raise AssertionError(f"no draw shows {levels} on {sides}")
    scene = renderer.sample_scene(0, 3, identity_id).showing(shown)
    return replace(
        scene, camera=Camera(distance=90), yaw=0.0, pitch=0.0, roll=0.0, occluder="", wears_glasses=False,
        point_jitter=np.zeros((5, 2), np.float32), crop_jitter=np.zeros(4, np.float32),
    )  # fmt: skip


def movement(renderer, identity_id, **arguments):
    """Return where the vertices are at rest (V, 3), by how much each moves (V,), and the landmarks at rest, in cm."""
    rest, moved = (renderer.pose(plain(renderer, identity_id, **each))[1] for each in ({}, arguments))
    return rest.vertices, np.linalg.norm(moved.vertices - rest.vertices, axis=1), rest.landmarks


@pytest.mark.parametrize("number", ACTION_UNITS)
def test_every_unit_shows_where_it_acts(renderer, number):
    at, moved, landmarks = movement(renderer, 2, **{f"AU{number:02d}": 4})
    around = np.linalg.norm(at[:, None] - landmarks[list(REGIONS.get(number, MOUTH))], axis=2).min(1) < 1.5
    assert moved[around].max() > 0.15
    assert moved[around].max() >= 0.8 * moved.max()
    rest, shown = (renderer.render(plain(renderer, 2, **each)).image for each in ({}, {f"AU{number:02d}": 4}))
    assert np.abs(shown.astype(int) - rest).mean() > 0.3


@pytest.mark.parametrize("number", [2, 12, 14, 43])
def test_a_unit_on_one_side_shows_on_that_side(renderer, number):
    for sides in ((1, 0), (0, 1)):
        at, moved, _ = movement(renderer, 2, sides=sides, **{f"AU{number:02d}": 5})
        left, right = moved[at[:, 0] > 1].mean(), moved[at[:, 0] < -1].mean()  # the person's left is at positive x
        assert (left > 2.5 * right) if sides[0] else (right > 2.5 * left)


def test_labels_of_parted_lips_are_those_of_the_geometry(renderer):
    """AU25 follows from the gap between the lips, which differs between people: its label must hold for each."""
    wrong = 0
    for index in range(120):
        scene = renderer.sample_scene(11, index, index)
        rest = replace(scene, shape_weights=0 * scene.shape_weights)
        gap = lip_gap(renderer.pose(scene)[1].landmarks) - lip_gap(renderer.pose(rest)[1].landmarks)
        intensity = 5 * np.clip(gap / LIPS_APART_CM, 0, 1) ** 0.75
        wrong += bool(scene.labels[ACTION_UNITS.index(25)]) != (intensity >= 1)
    assert wrong <= 3


def test_a_scene_of_another_face_model_is_refused(renderer):
    with pytest.raises(ValueError, match=r"must be of VALID, got one of another face model. Draw the scene with"):
        renderer.render(sample_scene(0, 0, 0))


def cheek(picture):
    return picture[round(0.55 * SIZE) : round(0.62 * SIZE), round(0.25 * SIZE) : round(0.35 * SIZE)].mean()


def test_skins_are_those_of_the_blend(renderer):
    """The color of the cheeks follows the tone of the people that are blended."""
    tones, seen = [], []
    for person in range(12):
        scene = plain(renderer, person)
        picture = renderer.render(replace(scene, light=renderer.sample_scene(0, 3, 0).light)).image
        tones.append(scene.identity.skin.tone.mean())
        seen.append(cheek(picture))
    assert np.corrcoef(tones, seen)[0, 1] > 0.6


@pytest.mark.slow
def test_face_models_take_turns_and_workers_change_nothing(renderer, tmp_path):
    if not FACE_MODEL.is_file():
        pytest.skip(f"no face model at {FACE_MODEL}")
    tables = [
        render_dataset(
            [FACE_MODEL, VALID], 20, 1, tmp_path / str(workers), size=32, images_per_identity=5, workers=workers
        )
        for workers in (1, 2)
    ]
    rows = pq.read_table(tables[0]).to_pandas()
    assert rows["face_model"].tolist() == (["ICT-FaceKit"] * 5 + ["VALID"] * 5) * 2
    assert rows["side_intensities"].map(len).eq(2 * len(ACTION_UNITS)).all()
    for name in rows["file_name"]:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.slow
def test_people_of_another_face_model_wear_the_photographed_skins_and_the_rest_stays(renderer):
    if not FACE_MODEL.is_file():
        pytest.skip(f"no face model at {FACE_MODEL}")
    from hf_geaau.synthetic import Renderer

    scanned, head = load_face_model(VALID), load_face_model(FACE_MODEL)
    dressed, painted = Renderer(head, SIZE, donor=scanned), Renderer(head, SIZE)
    try:
        shades, cheeks, count = [], [], 0
        for person in range(16):
            scene, other = dressed.sample_scene(0, 3, person), painted.sample_scene(0, 3, person)
            if scene.identity.photographed is None:
                count += 1
                np.testing.assert_array_equal(dressed.render(scene).image, painted.render(other).image)
                continue
            assert scene.identity.photographed.sum() == pytest.approx(1)
            assert scene.identity.shape.shape == other.identity.shape.shape  # the head is none of the scanned ones
            clean = {"occluder": "", "wears_glasses": False, "yaw": 0.0, "pitch": 0.0, "roll": 0.0,
                     "camera": Camera(distance=90), "light": painted.sample_scene(0, 3, 0).light,
                     "identity": replace(scene.identity, beard=Beard(0, 0, 0, False, 0))}  # fmt: skip
            picture = dressed.render(replace(scene, **clean)).image
            cheeks.append(
                picture[round(0.55 * SIZE) : round(0.62 * SIZE), round(0.25 * SIZE) : round(0.35 * SIZE)].mean()
            )
            shades.append(scene.identity.skin.tone.mean())
        assert 2 <= count <= 12
        assert np.corrcoef(shades, cheeks)[0, 1] > 0.6
        assert Renderer(scanned, SIZE, donor=scanned).donors is None  # its own people have skins
    finally:
        dressed.close()
        painted.close()
    validation = {scanned.scans.people.names.index(name) for name in scanned.scans.people.parts[1]}
    drawn = [dressed.sample_scene(0, 3, 1_000_000 + person).identity.photographed for person in range(40)]
    worn = {index for shares in drawn if shares is not None for index in np.flatnonzero(shares)}
    assert worn <= validation
