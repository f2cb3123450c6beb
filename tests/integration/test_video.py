"""Videos from file to table: the command, the generator and the pipeline, killed, split and shown."""

import _thread
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hf_geaau
from hf_geaau import GeaauForExpressionEmbedding, GeaauImageProcessor
from hf_geaau.environ import process_count
from hf_geaau.errors import ProcessError, TableError, VideoError
from hf_geaau.pipeline import load_pipeline, predict_video
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import Settings
from hf_geaau.video.summary import contact_sheet, strongest_faces
from tests.clips import numbered, walking, write_clip
from tests.command import run_command

av = pytest.importorskip("av", reason="PyAV is not installed")


@pytest.fixture(scope="module")
def clip(portrait, tmp_path_factory):
    """The portrait walks for a second, then nobody is there for a fifth of one."""
    frames = walking(portrait[0], 25, step=3)
    return write_clip(tmp_path_factory.mktemp("clip") / "a walk.mp4", frames + [np.full_like(frames[0], 110)] * 5)


def test_generator_pipeline_and_command_give_the_same_rows(clip, tiny_checkpoint, tmp_path):
    pipe = load_pipeline(tiny_checkpoint, device="cpu")
    rows = pd.DataFrame(predict_video(clip, pipe, every=3))
    assert rows.frame.tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24]
    assert rows.time_s.tolist() == pytest.approx([number / 25 for number in rows.frame])
    assert (rows.track_id == 1).all()
    assert np.diff(rows.nose_x).mean() == pytest.approx(9, abs=1)  # three frames, three pixels each
    faces = pipe(str(clip), every=3, return_embedding=True)
    assert [face["frame"] for face in faces] == rows.frame.tolist()
    assert [face["action_units"]["AU12"] for face in faces] == pytest.approx(rows.AU12.tolist(), abs=1e-5)
    assert faces[0]["embedding"].shape == (16,)
    target = tmp_path / "table.csv"
    result = run_command("predict", clip, "--model", tiny_checkpoint, "--every", 3, "--output", target)
    assert "10 of 30 frames" in result.stdout
    assert "faces followed: 1, frames without a face: 1" in result.stdout
    table = pd.read_csv(target)
    assert list(table) == list(rows)
    pd.testing.assert_frame_equal(
        table.drop(columns="source"), rows.drop(columns="source"), check_dtype=False, atol=1e-3
    )
    run_command(
        "predict", clip, "--model", tiny_checkpoint, "--every", 3, "--smooth", 0.3, "--output", tmp_path / "smooth.csv"
    )
    expected, keep = [rows.AU12[0]], np.exp(-3 / 25 / 0.3)
    for value in rows.AU12[1:]:
        expected.append(keep * expected[-1] + (1 - keep) * value)
    assert pd.read_csv(tmp_path / "smooth.csv").AU12.tolist() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(VideoError, match="there is no such file"):
        next(predict_video(tmp_path / "none.mp4", pipe))


