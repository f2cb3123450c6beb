"""The command on photos: what it prints and writes, and what it says about wrong input."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from hf_geaau.video.tables import columns
from tests.command import run_command


@pytest.fixture
def photo(portrait, tmp_path) -> Path:
    path = tmp_path / "portrait.png"
    Image.fromarray(portrait[0]).save(path)
    return path


@pytest.mark.slow
def test_the_installed_command_answers_without_torch():
    command = Path(sys.executable).parent / "hf-geaau"
    text = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "predict" in text
    assert "render" in text
    code = "import sys, hf_geaau_cli; assert not {'torch', 'transformers', 'hf_geaau'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_version():
    assert run_command("--version").stdout.startswith("hf-geaau ")


def test_a_photo_is_printed_as_a_table(photo, tiny_checkpoint):
    text = run_command("predict", photo, "--model", tiny_checkpoint).stdout
    assert "face 1 of 1" in text
    for words in ("AU01", "Inner brow raiser", "AU12", "Lip corner puller", "AU25", "Lips part"):
        assert words in text


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_without_unicode_gets_the_table_too(photo, encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "hf_geaau", "predict", str(photo)]
    text = subprocess.run(command, capture_output=True, check=True, env=environment).stdout.decode(encoding)
    assert "Lip corner puller" in text


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_are_written_in_each_format(photo, tiny_checkpoint, tmp_path, suffix):
    target = tmp_path / f"table{suffix}"
    run_command("predict", photo, "--model", tiny_checkpoint, "--output", target)
    read = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True), ".parquet": pd.read_parquet}
    table = read[suffix](target)
    units = ["AU01", "AU12", "AU25"]
    assert list(table) == columns(units)
    assert len(table) == 1
    assert table.source[0] == str(photo)
    assert table.frame[0] == 0
    assert table[["time_s", "track_id"]].isna().all(axis=None)  # a photo has neither
    assert abs(table.roll[0]) < 10
    for unit in units:
        assert table[f"{unit}_present"][0] == int(table[unit][0] >= 0.5)
    assert not list(tmp_path.glob(".*partial"))


def test_the_rest_continues_after_a_bad_photo(photo, tiny_checkpoint, tmp_path):
    empty, faceless, folder = tmp_path / "empty.jpg", tmp_path / "wall.png", tmp_path / "folder"
    empty.touch()
    folder.mkdir()
    Image.new("RGB", (300, 200), "white").save(faceless)
    target = tmp_path / "table.csv"
    result = run_command(
        "predict", empty, photo, faceless, folder, photo, "--model", tiny_checkpoint, "--output", target, code=1
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 3
    for path, line in zip((empty, faceless, folder), lines, strict=True):
        assert str(path) in line
    assert "3 of 5 photos gave no result." in result.stderr
    assert list(pd.read_csv(target).source) == [str(photo)] * 2


def test_many_photos_print_one_line_each(photo, tiny_checkpoint):
    result = run_command("predict", *[photo] * 6, "--model", tiny_checkpoint)
    assert len(result.stdout.splitlines()) == 6


def test_annotated_pictures(photo, tiny_checkpoint, tmp_path):
    folder = tmp_path / "pictures"
    run_command("predict", photo, "--model", tiny_checkpoint, "--annotate", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["1_portrait.jpg", "1_portrait_face1_masks.png"]
    with Image.open(folder / "1_portrait.jpg") as picture:
        assert picture.size == (512, 512)


def test_the_output_is_checked_before_any_work(photo, tiny_checkpoint, tmp_path):
    existing = tmp_path / "table.csv"
    existing.write_text("mine")
    assert "--overwrite" in run_command("predict", photo, "--output", existing, code=2).stderr
    assert existing.read_text() == "mine"
    assert ".csv, .jsonl, .parquet" in run_command("predict", photo, "--output", tmp_path / "table.xlsx", code=2).stderr
    assert (
        "its folder does not exist"
        in run_command("predict", photo, "--output", tmp_path / "no" / "table.csv", code=2).stderr
    )
    run_command("predict", photo, "--model", tiny_checkpoint, "--output", existing, "--overwrite")
    assert len(pd.read_csv(existing)) == 1


def test_a_bad_checkpoint_is_one_line(photo, tmp_path):
    result = run_command("predict", photo, "--model", tmp_path, code=1)
    assert result.stderr.startswith(f"error: Cannot load the checkpoint '{tmp_path}': it has no config.json")
    assert len(result.stderr.splitlines()) == 1
    result = run_command("predict", photo, "--model", "nobody/nothing", code=1)
    assert "nobody/nothing" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_rendering_without_a_face_model_is_one_line(tmp_path):
    result = run_command(
        "render", "--face-model", tmp_path / "none", "--count", 1, "--output", tmp_path / "out", code=1
    )
    assert result.stderr.startswith("error: ")
    assert str(tmp_path / "none") in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_python_m_is_the_same_command():
    result = subprocess.run([sys.executable, "-m", "hf_geaau", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("hf-geaau ")
