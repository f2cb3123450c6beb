"""Measure what subtracting each person's resting face changes, on rendered clips of people with resting looks.

Every person of the renderer has a slight permanent expression; a factor of 2 makes it look like an expression. A clip
shows two seconds of the resting face, then an expression a second for ten seconds. Prints, for the table as it is and
with each baseline: mean F1 and AUC over action units, and error and correlation of intensities, over the ten seconds;
and false alarms per frame over the first two.

    python -m benchmarks.baseline FACE_MODEL [--people 24] [--seed 901]
"""

import argparse
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from benchmarks.clips import Act, Actor, render_clip
from hf_geaau.metrics import au_auc, au_f1, au_mae
from hf_geaau.pipeline import FacialActionUnitPipeline, load_pipeline, predict_video
from hf_geaau.synthetic import load_face_model
from hf_geaau.synthetic.action_units import ACTION_UNITS, PROTOTYPES
from hf_geaau.synthetic.rendering import Renderer
from hf_geaau.tables import subtract_baseline

FPS, REST_S, EXPRESSIONS, SIZE, EYES = 5.0, 2.0, 10, (256, 256), 55.0
UNITS = [f"AU{number:02d}" for number in ACTION_UNITS]


def actor(number: int, resting: float) -> Actor:
    """Return a person who rests for two seconds, then shows ten expressions that rise and fall within a second."""
    rng = np.random.default_rng([77, number])
    acts: dict[int, list[Act]] = {}
    for index in range(EXPRESSIONS):
        start, level = REST_S + index, rng.uniform(2, 5)
        for unit in PROTOTYPES[rng.integers(len(PROTOTYPES))]:
            acts.setdefault(unit, []).append(Act(start + 0.05, start + 0.5, start + 0.95, level))
    where = [(0.0, SIZE[0] / 2, SIZE[1] * 0.42), (REST_S + EXPRESSIONS, SIZE[0] / 2, SIZE[1] * 0.42)]
    return Actor(number, where, EYES, acts, sway=0.15, resting=resting)


def clips(
    renderer: Renderer, pipe: FacialActionUnitPipeline, people: int, resting: float, seed: int
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]:
    """Yield for each person the predicted table, the true intensities of its rows, and the table of a neutral photo."""
    for number in range(people):
        who = actor(number, resting)
        frames = list(render_clip(renderer, [who], REST_S + EXPRESSIONS, FPS, SIZE, seed))
        photo = next(
            render_clip(renderer, [Actor(number, who.path, EYES, sway=0.0, resting=resting)], 1, 1, SIZE, seed)
        )
        table = _table(pipe, [frame.image for frame in frames]).assign(source=f"person {number}")
        truth = np.array([frame.people[0].intensities for frame in frames])[table.frame]
        yield table, pd.DataFrame(truth, columns=UNITS), _table(pipe, [photo.image])


def _table(pipe: FacialActionUnitPipeline, images: list[np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame(predict_video(images, pipe, fps=FPS, detect_every=1, workers=1))


def scores(table: pd.DataFrame, truth: pd.DataFrame, thresholds: Mapping[str, float]) -> dict[str, float]:
    """Compare a table with the intensities that were rendered."""
    acts = table["time_s"].to_numpy() >= REST_S
    labels, limits = (truth.to_numpy() >= 1).astype(float), [thresholds[unit] for unit in UNITS]
    predicted = table[UNITS].to_numpy(float)
    estimated = table[[f"{unit}_intensity" for unit in UNITS]].to_numpy(float)
    alarms = (predicted[~acts] >= limits) & (labels[~acts] == 0)
    correlations = [np.corrcoef(truth[unit][acts], estimated[acts, index])[0, 1] for index, unit in enumerate(UNITS)]
    return {
        "F1": au_f1(labels[acts], predicted[acts], limits)["mean"]["f1"],
        "AUC": au_auc(labels[acts], predicted[acts])["mean"]["auc"],
        "false alarms per resting frame": float(alarms.sum(1).mean()),
        "MAE of intensity": au_mae(truth.to_numpy()[acts], estimated[acts])["mean"]["mae"],
        "correlation of intensity": float(np.mean(correlations)),
    }


def main() -> None:
    """Print a table for each strength of the resting looks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("face_model", metavar="FACE_MODEL", help="clone of ICT-FaceKit, or its packed .npz")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--seed", type=int, default=901, help="decides who the people are; SHARE and REST saw 900")
    arguments = parser.parse_args()
    pipe = load_pipeline(None, device="cpu")
    runner, renderer = pipe.analyzer().runner, Renderer(load_face_model(arguments.face_model), supersample=1)
    thresholds = dict(zip(runner.action_units, runner.thresholds, strict=True))
    for resting in (1.0, 2.0):
        tables, truths, photos = zip(*clips(renderer, pipe, arguments.people, resting, arguments.seed), strict=True)
        truth = pd.concat(truths, ignore_index=True)
        rows = {"as it is": pd.concat(tables, ignore_index=True)}
        for baseline in ("first 2 s", "median"):
            rows[baseline] = subtract_baseline(rows["as it is"], thresholds, baseline)
        each = [subtract_baseline(*pair) for pair in zip(tables, [thresholds] * len(tables), photos, strict=True)]
        rows["neutral photo"] = pd.concat(each, ignore_index=True)
        measured = pd.DataFrame({name: scores(table, truth, thresholds) for name, table in rows.items()}).T
        print(f"\nresting looks × {resting:g}: {arguments.people} people, {len(truth)} frames")
        print(measured.round(3).to_string())


if __name__ == "__main__":
    main()
