"""Metrics against scikit-learn and second definitions, on random data, with masks, no positives, no labels."""

import ast
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hf_geaau.metrics
from hf_geaau import metrics
from hf_geaau.errors import GeaauError, MetricError

FRAMES, UNITS = 400, 5
MODULES = sorted((Path(hf_geaau.metrics.__file__).parent / "modules").glob("[a-z]*.py"))


@pytest.fixture
def drawn():
    """Random labels with masks and ties; column 3 has no positives, column 4 no labels."""
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, 0, 1], p=[0.2, 0.5, 0.3], size=(FRAMES, UNITS)).astype(np.float32)
    labels[:, 3] = np.minimum(labels[:, 3], 0)
    labels[:, 4] = -1
    chances = (rng.integers(0, 41, (FRAMES, UNITS)) / 40).astype(np.float32)
    return labels, chances


def by_sklearn(labels, chances, measure, columns):
    """Score each AU alone on its labelled frames, as anybody would by hand."""
    known = labels >= 0
    return [measure(labels[known[:, c], c], chances[known[:, c], c]) for c in columns]


@pytest.mark.parametrize("zero_division", [0.0, 1.0, np.nan])
def test_f1_precision_recall_and_accuracy_are_those_of_sklearn(drawn, zero_division):
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, chances = drawn
    thresholds = np.array([0.5, 0.3, 0.7, 0.5, 0.5])
    scores = metrics.au_f1(labels, chances, thresholds, zero_division)
    for name, measure in (("f1", "f1_score"), ("precision", "precision_score"), ("recall", "recall_score")):
        expected = [
            by_sklearn(
                labels,
                chances >= np.float32(thresholds[c]),
                lambda y, p, measure=measure: getattr(sklearn, measure)(y, p, zero_division=zero_division),
                [c],
            )[0]
            for c in range(4)
        ]
        np.testing.assert_allclose(scores[name][:4], expected, atol=1e-12)
        assert np.isnan(scores[name][4])
        assert scores["mean"][name] == pytest.approx(np.nanmean(expected))
    right = by_sklearn(labels, chances >= 0.5, sklearn.accuracy_score, range(4))
    np.testing.assert_allclose(metrics.au_accuracy(labels, chances)["accuracy"][:4], right)


def test_base_rate_and_always_on(drawn):
    labels, chances = drawn
    scores = metrics.au_f1(labels, chances)
    always = metrics.au_f1(labels, np.ones_like(chances))
    np.testing.assert_allclose(scores["always_on_f1"], always["f1"])
    np.testing.assert_allclose(scores["base_rate"], always["precision"])
    assert scores["labelled"].tolist() == (labels >= 0).sum(0).tolist()
    assert scores["positives"].tolist() == (labels == 1).sum(0).tolist()
    # FACTS of BP4D: base rate 21.14 % gives an always-on F1 of 2p / (p + 1)
    rare = np.zeros((10_000, 1))
    rare[:2114] = 1
    assert metrics.au_f1(rare, rare)["always_on_f1"][0] == pytest.approx(2 * 0.2114 / 1.2114)


def test_counts_are_pooled_over_all_frames_and_not_averaged_over_batches(drawn):
    labels, chances = drawn
    whole = metrics.au_f1(labels, chances)
    order = np.random.default_rng(1).permutation(FRAMES)
    np.testing.assert_array_equal(metrics.au_f1(labels[order], chances[order])["f1"], whole["f1"])
    turned = metrics.au_f1(labels[:, ::-1], chances[:, ::-1])
    np.testing.assert_array_equal(turned["f1"][::-1], whole["f1"])
    halves = [metrics.au_f1(labels[part], chances[part])["f1"] for part in (slice(100), slice(100, None))]
    assert not np.allclose(np.mean(halves, axis=0)[:3], whole["f1"][:3])


