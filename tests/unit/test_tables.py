"""Tables that survive a kill, a full disk and a restart."""

import resource

import numpy as np
import pandas as pd
import pytest

from hf_geaau.errors import TableError
from hf_geaau.video.tables import (
    TableWriter,
    check_output,
    clear_folder,
    columns,
    foreign_parts,
    part_path,
    read_table,
    unfinished,
    write_index,
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


def test_parts_are_read_as_one_and_the_last_writes_the_index(tmp_path):
    for rank in range(2):
        path = part_path(tmp_path, rank, 2)
        writer = TableWriter(path, NAMES, {})
        writer.add([row(rank, f"{rank}.mp4")])
        writer.commit({"done": 1, "checkpoint": None})
        if rank == 0:  # a part that is not finished is not read
            assert len(list(unfinished(path).glob("[!.]*"))) == 2
        writer.finish()
        assert write_index(tmp_path, rank, 2, [{"source": f"{rank}.mp4", "part": path.name}]) is (rank == 1)
    assert sorted(read_table(tmp_path)[0].source) == ["0.mp4", "1.mp4"]
    assert [entry["source"] for entry in pd.read_json(tmp_path / "_index.json").to_dict("records")] == [
        "0.mp4",
        "1.mp4",
    ]


def test_starting_over_removes_what_would_count_twice(tmp_path):
    names = ["part-00000-of-00002.parquet", "part-00000-of-00008.parquet", "part-00007-of-00008.parquet"]
    for name in (*names, "_index-00000.json", "_index-00001.json", "_index.json"):
        (tmp_path / name).touch()
    assert sorted(path.name for path in foreign_parts(tmp_path, 2)) == names[1:]
    clear_folder(tmp_path, 0, 2)
    assert {path.name for path in tmp_path.iterdir()} == {names[0], "_index-00001.json"}
