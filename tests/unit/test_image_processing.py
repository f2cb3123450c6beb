import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from hf_geaau import GeaauImageProcessor, GeaauImageProcessorPil
from hf_geaau.hub import export_remote_code
from hf_geaau.models.geaau.cropping_geaau import similarity_transform

BACKENDS = [GeaauImageProcessor, GeaauImageProcessorPil]
SIZE = {"height": 112, "width": 112}
RAW = {"size": SIZE, "do_rescale": False, "do_normalize": False}


def texture(height: int = 300, width: int = 400) -> np.ndarray:
    """A smooth coloured picture without symmetry."""
    y, x = np.mgrid[:height, :width] / 40
    waves = [np.sin(x + 0.3 * y), np.sin(0.7 * y - 0.2 * x + 1), np.cos(0.5 * x * y / 5)]
    return ((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8)


def face(center=(200, 150), eyes=60.0, degrees=0.0) -> np.ndarray:
    """Five points of an upright face, turned by an angle, around a centre."""
    template = (np.array(GeaauImageProcessor.crop_template) - 0.5) * eyes / 0.32
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return template @ turn.T + center


@pytest.mark.parametrize("degrees", [-170, -45, 0, 30, 90])
def test_similarity_transform_recovers_rotation_scale_and_shift(degrees):
    source = face()
    matrix = similarity_transform(source, face((10, 20), 90, degrees))
    np.testing.assert_allclose(source @ matrix[:, :2].T + matrix[:, 2], face((10, 20), 90, degrees), atol=1e-9)
    assert np.sqrt(np.linalg.det(matrix[:, :2])) == pytest.approx(1.5)


def test_similarity_transform_is_the_least_squares_fit():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    ones, zeros = np.ones(5), np.zeros(5)
    x, y = source.T
    design = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, c, d = np.linalg.lstsq(design, target.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity_transform(source, target), [[a, -b, c], [b, a, d]], atol=1e-12)


def test_similarity_transform_takes_a_batch():
    sources = np.stack([face(), face((50, 60), 20, 40)])
    batch = similarity_transform(sources, face())
    for source, matrix in zip(sources, batch, strict=True):
        np.testing.assert_allclose(matrix, similarity_transform(source, face()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("eyes", "degrees"), [(12.0, 0), (35.84, 0), (60.0, -45), (60.0, 100), (150.0, 20)])
def test_the_crop_shows_what_the_points_frame(backend, eyes, degrees):
    """Compare with the exact picture function, sampled where the matrix says."""
    height, width = 900, 1200
    points = face((600, 450), eyes, degrees)
    y, x = np.mgrid[:height, :width] + 0.5
    photo = np.stack([x / width, y / height, (x + y) / (width + height)], -1)
    processor = backend(**RAW)
    crop = np.asarray(processor((photo * 255).round().astype(np.uint8), points=points).pixel_values[0], float)
    matrix = processor.crop_matrices(points)
    row, column = np.mgrid[:112, :112] + 0.5
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    px, py = np.einsum("ij,jhw->ihw", inverse[:2], np.stack([column, row, np.ones_like(row)]))
    expected = np.stack([px / width, py / height, (px + py) / (width + height)]) * 255
    assert np.abs(crop - expected).max() < 1.6  # 8-bit steps of the photo, the filters and the crop


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.7, 6.0])
def test_backends_agree_within_one_grey_level(scale):
    photo = Image.fromarray(texture()).resize((round(400 * scale), round(300 * scale)), Image.Resampling.BICUBIC)
    points = [face(degrees=20) * scale, face((30, 280)) * scale]  # the second reaches over the edge
    crops = [np.asarray(backend(**RAW)(photo, points=np.stack(points)).pixel_values, int) for backend in BACKENDS]
    assert np.abs(crops[0] - crops[1]).max() <= 1
    resized = [np.asarray(backend(**RAW)(photo).pixel_values, int) for backend in BACKENDS]
    assert np.abs(resized[0] - resized[1]).max() <= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_aligned_crop_is_only_resized(backend):
    crop = texture(112, 112)
    result = backend(**RAW)(crop).pixel_values[0]
    np.testing.assert_array_equal(np.asarray(result), np.moveaxis(crop, -1, 0))
    normalised = backend(size=SIZE)(crop, return_tensors="pt").pixel_values
    assert normalised.shape == (1, 3, 112, 112)
    torch.testing.assert_close(normalised[0], torch.from_numpy(np.moveaxis(crop, -1, 0) / 127.5 - 1).float())


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_photos_many_faces_in_order(backend):
    photos = [texture(), texture(200, 250)]
    points = [np.stack([face(), face((100, 100), 30)]), face((120, 90), 30)[None]]
    batch = np.asarray(backend(**RAW)(photos, points=points).pixel_values)
    assert batch.shape == (3, 3, 112, 112)
    for crop, photo, one in zip(batch, [photos[0], photos[0], photos[1]], [*points[0], points[1][0]], strict=True):
        np.testing.assert_array_equal(crop, np.asarray(backend(**RAW)(photo, points=one).pixel_values[0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_of_every_kind_give_the_same_crop(backend):
    photo = texture()
    reference = np.asarray(backend(**RAW)(photo, points=face()).pixel_values[0])
    rotated = Image.fromarray(np.rot90(photo).copy())
    rotated.getexif()[0x0112] = 6  # "turn by 90° clockwise to view"
    for same in (
        Image.fromarray(photo),
        rotated,
        photo / 255,
        torch.from_numpy(photo).permute(2, 0, 1),
        np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]),
    ):
        crop = np.asarray(backend(**RAW)(same, points=face()).pixel_values[0])
        assert np.abs(crop.astype(int) - reference).max() <= 1
    grey = np.asarray(backend(**RAW)(photo[..., :1], points=face()).pixel_values[0])
    assert grey.shape == (3, 112, 112)


@pytest.mark.parametrize("name", ["torchvision", "pil"])
def test_the_crop_travels_with_the_checkpoint(name, tiny_checkpoint):
    template = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]]
    GeaauImageProcessor(size=SIZE, crop_template=template).save_pretrained(tiny_checkpoint)
    processor = AutoImageProcessor.from_pretrained(tiny_checkpoint, backend=name)
    assert type(processor) is {"torchvision": GeaauImageProcessor, "pil": GeaauImageProcessorPil}[name]
    assert processor.crop_template == template
    moved = np.asarray(template) * 112
    matrix = processor.crop_matrices(face())
    np.testing.assert_allclose((face() @ matrix[:, :2].T + matrix[:, 2]).mean(0), moved.mean(0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((4, 2)), r"shape \(5, 2\)"),
        (face() * np.nan, "must be finite"),
        (face() + 1000, r"must lie in the photo, 400×300 pixels, got a face around \(1200, 11"),
        (np.full((5, 2), 50.0), "on one line or spot"),
        (face()[[1, 0, 2, 4, 3]], "left and right swapped"),
        ([face(), face(), face()], "one entry per photo"),
    ],
)
def test_bad_points_are_named(backend, points, message):
    photos = [texture()] * 2 if isinstance(points, list) else texture()
    with pytest.raises(ValueError, match=message):
        backend(**RAW)(photos, points=points)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((40, 40, 3), np.nan), "got NaN"),
        (np.full((40, 40, 3), 200.0), r"must lie in \[0, 1\], got values from 200 to 200"),
        (np.zeros((40, 40, 5), np.uint8), r"1, 3 or 4 channels, got an array of shape \(40, 40, 5\)"),
        (np.zeros((40, 40, 3), np.int64), "must be uint8 or float"),
    ],
)
def test_bad_images_are_named(backend, image, message):
    with pytest.raises(ValueError, match=message):
        backend(**RAW)(image)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="crop_templat"):
        GeaauImageProcessor(size=SIZE)(texture(), crop_templat=[])


