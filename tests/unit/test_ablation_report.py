"""The arithmetic of the ablation: counts by person, F1 from them, and the bootstrap over people."""

from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.ablation.report import ARMS, Run, count_by_person, difference, mean_f1, render_report, summarize
from benchmarks.ablation.run import SCALES
from hf_geaau import facs
from hf_geaau.metrics import au_f1


def example(rng, people=6, frames=40, units=3):
    labels = rng.integers(-1, 2, (people * frames, units))
    probabilities = np.clip(0.5 * (labels == 1) + rng.random(labels.shape) * 0.7, 0, 1)
    return labels, probabilities, np.repeat([f"p{index}" for index in range(people)], frames)


def test_counts_by_person_add_up_to_the_f1_of_the_metrics():
    labels, probabilities, people = example(np.random.default_rng(0))
    counts = count_by_person(probabilities, labels, people)
    assert counts.shape == (3, 6, 3)
    assert mean_f1(counts.sum(axis=1)) == pytest.approx(au_f1(labels, probabilities)["mean"]["f1"])
    one = people == "p2"
    assert mean_f1(counts[:, 2]) == pytest.approx(au_f1(labels[one], probabilities[one])["mean"]["f1"])


def test_the_interval_of_a_difference_covers_it_and_knows_what_is_certain():
    labels, probabilities, people = example(np.random.default_rng(1), people=30)
    good = count_by_person(probabilities, labels, people)
    bad = count_by_person(np.random.default_rng(2).random(labels.shape), labels, people)
    found = difference({"gee-lam": good, "pooled": bad}, "gee-lam", "pooled")
    assert 0 < found["low"] < found["f1"] < found["high"]
    same = difference({"gee-lam": good, "pooled": good}, "gee-lam", "pooled")
    assert (same["f1"], same["low"], same["high"]) == (0, 0, 0)


def test_the_summary_averages_seeds_and_tells_their_spread():
    labels, probabilities, people = example(np.random.default_rng(3))
    counts = count_by_person(probabilities, labels, people)
    facts = {"auc": 0.8, "train_f1": 0.9, "minutes": 1.0, "steps": 10, "always_on_f1": 0.3}
    runs = [Run({"arm": arm, "seed": seed, "f1": f1, **facts}, counts)
            for arm, scores in {"pooled": (0.4, 0.6), "lam": (0.5, 0.7)}.items()
            for seed, f1 in enumerate(scores)]  # fmt: skip
    summary = summarize(runs)
    assert summary["arms"]["lam"]["f1"] == pytest.approx(0.6)
    assert summary["arms"]["lam"]["f1_spread"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert [(entry["arm"], entry["other"]) for entry in summary["differences"]] == [("lam", "pooled")]


def test_the_table_has_a_column_for_the_other_rig_if_every_arm_was_tested_on_it():
    facts = {"auc": 0.8, "train_f1": 0.9, "minutes": 1.0, "steps": 10, "always_on_f1": 0.3, "f1": 0.5, "seed": 0}
    per_au = {"per_au": {name: {"f1": 0.5} for name in facs.labels("synthetic")}}
    for crossed in ({}, {"cross_f1": 0.25, "cross_auc": 0.625}):
        runs = [Run({"arm": arm, **facts, **per_au, **crossed}, np.ones((3, 2, 3), np.int64)) for arm in ARMS]
        results = {"scale": asdict(SCALES["smoke"]), "encoders": [{"triplet_accuracy": 0.7}], "render_minutes": 1.0,
                   "machine": "one", "runs": [run.result for run in runs], **summarize(runs)}  # fmt: skip
        report = render_report(results)
        assert ("other rig" in report) == bool(crossed)
        assert ("0.625" in report) == bool(crossed)


def test_the_full_scale_keeps_the_promises_of_the_benchmark():
    full = SCALES["full"]
    assert (full.train_identities, full.seeds) == (24, 3)
    assert full.test_identities >= 30
    assert full.expression_identities >= 20 * full.train_identities
    assert [arm.length for arm in ARMS.values()] == [1, 1, 1, 1, 3]  # equal steps but for the last
    assert {("pooled", False), ("lam", False), ("pooled", True), ("lam", True)} == {
        (arm.head, arm.encoder) for arm in ARMS.values()
    }
