"""Calibrate a checkpoint on a dataset's training subjects, and score it on its test subjects.

You will see the scores of each action unit before and after; `CALIBRATED` is then the checkpoint with its new
temperature and thresholds. The faces are drawn, so the scores mean nothing: point `DATA` to crops of your own.
"""

from pathlib import Path

from hf_geaau.data import write_example
from hf_geaau.evaluation import calibrate, evaluate
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT

MODEL, CALIBRATED = BUNDLED_CHECKPOINT, Path("runs/calibrated")
DATASET, DATA, FOLD = "synthetic", Path("faces"), 1

if not DATA.exists():
    write_example(DATASET, DATA)
before = evaluate(MODEL, DATASET, DATA, FOLD)["action_units"]
calibrate(MODEL, DATASET, DATA, FOLD, output=CALIBRATED)
after = evaluate(CALIBRATED, DATASET, DATA, FOLD)["action_units"]
print("AU    F1 before  F1 after   AUC")
for name, scores in after.items():
    values = before[name]["f1"], scores["f1"], scores["auc"]
    print(name, *("   undefined" if value is None else f"{value:10.3f}" for value in values))
