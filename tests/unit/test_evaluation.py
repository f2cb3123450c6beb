"""Evaluation and calibration on drawn faces: what is scored, what is warned about, what is written."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from hf_geaau import GeaauConfig, GeaauForExpressionEmbedding, GeaauImageProcessor, facs, metrics
from hf_geaau.data import get_dataset, open_aligned, write_example
from hf_geaau.errors import DatasetError, DatasetWarning, DeviceError, EvaluationError
from hf_geaau.evaluation import (
    Predictions,
    best_temperature,
    best_thresholds,
    calibrate,
    evaluate,
    evaluate_folds,
    fit_calibration,
    fold_numbers,
    predict_dataset,
    published,
    results_page,
    score,
    trained_fold,
)
from hf_geaau.models.loading import BUNDLED_CHECKPOINT

pytest.importorskip("datasets")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Model and dataset share:hf_geaau.errors.DatasetWarning"),
    pytest.mark.filterwarnings("ignore:The checkpoint names no validation subjects:hf_geaau.errors.DatasetWarning"),
]
LEFT_OUT = "Model and dataset share 3 AUs, which are scored; left out are AU02, AU04"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def drawn_faces(tmp_path_factory):
    return write_example("synthetic", tmp_path_factory.mktemp("faces") / "data", identities=9, frames=4, size=64)


@pytest.fixture
def faces(drawn_faces, tmp_path):
    """Nine people, three in each fold's test set, with four images each."""
    return shutil.copytree(drawn_faces, tmp_path / "faces")


@pytest.fixture
def processor():
    return GeaauImageProcessor(size={"height": 64, "width": 64})


@pytest.fixture
def encoder(tiny_config, processor, tmp_path):
    GeaauForExpressionEmbedding(tiny_config).save_pretrained(tmp_path / "encoder")
    processor.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def trained_for(checkpoint, **facts):
    content = {"dataset": {"name": "synthetic", "protocol": "jaanet", **facts}, "trained_on": ["synthetic"]}
    (checkpoint / "training_facts.json").write_text(json.dumps(content))


def damage(faces):
    path = faces / "images" / "00000012.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return path


# --- predictions ---


@pytest.mark.parametrize("workers", [0, 1])
def test_predictions_are_those_of_the_model_in_the_order_of_the_rows(faces, tiny_model, processor, workers):
    rows = open_aligned("synthetic", faces, 2, "test")
    tiny_model.config.temperature = 2.0
    tiny_model.train()
    steps = []
    found = predict_dataset(
        tiny_model,
        processor,
        rows,
        batch_size=5,
        device="cpu",
        num_workers=workers,
        progress=lambda *s: steps.append(s),
    )
    assert tiny_model.training  # as it was
    with torch.inference_mode():
        expected = tiny_model.eval()(**processor(rows["image"][:], return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-expected / 2)), rtol=1e-4, atol=1e-5)
    assert found.labels.tolist() == rows["labels"][:]
    assert found.intensities.tolist() == rows["intensities"][:]
    assert found.subject_id.tolist() == rows["subject_id"][:]
    assert found.predicted_intensities is None
    assert steps == [(5, 12), (10, 12), (12, 12)]


def test_a_damaged_image_is_named_skipped_and_counted(faces, tiny_checkpoint):
    path = damage(faces)
    with pytest.warns(DatasetWarning, match="1 of 36 rows are skipped because their images cannot be read"):
        report = evaluate(tiny_checkpoint, "synthetic", faces, split="all")
    assert report["frames"] == 35
    (line,) = report["skipped"]
    assert path.name in line
    assert report["action_units"]["AU01"]["labelled"] == 35
    for image in (faces / "images").iterdir():
        image.write_bytes(b"")
    with pytest.raises(EvaluationError, match="Cannot read any of the 12 rows' images; the first problem: row 0"):
        evaluate(tiny_checkpoint, "synthetic", faces)


