"""What a rendered face is made of, and the face model it is made from. No OpenGL."""

import json
from dataclasses import fields, is_dataclass, replace

import cv2
import numpy as np
import pytest

from hf_geaau.errors import FaceModelError
from hf_geaau.files import FolderClaim
from hf_geaau.synthetic import lighting, point_errors, render_dataset
from hf_geaau.synthetic.action_units import (
    ACTION_UNITS,
    COMPOUND_EXPRESSIONS,
    CONFUSABLE,
    EXCLUSIONS,
    LEAST_AU10_IN_SMILES,
    PRESENT_MIN,
    TRACE_MAX,
    sample_intensities,
    sample_units,
)
from hf_geaau.synthetic.camera import Camera
from hf_geaau.synthetic.dataset import RenderFolderError, RenderPlan
from hf_geaau.synthetic.descriptions import describe_scene
from hf_geaau.synthetic.environments import EnvironmentsError, read_environments
from hf_geaau.synthetic.expressions import AU_SHAPES, SMILE_LIFT, expression, wrinkle_depths
from hf_geaau.synthetic.face_model import REQUIRED_MATERIALS, load_face_model
from hf_geaau.synthetic.head import HeadMesh
from hf_geaau.synthetic.ict_facekit import parse_obj
from hf_geaau.synthetic.lighting import harmonics
from hf_geaau.synthetic.people import WRINKLES, sample_identity
from hf_geaau.synthetic.photography import develop
from hf_geaau.synthetic.scenes import sample_pose, sample_scene
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES

CUBE = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
QUADS = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]


def same(first, second):
    if is_dataclass(first):
        return all(same(getattr(first, field.name), getattr(second, field.name)) for field in fields(first))
    return np.array_equal(first, second)