def test_no_positives_and_no_labels(drawn):
    labels, chances = drawn
    never = metrics.au_f1(labels, np.zeros_like(chances))
    assert never["f1"][3] == 0  # 0 / 0
    assert metrics.au_f1(labels, np.zeros_like(chances), zero_division=1)["f1"][3] == 1
    assert metrics.au_f1(labels, np.ones_like(chances), zero_division=1)["f1"][3] == 0  # 0 / 400: predicted, and wrong
    blank = np.full((3, 2), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in (metrics.au_f1, metrics.au_auc, metrics.au_accuracy, metrics.expected_calibration_error):
            scores = function(blank, np.zeros((3, 2)))
            assert all(np.isnan(value) for name, value in scores["mean"].items() if name not in COUNTS)
        for function in (metrics.au_icc, metrics.au_mae):
            assert np.isnan(list(function(blank, np.zeros((3, 2)))["mean"].values())).all()


COUNTS = {"labelled", "positives", "predicted", "true_positives"}


def test_auc_is_that_of_sklearn_with_ties(drawn):
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, chances = drawn
    found = metrics.au_auc(labels, chances)["auc"]
    np.testing.assert_allclose(found[:3], by_sklearn(labels, chances, sklearn.roc_auc_score, range(3)))
    assert np.isnan(found[3:]).all()  # a column without positives has no AUC


def test_a_threshold_is_reached_in_the_precision_of_the_probabilities():
    chances = np.full((1, 1), 0.7, np.float32)  # just below the 0.7 of float64
    assert metrics.au_f1([[1]], chances, 0.7)["f1"][0] == 1
    assert metrics.au_f1([[1]], chances, [0.7])["f1"][0] == 1


def anova_icc(ratings):
    """ICC(3,1) from the two-way table, as Shrout & Fleiss print it."""
    subjects, raters = ratings.shape
    grand = ratings.mean()
    between = raters * ((ratings.mean(1) - grand) ** 2).sum()
    columns = subjects * ((ratings.mean(0) - grand) ** 2).sum()
    residual = ((ratings - grand) ** 2).sum() - between - columns
    bms, ems = between / (subjects - 1), residual / ((subjects - 1) * (raters - 1))
    return (bms - ems) / (bms + (raters - 1) * ems)


def test_icc_is_that_of_the_anova_table():
    rng = np.random.default_rng(0)
    coded = rng.integers(0, 6, (200, 3)).astype(float)
    guess = np.clip(0.6 * coded + rng.normal(1, 1, coded.shape), 0, 5)
    coded[rng.random(coded.shape) < 0.2] = -1
    found = metrics.au_icc(coded, guess)
    for column in range(3):
        known = coded[:, column] >= 0
        pair = np.stack([coded[known, column], guess[known, column]], 1)
        assert found["icc"][column] == pytest.approx(anova_icc(pair))
        expected = np.abs(pair[:, 0] - pair[:, 1]).mean()
        assert metrics.au_mae(coded, guess)["mae"][column] == pytest.approx(expected)
    # The worked example of Shrout & Fleiss 1979 has ICC(3,1) = .71 with four raters; two of them, by the table:
    table = np.array([[9, 2], [6, 1], [8, 4], [7, 1], [10, 5], [6, 2]], float) / 2
    assert metrics.au_icc(table[:, :1], table[:, 1:])["icc"][0] == pytest.approx(anova_icc(table))


def test_icc_of_constants():
    varying, constant = np.array([[0.0], [1.0], [2.0]]), np.full((3, 1), 0.1)
    assert metrics.au_icc(varying, constant)["icc"][0] == 0
    assert np.isnan(metrics.au_icc(np.ones((3, 1)), constant)["icc"][0])
    assert np.isnan(metrics.au_icc([[1.0]], [[1.0]])["icc"][0])
    assert metrics.au_icc(varying, varying + 3)["icc"][0] == pytest.approx(1)  # an offset costs nothing


def test_calibration_error_is_that_of_the_bins(drawn):
    labels, chances = drawn
    chances = np.clip(chances + 0.003, 0, 1)
    found = metrics.expected_calibration_error(labels, chances, bins=10)["expected_calibration_error"]
    for column in range(4):
        known = labels[:, column] >= 0
        truth, said, expected = labels[known, column], chances[known, column], 0.0
        for low in range(10):
            inside = (said >= low / 10) & (said < (low + 1) / 10 if low < 9 else said <= 1)
            if inside.any():
                expected += inside.mean() * abs(said[inside].mean() - truth[inside].mean())
        assert found[column] == pytest.approx(expected, abs=1e-6)
    assert metrics.expected_calibration_error([[1], [0]], [[1.0], [0.0]])["mean"]["expected_calibration_error"] == 0


def test_triplets_by_hand_and_by_criterion():
    distances = np.random.default_rng(0).random((300, 3))
    types = np.arange(300) % 3
    scores = metrics.triplet_accuracy(distances, types)
    assert scores["accuracy"] == np.mean(distances.argmin(1) == 0)  # FECNet's words
    d12, d13, d23 = distances.T
    assert scores["accuracy"] == np.mean((d12 < d13) & (d12 < d23))  # FreeAvatar's: the same
    assert scores["anchor_accuracy"] == np.mean(d12 < d13) > scores["accuracy"]
    for number, name in enumerate(("one_class", "two_class", "three_class")):
        assert scores[f"accuracy_{name}"] == np.mean(distances[types == number].argmin(1) == 0)
        assert scores[f"triplets_{name}"] == 100
    assert metrics.triplet_accuracy(np.zeros((4, 3)))["accuracy"] == 0  # collapsed
    assert np.isnan(metrics.triplet_accuracy(distances, np.zeros(300))["accuracy_two_class"])


def labels_and(probabilities, labels=((1, 0), (0, 1))):
    return lambda: metrics.au_f1(labels, probabilities)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (labels_and([[0.1], [0.2]]), r"must have one shape, \(F, N\).*got \(2, 2\) and \(2, 1\)"),
        (labels_and([0.1, 0.2], [1, 0]), r"got \(2,\) and \(2,\)"),
        (labels_and([[0.1, np.nan], [0.2, 0.3]]), r"`probabilities` must be finite, got nan in frame 0, column 1"),
        (labels_and([[0.1, 0.2], [0.3, 0.4]], [[1, 9], [0, 1]]), r"`labels` must be 1 .* got 9 in frame 0, column 1"),
        (labels_and([[0.1, 0.2]], [[0, np.nan]]), r"`labels` must be 1 .* got nan in frame 0, column 1"),
        (labels_and([[4.0, 0.2], [0.3, -3]]), r"must lie in \[0, 1\], got values from -3 to 4\. Apply the sigmoid"),
        (labels_and(np.zeros((0, 3)), np.zeros((0, 3))), r"at least one frame and one AU, got shape \(0, 3\)"),
        (labels_and([["a", "b"]], [[1, 0]]), r"must be \(F, N\) arrays of numbers, got could not convert"),
        (lambda: metrics.au_f1([[1, 0]], [[0.1, 0.2]], [0.5] * 3), r"one for each of the 2 AUs, got \(3,\)"),
        (lambda: metrics.au_f1([[1]], [[0.1]], 1.5), r"`threshold` must lie in \[0, 1\], got"),
        (lambda: metrics.au_icc([[7]], [[1]]), r"`intensities` must lie from 0 to 5, .* got 7 in frame 0"),
        (lambda: metrics.au_mae([[1]], [[np.inf]]), r"`predictions` must be finite, got inf"),
        (lambda: metrics.expected_calibration_error([[1]], [[1.0]], 0), r"`bins` must be at least 1, got 0"),
        (lambda: metrics.triplet_accuracy(np.zeros((0, 3))), r"shape \(B, 3\): d12, d13, d23 .* got \(0, 3\)"),
        (lambda: metrics.triplet_accuracy([[1, 2]]), r"got \(1, 2\)"),
        (lambda: metrics.triplet_accuracy([[1, 2, np.nan]]), r"must be finite and not negative"),
        (lambda: metrics.triplet_accuracy([[1, 2, 3]], [0, 1]), r"`triplet_types` must have shape \(1,\), got \(2,\)"),
        (lambda: metrics.triplet_accuracy([[1, 2, 3]], [3]), r"must be 0 \(one-class\)"),
        (lambda: metrics.mean_of_folds([]), r"must hold at least one report, each with 'action_units', got 0"),
        (lambda: metrics.pooled_folds([report(0, 1), {"action_units": {}}]), r"must hold at least one report|same AUs"),
        (lambda: metrics.compute_metrics(prediction(np.ones((2, 2)), None)), r"must hold arrays, got None"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(call, message):
    with pytest.raises(MetricError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError | GeaauError)


# --- folds ---


def report(predicted, true_positives, positives=10, labelled=100):
    counts = {"labelled": labelled, "positives": positives, "predicted": predicted, "true_positives": true_positives}
    f1 = 2 * true_positives / (positives + predicted)
    entry = {"f1": f1, "auc": None, "threshold": 0.5, **counts}
    return {"action_units": {"AU01": entry}, "mean": {"f1": f1, "auc": None, **counts}}


def test_two_ways_to_put_folds_together():
    folds = [report(10, 10), report(90, 10, labelled=200), report(0, 0)]  # F1 1, 0.2, 0
    mean, pooled = metrics.mean_of_folds(folds), metrics.pooled_folds(folds)
    assert mean["action_units"]["AU01"]["f1"] == pytest.approx(0.4)
    assert mean["mean"]["f1"] == pytest.approx(0.4)
    assert mean["spread"]["f1"] == pytest.approx(np.std([1, 0.2, 0], ddof=1))
    assert mean["mean"]["auc"] is None
    assert "threshold" not in mean["action_units"]["AU01"]
    entry = pooled["action_units"]["AU01"]
    assert entry["f1"] == pytest.approx(40 / 130)
    assert (entry["labelled"], entry["base_rate"]) == (400, pytest.approx(30 / 400))
    assert entry["accuracy"] == pytest.approx(1 - (30 + 100 - 40) / 400)
    assert metrics.mean_of_folds(folds[:1])["spread"]["f1"] is None


# --- the Trainer ---


def prediction(predictions, label_ids):
    return SimpleNamespace(predictions=predictions, label_ids=label_ids)


CONFIG = SimpleNamespace(id2label={0: "AU01", 1: "AU12"}, thresholds=[0.5, 0.2], temperature=2.0)


def test_metrics_of_a_prediction():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 2)), rng.integers(-1, 2, (50, 2))
    strength, coded = rng.random((50, 2)) * 5, rng.integers(-1, 6, (50, 2))
    chances = 1 / (1 + np.exp(-logits))
    plain = metrics.compute_metrics(prediction(logits, labels))
    expected = metrics.au_f1(labels, chances)
    assert plain["f1"] == pytest.approx(expected["mean"]["f1"])  # the sigmoid once
    assert plain["auc"] == pytest.approx(metrics.au_auc(labels, chances)["mean"]["auc"])
    assert not any("AU" in name for name in plain)
    named = metrics.metrics_for(CONFIG)(prediction((logits, strength), (labels, coded)))
    own = metrics.au_f1(labels, 1 / (1 + np.exp(-logits / 2)), [0.5, 0.2])
    assert named["f1_AU12"] == pytest.approx(own["f1"][1])
    assert named["icc_AU01"] == pytest.approx(metrics.au_icc(coded, strength)["icc"][0])
    assert named["mae"] == pytest.approx(metrics.au_mae(coded, strength)["mean"]["mae"])
    only_labels = metrics.metrics_for(CONFIG)(prediction((logits, strength), labels))
    assert "icc" not in only_labels
    assert np.isfinite(metrics.compute_metrics(prediction(logits * 1e4, labels))["f1"])  # no overflow
    with pytest.raises(MetricError, match=r"one column per AU, got \(2, 3\)"):
        metrics.metrics_for(CONFIG)(prediction(np.zeros((2, 3)), np.zeros((2, 3))))