def test_no_row_and_wrong_settings(faces, tiny_model, processor):
    rows = open_aligned("synthetic", faces, 2, "test")
    with pytest.raises(EvaluationError, match="must have rows, got none. Choose another fold"):
        predict_dataset(tiny_model, processor, rows.select([]))
    with pytest.raises(EvaluationError, match="`batch_size` must be at least 1, got 0"):
        predict_dataset(tiny_model, processor, rows, batch_size=0)
    with pytest.raises(DeviceError, match="got 'nonsense'"):
        predict_dataset(tiny_model, processor, rows, device="nonsense")


# --- reports ---


def test_scores_pair_the_aus_of_model_and_dataset(tiny_config):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 3)).astype(np.float32)
    chances = torch.from_numpy(logits).sigmoid().numpy()
    labels = rng.integers(-1, 2, (60, 3)).astype(np.float32)
    strength, coded = rng.random((60, 3)) * 5, rng.integers(-1, 6, (60, 3)).astype(np.float32)
    who = np.repeat([f"S{number}" for number in range(6)], 10)
    predictions = Predictions(logits, chances, strength, labels, coded, who, np.arange(60))
    tiny_config.thresholds = [0.4, 0.5, 0.6]  # of AU01, AU12, AU25
    found = score(predictions, tiny_config, (25, 6, 1))
    assert (found["frames"], found["subjects"]) == (60, 6)
    assert list(found["action_units"]) == ["AU25", "AU01"]  # in the dataset's order
    expected = metrics.au_f1(labels[:, [0, 2]], chances[:, [2, 0]], [0.6, 0.4])
    for place, entry in enumerate(found["action_units"].values()):
        assert entry["f1"] == expected["f1"][place]
        assert entry["positives"] == expected["positives"][place]
    assert [entry["threshold"] for entry in found["action_units"].values()] == [0.6, 0.4]
    assert found["mean"]["f1"] == expected["mean"]["f1"]
    assert "threshold" not in found["mean"]
    assert found["intensity"]["AU25"]["icc"] == metrics.au_icc(coded[:, :1], strength[:, 2:])["icc"][0]
    assert set(found["intensity"]) == {"AU25", "AU01", "mean"}
    assert {
        entry["threshold"] for entry in score(predictions, tiny_config, (25, 6, 1), 0.5)["action_units"].values()
    } == {0.5}
    with pytest.raises(EvaluationError, match="the model has AU01, AU12, AU25, the dataset AU06, AU09, AU10"):
        score(predictions, tiny_config, (6, 9, 10))


def test_a_report_of_a_fold(faces, tiny_checkpoint, tiny_model, processor):
    trained_for(tiny_checkpoint, fold=2)
    with pytest.warns(DatasetWarning, match=LEFT_OUT) as warned:
        report = evaluate(tiny_checkpoint, "synthetic", faces, 2)
    assert len(warned) == 1
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    facts = ("dataset", "title", "is_licensed", "fold", "protocol", "split", "frames", "subjects")
    assert [report[key] for key in facts] == ["synthetic", "rendered faces", False, 2, "jaanet", "test", 12, 3]
    assert report["identities_shared_with_training"] == 0
    predictions = predict_dataset(tiny_model, processor, open_aligned("synthetic", faces, 2, "test"))
    assert report["action_units"] == score(predictions, tiny_model.config, facs.SYNTHETIC)["action_units"]
    keys = {
        "expected_calibration_error",
        "f1",
        "precision",
        "recall",
        "auc",
        "accuracy",
        "base_rate",
        "always_on_f1",
        "labelled",
        "positives",
    }
    assert keys <= set(report["mean"])
    assert keys | {"threshold", "expected_calibration_error"} <= set(report["action_units"]["AU12"])
    assert "intensity" not in report


