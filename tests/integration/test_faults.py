"""Kills, full disks and second writers, for every command that writes.

`make fuzz` kills more often: HF_GEAAU_FUZZ_ROUNDS is the number of kills for each command.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_geaau import GeaauImageProcessor
from hf_geaau.data import write_example
from hf_geaau.video.tables import SUFFIXES
from tests.clips import walking, write_clip
from tests.command import run_command
from tests.killing import Commands

ROUNDS = int(os.environ.get("HF_GEAAU_FUZZ_ROUNDS", "2"))
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
    "epochs=3",
    "evaluate_steps=2",
]
pytestmark = pytest.mark.filterwarnings("default::hf_geaau.errors.DatasetWarning")


@pytest.fixture(scope="module")
def inputs(portrait, _tiny_model, tmp_path_factory):
    """A folder with a checkpoint, a video, photos, drawn faces, an imitation of BP4D, and a table of predictions."""
    folder = tmp_path_factory.mktemp("inputs")
    _tiny_model.save_pretrained(folder / "model")
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / "model")
    (folder / "media").mkdir()
    write_clip(folder / "media" / "walk.mp4", walking(portrait[0], 20))
    for number in range(4):
        Image.fromarray(portrait[0]).save(folder / "media" / f"{number}.png")
    (folder / "media" / "broken.jpg").write_bytes(b"no photo")
    write_example("synthetic", folder / "faces", identities=12, frames=6, size=32)
    write_example("bp4d", folder / "bp4d", subjects_per_part=2, frames=6, tasks=("T1",))
    run_command("predict", folder / "media" / "walk.mp4", "--model", folder / "model", "--output",
                folder / "table.parquet")  # fmt: skip
    return folder


def writing(command: str, inputs: Path, output: Path) -> list[object]:
    """Return the arguments of a command that writes to `output`."""
    model = ["--model", inputs / "model"]
    faces = ["--dataset", "synthetic", "--data-dir", inputs / "faces", "--device", "cpu", "--workers", 0]
    return {
        "predict": ["predict", inputs / "media", *model, "--chunk", 3, "--output", output / "table.csv"],
        "annotate": ["predict", inputs / "media", *model, "--annotate", output],
        "plot": ["plot", inputs / "table.parquet", "--contact-sheet", "--output", output, "--overwrite"],
        "similar": ["similar", inputs / "media" / "0.png", inputs / "media", *model, "--sheet", output / "sheet.png"],
        "example-data": ["example-data", "fec", output],
        "prepare": ["prepare", "bp4d", "--data-dir", inputs / "bp4d", "--output", output, "--size", 64, "--workers", 1],
        "train": ["train", "synthetic", "--data-dir", inputs / "faces", "--output", output, "--cpu", *TINY],
        "evaluate": ["evaluate", inputs / "model", *faces, "--split", "all", "--output", output / "report.json"],
        "calibrate": ["calibrate", inputs / "model", *faces, "--output", output / "copy"],
        "evidence": ["evidence", inputs / "model", "--renders", inputs / "renders", "--output", output],
    }[command]


# Kills.


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Processes that can be killed."""
    runner = Commands(tmp_path_factory.mktemp("commands"))
    yield runner
    runner.close()


def table_of(output: Path) -> list[object]:
    """Return the rows, rounded: a resumed run fills its batches otherwise."""
    rows = pd.read_csv(output / "table.csv")
    return [rows[["source", "frame", "track_id", "face"]].to_csv(), rows.select_dtypes(float).round(2).to_numpy()]


def shards_of(output: Path) -> list[object]:
    shards = sorted((output / "data").glob("*.parquet"))
    report = pd.read_csv(output / "report.csv").to_csv()
    return [report, *(f"{shard.name} {pq.read_table(shard).to_pydict()}" for shard in shards)]


def renders_of(output: Path) -> list[object]:
    table = pq.read_table(output / "labels.parquet").to_pydict()
    return [str(table), *((output / name).read_bytes() for name in table["file_name"])]


def weights_of(output: Path) -> list[object]:
    return [(output / "model.safetensors").read_bytes()]


