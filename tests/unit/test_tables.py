"""Tables that survive a kill, a full disk and a restart."""

import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from hf_geaau.errors import TableError
from hf_geaau.video.tables import (
    TableWriter,
    check_output,
    columns,
    read_table,
    unfinished,
)

NAMES = columns(["AU01", "AU12"], has_intensities=True)


def row(number, source="clip.mp4", track=1):
    values = dict.fromkeys(NAMES, 0.25)
    values |= {
        "source": source,
        "quality": "",
        "frame": number,
        "time_s": None if track is None else number / 25,
        "track_id": track,
    }
    return values | {"face": 0, "AU01": 0.9, "AU01_present": 1, "AU12_present": 0}


def write(path, *numbers, **options):
    writer = TableWriter(path, NAMES, {"every": 1}, thresholds={"AU01": 0.6, "AU12": 0.4}, **options)
    for number in numbers:
        writer.add([row(number)])
        writer.commit({"done": 0, "checkpoint": {"frame": number + 1}})
    return writer


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_has_every_row_once_and_its_types(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    writer = write(path, 0, 1)
    assert not path.exists()
    writer.add([row(0, 'фото, \n"1".jpg', None)])
    writer.commit({"done": 2, "checkpoint": None})
    writer.finish()
    table, thresholds = read_table(path)
    assert list(table) == NAMES
    assert table.source.tolist() == ["clip.mp4", "clip.mp4", 'фото, \n"1".jpg']
    assert table.frame.tolist() == [0, 1, 0]
    assert table.track_id.isna().tolist() == [False, False, True]
    assert table.AU01.tolist() == pytest.approx([0.9] * 3)
    assert table.AU01_present.tolist() == [1, 1, 1]
    assert thresholds["AU01"] == (
        0.6 if suffix == ".parquet" else 0.5
    )  # a csv file does not hold them; 0.5 fits what it shows
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_interrupted_table_is_resumed_where_it_stopped(tmp_path):
    path = tmp_path / "table.csv"
    writer = write(path, 0, 1)
    writer.add([row(2)])
    with pytest.raises(TableError, match="Another process is writing rows of a table"):
        write(path, resume=True)
    writer.close()  # as a process that ends before the third row is committed
    with pytest.raises(TableError, match="--resume"):
        check_output(path)
    with pytest.raises(
        TableError,
        match=r"other settings \(every was 1, is 2\)\. Pass the same arguments, or start over with --overwrite",
    ):
        TableWriter(path, NAMES, {"every": 2}, resume=True)
    writer = write(path, resume=True)
    assert writer.progress == {"done": 0, "checkpoint": {"frame": 2}}
    writer.add([row(2)])
    writer.commit({"done": 1, "checkpoint": None})
    writer.finish()
    assert pd.read_csv(path).frame.tolist() == [0, 1, 2]
    with pytest.raises(TableError, match="is finished already"):
        check_output(path, resume=True)
    with pytest.raises(TableError, match="Pass --overwrite"):
        check_output(path)
    write(path, 7, overwrite=True).finish()
    assert pd.read_csv(path).frame.tolist() == [7]
    (tmp_path / "parts.parquet").mkdir()  # as --ray writes them
    with pytest.raises(TableError, match="it is a folder. Pass another output"):
        check_output(tmp_path / "parts.parquet", overwrite=True)


def test_a_full_disk_is_one_line_and_keeps_what_was_written(tmp_path):
    path = tmp_path / "table.parquet"
    writer = write(path, 0)
    writer.add([row(number, f"{np.random.default_rng(number).bytes(40).hex()}.mp4") for number in range(1, 3000)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a full disk does, writing fails midway
    try:
        with pytest.raises(TableError, match="Cannot write .*: File too large.*--resume"):
            writer.commit({"done": 0, "checkpoint": None})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(entry.name for entry in unfinished(path).glob("[!.]*")) == ["chunk-000000.parquet", "run.json"]
    writer.close()
    writer = write(path, resume=True)
    assert writer.progress["checkpoint"] == {"frame": 1}
    writer.finish()
    assert read_table(path)[0].frame.tolist() == [0]


def test_no_rows_give_an_empty_table(tmp_path):
    for suffix in (".csv", ".jsonl", ".parquet"):
        writer = write(tmp_path / f"empty{suffix}")
        writer.commit({"done": 1, "checkpoint": None})
        writer.finish()
    assert list(pd.read_csv(tmp_path / "empty.csv")) == list(pd.read_parquet(tmp_path / "empty.parquet")) == NAMES


def test_other_tables_are_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    cases = {
        "other.csv": "is not a table of `hf-geaau predict`: it lacks source",
        "broken.parquet": "Cannot read .* as a table",
    }
    for name, message in {**cases, "none.csv": "there is no such file"}.items():
        with pytest.raises(TableError, match=message):
            read_table(tmp_path / name)


def test_a_folder_of_parts_is_read_as_one(tmp_path):
    for number in range(2):
        writer = TableWriter(tmp_path / f"part-{number}.parquet", NAMES, {})
        writer.add([row(number, f"{number}.mp4")])
        writer.commit({"done": 1, "checkpoint": None})
        if number == 0:  # a part that is not finished is not read
            assert len(list(unfinished(writer.path).glob("[!.]*"))) == 2
        writer.finish()
    assert sorted(read_table(tmp_path)[0].source) == ["0.mp4", "1.mp4"]


def test_an_entry_is_written_once_and_counts_toward_a_chunk(tmp_path):
    path = tmp_path / "table.parquet"
    writer = TableWriter(path, NAMES, {}, chunk_rows=3)
    for number in range(10):  # sources without rows
        writer.add_entry({"source": f"{number}.jpg"})
        if writer.is_due:
            writer.commit({"done": number + 1})
    writer.close()
    assert len(list(unfinished(path).glob("chunk-*"))) == 3
    writer = TableWriter(path, NAMES, {}, chunk_rows=3, resume=True)
    assert writer.progress == {"done": 9}
    assert [entry["source"] for entry in writer.entries()] == [f"{number}.jpg" for number in range(9)]
    writer.close()
    with pytest.raises(TableError, match=r"other settings \(chunk was 3, is 4\)"):
        TableWriter(path, NAMES, {}, chunk_rows=4, resume=True)


def test_entries_in_a_chunk_are_limited_whatever_the_rows(tmp_path):
    writer = TableWriter(tmp_path / "table.csv", NAMES, {}, chunk_rows=10**9)
    for number in range(5000):
        assert not writer.is_due
        writer.add_entry({"source": f"{number}.jpg"})
    assert writer.is_due
    writer.close()


def test_a_kill_while_the_chunks_are_removed_loses_no_row(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    writer = write(path, 0, 1, 2)
    unlink = type(path).unlink

    def killed(self, missing_ok=False):
        if self.name == "chunk-000001.parquet":
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            writer.finish()
    writer.close()
    writer = write(path, resume=True)
    assert writer.progress["checkpoint"] == {"frame": 2}  # the last chunk went first, so its rows come again
    writer.add([row(2)])
    writer.commit({"done": 1, "checkpoint": None})
    writer.finish()
    assert pd.read_csv(path).frame.tolist() == [0, 1, 2]


WRITER = """
import sys
from pathlib import Path
from hf_geaau.errors import TableError
from hf_geaau.video.tables import TableWriter
path, names = Path(sys.argv[1]), sys.argv[2].split(",")
print("ready", flush=True)
sys.stdin.readline()
try:
    writer = TableWriter(path, names, {}, overwrite=True)
    for number in range(20):
        writer.add([dict.fromkeys(names, 0) | {"source": sys.argv[3], "quality": "", "frame": number}])
        writer.commit({"done": 0})
    writer.finish()
except TableError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_two_processes_that_start_at_once_never_mix_their_rows(tmp_path):
    path = tmp_path / "table.csv"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), ",".join(NAMES), name], **pipes) for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    errors = [writer.communicate()[1] for writer in writers]
    assert all(not error or "Another process is writing rows of a table" in error for error in errors), errors
    table = pd.read_csv(path)
    assert table.frame.tolist() == list(range(20))
    assert table.source.nunique() == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_names_that_look_like_something_else_stay_names(tmp_path, suffix):
    path, names = tmp_path / f"table{suffix}", ["0", "NA", "2024-01-01", "1e5", "null", "True"]
    writer = TableWriter(path, NAMES, {})
    writer.add([row(0, name, None) for name in names])
    writer.commit({"done": 1})
    writer.finish()
    assert read_table(path)[0].source.tolist() == names


def foreign(tmp_path, **columns):
    path = tmp_path / "foreign.parquet"
    frame = pd.DataFrame([row(0), row(1)]).assign(track_id=1)
    frame.assign(**columns).to_parquet(path)
    return path