@pytest.mark.parametrize(
    ("facts", "arguments", "shared"),
    [
        ({"fold": 1}, {"fold": 2}, 3),  # tested on people of its train side
        ({"fold": 2}, {"split": "all"}, 6),
        ({"fold": None}, {"fold": 2}, 3),
        ({"fold": 1, "train_subject_ids": ["render-7-1"]}, {"fold": 2}, 0),  # other renders: nobody in common
        ({"fold": 1, "train_subject_ids": ["render-0-1"], "validation_subject_ids": ["render-0-4"]}, {"fold": 2}, 2),
    ],
)
def test_subjects_that_the_model_knows_are_counted(faces, tiny_checkpoint, facts, arguments, shared):
    trained_for(tiny_checkpoint, **facts)
    with pytest.warns(DatasetWarning) as warned:
        report = evaluate(tiny_checkpoint, "synthetic", faces, **{"fold": 1, **arguments})
    assert report["identities_shared_with_training"] == shared
    texts = [str(entry.message) for entry in warned]
    loud = f"The model has seen {shared} of the {report['subjects']} tested subjects"
    assert any(text.startswith(loud) for text in texts) == (shared > 0)
    assert report["notes"] == texts


def test_weights_that_have_seen_the_dataset_without_saying_whom(faces, tiny_model, tiny_checkpoint):
    tiny_model.config.trained_on = ["synthetic"]
    tiny_model.save_pretrained(tiny_checkpoint)
    with pytest.warns(DatasetWarning, match="nobody knows on which subjects"):
        assert evaluate(tiny_checkpoint, "synthetic", faces)["identities_shared_with_training"] is None
    tiny_model.config.trained_on = ["bp4d"]
    tiny_model.save_pretrained(tiny_checkpoint)
    assert evaluate(tiny_checkpoint, "synthetic", faces)["identities_shared_with_training"] == 0


def test_subjects_of_the_checkpoint_that_training_started_from_count_too(faces, tiny_checkpoint, tmp_path):
    start = shutil.copytree(tiny_checkpoint, tmp_path / "start")
    trained_for(start, fold=1)  # has seen the test subjects of fold 2
    trained_for(tiny_checkpoint, fold=2)
    facts = json.loads((tiny_checkpoint / "training_facts.json").read_text())
    (tiny_checkpoint / "training_facts.json").write_text(json.dumps({**facts, "started_from": str(start)}))
    with pytest.warns(DatasetWarning, match="has seen 3 of the 3 tested subjects"):
        assert evaluate(tiny_checkpoint, "synthetic", faces, 2)["identities_shared_with_training"] == 3


def test_another_crop_template_is_told(faces, tiny_checkpoint):
    template = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]
    GeaauImageProcessor(size={"height": 64, "width": 64}, crop_template=template).save_pretrained(tiny_checkpoint)
    with pytest.warns(DatasetWarning, match="trained with another crop template than that of these crops"):
        evaluate(tiny_checkpoint, "synthetic", faces)


def test_triplets_are_scored_by_type(faces, encoder):
    report = evaluate(encoder, "synthetic", faces, 1, split="train", triplets=20, batch_size=7)
    assert report["triplets"] == 20
    assert 0 <= report["accuracy"] <= report["anchor_accuracy"] <= 1
    assert sum(kind["triplets"] for kind in report["types"].values()) == 20
    rows = open_aligned("synthetic", faces, 1, "train", triplets=20)
    network = GeaauForExpressionEmbedding.from_pretrained(encoder).eval()
    crops = [image for entry in rows["images"][:] for image in entry]
    processor = GeaauImageProcessor.from_pretrained(encoder)
    with torch.inference_mode():
        distances = network(processor(crops, return_tensors="pt").pixel_values.unflatten(0, (-1, 3))).distances
    assert report["accuracy"] == metrics.triplet_accuracy(distances)["accuracy"]
    page = results_page(report)
    assert "| all | 20 |" in page
    assert "one-class" in page