RESULTS = {"predict": table_of, "prepare": shards_of, "render": renders_of, "train": weights_of}


@pytest.mark.slow
@pytest.mark.parametrize("command", RESULTS)
def test_killed_at_any_moment_a_run_resumes_with_the_same_result(command, commands, inputs, tmp_path, request):
    if command == "render":
        pytest.importorskip("moderngl", reason="needs the extra `synthetic`")
        model = request.getfixturevalue("face_model_path")

    def run(output, resumed=False, kill_after=None):
        output.mkdir(exist_ok=True)
        if command == "render":
            arguments = ["render", "--face-model", model, "--count", 100, "--size", 32, "--workers", 1]
            arguments += ["--output", output]
        else:
            arguments = [*writing(command, inputs, output), *(["--resume"] if resumed and command == "predict" else [])]
        return commands.run(*arguments, kill_after=kill_after)

    whole = run(tmp_path / "whole")
    expected, moments, kills, seconds = RESULTS[command](tmp_path / "whole"), random.Random(command), 0, whole.seconds
    while kills < ROUNDS:
        output = tmp_path / f"killed{kills}_{seconds}"
        ended = run(output, kill_after=moments.uniform(0, seconds))
        kills += ended.code == -9
        seconds = min(seconds, ended.seconds) if ended.code != -9 else seconds  # it was faster than the first
        if not (command == "predict" and (output / "table.csv").exists()):
            again = run(output, resumed=True)
            assert again.code == whole.code, again.printed
        for found, wanted in zip(RESULTS[command](output), expected, strict=True):
            np.testing.assert_array_equal(found, wanted, f"after {ended}")
        visible = {path.name for path in output.iterdir() if not path.name.startswith(".")}
        assert visible == {path.name for path in (tmp_path / "whole").iterdir() if not path.name.startswith(".")}
    print(f"{command}: {kills} kills, {whole.seconds:.1f} s uninterrupted")


# Full disks.


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs a disk of its own, but mounting is not allowed here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path, left: int) -> None:
    """Leave so many bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(max(0, free - left)))


FULL = [
    "predict",
    "annotate",
    "plot",
    "similar",
    "example-data",
    "prepare",
    "train",
    "evaluate",
    "calibrate",
    "evidence",
]


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 4096, 40_960])
@pytest.mark.parametrize("command", FULL)
def test_a_full_disk_is_one_line(command, left, inputs, small_disk, request):
    if command == "evidence":
        renders_for_evidence(inputs)
    output = small_disk / "output"
    output.mkdir()
    fill(small_disk, left)
    errors = run_command(*writing(command, inputs, output), code=None).stderr
    lines = [line for line in errors.splitlines() if line.startswith("error: ") and "broken.jpg" not in line]
    if lines:
        assert len(lines) == 1, errors
        assert "No space left on device" in lines[0] or "Disk full" in lines[0]
    else:
        assert left, "it should not fit"
    assert not list(output.rglob("?*.partial"))
    assert not list(output.rglob(".lock"))


def renders_for_evidence(inputs: Path) -> None:
    if not (inputs / "renders").exists():
        write_example("synthetic", inputs / "renders" / "test", identities=4, frames=4, size=64)


@pytest.mark.slow
@pytest.mark.parametrize("command", FULL)
def test_a_disk_that_may_only_be_read_is_one_line(command, inputs, small_disk):
    if command == "evidence":
        renders_for_evidence(inputs)
    output = small_disk / "output"
    output.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    errors = run_command(*writing(command, inputs, output), code=1).stderr
    lines = [line for line in errors.splitlines() if line.startswith("error: ") and "broken.jpg" not in line]
    assert len(lines) == 1 and "Read-only file system" in lines[0], errors


@pytest.mark.slow
def test_rows_committed_before_the_disk_was_full_are_kept(inputs, small_disk):
    fill(small_disk, 40_960)
    arguments = writing("predict", inputs, small_disk)
    errors = run_command(*arguments, code=1).stderr
    assert "No space left on device" in errors and "--resume" in errors
    chunks = list(small_disk.glob("_*.unfinished/chunk-*.parquet"))
    assert chunks
    (small_disk / "filler").unlink()
    run_command(*arguments, "--resume", code=1)  # one photo is broken
    assert len(pd.read_csv(small_disk / "table.csv")) == 20 + 4


# Second writers.


HOLD = """
import sys
from hf_geaau.files import FolderLock
locks = [FolderLock(folder) for folder in sys.argv[1:]]
print("locked", flush=True)
sys.stdin.read()
"""
LOCKING = ["annotate", "plot", "example-data", "prepare", "train", "evidence"]


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A folder for each command, which another process writes to."""
    folders = {command: tmp_path_factory.mktemp("held") / command for command in LOCKING}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, *map(str, folders.values())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "locked\n"
    yield folders
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("command", LOCKING)
def test_a_folder_that_another_process_writes_to_is_refused(command, held, inputs):
    if command == "evidence":
        renders_for_evidence(inputs)
    code = 2 if command == "example-data" else 1
    errors = run_command(*writing(command, inputs, held[command]), code=code).stderr
    assert "Another process is writing" in errors or "must be a new or empty folder" in errors
    assert [path.name for path in held[command].iterdir()] == [".lock"]


