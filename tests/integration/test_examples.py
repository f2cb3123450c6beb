"""Every example runs offline, as a user would start it, and is short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHOWN = {
    "01_photo": "AU12  Lip corner puller",
    "02_video": "AU12",
    "03_prepare_and_train": "mean F1 of fold 1",
    "04_finetune_with_trainer": "eval_f1",
    "05_evaluate_and_calibrate": "F1 after",
    "06_share_on_the_hub": "apache-2.0",
}


def test_the_examples_are_short_and_each_is_tested():
    assert [path.stem for path in EXAMPLES] == list(SHOWN)
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 60 for path in EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, tmp_path):
    for package in ("skimage", "av", "accelerate", "matplotlib"):
        pytest.importorskip(package, reason=f"the examples need {package}")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert SHOWN[path.stem] in done.stdout