def test_what_does_not_belong_together(faces, encoder, tiny_checkpoint, tmp_path):
    with pytest.raises(EvaluationError, match="encoder cannot be scored on the AUs of synthetic"):
        evaluate(encoder, "synthetic", faces)
    with pytest.raises(EvaluationError, match="A model that predicts AUs cannot be scored on the triplets"):
        evaluate(tiny_checkpoint, "synthetic", faces, triplets=5)
    with pytest.raises(EvaluationError, match="`split` must be one of 'test', 'train', 'all', got 'tset'"):
        evaluate(tiny_checkpoint, "synthetic", faces, split="tset")
    with pytest.raises(EvaluationError, match=r"`threshold` must lie in \[0, 1\], got 2"):
        evaluate(tiny_checkpoint, "synthetic", faces, threshold=2)
    raw = write_example("bp4d", tmp_path / "bp4d", subjects_per_part=1, tasks=("T1",), frames=2)
    with pytest.raises(DatasetError, match="hf-geaau prepare bp4d --data-dir"):
        evaluate(tiny_checkpoint, "bp4d", raw)
    (tiny_checkpoint / "training_facts.json").write_text("no json")
    with pytest.raises(EvaluationError, match="Cannot read .*, which is no JSON"):
        evaluate(tiny_checkpoint, "synthetic", faces)


def test_a_directory_of_folds(faces, tiny_checkpoint, tmp_path):
    directory = tmp_path / "folds"
    for fold in (1, 2, 3):
        shutil.copytree(tiny_checkpoint, directory / f"fold{fold}")
        trained_for(directory / f"fold{fold}", fold=fold)
    assert fold_numbers(directory) == [1, 2, 3]
    assert trained_fold(directory / "fold3", "synthetic") == 3
    assert trained_fold(directory / "fold3", "bp4d") is None
    report = evaluate_folds(directory, "synthetic", faces)
    assert list(report["folds"]) == ["1", "2", "3"]
    assert all(part["identities_shared_with_training"] == 0 for part in report["folds"].values())
    means = [part["mean"]["f1"] for part in report["folds"].values()]
    assert report["mean_of_folds"]["mean"]["f1"] == pytest.approx(np.mean(means))
    assert report["pooled"]["action_units"]["AU12"]["labelled"] == 36
    page = results_page(report)
    assert "mean of folds 1, 2, 3" in page
    assert "36 of 9 subjects" in page
    assert "Beside published numbers" not in page  # rendered faces have none
    assert fold_numbers(tiny_checkpoint) == []
    with pytest.raises(EvaluationError, match="must hold fold1, fold2, …, got none"):
        evaluate_folds(tiny_checkpoint, "synthetic", faces)


# --- published numbers ---


def test_published_rows_have_the_means_that_they_print_or_say_that_they_have_not():
    data = published()
    for name, entry in data["datasets"].items():
        assert tuple(entry["action_units"]) == facs.ORDERS[name]
        assert entry["folds"] == len(get_dataset(name, **({"camera": "left"} if name == "disfa" else {})).PARTS)
        methods = [row[0] for row in entry["rows"]]
        assert len(set(methods)) == len(methods)
        assert "GTLE-Net" in methods
        assert not any("recalled" in method for method in methods)
        for method, values, mean, source, *caveat in entry["rows"]:
            assert len(values) == len(entry["action_units"])
            assert source in data["sources"]
            is_off = abs(np.mean(values) - mean) > 0.15
            assert is_off == ("printed mean is not that of the row" in " ".join(caveat)), method
    assert {name: len(entry["rows"]) for name, entry in data["datasets"].items()} == {
        "bp4d": 48,
        "disfa": 48,
        "bp4d_plus": 9,
    }


