"""`hf-geaau evidence` on drawn faces and a public photo: what is measured, written, and refused."""

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from hf_geaau.data import write_example
from hf_geaau.errors import EvaluationError, MissingExtraError
from hf_geaau.evaluation import (
    LabeledFace,
    Predictions,
    RenderedSet,
    calibration_curve,
    evidence_page,
    failures_of,
    false_alarms,
    find_faces,
    gap_error,
    gather_evidence,
    groups,
    read_labels,
    read_traits,
    score_columns,
    steadiness,
    widest_gaps,
)
from hf_geaau.faces import Face
from hf_geaau.inference import ModelFacts, Prediction, Runner
from hf_geaau.metrics import au_auc, expected_calibration_error
from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE
from hf_geaau_cli import app

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.mediapipe_blendshapes import STANDS_FOR, compare, open_landmarker


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    """Two drawn sets; of the first the renderer has noted things."""
    folder = tmp_path_factory.mktemp("renders")
    for name, people in (("test", 10), ("unseen", 3)):
        write_example("synthetic", folder / name, identities=people, frames=12, size=64)
    path = folder / "test" / "labels.parquet"
    table = pq.read_table(path).to_pylist()
    rng = np.random.default_rng(0)
    for place, row in enumerate(table):
        row |= {
            "yaw": float(rng.uniform(-0.4, 0.4)),
            "hair": float(place),
            "skin_ita": float(place - 60),
            "occluder": "mug" if place % 2 else "",
            "age": place / 120,
            "feminine": float(place % 4 == 0),
            "blur": max(0.0, place - 79.0),
        }
        row |= {"person": row["subject_id"] + str(place), "has_glasses": place < 110}
    rng.shuffle(table)  # what is noted must follow its face, not its place
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(table), path)
    return folder


def labeled(tmp_path, portrait, **more):
    photo, points = portrait
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "portrait.png")
    entry = {"source": "PyPI scikit-image", "file": "portrait.png", "points": points, "labels": {"AU12": 1, "AU01": 0}}
    calm = {**entry, "labels": {"AU12": 0}, "neutral": True}  # a stand-in: the labels are not what is tested here
    away = {**entry, "points": (np.array(points) + 300).tolist()}
    (tmp_path / "labels.json").write_text(
        json.dumps({"faces": [entry, calm, away, {**entry, "file": "missing.png"}], **more})
    )
    return {"photos": tmp_path / "photos", "photo_labels": tmp_path / "labels.json"}


@pytest.mark.slow
def test_everything_is_measured_and_written(renders, tiny_checkpoint, tmp_path, portrait):
    found = gather_evidence(
        tiny_checkpoint, renders=renders, **labeled(tmp_path, portrait), limit=30, device="cpu", batch_size=16
    )
    assert json.loads((tiny_checkpoint / "evidence.json").read_text()) == found
    test = found["rendered"]["test"]
    assert set(test["action_units"]) == {"AU01", "AU12", "AU25"}
    assert test["frames"] == 120
    assert found["rendered"]["unseen"]["subjects"] == 3
    assert 0 <= test["action_units"]["AU12"]["expected_calibration_error"] <= 1
    assert test["steadiness"]["faces"] == 30
    assert all(0 <= test["steadiness"][kind]["AU12"] < 0.5 for kind in ("mirrored", "point_noise"))
    assert set(test["groups"]) == {
        "head turned, degrees",
        "skin tone, typology angle",
        "hair",
        "occluder",
        "has glasses",
        "drawn age, years",
        "sex-typed looks",
        "blur",
    }
    assert list(test["groups"]["skin tone, typology angle"]) == [
        "-90 to -30, dark",
        "-30 to 10, brown",
        "10 to 28, tan",
        "28 to 41, intermediate",
        "41 to 55, light",
        "55 to 90, very light",
    ]
    assert {group: row["faces"] for group, row in test["groups"]["occluder"].items()} == {"mug": 60, "none": 60}
    assert [(group, row["faces"]) for group, row in test["groups"]["drawn age, years"].items()] == [
        ("20 to 35", 31), ("35 to 50", 30), ("50 to 65", 30), ("65 to 80", 29),
    ]  # fmt: skip
    assert [(group, row["faces"]) for group, row in test["groups"]["sex-typed looks"].items()] == [
        ("feminine", 30), ("masculine", 90),
    ]  # fmt: skip
    blur = test["groups"]["blur"]
    assert (blur.pop("0")["faces"], [row["faces"] for row in blur.values()]) == (80, [10] * 4)  # no blur is a group
    assert test["gaps"] == []  # no two groups are large enough
    assert sum(row["faces"] for row in test["groups"]["head turned, degrees"].values()) == 120
    assert found["rendered"]["unseen"]["groups"] == {}

    photos = found["photos"]
    assert (photos["faces"], photos["found"], photos["neutral_faces"]) == (4, 2, 1)
    assert photos["labelled"] == {"AU01": [0, 1], "AU12": [1, 1], "AU25": [0, 0]}
    assert photos["auc"]["AU12"] == 0.5  # the same face twice
    assert photos["auc"]["AU01"] is None
    assert len(photos["problems"]) == 1
    assert photos["median_point_error"] < 0.2

    page = (tiny_checkpoint / "evidence.md").read_text()
    assert "The detector finds 2 of 4 faces." in page
    assert "Photos from: PyPI scikit-image." in page
    for name in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert Image.open(tiny_checkpoint / name).width > 150
    assert "failures.jpg" in page
    assert "calibration.png" in page
    assert "nan" not in page.lower()
    assert "| skin tone, typology angle: -90 to -30, dark | 31 |" in page
    assert "| 1, portrait.png |" in page


