"""Exported networks predict what torch does, are refused where they do not, and are used where they fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hf_geaau
from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel
from hf_geaau.backends import exported_networks, load_runner
from hf_geaau.errors import CardError, CheckpointError, DeviceError
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT
from hf_geaau_cli import app

pytest.importorskip("onnxscript", reason="needs the extra export")
export = pytest.importorskip("hf_geaau.export")

ROOT = Path(__file__).parents[2]
FACES = ROOT / "examples" / "faces.parquet"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small checkpoint with a temperature and settings of its own, and its two exported networks."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = GeaauConfig(
        backbone="test_resnet", image_size=64, action_units=[1, 12, 25], predict_intensity=True, temperature=1.7,
        thresholds=[0.3, 0.5, 0.7], trained_on=["disfa"],
    )  # fmt: skip
    size = {"height": 64, "width": 64}
    GeaauModel(config).eval().save_pretrained(folder)
    GeaauImageProcessor(size=size, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.25]).save_pretrained(folder)
    export.export(folder)
    return folder


@pytest.fixture
def own(checkpoint, tmp_path):
    """A copy of the checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "own"))


def crops(count=5, side=64):
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def compared(folder, backend, tolerance):
    keep = ("embedding", "masks")
    pixels = crops()
    expected = load_runner(folder, backend="torch", keep=keep)(pixels)
    found = load_runner(folder, backend=backend, keep=keep)(pixels)
    for name in ("logits", "probabilities", "intensities", "embedding", "masks"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=tolerance, err_msg=name)
    one = load_runner(folder, backend=backend)(pixels[:1])  # the batch is free
    np.testing.assert_allclose(one.probabilities, expected.probabilities[:1], atol=tolerance)
    assert one.masks is None
    assert one.embedding is None


def test_onnx_predicts_what_torch_does(checkpoint):
    compared(checkpoint, "onnx", 1e-4)


def test_openvino_predicts_what_torch_does(own):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    compared(own, "openvino", 1e-4)  # reads the ONNX file
    export.export(own, format="openvino")
    (own / "onnx" / "model.onnx").unlink()
    compared(own, "openvino", 1e-4)


def test_the_network_carries_what_it_takes_to_use_it(checkpoint):
    runner, torch_runner = (load_runner(checkpoint, backend=name) for name in ("onnx", "torch"))
    for name in ("action_units", "size", "predicts_intensities", "has_masks"):
        assert getattr(runner.facts, name) == getattr(torch_runner.facts, name)
    np.testing.assert_allclose(runner.thresholds, [0.3, 0.5, 0.7], atol=1e-6)
    np.testing.assert_allclose(runner.facts.crop_template, torch_runner.facts.crop_template)
    assert runner.metadata["licenses_bound_by"] == ["disfa"]
    alone = load_runner(checkpoint / "onnx" / "model.onnx")  # the file by itself
    np.testing.assert_array_equal(alone(crops()).probabilities, runner(crops()).probabilities)


def test_the_bundled_network_fits_the_bundled_weights():
    assert [path.as_posix() for path in exported_networks(BUNDLED_CHECKPOINT)] == ["onnx/model.onnx"]
    photo = pytest.importorskip("skimage.data", reason="needs the photo in scikit-image").astronaut()
    fast, slow = (hf_geaau.load_pipeline(backend=name)(photo, return_masks=True)[0] for name in (None, "torch"))
    assert isinstance(hf_geaau.load_pipeline(), hf_geaau.ActionUnitDetector)
    for key in ("action_units", "intensities"):
        assert fast[key] == pytest.approx(slow[key], abs=1e-4)
    np.testing.assert_allclose(fast["masks"], slow["masks"], atol=1e-3)
    assert fast["present"] == slow["present"]