def test_a_page_sets_a_report_beside_them():
    names = facs.labels("disfa")
    entry = {"f1": 0.5, "precision": 0.5, "recall": 0.5, "auc": None, "base_rate": 0.1, "always_on_f1": 0.2}
    report = {
        "title": "DISFA", "dataset": "disfa", "is_licensed": True, "fold": 2, "protocol": "jaanet", "split": "test",
        "frames": 43605, "subjects": 9, "identities_shared_with_training": 0, "notes": ["A note."], "mean": entry,
        "action_units": {name: {**entry, "threshold": 0.5} for name in names},
    }  # fmt: skip
    page = results_page(report)
    assert "| **ours** | 50.0 | 50.0 |" in page
    assert "| GTLE-Net | 64.5 | 63.2 | 70.1 | 47.7 | 53.6 | 76.2 | 94.8 | 65.1 | 66.9 | Ens |" in page
    assert "Differences under about one point are not evidence" in page
    assert "Ours is of 1 of the 3 folds" in page
    assert "UGN-B: the printed mean is not that of the row (59.4)." in page
    assert "Ens: READMEs of EnsembleAU" in page
    assert "folds numbered as in jaanet" in page
    assert "GLEE" not in page
    assert "- A note." in page
    assert "| AU01 | 0.100 | 0.200 | 0.500 | 0.500 | 0.500 | – |" in page
    del report["action_units"]["AU26"]
    assert "| – | other AUs | this page |" in results_page(report)


# --- calibration ---


def test_thresholds_are_the_best_and_nearest_to_the_middle():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (300, 4))
    chances = np.clip(0.3 * (labels == 1) + 0.7 * rng.random((300, 4)), 0, 1).astype(np.float32)
    labels[:, 3] = np.minimum(labels[:, 3], 0)
    found = best_thresholds(labels, chances)
    grid = np.round(np.arange(0.01, 1, 0.01), 2)
    scores = np.array([metrics.au_f1(labels, chances, cut)["f1"] for cut in grid])
    reached = metrics.au_f1(labels, chances, found)["f1"]
    np.testing.assert_allclose(reached[:3], scores.max(0)[:3])
    for column in range(3):
        ties = grid[scores[:, column] == scores[:, column].max()]
        assert abs(found[column] - 0.5) == pytest.approx(np.abs(ties - 0.5).min())
    assert found[3] == 0.5  # no positives
    assert best_thresholds([[1], [0]], [[0.9], [0.1]]).tolist() == [0.5]  # anything from 0.11 to 0.9 is as good
    assert best_thresholds([[1], [0]], [[0.9], [0.7]]).tolist() == [0.71]


def test_the_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (20_000, 2))
    labels = (rng.random(honest.shape) < 1 / (1 + np.exp(-honest))).astype(float)
    labels[::5] = -1
    assert best_temperature(3 * honest, labels) == pytest.approx(3, rel=0.05)
    assert best_temperature(honest / 2, labels) == pytest.approx(0.5, rel=0.05)
    logits, known = 3 * honest, labels >= 0

    def loss(temperature):
        scores = logits[known] / temperature
        return np.mean(np.logaddexp(0, scores) - scores * labels[known])

    best = best_temperature(logits, labels)
    assert all(loss(best) <= loss(best * factor) for factor in (0.97, 0.99, 1.01, 1.03))
    assert best_temperature([[5.0], [-5.0]], [[1], [0]]) == pytest.approx(0.05, abs=1e-3)  # separable: the lower end


