"""The light install of docs/performance.md, in an environment of its own: it predicts, and has no torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(UV is None, reason="needs uv, such as `pip install uv`")]


def test_the_light_install_predicts(tmp_path):
    data = pytest.importorskip("skimage.data", reason="needs the photo in scikit-image")
    environment = tmp_path / "venv"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, environment], check=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [UV, "pip", "install", "-q", "--python", python]
    done = subprocess.run([*install, "-r", ROOT / "requirements-light.txt"], capture_output=True, text=True)
    if done.returncode and "Failed to fetch" in done.stderr:
        pytest.skip(f"needs a package index: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    subprocess.run([*install, "--no-deps", ROOT], check=True)
    Image.fromarray(data.astronaut()).save(tmp_path / "photo.png")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "hf_geaau", "predict", "photo.png", "--output", "aus.csv"]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "AU12" in done.stdout
    assert len((tmp_path / "aus.csv").read_text().splitlines()) == 2
    asked = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'timm') if u.find_spec(n)])"
    assert subprocess.run([python, "-c", asked], env=clean, capture_output=True, text=True).stdout.strip() == "[]"
