"""Left and right, from training to the table: learned, mirrored, exported, scored, and refused where there are none."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import hf_geaau
from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel, facs
from hf_geaau.backends import load_runner, source_digest
from hf_geaau.data import write_example
from hf_geaau.data.imitations.faces import example_face
from hf_geaau.errors import CheckpointError
from hf_geaau.evaluation import evaluate
from hf_geaau.metrics import mean_of_folds, score_rows, score_table
from hf_geaau.training import build_model, load_recipe, train
from tests.clips import walking, write_clip
from tests.command import run_command

UNITS = [2, 12, 43]
SIZE = {"height": 64, "width": 64}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sided")
    config = GeaauConfig(
        backbone="test_resnet", image_size=64, action_units=[12, 25, 43], predict_sides=True, predict_intensity=True,
        temperature=1.7, thresholds=[0.3, 0.5, 0.7],
    )  # fmt: skip
    model = GeaauModel(config).eval()
    with torch.no_grad():
        model.side_classifier.weight.normal_(std=100)  # new ones hardly tell sides apart
    model.save_pretrained(folder)
    GeaauImageProcessor(size=SIZE).save_pretrained(folder)
    return folder


def drawn(rng, count, first):
    """Draw faces of which each AU shows on either side half of the time: (B, 3, 64, 64), and sides (B, 3, 2)."""
    sides = rng.integers(2, size=(count, len(UNITS), 2))
    shown = [dict(zip(UNITS, (tuple(5.0 * pair) for pair in own), strict=True)) for own in sides]
    faces = [example_face(first + index, 96, intensities=units) for index, units in enumerate(shown)]
    crops = [np.asarray(face.crop((16, 20, 80, 84))) for face in faces]
    pixels = GeaauImageProcessor(size=SIZE)(crops, return_tensors="pt").pixel_values
    return pixels, torch.from_numpy(sides).float()


@pytest.mark.slow
def test_sides_are_learned_and_a_mirror_exchanges_them():
    rng = np.random.default_rng(0)
    (images, sides), (new_images, new_sides) = drawn(rng, 320, 0), drawn(rng, 100, 10_000)
    model = GeaauModel(
        GeaauConfig(
            backbone="test_resnet", backbone_stage=-2, image_size=64, action_units=UNITS, predict_sides=True,
            lam_hidden_channels=48, lam_feature_channels=8,
        )
    ).train()  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=160)
    for step in range(160):
        rows = torch.randint(len(images), (32,))
        pixels, told = images[rows], sides[rows]
        if step % 2:
            pixels, told = pixels.flip(-1), told.flip(-1)
        model(pixels, labels=told.amax(-1), sides=told).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()
    with torch.no_grad():
        found, mirrored = model(new_images).side_logits > 0, model(new_images.flip(-1)).side_logits > 0
    one_sided = new_sides[..., 0] != new_sides[..., 1]  # about half: presence alone would find one side of two
    assert (found == new_sides.bool())[one_sided].float().mean() > 0.85
    assert (mirrored.flip(-1) == new_sides.bool())[one_sided].float().mean() > 0.85


@pytest.mark.slow
def test_a_recipe_trains_sides_and_evaluate_scores_them(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    faces = write_example("synthetic", tmp_path / "faces", identities=12, frames=6, size=48)
    settings = ["model.backbone=test_resnet", "model.backbone_kwargs=null", "model.backbone_stage=-1",
                "model.image_size=32", "model.predict_sides=true", "epochs=1", "batch_size=8", "precision=fp32",
                "validation_share=0.25"]  # fmt: skip
    train(load_recipe("synthetic", settings), faces, tmp_path / "run", 1, use_cpu=True, show_progress=False)
    report = evaluate(tmp_path / "run", "synthetic", faces, 1, device="cpu")
    assert set(report["sides"]) <= {*facs.labels(facs.SIDED), "mean"}
    assert 0 < report["sides"]["mean"]["side_auc"] < 1
    assert mean_of_folds([report, report])["sides"]["mean"] == pytest.approx(report["sides"]["mean"])
    table = score_table(score_rows(report))
    assert table.header[-3:-1] == ["side AUC", "side choice"]
    rows = {row[0]: row for row in table.rows}
    assert rows["AU25"][-3] == "–"
    assert rows["AU12"][-3] != "–"
    # Checkpoints without the head continue with it, and lose it again.
    more = load_recipe("synthetic", [*settings[:4], f"start_from={tmp_path / 'run'}"])
    assert build_model(more).side_classifier is None
    again = build_model(load_recipe("synthetic", [*settings[:5], f"start_from={tmp_path / 'run'}"]))
    assert again.side_classifier.weight.equal(GeaauModel.from_pretrained(tmp_path / "run").side_classifier.weight)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_exported_networks_have_the_sides(checkpoint, backend):
    pytest.importorskip("onnxscript", reason="needs the extra export")
    pytest.importorskip(backend)
    from hf_geaau.export import export

    made = export(checkpoint, format=backend)
    crops = np.random.default_rng(3).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)
    runners = [load_runner(checkpoint, backend=name, keep=("side_probabilities",)) for name in ("torch", backend)]
    expected, found = (runner(crops).side_probabilities for runner in runners)
    assert expected.shape == (5, 3, 2)
    assert np.abs(expected[..., 0] - expected[..., 1]).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert load_runner(made.path)(crops).side_probabilities is None  # not asked for
    assert load_runner(made.path).facts.has_sides


def test_every_way_gives_the_same_sides(checkpoint, portrait, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    names = [f"{unit}_{side}" for unit in ("AU12", "AU43") for side in ("left", "right")]
    clip = write_clip(tmp_path / "walk.mp4", walking(portrait[0], 6))
    pipe = hf_geaau.load_pipeline(checkpoint, backend="torch", device="cpu")
    rows = pd.DataFrame(hf_geaau.predict_video(clip, pipe, every=2, return_sides=True))
    assert list(rows)[-6:] == [*names[:2], "AU12_asymmetry", *names[2:], "AU43_asymmetry"]
    assert rows.AU12_asymmetry.tolist() == pytest.approx((rows.AU12_left - rows.AU12_right).tolist())
    faces = pipe(str(clip), every=2, return_sides=True)
    assert [list(face["sides"]) for face in faces] == [names] * 3
    assert [face["sides"]["AU43_right"] for face in faces] == pytest.approx(rows.AU43_right.tolist(), abs=1e-5)
    assert "sides" not in pipe(portrait[0])[0]
    model_inputs = pipe.preprocess(portrait[0])  # the steps of transformers' own pipelines
    (face,) = pipe.postprocess(pipe._forward(model_inputs), return_sides=True)
    assert face["sides"] == pytest.approx(pipe(portrait[0], return_sides=True)[0]["sides"], abs=1e-6)

    given = hf_geaau.load_pipeline(checkpoint, backend="torch", device="cpu", return_sides=True)
    table, printed = tmp_path / "table.parquet", tmp_path / "printed.parquet"
    hf_geaau.predict_to_table([clip], table, given, hf_geaau.video.stream.Settings(every=2))
    text = run_command("predict", clip, "--model", checkpoint, "--every", 2, "--sides", "--output", printed).stdout
    assert "3 of 6 frames" in text
    for path in (table, printed):
        pd.testing.assert_frame_equal(
            pd.read_parquet(path)[names], rows[names], check_dtype=False, atol=1e-5, rtol=0, obj=path.name
        )
    smooth = pd.DataFrame(hf_geaau.predict_video(clip, pipe, smooth=0.5, return_sides=True))
    plain = pd.DataFrame(hf_geaau.predict_video(clip, pipe, return_sides=True))
    assert smooth.AU12_left.std() < plain.AU12_left.std()
    assert smooth.AU12_left[0] == plain.AU12_left[0]


def test_the_command_prints_both_sides(checkpoint, tmp_path):
    photo = tmp_path / "face.png"
    example_face(0, 64).save(photo)
    text = run_command("predict", photo, "--model", checkpoint, "--aligned", "--sides").stdout
    lines = {line.split()[1]: line for line in text.splitlines() if " AU" in line}
    assert "left" in text
    assert len([cell for cell in lines["AU12"].split("│") if cell.strip().startswith("0.")]) == 3
    assert len([cell for cell in lines["AU25"].split("│") if cell.strip().startswith("0.")]) == 1
    refused = run_command("predict", photo, "--sides", "--format", "openface", "--output", "a.csv", code=2).stderr
    assert "needs --format geaau" in refused


def test_a_checkpoint_without_sides_is_refused_in_one_line(tiny_checkpoint, portrait, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra export")
    from hf_geaau.export import export

    message = "does not tell left and right apart: it was trained without `model.predict_sides=true`"
    exported = export(tiny_checkpoint, tmp_path / "exported").path
    for model, backend in ((tiny_checkpoint, "torch"), (exported, "onnx")):
        with pytest.raises(CheckpointError, match=message):
            hf_geaau.load_pipeline(model, backend=backend)(portrait[0], return_sides=True)
        with pytest.raises(CheckpointError, match=message):
            next(hf_geaau.predict_video(np.zeros((2, 64, 64, 3), np.uint8), model, backend=backend, return_sides=True))
    photo = tmp_path / "face.png"
    example_face(0, 64).save(photo)
    assert message in run_command("predict", photo, "--model", tiny_checkpoint, "--sides", code=1).stderr.replace(
        "\n", " "
    )


def test_the_bundled_checkpoint_knows_sides_and_what_is_hidden(portrait, tmp_path):
    crops = np.stack([np.asarray(example_face(seed, 128)) for seed in range(4)])
    keep = ("side_probabilities", "visibility")
    one, other = (load_runner(backend=name, keep=keep)(crops) for name in ("torch", "onnx"))
    for name in ("probabilities", "intensities", *keep):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4, err_msg=name)
    (face,) = hf_geaau.load_pipeline()(portrait[0], return_sides=True, return_visibility=True)
    assert {"AU12_left", "AU12_right"} <= set(face["sides"])
    assert face["hidden"] == []
    (mirrored,) = hf_geaau.load_pipeline()(portrait[0][:, ::-1], return_sides=True)
    swapped = {name.replace("left", "x").replace("right", "left").replace("x", "right"): value
               for name, value in mirrored["sides"].items()}  # fmt: skip
    apart = [abs(swapped[name] - value) for name, value in face["sides"].items()]
    assert np.mean(apart) < 0.1


def test_settings_that_older_checkpoints_lack_change_no_digest(tiny_checkpoint, tmp_path):
    older = shutil.copytree(tiny_checkpoint, tmp_path / "older")
    config = json.loads((older / "config.json").read_text())
    removed = {config.pop(name) for name in ("predict_sides", "predict_visibility", "intensity_scale", "side_weight")}
    assert removed == {False, 1.0}
    (older / "config.json").write_text(json.dumps(config))
    assert source_digest(older) == source_digest(tiny_checkpoint)
