"""Formats, faces and baselines of `hf-geaau predict`, and the same for a table that exists with `hf-geaau table`."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import hf_geaau
from hf_geaau.errors import TableError
from hf_geaau.pipeline import load_pipeline
from hf_geaau.tables import Finishing, summarize
from hf_geaau.video.run import neutral_photo
from hf_geaau.video.stream import Settings
from hf_geaau.video.tables import read_table
from tests.clips import walking, write_clip
from tests.command import run_command

pytest.importorskip("av", reason="PyAV is not installed")


@pytest.fixture(scope="module")
def clip(portrait, tmp_path_factory):
    """Nobody is there, the portrait walks, and nobody is there."""
    frames = walking(portrait[0], 8)
    empty = [np.full_like(frames[0], 110)] * 3
    return write_clip(tmp_path_factory.mktemp("clip") / "walk.mp4", [*empty, *frames, *empty])


def test_predict_writes_every_frame_for_openface(clip, tiny_checkpoint, tmp_path):
    table = tmp_path / "openface.csv"
    arguments = ["--model", tiny_checkpoint, "--detect-every", 1, "--chunk", 2, "--output", table]
    run_command("predict", clip, *arguments, "--format", "openface", "--faces", "longest")
    df = pd.read_csv(table)
    assert df["frame"].tolist() == list(range(1, 15))
    assert df["success"].tolist() == [0] * 3 + [1] * 8 + [0] * 3
    assert df["timestamp"].tolist() == [number / 25 for number in range(14)]
    assert df["AU28_c"].isna().all() and df["AU12_c"].notna().all()


def test_both_commands_take_the_same_road(clip, portrait, tiny_checkpoint, tmp_path):
    photo = tmp_path / "neutral.png"
    Image.fromarray(portrait[0]).save(photo)
    ours, model = tmp_path / "table.parquet", ["--model", tiny_checkpoint]
    run_command("predict", clip, *model, "--output", ours)
    for baseline in ("median", photo):
        options = [*model, "--faces", "largest", "--baseline", baseline, "--overwrite", "--output"]
        run_command("predict", clip, *options, tmp_path / "one.parquet")
        run_command("table", ours, *options, tmp_path / "two.parquet")
        one, two = read_table(tmp_path / "one.parquet"), read_table(tmp_path / "two.parquet")
        pd.testing.assert_frame_equal(one[0], two[0], check_dtype=False, atol=1e-4)
        assert one[1] == two[1]
    assert not one[0].AU12.equals(read_table(ours)[0].AU12)


def test_summary_and_events(clip, tiny_checkpoint, tmp_path):
    ours, events = tmp_path / "table.csv", tmp_path / "events.tsv"
    run_command("predict", clip, "--model", tiny_checkpoint, "--output", ours)
    events.write_text("onset\tduration\ttrial_type\n0.2\t0.09\tjoke\n")
    joined, summary = tmp_path / "joined.csv", tmp_path / "summary.csv"
    run_command("table", ours, "--events", events, "--output", joined, "--summary", summary)
    assert (pd.read_csv(joined)["event"] == "joke").sum() == 3
    assert pd.read_csv(summary).AU.tolist() == summarize(read_table(ours)[0]).AU.tolist()
    assert read_table(joined)[0].columns[-1] == "event_offset"


def test_wrong_options_are_one_line(clip, tiny_checkpoint, tmp_path):
    ours = tmp_path / "table.csv"
    assert "needs --output" in run_command("predict", clip, "--format", "openface", code=2).stderr
    wrong = run_command("predict", clip, "--output", ours, "--faces", "first", code=2).stderr
    assert "`faces` must be one of all, largest, longest, got 'first'." in wrong
    run_command("predict", clip, "--model", tiny_checkpoint, "--output", ours)
    assert "--output or --summary" in run_command("table", ours, code=2).stderr
    assert "pass --overwrite" in run_command("table", ours, "--output", ours, code=2).stderr
    assert "another file" in run_command("table", ours, "--output", "a.csv", "--summary", "a.csv", code=2).stderr
    assert "must end in .csv" in run_command("table", ours, "--summary", "summary.txt", code=2).stderr
    options = ["--events", "events.csv", "--format", "pyfeat", "--output", tmp_path / "new.csv"]
    assert "has no columns for events" in run_command("table", ours, *options, code=2).stderr


def test_a_neutral_photo_shows_one_face(portrait, tiny_checkpoint, tmp_path):
    pipe = load_pipeline(tiny_checkpoint, device="cpu")
    Image.fromarray(np.hstack([portrait[0]] * 2)).save(tmp_path / "two.png")
    with pytest.raises(TableError, match="A neutral photo must show one face, got 2 in"):
        neutral_photo(tmp_path / "two.png", pipe)


def test_another_format_cannot_resume(clip, tiny_checkpoint, tmp_path):
    pipe, target = load_pipeline(tiny_checkpoint, device="cpu"), tmp_path / "table.csv"

    class Stop:
        needs_whole_videos = False
        start = frame = lambda *_: None
        close = lambda _: None  # noqa: E731

        def end(self, *_):
            raise KeyboardInterrupt

    def run(table_format, *observers, **options):
        finishing = Finishing(table_format)
        return hf_geaau.predict_to_table(
            [clip], target, pipe, Settings(detect_every=1), chunk_rows=2, finishing=finishing, observers=observers,
            **options,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run("openface", Stop())
    with pytest.raises(TableError, match="format"):
        run("geaau", resume=True)
    run("openface", resume=True)
    assert len(pd.read_csv(target)) == 14
