"""Tables in the formats of OpenFace and py-feat, read by scripts as users of these tools write them."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hf_geaau.tables import Finishing, to_openface, to_pyfeat
from hf_geaau.video.tables import TableWriter, columns, read_table

UNITS = ["AU01", "AU12", "AU18", "AU43"]
NAMES = columns(UNITS, has_intensities=True)


def face(frame, track=1, source="clip.mp4", **values):
    """One row of a video's table; of a photo's, without track."""
    row = dict.fromkeys(NAMES, 0.25) | {"source": source, "quality": "good", "frame": frame, "face": 0, "score": 0.914}
    row |= {"time_s": None if track is None else frame / 30, "track_id": track, "xmin": 10.0, "ymin": 20.0}
    row |= {"xmax": 40.0, "ymax": 60.0, **{f"{unit}_present": 0 for unit in UNITS}}
    return row | {"AU12": 0.8, "AU12_present": 1, "AU12_intensity": 2.345} | values


def as_read(table):
    """Write and read a table as a script finds it."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


def test_openface_columns_are_those_of_version_2_2():
    head = ["frame", "face_id", "timestamp", "confidence", "success"]
    units = ["01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26"]
    expected = [*head, *(f"AU{unit}_r" for unit in [*units, "45"]), *(f"AU{unit}_c" for unit in [*units, "28", "45"])]
    assert list(to_openface(pd.DataFrame([face(0)]))) == expected
    assert list(to_openface(pd.DataFrame(columns=NAMES))) == expected


def test_an_openface_script_runs_unchanged():
    df = as_read(to_openface(pd.DataFrame([face(0), face(1, AU12_intensity=3.0), face(4, AU12_intensity=1.0)])))
    df.columns = df.columns.str.strip()
    good = df[(df["success"] == 1) & (df["confidence"] > 0.8)]
    assert good["AU12_r"].mean() == pytest.approx(np.mean([2.35, 3.0, 1.0]), abs=0.006)
    assert df["timestamp"].tolist() == [0.0, 0.033, 0.067, 0.1, 0.133]
    assert df["frame"].tolist() == [1, 2, 3, 4, 5]
    assert df["success"].tolist() == [1, 1, 0, 0, 1]
    assert df.loc[2, ["confidence", "AU12_r", "AU12_c"]].tolist() == [0, 0, 0]  # as OpenFace writes lost frames
    assert df.filter(regex="_c$").dropna(axis=1).isin([0, 1]).all(axis=None)


def test_openface_invents_no_action_units():
    df = to_openface(pd.DataFrame([face(0, AU43_present=1, AU43_intensity=4.0)]))
    assert df[["AU45_c", "AU45_r"]].iloc[0].tolist() == [1, 4.0]  # closed eyes
    assert df[["AU28_c", "AU02_r", "AU02_c"]].isna().all(axis=None)
    assert not {"AU18_r", "AU18_c"} & set(df)


def test_openface_without_intensities_and_quality():
    old = pd.DataFrame([face(0)]).drop(columns=[*(f"{unit}_intensity" for unit in UNITS), "quality"])
    df = to_openface(old)
    assert df["AU12_r"].isna().all() and df["AU12_c"].tolist() == [1]


def test_openface_has_several_faces_and_sources():
    rows = [face(0), face(0, 2, face=1), face(1, 2), face(0, source="b.mp4")]
    df = to_openface(pd.DataFrame(rows))
    assert df["face_id"].tolist() == [0, 1, 1, 0]
    assert list(df)[-1] == "source" and df["source"].tolist() == ["clip.mp4"] * 3 + ["b.mp4"]


def test_openface_photos_are_those_of_face_landmark_img():
    df = to_openface(pd.DataFrame([face(0, None), face(0, None, face=1, score=0.87654)]))
    assert list(df)[:3] == ["face", "confidence", "AU01_r"]
    assert df["face"].tolist() == [0, 1] and df["confidence"].tolist() == [0.914, 0.877]


def test_frames_that_were_not_looked_at_are_not_added():
    df = to_openface(pd.DataFrame([face(number) for number in (0, 6, 12, 24)]))
    assert df["frame"].tolist() == [1, 7, 13, 19, 25] and df["success"].tolist() == [1, 1, 1, 0, 1]
    everything = pd.DataFrame([{"source": "clip.mp4", "frame": n, "time_s": n / 30} for n in range(0, 36, 6)])
    assert to_openface(pd.DataFrame([face(6)]), everything)["success"].tolist() == [0, 1, 0, 0, 0, 0]


