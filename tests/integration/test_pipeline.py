"""The pipeline on real input: a saved checkpoint, a public portrait, and everything that can be wrong with a file."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import AutoImageProcessor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

import hf_geaau
from hf_geaau import GeaauConfig, GeaauForExpressionEmbedding, GeaauImageProcessor, GeaauModel
from hf_geaau.backends import load_analyzer
from hf_geaau.backends.torch_runner import TorchRunner
from hf_geaau.errors import CheckpointError, DeviceError, PhotoError
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, load_checkpoint
from hf_geaau.pipeline import load_pipeline


@pytest.fixture
def detect(tiny_checkpoint):
    return pipeline(hf_geaau.TASK, model=str(tiny_checkpoint))


def montage(photo: np.ndarray) -> Image.Image:
    """The portrait twice, the second at half the size."""
    small = Image.fromarray(photo).resize((256, 256))
    canvas = Image.new("RGB", (800, 512), "grey")
    canvas.paste(small, (530, 0))
    canvas.paste(Image.fromarray(photo), (0, 0))
    return canvas


def test_the_result_says_who_is_where_and_what_moves(detect, portrait):
    photo, points = portrait
    faces = detect(Image.fromarray(photo), return_masks=True, return_embedding=True)
    assert len(faces) == 1
    face = faces[0]
    assert list(face) == ["box", "score", "points", "quality", "action_units", "present", "masks", "embedding"]
    assert face["quality"] == []
    assert list(face["box"]) == ["xmin", "ymin", "xmax", "ymax"]
    assert list(face["action_units"]) == ["AU01", "AU12", "AU25"]
    assert all(0 <= probability <= 1 for probability in face["action_units"].values())
    eyes = np.linalg.norm(np.subtract(points[1], points[0]))
    assert np.abs(np.subtract(face["points"], points)).max() < 0.15 * eyes
    assert face["box"]["xmin"] < points[0][0] < points[1][0] < face["box"]["xmax"]
    assert face["masks"].shape == (3, 2, 2)
    assert np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-5)


def test_probabilities_are_the_sigmoid_of_the_models_logits(detect, portrait):
    photo, _ = portrait
    face = detect(photo)[0]
    pixel_values = detect.image_processor(photo, points=face["points"], return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = detect.model(pixel_values).logits.sigmoid()[0].tolist()
    assert list(face["action_units"].values()) == pytest.approx(expected, abs=1e-5)


def test_temperature_softens_the_probabilities(detect, portrait, monkeypatch):
    plain = detect(portrait[0])[0]["action_units"]["AU12"]
    monkeypatch.setattr(detect.model.config, "temperature", 2.0)
    logit = np.log(plain / (1 - plain))
    assert detect(portrait[0])[0]["action_units"]["AU12"] == pytest.approx(1 / (1 + np.exp(-logit / 2)), abs=1e-5)


def test_intensities_come_where_the_model_has_them_and_masks_where_it_has_lam(portrait, tmp_path):
    config = GeaauConfig(backbone="test_resnet", image_size=64, action_units=[1], head="pooled", predict_intensity=True)
    GeaauModel(config).save_pretrained(tmp_path)
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    detect = load_pipeline(str(tmp_path))
    assert 0 <= detect(portrait[0])[0]["intensities"]["AU01"] <= 5
    with pytest.raises(CheckpointError, match="head='lam', got one without"):
        detect(portrait[0], return_masks=True)


def test_present_follows_the_configs_thresholds(detect, portrait):
    photo, _ = portrait
    probabilities = detect(photo)[0]["action_units"]
    middle = sorted(probabilities.values())[1]
    detect.model.config.thresholds = [middle] * 3
    expected = [name for name, probability in probabilities.items() if probability >= np.float32(middle)]
    assert detect(photo)[0]["present"] == expected
    assert len(expected) == 2


def test_faces_come_largest_first_and_batches_cross_photos(detect, portrait):
    photo, _ = portrait
    photos = [montage(photo), Image.new("RGB", (200, 200)), Image.fromarray(photo), montage(photo)]
    one_by_one = [detect(picture) for picture in photos]
    assert [len(faces) for faces in one_by_one] == [2, 0, 1, 2]
    for faces in one_by_one:
        widths = [face["box"]["xmax"] - face["box"]["xmin"] for face in faces]
        assert widths == sorted(widths, reverse=True)
    batched = detect(photos, batch_size=3)
    for alone, together in zip(one_by_one, batched, strict=True):
        assert [face["present"] for face in alone] == [face["present"] for face in together]
        for first, second in zip(alone, together, strict=True):
            assert first["action_units"] == pytest.approx(second["action_units"], abs=1e-5)
            assert first["box"] == second["box"]


def test_every_kind_of_source_gives_the_same_face(detect, portrait, tmp_path):
    photo, _ = portrait
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    expected = detect(photo)[0]["action_units"]
    for source in (str(path), Image.open(path), photo, torch.from_numpy(photo).permute(2, 0, 1)):
        assert detect(source)[0]["action_units"] == pytest.approx(expected, abs=1e-6)


def test_aligned_crops_skip_detection(detect, portrait):
    photo, points = portrait
    processor = AutoImageProcessor.from_pretrained(detect.model.name_or_path)
    crop = np.moveaxis(
        np.asarray(processor(photo, points=points, do_rescale=False, do_normalize=False).pixel_values[0]), 0, -1
    )
    face = detect(crop.astype(np.uint8), aligned=True)[0]
    with torch.no_grad():
        expected = detect.model(processor(photo, points=points, return_tensors="pt").pixel_values).logits.sigmoid()
    assert list(face["action_units"].values()) == pytest.approx(expected[0].tolist(), abs=1e-5)
    assert face["box"] == {"xmin": 0, "ymin": 0, "xmax": 64, "ymax": 64}


def test_the_stock_pipeline_shows_every_action_unit(tiny_checkpoint, portrait):
    classify = pipeline("image-classification", model=str(tiny_checkpoint))
    scores = classify(Image.fromarray(portrait[0]), top_k=3)
    assert {score["label"] for score in scores} == {"AU01", "AU12", "AU25"}


def test_bfloat16_weights(tiny_checkpoint, portrait):
    detect = pipeline(hf_geaau.TASK, model=str(tiny_checkpoint), dtype=torch.bfloat16)
    reference = pipeline(hf_geaau.TASK, model=str(tiny_checkpoint))
    face, expected = detect(portrait[0])[0], reference(portrait[0])[0]
    assert face["action_units"] == pytest.approx(expected["action_units"], abs=0.05)


def test_generators_and_datasets_are_read_while_results_are_taken(detect, portrait):
    taken = []

    def photos():
        for number in range(10_000):
            taken.append(number)
            yield portrait[0]

    results = detect(photos(), batch_size=2, num_workers=2)
    assert not taken
    assert [len(next(results)) for _ in range(3)] == [1] * 3
    results.close()
    assert len(taken) < 40

    class Photos(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"image": portrait[0]}

    results = detect(KeyDataset(Photos(), "image"))
    assert len(results) == 3
    assert [len(faces) for faces in results] == [len(faces) for faces in results] == [1] * 3


def test_the_three_steps_of_the_base_class_give_the_same_face(detect, portrait):
    expected = detect([portrait[0]], return_masks=True)[0]
    outputs = detect.forward(detect.preprocess(portrait[0]))
    (face,) = detect.postprocess(outputs, return_masks=True)
    assert face["action_units"] == pytest.approx(expected[0]["action_units"], abs=1e-6)
    assert list(face) == list(expected[0])
    assert detect.postprocess(detect.forward(detect.preprocess(np.zeros((50, 50, 3), np.uint8)))) == []


def test_faces_that_cannot_be_aligned_are_left_out(detect, portrait):
    """The right eye and a bit of the cheek: a face is found there, its center lies outside the photo."""
    photo = portrait[0]
    for cut in range(200, 250, 5):
        for part in (photo[:, cut:], photo[:, : 2 * cut - 225]):
            for face in detect(part):
                center = np.mean(face["points"], axis=0)
                assert (center >= 0).all() and (center < (part.shape[1], part.shape[0])).all()


# --- bad input ---


def bad_files(folder) -> dict[str, str]:
    """Paths of files that are no photo, and what is said of each."""
    (folder / "empty.jpg").touch()
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), "red").save(buffer, "JPEG")
    (folder / "truncated.jpg").write_bytes(buffer.getvalue()[:300])
    (folder / "notes.jpg").write_text("not a photo")
    (folder / "folder").mkdir()
    return {
        str(folder / "empty.jpg"): "it is empty",
        str(folder / "truncated.jpg"): "truncated or damaged",
        str(folder / "notes.jpg"): "content is no image",
        str(folder / "folder"): "it is a folder",
        str(folder / "missing.jpg"): "there is no such file",
    }


def test_a_bad_photo_raises_or_is_returned_and_the_rest_goes_on(detect, portrait, tmp_path):
    good = Image.fromarray(portrait[0])
    sources = bad_files(tmp_path)
    for source, words in sources.items():
        with pytest.raises(PhotoError, match=words):
            detect(source)
    results = detect([good, *sources, good], on_error="return", batch_size=4)
    assert len(results[0]) == len(results[-1]) == 1
    for source, result in zip(sources, results[1:-1], strict=True):
        assert isinstance(result, PhotoError)
        assert source in str(result)
        assert "\n" not in str(result)


def test_nan_and_wrong_channels_are_refused(detect):
    for array in (np.full((64, 64, 3), np.nan), np.zeros((64, 64, 7), np.uint8)):
        with pytest.raises(PhotoError):
            detect(array)


def test_wrong_arguments_are_named(detect):
    with pytest.raises(ValueError, match="'raise' or 'return', got 'ignore'"):
        detect("x.jpg", on_error="ignore")
    with pytest.raises(ValueError, match="`min_score` must be between 0 and 1, got 2"):
        detect("x.jpg", min_score=2)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        detect("x.jpg", batch_size=0)
    with pytest.raises(TypeError, match="has no option `threshold`"):
        detect("x.jpg", threshold=0.5)


def test_a_bad_checkpoint_is_one_line(tiny_checkpoint, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match="it has no config.json"):
        load_pipeline(empty)
    with pytest.raises(CheckpointError, match="it is a file"):
        load_pipeline(tiny_checkpoint / "config.json")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "vit"}')
    (foreign / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="not a checkpoint of hf_geaau: its model type is 'vit'"):
        load_pipeline(foreign)
    (foreign / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="Cannot load the checkpoint"):
        load_pipeline(foreign)
    (tiny_checkpoint / "model.safetensors").rename(tiny_checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle, which can run code"):
        load_pipeline(tiny_checkpoint)


def test_an_expression_encoder_is_refused_for_action_units(tiny_config, tmp_path):
    GeaauForExpressionEmbedding(tiny_config).save_pretrained(tmp_path)
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    for load in (load_pipeline, load_analyzer):
        with pytest.raises(CheckpointError, match="is an expression encoder, which predicts no AUs. Train the second"):
            load(tmp_path)
    encoder = FaceAnalyzer(TorchRunner(*load_checkpoint(tmp_path), keep=("embedding",)), aligned=True)
    (face,) = encoder(np.zeros((64, 64, 3), np.uint8))
    assert face.embedding.shape == (16,)
    assert face.probabilities is None and face.present == []
    with pytest.raises(CheckpointError, match="A table needs a model that predicts action units"):
        hf_geaau.predict_to_table(["a.jpg"], model=encoder)


@pytest.mark.parametrize("device", ["nonsense", "xpu:7", "meta", "privateuseone"])
def test_a_missing_device_is_one_line(tiny_checkpoint, device):
    with pytest.raises(DeviceError, match=f"`device` must be one that torch can use here, got '{device}'") as caught:
        load_pipeline(tiny_checkpoint, device=device)
    assert "\n" not in str(caught.value)


def test_a_damaged_or_disguised_weight_file_is_one_line(tiny_model, tiny_checkpoint):
    weights = tiny_checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="Cannot load the checkpoint"):
        load_pipeline(tiny_checkpoint)
    torch.save(tiny_model.state_dict(), weights)
    with pytest.raises(CheckpointError, match="Cannot load the checkpoint"):
        load_pipeline(tiny_checkpoint)


# --- the bundled checkpoint ---


@pytest.mark.slow
def test_the_bundled_checkpoint_is_the_default_and_reads_a_smile(portrait):
    code = """
from transformers import pipeline
import hf_geaau
from hf_geaau import GeaauConfig, GeaauForExpressionEmbedding, GeaauImageProcessor, GeaauModel
detect = pipeline("facial-action-unit-detection")
from skimage.data import astronaut
face, = detect(astronaut())
assert {"AU12", "AU25"} <= set(face["present"]), face
assert not {"AU04", "AU15", "AU43"} & set(face["present"]), face
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_bundled_checkpoint_is_small_and_free(tmp_path):
    assert sum(path.stat().st_size for path in BUNDLED_CHECKPOINT.rglob("*")) <= 12e6
    assert load_pipeline().runner.action_units == tuple(hf_geaau.facs.labels("synthetic"))
    card = (BUNDLED_CHECKPOINT / "README.md").read_text()
    assert "license: apache-2.0" in card