def test_metrics_batch_by_batch_are_those_of_all_frames():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 2)), rng.integers(-1, 2, (50, 2))
    by_batch = pickle.loads(pickle.dumps(metrics.metrics_for(CONFIG)))
    for _ in range(2):  # and a second evaluation starts anew
        for first in range(0, 50, 20):
            part = slice(first, first + 20)
            tensors = torch.tensor(logits[part]), torch.tensor(labels[part])
            found = by_batch(prediction(*tensors), compute_result=first == 40)
            assert bool(found) == (first == 40)
        assert found == metrics.metrics_for(CONFIG)(prediction(logits, labels))


def test_only_logits_are_gathered():
    logits, maps = torch.zeros(4, 16), torch.zeros(4, 16, 8, 8)
    embedding, labels = torch.zeros(4, 16), torch.zeros(4, 16)
    keep = metrics.preprocess_logits_for_metrics
    assert keep(logits, labels) is logits
    assert keep((logits, embedding, maps), labels) is logits  # an embedding of 16 is no intensity of 16 AUs
    pair = keep((logits, embedding, maps), (labels, labels))
    assert pair[0] is logits
    assert pair[1] is embedding
    assert keep((logits, maps), (labels, labels)) is logits


@pytest.mark.parametrize("by_batch", [False, True])
def test_a_plain_trainer_logs_them(tiny_config, tmp_path, by_batch):
    pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
    from transformers import Trainer, TrainingArguments

    from hf_geaau import GeaauModel

    tiny_config.predict_intensity = True
    tiny_config.thresholds = [0.4, 0.5, 0.6]
    model = GeaauModel(tiny_config).eval()
    rng = np.random.default_rng(0)
    items = [
        {
            "pixel_values": torch.from_numpy(rng.normal(size=(3, 64, 64)).astype(np.float32)),
            "labels": torch.from_numpy(rng.integers(-1, 2, 3).astype(np.float32)),
            "intensities": torch.from_numpy(rng.integers(-1, 6, 3).astype(np.float32)),
        }
        for _ in range(10)
    ]
    settings = TrainingArguments(
        str(tmp_path), per_device_eval_batch_size=4, report_to="none", use_cpu=True, batch_eval_metrics=by_batch,
        label_names=["labels", "intensities"],
    )  # fmt: skip
    model.config.keys_to_ignore_at_inference = []  # it would gather all feature maps
    trainer = Trainer(
        model, settings, eval_dataset=items, compute_metrics=metrics.metrics_for(model.config),
        preprocess_logits_for_metrics=metrics.preprocess_logits_for_metrics,
    )  # fmt: skip
    found = trainer.evaluate()
    with torch.inference_mode():
        output = model(torch.stack([item["pixel_values"] for item in items]))
    labels, coded = (np.stack([item[name].numpy() for item in items]) for name in ("labels", "intensities"))
    expected = metrics.au_f1(labels, output.logits.sigmoid(), [0.4, 0.5, 0.6])
    assert found["eval_f1"] == pytest.approx(expected["mean"]["f1"])
    assert found["eval_f1_AU12"] == pytest.approx(expected["f1"][1])
    strength = metrics.au_icc(coded, output.intensities)["icc"]
    assert found["eval_icc_AU25"] == pytest.approx(strength[2], abs=1e-3)


