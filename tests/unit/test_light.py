"""Predicting with an exported network needs neither torch nor transformers, and nothing slow to import."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from tests.clips import walking, write_clip

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "datasets",
    "accelerate",
    "huggingface_hub",
    "jinja2",
    "sklearn",
)
WITHOUT = f"""
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"{{name}} is not there", name=name)


sys.meta_path.insert(0, Refuse())
"""


def run(code: str, *arguments: str, cwd: Path = ROOT) -> str:
    """Run a program that cannot import what the light install lacks, and return what it prints."""
    command = [sys.executable, "-c", WITHOUT + code, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A photo and a clip of a face."""
    data = pytest.importorskip("skimage.data", reason="needs the photo in scikit-image")
    pytest.importorskip("av", reason="PyAV is not installed")
    where = tmp_path_factory.mktemp("light")
    Image.fromarray(data.astronaut()).save(where / "photo.png")
    write_clip(where / "clip.mp4", walking(data.astronaut()[:240, 100:340], 8))
    return where


COMMAND = f"sys.path.insert(0, {str(ROOT)!r})\nfrom hf_geaau_cli import main\nmain()"


def test_the_command_predicts_photos_and_videos(folder):
    shown = run(COMMAND, "predict", "photo.png", cwd=folder)
    assert re.search(r"AU12 .* (0\.9\d|1\.00) .*present", shown)
    run(COMMAND, "predict", "photo.png", "clip.mp4", "--output", "aus.parquet", "--baseline", "median", cwd=folder)
    assert (folder / "aus.parquet").stat().st_size > 1000


def test_what_needs_more_says_so_in_one_line(folder):
    command = [sys.executable, "-c", WITHOUT + COMMAND, "evaluate", "x", "--data-dir", "y"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs the package" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run([*command[:3], "predict", "photo.png", "--backend", "torch"], cwd=folder, capture_output=True)
    assert b"The backend 'torch' needs torch" in done.stderr


def test_the_library_predicts(folder):
    code = f"""
sys.path.insert(0, {str(ROOT)!r})
import hf_geaau

faces = hf_geaau.load_pipeline()("photo.png", return_masks=True, return_embedding=True)
print(faces[0]["present"], faces[0]["masks"].shape, faces[0]["embedding"].shape)
print(len(list(hf_geaau.predict_video("clip.mp4"))))
"""
    assert "AU12" in run(code, cwd=folder)


@pytest.mark.slow
def test_the_answers_of_the_app(folder):
    pytest.importorskip("matplotlib", reason="needs the extra app")
    code = """
from pathlib import Path
from hf_geaau.app import Answers

answers = Answers()
Path("results").mkdir()
print(answers.photo("photo.png").faces[0].present, answers.video(Path("clip.mp4"), Path("results")).frames)
"""
    answer = run(code, cwd=folder)
    assert "AU12" in answer
    assert answer.split()[-1] == "8"


@pytest.mark.slow
def test_onnx_runtime_reports_nothing(folder, tmp_path):
    """With its telemetry, it leaves a file .ses among the temporary files when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = "import hf_geaau; assert hf_geaau.load_pipeline()('photo.png')"
    environment |= {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_imports_nothing_heavy():
    code = "import hf_geaau, sys; print([name for name in ('cv2', 'pandas', 'torch', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_classes_are_registered_whichever_is_imported_first():
    for order in ("import hf_geaau, transformers", "import transformers.pipelines, hf_geaau"):
        code = f"""
{order}
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT as where
print(type(AutoConfig.from_pretrained(where)).__name__, type(AutoImageProcessor.from_pretrained(where)).__name__)
print("facial-action-unit-detection" in PIPELINE_REGISTRY.get_supported_tasks())
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.split() == ["GeaauConfig", "GeaauImageProcessor", "True"], done.stderr


def test_the_light_requirements_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = {*project["dependencies"], *project["optional-dependencies"]["video"]}
    lines = (ROOT / "requirements-light.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith("#")} <= stated
