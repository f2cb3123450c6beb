"""Crops cut once: which, where, what is reported, what an interruption leaves, and what may be opened."""

import csv
import errno
import json
import shutil
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from hf_geaau.data import load, open_aligned, prepare, write_example
from hf_geaau.data.crops import writing
from hf_geaau.data.crops.cutting import read_image
from hf_geaau.data.fec import CSV_FILES, image_name
from hf_geaau.data.imitations.faces import example_face
from hf_geaau.errors import DatasetError, DatasetNotFoundError
from hf_geaau.faces import FaceDetector
from hf_geaau.files import FolderClaim
from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE

pytestmark = pytest.mark.filterwarnings("ignore:.*published number of frames")
SIZE = 96


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_example("bp4d", tmp_path_factory.mktemp("bp4d"), subjects_per_part=1, tasks=("T1",), frames=4)


@pytest.fixture
def bp4d(source, tmp_path):
    """One recording of one person for each part: F001, F003 and F004, frames 11 to 14."""
    return shutil.copytree(source, tmp_path / "bp4d")


def read(folder, name=None, **options):
    return datasets.load_dataset(str(folder), name, cache_dir=str(folder.parent / "cache"), **options)


def report_of(folder):
    with (folder / "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def frames_of(folder):
    return [(row["subject_id"], row["frame"]) for row in read(folder, "all", split="train").remove_columns("image")]


def white(path):
    Image.new("RGB", (160, 160), "white").save(path)


def test_crops_are_aligned_and_read_back_with_their_columns(bp4d, tmp_path):
    steps = []
    report = prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1, progress=lambda *step: steps.append(step))
    assert (report.rows, report.problems) == (12, {})
    assert steps == [(done, 12) for done in range(13)]
    data = read(tmp_path / "out")
    assert {name: len(split) for name, split in data.items()} == {"train": 8, "test": 4}
    assert set(data["test"]["subject_id"][:]) == {"F001"}
    original = load("bp4d", bp4d, cache_dir=tmp_path / "cache")
    assert data["train"].features == original["train"].features
    for split in ("train", "test"):
        for name in ("labels", "intensities", "subject_id", "sequence_id", "frame"):
            assert data[split][name][:] == original[split][name][:]
    image = data["train"][0]["image"]
    assert image.size == (SIZE, SIZE)
    face = FaceDetector()(image)[0]
    assert np.abs(face.points - np.array(CROP_TEMPLATE) * SIZE).mean() < 0.05 * SIZE


def test_both_numberings_of_the_folds(bp4d, tmp_path):
    prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1)
    names = datasets.get_dataset_config_names(str(tmp_path / "out"))
    assert names[0] == "fold1"
    assert {"fold3", "fold1-megraphau", "all"} <= set(names)
    third = read(tmp_path / "out", "fold1-megraphau")
    assert set(third["test"]["subject_id"][:]) == set(read(tmp_path / "out", "fold3")["test"]["subject_id"][:])
    stream = read(tmp_path / "out", "all", split="train", streaming=True)
    assert next(iter(stream))["image"].size == (SIZE, SIZE)


def test_shards_hold_the_images_themselves(bp4d, tmp_path):
    prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1)
    shutil.rmtree(bp4d)
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert read(moved, "all", split="train")[5]["image"].size == (SIZE, SIZE)
    table = pq.read_table(next((moved / "data").glob("*.parquet")))
    assert table["image"].to_pylist()[0]["bytes"][:2] == b"\xff\xd8"


def test_the_card_forbids_publication(bp4d, tmp_path):
    prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Do not publish, upload or pass on these files" in card
    assert "no redistribution" in card
    assert "license: other" in card
    prepare("synthetic", write_example("synthetic", tmp_path / "renders", size=32), tmp_path / "free", workers=1)
    assert "Do not publish" not in (tmp_path / "free" / "README.md").read_text()


