"""BP4D and BP4D+: every quirk of their layouts, and the text of every refusal."""

import csv
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hf_geaau import data, facs
from hf_geaau.data.bp4d import BP4D
from hf_geaau.data.bp4d_plus import HEADER, BP4DPlus
from hf_geaau.data.imitations import bp4d as imitation
from hf_geaau.data.imitations import bp4d_plus as plus_imitation
from hf_geaau.errors import DatasetError, DatasetNotFoundError, DatasetWarning

ONE_EACH = {"subjects_per_part": 1, "tasks": ("T1",), "frames": 4, "faces": False}


def load(folder, name="bp4d", **options):
    """Load without the warning about frame counts, which an imitation always causes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        return data.load(name, folder, cache_dir=folder.parent / "cache", **options)


def rows(folder, name="bp4d", **options):
    """Return all rows, with images as paths."""
    from datasets import Image

    dataset = load(folder, name, fold=None, split="train", **options)
    return list(dataset.cast_column("image", Image(decode=False)))


def refusal(folder, name="bp4d", kind=DatasetError, **options):
    with pytest.raises(kind) as caught:
        load(folder, name, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def tree(tmp_path):
    return data.write_example("bp4d", tmp_path / "bp4d", **ONE_EACH)


@pytest.fixture
def plus(tmp_path):
    return data.write_example("bp4d_plus", tmp_path / "plus", **ONE_EACH)


def label_file(folder, name="F001_T1"):
    return folder / "AUCoding" / "AU_OCC" / f"{name}.csv"


def edit(path, change):
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_rows_hold_what_the_files_say(tree):
    with label_file(tree).open() as file:
        lines = list(csv.reader(file))
    columns = [lines[0].index(str(number), 1) for number in facs.BP4D]
    found = [row for row in rows(tree) if row["sequence_id"] == "F001_T1"]
    assert [row["frame"] for row in found] == [int(line[0]) for line in lines[1:]]
    for row, line in zip(found, lines[1:], strict=True):
        cells = [int(line[column]) for column in columns]
        assert row["labels"] == [-1 if cell == 9 else cell for cell in cells]
        assert row["subject_id"] == "F001"
        assert Path(row["image"]["path"]).name == f"{row['frame']:04d}.jpg"
    assert found[0]["labels"][0] == -1, "the imitation's first cell is 9"


def test_intensities_of_five_aus(tree):
    found = [row for row in rows(tree) if row["sequence_id"] == "F001_T1"]
    for index, number in enumerate(facs.BP4D):
        levels = [row["intensities"][index] for row in found]
        if number not in BP4D.INTENSITY_AUS:
            assert set(levels) == {-1}
            continue
        file = tree / "AUCoding" / "AU_INT" / f"AU{number:02d}" / f"F001_T1_AU{number:02d}.csv"
        assert levels == [int(line.split(",")[1]) for line in file.read_text().split()]
        assert [row["labels"][index] for row in found] == [float(level > 0) for level in levels]


def test_intensity_9_and_frames_without_intensity_are_missing(tree):
    file = tree / "AUCoding" / "AU_INT" / "AU06" / "F001_T1_AU06.csv"
    file.write_text("12,9\n13,4\n")
    found = [row["intensities"][facs.BP4D.index(6)] for row in rows(tree) if row["sequence_id"] == "F001_T1"]
    assert found == [-1, -1, 4, -1]


@pytest.mark.parametrize("digits", [1, 3, 4, 5])
@pytest.mark.parametrize("offset", [0, -1])
def test_padding_and_offset_are_found_out(tmp_path, digits, offset):
    folder = data.write_example("bp4d", tmp_path / "tree", **ONE_EACH, digits=digits, frame_offset=offset)
    for row in rows(folder):
        assert Path(row["image"]["path"]).name == f"{row['frame'] + offset:0{digits}d}.jpg"


@pytest.mark.parametrize("offset", [0, -1])
def test_offset_of_whole_recordings_follows_the_first_image(tmp_path, offset):
    folder = data.write_example("bp4d", tmp_path / "tree", **ONE_EACH, around=30, frame_offset=offset)
    first = min(int(path.stem) for path in (folder / "F001" / "T1").iterdir())
    assert first == 1 + offset
    assert {int(Path(row["image"]["path"]).stem) - row["frame"] for row in rows(folder)} == {offset}


def test_offset_holds_although_an_image_is_missing(tmp_path):
    folder = data.write_example("bp4d", tmp_path / "tree", **ONE_EACH, frame_offset=-1)
    (folder / "F001" / "T1" / "0011.jpg").unlink()
    message = refusal(folder)
    assert "1 labeled frames of F001_T1 have no image in" in message
    assert "frame 12 (image 11)" in message


def test_ambiguous_names_are_an_error_that_says_why(tmp_path):
    folder = data.write_example("bp4d", tmp_path / "tree", **ONE_EACH, around=3)
    message = refusal(folder)
    assert "Cannot tell from the image names whether" in message
    assert "Decide with `frame_offset=0` or `frame_offset=-1`" in message
    for offset in (0, -1):
        found = rows(folder, frame_offset=offset)
        assert {int(Path(row["image"]["path"]).stem) - row["frame"] for row in found} == {offset}


def test_contradictory_names_are_an_error(tree):
    folder = tree / "F003" / "T1"
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"{int(path.stem) - 1:04d}.jpg")
    assert "the image of label frame n is image n in F001_T1 and image n - 1 in F003_T1" in refusal(tree)


def test_two_names_of_one_number_are_an_error(tree):
    shutil.copy(tree / "F001" / "T1" / "0012.jpg", tree / "F001" / "T1" / "12.jpg")
    assert "Frame 12 has two images, '" in refusal(tree)


def test_old_task_codes(tmp_path):
    folder = data.write_example(
        "bp4d", tmp_path / "tree", **{**ONE_EACH, "tasks": ("T2", "T8")}, old_tasks=True, subfolder="2D+3D"
    )
    assert (folder / "2D+3D" / "F001" / "13").is_dir()
    assert {row["sequence_id"][-2:] for row in rows(folder)} == {"T2", "T8"}


def test_zips_give_the_same_rows_and_images(tmp_path, tree):
    zipped = data.write_example("bp4d", tmp_path / "zipped", **ONE_EACH, zips=True)
    expected, found = rows(tree), rows(zipped)
    for key in ("labels", "intensities", "subject_id", "sequence_id", "frame"):
        assert [row[key] for row in found] == [row[key] for row in expected]
    assert found[0]["image"]["path"] == f"zip://T1/0011.jpg::{zipped / 'F001.zip'}"
    assert load(zipped, split="test")[0]["image"].size == (1, 1)


def test_zips_with_more_folders(tmp_path):
    folder = data.write_example("bp4d", tmp_path / "tree", **ONE_EACH, zips=True)
    path = folder / "F001.zip"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"F001/{name}", content)
            archive.writestr(f"__MACOSX/F001/T1/._{name[3:]}", b"")
            archive.writestr(f"F001/Mesh/{name[3:]}", b"")
    assert rows(folder)[0]["image"]["path"] == f"zip://F001/T1/0011.jpg::{path}"
    assert load(folder, split="test")[0]["image"].size == (1, 1)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("copy/T1/0011.jpg", b"")
    assert "One recording lies in two folders of a zip, 'F001/T1/' and 'copy/T1/'" in refusal(folder)


def test_damaged_zip(tmp_path):
    folder = data.write_example("bp4d", tmp_path / "tree", **ONE_EACH, zips=True)
    (folder / "F001.zip").write_bytes((folder / "F001.zip").read_bytes()[:100])
    assert "Cannot read the zip" in refusal(folder)


def test_drop_list(tmp_path):
    folder = data.write_example(
        "bp4d", tmp_path / "tree", subjects_per_part=20, tasks=("T5",), frames=4, first_frame=842, faces=False
    )
    assert [row["frame"] for row in rows(folder, drop_listed=True) if row["sequence_id"] == "M003_T5"] == [842, 843]
    assert len([row for row in rows(folder) if row["sequence_id"] == "M003_T5"]) == 4


def test_published_totals():
    blocks = imitation.full_blocks()
    assert sum(map(len, blocks.values())) == 146_847
    for part, expected in zip(BP4D.PARTS, BP4D.PART_FRAMES, strict=True):
        mine = {key: block for key, block in blocks.items() if key[0] in part}
        dropped = sum(
            len(set(block) & set(range(first, last + 1)))
            for key, block in mine.items()
            for first, last in BP4D.DROP_LIST.get("_".join(key), ())
        )
        assert (sum(map(len, mine.values())), sum(map(len, mine.values())) - dropped) == expected
    assert sum(last - first + 1 for ranges in BP4D.DROP_LIST.values() for first, last in ranges) == 271
    assert sorted(sum(BP4D.PARTS, ())) == [f"F{n:03d}" for n in range(1, 24)] + [f"M{n:03d}" for n in range(1, 19)]


def test_other_counts_are_a_warning_that_names_the_difference(tree):
    with pytest.warns(
        DatasetWarning,
        match=r"BP4D does not have the published number of frames: 8 instead of 96,216 in train \(-96,208\) and 4",
    ):
        data.load("bp4d", tree, cache_dir=tree.parent / "cache")
    with pytest.warns(DatasetWarning, match=r"4 instead of 45,809 in test \(-45,805\) for fold 1 \(megraphau\)"):
        data.load("bp4d", tree, protocol="megraphau", drop_listed=True, cache_dir=tree.parent / "cache")


# Bad input.


def test_missing_folder(tmp_path):
    message = refusal(tmp_path / "nowhere", kind=DatasetNotFoundError)
    assert f"Cannot find BP4D in {str(tmp_path / 'nowhere')!r}: no such folder" in message
    assert "The data is licensed and never downloaded; request it at https://" in message
    assert "`hf-geaau example-data bp4d ./look` shows the expected layout" in message


def test_missing_parts(tree):
    shutil.rmtree(tree / "F001"), shutil.rmtree(tree / "F003"), shutil.rmtree(tree / "F004")
    assert "no frames such as 'F001/T1/0001.jpg'" in refusal(tree, kind=DatasetNotFoundError)
    shutil.rmtree(tree / "AUCoding" / "AU_OCC")
    assert "no folder 'AUCoding/AU_OCC'" in refusal(tree, kind=DatasetNotFoundError)


def test_a_missing_csv(tree):
    label_file(tree).unlink()
    assert "Frames of F001_T1 have no label file 'AUCoding/AU_OCC/F001_T1.csv'" in refusal(tree)


def test_a_missing_recording(tree):
    shutil.rmtree(tree / "F001" / "T1")
    assert "has no frames F001/T1 in" in refusal(tree)


def test_a_missing_intensity_file(tree):
    (tree / "AUCoding" / "AU_INT" / "AU10" / "F001_T1_AU10.csv").unlink()
    assert "Cannot find the intensities 'F001_T1_AU10.csv' in" in refusal(tree)
    shutil.rmtree(tree / "AUCoding" / "AU_INT")
    assert "pass `with_intensities=False`" in refusal(tree)
    assert {level for row in rows(tree, with_intensities=False) for level in row["intensities"]} == {-1}


def test_a_truncated_csv(tree):
    path = label_file(tree)
    path.write_text(path.read_text()[:-80])
    message = refusal(tree)
    assert f"{str(path)!r}, line 5, has 6" in message
    assert "cells instead of 100. The file seems to be truncated" in message
    path.write_text(path.read_text().splitlines()[0])
    assert f"The label file {str(path)!r} is empty" in refusal(tree)
    path.write_text("")
    assert f"The label file {str(path)!r} is empty" in refusal(tree)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("2", "A label must be one of 0, 1, 9, got 2 in"),
        ("-1", "A label must be one of 0, 1, 9, got -1 in"),
        ("x", "A label must be a whole number, got 'x' in"),
        ("", "A label must be a whole number, got '' in"),
    ],
)
def test_a_label_outside_0_1_9(tree, cell, text):
    def change(lines):
        cells = lines[2].split(",")
        cells[12] = cell
        return [*lines[:2], ",".join(cells), *lines[3:]]

    edit(label_file(tree), change)
    message = refusal(tree)
    assert text in message
    assert f"{str(label_file(tree))!r}, line 3" in message


def test_an_intensity_outside_0_5(tree):
    path = tree / "AUCoding" / "AU_INT" / "AU12" / "F003_T1_AU12.csv"
    edit(path, lambda lines: [*lines[:-1], lines[-1].split(",")[0] + ",6"])
    assert f"A label must be one of 0, 1, 2, 3, 4, 5, 9, got 6 in {str(path)!r}, line 4" in refusal(tree)


def test_a_header_without_an_au(tree):
    edit(label_file(tree), lambda lines: [lines[0].replace(",12,", ",112,"), *lines[1:]])
    assert "does not name AU 12 exactly once" in refusal(tree)


@pytest.mark.filterwarnings("ignore:.*published number of frames")
def test_a_label_without_a_frame(tree):
    (tree / "F001" / "T1" / "0012.jpg").unlink()
    assert "the first is frame 12 (image 12)" in refusal(tree)
    with pytest.warns(
        DatasetWarning,
        match=r"BP4D is incomplete; what these 1 problems affect is left out. 1 labeled frames of F001_T1",
    ):
        found = data.load("bp4d", tree, fold=None, split="train", problems="warn", cache_dir=tree.parent / "cache")
    assert len(found) == 11
    with pytest.warns(DatasetWarning, match="these 1 problems"):  # also when the cache is there
        data.load("bp4d", tree, fold=None, split="train", problems="warn", cache_dir=tree.parent / "cache")


def test_a_frame_without_a_label(tree):
    edit(label_file(tree), lambda lines: [*lines[:2], *lines[3:]])
    assert f"Frames 12-12 are missing in {str(label_file(tree))!r}" in refusal(tree)


def test_frames_that_do_not_rise(tree):
    edit(label_file(tree), lambda lines: [*lines[:2], lines[1], *lines[2:]])
    assert ", line 3: 11 follows 11" in refusal(tree)


def test_unknown_subject_and_task(tree):
    shutil.copy(label_file(tree), label_file(tree, "F099_T1"))
    assert "Subject 'F099' of" in (message := refusal(tree))
    assert "is in no fold of BP4D" in message
    label_file(tree, "F099_T1").rename(label_file(tree, "F001_T9"))
    assert "A labeled task must be T1, T2, T3, T4, T5, T6, T7, T8 or 01, 03," in refusal(tree)


def test_one_recording_under_both_task_codes(tree):
    shutil.copy(label_file(tree), label_file(tree, "F001_01"))
    assert "One recording has two label files, 'F001_01.csv' and 'F001_T1.csv'" in refusal(tree)


def test_two_trees_of_frames(tree):
    shutil.copytree(tree / "F001", tree / "more" / "F001")
    assert "has two trees of frames" in refusal(tree)
    assert len(rows(tree, frames_dir=str(tree))) == 12


def test_corrupt_jpg(tree):
    path = tree / "F003" / "T1" / "0012.jpg"
    path.write_bytes(path.read_bytes()[:200])
    load(tree)  # nothing is decoded
    message = refusal(tree, check_images=True)
    assert f"Cannot decode {str(path)!r}: " in message
    assert f"{str(path)!r}" in refusal(tree, check_images=True, num_proc=2)


# BP4D+.


def test_plus_reads_by_position(plus):
    assert len(HEADER) == 36
    assert [HEADER.index(number, 1) for number in facs.BP4D_PLUS] == [1, 2, 3, 5, 6, 8, 10, 12, 13, 15, 20, 21]
    lines = [line.split(",") for line in label_file(plus, "M040_T1").read_text().split()]
    assert lines[0][:3] == ["1", "1", "2"]
    found = [row for row in rows(plus, "bp4d_plus", unreliable="keep") if row["subject_id"] == "M040"]
    for row, line in zip(found, lines[1:], strict=True):
        cells = [int(line[column]) for column in (1, 2, 3, 5, 6, 8, 10, 12, 13, 15, 20, 21)]
        assert row["labels"] == [-1 if cell == 9 else cell for cell in cells]
        assert Path(row["image"]["path"]).stem == f"{row['frame'] - 1:04d}"


def test_plus_unreliable_frames(plus):
    kept, masked, dropped = (rows(plus, "bp4d_plus", unreliable=how) for how in ("keep", "mask", "drop"))
    assert len(kept) == len(masked) == 16
    assert len(dropped) == 12
    assert [row["frame"] for row in masked if set(row["labels"]) == {-1}] == [14] * 4
    assert all(set(row["labels"]) != {-1} for row in dropped)


def test_plus_folds(plus):
    people = [subject for part in BP4DPlus.PARTS for subject in part]
    assert len(set(people)) == 140
    assert [len(part) for part in BP4DPlus.PARTS] == [35] * 4
    assert set(load(plus, "bp4d_plus", fold=4, split="test")["subject_id"]) == {"M058"}
    assert "`fold` must be from 1 to 4 for BP4D+, got 5" in refusal(plus, "bp4d_plus", fold=5)
    assert sum(map(len, plus_imitation.full_blocks().values())) == 197_756
    assert len(plus_imitation.full_blocks()) == 560


def test_plus_refuses_bp4d_and_renumbered_frames(tmp_path, tree, plus):
    message = refusal(tree, "bp4d_plus", frame_offset=0)
    assert "Subject 'F001' of" in message or "is not that of BP4D+" in message
    other = data.write_example("bp4d_plus", tmp_path / "other", **ONE_EACH, frame_offset=0)
    assert "pass `frame_offset=0`" in refusal(other, "bp4d_plus")
    assert len(rows(other, "bp4d_plus", frame_offset=0)) == 16


def test_plus_total_is_checked(plus):
    with pytest.warns(DatasetWarning, match="frames: 16 instead of 197,756 in train\\+test"):
        data.load("bp4d_plus", plus, cache_dir=plus.parent / "cache")


def test_levels_are_arrays_of_the_right_size(tree):
    from datasets import List, Value

    features = load(tree, split="test").features
    assert features["labels"] == List(Value("float32"), length=12)
    assert features["intensities"] == List(Value("float32"), length=12)
    assert np.asarray(load(tree, split="test")["labels"]).shape == (4, 12)
