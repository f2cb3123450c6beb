"""`hf-geaau evaluate` and `calibrate` as their users run them: tables, files, warnings, one-line errors."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import hf_geaau_cli
from hf_geaau.data import write_example
from hf_geaau.models.loading import BUNDLED_CHECKPOINT

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("always::hf_geaau.errors.DatasetWarning")  # the command shows them


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Run the command in this process, which saves the seconds of importing torch."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    datasets.disable_progress_bars()  # as the command does by an environment variable, before the import

    def call(*arguments: object, code: int = 0):
        monkeypatch.setattr(sys, "argv", ["hf-geaau", *map(str, arguments)])
        capsys.readouterr()  # what fixtures printed when they saved a checkpoint
        with pytest.raises(SystemExit) as end:
            hf_geaau_cli.main()
        printed = capsys.readouterr()
        assert (end.value.code or 0) == code, printed.err
        return printed

    yield call
    datasets.enable_progress_bars()


@pytest.fixture
def faces(tmp_path):
    """Nine people, three in each fold's test set, with two images each."""
    return write_example("synthetic", tmp_path / "faces", identities=9, frames=2, size=64)


@pytest.fixture
def arguments(faces):
    return ["--dataset", "synthetic", "--data-dir", faces, "--workers", 0]


def trained_for(checkpoint, fold, **facts):
    content = {"dataset": {"name": "synthetic", "fold": fold, "protocol": "jaanet", **facts}}
    (checkpoint / "training_facts.json").write_text(json.dumps(content))


def test_a_table_a_report_and_a_page(here, arguments, tiny_checkpoint):
    trained_for(tiny_checkpoint, 2)
    printed = here("evaluate", tiny_checkpoint, *arguments, "--page", "results.md")
    assert "rendered faces, fold 2 (jaanet), test: 6 frames of 3 subjects" in printed.out  # the fold it was trained for
    for words in ("AU01", "AU12", "AU25", "always-on F1", "base rate", "threshold", "mean", "0.500"):
        assert words in printed.out
    assert "The report is in evaluation.json" in printed.out
    (warning,) = printed.err.splitlines()
    assert warning.startswith("warning: Model and dataset share 3 AUs, which are scored; left out are AU02, AU04")
    report = json.loads(Path("evaluation.json").read_text())["reports"]["test"]
    assert (report["fold"], report["frames"], report["identities_shared_with_training"]) == (2, 6, 0)
    assert "# rendered faces: fold 2" in Path("results.md").read_text()
    again = here("evaluate", tiny_checkpoint, *arguments, "--fold", 3, "--threshold", 0.3, "--output", "other.json")
    assert "warning: The model has seen 3 of the 3 tested subjects" in again.err
    report = json.loads(Path("other.json").read_text())["reports"]["test"]
    assert {unit["threshold"] for unit in report["action_units"].values()} == {0.3}


def test_the_bundled_weights_on_all_subjects_with_a_damaged_image(here, arguments, faces):
    path = faces / "images" / "00000004.jpg"
    path.write_bytes(path.read_bytes()[:99])
    before = {entry.name: entry.stat().st_mtime_ns for entry in BUNDLED_CHECKPOINT.iterdir()}
    printed = here("evaluate", *arguments, "--split", "all")
    assert "all subjects: 17 frames of 9 subjects" in printed.out
    assert "AU43" in printed.out
    assert "warning: 1 of 18 rows are skipped because their images cannot be read." in printed.err
    assert any(line.startswith("error: row") and "00000004.jpg" in line for line in printed.err.splitlines())
    assert {entry.name: entry.stat().st_mtime_ns for entry in BUNDLED_CHECKPOINT.iterdir()} == before


def test_a_directory_of_folds(here, arguments, tiny_checkpoint, tmp_path):
    for fold in (1, 2, 3):
        trained_for(shutil.copytree(tiny_checkpoint, tmp_path / "folds" / f"fold{fold}"), fold)
    printed = here("evaluate", tmp_path / "folds", *arguments, "--page", "folds.md")
    for fold in (1, 2, 3):
        assert f"fold {fold} (jaanet), test: 6 frames of 3 subjects" in printed.out
    assert "Mean of folds 1, 2, 3, as the literature prints it" in printed.out
    report = json.loads((tmp_path / "folds" / "folds.json").read_text())
    assert set(report) == {"folds", "mean_of_folds", "pooled"}
    assert "standard deviation between folds" in Path("folds.md").read_text()
    assert "leave it out for a directory of folds" in here(
        "evaluate", tmp_path / "folds", *arguments, "--fold", 1, code=2
    ).err.replace("\n", " ")