def test_steadiness_tells_what_moves_a_probability(monkeypatch):
    """A stand-in for the network that looks at the left half of the crops."""

    class LeftHalf(Runner):
        facts = ModelFacts("", ("AU01",), np.float32([0.5]), (32, 32), np.array(CROP_TEMPLATE), False, False)

        def __call__(self, crops):
            return Prediction(probabilities=crops[:, :, :16].mean((1, 2, 3))[:, None] / 255)

    runner = LeftHalf()
    smooth = np.broadcast_to(np.linspace(0, 250, 64).astype(np.uint8)[None, :, None], (64, 64, 3))
    lopsided, even = Image.fromarray(smooth.copy()), Image.new("RGB", (64, 64), (90, 90, 90))
    measured = steadiness(runner, [lopsided, even])
    assert measured["mirrored"]["AU01"] > 0.2
    assert 0 < measured["point_noise"]["AU01"] < measured["mirrored"]["AU01"]
    assert steadiness(runner, [even])["mirrored"] == {"AU01": 0.0, "mean": 0.0}
    monkeypatch.setattr(groups, "POINT_NOISE", 0.0)
    assert steadiness(runner, [lopsided])["point_noise"]["AU01"] < 0.01  # exact points change nothing


@pytest.mark.slow
def test_the_command(renders, tiny_checkpoint, tmp_path):
    command = ["evidence", str(tiny_checkpoint), "--renders", str(renders), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--limit", "8", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "test: 120 faces" in done.output
    assert (tmp_path / "out" / "evidence.md").is_file()
    assert not (tiny_checkpoint / "evidence.md").exists()


def test_what_cannot_be_measured_is_one_line(renders, tiny_checkpoint, tmp_path, portrait):
    for message, model, arguments in (
        ("There is nothing to measure on. Pass `renders`, or `photos`", tiny_checkpoint, {}),
        ("belong together, got only one of them", tiny_checkpoint, {"photos": tmp_path}),
        ("`renders` must hold the folder test or unseen, got", tiny_checkpoint, {"renders": tmp_path}),
        ("`limit` must be at least 1, got 0", tiny_checkpoint, {"renders": renders, "limit": 0}),
        ("`output` is needed, because the checkpoint is no folder of yours", None, {"renders": renders}),
    ):  # fmt: skip
        with pytest.raises(EvaluationError, match=message) as error:
            gather_evidence(model, **arguments)
        assert "\n" not in str(error.value)


def test_the_comparison_needs_mediapipe_and_its_file(tmp_path):
    with pytest.raises(EvaluationError, match="There is no file '.*no.task', .* Fetch it from"):
        open_landmarker(tmp_path / "no.task").__enter__()
    (tmp_path / "face_landmarker.task").write_bytes(b"")
    if "mediapipe" not in sys.modules:
        with pytest.raises(MissingExtraError, match="needs the package mediapipe. Install it"):
            open_landmarker(tmp_path / "face_landmarker.task").__enter__()


def test_a_page_of_earlier_evidence_keeps_the_comparison():
    scores = {"faces": 4, "found": 3, "ours": {"AU12": 0.5}, "mediapipe": {"AU12": 1.0}}
    photos = {"faces": 4, "found": 0, "problems": [], "mediapipe": scores}
    page = evidence_page({"rendered": {}, "photos": photos})
    assert "### Beside MediaPipe's blendshapes" in page
    assert "| AU12 | 0.500 | 1.000 |" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no", "Cannot read labels of photos from .*JSONDecodeError"),
        ('{"faces": [{"file": "a.png", "labels": {}}]}', "KeyError 'points'"),
        ('{"faces": []}', "labels no face. Add at least one"),
        ('[{"file": 1, "points": [[0,0],[1,0],[0,1],[0,2],[1,NaN]], "labels": {}}]', "points must be finite"),
        pytest.param("[" * 100_000, "it is nested too deeply", id="deep"),
        ('[{"file": "a", "points": [[0,0],[1,0],[0,1],[0,2],[1,2]], "labels": {"AU12": 2}}]', "got AU12=2 for 'a'"),
        ('[{"file": "a", "points": [[0,0],[1,0],[0,1],[0,2],[1,2]], "labels": {"AU1": 1}}]', "such as AU01.*got AU1=1"),
    ],
)
def test_wrong_labels_are_one_line(content, message, tmp_path):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(EvaluationError, match=message) as error:
        read_labels(tmp_path / "labels.json")
    assert "\n" not in str(error.value)


