"""The examples run offline as they are; tests/integration/test_hub.py runs the one that needs a Hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
pytest.importorskip("av", reason="videos need av")
pytest.importorskip("skimage", reason="needs scikit-image, which carries the photo")

ROOT = Path(__file__).parents[2]
SHOWN = {
    "01_photo.py": "AU12: probability 0.9",
    "02_video.py": "1 people: video.csv",
    "03_prepare_and_train.py": "| mean |",
    "04_finetune_with_trainer.py": "F1 0.",
    "05_evaluate_and_calibrate.py": "Calibrated thresholds",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_an_example_shows_what_its_docstring_says(name, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    script = str(ROOT / "examples" / name)
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert SHOWN[name] in result.stdout


def test_examples_are_short():
    scripts = sorted((ROOT / "examples").glob("*.py"))
    assert [script.name[:2] for script in scripts] == ["01", "02", "03", "04", "05", "06"]
    assert all(len(script.read_text().splitlines()) <= 60 for script in scripts)
