"""Judge checkpoints on photos with labels: each AU, false alarms of neutral faces, calibration, expression embedding.

The table has the columns `image` (path, relative to the table), AU01, AU04, … (1 present, 0 absent, empty: unsure) and
`neutral` (1 if the face rests). The largest face of each photo counts. The embedding is judged by triplets of photos
that the labels decide: two whose labels agree, and one whose labels differ from both in three AUs or more.

    python -m benchmarks.photos TABLE.csv [CHECKPOINT ...]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hf_geaau import facs
from hf_geaau.backends import load_analyzer
from hf_geaau.errors import PhotoError
from hf_geaau.faces import read_photo
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.metrics import au_auc, au_f1, triplet_accuracy
from hf_geaau.search import expression_distance

LEAST_POSITIVES = 5
SURE_FROM, BINS = 0.4, 10  # of probabilities whose calibration counts: those that say "perhaps" and more
LEAST_SHARED, ALIKE, DIFFERENT, TRIPLETS = 12, 0, 3, 3000  # AUs labeled in both photos; AUs that differ


@dataclass(frozen=True)
class Photos:
    """F faces: labels (F, N) 1, 0 or NaN, whether each rests (F,), and where it came from."""

    labels: np.ndarray
    neutral: np.ndarray
    faces: list[object]


def read(table: Path, analyzer: FaceAnalyzer) -> Photos:
    """Find and analyze the largest face of each photo."""
    rows, kept, faces = pd.read_csv(table), [], []
    for index, name in enumerate(rows["image"]):
        try:
            found = analyzer(np.asarray(read_photo(table.parent / name)))
        except PhotoError as error:
            print(f"left out: {error}")
            continue
        if found:
            kept.append(index)
            faces.append(found[0])
    rows = rows.iloc[kept]
    labels = [rows.get(unit, pd.Series(np.nan, rows.index)) for unit in analyzer.runner.facts.action_units]
    return Photos(np.column_stack(labels).astype(float), rows["neutral"].to_numpy() == 1, faces)


def triplet_distances(labels: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Draw triplets that the labels decide, and return their distances (T, 3)."""
    known, shown = ~np.isnan(labels), np.nan_to_num(labels)
    shared = known.astype(int) @ known.T
    both = shown @ known.T  # AUs of the one that are labeled in the other
    apart = np.where(shared >= LEAST_SHARED, both + both.T - 2 * shown @ shown.T, np.nan)
    np.fill_diagonal(apart, np.nan)
    pairs = np.argwhere(np.triu(apart <= ALIKE))
    rng, chosen = np.random.default_rng(0), []
    for first, second in rng.permutation(pairs)[rng.integers(len(pairs), size=TRIPLETS)]:
        odd = np.flatnonzero((apart[first] >= DIFFERENT) & (apart[second] >= DIFFERENT))
        if len(odd) and (shown[first] > 0).any():  # two resting faces are alike for everybody
            chosen.append((first, second, rng.choice(odd)))
    faces = embeddings[np.array(chosen)]
    return np.stack([expression_distance(faces[:, a], faces[:, b]) for a, b in ((0, 1), (0, 2), (1, 2))], 1)


def report(name: str, photos: Photos, thresholds: np.ndarray, units: tuple[str, ...]) -> None:
    """Print a row for each AU, and the summary."""
    labels = np.where(np.isnan(photos.labels), -1, photos.labels)
    probabilities = np.stack([face.probabilities for face in photos.faces])
    auc, f1 = au_auc(labels, probabilities)["auc"], au_f1(labels, probabilities, thresholds)["f1"]
    present, resting = probabilities >= thresholds, photos.neutral
    print(f"\n{name}\n| AU | present | absent | AUC | F1 | best F1 | false alarms | in neutral faces | intensity |")
    print("|---|" + "--:|" * 8)
    for index, unit in enumerate(units):
        truth, scores = labels[:, index], probabilities[:, index]
        positives, negatives = truth == 1, truth == 0
        if not positives.any():
            continue
        best = max(
            2 * (positives & (scores >= limit)).sum() / (positives.sum() + ((truth >= 0) & (scores >= limit)).sum())
            for limit in np.unique(scores)
        )
        strength = np.mean(
            [face.intensities[index] for face, is_on in zip(photos.faces, positives, strict=True) if is_on]
        )
        alarms, calm_alarms = present[negatives, index].mean(), present[resting, index].mean()
        print(
            f"| {unit} | {positives.sum()} | {negatives.sum()} | {auc[index]:.3f} | {f1[index]:.3f} | {best:.3f}"
            f" | {alarms:.0%} | {calm_alarms:.0%} | {strength:.1f} |"
        )
    often = (labels == 1).sum(0) >= LEAST_POSITIVES
    sure = (probabilities >= SURE_FROM) & (labels >= 0)
    place = np.minimum((probabilities[sure] * BINS).astype(int), BINS - 1)
    off = [abs((probabilities[sure] - labels[sure])[place == each].sum()) for each in range(BINS)]
    print(
        f"{len(labels)} faces, {often.sum()} AUs with {LEAST_POSITIVES} positives or more: mean AUC"
        f" {auc[often].mean():.4f}, F1 {f1[often].mean():.4f}. {(present[resting].any(1)).sum()} of {resting.sum()}"
        f" neutral faces with an alarm, {present[resting].sum()} alarms."
        f" Calibration error from {SURE_FROM} on: {np.sum(off) / sure.sum():.3f}"
    )
    embeddings = np.stack([face.embedding for face in photos.faces])
    scores = triplet_accuracy(triplet_distances(photos.labels, embeddings))
    print(f"expression embedding: {scores['accuracy']:.3f} of {scores['triplets']} triplets in order (chance .333)")


def main() -> None:
    """Print the scores of every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("checkpoints", nargs="*", default=[None], help="default: the bundled one")
    arguments = parser.parse_args()
    for checkpoint in arguments.checkpoints:
        analyzer = load_analyzer(checkpoint, backend="torch", device="cpu", keep=("embedding",))
        facts = analyzer.runner.facts
        assert set(facts.action_units) <= set(facs.labels(facs.ACTION_UNITS))
        report(facts.name, read(arguments.table, analyzer), facts.thresholds, facts.action_units)


if __name__ == "__main__":
    main()