def test_a_frame_without_a_face_is_cut_like_its_nearest_neighbour(bp4d, tmp_path):
    folder = bp4d / "F001" / "T1"
    with Image.open(folder / "0013.jpg") as photo:
        hidden = photo.copy()
    ImageDraw.Draw(hidden).rectangle([0, 0, 159, 120], fill="blue")
    hidden.save(folder / "0013.jpg")
    report = prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1)
    assert report.problems == {"aligned": 1}
    (entry,) = report_of(tmp_path / "out")
    assert entry["problem"] == "no face found"
    assert entry["action"] == "aligned like frame 12"
    assert (entry["subject_id"], entry["sequence_id"], entry["frame"]) == ("F001", "F001_T1", "13")
    rows = read(tmp_path / "out", "all", split="train")
    crop = next(row["image"] for row in rows if (row["subject_id"], row["frame"]) == ("F001", 13))
    assert np.asarray(crop)[SIZE // 3, SIZE // 2, 2] > 200  # the blue


def test_a_frame_without_a_face_is_dropped_as_asked(bp4d, tmp_path):
    white(bp4d / "F001" / "T1" / "0013.jpg")
    report = prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1, faceless="drop")
    assert (report.rows, report.problems) == (11, {"dropped": 1})
    assert ("F001", 13) not in frames_of(tmp_path / "out")
    assert report_of(tmp_path / "out")[0]["action"] == "dropped"


def test_a_whole_sequence_without_a_face_has_no_neighbours(bp4d, tmp_path):
    for path in (bp4d / "F001" / "T1").iterdir():
        white(path)
    report = prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1)
    assert (report.rows, report.problems) == (8, {"dropped": 4})
    assert report_of(tmp_path / "out")[0]["problem"] == "no face found in the whole sequence"
    assert {name: len(split) for name, split in read(tmp_path / "out").items()} == {"train": 4, "test": 4}


def test_no_face_at_all(bp4d, tmp_path):
    for path in bp4d.glob("F*/T1/*.jpg"):
        white(path)
    with pytest.raises(DatasetError, match=r"No face was found in any frame of BP4D; the reasons are in"):
        prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1)


def test_a_corrupt_image_in_the_middle_is_reported(bp4d, tmp_path):
    path = bp4d / "F003" / "T1" / "0012.jpg"
    path.write_bytes(path.read_bytes()[:900])
    report = prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1)
    assert (report.rows, report.problems) == (11, {"dropped": 1})
    (entry,) = report_of(tmp_path / "out")
    assert entry["image"] == str(path)
    assert "truncated or damaged" in entry["problem"]
    assert ("F003", 12) not in frames_of(tmp_path / "out")


def test_what_load_leaves_out_is_in_the_report(bp4d, tmp_path):
    (bp4d / "F003" / "T1" / "0012.jpg").unlink()
    with pytest.raises(DatasetError, match="1 labeled frames of F003_T1 have no image"):
        prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1)
    with pytest.warns(UserWarning, match="1 labeled frames of F003_T1 have no image"):
        report = prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=1, problems="warn")
    assert report.problems == {"left out": 1}
    assert "frame 12" in report_of(tmp_path / "out")[0]["problem"]


@pytest.mark.slow
def test_zips_and_videos(tmp_path):
    folder = write_example("bp4d", tmp_path / "zips", subjects_per_part=1, tasks=("T1",), frames=2, zips=True)
    assert prepare("bp4d", folder, tmp_path / "a", size=SIZE, workers=1).rows == 6
    folder = write_example("disfa", tmp_path / "videos")
    report = prepare("disfa", folder, tmp_path / "b", size=SIZE, workers=1, camera="left")
    assert report.rows > 0
    assert report.problems == {}


@pytest.mark.slow
def test_a_video_that_ends_early_is_reported(tmp_path):
    folder = write_example("disfa", tmp_path / "disfa", subjects_per_part=1, frames=30)
    video = folder / "Videos_LeftCamera" / "LeftVideoSN003_comp.avi"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    report = prepare("disfa", folder, tmp_path / "out", size=64, workers=1, camera="left")
    entries = report_of(tmp_path / "out")
    assert report.rows + len(entries) == 90
    assert {entry["subject_id"] for entry in entries} == {"SN003"}
    assert "The video ends early" in entries[0]["problem"]


