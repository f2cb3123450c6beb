"""Measure the metrics on a whole fold beside scikit-learn, which takes one AU at a time.

Prints, for 150,000 frames of 12 AUs with one label in ten masked, milliseconds of each metric and of the loop over
scikit-learn's `f1_score` and `roc_auc_score`, fastest of some alternating runs in this process, and their ratio. The
results are checked to be equal.
"""

import time

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score

from hf_geaau import metrics

FRAMES, UNITS, RUNS = 150_000, 12, 5
REQUIRED_MS = 50  # for au_f1

rng = np.random.default_rng(0)
labels = rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(FRAMES, UNITS)).astype(np.float32)
probabilities = (0.6 * rng.random((FRAMES, UNITS)) + 0.4 * (labels == 1)).astype(np.float32)
intensities, predicted = np.where(labels < 0, -1, 5 * labels), 5 * probabilities


def by_sklearn(measure, scores):
    labeled = labels >= 0
    return [measure(labels[labeled[:, unit], unit], scores[labeled[:, unit], unit]) for unit in range(UNITS)]


WORK = {
    "au_f1": lambda: metrics.au_f1(labels, probabilities)["f1"],
    "sklearn f1_score": lambda: by_sklearn(f1_score, probabilities >= 0.5),
    "au_auc": lambda: metrics.au_auc(labels, probabilities)["auc"],
    "sklearn roc_auc_score": lambda: by_sklearn(roc_auc_score, probabilities),
    "au_accuracy": lambda: metrics.au_accuracy(labels, probabilities)["accuracy"],
    "expected_calibration_error": lambda: metrics.expected_calibration_error(labels, probabilities),
    "au_icc": lambda: metrics.au_icc(intensities, predicted)["icc"],
    "au_mae": lambda: metrics.au_mae(intensities, predicted)["mae"],
}
times = {name: float("inf") for name in WORK}
results = {}
for _ in range(RUNS):  # in turn, so that other load slows all of them alike
    for name, work in WORK.items():
        start = time.perf_counter()
        results[name] = work()
        times[name] = min(times[name], 1000 * (time.perf_counter() - start))
for ours, theirs in (("au_f1", "sklearn f1_score"), ("au_auc", "sklearn roc_auc_score")):
    assert np.allclose(results[ours], results[theirs], atol=1e-9), ours
    ratio = times[theirs] / times[ours]
    print(f"{ours}: {times[ours]:.1f} ms; {theirs}, AU by AU: {times[theirs]:.1f} ms; {ratio:.1f} times as fast")
for name in list(WORK)[4:]:
    print(f"{name}: {times[name]:.1f} ms")
assert times["au_f1"] < REQUIRED_MS, f"au_f1 must take less than {REQUIRED_MS} ms, took {times['au_f1']:.1f}"
