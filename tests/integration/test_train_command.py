"""`hf-geaau train` on drawn faces: the finished directory, folds, kills, a full disk. Processes are really killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from typer.testing import CliRunner

from hf_geaau import GeaauModel
from hf_geaau.data import write_example
from hf_geaau.errors import TrainingError
from hf_geaau.training import CropDataset, load_recipe, train
from hf_geaau_cli import app

TINY = [
    "model.backbone=test_vit",
    "model.backbone_kwargs=null",
    "model.backbone_stage=-1",
    "model.image_size=32",
    "model.lam_hidden_channels=18",
    "model.lam_feature_channels=2",
    "batch_size=8",
    "validation_share=0.25",
    "precision=fp32",
]

# One process loads the libraries and forks for each run, which then really dies. `FAULT` is what happens to it.
RUNS = """
import json, os, resource, signal, sys, warnings
import torch
from transformers import TrainerCallback
from hf_geaau.training import load_recipe, train
import hf_geaau.training.run
warnings.simplefilter("ignore")
torch.set_num_threads(1)
data, runs = sys.argv[1], json.loads(sys.argv[2])

class Kill(TrainerCallback):
    def __init__(self, step): self.step = step
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step: os.kill(os.getpid(), signal.SIGKILL)

class FillDisk(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

def die_in_write():
    save = torch.save
    def half(content, path, *rest, **more):
        save(content, path, *rest, **more)
        if "checkpoint-6" in str(path) and str(path).endswith("optimizer.pt"):
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    torch.save = half

def run(output, fault, settings):
    callbacks = [Kill(5)] if fault == "kill" else [FillDisk()] if fault == "full disk" else []
    if fault == "kill in write": die_in_write()
    recipe = load_recipe("synthetic", settings)
    train(recipe, data, output, callbacks=callbacks, keep_checkpoints=True, use_cpu=True, show_progress=False)

for output, fault, settings in runs:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(output, fault, settings)
            code = 0
        except Exception as error:
            print(json.dumps([fault, type(error).__name__, str(error)]), flush=True)
        os._exit(code)
    print(json.dumps(["status", output, os.waitpid(child, 0)[1]]), flush=True)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_example("synthetic", tmp_path_factory.mktemp("data") / "faces", identities=12, frames=6, size=32)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bits(data, tmp_path):
    """In the middle of an epoch, in the middle of writing a checkpoint, and on a full disk."""
    settings = [*TINY, "epochs=3", "evaluate_steps=3", "model.classifier_dropout=0.3"]
    faults = ["", "kill", "kill in write", "full disk"]
    runs = [[str(tmp_path / fault.replace(" ", "_")), fault, settings] for fault in faults[1:]]
    again = [[output, "", settings] for output, _, _ in runs]
    runs = [[str(tmp_path / "whole"), "", settings], *runs, *again]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUNS, str(data), json.dumps(runs)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    statuses = [line[2] for line in lines if line[0] == "status"]
    kill = int(signal.SIGKILL)
    assert statuses == [0, kill, kill, 256, 0, 0, 0], (statuses, lines, done.stderr[-3000:])
    error = next(line for line in lines if line[0] == "full disk")
    assert error[1] == "TrainingError"
    assert "Disk full while saving a checkpoint" in error[2]
    assert error[2].endswith("it resumes from checkpoint-3.")
    steps = sorted(int(path.name[11:]) for path in (tmp_path / "whole").glob("checkpoint-*"))
    assert steps[-1] == 12  # 36 frames of 6 people are 4 batches, so checkpoint-3 lies in the middle of an epoch
    expected = weights(tmp_path / "whole" / f"checkpoint-{steps[-1]}")
    for fault in faults[1:]:
        found = weights(tmp_path / fault.replace(" ", "_") / f"checkpoint-{steps[-1]}")
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items()), fault


@pytest.mark.slow
def test_command_leaves_a_finished_directory(data, tmp_path):
    output = tmp_path / "run"
    arguments = ["train", "synthetic", "--data-dir", str(data), "--output", str(output), "--cpu", *TINY, "max_steps=3"]
    arguments.append("epochs=null")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "always-on F1" in result.output
    names = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    assert names >= {"config.json", "model.safetensors", "preprocessor_config.json", "metrics.json", "recipe.yaml"}
    assert names >= {"training_facts.json", "curves.png"}
    assert not any(name.startswith(("checkpoint", "training_args")) for name in names)
    facts = json.loads((output / "training_facts.json").read_text())
    people = [set(facts["dataset"][f"{side}_subject_ids"]) for side in ("train", "validation")]
    assert [len(side) for side in people] == [6, 2]
    assert not people[0] & people[1]
    assert not any(int(name.rpartition("-")[2]) % 3 == 0 for side in people for name in side)  # those are the test fold
    assert facts["evaluation"]["identities_shared_with_training"] == 0
    assert facts["evaluation"]["frames"] == facts["dataset"]["test_rows"] == 24
    assert GeaauModel.from_pretrained(output).config.trained_on == ["synthetic"]
    assert load_recipe(output / "recipe.yaml").max_steps == 3
    before = (output / "model.safetensors").stat().st_mtime_ns
    assert CliRunner().invoke(app, arguments).exit_code == 0  # finished: shows, and trains nothing
    assert (output / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match=r"Cannot resume: .* \(learning_rate was 0.002, is 0.1\)"):
        train(load_recipe("synthetic", [*TINY, "max_steps=3", "epochs=null", "learning_rate=0.1"]), data, output)


