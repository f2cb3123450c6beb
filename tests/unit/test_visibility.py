"""Which action units can be seen: the renderer's truth, the network's head, results, tables and scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel, facs
from hf_geaau.backends.torch_runner import TorchRunner
from hf_geaau.data import load, visibility_labels, write_example
from hf_geaau.errors import CheckpointError, TrainingError
from hf_geaau.evaluation import Predictions, score
from hf_geaau.faces import Face
from hf_geaau.inference import FaceAnalyzer, check_outputs
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.views import View
from hf_geaau.synthetic.visibility import LANDMARKS, seen_landmarks, visible_shares
from hf_geaau.training import datasets_of, load_recipe, open_split
from hf_geaau.video.tables import columns

SMALL = {"backbone": "test_resnet", "image_size": 64, "lam_hidden_channels": 12, "lam_feature_channels": 4,
         "action_units": [12, 25, 43]}  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GeaauModel(GeaauConfig(**SMALL, predict_visibility=True)).eval()


def test_what_lies_before_a_landmark_hides_it():
    """68 landmarks on a wall 100 before the camera; something stands 10 before its right half."""
    grid = np.stack(np.meshgrid(np.linspace(-3, 3, 17), np.linspace(-3, 3, 4)), -1).reshape(-1, 2)
    landmarks = np.column_stack([grid, np.zeros(68)])
    view = View(landmarks, landmarks, np.eye(3), 1.0, np.zeros(3), 100.0)
    clip, _ = view.matrices(np.array([[10.0, 0, 40], [0, 10, 40]]), 80, 80)

    def depth_of(z):
        seen = clip @ [0, 0, z, 1]
        return (seen[2] / seen[3] + 1) / 2

    depth = np.full((80, 80), depth_of(0.0), np.float32)
    assert seen_landmarks(view, clip, depth).all()
    depth[:, 45:] = depth_of(3.0)
    np.testing.assert_array_equal(seen_landmarks(view, clip, depth), landmarks[:, 0] < 0.45)
    depth[:, 45:] = depth_of(0.3)  # thinner than a lip
    assert seen_landmarks(view, clip, depth).all()
    far = replace(view, landmarks=landmarks + np.array([9, 0, 0]))
    assert not seen_landmarks(far, clip, np.ones((80, 80), np.float32)).any()  # outside of the picture


def test_shares_are_those_of_the_units_landmarks_and_dark_lenses_hide_eyes():
    everything = np.ones(68, bool)
    assert set(LANDMARKS) == set(ACTION_UNITS)
    np.testing.assert_array_equal(visible_shares(everything), 1)
    mouth = everything.copy()
    mouth[48:68] = False
    hidden = {unit for unit, share in zip(ACTION_UNITS, visible_shares(mouth), strict=True) if share < 0.5}
    assert hidden == {10, 12, 14, 15, 20, 23, 24, 25, 26}
    behind = {unit for unit, share in zip(ACTION_UNITS, visible_shares(everything, 0.8), strict=True) if share < 0.5}
    assert behind == {5, 6, 7, 43}
    np.testing.assert_array_equal(visible_shares(everything, 0.2), 1)


def test_the_head_has_a_loss_of_its_own(model):
    images, visible = torch.randn(4, 3, 64, 64), torch.tensor([[1, 0, -1]] * 4).float()
    output = model(images, visible=visible)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(output.visibility_logits[:, :2], visible[:, :2])
    assert output.loss.item() == pytest.approx(0.5 * expected.item(), rel=1e-5)
    labels = torch.zeros(4, 3)
    both = model(images, labels=labels, visible=visible).loss
    assert both.item() == pytest.approx(output.loss.item() + model(images, labels=labels).loss.item(), rel=1e-5)
    plain = GeaauModel(GeaauConfig(**SMALL)).eval()
    assert plain(images, visible=visible).loss is None
    assert plain(images).visibility_logits is None
    with pytest.raises(ValueError, match="`visible` must be 1"):
        model(images, visible=visible + 1)


def test_results_name_what_is_hidden(model):
    runner = TorchRunner(model, GeaauImageProcessor(size={"height": 64, "width": 64}))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    (face,) = FaceAnalyzer(runner, aligned=True)(image)
    raw = runner(image[None])
    np.testing.assert_array_equal(face.visibility, raw.visibility[0])
    known = replace(face, visibility=np.float32([0.9, 0.2, 0.6]))
    assert known.to_dict()["hidden"] == known.hidden == ["AU25"]
    assert known.to_dict()["visibility"]["AU12"] == pytest.approx(0.9)
    (without,) = FaceAnalyzer(runner.keeping(()), aligned=True)(image)
    assert without.hidden == []
    assert "hidden" not in without.to_dict()
    assert Face(np.zeros(4), 1.0, np.zeros((5, 2))).hidden == []
    assert columns(["AU12", "AU25"], has_visibility=True)[-2:] == ["AU12_visible", "AU25_visible"]
    plain = TorchRunner(GeaauModel(GeaauConfig(**SMALL)), GeaauImageProcessor(size={"height": 64, "width": 64}))
    with pytest.raises(CheckpointError, match="does not tell what is hidden: it was trained without"):
        check_outputs(plain.facts, ["visibility"])
    check_outputs(runner.facts, ["visibility"])


def test_training_reads_what_renders_tell(tmp_path):
    folder = write_example("synthetic", tmp_path / "faces", identities=6, frames=4, size=48)
    settings = ["model.backbone=test_resnet", "model.backbone_kwargs=null", "model.backbone_stage=-1",
                "model.image_size=32", "model.predict_visibility=true"]  # fmt: skip
    recipe = load_recipe("synthetic", settings)
    split = open_split(recipe, folder, 1)
    config = GeaauConfig(**recipe.model, action_units=recipe.action_units)
    train, _ = datasets_of(recipe, split, config)
    assert train[0]["visible"].tolist() == [1] * 18
    untold = replace(split, train=split.train.remove_columns("visible"))
    with pytest.raises(TrainingError, match="needs data that tells what is hidden"):
        datasets_of(recipe, untold, config)
    rows = load("synthetic", folder, fold=None, split="train")
    assert (visibility_labels(rows) == 1).all()
    assert (visibility_labels(rows.remove_columns("visible")) == -1).all()


def test_scores_tell_how_well_hidden_units_are_known():
    rng, count = np.random.default_rng(0), 40
    visible = np.ones((count, len(facs.SYNTHETIC)), np.float32)
    visible[:10, facs.SYNTHETIC.index(12)] = 0
    visibility = np.where(visible > 0, 0.9, 0.2).astype(np.float32)
    values = rng.random((count, len(facs.SYNTHETIC)), np.float32)
    made = Predictions(
        logits=values, probabilities=values, predicted_intensities=None, labels=(values > 0.5).astype(np.float32),
        intensities=5 * values, subject_id=np.array(["a"] * count), rows=np.arange(count), skipped=[],
        visible=visible, visibility=visibility,
    )  # fmt: skip
    report = score(made, GeaauConfig(**{**SMALL, "action_units": list(facs.SYNTHETIC)}), facs.SYNTHETIC)
    assert report["visibility"] == {"AU12": {"visibility_auc": 1.0}, "mean": {"visibility_auc": 1.0}}
