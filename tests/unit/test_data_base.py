"""What all AU datasets promise: columns, folds, caching, streaming, the license guard, class weights."""

import ast
import contextlib
import errno
import itertools
import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import PIL.Image
import pytest

from hf_geaau import data, facs
from hf_geaau.data.base import require
from hf_geaau.data.bp4d import BP4D
from hf_geaau.data.disfa import DISFA
from hf_geaau.errors import DatasetError, DatasetWarning, LicenseError, MissingExtraError

# Examples of the datasets whose columns and folds the contract below is about, and what `load` needs to know.
SMALL = {
    "bp4d": ({"frames": 3, "faces": False}, {}),
    "bp4d_plus": ({"frames": 3, "faces": False}, {}),
    "disfa": ({"frames": 4, "faces": False, "size": 32}, {"camera": "left"}),
}
COLUMNS = ["image", "labels", "intensities", "subject_id", "sequence_id", "frame"]


@pytest.fixture(scope="module", params=SMALL)
def example(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "tree"
    return request.param, data.write_example(request.param, folder, **SMALL[request.param][0])


@pytest.fixture
def tree(tmp_path):
    return data.write_example("bp4d", tmp_path / "tree", subjects_per_part=1, tasks=("T1",), frames=3, faces=False)


def load(name, folder, **options):
    """Load without the warning about frame counts, which an imitation always causes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        cache = options.pop("cache_dir", folder.parent / "cache")
        return data.load(name, folder, cache_dir=cache, **SMALL[name][1], **options)


def without_images(dataset):
    return list(dataset.remove_columns("image"))


# Columns and folds.


def test_columns(example):
    name, folder = example
    found = load(name, folder)
    assert list(found) == ["train", "test"]
    assert found["train"].column_names == COLUMNS
    count = len(data.get_dataset(name, **SMALL[name][1]).aus)
    labels, levels = (np.asarray(found["train"][key][:], np.float32) for key in ("labels", "intensities"))
    assert labels.shape == levels.shape == (len(found["train"]), count)
    assert set(np.unique(labels)) <= {-1, 0, 1}
    assert set(np.unique(levels)) <= {-1, 0, 1, 2, 3, 4, 5}
    assert "AU01, AU02, AU04" in found["train"].info.description
    assert found["train"][0]["image"].size[0] >= 1


def test_folds_are_subject_exclusive_and_cover_everyone(example):
    name, folder = example
    kind = type(data.get_dataset(name, **SMALL[name][1]))
    everyone = set(load(name, folder, fold=None)["train"]["subject_id"])
    tested = []
    for fold in range(1, len(kind.PARTS) + 1):
        found = load(name, folder, fold=fold)
        train, test = (set(found[split]["subject_id"]) for split in ("train", "test"))
        assert not train & test
        assert train | test == everyone
        assert test <= set(kind.PARTS[fold - 1])
        tested += test
    assert sorted(tested) == sorted(everyone)


@pytest.mark.parametrize("name", ["bp4d", "disfa"])
def test_megraphau_counts_the_same_sets_backwards(name):
    dataset = data.get_dataset(name, **SMALL[name][1])
    for fold in (1, 2, 3):
        assert dataset.fold(fold, "jaanet").part == fold - 1
        assert dataset.fold(fold, "megraphau").part == 3 - fold
    first, third = dataset.fold(1, "megraphau"), dataset.fold(3, "jaanet")
    assert dataset.published_counts(first) == dataset.published_counts(third)
    assert data.get_dataset("bp4d_plus").fold(1, "megraphau").part == 0, "one numbering"


def test_fold_sizes_of_the_published_lists():
    """Source: ME-GraphAU's own lists: BP4D train sizes of its folds 1, 2, 3; DISFA fold 1."""
    dataset = BP4D()
    folds = [dataset.fold(number, "megraphau") for number in (1, 2, 3)]
    assert [dataset.published_counts(fold)["train"] for fold in folds] == [100_813, 96_665, 96_216]
    disfa = DISFA(camera="left")
    assert disfa.published_counts(disfa.fold(1, "megraphau"))["train"] == 87_209


def test_streaming_and_processes_give_the_same(example):
    name, folder = example
    expected, streamed = load(name, folder), load(name, folder, streaming=True)
    parallel = load(name, folder, num_proc=2, cache_dir=folder.parent / "parallel")
    for split in ("train", "test"):
        rows = without_images(expected[split])
        assert rows == without_images(streamed[split])
        assert rows == without_images(parallel[split])
    assert isinstance(load(name, folder, streaming=True, split="test"), datasets.IterableDataset)


# Caching.


def test_an_edited_label_file_is_noticed(tree):
    path = tree / "AUCoding" / "AU_OCC" / "F001_T1.csv"
    before = load("bp4d", tree, split="test")["labels"][1]
    time = path.stat().st_mtime_ns
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[2] = str(1 - int(cells[2]))
    path.write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]) + "\n")
    os.utime(path, ns=(time + 1, time + 1))  # the same size, and one nanosecond later
    after = load("bp4d", tree, split="test")["labels"][1]
    assert [a != b for a, b in zip(before, after, strict=True)] == [False, True, *[False] * 10]


