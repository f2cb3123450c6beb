"""Choose thresholds on validation subjects, then score a checkpoint on test subjects it has not seen.

You will see the table of scores by AU before and after calibration. The data is a folder of drawn faces, so the numbers
mean nothing; a warning says that the bundled checkpoint may have seen these subjects.

    python examples/05_evaluate_and_calibrate.py
"""

from pathlib import Path

from hf_geaau.data import write_example
from hf_geaau.evaluation import calibrate, evaluate
from hf_geaau.metrics import score_rows, score_table
from hf_geaau.models.loading import BUNDLED_CHECKPOINT

DATASET, FOLD = "synthetic", 1
CALIBRATED = Path("calibrated")


def show(title: str, checkpoint: Path, faces: Path) -> None:
    report = evaluate(checkpoint, DATASET, faces, FOLD)
    print(f"{title}\n{score_table(score_rows(report), ('base_rate', 'f1', 'auc', 'threshold')).to_markdown()}")


def main() -> None:
    faces = write_example(DATASET, "faces", identities=9, frames=6, size=128)
    show("Bundled thresholds", BUNDLED_CHECKPOINT, faces)
    calibrate(BUNDLED_CHECKPOINT, DATASET, faces, FOLD, output=CALIBRATED)  # reads training subjects only
    show("Calibrated thresholds", CALIBRATED, faces)


if __name__ == "__main__":
    main()