def many(count=300):
    return [sample_scene(3, index, index // 4) for index in range(count)]


def intensities(**levels):
    values = np.zeros(len(ACTION_UNITS))
    for name, level in levels.items():
        values[ACTION_UNITS.index(int(name[2:]))] = level
    return values


def weight(weights, name):
    return weights[EXPRESSION_SHAPES.index(name)]


def test_order_of_action_units_and_shapes():
    assert ACTION_UNITS == (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43)
    assert len(EXPRESSION_SHAPES) == len(set(EXPRESSION_SHAPES)) == 55
    bare = {name.removesuffix("_L").removesuffix("_R") for name in EXPRESSION_SHAPES}
    assert all(name in bare for shapes in AU_SHAPES.values() for name, _ in shapes)
    assert set(AU_SHAPES) == set(ACTION_UNITS)


def test_labels_follow_intensities_and_leave_a_gap():
    for scene in many():
        assert np.array_equal(scene.labels, (scene.intensities >= 1).astype(np.float32))
        assert scene.intensities.min() >= 0
        assert scene.intensities.max() <= 5
        between = (scene.intensities > TRACE_MAX + 0.02) & (scene.intensities < PRESENT_MIN - 0.02)
        assert not between.any(), f"{scene.intensities} has a unit that is neither a trace nor visible"


@pytest.mark.slow
def test_every_unit_occurs_and_neutral_faces_occur():
    labels = np.array([scene.labels for scene in many(1200)])
    assert (labels.mean(0) > 0.04).all()
    assert (labels.mean(0) < 0.55).all()
    assert (labels.sum(1) == 0).mean() > 0.02


def test_opposites_do_not_meet():
    for scene in many(600):
        for pair in EXCLUSIONS:
            first, second = (scene.labels[ACTION_UNITS.index(number)] for number in pair)
            assert pair == (12, 15) or not (first and second), pair


def test_dropped_jaw_parts_the_lips():
    for seed in range(20):
        _, final, _ = expression(intensities(AU26=3), np.random.default_rng(seed))
        assert final[ACTION_UNITS.index(25)] >= 1


def test_lips_that_no_unit_parts_are_not_labeled_parted():
    weights, final, _ = expression(intensities(AU12=4), np.random.default_rng(0), nuisances=False)
    assert final[ACTION_UNITS.index(25)] < 1
    assert weight(weights, "jawOpen") == 0


@pytest.mark.parametrize("number", [n for n in ACTION_UNITS if n not in (25, 26)])
def test_a_unit_moves_its_shapes_and_no_others(number):
    weights, _, _ = expression(intensities(**{f"AU{number:02d}": 5}), np.random.default_rng(1), nuisances=False)
    own = {name for name, _ in AU_SHAPES[number]} | {"mouthClose", "mouthShrugUpper", "eyeWide", "eyeBlink"}
    moved = {EXPRESSION_SHAPES[i].removesuffix("_L").removesuffix("_R") for i in np.flatnonzero(weights)}
    assert {name for name, _ in AU_SHAPES[number]} <= moved <= own


def shown(count, **levels):
    wanted = intensities(**levels)
    return [expression(wanted, np.random.default_rng(seed), nuisances=False)[0] for seed in range(count)]


def test_open_smiles_bare_the_upper_teeth_without_au10_which_shows_more():
    def lifts(**levels):
        drawn = [
            expression(intensities(**levels), np.random.default_rng(seed), nuisances=False)[0] for seed in range(40)
        ]
        return np.array([[weight(w, "mouthUpperUp_L"), weight(w, "noseSneer_L")] for w in drawn])

    closed, smile, raised = lifts(AU12=5), lifts(AU12=5, AU25=3), lifts(AU12=5, AU10=3, AU25=3)
    assert not closed.any()
    assert np.ptp(smile[:, 0]) > 0.3
    assert smile[:, 0].max() <= SMILE_LIFT * 1.3  # the stronger side
    assert not smile[:, 1].any()
    assert raised[:, 0].mean() > 2 * smile[:, 0].mean()
    assert (raised[:, 1] > 0).mean() > 0.9
    drawn = np.array([sample_intensities(np.random.default_rng(seed), "compound") for seed in range(2000)])
    lip, smiles = (drawn[:, ACTION_UNITS.index(number)] for number in (10, 12))
    assert lip[(smiles >= PRESENT_MIN) & (lip > TRACE_MAX)].min() == LEAST_AU10_IN_SMILES


def test_brows_of_grief_rise():
    def mean_weight(name, **levels):
        drawn = [
            expression(intensities(**levels), np.random.default_rng(seed), nuisances=False)[0] for seed in range(20)
        ]
        return np.mean([weight(w, f"{name}_L") for w in drawn])

    frown, grief = mean_weight("browDown", AU04=3), mean_weight("browDown", AU04=3, AU01=4)
    assert 0.3 * frown < grief < 0.7 * frown
    assert mean_weight("browInnerUp", AU04=3, AU01=4) > grief


def test_looks_that_are_easily_confused_are_drawn_and_weak_faces_are_common():
    groups = {units for group in CONFUSABLE for units in group}
    drawn = [frozenset(sample_units(np.random.default_rng(seed), "confusable")) - {43} for seed in range(1500)]
    assert {frozenset(units) - {43} for units in groups} <= set(drawn)
    strengths = np.array([sample_intensities(np.random.default_rng(seed), "prototype") for seed in range(1500)])
    strongest = strengths.max(1)[strengths.max(1) >= 1]
    assert 0.25 < (strongest < 3.2).mean() < 0.7


def test_stronger_means_more():
    tops = [
        expression(intensities(AU01=level), np.random.default_rng(2), nuisances=False)[0].max()
        for level in (0, 1, 3, 5)
    ]
    assert tops == sorted(tops)
    assert tops[1] > 0.25


def test_closed_eyes_are_closed_and_downcast_eyes_are_not():
    shut, _, _ = expression(intensities(AU43=4), np.random.default_rng(0))
    assert min(weight(shut, "eyeBlink_L"), weight(shut, "eyeBlink_R")) > 0.4
    for scene in many(300):
        if not scene.labels[ACTION_UNITS.index(43)]:
            closing = 0.79 * scene.shape_weights[EXPRESSION_SHAPES.index("eyeBlink_L")]
            assert closing < 0.7


def test_sides_differ_and_may_be_one_sided():
    pairs = np.array(
        [
            [weight(w, "mouthSmile_L"), weight(w, "mouthSmile_R")]
            for seed in range(200)
            for w in [expression(intensities(AU12=4), np.random.default_rng(seed))[0]]
        ]
    )
    ratio = pairs.min(1) / pairs.max(1)
    assert (ratio < 0.35).any()
    assert np.median(ratio) > 0.8


def test_wrinkles_come_from_age_and_action():
    young, old = (
        next(i for k in range(99) if lo <= (i := sample_identity(0, k)).age < hi) for lo, hi in ((0, 0.1), (0.8, 1))
    )
    rest, frown = intensities(), intensities(AU04=5)
    gains = np.ones((len(ACTION_UNITS), 2))
    assert wrinkle_depths(old, rest, gains).mean() > wrinkle_depths(young, rest, gains).mean()
    glabella = WRINKLES.index("glabella")
    assert (wrinkle_depths(young, frown, gains) > wrinkle_depths(young, rest, gains))[glabella].all()


def test_scenes_and_identities_are_reproducible():
    sample_identity.cache_clear()
    first = sample_scene(5, 17, 4)
    sample_identity.cache_clear()
    assert same(first, sample_scene(5, 17, 4))
    assert not same(first.identity, sample_identity(5, 5))
    assert not same(first.identity, sample_identity(6, 4))
    assert same(sample_identity(5, 4), sample_scene(5, 99, 4).identity)


def test_disjoint_ranges_hold_disjoint_people():
    shapes = [sample_identity(0, number).shape.tobytes() for number in range(60)]
    assert len(set(shapes)) == 60


def test_skin_covers_the_human_range():
    tones = np.array([sample_identity(1, number).skin.tone.mean() for number in range(200)])
    assert tones.min() < 0.08
    assert tones.max() > 0.5


def test_given_intensities_must_have_one_value_per_unit():
    with pytest.raises(
        ValueError, match=r"`intensities` must have shape \(18,\), one for each of ACTION_UNITS, got \(3,\)"
    ):
        sample_scene(0, 0, 0, [1, 2, 3])


def test_plan_assigns_blocks_of_identities():
    plan = RenderPlan(seed=0, size=64, images_per_identity=3, identities=2, first_identity=10)
    assert [plan.identity_of(i) for i in range(8)] == [
        (10, 0),
        (10, 1),
        (10, 2),
        (11, 0),
        (11, 1),
        (11, 2),
        (10, 3),
        (10, 4),
    ]
    for name, value, message in (
        ("size", 100_000, "from 16 to 4096 pixels, got 100000"), ("seed", -1, "at least 0, got -1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{name}` must be {message}"):
            replace(plan, **{name: value})
    with pytest.raises(ValueError, match="`images_per_identity` must be at least 1, got 0"):
        RenderPlan(0, 64, 0, None, 0)


def write_obj(path, vertices, materials=()):
    lines = [f"v {x} {y} {z}" for x, y, z in vertices]
    if materials:
        lines += [f"vt {i / 8} {i / 8}" for i in range(8)]
        for material in materials:
            lines += [f"usemtl {material}", *("f " + " ".join(f"{v}/{v}" for v in quad) for quad in QUADS)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def clone(tmp_path):
    """A made-up clone of ICT-FaceKit: a cube that every shape shifts a little."""
    folder = tmp_path / "ICT-FaceKit" / "FaceXModel"
    folder.mkdir(parents=True)
    write_obj(folder / "generic_neutral_mesh.obj", CUBE, REQUIRED_MATERIALS)
    for number, name in enumerate(EXPRESSION_SHAPES):
        write_obj(folder / f"{name}.obj", [(x + (number + 1) / 64, y, z) for x, y, z in CUBE])
    for number in range(100):
        write_obj(folder / f"identity{number:03d}.obj", [(x, y + number / 128, z) for x, y, z in CUBE])
    (folder / "vertex_indices.json").write_text(json.dumps({"idx_to_landmark_verts": [i % 8 for i in range(68)]}))
    return folder.parent


def test_a_clone_is_parsed_once_and_cached(clone, tmp_path):
    model = load_face_model(clone, cache_dir=tmp_path / "cache")
    assert model.vertices.shape == (8, 3)
    assert model.triangles.shape == (12 * len(REQUIRED_MATERIALS), 3)
    assert set(model.materials) == set(REQUIRED_MATERIALS)
    np.testing.assert_allclose(model.expression_deltas[:, 0, 0], (np.arange(55) + 1) / 64)
    np.testing.assert_allclose(model.identity_deltas[:, 0, 1], np.arange(100) / 128)
    (cached,) = (tmp_path / "cache").iterdir()
    assert cached.suffix == ".npz"
    again = load_face_model(clone / "FaceXModel", cache_dir=tmp_path / "cache")
    assert np.array_equal(again.expression_deltas, model.expression_deltas)
    assert np.array_equal(load_face_model(cached).triangles, model.triangles)
    cached.write_bytes(b"damaged")
    assert np.array_equal(load_face_model(clone, tmp_path / "cache").triangles, model.triangles)


def test_a_made_up_mesh_has_unit_normals(clone, tmp_path):
    mesh = HeadMesh(load_face_model(clone, tmp_path))
    np.testing.assert_allclose(np.linalg.norm(mesh.normals(mesh.neutral), axis=1), 1, atol=1e-5)
    assert (mesh.triangles < len(mesh.source)).all()
    assert mesh.landmark_uv.shape == (68, 2)


def test_quads_become_triangles(tmp_path):
    write_obj(tmp_path / "a.obj", CUBE, ["M_Face"])
    parsed = parse_obj(tmp_path / "a.obj")
    assert parsed["triangles"][:2].tolist() == [[0, 1, 3], [0, 3, 2]]
    assert parsed["triangle_material"].tolist() == [0] * 12


def test_face_model_errors(clone, tmp_path):
    with pytest.raises(
        FaceModelError, match="Cannot read the face model .*nowhere': no such file or folder. Clone https"
    ):
        load_face_model(tmp_path / "nowhere")
    with pytest.raises(FaceModelError, match=r"it lacks generic_neutral_mesh.obj, .* more, which a clone"):
        load_face_model(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(FaceModelError, match="Cannot read the face model .*bad.npz"):
        load_face_model(tmp_path / "bad.npz")
    np.savez(tmp_path / "part.npz", vertices=np.zeros((3, 3)))
    with pytest.raises(FaceModelError, match="lacks the arrays .*'expression_deltas'"):
        load_face_model(tmp_path / "part.npz")
    write_obj(clone / "FaceXModel" / "jawOpen.obj", CUBE[:5])
    with pytest.raises(FaceModelError, match=r"jawOpen.obj' must have 8 vertices, as .* got 5"):
        load_face_model(clone, tmp_path / "cache")
    (clone / "FaceXModel" / "jawOpen.obj").unlink()
    with pytest.raises(FaceModelError, match="it lacks jawOpen.obj"):
        load_face_model(clone, tmp_path / "cache")


def test_a_folder_refuses_other_settings_files_and_writers(clone, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recorded = {"count": 1, "quality": 92, "action_units": list(ACTION_UNITS), "seed": 1, "size": 64}
    recorded |= {"images_per_identity": 6, "identities": None, "first_identity": 0, "style": "standard"}
    recorded |= {"face_models": ["ICT-FaceKit"], "environments": []}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "render.json").write_text(json.dumps(recorded, indent=1))
    (tmp_path / "a" / "labels.parquet").touch()
    assert render_dataset(clone, 1, 1, tmp_path / "a", size=64).name == "labels.parquet"
    with pytest.raises(RenderFolderError, match=r"Cannot resume: .* holds renders .*\(seed was 1, is 2\)"):
        render_dataset(clone, 1, 2, tmp_path / "a", size=64)
    with (
        FolderClaim(tmp_path / "a", recorded, record="render.json"),
        pytest.raises(RenderFolderError, match="Another process is writing renders"),
    ):
        render_dataset(clone, 1, 1, tmp_path / "a", size=64)
    (tmp_path / "b" / "images").mkdir(parents=True)
    with pytest.raises(RenderFolderError, match="The output must be a new or empty folder"):
        render_dataset(clone, 1, 1, tmp_path / "b", size=64)
    with pytest.raises(ValueError, match="`count` must be at least 1, got 0"):
        render_dataset(clone, 0, 1, tmp_path / "c")


def test_errors_are_one_line(tmp_path):
    with pytest.raises(FaceModelError) as caught:
        load_face_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_poses_reach_the_limits_and_are_mostly_frontal():
    yaw, pitch, _ = np.rad2deg([sample_pose(np.random.default_rng(seed)) for seed in range(4000)]).T
    assert 40 < np.abs(yaw).max() <= 45
    assert 26 < np.abs(pitch).max() <= 30
    assert np.mean(np.abs(yaw) < 15) > 0.6
    assert np.mean(np.abs(yaw) > 44) < 0.01, "nothing piles up at the limit"


def test_a_fifth_of_the_faces_is_neutral_and_all_levels_occur():
    levels = np.array([sample_intensities(np.random.default_rng(seed)) for seed in range(3000)])
    assert (levels < 1).all(1).mean() > 0.2
    assert np.histogram(levels[levels >= 1], [1, 2, 3, 4, 5.01])[0].min() > 0.1 * (levels >= 1).sum()
    assert ((levels > 0) & (levels < 1)).mean() > 0.03


def test_compound_expressions_use_units_as_often_as_published():
    drawn = [sample_units(np.random.default_rng(seed), "compound") for seed in range(6000)]
    expected = dict.fromkeys(ACTION_UNITS, 0.0)
    for common, rarer in COMPOUND_EXPRESSIONS:
        for number, share in {**dict.fromkeys(common, 0.85), **rarer}.items():
            expected[number] += share / len(COMPOUND_EXPRESSIONS)
    for number in (1, 4, 10, 12, 17, 25):
        assert np.mean([number in units for units in drawn]) == pytest.approx(expected[number], abs=0.03)
    both = np.mean([{1, 2} <= units for units in drawn])
    alone = [np.mean([number in units for units in drawn]) for number in (1, 2)]
    assert both > 1.5 * alone[0] * alone[1], "units that go together must be drawn together"


def test_shifted_scenes_share_nothing_with_standard_ones():
    standard = many(200)
    shifted = [sample_scene(3, index, index // 4, style="shifted") for index in range(200)]
    assert same(shifted[7], sample_scene(3, 7, 1, style="shifted"))
    for read in (
        lambda scene: scene.light.kind,
        lambda scene: scene.identity.wrinkle_pattern,
        lambda scene: scene.identity.shape.tobytes(),
        lambda scene: scene.occluder or None,
        lambda scene: scene.camera.enlarging if scene.camera.source_side else None,
        lambda scene: 35 <= scene.camera.distance <= 300,
    ):
        first, second = ({read(scene) for scene in scenes} - {None} for scenes in (standard, shifted))
        assert first
        assert second
        assert not first & second
    with pytest.raises(ValueError, match="`style` must be one of standard, shifted, got 'odd'"):
        sample_scene(0, 0, 0, style="odd")
    with pytest.raises(ValueError, match="`style` must be one of standard, shifted, got 'odd'"):
        RenderPlan(0, 64, 1, None, 0, "odd")
    assert RenderPlan(4, 64, 1, None, 0, "shifted").subject(7) != RenderPlan(4, 64, 1, None, 0).subject(7)


def test_a_folded_lamp_lights_what_faces_it():
    direction = np.array([0.6, 0.0, 0.8])
    field = lighting.lamp_field(direction, np.ones(3))[:, 0]
    normals = np.random.default_rng(0).normal(size=(500, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    got, exact = lighting.harmonics(normals) @ field, np.maximum(normals @ direction, 0)
    assert np.abs(got - exact).max() < 0.1  # the truth, up to what order 2 can follow
    assert np.abs(got - exact).mean() < 0.04


def test_every_light_is_exposed_for_the_face_and_kinds_differ():
    lights = [lighting.sample_light(np.random.default_rng(seed)) for seed in range(400)]
    assert {light.kind for light in lights} == set(lighting.LIGHT_KINDS)
    lit = np.array(
        [
            (np.maximum(light.directions[:, 2], 0) @ light.colors + light.ambient[[0, 3]].sum(0)).mean()
            for light in lights
        ]
    )
    assert 0.4 < np.median(lit) < 1.4
    tops = [light for light in lights if light.kind == "top"]
    assert all(light.directions[light.colors.sum(1).argmax(), 1] > 0.8 for light in tops)


def test_the_camera_does_what_it_says():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = np.repeat(np.repeat(image[::8, ::8], 8, 0), 8, 1)

    def taken(**settings):
        return develop(image, Camera(**settings), np.random.default_rng(1), 64).astype(float)

    assert np.array_equal(taken(), image)
    detail = [np.square(np.diff(taken(**settings), axis=1)).mean() for settings in (
        {}, {"blur": 0.02}, {"blur": 0.03, "disk": True}, {"motion": (0.06, 0.0)}, {"source_side": 16.0},
    )]  # fmt: skip
    assert all(blurred < 0.9 * detail[0] for blurred in detail[1:])
    assert (taken(clip=1.5) == 255).mean() > 2 * (taken() == 255).mean() + 0.1
    assert np.ptp(taken(saturation=0.0), axis=2).max() == 0
    assert taken(lift=40.0).min() >= 40
    assert 3 < np.abs(taken(noise=8.0) - image).mean() < 16
    assert taken(blur=0.03, sharpening=(1.5, 1.5)).std() > taken(blur=0.03).std()
    fine = np.clip(128 + np.random.default_rng(2).normal(0, 8, (64, 64, 3)), 0, 255).astype(np.uint8)
    assert develop(fine, Camera(smoothing=1.0), np.random.default_rng(1), 64).std() < 0.7 * fine.std()
    for codec in ("jpeg", "webp"):
        errors = [np.abs(taken(codec=codec, quality=quality) - image).mean() for quality in (95, 20)]
        assert 0 < errors[0] < errors[1]


def test_point_errors_follow_pose_and_size_and_have_heavy_tails():
    def drawn(*condition):
        rng = np.random.default_rng(0)
        return np.array([point_errors.sample_point_errors(rng, *condition) for _ in range(3000)])

    near, turned, mirrored, small = drawn(0, 0, 160), drawn(0.7, 0, 160), drawn(-0.7, 0, 160), drawn(0, 0, 26)
    assert small.std(0).mean() > near.std(0).mean()
    assert turned.std(0).mean() > near.std(0).mean()
    # A head turned the other way errs as its mirror image, with the sides swapped.
    np.testing.assert_allclose(np.median(turned, 0), np.median(mirrored, 0)[[1, 0, 2, 4, 3]] * [-1, 1], atol=0.02)
    spread = near[:, 2, 0] - near[:, 2, 0].mean()
    assert (spread**4).mean() > 3.3 * (spread**2).mean() ** 2


def test_descriptions_tell_the_scene():
    scenes = many(300)
    facts = [describe_scene(scene, 128) for scene in scenes]
    angles = [fact.skin_ita for fact in facts]
    tones = [float(scene.identity.skin.tone.mean()) for scene in scenes]
    assert np.argmax(angles) in np.flatnonzero(np.array(tones) > np.median(tones))
    assert max(angles) > 50 > -30 > min(angles)
    assert all(fact.glasses == scene.wears_glasses for fact, scene in zip(facts, scenes, strict=True))
    assert min(fact.face_pixels for fact in facts) < 45
    assert max(fact.face_pixels for fact in facts) == pytest.approx(128 * 0.76)
    assert 0.05 < np.mean([fact.hair_over_brows for fact in facts]) < 0.5
    sides = [np.mean([f.light_hardness for f in facts if f.light == kind]) for kind in ("side", "overcast")]
    assert sides[0] > sides[1] + 0.2


def test_people_differ_in_what_mimics_action_units():
    people = [sample_identity(0, number) for number in range(400)]
    brows = np.array([[person.brows.height, person.brows.arch, person.brows.thickness] for person in people])
    assert (np.ptp(brows, axis=0) > [0.02, 0.01, 0.02]).all()
    resting = np.array([person.resting for person in people])
    assert (np.abs(resting) < 0.5).all()
    assert (np.abs(resting[:, EXPRESSION_SHAPES.index("browDown_L")]) > 0.1).mean() > 0.3
    deep = np.array([(person.permanent_wrinkles.mean(1) > 0.35) for person in people])
    crows_feet, glabella = (WRINKLES.index(name) for name in ("crows_feet", "glabella"))
    assert 0.05 < deep[:, crows_feet].mean() < 0.5
    assert 0.05 < deep[:, glabella].mean() < 0.5
    lids = [person.eyes for person in people]
    assert 0.1 < np.mean([eyes.shadow_opacity > 0 for eyes in lids]) < 0.5


def test_two_of_three_smiles_raise_the_cheeks():
    rng = np.random.default_rng(5)
    smile, cheeks = (ACTION_UNITS.index(number) for number in (12, 6))
    drawn = np.array([sample_intensities(rng) for _ in range(4000)]) >= 1
    assert 0.6 < drawn[drawn[:, smile], cheeks].mean() < 0.75
    assert drawn[drawn[:, cheeks], smile].mean() < 0.8  # AU06 is seen without a smile, too


def panorama(folder, name, paint):
    """Write a Radiance file of gray surroundings that `paint` changes in place, (64, 128, 3) RGB."""
    pixels = np.full((64, 128, 3), 0.5, np.float32)
    paint(pixels)
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), pixels[..., ::-1])


def test_a_panorama_lights_from_where_it_is_bright(tmp_path):
    def sun(pixels):
        pixels[15:18, 94:97] = 500  # a quarter turn to the image's right of the middle, 45° up

    panorama(tmp_path, "sun.hdr", sun)
    environments = read_environments(tmp_path)
    heights, turns = [], []
    for seed in range(8):
        light, backdrop = environments.sample(np.random.default_rng(seed))
        strongest = light.directions[light.colors.mean(1).argmax()]
        heights.append(np.rad2deg(np.arcsin(strongest[1])))
        turns.append(np.arctan2(strongest[0], strongest[2]))
        assert light.kind == "panorama" and backdrop.shape == (96, 96, 3)
        assert light.ambient[0].mean() > 0.1
    assert np.allclose(heights, 45, atol=4)
    assert np.ptp(turns) > 1  # turned anyhow


def test_even_surroundings_light_evenly(tmp_path):
    panorama(tmp_path, "even.hdr", lambda pixels: None)
    light, _ = read_environments(tmp_path).sample(np.random.default_rng(0))
    assert light.colors.max() == 0
    seen = harmonics(np.eye(3)) @ light.ambient
    assert np.ptp(seen) < 0.02 * seen.mean()


def test_panoramas_light_half_of_the_images_and_draw_no_other_people(tmp_path):
    panorama(tmp_path, "even.hdr", lambda pixels: None)
    environments = read_environments(tmp_path)
    lit = [sample_scene(3, index, 1, environments=environments) for index in range(200)]
    assert 70 < sum(scene.light.kind == "panorama" for scene in lit) < 130
    assert all((scene.backdrop is not None) == (scene.light.kind == "panorama") for scene in lit)
    plain = sample_scene(3, 5, 1)
    assert same(plain.identity, lit[5].identity) and np.array_equal(plain.shape_weights, lit[5].shape_weights)
    assert sample_scene(3, 5, 1, style="shifted", environments=environments).backdrop is None


def test_a_folder_without_panoramas_is_refused(tmp_path):
    with pytest.raises(EnvironmentsError, match=r"Cannot find a panorama in .* it has no \*.hdr file"):
        read_environments(tmp_path)
    (tmp_path / "a.hdr").write_bytes(b"no picture")
    with pytest.raises(EnvironmentsError, match=r"Cannot read the panorama .*a.hdr': it must be a Radiance file"):
        read_environments(tmp_path)