def test_triplet_metrics_of_a_prediction():
    distances, types = np.random.default_rng(0).random((30, 3)), np.arange(30) % 3
    assert metrics.compute_triplet_metrics(prediction(distances, types)) == metrics.triplet_accuracy(distances, types)


def test_tensors_of_any_type():
    chances = torch.tensor([[0.75], [0.25]], dtype=torch.bfloat16, requires_grad=True)
    assert metrics.au_f1(torch.tensor([[1], [0]]), chances)["f1"].tolist() == [1.0]


# --- evaluate ---


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_evaluate_loads_each_file_offline(path, tmp_path, monkeypatch, drawn):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path, raising=False)
    metric = evaluate.load(str(path), cache_dir=str(tmp_path))
    function = getattr(metrics, path.stem)
    labels, chances = drawn
    predictions, references = chances.astype(np.float64), labels
    if path.stem == "triplet_accuracy":
        predictions, references = chances[:, :3].astype(np.float64), np.arange(FRAMES) % 3
        expected = function(predictions, references)["accuracy"]
    else:
        expected = function(references, predictions)["mean"][path.stem.removeprefix("au_")]
    for part in (slice(0, 150), slice(150, None)):
        metric.add_batch(predictions=predictions[part].tolist(), references=references[part].tolist())
    assert metric.compute()[path.stem.removeprefix("au_").removeprefix("triplet_")] == pytest.approx(expected)