def test_calibration_changes_the_config_and_tells_what_it_did(faces, tiny_model, tiny_checkpoint, processor):
    trained_for(tiny_checkpoint, fold=1, validation_subject_ids=["render-0-1", "render-0-2"])
    before = json.loads((tiny_checkpoint / "config.json").read_text())
    report = calibrate(tiny_checkpoint, "synthetic", faces, 1)
    config = GeaauConfig.from_pretrained(tiny_checkpoint)
    assert json.loads((tiny_checkpoint / "calibration.json").read_text()) == report
    assert report["validation_from"] == "the subjects that training validated on"
    assert (report["validation_subjects"], report["frames"]) == (2, 8)
    assert config.temperature == report["temperature"]["after"] != 1
    rows = open_aligned("synthetic", faces, 1, "train")
    chosen = [place for place, who in enumerate(rows["subject_id"]) if who in ("render-0-1", "render-0-2")]
    tiny_model.config.temperature = config.temperature
    predictions = predict_dataset(tiny_model, processor, rows.select(chosen))
    labels = predictions.labels[:, facs.index_map([1, 12, 25], facs.SYNTHETIC)[1]]
    np.testing.assert_allclose(config.thresholds, best_thresholds(labels, predictions.probabilities))
    scored = metrics.au_f1(labels, predictions.probabilities, config.thresholds)
    assert report["f1"]["after"] == pytest.approx(scored["mean"]["f1"], abs=1e-6)
    assert report["f1"]["after"] >= report["f1"]["before"]
    assert report["nll"]["after"] <= report["nll"]["before"]
    assert set(report["action_units"]["AU12"]) == {
        "threshold",
        "f1",
        "expected_calibration_error",
        "false_alarms",
    }
    after = json.loads((tiny_checkpoint / "config.json").read_text())
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {"temperature", "thresholds"}
    assert evaluate(tiny_checkpoint, "synthetic", faces)["temperature"] == config.temperature


def test_validation_subjects_are_training_subjects_and_seeded(faces, tiny_checkpoint, tmp_path):
    with pytest.warns(
        DatasetWarning,
        match="no validation subjects of this data, so .* on 2 of 6 training subjects",
    ):
        report = calibrate(tiny_checkpoint, "synthetic", faces, 1, output=tmp_path / "a", validation_share=0.3)
    assert report["frames"] == 8
    assert (tmp_path / "a" / "model.safetensors").is_file()
    assert not (tiny_checkpoint / "calibration.json").exists()  # the original is as it was
    assert report == calibrate(tiny_checkpoint, "synthetic", faces, 1, output=tmp_path / "b", validation_share=0.3)
    # People of fold 1's test set validated a model of fold 2: of no use for fold 1.
    trained_for(tiny_checkpoint, fold=2, validation_subject_ids=["render-0-0", "render-0-2"])
    again = calibrate(tiny_checkpoint, "synthetic", faces, 1, output=tmp_path / "c")
    assert again["validation_from"] == "1 of 6 training subjects, seed 0"


def test_calibration_keeps_what_it_has_no_labels_for(faces, tiny_model, tiny_checkpoint):
    tiny_model.config.action_units = [1, 12, 28]  # rendered faces have no AU28
    tiny_model.config.thresholds = [0.3, 0.3, 0.3]
    tiny_model.save_pretrained(tiny_checkpoint)
    report = calibrate(tiny_checkpoint, "synthetic", faces, 1)
    assert GeaauConfig.from_pretrained(tiny_checkpoint).thresholds[2] == 0.3
    assert "AU28" not in report["action_units"]