def test_a_new_or_renamed_frame_is_noticed(tree):
    load("bp4d", tree, split="test")
    (tree / "F001" / "T1" / "0012.jpg").rename(tree / "F001" / "T1" / "12.jpg")
    rows = load("bp4d", tree, split="test").cast_column("image", datasets.Image(decode=False))
    assert Path(rows[1]["image"]["path"]).name == "12.jpg"


def test_an_unchanged_folder_is_read_once(tree, monkeypatch):
    load("bp4d", tree)
    monkeypatch.setattr(BP4D, "read", lambda *arguments: pytest.fail("read again"))
    assert len(load("bp4d", tree)["test"]) == 3


def test_options_and_datasets_do_not_share_a_cache(tree, tmp_path):
    plus = data.write_example("bp4d_plus", tmp_path / "plus", subjects_per_part=1, frames=3, faces=False)
    assert len(load("bp4d", tree)["test"]) == 3
    assert len(load("bp4d_plus", plus)["test"]) == 6
    levels = load("bp4d", tree, with_intensities=False, split="test")["intensities"]
    assert {level for row in levels for level in row} == {-1}
    assert {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()} == {"bp4d", "bp4d_plus"}


# Bad arguments.


@pytest.mark.parametrize("fold", [0, 4, "1", True, 1.0])
def test_a_fold_that_does_not_exist(tree, fold):
    with pytest.raises(DatasetError, match="`fold` must be from 1 to 3 for BP4D, got .*or None for all subjects"):
        load("bp4d", tree, fold=fold)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"protocol": "jaa"}, "`protocol` must be one of 'jaanet', 'megraphau', got 'jaa'. Did you mean 'jaanet'?"),
        ({"split": "val"}, "`split` must be one of None, 'train', 'test', got 'val'."),
        ({"fold": None, "split": "test"}, "`split` must be one of None, 'train', got 'test'."),
        ({"problems": "ignore"}, "`problems` must be one of 'raise', 'warn', got 'ignore'."),
        ({"drop_list": True}, "got 'drop_list'. Did you mean 'drop_listed'?"),
        ({"frame_offset": 1}, "`frame_offset` must be 0, -1 or None (find out), got 1."),
    ],
)
def test_bad_options(tree, options, text):
    with pytest.raises(DatasetError) as caught:
        load("bp4d", tree, **options)
    assert text in str(caught.value)


ODD = ["no/such", -1, 0, 2.5, float("nan"), True, None, [], ["a"], [1, 1], {}, np.int64(2), b"x"]


@pytest.mark.parametrize("name", data.list_datasets())
def test_odd_options_are_an_error_or_do_no_harm(name, tmp_path):
    """`--option` brings whatever JSON there is."""
    least = {"fec": {"photos": 6, "triplets": 2}, "folder": {"subjects": 2}, "synthetic": {"identities": 2}}
    small = least.get(name) or {"subjects_per_part": 1, "frames": 2, "faces": False, "size": 32}
    folder = data.write_example(name, tmp_path / "tree", **small)
    refused = 0
    for option, value in itertools.product([field.name for field in fields(data.dataset_class(name))], ODD):
        try:
            data.get_dataset(name, **{option: value}).resolved(folder)
        except DatasetError as error:
            assert str(error).isprintable()
            refused += 1
    assert refused > 15
    quirks = import_module(f"hf_geaau.data.imitations.{name}").Quirks
    for number, (quirk, value) in enumerate(itertools.product([field.name for field in fields(quirks)], ODD)):
        if quirk not in ("face_model", "full_size"):
            with contextlib.suppress(DatasetError):
                data.write_example(name, tmp_path / str(number), **{**small, quirk: value})


