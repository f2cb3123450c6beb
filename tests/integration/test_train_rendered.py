"""`hf-geaau train-rendered bundled` on drawn faces: resumable at every step, averaged, calibrated, small."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback
from typer.testing import CliRunner

import hf_geaau.synthetic
from hf_geaau import facs
from hf_geaau.data import load, write_example
from hf_geaau.errors import EvaluationError, TrainingError
from hf_geaau.evaluation import best_thresholds, predict_dataset
from hf_geaau.evaluation import fit_calibration as fit
from hf_geaau.model_card import write_card
from hf_geaau.models.loading import load_checkpoint
from hf_geaau.synthetic import render_dataset
from hf_geaau.training import (
    build_trainer,
    datasets_of,
    load_recipe,
    open_split,
    train,
    train_rendered,
    training_config,
)
from hf_geaau.training.ema import EMA_FILE
from hf_geaau.training.rendered import expression_recipe
from hf_geaau_cli import app

TINY = [
    "model.backbone=test_vit", "model.backbone_kwargs=null", "model.backbone_stage=-1", "model.image_size=32",
    "model.lam_hidden_channels=18", "model.lam_feature_channels=2", "pretrained_backbone=false", "precision=fp32",
    "batch_size=8", "epochs=2",
]  # fmt: skip
SMALL = [*TINY, "renders.train=40", "renders.validation=48", "renders.test=24", "renders.unseen=16",
         "renders.calibration=48", "renders.images_per_identity=4", "renders.size=36", "gee=true",
         "expression.options.triplets=24", "expression.epochs=1", "expression.batch_size=8",
         "expression.validation_share=0", "expression.early_stopping=null"]  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """Stand in for the renderer; gives what it was asked for."""
    asked = []

    def draw(face_model, count, seed, output, *, images_per_identity, size, **settings):
        asked.append((output.name, seed, settings))
        if not output.exists():
            people = count // images_per_identity
            write_example("synthetic", output, identities=people, frames=images_per_identity, size=size)
            file = output / "render.json"
            rigs = {"face_models": ["ICT-FaceKit", "VALID"], "environments": ["studio.hdr"]}
            file.write_text(json.dumps({**json.loads(file.read_text()), **rigs}))

    monkeypatch.setattr("hf_geaau.synthetic.render_dataset", draw)
    return asked


class Stop(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_one_command_makes_a_checkpoint_and_goes_on_where_it_stopped(drawn, tmp_path):
    recipe, lines = load_recipe("bundled", SMALL), []
    with pytest.raises(KeyboardInterrupt):
        train_rendered(recipe, "mesh", tmp_path / "run", callbacks=lambda: [Stop(7)], use_cpu=True)
    assert (tmp_path / "run" / "gee" / "training_facts.json").exists()
    assert not (tmp_path / "run" / "checkpoint").exists()
    made = train_rendered(recipe, "mesh", tmp_path / "run", use_cpu=True, report=lines.append)
    assert lines[-1].startswith("checkpoint: mean F1 ")
    assert {name for name, _, settings in drawn if settings.get("style") == "shifted"} == {"unseen", "calibration"}
    assert len({seed for _, seed, _ in drawn}) == len({settings["first_identity"] for *_, settings in drawn}) == 5

    result = tmp_path / "run" / "checkpoint"
    assert all(
        values.dtype in (torch.float16, torch.int64) for values in load_file(result / "model.safetensors").values()
    )
    network, processor = load_checkpoint(result)
    assert network.dtype == torch.float32
    assert (network.config.temperature, network.config.trained_on) != (1.0, None)
    assert made["reports"]["test"]["intensity"]["mean"]["mae"] is not None
    assert made["reports"]["unseen"]["frames"] == 16
    assert json.loads((result / "calibration.json").read_text())["neutral_frames"] > 0
    rows = load("synthetic", tmp_path / "run" / "renders" / "calibration", fold=None, split="train")
    found = predict_dataset(network, processor, rows, device="cpu")
    present = (found.labels == 1) & (found.probabilities >= np.float32(network.config.thresholds))
    if present.any():  # so small a model may detect none
        strength = found.predicted_intensities[present].mean()
        assert strength == pytest.approx(found.intensities[present].mean(), rel=0.05)  # unless some are cut at 5
    neutral = (found.labels == 0).all(1)
    alarms = (found.probabilities[neutral] >= np.float32(network.config.thresholds)).mean(0)
    assert alarms.max() <= 0.05  # the promise, by the weights that were saved

    again = tmp_path / "whole"
    train_rendered(recipe, "mesh", again, renders=tmp_path / "run" / "renders", use_cpu=True)
    one, other = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (tmp_path / "run", again))
    assert all(torch.equal(one[name], other[name]) for name in one)  # interrupted or not

    card = (result / "README.md").read_text()
    write_card(result)
    assert (result / "README.md").read_text() == card
    assert "ICT-FaceKit and VALID geometry (MIT) under random identity" in card
    assert "light (drawn, or one of 1 panoramas)" in card
    assert "48 of others for calibration, under settings that training never draws" in card
    facts = json.loads((result / "training_facts.json").read_text())
    assert set(facts["minutes"]) == set(facts["steps"]) == {"gee", "action_units"}
    assert facts["render_minutes"] >= 0
    (result / "evidence.md").write_text("A page.")
    shutil.rmtree(tmp_path / "run" / "renders")  # a finished run needs them no more
    assert train_rendered(recipe, "mesh", tmp_path / "run") == made
    assert "A page." in (result / "README.md").read_text()
    assert not (tmp_path / "run" / "renders").exists()
    with pytest.raises(TrainingError, match=r"Cannot resume: .* had another recipe \(renders.train was 40, is \d+\)"):
        train_rendered(load_recipe("bundled", TINY), "mesh", tmp_path / "run")


@pytest.mark.slow
def test_the_command(drawn, tmp_path):
    runner, where = CliRunner(), tmp_path / "run"
    shown = runner.invoke(app, ["train-rendered", "bundled", "--dry-run", "gee=true"])
    assert shown.exit_code == 0
    assert "gee: true" in shown.output
    missing = runner.invoke(app, ["train-rendered", "bundled", "--output", str(where)])
    assert missing.exit_code == 2
    assert "--face-model" in missing.output
    other = runner.invoke(app, ["train", "bundled", "--data-dir", str(where)])
    assert str(other.exception) == (
        "The recipe 'bundled' renders its faces first. Use `hf-geaau train-rendered bundled --face-model … --output …`."
    )
    command = ["train-rendered", "bundled", "--face-model", "mesh", "--output", str(where), "--cpu", *SMALL]
    command.append("gee=false")
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "AU12" in done.output
    assert not (where / "gee").exists()
    files = {path.name for path in (where / "checkpoint").iterdir()}
    assert files >= {"evaluation.json", "training_facts.json", "calibration.json", "README.md"}
    assert json.loads((where / "checkpoint" / "training_facts.json").read_text())["recipe"]["gee"] is False

    weights = where / "action_units" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = runner.invoke(app, [*command, "false_alarm_rate=0.5"])  # decides thresholds, not weights
    assert again.exit_code == 0, again.output
    assert weights.stat().st_mtime_ns == before
    facts = json.loads((where / "checkpoint" / "training_facts.json").read_text())
    assert facts["recipe"]["false_alarm_rate"] == 0.5


def test_a_rendered_recipe_is_checked_before_anything_is_rendered(tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match="must not exceed 0.001 MB, got .* MB. Choose a smaller network"):
        train_rendered(load_recipe("bundled", [*SMALL, "max_megabytes=0.001"]), "mesh", tmp_path)
    with pytest.raises(TrainingError, match="The recipe must have the key `renders`, got none"):
        train_rendered("synthetic", "mesh", tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="runs in one process, got several"):
        train_rendered(load_recipe("bundled", SMALL), "mesh", tmp_path)


def test_both_stages_share_the_network():
    first = expression_recipe(load_recipe("bundled", ["gee=true", "expression.augmentation.jpeg=0.5"]))
    assert first.model["backbone"] == "tf_efficientnet_lite2"
    assert (first.stage, first.options["triplets"], first.epochs) == ("expression", 20000, 3)
    assert (first.augmentation.jpeg, first.augmentation.rotation) == (0.5, 6.0)


@pytest.mark.slow
def test_the_average_is_validated_kept_and_resumed(tmp_path):
    data = write_example("synthetic", tmp_path / "faces", identities=12, frames=4, size=32)
    settings = [*TINY[:-2], "batch_size=8", "validation_share=0.25", "epochs=3", "ema_decay=0.9"]
    recipe = load_recipe("synthetic", settings)
    arguments = {"keep_checkpoints": True, "use_cpu": True, "show_progress": False}
    result = train(recipe, data, tmp_path / "whole", **arguments)
    step = result["step"]
    average = load_file(tmp_path / "whole" / f"checkpoint-{step}" / EMA_FILE)
    weights = load_file(tmp_path / "whole" / f"checkpoint-{step}" / "model.safetensors")
    kept = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(kept[name], average[f"module.{name}"]) for name in kept)
    assert not torch.equal(kept["classifier.weight"], weights["classifier.weight"])
    network, processor = load_checkpoint(tmp_path / "whole")
    rows = load("synthetic", data, fold=1, split="train")
    held_out = json.loads((tmp_path / "whole" / "training_facts.json").read_text())["dataset"]["validation_subject_ids"]
    chosen = rows.select(np.flatnonzero(np.isin(rows["subject_id"][:], held_out)))
    f1 = fit(predict_dataset(network, processor, chosen, device="cpu"), network.config, facs.SYNTHETIC)[1]["f1"]
    assert f1["before"] == pytest.approx(result["validation"]["f1"], abs=1e-4)  # it was the average that was validated

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "stopped", callbacks=[Stop(5)], **arguments)
    (last,) = sorted((tmp_path / "stopped").glob("checkpoint-*"))[-1:]
    size = (last / EMA_FILE).stat().st_size
    with (last / EMA_FILE).open("r+b") as file:
        file.truncate(size // 2)  # as a full disk leaves it: the checkpoint does not count
    train(recipe, data, tmp_path / "stopped", **arguments)
    resumed = load_file(tmp_path / "stopped" / "model.safetensors")
    assert all(torch.equal(kept[name], resumed[name]) for name in kept)


@pytest.mark.parametrize("kind", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_an_average_of_a_divided_model_is_refused(kind, tmp_path, monkeypatch):
    """Accelerate divides models over GPUs only; here the Trainer is told that it has."""
    real = Trainer.create_accelerator_and_postprocess

    def divided(trainer):
        real(trainer)
        setattr(trainer, kind, True)

    data = write_example("synthetic", tmp_path / "faces", identities=2, frames=4, size=32)
    recipe = load_recipe("synthetic", [*TINY, "ema_decay=0.9", "validation_share=0", "early_stopping=null"])
    split = open_split(recipe, data, None)
    rows, _ = datasets_of(recipe, split, training_config(recipe, split))
    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", divided)
    with pytest.raises(TrainingError, match="^`ema_decay` must be null with FSDP or DeepSpeed, which divide the model"):
        build_trainer(recipe, rows, output=tmp_path / "run", use_cpu=True)
    recipe = load_recipe(recipe, {"ema_decay": None})
    assert getattr(build_trainer(recipe, rows, output=tmp_path / "run", use_cpu=True), kind)


def test_thresholds_stay_within_the_false_alarms_that_are_allowed():
    rng = np.random.default_rng(0)
    labels = np.repeat([[1], [0]], 200, axis=0)
    chances = np.concatenate([rng.uniform(0.3, 0.9, (200, 1)), rng.uniform(0, 0.7, (200, 1))])
    neutral = np.arange(400) >= 300
    free, bound = (best_thresholds(labels, chances, neutral, rate) for rate in (1.0, 0.05))
    assert free < bound
    assert (chances[neutral] >= bound).mean() <= 0.05
    assert best_thresholds(labels, np.ones_like(chances), neutral, 0.05).tolist() == [1.0]  # nothing else would do


def test_limits_on_false_alarms_need_neutral_faces(tiny_model, tiny_checkpoint):
    from hf_geaau.evaluation import Predictions, calibrate

    with pytest.raises(EvaluationError, match=r"`false_alarm_rate` must lie in \[0, 1\], got 2"):
        calibrate(tiny_checkpoint, "synthetic", tiny_checkpoint, false_alarm_rate=2)

    ones = np.ones((4, 3), np.float32)
    found = Predictions(ones, ones, None, ones, ones, np.array(["a"] * 4), np.arange(4))
    with pytest.raises(EvaluationError, match="Cannot limit false alarms: no validation frame is neutral"):
        fit(found, tiny_model.config, (1, 12, 25), 0.05)


@pytest.mark.slow
def test_a_set_on_the_disk_is_not_rendered_again(drawn, face_model_path, tmp_path, monkeypatch):
    """Two sets by the renderer itself, one of either style; the others, for speed, are drawn."""
    pytest.importorskip("moderngl", reason="needs the extra `synthetic`")
    draw = hf_geaau.synthetic.render_dataset

    def render(face_model, count, seed, output, **settings):
        (render_dataset if output.name in ("train", "unseen") else draw)(face_model, count, seed, output, **settings)

    monkeypatch.setattr(hf_geaau.synthetic, "render_dataset", render)
    few = load_recipe("bundled", [*TINY, "renders.train=8", "renders.validation=48", "renders.test=8",
                                  "renders.unseen=4", "renders.size=36", "epochs=1"])  # fmt: skip
    train_rendered(few, face_model_path, tmp_path / "run", workers=1, use_cpu=True)
    tables = [tmp_path / "run" / "renders" / name / "labels.parquet" for name in ("train", "unseen")]
    before = [table.stat().st_mtime_ns for table in tables]
    assert [set(pq.read_table(table)["style"].to_pylist()) for table in tables] == [{"standard"}, {"shifted"}]
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    made = train_rendered(few, face_model_path, tmp_path / "run", workers=1, use_cpu=True)
    assert [table.stat().st_mtime_ns for table in tables] == before
    assert made["reports"]["unseen"]["frames"] == 4
    assert (tmp_path / "run" / "checkpoint" / "README.md").is_file()