def test_outputs_become_action_units(tiny_model):
    tiny_model.config.thresholds, tiny_model.config.temperature = [0.2, 0.5, 0.99], 2.0
    with torch.no_grad():
        outputs = tiny_model(torch.zeros(2, 3, 64, 64))
    assert outputs.temperature.tolist() == [[2.0], [2.0]]
    assert outputs.thresholds.shape == (2, 3)
    faces = GeaauImageProcessor().post_process_action_units(outputs)
    assert len(faces) == 2
    for face, logits in zip(faces, outputs.logits, strict=True):
        assert torch.equal(face["probabilities"], (logits / 2).sigmoid())
        assert torch.equal(face["present"], face["probabilities"] >= torch.tensor([0.2, 0.5, 0.99]))
        assert "intensities" not in face


def test_thresholds_of_the_caller_win(tiny_model):
    with torch.no_grad():
        outputs = tiny_model(torch.zeros(1, 3, 64, 64))
    processor = GeaauImageProcessor()
    assert processor.post_process_action_units(outputs, thresholds=0.0)[0]["present"].all()
    assert not processor.post_process_action_units(outputs, thresholds=[1.0, 1.0, 1.0])[0]["present"].any()
    with pytest.raises(ValueError, match="`thresholds` must be one number or 3, one per AU, got 2"):
        processor.post_process_action_units(outputs, thresholds=[0.1, 0.2])


@pytest.mark.slow
def test_remote_code_needs_no_torchvision_for_the_pil_backend(tiny_checkpoint, tmp_path):
    export_remote_code(tiny_checkpoint)
    code = f"""
import sys
sys.modules["torchvision"] = None
import numpy as np
from transformers import AutoImageProcessor
processor = AutoImageProcessor.from_pretrained({str(tiny_checkpoint)!r}, trust_remote_code=True)
print(type(processor).__name__, processor(np.zeros((64, 64, 3), np.uint8)).pixel_values[0].shape)
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.split(maxsplit=1)[0] == "GeaauImageProcessorPil", result.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_none_switches_a_step_off_as_false_does(backend):
    photo = np.zeros((90, 120, 3), np.uint8)
    assert backend(**{**RAW, "do_resize": None})(photo, aligned=True).pixel_values[0].shape == (3, 90, 120)
