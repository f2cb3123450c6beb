"""DISFA: labels, videos read exact to the frame, extracted frames, and the text of every refusal."""

import shutil
import warnings
from pathlib import Path

import av
import datasets
import numpy as np
import pytest
from PIL import Image

from hf_geaau import data, facs
from hf_geaau.data.disfa import DISFA
from hf_geaau.data.imitations.disfa import numbered_image, write_video
from hf_geaau.data.video_frames import VideoFrames, frame_url
from hf_geaau.errors import DatasetError, DatasetNotFoundError, DatasetWarning

SMALL = {"subjects_per_part": 1, "frames": 30, "faces": False, "size": 32}


def load(folder, **options):
    """Load without the warning about frame counts, which an imitation always causes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        return data.load("disfa", folder, cache_dir=folder.parent / "cache", **options)


def refusal(folder, kind=DatasetError, **options):
    with pytest.raises(kind) as caught:
        load(folder, **{"camera": "left", **options})
    message = str(caught.value)
    assert "\n" not in message
    return message


def number_in(image):
    """Read back the number that `numbered_image` colored an image with."""
    red, green, blue = np.asarray(image).reshape(-1, 3).mean(axis=0)
    return 100 * round(red / 25) + 10 * round(green / 25) + round(blue / 25)


@pytest.fixture(scope="module")
def shared_tree(tmp_path_factory):
    return data.write_example("disfa", tmp_path_factory.mktemp("disfa") / "tree", **SMALL, extracted="Frames")


@pytest.fixture
def tree(tmp_path, shared_tree):
    return Path(shutil.copytree(shared_tree, tmp_path / "tree"))


def levels_of(tree, subject, au):
    lines = (tree / "ActionUnit_Labels" / subject / f"{subject}_au{au}.txt").read_text().split()
    return [int(line.split(",")[1]) for line in lines]


@pytest.mark.parametrize(("variant", "aus"), [(8, facs.DISFA), (12, facs.DISFA_12)])
def test_labels_and_intensities(shared_tree, variant, aus):
    dataset = load(shared_tree, camera="left", fold=None, split="train", variant=variant).remove_columns("image")
    found = [row for row in dataset if row["subject_id"] == "SN003"]
    assert [row["frame"] for row in found] == list(range(1, 31))
    for index, au in enumerate(aus):
        levels = levels_of(shared_tree, "SN003", au)
        assert [row["intensities"][index] for row in found] == levels
        assert [row["labels"][index] for row in found] == [float(level >= 2) for level in levels]


def test_threshold(shared_tree):
    dataset = load(shared_tree, camera="left", fold=None, split="train", threshold=4).remove_columns("image")
    labels, levels = np.asarray(dataset["labels"]), np.asarray(dataset["intensities"])
    assert np.array_equal(labels, levels >= 4)
    assert "`threshold` must be one of 1, 2, 3, 4, 5, got 0" in refusal(shared_tree, threshold=0)
    assert "`variant` must be one of 8, 12, got 27" in refusal(shared_tree, variant=27)


def test_label_n_is_the_nth_frame_of_the_video(shared_tree):
    dataset = load(shared_tree, camera="left", fold=1, split="test")
    assert len(dataset) == 30, "the video has 39 frames; labels decide"
    for row in dataset.shuffle(seed=1):
        assert number_in(row["image"]) == row["frame"] - 1
    assert dataset[0]["image"].size == (32, 32)


def test_the_camera_is_chosen_explicitly(shared_tree):
    for camera in ("left", "right"):
        rows = load(shared_tree, camera=camera, split="test").cast_column("image", datasets.Image(decode=False))
        assert f"Videos_{camera.capitalize()}Camera" in rows[0]["image"]["path"]
    for camera in (None, "both"):
        message = refusal(shared_tree, camera=camera)
        assert f"`camera` must be 'left' or 'right', got {camera!r}. Published numbers use either" in message


@pytest.mark.parametrize(("digits", "first"), [(1, 0), (5, 1), (4, 0)])
def test_extracted_frames(tmp_path, digits, first):
    folder = data.write_example(
        "disfa", tmp_path / "tree", **SMALL, cameras=(), extracted="Frames", digits=digits, first_image=first
    )
    dataset = load(folder, frames_dir=str(folder / "Frames"), split="test")
    assert len(dataset) == 30
    assert all(number_in(row["image"]) == row["frame"] - 1 for row in dataset)


def test_streaming_and_processes_give_the_same(shared_tree):
    expected = load(shared_tree, camera="left")
    streamed = load(shared_tree, camera="left", streaming=True)
    shutil.rmtree(shared_tree.parent / "cache")
    parallel = load(shared_tree, camera="left", num_proc=2)
    for split in ("train", "test"):
        rows = [{**row, "image": np.asarray(row["image"]).tolist()} for row in expected[split]]
        assert rows == [{**row, "image": np.asarray(row["image"]).tolist()} for row in streamed[split]]
        assert rows == [{**row, "image": np.asarray(row["image"]).tolist()} for row in parallel[split]]


def test_frames_survive_other_processes(shared_tree):
    dataset = load(shared_tree, camera="left", fold=1, split="test")
    assert number_in(dataset[3]["image"]) == 3  # opens the video here, before the others fork
    seen = dataset.map(lambda row: {"seen": number_in(row["image"])}, num_proc=2, remove_columns=["image"])
    assert [row["seen"] for row in seen] == list(range(30))


def test_published_totals():
    assert sum(last - first + 1 for ranges in DISFA.DROP_LIST.values() for first, last in ranges) == 4_670
    assert sum(first for first, _ in DISFA.PART_FRAMES) == 130_814
    assert sum(second for _, second in DISFA.PART_FRAMES) == 126_144
    for part, (full, reduced) in zip(DISFA.PARTS, DISFA.PART_FRAMES, strict=True):
        ranges = [pair for subject in part for pair in DISFA.DROP_LIST.get(subject, ())]
        assert full - sum(last - first + 1 for first, last in ranges) == reduced
        assert full == 4845 * 9 - ("SN010" in part)


def test_drop_list(tmp_path):
    folder = data.write_example("disfa", tmp_path / "tree", **{**SMALL, "frames": 401}, cameras=(), extracted="Frames")
    options = {"frames_dir": str(folder / "Frames"), "fold": 1, "split": "test"}
    assert len(load(folder, **options)) == 401
    assert load(folder, **options, drop_listed=True)["frame"][:] == list(range(1, 398))


def test_other_counts_are_a_warning(shared_tree):
    with pytest.warns(
        DatasetWarning, match=r"DISFA does not have .*30 instead of 43,604 in test \(-43,574\) for fold 1"
    ):
        data.load("disfa", shared_tree, camera="left", cache_dir=shared_tree.parent / "cache")


# Bad input.


def test_missing_parts(tree, tmp_path):
    assert "Cannot find DISFA in" in refusal(tmp_path / "nowhere", kind=DatasetNotFoundError)
    shutil.rmtree(tree / "Videos_RightCamera")
    assert "Videos_RightCamera" in refusal(tree, camera="right", kind=DatasetNotFoundError)
    shutil.rmtree(tree / "ActionUnit_Labels")
    message = refusal(tree, kind=DatasetNotFoundError)
    assert "no folder 'ActionUnit_Labels'. The data is licensed and never downloaded" in message


def test_missing_label_file_video_and_labels(tree):
    (tree / "ActionUnit_Labels" / "SN001" / "SN001_au12.txt").unlink()
    assert "The label file 'SN001_au12.txt' is missing in" in refusal(tree)
    shutil.rmtree(tree / "ActionUnit_Labels" / "SN001")
    assert "has no labels: there is no folder 'ActionUnit_Labels/SN001' in" in refusal(tree)
    (tree / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi").unlink()
    (tree / "Videos_LeftCamera" / "LeftVideoSN003_comp.avi").unlink()
    assert "has no video of SN003 in" in refusal(tree)


def test_truncated_label_files(tree):
    path = tree / "ActionUnit_Labels" / "SN001" / "SN001_au4.txt"
    lines = path.read_text().split()
    path.write_text("\n".join(lines[:-3]) + "\n")
    assert f"27 lines in {str(path)!r} and 30 in" in refusal(tree)
    path.write_text("\n".join(lines)[:-2])
    assert f"{str(path)!r}, line 30, has 1 cells instead of 2" in refusal(tree)


@pytest.mark.parametrize(
    ("level", "text"), [("6", "must be one of 0, 1, 2, 3, 4, 5, got 6"), ("2.5", "must be a whole number, got '2.5'")]
)
def test_a_label_outside_0_5(tree, level, text):
    path = tree / "ActionUnit_Labels" / "SN006" / "SN006_au1.txt"
    lines = path.read_text().split()
    lines[4] = f"5,{level}"
    path.write_text("\n".join(lines))
    message = refusal(tree)
    assert text in message
    assert f"{str(path)!r}, line 5" in message


def test_a_frame_without_a_label(tree):
    path = tree / "ActionUnit_Labels" / "SN006" / "SN006_au1.txt"
    lines = path.read_text().split()
    path.write_text("\n".join(lines[:10] + lines[11:]))
    assert f"Frames 11-11 are missing in {str(path)!r}" in refusal(tree)


def test_a_label_without_a_frame(tree):
    (tree / "Frames" / "SN001" / "7.png").unlink()
    message = refusal(tree, camera=None, frames_dir=str(tree / "Frames"))
    assert "1 labeled frames of SN001 have no image" in message
    assert "the first is frame 8 (image 7)" in message


def test_unknown_subject(tree):
    shutil.copytree(tree / "ActionUnit_Labels" / "SN001", tree / "ActionUnit_Labels" / "SN014")
    assert "Subject 'SN014' of" in (message := refusal(tree))
    assert "is in no fold of DISFA" in message


@pytest.mark.filterwarnings("ignore:.*published number of frames")
def test_a_video_that_ends_early(tree):
    path = tree / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi"
    write_video(path, [numbered_image(number, 32) for number in range(20)])
    assert "has 20 frames, and its labels reach frame 30" in refusal(tree)
    with pytest.warns(DatasetWarning, match="The video ends early; copy it again. Labels are never moved to fit."):
        kept = data.load("disfa", tree, camera="left", split="test", problems="warn", cache_dir=tree.parent / "cache")
    assert kept["frame"][:] == list(range(1, 21))


def test_a_video_cut_off_behind_its_header(tree):
    path = tree / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi"
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)
    write_video(
        path, [numbered_image(0, 64), numbered_image(1, 64), numbered_image(2, 64), *map(Image.fromarray, noise)]
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    dataset = load(tree, camera="left", split="test")
    assert number_in(dataset[2]["image"]) == 2
    with pytest.raises(DatasetError, match=r"The video .* has no frame 29 \(counted from 0\), only .* ends early"):
        dataset[29]["image"]
    assert "has no frame" in refusal(tree, check_images=True)


def test_a_video_that_is_none(tree):
    (tree / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi").write_bytes(b"not a video")
    assert "FFmpeg cannot open the video" in refusal(tree)


# Reading videos.


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """The same 120 frames coded in ways that seek differently: by key frames, with B-frames, without timestamps."""
    folder = tmp_path_factory.mktemp("videos")
    images = [numbered_image(number, 48) for number in range(120)]
    write_video(folder / "plain.avi", images)
    for name, codec, options in (
        ("b_frames.mkv", "libx264", {"bf": "3", "g": "24", "sc_threshold": "0", "crf": "10"}),
        ("b_frames.mp4", "libx264", {"bf": "3", "g": "24", "x264-params": "open-gop=1", "crf": "10"}),
        ("b_frames.avi", "mpeg4", {"bf": "2", "g": "24", "b": "8M"}),
        ("intra.avi", "mjpeg", {"q:v": "2"}),
    ):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=20, options=options)
            stream.width = stream.height = 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
            container.mux(stream.encode())
    return folder


@pytest.mark.parametrize("name", ["plain.avi", "b_frames.mkv", "b_frames.mp4", "b_frames.avi", "intra.avi"])
def test_frames_by_number(videos, name):
    order = [*range(30), 5, 100, 99, 98, 0, 119, 60, 61, 12, *np.random.default_rng(0).permutation(120).tolist()]
    reader = VideoFrames(videos / name)
    sequential = [frame.to_ndarray(format="rgb24") for frame in av.open(str(videos / name)).decode(video=0)]
    assert len(sequential) == 120 == reader.count()
    reader = VideoFrames(videos / name)
    for number in order:
        assert np.array_equal(reader[number], sequential[number]), number
        assert number_in(reader[number]) == number
    with pytest.raises(DatasetError, match=r"has no frame 120 \(counted from 0\), only 120 frames"):
        reader[120]
    assert np.array_equal(reader[3], sequential[3]), "usable after an error"


def test_going_back_does_not_start_over(videos, monkeypatch):
    reader = VideoFrames(videos / "b_frames.mkv")
    assert number_in(reader[110]) == 110
    monkeypatch.setattr(reader, "_start", lambda: pytest.fail("decoded the video from its start"))
    assert number_in(reader[80]) == 80


def test_frames_open_through_fsspec(videos):
    import fsspec

    with fsspec.open(frame_url(videos / "intra.avi", 37)) as file:
        assert number_in(Image.open(file)) == 37
    with pytest.raises(DatasetError, match="Frames can be read from local videos only, not by 'memory'"):
        fsspec.open("videoframe://000001.bmp::memory://x.avi").open()
