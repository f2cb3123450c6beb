"""Action units of the left and the right side: network, labels, mirroring, results and tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel, facs, metrics
from hf_geaau.backends.torch_runner import TorchRunner
from hf_geaau.data import load, write_example
from hf_geaau.errors import MetricError, TrainingError
from hf_geaau.faces import Face
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.models.geaau.losses_geaau import occurrence_loss
from hf_geaau.tables import subtract_baseline
from hf_geaau.training import Augmentation, Collator, CropDataset, datasets_of, load_recipe, open_split
from hf_geaau.video.tables import columns, side_columns

UNITS = [12, 25, 43]
SMALL = {"backbone": "test_resnet", "image_size": 64, "lam_hidden_channels": 12, "lam_feature_channels": 4}
SIDED = {**SMALL, "action_units": UNITS, "predict_sides": True}


@pytest.fixture
def model():
    return GeaauModel(GeaauConfig(**SIDED)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_example("synthetic", tmp_path_factory.mktemp("sides") / "faces", identities=6, frames=6, size=48)


@pytest.fixture(scope="module")
def rows(folder):
    return load("synthetic", folder, fold=None, split="train")


def crops(rows, **options):
    return CropDataset(rows, 48, facs.SYNTHETIC, UNITS, with_sides=True, **options)


@pytest.mark.parametrize("settings", [{}, {"mask_activation": "sigmoid"}, {"lam_normalization": "group"}])
def test_a_model_tells_sides_only_if_it_is_asked_to(settings):
    torch.manual_seed(0)
    plain = GeaauModel(GeaauConfig(**{**SIDED, **settings, "predict_sides": False})).eval()
    sided = GeaauModel(GeaauConfig(**{**SIDED, **settings})).eval()
    new = sided.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert new == ["side_classifier.weight", "side_classifier.bias"]
    images = torch.randn(2, 3, 64, 64)
    one, two = plain(images), sided(images)
    assert one.side_logits is None
    assert two.side_logits.shape == (2, 3, 2)
    assert torch.equal(one.logits, two.logits)
    assert torch.equal(one.au_masks, two.au_masks)


@pytest.mark.parametrize("width", [4, 7])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_either_half_of_the_map_is_read_alike(activation, width):
    model = GeaauModel(GeaauConfig(**{**SIDED, "mask_activation": activation})).eval()
    with torch.no_grad():
        # Filters without a direction give a mirrored map mirrored features.
        for module in model.lam.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
        map_ = torch.randn(2, model.gee.num_channels, 5, width)
        *_, sides = model.lam(map_, with_sides=True)
        *_, mirrored = model.lam(map_.flip(-1), with_sides=True)
    assert sides.shape == (2, 3, 2, 4)
    torch.testing.assert_close(mirrored, sides.flip(2))
    assert not torch.allclose(sides, sides.flip(2))


def test_the_left_side_is_on_the_right_of_the_image(model, monkeypatch):
    """A head that reads nothing but its own side's features: what happens far on one side of the image is its own."""
    with torch.no_grad():
        weight = model.side_classifier.weight.normal_().view(3, 2, 2, 4)  # of each AU: side, side that is read, feature
        weight[:, 0, 1] = weight[:, 1, 0] = 0
        map_ = torch.zeros(1, model.gee.num_channels, 8, 8)
        shown = map_.clone()
        shown[..., 6:] = torch.randn(8, 2)

        def logits(expression_map):
            outputs = (expression_map,), torch.zeros(1, model.gee.num_channels), torch.zeros(1, 16)
            monkeypatch.setattr(model.gee, "forward", lambda *_: outputs)
            return model(torch.zeros(1, 3, 64, 64)).side_logits

        change = (logits(shown) - logits(map_)).abs()
    assert (change[..., 0] > 1e-4).all()
    assert change[..., 1].max() == 0


def test_sides_are_learned_where_they_are_labeled():
    config = GeaauConfig(**SIDED, side_weight=2.0, pos_weight=[1.0, 2.0, 3.0], label_smoothing=0.1)
    model = GeaauModel(config).eval()
    images = torch.randn(2, 3, 64, 64)
    labels = torch.tensor([[1, 0, -1], [0, 1, 1]])
    sides = torch.tensor([[[1, 0], [-1, -1], [1, -1]], [[0, 0], [-1, -1], [0, 1]]])
    output = model(images, labels=labels, sides=sides)
    weights = torch.tensor([1.0, 2.0, 3.0])
    expected = [
        occurrence_loss(logits, target, pos_weight=weights, label_smoothing=0.1)
        for logits, target in ((output.logits, labels), (output.side_logits.mT.flatten(0, 1), sides.mT.flatten(0, 1)))
    ]
    left, right = output.side_logits[..., 0], output.side_logits[..., 1]
    choice = -torch.nn.functional.logsigmoid(torch.stack([left[0, 0] - right[0, 0], right[1, 2] - left[1, 2]])).mean()
    torch.testing.assert_close(output.loss, expected[0] + 2 * (expected[1] + choice / 4))

    logits = output.side_logits
    (gradient,) = torch.autograd.grad(output.loss, logits)
    assert torch.equal(gradient == 0, sides == -1)
    nothing = model(images, sides=torch.full((2, 3, 2), -1.0))
    nothing.loss.backward()
    assert nothing.loss.item() == 0
    assert not model.side_classifier.weight.grad.any()
    assert GeaauModel(GeaauConfig(**SMALL, action_units=UNITS))(images, sides=sides).loss is None


