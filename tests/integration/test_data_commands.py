"""The commands for data as their users run them: look at a layout, cut crops, be killed and resume, fetch photos."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from hf_geaau.data import dataset_class, write_example
from tests.command import run_command

# An imitation always has other numbers of frames than the published ones.
pytestmark = pytest.mark.filterwarnings("default::hf_geaau.errors.DatasetWarning")


def test_from_an_imitation_to_crops(tmp_path):
    source = tmp_path / "disfa"
    run_command("example-data", "disfa", source, "--option", "subjects_per_part=1", "--option", "frames=2")
    result = run_command(
        "prepare", "disfa", "--data-dir", source, "--output", tmp_path / "out", "--size", 64, "--workers", 1,
        "--option", "camera=left",
    )  # fmt: skip
    assert "6 rows in" in result.stdout
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert "130,814" in warning
    data = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in data.items()} == {"train": 4, "test": 2}


@pytest.mark.parametrize("name", ["bp4d", "bp4d_plus", "disfa", "fec", "folder", "synthetic"])
def test_every_dataset_has_an_imitation(name, tmp_path):
    printed = run_command("example-data", name, tmp_path / name).stdout
    assert f"An imitation of {name}" in printed
    assert f"The layout of {name}:" in printed
    assert dataset_class(name).LAYOUT.strip("\n") in printed
    assert any((tmp_path / name).rglob("*.*"))


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path):
    source = write_example("bp4d", tmp_path / "bp4d", subjects_per_part=2, frames=12, tasks=("T1",))
    out = tmp_path / "out"
    command = ["prepare", "bp4d", "--data-dir", source, "--output", out, "--size", 64, "--workers", 1]
    process = subprocess.Popen(
        [Path(sys.executable).parent / "hf-geaau", *map(str, command)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(".partial/*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    written = {path.name: path.stat().st_mtime_ns for path in out.glob(".partial/*.parquet")}
    assert written
    assert not (out / "data").exists()
    assert "72 rows in" in run_command(*command).stdout
    assert {name: (out / "data" / name).stat().st_mtime_ns for name in written} == written
    data = datasets.load_dataset(str(out), "all", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == 72


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "bp4d", "--data-dir", "no", "--output", "out"], "error: Cannot find BP4D in "),
        (["prepare", "bpd4", "--data-dir", ".", "--output", "out"], "Did you mean 'bp4d'?"),
        (["prepare", "fec", "--data-dir", ".", "--output", "out"], "neither faceexp-comparison-data-train-public.csv"),
        (["example-data", "bp5d", "look"], "Did you mean 'bp4d'?"),
        (["example-data", "fec", "look", "--option", "fotos=3"], "Did you mean 'photos'?"),
        (["example-data", "fec", "look", "--option", "folder=x"], "`quirk` must be one of"),
        (["example-data", "fec", "look", "--option", "photos=many"], "`photos` must be an integer, got 'many'."),
        (["example-data", "fec", "look", "--option", "photos=3"], "`photos` must be at least 6, got 3."),
        (["example-data", "folder", "look", "--option", "action_units=[99]"], "`action_units` does not fit: AUs must"),
        (["example-data", "bp4d_plus", "look", "--option", "old_tasks=true"], "`old_tasks` must be false for BP4D+"),
        (["example-data", "folder", "look", "--face-model", "no"], "Cannot read the face model 'no': no such file"),
        (["prepare", "fec", "--data-dir", ".", "--output", "out", "--option", "size=3"], "got 'size'."),
        (["download-fec", "."], "neither faceexp-comparison-data-train-public.csv"),
        (["download-fec", "no"], "neither faceexp-comparison-data-train-public.csv"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    errors = run_command(*arguments, code=1).stderr
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_a_used_folder_is_not_written_to(tmp_path):
    (tmp_path / "thesis.txt").touch()
    assert "must be a new or empty folder" in run_command("example-data", "fec", tmp_path, code=2).stderr
    assert (
        "must be NAME=VALUE"
        in run_command("example-data", "fec", tmp_path / "new", "--option", "photos", code=2).stderr
    )


def test_photos_of_dead_servers_are_reported(tmp_path):
    source = tmp_path / "fec"
    run_command(
        "example-data", "fec", source, "--option", "missing_photos=2", "--option", "base_url=http://127.0.0.1:9"
    )
    text = run_command("download-fec", source, "--retries", 0).stdout
    assert "0 photos fetched" in text
    report = (source / "dead_links.csv").read_text().splitlines()
    assert report[0] == "url,status,reason,attempts,final"
    assert len(report) > 1
    assert f"{len(report) - 1} dead links" in text


@pytest.mark.slow
def test_other_people_and_settings_are_rendered_on_request(face_model_path, tmp_path):
    pytest.importorskip("moderngl", reason="needs the extra `synthetic`")
    command = ["render", "--face-model", face_model_path, "--count", 1, "--size", 32, "--workers", 1]
    assert "1 images in" in run_command(*command, "--style", "shifted", "--output", tmp_path / "faces").stdout
    assert pq.read_table(tmp_path / "faces" / "labels.parquet")["style"].to_pylist() == ["shifted"]
    assert (
        "'standard', 'shifted'" in run_command(*command, "--style", "odd", "--output", tmp_path / "odd", code=2).stderr
    )