def test_overlay_blur_heat_map_and_plots(clip, tiny_checkpoint, tmp_path):
    table, shown = tmp_path / "table.parquet", tmp_path / "shown"
    run_command("predict", clip, "--model", tiny_checkpoint, "--fps", 5, "--output", table, "--annotate", shown,
        "--blur", "--heat-map", "AU12")  # fmt: skip
    (overlay,) = shown.iterdir()
    assert pd.read_parquet(table).track_id.nunique() == 1
    assert overlay.name == "1_a_walk.mp4"
    with av.open(str(overlay)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        source = [frame.to_ndarray(format="rgb24") for frame in av.open(str(clip)).decode(video=0)]
    assert len(pictures) == 6
    row = pd.read_parquet(table).iloc[0]
    inside = np.s_[
        int(row.left_eye_y) - 8 : int(row.left_eye_y) + 9, int(row.left_eye_x) - 10 : int(row.right_eye_x) + 10
    ]
    detail = [np.abs(np.diff(image[inside].astype(float), axis=1)).mean() for image in (source[0], pictures[0])]
    assert detail[1] < 0.6 * detail[0]  # the eyes cannot be made out
    plots = tmp_path / "plots"
    text = run_command("plot", table, "--output", plots, "--contact-sheet", "--top", 2).stdout
    assert "Lip corner puller" in text
    names = {"01_face1_over_time.png", "together.png", "summary.csv", "strongest.png"}
    assert {path.name for path in plots.iterdir()} == names
    assert "is not empty; pass --overwrite" in run_command("plot", table, "--output", plots, code=2).stderr
    empty = tmp_path / "empty.parquet"
    pd.read_parquet(table).iloc[:0].to_parquet(empty)
    assert f"Cannot plot '{empty}': it has no rows." in run_command("plot", empty, code=1).stderr
    assert (
        "must be an AU of this model"
        in run_command(
            "predict", clip, "--model", tiny_checkpoint, "--annotate", shown, "--heat-map", "AU99", code=2
        ).stderr
    )


INTERRUPT = """
import os, signal
from hf_geaau.video.tables import TableWriter
from hf_geaau_cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
commit, commits = TableWriter.commit, []

def commit_and_die(self, progress):
    commit(self, progress)
    commits.append(progress)
    if len(commits) == 2:
        os.kill(os.getpid(), signal.SIGNAL)

TableWriter.commit = commit_and_die
main()
"""


def test_the_contact_sheet_shows_only_faces_in_which_the_unit_is_present():
    rows = pd.DataFrame(
        {"source": "a.mp4", "time_s": [0.0, 0.2, 1.0, 2.0], "AU12": [0.8, 0.9, 0.4, 0.7], "AU12_present": [1, 1, 0, 1]}
    )
    assert strongest_faces(rows, "AU12", 3) == [1, 3]  # of two neighboring frames the better one
    assert strongest_faces(rows.assign(AU12_present=0), "AU12", 3) == []


def test_a_contact_sheet_without_faces_says_why():
    rows = pd.DataFrame({"source": ["gone.mp4"], "frame": 0, "time_s": 0.0, "AU12": 0.8, "AU12_present": 1})
    problems = []
    with pytest.raises(TableError) as caught:
        contact_sheet(rows, ["AU12"], 3, blur=False, on_problem=problems.append)
    assert str(caught.value) == (
        "Cannot draw a contact sheet: no photo or video of the table can be read. Run the command where they are."
    )
    assert problems == ["Cannot read 'gone.mp4': there is no such file. Check the path."]
    with pytest.raises(TableError, match="no action unit is present in the table"):
        contact_sheet(rows.assign(AU12_present=0), ["AU12"], 3, blur=False, on_problem=problems.append)


@pytest.mark.slow
def test_killed_and_interrupted_runs_resume_without_lost_or_repeated_rows(clip, tiny_checkpoint, tmp_path):
    arguments = ["predict", *[clip] * 2, "--model", tiny_checkpoint, "--chunk", 8, "--detect-every", 2, "--output"]
    whole = tmp_path / "whole.csv"
    run_command(*arguments, whole)
    expected = pd.read_csv(whole)
    assert len(expected) == 2 * 25
    for name in ("SIGKILL", "SIGINT"):
        table = tmp_path / f"{name}.csv"
        command = [sys.executable, "-c", INTERRUPT.replace("SIGNAL", name), *arguments, table]
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if name == "SIGINT":
            assert result.returncode == 130, result.stderr
            assert "continue with --resume" in result.stderr
        assert "Traceback" not in result.stderr
        assert not table.exists()
        assert "--resume" in run_command(*arguments, table, code=2).stderr
        run_command(*arguments, table, "--resume")
        pd.testing.assert_frame_equal(pd.read_csv(table), expected, atol=1e-4)  # batches differ, so do last digits
        assert not list(tmp_path.glob("_*"))


class Log:
    """What an observer is told."""

    needs_whole_videos = False

    def __init__(self):
        self.calls = []

    def start(self, sources, done):
        self.calls.append(f"start {len(sources)} {done}")

    def frame(self, frame):
        self.calls.append("frame")

    def end(self, source, tally):
        self.calls.append(f"end {source.kind} {tally.frames}")

    def close(self):
        self.calls.append("close")


def test_the_run_reports_on_every_source(clip, portrait, tiny_checkpoint, tmp_path):
    from PIL import Image

    wall, photo, log = tmp_path / "wall.png", tmp_path / "photo.png", Log()
    Image.new("RGB", (64, 64)).save(wall)
    Image.fromarray(portrait[0]).save(photo)
    (tmp_path / "notes").mkdir()
    pipe, settings = load_pipeline(tiny_checkpoint, device="cpu"), Settings(every=10)
    inputs = [wall, photo, tmp_path / "none.jpg", Source("video", str(clip)), tmp_path / "notes"]
    report = hf_geaau.predict_to_table(inputs, tmp_path / "table.csv", pipe, settings, observers=[log])
    assert log.calls == ["start 4 0", "frame", "frame", "frame", "end video 3", "frame", "end photo 1", "frame",
                         "end photo 1", "end photo 0", "close"]  # fmt: skip
    video, empty, good, missing = report.sources
    assert (video.rows, video.frames, video.frames_decoded, video.tracks) == (3, 3, 30, 1)
    assert video.problem is None and good.problem is None
    assert empty.has_no_face and empty.problem == f"No face was found in '{wall}'."
    assert str(tmp_path / "none.jpg") in missing.error
    assert len(report.unusable) == 1
    assert report.failed == 3
    assert report.path == tmp_path / "table.csv"
    other = hf_geaau.predict_to_table([clip, ""], None, pipe, Settings(start_s=99.0))
    (late,), (nothing,) = other.sources, other.unusable
    assert nothing.startswith("An input must be a path, got an empty text.")
    assert late.problem == f"None of the 30 frames of '{clip}' lies in the time that was asked for."
    assert not late.has_no_face  # which --min-score could help
    assert len(pd.read_csv(report.path)) == 4
    assert hf_geaau.predict_to_table([photo], model=pipe).sources[0].rows == 1  # no table, only the report
    with pytest.raises(TableError, match="it exists. Pass --overwrite"):
        hf_geaau.predict_to_table(inputs, tmp_path / "table.csv", pipe, settings)
    with pytest.raises(TableError, match="Only a run with an output can be resumed"):
        hf_geaau.predict_to_table(inputs, None, pipe, resume=True)
    with pytest.raises(TableError, match="A run with a camera cannot be resumed"):
        hf_geaau.predict_to_table([Source("webcam", "0")], tmp_path / "camera.csv", pipe, resume=True)


def test_a_second_writer_of_a_table_is_refused(clip, tiny_checkpoint, tmp_path):
    pipe, table = load_pipeline(tiny_checkpoint, device="cpu"), tmp_path / "table.csv"

    class Second(Log):
        def end(self, source, tally):
            with pytest.raises(TableError, match="^Another process is writing rows of a table to"):
                hf_geaau.predict_to_table([clip], table, pipe, Settings(every=10), overwrite=True)
            self.calls.append("refused")

    log = Second()
    hf_geaau.predict_to_table([clip], table, pipe, Settings(every=10), observers=[log])
    assert "refused" in log.calls
    assert len(pd.read_csv(table)) == 3


def test_several_processes_are_refused(clip, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ProcessError, match=r"Prediction runs in one process, got 2\. .* share the work by --ray local"):
        hf_geaau.predict_to_table([clip])


def test_the_number_of_processes_comes_from_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert process_count() == 1
    monkeypatch.setenv("PMI_RANK", "3")
    monkeypatch.setenv("PMI_SIZE", "4")
    assert process_count() == 4
    for value in ("abc", "", "-1", "1.5", "4", "99999999999999999999"):
        monkeypatch.setenv("RANK", value)
        with pytest.raises(ProcessError, match=r"RANK must be (a whole number from 0|below the number of processes)"):
            process_count()
    monkeypatch.delenv("RANK")
    monkeypatch.setenv("PMI_SIZE", "0")
    with pytest.raises(ProcessError, match="PMI_SIZE must be a whole number from 1, got '0'"):
        process_count()
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ProcessError, match="LOCAL_RANK must be below the number of processes, got 2 of 2"):
        process_count()


