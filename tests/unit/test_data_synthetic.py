"""Rendered faces through the benchmarks' columns: AU rows and triplets."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_geaau import facs
from hf_geaau.data import load, write_example
from hf_geaau.data.synthetic import MIN_GAP, Synthetic, draw_triplets, expression_class, expression_distance
from hf_geaau.errors import DatasetError, DatasetNotFoundError


@pytest.fixture
def folder(tmp_path):
    return write_example("synthetic", tmp_path / "renders", identities=9, frames=3, size=32)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_example("synthetic", tmp_path_factory.mktemp("renders"), identities=40, frames=5, size=16)


def change(folder, **columns):
    """Replace columns of the table."""
    table = pq.read_table(folder / "labels.parquet")
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, folder / "labels.parquet")


def test_identities_are_subjects_of_three_folds(folder, tmp_path):
    tested = []
    for fold in (1, 2, 3):
        data = load("synthetic", folder, fold=fold, cache_dir=tmp_path / "cache")
        test, train = (set(data[name]["subject_id"][:]) for name in ("test", "train"))
        assert not test & train
        assert len(data["test"]) == 9
        tested += sorted(test)
    assert sorted(tested) == [f"render-0-{number}" for number in range(9)]
    with pytest.raises(DatasetError, match="`fold` must be from 1 to 3 for rendered faces, got 4"):
        load("synthetic", folder, fold=4)


def test_rows_are_those_of_the_table(folder, tmp_path):
    rows = pq.read_table(folder / "labels.parquet").to_pylist()
    data = load("synthetic", folder, fold=None, split="train", cache_dir=tmp_path / "cache")
    found = {(row["subject_id"], row["frame"]): row for row in data.remove_columns("image")}
    assert len(found) == len(rows) == 27
    for row in rows:
        same = found[row["subject_id"], row["frame"]]
        np.testing.assert_allclose(same["labels"], row["labels"])
        np.testing.assert_allclose(same["intensities"], row["intensities"], atol=1e-6)
    assert len(data[0]["labels"]) == len(facs.SYNTHETIC)
    assert data[0]["image"].size == (32, 32)


def test_triplets_are_three_people_and_the_odd_one_is_odd(many):
    rows = pq.read_table(many / "labels.parquet").to_pylist()
    known = {f"{many}/{row['file_name']}": (row["subject_id"], np.array(row["intensities"])) for row in rows}
    dataset = Synthetic(triplets=300)
    block = draw_triplets(dataset.read(many, None), 300, 0, "train")
    assert len(block) == 300
    for images, kind in zip(block.images, block.types, strict=True):
        people, levels = zip(*(known[image] for image in images), strict=True)
        assert len(set(people)) == 3
        pair = expression_distance(levels[0], levels[1])
        assert pair + MIN_GAP <= min(
            expression_distance(levels[2], levels[0]), expression_distance(levels[2], levels[1])
        )
        classes = expression_class(np.array(levels)).tolist()
        assert len(set(classes)) == kind + 1
        assert kind != 1 or classes[0] == classes[1]
    assert min(np.bincount(block.types)) > 30
    again = draw_triplets(dataset.read(many, None), 300, 0, "train")
    assert (again.images == block.images).all()


def test_triplets_have_the_columns_of_fec_and_share_no_person_between_splits(many, tmp_path):
    data = load("synthetic", many, triplets=50, cache_dir=tmp_path / "cache")
    fec = load("fec", write_example("fec", tmp_path / "fec", size=32), cache_dir=tmp_path / "cache")
    assert data["train"].features == fec["train"].features
    assert {name: len(split) for name, split in data.items()} == {"train": 50, "test": 50}
    assert {round(margin, 3) for margin in data["test"]["margin"][:]} <= {0.1, 0.2}
    paths = {
        name: {image["path"] for row in split.with_format("arrow")[:]["images"].to_pylist() for image in row}
        for name, split in data.items()
    }
    assert not paths["train"] & paths["test"]


def test_too_few_faces_for_triplets(tmp_path):
    folder = write_example("synthetic", tmp_path / "few", identities=2, frames=2, size=16)
    with pytest.raises(DatasetError, match=r"Cannot draw 5 triplets of three people: 0 were found among 2 people"):
        load("synthetic", folder, fold=None, triplets=5, cache_dir=tmp_path / "cache")
    with pytest.raises(DatasetError, match="`triplets` must be at least 0, got -1"):
        Synthetic(triplets=-1)


def test_missing_parts_are_named(folder, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"no such folder.*example-data synthetic"):
        load("synthetic", tmp_path / "no")
    (folder / "labels.parquet").unlink()
    with pytest.raises(
        DatasetNotFoundError, match=r"no 'labels.parquet' \(if the run was interrupted, start it again; it resumes"
    ):
        load("synthetic", folder)


def test_a_missing_image_is_an_error_or_left_out(tmp_path):
    folder = write_example("synthetic", tmp_path / "renders", identities=6, frames=2, size=16, missing_images=2)
    with pytest.raises(DatasetError, match=r"2 rows of .* have no image; the first is 'images/00000000.jpg'"):
        load("synthetic", folder, cache_dir=tmp_path / "cache")
    with pytest.warns(UserWarning, match="2 rows of .* have no image"):
        data = load("synthetic", folder, fold=None, problems="warn", cache_dir=tmp_path / "cache")
    assert len(data["train"]) == 10


def test_an_image_without_a_row(folder, tmp_path):
    (folder / "images" / "99.jpg").touch()
    with pytest.raises(DatasetError, match="1 images in .* have no row in the table"):
        load("synthetic", folder, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": [[2.0] * 18] * 27}, "Labels must be 0 or 1, got 2 in .*labels.parquet', row 1"),
        ({"intensities": [[5.5] * 18] * 27}, "Intensities must be from 0 to 5, got 5.5 in .* row 1"),
        ({"labels": [[0.0] * 18] * 26 + [[0.0]]}, "Row 27 of .*labels.parquet' has 1 values of labels instead of 18"),
        ({"subject_id": ["someone"] * 27}, "A subject must be named render-<seed>-<identity>, got 'someone'"),
    ],
)  # fmt: skip
def test_bad_values_are_named(folder, tmp_path, columns, message):
    change(folder, **columns)
    with pytest.raises(DatasetError, match=message):
        load("synthetic", folder, cache_dir=tmp_path / "cache")


def test_other_action_units_and_damaged_files(folder, tmp_path):
    (folder / "render.json").write_text(json.dumps({"action_units": [1, 2]}))
    with pytest.raises(DatasetError, match=r"The renders of .* have the AUs \[1, 2\] instead of"):
        load("synthetic", folder, cache_dir=tmp_path / "cache")
    (folder / "labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="Cannot read the columns file_name, labels, .* of .*labels.parquet"):
        load("synthetic", folder, cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_the_example_is_rendered_with_a_face_model(face_model_path, tmp_path):
    pytest.importorskip("moderngl")
    folder = write_example(
        "synthetic", tmp_path / "renders", identities=3, frames=1, size=48, face_model=face_model_path
    )
    data = load("synthetic", folder, cache_dir=tmp_path / "cache")
    assert (len(data["train"]), len(data["test"])) == (2, 1)
    assert np.asarray(data["test"][0]["image"]).std() > 10