def test_the_nearest_face_is_taken(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "two.png")
    points = np.float32([[0, 0], [20, 0], [10, 10], [3, 20], [17, 20]])
    seen = [
        Face(np.zeros(4, np.float32), 1.0, points + shift) for shift in (np.float32([100, 40]), np.float32([12, 40]))
    ]
    faces = [LabeledFace("two.png", "", points.astype(float) + shift, {}) for shift in ([10, 38], [101, 41], [50, 40])]
    assert find_faces(faces, tmp_path, lambda photo: seen) == []
    assert faces[0].detected is seen[1].points
    assert faces[1].detected is seen[0].points
    assert faces[2].detected is None


def test_groups_follow_their_faces(renders):
    class Rows(dict):
        pass

    table = pq.read_table(renders / "test" / "labels.parquet").to_pydict()
    order = np.random.default_rng(1).permutation(120)
    rows = Rows({key: [table[key][place] for place in order] for key in ("subject_id", "frame")})
    groups = read_traits(renders / "test", rows)
    assert groups["occluder"].tolist() == [table["occluder"][place] or "none" for place in order]
    for title, name in (("hair", "hair"), ("skin tone, typology angle", "skin_ita")):
        values = np.array(table[name])[order]
        for group in np.unique(groups[title]):
            low, high = map(float, group.partition(",")[0].split(" to "))
            assert (values[groups[title] == group] >= low - 0.5).all()
            assert (values[groups[title] == group] <= high + 0.5).all()


def test_the_largest_gap_is_among_groups_that_are_large_enough():
    row = lambda faces, auc: {"faces": faces, "f1": 0.5, "auc": auc}  # noqa: E731
    groups = {
        "pose": {"0-10": row(500, 0.9), "10-20": row(300, 0.8), "over 40": row(20, 0.4)},
        "light": {"soft": row(400, 0.9), "hard": row(400, 0.85)},
    }
    gaps = widest_gaps(groups)
    assert [(gap["trait"], gap["worst"], gap["best"], gap["gap"]) for gap in gaps] == [
        ("pose", "10-20", "0-10", 0.1),
        ("light", "hard", "soft", 0.05),
    ]
    assert widest_gaps({"pose": {"0-10": row(50, 0.9)}}) == []


def faces_of(labels, probabilities, people, **traits):
    labels, chances = (np.asarray(values, np.float32) for values in (labels, probabilities))
    strength = np.zeros((len(labels), 18), np.float32)
    found = Predictions(chances, chances, None, labels, strength, np.array(people), np.arange(len(labels)))
    names = ["AU01", "AU12"][: labels.shape[1]]
    return RenderedSet("test", None, found, labels, chances, names, {name: np.array(of) for name, of in traits.items()})


def test_the_error_of_a_gap_is_by_people_not_by_faces():
    rng = np.random.default_rng(0)
    labels, glasses = np.arange(120)[:, None] % 2, np.where(np.arange(120) < 60, "yes", "no")
    chances, people = 0.4 * labels + 0.6 * rng.random((120, 1)), np.arange(120)
    gap = {"trait": "glasses", "best": "yes", "worst": "no"}
    once = gap_error(faces_of(labels, chances, people, glasses=glasses), gap)
    assert 0.01 < once < 0.15
    again = [np.repeat(values, 4, axis=0) for values in (labels, chances, people, glasses)]
    assert gap_error(faces_of(*again[:3], glasses=again[3]), gap) == once  # more of the same tells no more
    others = [*again[:2], np.arange(480)]
    assert gap_error(faces_of(*others, glasses=again[3]), gap) < 0.7 * once


def test_failures_are_on_the_wrong_side_of_the_threshold_and_the_worst_come_first():
    labels = [[1, 1], [1, 0], [1, -1], [0, 0], [0, 1], [0, 0]]
    chances = [[0.3, 0.9], [0.1, 0.2], [0.6, 0.0], [0.4, 0.1], [0.7, 0.8], [0.9, 0.2]]
    found = failures_of(faces_of(labels, chances, list("aabbcc")), np.float32([0.5, 0.5]))
    assert list(found) == [0, 1]  # the weakest first
    assert found[0] == {"missed": [1, 0], "falsely seen": [5, 4]}
    assert found[1] == {"missed": [], "falsely seen": []}