def test_unknown_names(tmp_path):
    with pytest.raises(DatasetError, match="`name` must be one of .*'bp4d', .* got 'bp4'. Did you mean 'bp4d'?"):
        data.load("bp4", tmp_path)
    with pytest.raises(DatasetError, match="got 'digit'. Did you mean 'digits'?"):
        data.write_example("bp4d", tmp_path, digit=3)
    with pytest.raises(DatasetError, match="`drop_listed` must be False for BP4D\\+, which has no drop list"):
        data.get_dataset("bp4d_plus", drop_listed=True)
    assert {"bp4d", "bp4d_plus", "disfa"} <= set(data.list_datasets())


def test_a_fold_whose_subjects_are_missing(tmp_path):
    folder = data.write_example("bp4d", tmp_path / "tree", subjects_per_part=1, tasks=("T1",), frames=3, faces=False)
    (folder / "AUCoding" / "AU_OCC" / "F001_T1.csv").unlink()
    for path in (folder / "F001" / "T1").iterdir():
        path.unlink()
    with pytest.raises(
        DatasetError, match=r"The test split of fold 1 \(jaanet\) is empty: none of its subjects are in .*fold=None"
    ):
        load("bp4d", folder)


def test_a_full_disk(tree, monkeypatch):
    from datasets.arrow_writer import ArrowWriter

    def write_table(self, *arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ArrowWriter, "write_table", write_table)
    for num_proc in (None, 2):
        with pytest.raises(
            DatasetError, match="Disk full while writing the cache in .*Free some space, pass another `cache_dir`"
        ):
            load("bp4d", tree, num_proc=num_proc)
    monkeypatch.undo()
    assert len(load("bp4d", tree)["test"]) == 3, "what was begun does not stand in the way"


# What is imported.


def test_a_missing_extra_is_one_line():
    with pytest.raises(
        MissingExtraError, match=r"needs the package 'not_there', .* Run `pip install \"hf_geaau\[data\]"
    ):
        require("not_there", ".builder", "hf_geaau.data")