def test_a_network_is_not_used_once_weights_or_settings_have_changed(own):
    assert isinstance(hf_geaau.load_pipeline(own), hf_geaau.ActionUnitDetector)
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "transformers_version": "9", "trained_on": ["bp4d"]}))
    assert isinstance(hf_geaau.load_pipeline(own), hf_geaau.ActionUnitDetector)
    (own / "config.json").write_text(json.dumps({**config, "thresholds": [0.1, 0.1, 0.1]}))
    assert not isinstance(hf_geaau.load_pipeline(own), hf_geaau.ActionUnitDetector)
    with pytest.raises(CheckpointError, match="no network for the backend 'onnx' that fits"):
        load_runner(own, backend="onnx")
    (own / "config.json").write_text(json.dumps(config))
    weights = (own / "model.safetensors").read_bytes()
    (own / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert exported_networks(own) == []


def test_half_and_eight_bits_are_smaller_and_nearly_the_same(own):
    half = export.export(own, dtype="fp16")
    assert half.path.name == "model_fp16.onnx"
    assert half.path.stat().st_size < 0.6 * (own / "onnx" / "model.onnx").stat().st_size
    with pytest.raises(ValueError, match="at least 32 faces to calibrate on, got 0"):
        export.export(own, dtype="int8")
    with pytest.raises(ValueError, match="as ONNX only"):
        export.export(own, dtype="int8", format="openvino", crops=crops(40))


@pytest.mark.slow
def test_the_bundled_weights_lose_no_auc_as_eight_bits(tmp_path):
    command = ["export", "--dtype", "int8", "--faces", str(FACES), "--aligned", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "a loss of" in done.output
    assert (tmp_path / "onnx" / "model_int8.onnx").stat().st_size < 3e6


def test_a_network_that_differs_is_not_written(own, monkeypatch):
    (own / "onnx" / "model.onnx").unlink()
    normalization = export.normalization
    monkeypatch.setattr(export, "normalization", lambda processor: [each * 20 for each in normalization(processor)])
    with pytest.raises(CheckpointError, match="differs from torch"):
        export.export(own)
    assert not list(own.rglob("*.onnx"))


def test_what_is_no_network_of_ours_is_one_line(own, tmp_path):
    import onnx

    path = own / "onnx" / "model.onnx"
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    for name, message in (
        ("bare.onnx", "lacks the metadata"),
        ("text.onnx", "Cannot load"),
        ("no.onnx", "Cannot find"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_runner(tmp_path / name)
    with pytest.raises(DeviceError, match="runs on the CPU"):
        load_runner(own, backend="onnx", device="cuda")
    with pytest.raises(ValueError, match="`backend` must be one of"):
        load_runner(own, backend="tensorrt")


def test_the_command_exports_and_predict_takes_it(own):
    (own / "onnx" / "model.onnx").unlink()
    photo = ROOT / "docs" / "images" / "video_overlay.jpg"
    assert CliRunner().invoke(app, ["export", str(own)]).exit_code == 0
    shown = {}
    for backend in ("onnx", "torch"):
        done = CliRunner().invoke(app, ["predict", str(photo), "--model", str(own), "--backend", backend])
        assert done.exit_code == 0, done.output
        shown[backend] = done.output
    assert shown["onnx"] == shown["torch"]
    wrong = CliRunner().invoke(app, ["predict", str(photo), "--model", str(own), "--backend", "tensorrt"])
    assert wrong.exit_code == 2
    assert "must be one of torch, onnx, openvino" in wrong.output.replace("\n", " ")
    assert CliRunner().invoke(app, ["export", str(own), "--dtype", "fp8"]).exit_code == 2
    for more in ([], ["--faces", str(photo)]):  # none, and too few
        done = CliRunner().invoke(app, ["export", str(own), "--dtype", "int8", *more])
        assert done.exit_code == 2, done.output


def test_labels_of_other_action_units_give_no_auc(checkpoint, tmp_path):
    made = export.export(checkpoint, tmp_path, crops=crops(), labels=np.full((5, 3), -1.0))
    assert made.auc is None
    assert made.auc_loss is None


@pytest.mark.parametrize("text", ["---\nlicense: [mit\n---\n", "---\n- mit\n---\n", "\udcff"])
def test_a_card_that_cannot_be_read_is_one_line(tiny_checkpoint, text):
    (tiny_checkpoint / "README.md").write_text(text, errors="surrogateescape")
    with pytest.raises(CardError, match=r"Cannot read the metadata of the card .*README\.md") as error:
        export.export(tiny_checkpoint)
    assert "\n" not in str(error.value)


def test_the_card_names_the_networks(own):
    from hf_geaau.model_card import CardFacts

    assert list(CardFacts.read(own).networks) == ["onnx/model.onnx"]