def test_curve_and_error_agree():
    rng = np.random.default_rng(0)
    chances = rng.random((500, 2)).astype(np.float32)
    labels = (rng.random((500, 2)) < chances**2).astype(np.float32)
    labels[:50, 0] = -1
    curves = calibration_curve(labels, chances, ["AU01", "AU12"])
    assert sum(curves["AU01"]["faces"]) == 450
    assert sum(curves["all"]["faces"]) == 950
    for place, name in enumerate(("AU01", "AU12")):
        curve = {key: np.array(values) for key, values in curves[name].items()}
        gap = np.abs(curve["predicted"] - curve["observed"]) @ curve["faces"] / curve["faces"].sum()
        expected = expected_calibration_error(labels[:, [place]], chances[:, [place]], bins=10)
        assert gap == pytest.approx(expected["mean"]["expected_calibration_error"], abs=1e-3)


def test_scores_of_any_scale_have_an_auc():
    labels = np.float32([[1, 1], [0, 1], [1, -1], [0, 1]])
    scores = np.array([[3.0, 0], [-2.0, 0], [0.5, 0], [0.5, 0]])
    found = score_columns(["AU01", "AU12"], labels, scores)
    chances = np.float32([[0.9], [0.1], [0.4], [0.4]])
    assert found["AU01"] == pytest.approx(au_auc(labels[:, :1], chances)["auc"][0])
    assert found["AU12"] is None
    assert found["mean"] == found["AU01"]


def test_blendshapes_are_compared_on_the_faces_that_mediapipe_finds(tmp_path, monkeypatch):
    """A stand-in for the package, because it is no dependency."""
    names = {name.removeprefix("-") for recipes in STANDS_FOR.values() for recipe in recipes for name in recipe}
    shown = []

    class Landmarker:
        def __enter__(self):
            return self

        def __exit__(self, *problem):
            return None

        def detect(self, picture):
            shown.append(picture)
            grey = float(picture.mean())
            shapes = [types.SimpleNamespace(category_name=name, score=grey / 255) for name in names]
            return types.SimpleNamespace(face_blendshapes=[shapes] if grey > 20 else [])

    vision = types.SimpleNamespace(
        FaceLandmarkerOptions=lambda **options: options,
        FaceLandmarker=types.SimpleNamespace(create_from_options=lambda options: Landmarker()),
    )
    package = types.ModuleType("mediapipe")
    package.Image, package.ImageFormat = lambda image_format, data: data, types.SimpleNamespace(SRGB=1)
    tasks = types.ModuleType("mediapipe.tasks.python")
    tasks.BaseOptions, tasks.vision = lambda **options: options, vision
    for name, module in (("mediapipe", package), ("mediapipe.tasks", types.ModuleType("t")), (tasks.__name__, tasks)):
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "face_landmarker.task").write_bytes(b"")
    points = np.array([[40, 40], [60, 40], [50, 50], [43, 60], [57, 60]])
    pictures = [(np.full((100, 100, 3), grey, np.uint8), points) for grey in (0, 50, 150, 250)]
    labels = np.float32([[1, 1], [0, 1], [0, 0], [1, 0]])
    ours = np.array([[0.5, 0.5], [0.9, 0.9], [0.1, 0.1], [0.2, 0.2]])
    with open_landmarker(tmp_path / "face_landmarker.task") as find:
        found = compare(find, ["AU12", "AU01"], labels, ours, pictures)
    assert (found["faces"], found["found"]) == (4, 3)  # not the black one
    assert found["mediapipe"] == {"AU12": 1.0, "AU01": 0.0, "mean": 0.5}
    assert found["ours"] == {"AU12": 0.5, "AU01": 1.0, "mean": 0.75}
    assert shown[0].shape == (512, 512, 3)
    assert len(shown) == 6  # three sizes of the black one


def test_alarms_count_where_a_neutral_face_is_labelled_as_absent():
    labels = np.array([[0, 1], [0, 0], [0, -1], [-1, -1], [0, 0]], np.float32)
    said = np.array([[1, 1], [0, 0], [0, 1], [0, 1], [1, 1]], bool)
    neutral = np.array([True, True, True, True, False])  # the fourth is called neutral without any label
    assert false_alarms(said, labels, neutral).tolist() == [0.25, 0.5]
    assert np.isnan(false_alarms(said, labels, np.zeros(5, bool))).all()