def test_calibration_refuses(faces, encoder, tiny_checkpoint, tmp_path, monkeypatch):
    for model in (None, BUNDLED_CHECKPOINT):
        with pytest.raises(EvaluationError, match="Cannot change the bundled checkpoint in place. Pass `output`"):
            calibrate(model, "synthetic", faces)
    with pytest.raises(EvaluationError, match="Cannot change 'owner/name' on the Hub in place"):
        calibrate("owner/name", "synthetic", faces)
    with pytest.raises(EvaluationError, match="`output` must be a new or empty folder"):
        calibrate(tiny_checkpoint, "synthetic", faces, output=faces)
    with pytest.raises(EvaluationError, match="`validation_share` must lie between 0 and 1, got 1"):
        calibrate(tiny_checkpoint, "synthetic", faces, validation_share=1)
    with pytest.raises(EvaluationError, match="encoder cannot be scored on the AUs"):
        calibrate(encoder, "synthetic", faces)
    before = (tiny_checkpoint / "config.json").read_bytes()
    monkeypatch.setattr("hf_geaau.evaluation.calibration.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calibrate(tiny_checkpoint, "synthetic", faces, output=tmp_path / "copy")
    assert not (tmp_path / "copy").exists()  # nobody finds half a checkpoint
    assert not list(tmp_path.glob(".calibrate-*"))
    assert (tiny_checkpoint / "config.json").read_bytes() == before


def test_bf16_and_square_photos_of_any_size(faces, tiny_model, processor):
    for path in (faces / "images").iterdir():
        Image.open(path).resize((96, 96)).save(path)
    rows = open_aligned("synthetic", faces, 1, "test")
    exact = predict_dataset(tiny_model, processor, rows, device="cpu")
    rough = predict_dataset(tiny_model, processor, rows, device="cpu", bf16=True)
    assert rough.logits.dtype == np.float32
    assert not np.array_equal(exact.logits, rough.logits)
    np.testing.assert_allclose(exact.probabilities, rough.probabilities, atol=0.05)


def test_a_page_of_the_reports_of_several_sets(tiny_config):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 3)).astype(np.float32), rng.integers(0, 2, (60, 3)).astype(np.float32)
    probabilities = torch.from_numpy(logits).sigmoid().numpy()
    subjects = np.repeat(["A", "B"], 30)
    predictions = Predictions(logits, probabilities, None, labels, labels, subjects, np.arange(60))
    report = score(predictions, tiny_config, (1, 12, 25))
    page = results_page({"reports": {"test": report, "unseen": report}})
    assert "# test: all subjects" in page
    assert "# unseen: all subjects" in page
    assert page.count("| mean |") == 2


def test_thresholds_stay_in_their_range():
    labels = np.repeat([[1, 1, 1], [0, 0, 0]], 50, axis=0).astype(np.float32)
    logits = np.linspace([4.0, 1.0, 1.0], [-1.0, -3.0, -0.5], 100).astype(np.float32)  # best at about .82, .27 and .56
    made = Predictions(
        logits=logits, probabilities=1 / (1 + np.exp(-logits)), predicted_intensities=None, labels=labels,
        intensities=None, subject_id=np.array(["a"] * 100), rows=np.arange(100), skipped=[],
    )  # fmt: skip
    config = GeaauConfig(backbone="test_resnet", image_size=64, action_units=[1, 12, 25])
    free = fit_calibration(made, config, (1, 12, 25))[0]["thresholds"]
    assert free[0] > free[2] > free[1]
    for lowest, highest in ((0.4, 0.5), (free[1], free[2])):
        chosen, scores = fit_calibration(made, config, (1, 12, 25), threshold_range=(lowest, highest))
        assert chosen["thresholds"] == np.clip(free, lowest, highest).tolist()
        assert scores["action_units"]["AU01"]["threshold"]["after"] == highest


def test_intensities_of_detected_units_become_right_on_average():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.4).astype(np.float32)
    strength = np.where(labels == 1, 3.0, 0.0).astype(np.float32)
    found = np.where(labels == 1, 1.5, 0.2).astype(np.float32)
    logits = np.where(labels == 1, 3.0, -3.0).astype(np.float32)
    logits[:5], found[:5] = -3.0, 0.1  # missed: what nobody reads does not count
    made = Predictions(
        logits=logits, probabilities=1 / (1 + np.exp(-logits)), predicted_intensities=found, labels=labels,
        intensities=strength, subject_id=np.array(["a"] * 200), rows=np.arange(200), skipped=[],
    )  # fmt: skip
    config = GeaauConfig(backbone="test_resnet", image_size=64, action_units=[1, 12, 25], predict_intensity=True)
    chosen, scores = fit_calibration(made, config, (1, 12, 25))
    assert chosen["intensity_scale"] == scores["intensity_scale"]["after"] == pytest.approx(2.0)
    config.intensity_scale = 0.5  # of what is there already, only the rest
    assert fit_calibration(made, config, (1, 12, 25))[0]["intensity_scale"] == pytest.approx(1.0)