@pytest.mark.parametrize("name", ["datasets", "av"])
def test_without_the_extra(name):
    """In a process that cannot import the package, with `hf_geaau` itself replaced: it would import torch first."""
    code = f"""
import sys, types, tempfile
stub = types.ModuleType("hf_geaau"); stub.__path__ = [{str(Path(data.__file__).parents[1])!r}]
sys.modules.update({{"hf_geaau": stub, "torch": None, {name!r}: None}})
from hf_geaau import data, errors
assert "datasets" not in sys.modules or sys.modules["datasets"] is None
try:
    data.get_dataset("disfa", camera="left")
    if {name!r} == "datasets":
        data.load("bp4d", tempfile.mkdtemp())
    else:
        folder = data.write_example("disfa", tempfile.mkdtemp(), cameras=(), frames=1, faces=False)
        (folder / "Videos_LeftCamera").mkdir()
        data.load("disfa", folder, camera="left")
except errors.MissingExtraError as error:
    assert 'pip install "hf_geaau[data]"' in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_torch():
    for path in Path(data.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("torch", "torchvision", "transformers") for name in names), path


# The license guard.


def every_kind(tree):
    whole = load("bp4d", tree)
    return {
        "dict": whole,
        "split": whole["train"],
        "streamed": load("bp4d", tree, streaming=True)["train"],
        "streamed dict": load("bp4d", tree, streaming=True),
        "mapped": whole["train"].map(lambda row: row),
        "filtered": whole["train"].filter(lambda row: row["frame"] > 0),
        "shuffled": whole["train"].shuffle(seed=0).select(range(2)),
        "divided": whole["train"].train_test_split(0.5),
        "formatted": whole["train"].with_format("numpy").remove_columns("image"),
        "mapped dict": whole.map(lambda row: row).rename_column("frame", "number"),
        "mapped stream": load("bp4d", tree, streaming=True)["train"].map(lambda row: row).take(1),
        "pickled": pickle.loads(pickle.dumps(whole["train"])),
    }


def test_licensed_data_is_not_pushed(tree):
    for kind, dataset in every_kind(tree).items():
        with pytest.raises(LicenseError) as caught:
            dataset.push_to_hub("someone/bp4d")
        message = str(caught.value)
        assert "Cannot push 'bp4d' to 'someone/bp4d': it is licensed and must not be published" in message, kind
        assert "no redistribution" in message


class UploadBegins(Exception):
    """Raised by the imitation of the Hub where `datasets` would start to upload."""


def test_only_private_repositories_are_let_through(tree, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    class Repository:
        def __init__(self, private):
            self.private = private

        @property
        def id(self):
            raise UploadBegins

    def info(self, repo_id, repo_type=None):
        if repo_id not in ("lab/open", "lab/closed"):
            raise RepositoryNotFoundError("none", response=SimpleNamespace(headers={}, request=None, status_code=404))
        return Repository(repo_id == "lab/closed")

    def create(self, repo_id, *arguments, private=None, **options):
        raise UploadBegins if private else AssertionError

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", info)
    monkeypatch.setattr(huggingface_hub.HfApi, "bucket_info", info)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    dataset = load("bp4d", tree, split="train")
    for repo_id in ("lab/new", "lab/closed", "buckets/lab/closed/bp4d"):
        with pytest.raises(UploadBegins):
            dataset.push_to_hub(repo_id, private=True)
    for repo_id, options in (
        ("buckets/lab/open/bp4d", {"private": True}),
        ("lab/open", {"private": True}),
        ("lab/open", {"private": False}),
        ("lab/open", {}),
    ):
        with pytest.raises(LicenseError, match="it is licensed and must not be published"):
            dataset.push_to_hub(repo_id, **options)


# Class weights.

# Positives over all frames, and percent in the parts 1, 2, 3 of JAA-Net. Source: counted on the public label lists of
# CVI-SZU/MDHR.
RATES = {
    "bp4d": (
        (50_631, 50_182, 46_034),
        """31042 16.44 20.37 27.15  25110 16.14 13.09 22.53  29755 19.92 19.67 21.29  67676 41.59 46.45 50.63
        80616 58.98 55.10 50.19  87270 57.64 55.71 65.46  82530 55.85 52.18 60.97  68375 40.04 51.34 48.53
        24869 15.14 19.98 15.60  50406 31.76 36.62 34.64  24288 15.85 17.25 16.53  22229 13.98 15.68 15.83""",
    ),
    "disfa": (
        (43_604, 43_605, 43_605),
        """6506 4.22 3.37 7.33  5644 2.58 2.02 8.35  19933 11.74 15.26 18.72  10327 5.41 8.16 10.11
        5473 2.79 2.95 6.81  16851 10.33 14.19 14.13  36247 24.88 30.29 27.96  11533 11.24 9.46 5.75""",
    ),
}
# Source: the weight files that ME-GraphAU ships; weights of the training part of its folds 1, 2, 3.
STORED = {
    "bp4d": """
    1.342985 1.689665 1.248091 0.561356 0.433044 0.435894 0.457287 0.541004 1.408054 0.722762 1.493145 1.666711
    1.191051 1.337315 1.246995 0.558933 0.468168 0.418041 0.440099 0.581900 1.670360 0.774237 1.586367 1.726535
    1.132895 1.519623 1.308560 0.552098 0.507140 0.443118 0.474432 0.535111 1.496040 0.749851 1.582501 1.698632""",
    "disfa": """
    1.422290 2.347771 0.399672 0.795021 1.878217 0.440125 0.195583 0.521322
    1.390215 1.469573 0.527298 1.034498 1.672842 0.656650 0.303915 0.945009
    1.510590 1.560063 0.475896 0.884891 1.656857 0.570937 0.277589 1.063177""",
}


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("fold", [1, 2, 3])
def test_class_weights_equal_the_stored_ones(name, fold):
    sizes, text = RATES[name]
    table = np.array(text.split(), float).reshape(-1, 4)
    test = 3 - fold  # ME-GraphAU's fold 1 tests on JAA-Net's part 3
    frames = sum(sizes) - sizes[test]
    positives = np.rint(table[:, 0] - table[:, 1 + test] / 100 * sizes[test]).astype(int)
    labels = (np.arange(frames)[:, None] < positives).astype(np.float32)
    features = datasets.Features({"labels": datasets.List(datasets.Value("float32"), length=labels.shape[1])})
    dataset = datasets.Dataset.from_dict({"labels": labels}, features)
    stored = np.array(STORED[name].split(), float).reshape(3, -1)[fold - 1]
    # Percentages are rounded to 0.005: some 2.3 frames of a part, of at least 3,000 positives in a training part.
    tolerance = 0.00006 * sizes[test] / positives.min() + 1e-6
    np.testing.assert_allclose(data.class_weights(dataset), stored, rtol=tolerance)
    assert tolerance < 1.5e-3
    assert data.class_weights(dataset).mean() == pytest.approx(1)


def test_class_weights_leave_out_what_is_not_labelled():
    labels = np.array([[1, 1], [0, 0], [-1, 0], [-1, 0]])
    np.testing.assert_allclose(data.class_weights(labels), [2 * 2 / 6, 2 * 4 / 6])


def test_class_weights_follow_the_selected_rows(tree):
    train = load("bp4d", tree)["train"]
    chosen = train.select([5, 2, 1])
    np.testing.assert_allclose(data.class_weights(chosen), data.class_weights(np.array(chosen["labels"][:])))


def test_class_weights_refuse():
    with pytest.raises(
        DatasetError, match="Cannot weight label column 1 .counted from 0., which has no positive frame"
    ):
        data.class_weights([[1, 0], [0, 0]])
    with pytest.raises(DatasetError, match="`dataset` must be one split, got 'train', 'test'. Pass the train split"):
        data.class_weights(datasets.DatasetDict({"train": None, "test": None}))


def test_columns_are_read_as_arrays(tree):
    train = load("bp4d", tree)["train"]
    labels = data.column_array(train, "labels")
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, np.array(train["labels"][:], np.float32))
    np.testing.assert_array_equal(data.column_array(train.select([4, 0, 2]), "labels"), labels[[4, 0, 2]])
    assert data.column_array(train, "frame").tolist() == train["frame"][:]
    assert data.column_array(train, "subject_id").tolist() == train["subject_id"][:]
    assert data.column_array(train.select([]), "labels").shape == (0, 12)


def test_class_weights_need_labels_at_hand(tree):
    train = load("bp4d", tree, streaming=True, split="train")
    with pytest.raises(
        DatasetError,
        match="Cannot read the column 'labels' of a .*Pass one split that has it, loaded without `streaming`",
    ):
        data.class_weights(train)
    with pytest.raises(DatasetError, match="with the columns frame. Pass"):
        data.class_weights(datasets.Dataset.from_dict({"frame": [1]}))


# Imitations.


def test_faces_are_drawn(tmp_path):
    folder = data.write_example("bp4d", tmp_path / "tree", subjects_per_part=1, tasks=("T1",), frames=2, size=96)
    images = [row["image"] for row in load("bp4d", folder, fold=None)["train"]]
    assert {image.size for image in images} == {(96, 96)}
    assert all(np.asarray(image).std() > 20 for image in images)


@pytest.mark.slow
def test_faces_are_rendered(tmp_path, face_model_path):
    pytest.importorskip("moderngl")
    small = {"subjects_per_part": 1, "frames": 1, "cameras": (), "extracted": "Frames", "size": 96}
    folder = data.write_example("disfa", tmp_path / "tree", **small, extra_frames=0, face_model=face_model_path)
    drawn = data.write_example("disfa", tmp_path / "drawn", **small)
    images = [np.asarray(PIL.Image.open(root / "Frames" / "SN001" / "0.png")) for root in (folder, drawn)]
    assert images[0].shape == images[1].shape == (96, 96, 3)
    assert not np.array_equal(*images)
    own = data.write_example("folder", tmp_path / "own", subjects=1, frames=1, size=96, face_model=face_model_path)
    assert PIL.Image.open(own / "photos" / "person0_0.jpg").size == (96, 96)


def test_aus_follow_facs():
    assert data.get_dataset("bp4d").aus == facs.BP4D
    assert data.get_dataset("bp4d_plus").aus == facs.BP4D_PLUS
    assert data.get_dataset("disfa", camera="left").aus == facs.DISFA
    assert data.get_dataset("disfa", camera="left", variant=12).aus == facs.DISFA_12
