"""Rendered pictures. Needs the face model, which is not part of the repository, and OpenGL through EGL."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from hf_geaau.errors import MissingExtraError
from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE
from hf_geaau.synthetic import dataset as dataset_module
from hf_geaau.synthetic import iter_renders, load_face_model, render_dataset, sample_scene
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.descriptions import SceneDescription
from hf_geaau.synthetic.expressions import expression
from hf_geaau.synthetic.lighting import Environment
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES, TRAITS
from tests.conftest import FACE_MODEL

pytest.importorskip("moderngl", reason="moderngl is not installed")
if not FACE_MODEL.is_file():
    pytest.skip(f"no face model at {FACE_MODEL}", allow_module_level=True)

SIZE = 64


@pytest.fixture(scope="module")
def renderer():
    from hf_geaau.synthetic import Renderer

    try:
        renderer = Renderer(load_face_model(FACE_MODEL), SIZE)
    except MissingExtraError as error:
        pytest.skip(str(error))
    yield renderer
    renderer.close()


def plain(identity_id=2, **levels):
    """A frontal, clean scene of one person with the given action units."""
    wanted = np.zeros(len(ACTION_UNITS))
    for name, level in levels.items():
        wanted[ACTION_UNITS.index(int(name[2:]))] = level
    scene = sample_scene(0, 0, identity_id).showing(expression(wanted, np.random.default_rng(0), nuisances=False))
    camera = replace(scene.camera, blur=0.0, motion=(0.0, 0.0), source_side=0.0, noise=0.0, saturation=1.0, quality=0)
    return replace(
        scene, camera=camera, yaw=0.0, pitch=0.0, roll=0.0, occluder="", wears_glasses=False,
        point_jitter=np.zeros((5, 2), np.float32), crop_jitter=np.zeros(4, np.float32),
    )  # fmt: skip


def change(renderer, box, **levels):
    """Mean change of grey levels inside a box (x0, y0, x1, y1, fractions), against the rest face."""
    x0, y0, x1, y1 = (int(value * SIZE) for value in box)
    before, after = (renderer.render(scene).image.astype(float) for scene in (plain(), plain(**levels)))
    return np.abs(after - before)[y0:y1, x0:x1].mean()


def test_picture_is_not_empty_and_points_lie_on_the_template(renderer):
    template = np.array(CROP_TEMPLATE) * SIZE
    for index in range(6):
        render = renderer.render(sample_scene(1, index, index))
        assert render.image.shape == (SIZE, SIZE, 3)
        assert render.image.dtype == np.uint8
        assert render.points.shape == (5, 2)
        assert np.abs(render.points - template).max() < 0.2 * SIZE
    clean = renderer.render(plain())
    assert clean.image.std() > 15
    assert np.abs(clean.points - template).max() < 0.06 * SIZE


def test_same_scene_same_bytes(renderer):
    scenes = [sample_scene(2, index, index // 2) for index in range(4)]
    first = [renderer.render(scene).image.tobytes() for scene in scenes]
    assert first == [renderer.render(scene).image.tobytes() for scene in scenes]
    assert len(set(first)) == 4


def test_units_change_the_face_where_they_act(renderer):
    brows, mouth = (0.2, 0.15, 0.8, 0.33), (0.3, 0.65, 0.7, 0.95)
    assert change(renderer, mouth, AU26=5) > 2 * change(renderer, brows, AU26=5)
    assert change(renderer, mouth, AU26=5) > 8
    assert change(renderer, brows, AU01=5, AU02=5) > 1.5


def test_dropped_jaw_moves_no_eye_and_smile_moves_mouth_corners(renderer):
    rest, smile = renderer.render(plain()), renderer.render(plain(AU12=5))
    width = [np.linalg.norm(np.diff(render.points[3:], axis=0)) for render in (rest, smile)]
    assert width[1] > 1.08 * width[0]


def test_a_photo_shows_the_face_where_it_was_asked_for(renderer):
    photo = renderer.render_photo(plain(), 120, 160, eye_distance=30, center=(90, 50), roll=0.5)
    assert photo.image.shape == (120, 160, 3)
    eyes = photo.points[:2]
    np.testing.assert_allclose(eyes.mean(0), [90, 50], atol=0.1)
    across = eyes[1] - eyes[0]
    np.testing.assert_allclose(np.linalg.norm(across), 30, rtol=0.1)
    np.testing.assert_allclose(np.arctan2(across[1], across[0]), 0.5, atol=0.12)


@pytest.mark.slow
def test_two_renderers_of_one_process_do_not_mix(renderer):
    from hf_geaau.synthetic import Renderer

    scenes = [sample_scene(2, index, index) for index in range(2)]
    alone = [renderer.render(scene).image.tobytes() for scene in scenes]
    other = Renderer(load_face_model(FACE_MODEL), SIZE)
    assert [drawn.render(scene).image.tobytes() for scene in scenes for drawn in (renderer, other)] == [
        image for image in alone for _ in range(2)
    ]
    other.close()
    assert alone == [renderer.render(scene).image.tobytes() for scene in scenes]


@pytest.mark.slow
def test_workers_do_not_change_the_pictures(renderer):
    settings = {"count": 52, "seed": 4, "size": 32, "images_per_identity": 26}
    one = [face.image.tobytes() for face in iter_renders(FACE_MODEL, **settings)]
    two = [face.image.tobytes() for face in iter_renders(FACE_MODEL, **settings, workers=2)]
    assert one == two


@pytest.mark.slow
def test_an_interrupted_run_continues(renderer, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "IMAGES_PER_TASK", 4)
    settings = {"size": 32, "images_per_identity": 4, "first_identity": 7, "workers": 1}

    def stop(done, _):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_dataset(FACE_MODEL, 8, 5, tmp_path / "a", **settings, progress=stop)
    early = (tmp_path / "a" / "images" / "00000000.jpg").stat().st_mtime_ns
    assert not (tmp_path / "a" / "labels.parquet").exists()
    steps = []
    table = render_dataset(FACE_MODEL, 8, 5, tmp_path / "a", **settings, progress=lambda *step: steps.append(step))
    assert steps == [(4, 8), (8, 8)]
    assert (tmp_path / "a" / "images" / "00000000.jpg").stat().st_mtime_ns == early
    rows = pq.read_table(table).to_pylist()
    assert [row["subject_id"] for row in rows] == ["render-5-7"] * 4 + ["render-5-8"] * 4
    assert [row["frame"] for row in rows] == [0, 1, 2, 3] * 2
    assert all(len(row["labels"]) == len(row["intensities"]) == 18 and len(row["points"]) == 10 for row in rows)
    assert cv2.imread(str(tmp_path / "a" / rows[7]["file_name"])).shape == (32, 32, 3)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["images", "labels.parquet", "render.json"]
    assert render_dataset(FACE_MODEL, 8, 5, tmp_path / "a", **settings) == table
    with pytest.raises(ValueError, match="seed was 5, is 6"):
        render_dataset(FACE_MODEL, 8, 6, tmp_path / "a", **settings)


@pytest.mark.slow
def test_a_shifted_folder_says_what_it_shows(renderer, tmp_path):
    settings = {"size": 32, "images_per_identity": 4, "workers": 1}
    table = render_dataset(FACE_MODEL, 8, 5, tmp_path / "shifted", **settings, style="shifted")
    rows = pq.read_table(table).to_pylist()
    assert {row["style"] for row in rows} == {"shifted"}
    assert rows[0]["subject_id"] == "render-shifted-5-0"
    assert {row["light"] for row in rows} <= {"under", "neon", "ring"}
    for row in rows:
        assert {field.name for field in fields(SceneDescription)} < set(row)
        assert abs(row["yaw"]) <= np.pi / 4 + 1e-6
    with pytest.raises(ValueError, match="style was 'shifted', is 'standard'"):
        render_dataset(FACE_MODEL, 8, 5, tmp_path / "shifted", **settings)


def test_the_detectors_error_moves_the_crop_against_it(renderer):
    """Points found too far right cut out a crop further right, in which the face lies further left."""
    shift = np.zeros((5, 2), np.float32)
    shift[:, 0] = 0.1
    rest, moved = (renderer.render(replace(plain(), point_jitter=jitter)) for jitter in (0 * shift, shift))
    template = np.array(CROP_TEMPLATE) * SIZE
    np.testing.assert_allclose(
        moved.points - rest.points, [[-0.1 * (template[1, 0] - template[0, 0]), 0]] * 5, atol=0.05
    )


def test_a_near_camera_sees_another_face_than_a_far_one(renderer):
    def spread(distance):
        scene = plain()
        points = renderer.render(replace(scene, camera=replace(scene.camera, distance=distance))).points
        return np.linalg.norm(points[2] - points[3:].mean(0)) / np.linalg.norm(points[1] - points[0])

    ratios = [spread(distance) for distance in (35.0, 100.0, 300.0)]
    assert abs(ratios[0] - ratios[1]) > 2 * abs(ratios[1] - ratios[2]) > 0


def test_light_from_above_leaves_the_eyes_in_shade(renderer):
    def eyes_against_forehead(height):
        light = Environment()
        light.lamp(0, height, np.ones(3))
        light.sky(np.full(3, 0.15), np.zeros(3))
        bare = plain()
        bare = replace(bare, identity=replace(bare.identity, hair=replace(bare.identity.hair, style="bald")))
        render = renderer.render(replace(bare, light=light.light("top", 0.0, 0.0)))
        grey, (x, y) = render.image.mean(2), render.points[:2].mean(0).astype(int)
        return grey[y - 3 : y + 3, x - 14 : x + 14].mean() / grey[y - 12 : y - 9, x - 8 : x + 8].mean()

    assert eyes_against_forehead(75) < 0.9 * eyes_against_forehead(10)


@pytest.mark.slow
def test_closed_eyes_leave_no_slit_on_any_face(renderer):
    for identity_id in range(12):
        scene = plain(identity_id, AU43=2)
        _, view = renderer.pose(scene)
        gaps = view.landmarks[[37, 38, 43, 44], 1] - view.landmarks[[41, 40, 47, 46], 1]
        assert gaps.max() < 0.12, f"{gaps} cm between the lids of identity {identity_id}"


def test_folds_darken_and_a_raised_cheek_stands_out(renderer):
    mesh = renderer.mesh
    rest = mesh.relief(mesh.neutral, mesh.normals(mesh.neutral))
    assert np.abs(rest).max() == 0
    smile = plain(AU06=4, AU12=4).shape_weights @ mesh.expression_deltas
    moved = mesh.neutral + smile.reshape(-1, 3)
    depth = mesh.relief(moved, mesh.normals(moved))
    corner, nostril = mesh.neutral[mesh.landmarks[48]], mesh.neutral[mesh.landmarks[31]]
    beside = np.linalg.norm(mesh.neutral - (0.6 * corner + 0.4 * nostril + [-0.8, 0, 0]), axis=1) < 1.2
    assert depth[beside].max() > 0.04
    assert depth[mesh.material_of_vertex == 0].min() < -0.04


def test_a_raised_brow_moves_whole_and_leaves_the_lid(renderer):
    mesh = renderer.mesh
    raised = mesh.expression_deltas[EXPRESSION_SHAPES.index("browOuterUp_L")].reshape(-1, 3)[:, 1]
    x, y, z = mesh.neutral.T
    column = (mesh.material_of_vertex == 0) & (np.abs(x - 3.8) < 0.8) & (z > 3)
    brow, lid = (raised[column & (y > low) & (y < high)] for low, high in ((4.9, 5.7), (3.7, 4.2)))
    assert len(brow) > 20 and len(lid) > 20
    assert brow.min() > 0.7 * brow.max() > 0.4  # cm; a stretched brow would not say how high it is
    assert lid.max() < 0.3 * brow.max()


def test_the_outer_raiser_leaves_the_inner_end_of_the_brow(renderer):
    mesh = renderer.mesh
    raised = mesh.expression_deltas[EXPRESSION_SHAPES.index("browOuterUp_L")].reshape(-1, 3)[:, 1]
    x, y, z = mesh.neutral.T
    inner, outer = (raised[(np.abs(x - at) < 0.4) & (np.abs(y - 5.4) < 0.4) & (z > 3)].mean() for at in (1.4, 4.3))
    assert inner < 0.25 * outer


def test_teeth_that_reach_down_fill_a_smile(renderer):
    smile = plain(AU12=4, AU25=4)
    short, long = (
        renderer.render(replace(smile, identity=replace(smile.identity, teeth_offset=(0.0, down)))).image
        for down in (-0.3, 0.4)
    )
    assert (long.astype(int) - short)[40:56, 20:44].max() > 60


def test_traits_change_what_they_are_named_after(renderer):
    mesh = renderer.mesh
    deltas = dict(zip(TRAITS, mesh.trait_deltas.reshape(len(TRAITS), -1, 3)[:, mesh.landmarks], strict=True))
    jaw = deltas["feminine"][4, 0] - deltas["feminine"][12, 0]
    assert jaw > 0.3
    assert deltas["child"][8, 1] - deltas["child"][27, 1] > 0.5
    assert (deltas["full_lips"][51, 1] - deltas["full_lips"][57, 1]) > 0.1
    assert (deltas["big_eyes"][37, 1] - deltas["big_eyes"][41, 1]) > 0.05