# What the system refuses, and what is no table.


@pytest.mark.parametrize("command", ["annotate", "plot", "example-data", "prepare", "train"])
def test_a_folder_that_cannot_be_made_is_one_line(command, inputs, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "below", tmp_path / ("x" * 300), Path("/proc/hf_geaau")):
        errors = run_command(*writing(command, inputs, output), code=1).stderr
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, errors
        assert "Cannot " in lines[0]


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "file/table.csv"])
def test_a_table_that_cannot_be_written_is_one_line(name, inputs, tmp_path):
    (tmp_path / "file").touch()
    errors = run_command("predict", inputs / "media", "--output", tmp_path / name, code=1).stderr
    assert errors.startswith("error: Cannot write ") and len(errors.splitlines()) == 1


def test_a_wrong_suffix_is_told_before_torch_is_imported():
    code = (
        "import sys; from hf_geaau_cli import app\n"
        "try: app(['predict', 'a.jpg', '--output', 'a.xlsx'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'hf_geaau' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "must end in" in done.stderr
    from hf_geaau_cli._predict import SUFFIXES as told

    assert told == SUFFIXES


@pytest.mark.parametrize("value", ["abc", "-1", "7"])
@pytest.mark.parametrize("command", ["predict", "train"])
def test_a_wrong_rank_is_one_line(command, value, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", value)
    errors = run_command(*writing(command, inputs, tmp_path), code=1).stderr
    assert errors.startswith("error: The environment variable RANK must be") and len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["$^{$.mp4", "a_{b}$\\frac$.mp4", "%s {0} [bold].mp4", "\n\t.mp4"])
def test_names_are_drawn_as_they_are(name, inputs, tmp_path):
    table = pd.read_parquet(inputs / "table.parquet").assign(source=name)
    table.to_parquet(tmp_path / "table.parquet")
    run_command("plot", tmp_path / "table.parquet", "--output", tmp_path / "plots")
    assert (tmp_path / "plots" / "01_face1_over_time.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("error", [ValueError("no such\nfont"), OSError("encoder error -2")])
def test_what_cannot_be_drawn_is_a_note_of_its_source(error, inputs, tmp_path, monkeypatch):
    from hf_geaau import plots

    draw, calls = plots.annotate_photo, []

    def failing(picture, *rest):
        calls.append(picture)
        if len(calls) == 2:
            raise error
        return draw(picture, *rest)

    monkeypatch.setattr(plots, "annotate_photo", failing)
    photos = [inputs / "media" / f"{number}.png" for number in range(4)]
    shown, table = tmp_path / "shown", tmp_path / "table.csv"
    result = run_command("predict", *photos, "--model", inputs / "model", "--annotate", shown, "--output", table)
    (note,) = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert note.startswith(f"note: '{photos[1]}': it could not be annotated ({type(error).__name__}: ")
    assert sorted(path.name for path in shown.glob("*.jpg")) == ["1_0.jpg", "3_2.jpg", "4_3.jpg"]
    assert len(pd.read_csv(table)) == 4