def test_classes_and_the_files_that_evaluate_can_read():
    pytest.importorskip("evaluate")
    from hf_geaau.metrics import AUAUC, AUF1

    assert AUF1.__module__.endswith("modules.au_f1")
    assert AUAUC().inputs_description
    names = [Path(path).stem for path in MODULES]
    assert sorted(hf_geaau.metrics._MODULES.values()) == sorted(names)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            assert not isinstance(node, ast.Import) or len(node.names) == 1
    with pytest.raises(AttributeError, match="no attribute 'AUF2'"):
        _ = metrics.AUF2


def test_evaluate_combine_gives_the_same_scores(drawn):
    evaluate = pytest.importorskip("evaluate")
    from hf_geaau.metrics import AUAUC, AUF1, AUAccuracy

    labels, chances = drawn[0], drawn[1].astype(np.float64)
    combined = evaluate.combine([AUF1(), AUAUC(), AUAccuracy()])
    for part in (slice(0, 150), slice(150, None)):
        combined.add_batch(predictions=chances[part].tolist(), references=labels[part].tolist())
    found = combined.compute()
    for function in (metrics.au_f1, metrics.au_auc, metrics.au_accuracy):
        for name, value in function(labels, chances)["mean"].items():
            assert found[name] == pytest.approx(value), name


