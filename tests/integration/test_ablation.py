"""The ablation from faces to report, at its smallest scale on drawn faces; and that its sets can be rendered."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
pytest.importorskip("matplotlib", reason="the report draws with matplotlib")

from benchmarks.ablation import run, run_ablation
from benchmarks.ablation.report import ARMS
from hf_geaau.data import load, write_example
from hf_geaau.errors import TrainingError


def draw(face_model, other_rig, folder, size, workers, report):
    """Stand in for the renderer."""
    for name in run.SETS:
        if not (folder / name).exists():
            write_example("synthetic", folder / name, identities=8, frames=6, size=64)
    return 0.1


def check(folder, results):
    assert set(results["arms"]) == set(ARMS)
    assert (
        results["arms"]["lam-longer"]["steps"] > results["arms"]["lam"]["steps"] == results["arms"]["pooled"]["steps"]
    )
    report = (folder / "report.md").read_text()
    for arm in ARMS.values():
        assert f"| {arm.title} |" in report
    for name in ("arms.png", "masks.png"):
        assert Image.open(folder / name).size[0] >= 700
    masks = next(entry["masks"] for entry in results["runs"] if entry["arm"] == "gee-lam")
    assert len(masks) == 18
    assert all(0 <= mask["share"] <= 1 and 0 < mask["area"] < 1 for mask in masks.values())
    assert json.loads((folder / "results.json").read_text())["arms"] == results["arms"]


@pytest.mark.slow
def test_every_arm_is_trained_and_an_interrupted_run_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_render", draw)
    lines = []
    results = run_ablation("no mesh", tmp_path, "smoke", device="cpu", report=lines.append)
    check(tmp_path, results)
    assert len(lines) == 1 + len(ARMS)
    finished = (tmp_path / "seed0" / "lam" / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "seed0" / "gee-lam")  # as if it had been killed there
    again = run_ablation("no mesh", tmp_path, "smoke", device="cpu")
    assert (tmp_path / "seed0" / "lam" / "model.safetensors").stat().st_mtime_ns == finished
    assert {name: arm["f1"] for name, arm in again["arms"].items()} == {
        name: arm["f1"] for name, arm in results["arms"].items()
    }  # the same seed gives the same numbers
    with pytest.raises(TrainingError, match="holds an ablation made with other settings"):
        run_ablation("no mesh", tmp_path, "full")
    with pytest.raises(TrainingError, match="`scale` must be one of full, smoke, got 'huge'"):
        run_ablation("no mesh", tmp_path, "huge")


@pytest.mark.slow
def test_the_sets_are_rendered_and_share_nobody(face_model_path, tmp_path):
    pytest.importorskip("moderngl", reason="needs the extra `synthetic`")
    size = replace(run.SCALES["smoke"], train_identities=3, test_identities=2, expression_identities=4)
    run._render(face_model_path, face_model_path, tmp_path, size, workers=1, report=print)
    people = {}
    for name in run.SETS:
        rows = load("synthetic", tmp_path / name, fold=None, split="train")
        people[name] = set(rows["subject_id"])
        assert rows[0]["image"].size == (128, 128)
    assert [len(found) for found in people.values()] == [3, 2, 4, 2, 2]
    assert len(set.union(*people.values())) == 13