def test_ctrl_c_finishes_the_table_of_a_camera(portrait, tiny_checkpoint, tmp_path, monkeypatch):
    shots = [np.ascontiguousarray(frame[..., ::-1]) for frame in walking(portrait[0], 30, step=2)]

    class Camera:
        """Shows the portrait for 30 frames; then Ctrl-C is pressed before it, and it goes on."""

        def __init__(self, number):
            assert number == 0
            self.count = 0

        def isOpened(self):
            return True

        def read(self):
            if self.count == len(shots):
                _thread.interrupt_main()
            self.count += 1
            time.sleep(0.01 if self.count > len(shots) else 0)
            return True, shots[min(self.count, len(shots)) - 1]

        def release(self):
            self.count = -1

    monkeypatch.setattr("cv2.VideoCapture", Camera)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_command("predict", "0", "--model", tiny_checkpoint, "--output", tmp_path / "table.csv")
    finally:
        signal.signal(signal.SIGINT, before)
    rows = pd.read_csv(tmp_path / "table.csv")
    assert rows.frame.tolist() == list(range(len(rows)))
    assert len(rows) >= 15  # what was in the works, two groups and what belongs to them, is lost
    assert set(rows.track_id) == {1}
    assert not list(tmp_path.glob("_*"))


def test_a_full_disk_under_the_overlay_is_one_line(clip, tiny_checkpoint, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    shown, table = tmp_path / "shown", tmp_path / "table.csv"
    shown.mkdir()
    (shown / ".1_a_walk.mp4.partial").symlink_to("/dev/full")
    arguments = ["predict", clip, "--every", 3, "--model", tiny_checkpoint, "--output", table, "--annotate", shown]
    message = run_command(*arguments, "--chunk", 1, code=1).stderr
    assert "No space left on device" in message
    assert not list(shown.iterdir())
    assert not table.exists()
    run_command(*arguments, "--resume", "--chunk", 1)  # space was freed
    assert len(pd.read_csv(table)) == 9
    assert [path.name for path in shown.iterdir()] == ["1_a_walk.mp4"]


def test_bad_inputs_are_a_line_each_and_the_others_go_on(clip, tiny_checkpoint, tmp_path):
    folder = tmp_path / "a mix"
    folder.mkdir()
    (folder / "empty.mp4").touch()
    (folder / "Привет\nwelt 微笑.mp4").write_bytes(clip.read_bytes())
    (folder / "notes.txt").write_text("nothing to see")
    write_clip(folder / "wall.mp4", numbered(4, (64, 64)))
    table = tmp_path / "table.jsonl"
    result = run_command("predict", folder, "--model", tiny_checkpoint, "--every", 10, "--output", table, code=1)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "it is empty" in errors[0]
    assert "No face was found in the 1 frames of" in errors[1]
    assert "neither photo nor video were passed over: 1 .txt" in result.stderr
    assert "2 of 3 inputs gave no result" in result.stderr
    rows = pd.read_json(table, lines=True)
    assert set(rows.source) == {str(folder / "Привет\nwelt 微笑.mp4")}
    assert rows.frame.tolist() == [0, 10, 20]


def test_a_face_in_one_frame_only(portrait, tiny_checkpoint, tmp_path):
    wall = np.full((240, 320, 3), 110, np.uint8)
    frames = [wall] * 3 + walking(portrait[0], 1) + [wall] * 3
    path = write_clip(tmp_path / "one.mp4", frames)
    pipe = load_pipeline(tiny_checkpoint, device="cpu")
    assert [row["frame"] for row in predict_video(path, pipe, detect_every=1)] == [3]


@pytest.mark.slow
def test_similar_expressions(portrait, tiny_checkpoint, tiny_config, tmp_path):
    from PIL import Image

    folder = tmp_path / "faces"
    folder.mkdir()
    for number, angle in enumerate((0, 5, 10)):
        Image.fromarray(portrait[0]).rotate(angle).save(folder / f"{number}.png")
    (folder / "bad.jpg").touch()
    sheet, ranking = tmp_path / "sheet.png", tmp_path / "ranking.csv"
    options = ["--model", tiny_checkpoint, "--sheet", sheet, "--output", ranking]
    result = run_command("similar", folder / "1.png", folder, *options, code=1)  # one photo cannot be read
    assert "bad.jpg" in result.stderr
    table = pd.read_csv(ranking)
    assert {Path(source).name for source in table.source} == {"0.png", "2.png"}  # not the query itself
    assert table.distance.is_monotonic_increasing
    with Image.open(sheet) as picture:
        assert picture.width > 300
    (folder / "bad.jpg").unlink()
    encoder = tmp_path / "encoder"
    GeaauForExpressionEmbedding(tiny_config).save_pretrained(encoder)
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(encoder)
    twin = tmp_path / "twin.png"
    twin.write_bytes((folder / "0.png").read_bytes())
    result = run_command("similar", twin, folder, *options[2:], "--model", encoder, "--overwrite")
    assert result.stdout.startswith("0.000  ")
    assert "besides the query's" in run_command("similar", twin, twin, *options, "--overwrite", code=1).stderr
    assert run_command("similar", twin, folder, *options[2:], "--overwrite").stdout.startswith("0.000  ")
    run_command("similar", folder, "--cluster", 2, *options, "--overwrite")
    assert set(pd.read_csv(ranking).group) == {1, 2}
    message = run_command("similar", folder, "--cluster", 9, *options, "--overwrite", code=1).stderr
    assert "Cannot make 9 groups of 3 faces" in message
    assert "pass --overwrite" in run_command("similar", folder, folder, *options, code=2).stderr
    assert "must be a number above 0, got 0." in run_command("similar", folder, folder, "--fps", 0, code=2).stderr


def test_groups_need_scikit_learn(monkeypatch):
    from hf_geaau.errors import MissingExtraError
    from hf_geaau.search import cluster_by_expression

    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtraError, match=r"Grouping needs scikit-learn.*hf_geaau\[video\]"):
        cluster_by_expression(np.eye(3, dtype=np.float32), 2)


def test_the_lazy_name():
    assert hf_geaau.predict_video is predict_video
    assert os.environ["HF_HUB_OFFLINE"] == "1"