def test_wrong_sides_are_refused(model):
    images = torch.zeros(2, 3, 64, 64)
    with pytest.raises(ValueError, match=r"`sides` must have shape \(2, 3, 2\), got \(2, 3\)"):
        model(images, sides=torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"`sides` must be 1 \(present\), 0 \(absent\) or -1"):
        model(images, sides=torch.full((2, 3, 2), 2))
    with pytest.raises(ValueError, match="`predict_sides` needs `head='lam'`, whose masks are read on each side, got"):
        GeaauConfig(**SIDED, head="pooled")


def test_other_action_units_keep_their_sides(model):
    images = torch.randn(2, 3, 64, 64)
    other = model.with_action_units([43, 1, 12])
    torch.testing.assert_close(other(images).side_logits[:, [2, 0]], model(images).side_logits[:, [0, 2]])


def test_temperature_and_thresholds_are_those_of_the_action_unit():
    config = GeaauConfig(**SIDED, temperature=2.0, thresholds=[0.2, 0.5, 0.9])
    output = GeaauModel(config).eval()(torch.randn(3, 3, 64, 64))
    faces = GeaauImageProcessor().post_process_action_units(output)
    for face, logits in zip(faces, output.side_logits, strict=True):
        torch.testing.assert_close(face["side_probabilities"], (logits / 2).sigmoid())
        assert face["side_present"].tolist() == [
            [bool(value >= limit) for value in pair]
            for pair, limit in zip(face["side_probabilities"], [0.2, 0.5, 0.9], strict=True)
        ]
    at_half = GeaauImageProcessor().post_process_action_units(output, 0.5)[0]
    assert torch.equal(at_half["side_present"], output.side_logits[0] >= 0)


def test_rendered_faces_tell_sides_and_others_do_not(folder, rows, tmp_path):
    sides = crops(rows).targets["sides"]
    strength = torch.tensor(rows["side_intensities"][:]).unflatten(1, (18, 2))[
        :, [facs.SYNTHETIC.index(n) for n in UNITS]
    ]
    assert torch.equal(sides[:, [0, 2]], (strength >= 1)[:, [0, 2]].float())
    assert (sides[:, 1] == -1).all()  # AU25 has no sides
    assert (sides[..., 0] != sides[..., 1]).any()
    assert (crops(rows.remove_columns("side_intensities")).targets["sides"] == -1).all()

    older = tmp_path / "older"
    older.mkdir()
    for name in ("images", "render.json"):
        (older / name).symlink_to(folder / name)
    pq.write_table(pq.read_table(folder / "labels.parquet").drop_columns("side_intensities"), older / "labels.parquet")
    assert (crops(load("synthetic", older, fold=None, split="train")).targets["sides"] == -1).all()


def test_a_trace_counts_as_absent_only_beside_a_clear_movement(rows):
    pairs = [(0.5, 3.0), (0.5, 1.5), (0.5, 0.4), (0.0, 1.5), (-1.0, -1.0), (2.0, 0.99)]
    values = np.zeros((len(pairs), 18, 2), np.float32)
    values[:, facs.SYNTHETIC.index(12)] = pairs
    few = rows.select(range(len(pairs))).remove_columns("side_intensities")
    few = few.add_column("side_intensities", values.reshape(len(pairs), -1).tolist())
    every, clear = (crops(few, ignore_traces=flag).targets["sides"][:, 0].tolist() for flag in (False, True))
    assert every == [[0, 1], [0, 1], [0, 0], [0, 1], [-1, -1], [1, 0]]
    assert clear == [[0, 1], [-1, 1], [-1, -1], [0, 1], [-1, -1], [1, 0]]


def test_mirroring_exchanges_left_and_right(rows):
    plain = crops(rows)
    always = crops(rows, augmentation=Augmentation(mirror=1.0))
    sometimes = crops(rows, augmentation=Augmentation(mirror=0.5))
    counts = [0, 0]
    for index in range(len(rows)):
        one, two, three = plain[index], always[index], sometimes[index]
        assert torch.equal(two["pixel_values"], one["pixel_values"].flip(-1))
        assert torch.equal(two["sides"], one["sides"].flip(-1))
        is_mirrored = not torch.equal(three["pixel_values"], one["pixel_values"])
        assert torch.equal(three["sides"], one["sides"].flip(-1) if is_mirrored else one["sides"])
        assert torch.equal(one["labels"], two["labels"])
        counts[is_mirrored] += 1
    assert min(counts) > 5
    assert torch.equal(plain[0]["sides"], plain.targets["sides"][0])  # the table itself stays
    batch = Collator(GeaauImageProcessor(size={"height": 48, "width": 48}))([always[0], always[1]])
    assert torch.equal(batch["sides"][1], plain[1]["sides"].flip(-1))