def test_torchmetrics_gives_the_same_scores():
    classification = pytest.importorskip("torchmetrics.classification")
    rng = np.random.default_rng(0)
    labels, chances = rng.integers(-1, 2, (FRAMES, UNITS)), rng.random((FRAMES, UNITS))
    kinds = {"f1": ("F1Score", "au_f1"), "auc": ("AUROC", "au_auc"), "accuracy": ("Accuracy", "au_accuracy")}
    for name, (theirs, ours) in kinds.items():
        metric = getattr(classification, f"Multilabel{theirs}")(UNITS, average=None, ignore_index=-1)
        expected = metric(torch.tensor(chances), torch.tensor(labels)).numpy()
        np.testing.assert_allclose(getattr(metrics, ours)(labels, chances)[name], expected, atol=1e-6)


def test_functions_need_no_torch_and_no_evaluate():
    folder = Path(hf_geaau.metrics.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"torch", "evaluate", "transformers", "datasets"}


def test_the_bootstrap_draws_whole_groups():
    groups, drawn = np.array(["b", "a", "b", "c"]), []
    scores = metrics.bootstrap(groups, lambda rows: drawn.append(rows) or len(rows), resamples=30)
    assert scores.tolist() == [len(rows) for rows in drawn]
    for rows in drawn:
        names = groups[rows].tolist()
        assert names.count("b") % 2 == 0
        assert names.count("a") + names.count("b") // 2 + names.count("c") == 3
    again = metrics.bootstrap(groups, len, resamples=30)
    np.testing.assert_array_equal(scores, again)
