"""Own data from a table to a calibrated checkpoint, by the commands of docs/own_data.md and more."""

import json
import shlex
import sys
from pathlib import Path

import pytest

import hf_geaau_cli
from hf_geaau import GeaauModel
from hf_geaau.training import load_recipe, resolved_recipe
from tests.integration.test_docs import ROOT, blocks

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("always::hf_geaau.errors.DatasetWarning")  # the command shows them

SHORT = ["epochs=1", "early_stopping=null", "validation_share=0.25"]


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Run the command in this process, which saves the seconds of importing torch."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()

    def call(*arguments: object, code: int = 0):
        monkeypatch.setattr(sys, "argv", ["hf-geaau", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            hf_geaau_cli.main()
        printed = capsys.readouterr()
        assert (end.value.code or 0) == code, printed.err
        return printed

    yield call
    datasets.enable_progress_bars()


@pytest.fixture
def documented():
    """The commands of docs/own_data.md on a table, by name: `train folder`, `evaluate runs/mine`, …"""
    lines = next(block for block in blocks(ROOT / "docs" / "own_data.md", "") if "example-data" in block).splitlines()
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    return {" ".join(command[:2]): command for command in commands}


@pytest.mark.slow
def test_the_documented_commands_lead_to_a_calibrated_checkpoint(here, documented, monkeypatch):
    printed = here(*documented["example-data folder"], "--option", "action_units=[1,4,11,12]")
    assert "image,subject,AU01,AU12,AU25_r" in printed.out
    monkeypatch.chdir("look")
    train = [*documented["train folder"], *SHORT]
    plan = here(*train, "--dry-run")
    assert ["test", "rows", "8"] in [line.split() for line in plan.out.splitlines()]
    assert not list(Path("../cache").glob("hf_geaau-folder-*")), "a dry run cuts nothing"
    trained = here(*train, "--cpu")
    assert trained.err.count("24 photos are found and cut once") == 1
    model = GeaauModel.from_pretrained("runs/mine")
    assert model.config.action_units == [1, 4, 11, 12]  # AU11 is new, the others keep their weights
    assert model.config.trained_on == ["synthetic", "folder"]
    facts = json.loads(Path("runs/mine/training_facts.json").read_text())
    assert (facts["dataset"]["name"], facts["dataset"]["folds"], facts["dataset"]["test_rows"]) == ("folder", 3, 8)
    printed = here(*documented["evaluate runs/mine"])  # the dataset is that of the training
    assert "own data, fold 1 (jaanet), test: 8 frames of 2 subjects" in printed.out
    assert "has seen" not in printed.err
    assert "has seen 2 of the 2 tested subjects" in here(*documented["evaluate runs/mine"], "--fold", 2).err
    assert "the subjects that training validated on" in here(*documented["calibrate runs/mine"]).out
    assert (Path("runs/mine") / "calibration.json").is_file()
    assert "left out are AU02" in here(*documented["evaluate folder"]).err
    here(*documented["prepare folder"], "--size", 128, "--workers", 1)
    here("calibrate", "folder", "--data-dir", "crops", "--output", "calibrated")
    assert (Path("calibrated") / "calibration.json").is_file()
    assert "training of fold 1, not 2" in here(*train, "--fold", 2, code=1).err


@pytest.mark.slow
def test_options_and_all_folds(here):
    here("example-data", "folder", "own", "--option", "subjects=4", "--option", "frames=2")
    options = ["--option", "aligned=true", "--option", "folds=2", "--option", "action_units=[12]"]
    arguments = [*SHORT, *options, "--data-dir", "own", "--output", "runs", "--folds", "all", "--cpu"]
    printed = here("train", "folder", *arguments)
    assert "cut once" not in printed.err
    assert sorted(json.loads(Path("runs/folds.json").read_text())["folds"]) == ["1", "2"]
    printed = here("evaluate", "runs", "--data-dir", "own", *options)
    assert "Mean of folds 1, 2" in printed.out


def test_bad_input_is_one_line(here):
    Path("faces.csv").write_text("image,subject,AU12\nno.jpg,a,1\n")
    for command in (
        ["train", "folder", "--output", "run"],
        ["evaluate", "folder"],
        ["evaluate", "--dataset", "folder"],
    ):
        errors = here(*command, "--data-dir", "faces.csv", code=1).err
        assert errors.startswith("error: 1 of 1 rows have no image; the first is line 2 of"), errors
        assert len(errors.splitlines()) == 1
    assert "Did you mean 'images'" in here(
        "prepare", "folder", "--data-dir", "faces.csv", "--output", "out", "--option", "imags=.", code=1
    ).err  # fmt: skip
    assert "is needed: one of bp4d" in here("evaluate", "--data-dir", "faces.csv", code=2).err


@pytest.mark.slow
def test_a_warning_is_shown_once(here):
    here("example-data", "folder", "own", "--option", "subjects=4", "--option", "frames=1")
    table = Path("own/faces.csv")
    table.write_text(table.read_text().replace("subject", "who", 1))
    errors = here("evaluate", "folder", "--data-dir", "own").err
    assert errors.count("names the subject, so each image counts as one") == 1


def test_weights_of_own_data_are_pushed_privately(tiny_model, tmp_path):
    tiny_model.config.trained_on = ["synthetic", "folder"]
    with pytest.raises(PermissionError, match="trained on folder"):
        tiny_model.push_to_hub("ada/mine", private=False)


def test_a_recipe_is_resolved_to_the_table(here):
    here("example-data", "folder", "own", "--option", "subjects=3", "--option", "frames=1")
    recipe = resolved_recipe("folder", "own")
    assert recipe.action_units == (1, 4, 12, 25)
    assert recipe.options == {"action_units": [1, 4, 12, 25], "folds": 3}
    assert load_recipe(recipe.to_dict()) == recipe == resolved_recipe(recipe, "gone")