def test_a_second_writer_is_refused(data, tmp_path):
    output = tmp_path / "run"
    recipe = load_recipe("synthetic", [*TINY, "max_steps=2", "epochs=null"])

    class Second(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            with pytest.raises(TrainingError, match="Another process is writing checkpoints to '.*run'. Wait"):
                train(recipe, data, output, use_cpu=True, show_progress=False)

    train(recipe, data, output, callbacks=[Second()], use_cpu=True, show_progress=False)
    assert not (output / ".lock").exists()
    with pytest.raises(TrainingError, match="holds the training of fold 1, not 2"):
        train(recipe, data, output, 2)


def test_an_unfinished_run_of_an_earlier_version_resumes(data, tmp_path):
    """Its record holds fold, rows and minutes; its recipe spells `grey` as it was."""
    output = tmp_path / "run"
    recipe = load_recipe("synthetic", [*TINY, "max_steps=2", "epochs=null"])
    output.mkdir()
    (output / ".run.json").write_text('{"fold": 1, "rows": [36, 12], "minutes": 1.5}')
    recipe.save(output / "recipe.yaml")
    text = (output / "recipe.yaml").read_text()
    (output / "recipe.yaml").write_text(text.replace("gray:", "grey:"))
    train(recipe, data, output, use_cpu=True, show_progress=False)
    assert json.loads((output / "training_facts.json").read_text())["minutes"] >= 1.5
    rows = '{"fold": 1, "rows": [30, 12], "minutes": 1.5}'
    (output / ".run.json").write_text(rows)
    with pytest.raises(TrainingError, match=r"Cannot resume: .*rows was \[30, 12\], is \[36, 12\]"):
        train(recipe, data, output, use_cpu=True, show_progress=False)


def test_test_subjects_are_opened_once_and_last(data, tmp_path, monkeypatch):
    from hf_geaau import data as source
    from hf_geaau.evaluation import reports
    from hf_geaau.training import splits

    opened = []

    def watched(name, data_dir, fold, split, *rest, **options):
        opened.append(split)
        return source.open_aligned(name, data_dir, fold, split, *rest, **options)

    monkeypatch.setattr(splits, "open_aligned", watched)
    monkeypatch.setattr(reports, "open_aligned", watched)
    recipe = load_recipe("synthetic", [*TINY, "epochs=6", "early_stopping=1", "learning_rate=1e-9"])
    seen = set()
    original = CropDataset.__getitem__
    monkeypatch.setattr(
        CropDataset,
        "__getitem__",
        lambda self, index: seen.add(self.rows["subject_id"][index]) or original(self, index),
    )
    train(recipe, data, tmp_path / "run", use_cpu=True, show_progress=False)
    assert opened == ["train", "test"]
    steps = json.loads((tmp_path / "run" / "training_facts.json").read_text())["steps"]
    assert steps == 2 * 4  # the second validation was no better than the first
    assert not any(int(name.rpartition("-")[2]) % 3 == 0 for name in seen)


@pytest.mark.slow
def test_all_folds_and_both_stages(data, tmp_path):
    encoder = tmp_path / "encoder"
    stage1 = load_recipe("synthetic_gee", [*TINY, "options.triplets=8", "max_steps=2", "epochs=null"])
    scores = train(stage1, data, encoder, None, use_cpu=True, show_progress=False)
    assert scores["test"] is None
    assert 0 <= scores["validation"]["accuracy"] <= 1
    output = tmp_path / "folds"
    settings = [*TINY, "max_steps=2", "epochs=null", f"expression_encoder={encoder}", "model.freeze_encoder=true"]
    arguments = ["train", "synthetic", "--data-dir", str(data), "--output", str(output), "--folds", "all", "--cpu"]
    result = CliRunner().invoke(app, [*arguments, *settings])
    assert result.exit_code == 0, result.output
    folds = json.loads((output / "folds.json").read_text())
    assert list(folds["folds"]) == ["1", "2", "3"]
    mean = sum(report["mean"]["f1"] for report in folds["folds"].values()) / 3
    assert folds["mean_of_folds"]["mean"]["f1"] == pytest.approx(mean)
    assert "pooled" in folds
    trained = weights(output / "fold2")
    for name, tensor in weights(encoder).items():  # frozen: still the encoder of stage 1
        assert torch.equal(trained[name], tensor)
    before = (output / "fold1" / "model.safetensors").stat().st_mtime_ns
    assert CliRunner().invoke(app, [*arguments, *settings]).exit_code == 0
    assert (output / "fold1" / "model.safetensors").stat().st_mtime_ns == before


def test_plans_lists_and_refusals(data, tmp_path, monkeypatch):
    runner = CliRunner()
    assert "bp4d_plus" in runner.invoke(app, ["train", "--list"]).output
    plan = runner.invoke(app, ["train", "synthetic", "--data-dir", str(data), "--dry-run", *TINY])
    assert plan.exit_code == 0, plan.output
    assert "backbone: test_vit" in plan.output
    assert "training rows" in plan.output
    assert "steps" in plan.output
    raw = write_example("bp4d", tmp_path / "raw", subjects_per_part=1, frames=1, faces=False)
    refused = runner.invoke(app, ["train", "bp4d", "--data-dir", str(raw), "--output", str(tmp_path / "out")])
    assert "hf-geaau prepare bp4d" in str(refused.exception)
    misspelt = runner.invoke(app, ["train", "bp4d", "lerning_rate=1", "--data-dir", str(raw)])
    assert str(misspelt.exception) == "A recipe has no key 'lerning_rate'. Did you mean 'learning_rate'?"