def test_a_pyfeat_script_runs_unchanged():
    rows = [face(0), face(0, 2, face=1, AU12=0.2), face(45), face(0, source="b.mp4")]
    fex = as_read(to_pyfeat(pd.DataFrame(rows)))
    aus = [column for column in fex.columns if "AU" in column]  # as feat.utils.io.read_feat finds them
    assert len(aus) == 20 and aus[8] == "AU11" and fex[["AU11", "AU28"]].isna().all(axis=None)
    assert fex.groupby("input")["AU12"].max().tolist() == [0.8, 0.8]
    box = fex.loc[0, ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"]].tolist()
    assert box == [10, 20, 30, 40]
    last = fex[fex["frame"] == 45].iloc[0]
    assert last["approx_time"] == "00:01" and last["Identity"] == "Person_0"


def test_pyfeat_numbers_photos_and_keeps_frames_without_a_face():
    fex = to_pyfeat(pd.DataFrame([face(0, None, f"{name}.jpg") for name in "aab"]))
    assert fex["frame"].tolist() == [0, 0, 1] and fex["approx_time"].isna().all() and fex["Identity"].isna().all()
    fex = to_pyfeat(pd.DataFrame([face(0), face(1), face(3)]))
    assert fex["frame"].tolist() == [0, 1, 2, 3] and fex["FaceScore"].isna().tolist() == [False, False, True, False]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("chunk_rows", [1, 100])
def test_the_writer_finishes_whole_sources(tmp_path, suffix, chunk_rows):
    """Chunks end anywhere; what needs a whole video gets it."""
    path = tmp_path / f"table{suffix}"
    writer = TableWriter(path, NAMES, {}, thresholds=dict.fromkeys(UNITS, 0.5), finishing=Finishing(faces="longest"))
    rows = [face(0, 1), face(0, 2), face(1, 2), face(0, 1, "b.mp4"), face(0, None, "c.jpg")]
    for start in range(0, len(rows), chunk_rows):
        writer.add(rows[start : start + chunk_rows])
        writer.commit({})
    writer.finish()
    table, _ = read_table(path)
    assert table["track_id"].fillna(-1).tolist() == [2, 2, 1, -1]
    assert list(table) == NAMES


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_writer_writes_openface_with_the_frames_without_a_face(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    writer = TableWriter(path, NAMES, {}, finishing=Finishing("openface"))
    writer.add([{"source": "clip.mp4", "frame": 0, "time_s": 0.0}, face(1), {"source": "clip.mp4", "frame": 2}])
    writer.add_entry({"source": "clip.mp4", "kind": "video"})
    writer.commit({})
    writer.finish()
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet}.get(suffix, lambda path: pd.read_json(path, lines=True))
    assert read(path)["success"].tolist() == [0, 1, 0]
    assert list(read(path))[-1] == "AU45_c"


@pytest.mark.parametrize("table_format", ["geaau", "openface", "pyfeat"])
def test_a_table_without_rows_has_columns(tmp_path, table_format):
    path = tmp_path / "table.csv"
    TableWriter(path, NAMES, {}, finishing=Finishing(table_format, "longest", "median")).finish()
    table = pd.read_csv(path)
    assert table.empty and len(table.columns) > 20


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="`format` must be one of geaau, openface, pyfeat, got 'excel'."):
        Finishing("excel")
    with pytest.raises(ValueError, match="`faces` must be one of all, largest, longest, got 'first'."):
        Finishing(faces="first")


def test_the_data_dictionary_has_every_column_in_order_with_its_type(tmp_path):
    """docs/tables.md promises names and types; whoever changes them must change it."""
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    lines = page.split("## Data dictionary")[1].split("\n## ")[0].splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith("| `")]
    documented = [(name, cell[1].strip()) for cell in cells for name in re.findall(r"`(\w+)`", cell[0])]
    path = tmp_path / "table.parquet"
    TableWriter(path, columns(["AU01"], True, has_sides=True, has_visibility=True), {}).finish()
    assert documented == [(field.name, str(field.type)) for field in pq.read_schema(path)]