def test_triplets(here, arguments, tiny_config, tiny_checkpoint, tmp_path):
    from hf_geaau import GeaauForExpressionEmbedding

    shutil.copytree(tiny_checkpoint, tmp_path / "encoder")
    GeaauForExpressionEmbedding(tiny_config).save_pretrained(tmp_path / "encoder")
    printed = here("evaluate", tmp_path / "encoder", *arguments, "--split", "all", "--option", "triplets=9")
    assert "all subjects: 9 triplets" in printed.out
    assert "three-class" in printed.out
    assert json.loads(Path("evaluation.json").read_text())["reports"]["all"]["triplets"] == 9


def test_crops_of_a_licensed_set_stand_beside_published_numbers(here, tiny_checkpoint, tmp_path):
    raw = write_example("bp4d", tmp_path / "bp4d", subjects_per_part=1, tasks=("T1",), frames=2)
    error = here("evaluate", tiny_checkpoint, "--dataset", "bp4d", "--data-dir", raw, code=1).err
    assert len(error.splitlines()) == 1
    assert f"hf-geaau prepare bp4d --data-dir {raw} --output" in error
    here("prepare", "bp4d", "--data-dir", raw, "--output", tmp_path / "crops", "--size", 64, "--workers", 1)
    printed = here(
        "evaluate", tiny_checkpoint, "--dataset", "bp4d", "--data-dir", tmp_path / "crops", "--fold", 3,
        "--page", "results.md", "--workers", 0,
    )  # fmt: skip
    assert "BP4D, fold 3 (jaanet), test: 2 frames of 1 subjects" in printed.out
    assert "BP4D has 46,034 frames in this split in the literature, but 2 here" in printed.err
    page = Path("results.md").read_text()
    assert "| GTLE-Net | 58.2 | 48.7 |" in page
    assert "the scores are not comparable" in page


def test_calibration(here, arguments, tiny_checkpoint, tmp_path):
    trained_for(tiny_checkpoint, 1, validation_subject_ids=["render-0-1", "render-0-4"])
    printed = here("calibrate", tiny_checkpoint, *arguments)
    assert "synthetic, fold 1 (jaanet): 4 frames of 2 validation subjects: the subjects that training" in printed.out
    for words in ("AU12", "threshold", "ECE", "Temperature 1.000 →", "negative log-likelihood"):
        assert words in printed.out
    assert printed.err == ""
    report = json.loads((tiny_checkpoint / "calibration.json").read_text())
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    assert config["temperature"] == report["temperature"]["after"]
    assert config["thresholds"][1] == report["action_units"]["AU12"]["threshold"]["after"]
    copied = here("calibrate", *arguments, "--output", tmp_path / "copy")
    assert f"are in {tmp_path / 'copy' / 'config.json'}" in copied.out
    assert "warning: The checkpoint names no validation subjects of this data" in copied.err
    error = here("calibrate", *arguments, code=1).err
    assert error == (
        "error: Cannot change the bundled checkpoint in place. Pass `output`, a new folder for a calibrated copy.\n"
    )


@pytest.mark.parametrize(
    ("change", "message", "code"),
    [
        (["--fold", 7], "`fold` must be from 1 to 3 for rendered faces, got 7", 1),
        (["--split", "tset"], "`split` must be one of 'test', 'train', 'all', got 'tset'", 1),
        (["--device", "nonsense"], "`device` must be one that torch can use here, got 'nonsense'", 1),
        (["--output", "x.csv"], "must end in .json, got 'x.csv'", 2),
        (["--output", "folder.json"], "must be a file, got the folder 'folder.json'", 2),
        (["--page", "no/x.md"], "its folder must exist, got 'no/x.md'", 2),
        (["--option", "tripletts=3"], "Did you mean 'triplets'?", 1),
        (["--option", "triplets=few"], "`triplets` must be an integer, got 'few'.", 1),
        (["--option", "progress=1"], "`option` must be one of 'drop_listed',", 1),
        (["--option", "model=x"], "`option` must be one of 'drop_listed',", 1),
        (["--workers", 99999], "`num_workers` must be from 0 to 1024, got 99999.", 1),
        (["--protocol", "jaa"], "Did you mean 'jaanet'?", 1),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(here, arguments, tiny_checkpoint, change, message, code):
    Path("folder.json").mkdir()
    errors = here("evaluate", tiny_checkpoint, *arguments, *change, code=code).err
    assert message in " ".join(errors.replace("│", " ").split())
    assert code == 2 or len(errors.splitlines()) == 1
    assert not Path("evaluation.json").exists()


def test_a_checkpoint_that_is_none(here, arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    error = here("evaluate", tmp_path / "empty", *arguments, code=1).err
    assert "it has no config.json" in error