def test_a_recipe_asks_for_sides_and_needs_data_that_tells_them(folder):
    settings = ["model.backbone=test_resnet", "model.backbone_kwargs=null", "model.backbone_stage=-1",
                "model.image_size=32", "model.predict_sides=true"]  # fmt: skip
    recipe = load_recipe("synthetic", settings)
    split = open_split(recipe, folder, 1)
    config = GeaauConfig(**recipe.model, action_units=recipe.action_units)
    train, validation = datasets_of(recipe, split, config)
    assert train[0]["sides"].shape == validation[0]["sides"].shape == (18, 2)
    untold = replace(split, train=split.train.remove_columns("side_intensities"))
    with pytest.raises(TrainingError, match="needs data that tells left and right apart, and synthetic tells none"):
        datasets_of(recipe, untold, config)


def test_a_face_names_the_sides_of_units_that_have_them(model):
    runner = TorchRunner(model, GeaauImageProcessor(size={"height": 64, "width": 64}))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    (face,) = FaceAnalyzer(runner, aligned=True)(image)
    raw = runner(image[None]).side_probabilities[0]
    assert np.isnan(face.side_probabilities[1]).all()
    np.testing.assert_array_equal(face.side_probabilities[[0, 2]], raw[[0, 2]])
    assert face.to_dict()["sides"] == pytest.approx(
        {"AU12_left": raw[0, 0], "AU12_right": raw[0, 1], "AU43_left": raw[2, 0], "AU43_right": raw[2, 1]}
    )
    (without,) = FaceAnalyzer(runner.keeping(()), aligned=True)(image)
    assert without.side_probabilities is None
    assert "sides" not in without.to_dict()
    assert without.sides == {}


def test_columns_of_sides():
    assert columns(["AU12", "AU25"], True, True)[-4:] == ["AU25_intensity", "AU12_left", "AU12_right", "AU12_asymmetry"]
    assert side_columns({"AU12": (0.25, 1.0)}) == {"AU12_left": 0.25, "AU12_right": 1.0, "AU12_asymmetry": -0.75}
    face = Face(np.zeros(4), 1.0, np.zeros((5, 2)), action_units=("AU12", "AU25"), probabilities=np.float32([1, 0]),
                side_probabilities=np.float32([[0.5, 0.25], [np.nan, np.nan]]))  # fmt: skip
    assert side_columns(face.sides) == {"AU12_left": 0.5, "AU12_right": 0.25, "AU12_asymmetry": 0.25}


def test_a_resting_face_that_is_not_symmetric_is_subtracted():
    """A mouth that hangs on one side for four frames; then a smile on both sides."""
    left, right = [0.1] * 5 + [0.95], [0.4] * 5 + [0.99]
    table = pd.DataFrame(
        {"source": "a.mp4", "frame": range(6), "time_s": np.arange(6) / 10, "track_id": 1, "AU12": right,
         "AU12_present": 0, "AU12_left": left, "AU12_right": right, "AU12_asymmetry": np.subtract(left, right)}
    )  # fmt: skip
    rested = subtract_baseline(table, {"AU12": 0.5}, "median")
    assert rested.AU12_right.tolist() == rested.AU12.tolist()  # of equal probabilities
    assert rested.AU12_asymmetry.tolist() == (rested.AU12_left - rested.AU12_right).tolist()
    assert rested.AU12_asymmetry[:5].abs().max() < 0.1 < abs(table.AU12_asymmetry[0])


def test_scores_of_sides_count_sides_and_one_sided_faces():
    labels = np.array([[1, 0], [0, 1], [1, 0], [1, 1], [0, 0], [-1, 1]])[:, None].repeat(3, axis=1)
    found = np.array([[0.9, 0.2], [0.3, 0.8], [0.4, 0.4], [0.7, 0.9], [0.1, 0.1], [0.2, 0.9]])[:, None].repeat(
        3, axis=1
    )
    found[:, 1] = found[:, 1, ::-1]  # the sides taken for each other
    labels[:, 2] = [1, 1]  # no face with one side only, and no negative
    scores = metrics.au_sides(labels, found)
    np.testing.assert_allclose(scores["side_choice"], [2.5 / 3, 0.5 / 3, np.nan])
    pairs = [(p, n) for p in (0.9, 0.8, 0.4, 0.7, 0.9, 0.9) for n in (0.2, 0.3, 0.4, 0.1, 0.1)]
    assert scores["side_auc"][0] == pytest.approx(np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs]))
    assert np.isnan(scores["side_auc"][2])
    assert scores["mean"]["side_choice"] == pytest.approx(0.5)
    with pytest.raises(MetricError, match=r"must both have shape \(F, N, 2\), got \(6, 3\) and \(6, 3, 2\)"):
        metrics.au_sides(labels[..., 0], found)