def test_an_interrupted_run_resumes(bp4d, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_FRAMES", 4)  # one shard for each person
    out = tmp_path / "out"

    def stop(done, _):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("bp4d", bp4d, out, size=SIZE, workers=1, progress=stop)
    (first,) = (out / ".partial").iterdir()
    written = first.stat().st_mtime_ns
    with pytest.raises(datasets.data_files.EmptyDatasetError):
        read(out)  # half a dataset is none
    steps = []
    report = prepare("bp4d", bp4d, out, size=SIZE, workers=1, progress=lambda *step: steps.append(step))
    assert steps[0] == (4, 12)
    assert report.rows == 12
    assert (out / "data" / first.name).stat().st_mtime_ns == written
    whole = prepare("bp4d", bp4d, tmp_path / "whole", size=SIZE, workers=1)
    assert whole.rows == 12
    for path in (out / "data").iterdir():
        assert pq.read_table(path).equals(pq.read_table(tmp_path / "whole" / "data" / path.name))
    assert sorted(path.name for path in out.iterdir()) == [".prepare.json", "README.md", "data", "report.csv"]
    assert prepare("bp4d", bp4d, out, size=SIZE, workers=1, progress=stop) == report  # nothing left to do


@pytest.mark.slow
def test_two_workers_write_the_same(bp4d, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_FRAMES", 4)
    steps = []
    one = prepare("bp4d", bp4d, tmp_path / "one", size=SIZE, workers=1)
    two = prepare("bp4d", bp4d, tmp_path / "two", size=SIZE, workers=2, progress=lambda *step: steps.append(step))
    assert one.rows == two.rows
    assert steps[-1] == (12, 12)
    for path in (tmp_path / "one" / "data").iterdir():
        assert pq.read_table(path).equals(pq.read_table(tmp_path / "two" / "data" / path.name))


def test_a_full_disk_is_one_line_and_loses_nothing(bp4d, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_FRAMES", 4)
    write, calls = pq.write_table, []

    def full(table, where, **options):
        calls.append(where)
        if len(calls) == 2:
            where.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, where, **options)

    monkeypatch.setattr(pq, "write_table", full)
    out = tmp_path / "out"
    with pytest.raises(
        DatasetError,
        match=r"Disk full while writing crops to .* Free some space and run the same command again; it resumes",
    ):
        prepare("bp4d", bp4d, out, size=SIZE, workers=1)
    assert [path.suffix for path in (out / ".partial").iterdir()] == [".parquet"]
    assert prepare("bp4d", bp4d, out, size=SIZE, workers=1).rows == 12


def test_a_worker_that_dies_is_one_line(bp4d, tmp_path, monkeypatch):
    class Dying:
        def __init__(self, *_):
            pass

        def submit(self, *_):
            future = Future()
            future.set_exception(BrokenProcessPool())
            return future

        def shutdown(self):
            pass

    monkeypatch.setattr(writing, "SHARD_FRAMES", 4)
    monkeypatch.setattr(writing, "ProcessPoolExecutor", Dying)
    with pytest.raises(DatasetError, match=r"A worker process died .probably out of memory.*fewer `workers`"):
        prepare("bp4d", bp4d, tmp_path / "out", size=SIZE, workers=2)


def test_another_use_of_the_folder_is_refused(bp4d, tmp_path):
    out = tmp_path / "out"
    prepare("bp4d", bp4d, out, size=SIZE, workers=1)
    with pytest.raises(
        DatasetError, match=r"Cannot resume: .* holds crops made with other settings \(size was 96, is 64\)"
    ):
        prepare("bp4d", bp4d, out, size=64, workers=1)
    with pytest.raises(DatasetError, match="Cannot resume: .* holds crops cut with with_intensities=True, not False"):
        prepare("bp4d", bp4d, out, size=SIZE, workers=1, with_intensities=False)
    label = next((bp4d / "AUCoding" / "AU_OCC").iterdir())
    label.write_text(label.read_text() + "\n")
    with pytest.raises(
        DatasetError, match="Cannot resume: the files in .* are not those that the crops in .* were begun with"
    ):
        prepare("bp4d", bp4d, out, size=SIZE, workers=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(DatasetError, match="The output must be a new or empty folder, or one that an earlier run left"):
        prepare("bp4d", bp4d, tmp_path / "mine", workers=1)
    with pytest.raises(DatasetError, match="The output must be a folder, got the file"):
        prepare("bp4d", bp4d, tmp_path / "mine" / "thesis.txt", workers=1)


def test_arguments_are_checked(bp4d, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        prepare("bp4d", tmp_path / "no", tmp_path / "out")
    with pytest.raises(
        DatasetError, match="`faceless` must be one of 'neighbor', 'drop', got 'neighbour'. Did you mean"
    ):
        prepare("bp4d", bp4d, tmp_path / "out", faceless="neighbour")
    for name, value in (("size", 8), ("quality", 100), ("min_score", 2), ("workers", 0)):
        with pytest.raises(DatasetError, match=f"`{name}` must be from .*, got {value}"):
            prepare("bp4d", bp4d, tmp_path / "out", **{name: value})
    with pytest.raises(DatasetError, match="Did you mean 'bp4d'"):
        prepare("bpd4", bp4d, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_triplets(tmp_path):
    folder = write_example("fec", tmp_path / "fec")
    report = prepare("fec", folder, tmp_path / "out", size=SIZE, workers=1)
    assert (report.rows, report.problems) == (16, {})
    data = read(tmp_path / "out")
    assert {name: len(split) for name, split in data.items()} == {"train": 11, "test": 5}
    original = load("fec", folder, cache_dir=tmp_path / "cache")
    assert data["train"].features == original["train"].features
    assert data["train"]["triplet_id"][:] == original["train"]["triplet_id"][:]
    assert [image.size for image in data["train"][0]["images"]] == [(SIZE, SIZE)] * 3
    assert "owners" in (tmp_path / "out" / "README.md").read_text()


def test_the_box_says_whose_face(tmp_path):
    url = "http://a.example/two.jpg"
    both = np.hstack([np.asarray(example_face(0)), np.asarray(example_face(1, 160, intensities={26: 5.0}))])
    (tmp_path / "fec" / "images").mkdir(parents=True)
    Image.fromarray(both).save(tmp_path / "fec" / "images" / image_name(url), quality=95)
    left, right = [url, 0.1, 0.4, 0.2, 1.0], [url, 0.6, 0.9, 0.2, 1.0]
    votes = [cell for number in range(6) for cell in (f"a{number}", 3)]
    line = ",".join(map(str, [*left, *left, *right, "ONE_CLASS_TRIPLET", *votes]))
    for name in CSV_FILES.values():
        (tmp_path / "fec" / name).write_text(line + "\n")
    prepare("fec", tmp_path / "fec", tmp_path / "out", size=SIZE, workers=1)
    first, second, odd = (np.asarray(image, float) for image in read(tmp_path / "out")["train"][0]["images"])
    assert np.abs(first - second).max() == 0
    assert np.abs(first - odd).mean() > 10


def test_a_photo_without_a_face_takes_its_triplets_along(tmp_path):
    folder = write_example("fec", tmp_path / "fec")
    white(folder / "images" / image_name("http://photos.invalid/train/train_0001_b.jpg"))
    broken = folder / "images" / image_name("http://photos.invalid/test/test_0001_b.jpg")
    broken.write_bytes(broken.read_bytes()[:500])
    report = prepare("fec", folder, tmp_path / "out", size=SIZE, workers=1)
    entries = report_of(tmp_path / "out")
    photos = [entry for entry in entries if entry["action"] == "dropped photo"]
    triplets = [entry["sequence_id"] for entry in entries if entry["action"] == "dropped triplet"]
    problems = sorted(entry["problem"].rpartition(": ")[2] for entry in photos)
    assert problems[0] == "no face found in the box" and problems[1].startswith("the image is truncated")
    assert len(problems) == 2
    assert report.rows == 16 - len(triplets) < 16
    kept = {row for split in read(tmp_path / "out").values() for row in split["triplet_id"][:]}
    assert not kept & set(triplets)


def test_rendered_crops_are_not_cut_again(tmp_path):
    folder = write_example("synthetic", tmp_path / "renders", identities=3, frames=2, size=48)
    prepare("synthetic", folder, tmp_path / "out", size=48, workers=1)
    row = next(iter(read(tmp_path / "out", "all", split="train")))
    with Image.open(folder / "images" / "00000000.jpg") as image:
        assert np.abs(np.asarray(row["image"], float) - np.asarray(image, float)).mean() < 3


def test_rendered_triplets(tmp_path):
    folder = write_example("synthetic", tmp_path / "renders", identities=40, frames=5, size=32)
    report = prepare("synthetic", folder, tmp_path / "out", size=32, workers=1, triplets=20)
    assert (report.rows, report.problems) == (40, {})
    data = read(tmp_path / "out")
    assert {name: len(split) for name, split in data.items()} == {"train": 20, "test": 20}
    assert [image.size for image in data["test"][0]["images"]] == [(32, 32)] * 3


# Opening.


def test_options_of_crops_are_compared_by_value(tmp_path):
    folder = write_example("fec", tmp_path / "fec", size=96)
    out = tmp_path / "out"
    prepare("fec", folder, out, size=48, workers=1, agreement=0.6667)
    assert len(open_aligned("fec", out, agreement=0.6667)) > 0
    with pytest.raises(DatasetError, match=r"were cut with agreement=0.6667, not 0.6. Leave the option out"):
        open_aligned("fec", out, agreement=0.6)
    (out / ".prepare.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"Cannot read the settings in .*prepare.json"):
        open_aligned("fec", out)
    (out / ".prepare.json").unlink()  # a copy may lack hidden files
    assert len(open_aligned("fec", out)) > 0


def test_folders_of_earlier_versions_open_and_resume(bp4d, tmp_path):
    out = tmp_path / "out"
    report = prepare("bp4d", bp4d, out, size=64, workers=1, frame_offset=0)
    record = json.loads((out / ".prepare.json").read_text())
    assert record["options"]["frame_offset"] == 0
    del record["options"]
    record |= {
        "dataset": "BP4D(drop_listed=False, problems='raise', check_images=False, with_intensities=True, "
        "frames_dir=None, frame_offset=0)",
        "faceless": "neighbour",
    }
    (out / ".prepare.json").write_text(json.dumps(record))
    assert len(open_aligned("bp4d", out, 1, "test", frame_offset=0, with_intensities=True)) == 4
    with pytest.raises(DatasetError, match="were cut with with_intensities=True, not False"):
        open_aligned("bp4d", out, with_intensities=False)
    assert prepare("bp4d", bp4d, out, size=64, workers=1, frame_offset=0) == report
    assert json.loads((out / ".prepare.json").read_text())["options"]["frame_offset"] == 0


def test_folders_of_the_same_name_are_not_confused(bp4d, tmp_path):
    """`datasets` would find the first one's rows in its cache for the second."""
    people = {}
    for name, subject in (("one", "F001"), ("other", "F002")):
        tree = shutil.copytree(bp4d, tmp_path / name / "tree")
        for path in sorted(tree.rglob("F001*"), key=lambda path: -len(path.parts)):
            path.rename(path.with_name(path.name.replace("F001", subject)))
        prepare("bp4d", tree, tmp_path / name / "crops", size=SIZE, workers=1, problems="warn")
        people[name] = open_aligned("bp4d", tmp_path / name / "crops", 1, "test")[0]["subject_id"]
    assert people == {"one": "F001", "other": "F002"}


def test_a_second_writer_is_refused(bp4d, tmp_path):
    with (
        FolderClaim(tmp_path / "out", {"size": 64}, record="other.json"),
        pytest.raises(DatasetError, match="Another process is writing crops to .* Wait for it to end"),
    ):
        prepare("bp4d", bp4d, tmp_path / "out", size=64, workers=1)


def test_crops_that_cannot_be_opened(bp4d, tmp_path):
    out = tmp_path / "out"
    prepare("bp4d", bp4d, out, size=64, workers=1)
    assert set(open_aligned("bp4d", out, 1, "test", "megraphau")["subject_id"][:]) == {"F004"}
    with pytest.raises(DatasetError, match="are of bp4d, not of fec. Pass another folder"):
        open_aligned("fec", out)
    with pytest.raises(DatasetError, match="`fold` must be from 1 to 3 for BP4D, got 4"):
        open_aligned("bp4d", out, 4)
    with pytest.raises(DatasetError, match="holds no aligned face crops of BP4D. Cut them once with `hf-geaau prepare"):
        open_aligned("bp4d", bp4d)
    for path in (out / "data").glob("part[23]*"):
        path.unlink()
    card = (out / "README.md").read_text().replace("fold1", "fold9")
    (out / "README.md").write_text(card)
    with pytest.raises(DatasetError, match="have no configuration 'fold1', which needs frames of train and test"):
        open_aligned("bp4d", out)
    shutil.rmtree(out / "data")
    with pytest.raises(DatasetError, match="The crops in .* are unfinished. Run the same `hf-geaau prepare` command"):
        open_aligned("bp4d", out)


def test_another_variant_of_disfa(tmp_path):
    folder = write_example("disfa", tmp_path / "disfa", subjects_per_part=1, frames=2)
    prepare("disfa", folder, tmp_path / "out", size=64, workers=1, camera="left", variant=12)
    (tmp_path / "out" / ".prepare.json").unlink()
    with pytest.raises(DatasetError, match="have 12 AUs, not 8. Pass the options that they were prepared with"):
        open_aligned("disfa", tmp_path / "out", camera="left", variant=8)


def test_a_damaged_container_is_one_line(tmp_path):
    (tmp_path / "F001.zip").write_bytes(b"no zip")
    with pytest.raises(DatasetError, match=r"Cannot read 'zip://T1/0001.jpg::.*F001.zip': .* Copy the file that holds"):
        read_image(f"zip://T1/0001.jpg::{tmp_path / 'F001.zip'}")
