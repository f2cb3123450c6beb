"""Own data: every spelling of columns and labels, every container, folds, alignment, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_geaau.data import get_dataset, load, open_aligned, prepare, write_example
from hf_geaau.data.table_columns import find_columns, intensities, occurrences
from hf_geaau.errors import DatasetError, DatasetNotFoundError, DatasetWarning
from hf_geaau.training import load_recipe

# Tables without subjects, and photos that are cut on the way, are worth a warning.
pytestmark = pytest.mark.filterwarnings("default::hf_geaau.errors.DatasetWarning")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve pictures in which no face needs to be found."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.new("RGB", (20 + number, 20), (number * 20, 90, 90)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def table(folder: Path, text: str, name: str = "faces.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def rows_of(source, **options):
    """Return all rows as dictionaries, without images but with their width, which tells them apart."""
    data = load("folder", source, fold=None, split="train", **options)
    return [{**row, "image": row["image"].width - 20} for row in sorted(data, key=lambda row: row["image"].width)]


def refused(source, **options) -> str:
    with pytest.raises(DatasetError) as error:
        rows_of(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Columns.


@pytest.mark.parametrize("name", ["AU01", "AU1", "au_1", "Au-01", " AU 1 ", "AU01_c", "au1_C", "AU01_present"])
def test_spellings_of_occurrence(name):
    found = find_columns(["image", name], {}, "t")
    assert (found.occurrence, found.intensity, found.notes) == ({1: name}, {}, [])


@pytest.mark.parametrize("name", ["AU01_r", "AU1_r", "au_01_R", "AU01 intensity"])
def test_spellings_of_intensity(name):
    assert find_columns(["image", name], {}, "t").intensity == {1: name}


@pytest.mark.parametrize("name", ["image", "file_name", "Filename", "path", "Image Path", "FILE"])
def test_spellings_of_the_image(name):
    assert find_columns([name, "AU1"], {}, "t").roles == {"image": name}


def test_other_columns_by_name_and_by_option():
    found = find_columns(["path", "Participant ID", "video", "Frame", "subset", "AU12"], {}, "t")
    assert found.roles == {
        "image": "path", "subject": "Participant ID", "sequence": "video", "frame": "Frame", "split": "subset",
    }  # fmt: skip
    found = find_columns(["a", "b", "path", "AU12"], {"image": "a", "subject": "B"}, "t")
    assert found.roles == {"image": "a", "subject": "b"}


@pytest.mark.parametrize(
    ("names", "chosen", "message"),
    [
        (["image", "AU1", "AU01"], {}, "Two columns of t could be AU01: 'AU1' and 'AU01'. Remove or rename one."),
        (["image", "AU01", "AU01_c"], {}, "Two columns of t could be AU01: 'AU01' and 'AU01_c'."),
        (["image", "path", "AU1"], {}, "could be the image: 'image' and 'path'. Pass image_column with the right one."),
        (["image", "AU99"], {}, "The column 'AU99' of t names no AU that is known here: 1, 2, 4, 5,"),
        (["imge", "AU1"], {}, "No column of t names the image. Is it 'imge'? Call it 'image', or pass image_column."),
        (["a", "AU1"], {}, "No column of t names the image. It has 'a', 'AU1'."),
        (["image", "AU_1x"], {}, "No column of t is an AU. Is 'AU_1x' one? Call them AU01, AU02, …"),
        (["image", "smile"], {}, "No column of t is an AU. It has 'image', 'smile'."),
        (["image", "who", "AU1"], {"subject": "whom"}, "`subject_column` must be a column of t, got 'whom'. Did you"),
        (["image", "AU1"], {"frame": "xyz"}, "`frame_column` must be a column of t, got 'xyz'. It has 'image', 'AU1'."),
    ],
)  # fmt: skip
def test_columns_that_are_refused(names, chosen, message):
    with pytest.raises(DatasetError) as error:
        find_columns(names, chosen, "t")
    assert message in str(error.value)


def test_misspelled_columns_are_named_and_others_ignored():
    names = ["image", "AU1", "AU_1x", "AU12_left", "subjct", "age", "confidence", "label", "face_id", "timestamp"]
    assert find_columns(names, {}, "t").notes == [
        "The column 'AU_1x' of t is left out. If it is 'AU01', call it so.",
        "The column 'AU12_left' of t is left out. If it is 'AU12', call it so.",
        "The column 'subjct' of t is left out. If it is 'subject', call it so.",
    ]


def test_chosen_aus_leave_out_unknown_ones(photos):
    path = table(photos, "image,subject,AU1,AU4,AU99\nphotos/0.png,a,1,0,1\n")
    assert get_dataset("folder", action_units=["AU04"]).resolved(path)[0].aus == (4,)
    assert rows_of(path, action_units=[4])[0]["labels"] == [0]
    assert "`action_units` must be among those of" in refused(path, action_units=[1, 12])
    assert "`action_units` does not fit: AUs must be distinct" in refused(path, action_units=[3])
    with pytest.warns(DatasetWarning, match=r"The column 'AU_1x' .* If it is 'AU01'"):
        load("folder", table(photos, "image,subject,AU1,AU_1x\nphotos/0.png,a,1,1\n", "b.csv"), fold=None)


# Labels.


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        (1, [1, 1.0, True, np.True_, "1", " 1 ", "1.0", "TRUE", "yes", "Y", "Present", np.float32(1)]),
        (0, [0, 0.0, False, "0", "0.0", "False", "no", "N", "absent", np.int64(0)]),
        (-1, [None, float("nan"), "", "  ", "NaN", "N/A", "None", 9, "9", 9.0, -1, "-1", "-1.0"]),
    ],
)
def test_values_of_occurrence(expected, values):
    assert occurrences(values, "AU01", str).tolist() == [expected] * len(values)


def test_values_of_intensity():
    values = [0, "2.5", "2,5", 5, "A", "e", None, "", 9, -1, float("nan")]
    assert intensities(values, "AU01_r", str).tolist() == [0, 2.5, 2.5, 5, 1, 5, -1, -1, -1, -1, -1]


def test_other_values_are_refused_with_their_place(photos):
    text = "image,subject,AU1,AU4_r\nphotos/0.png,a,1,0\n\nphotos/1.png,a,maybe,0\n"
    assert refused(table(photos, text)) == (
        "'AU1' must be 1, 0, true, false, yes, no, present, absent, or blank, 9 or -1 for not labeled, got 'maybe' in "
        f"line 4 of '{photos / 'faces.csv'}'. Call a column of intensities AU1_r."
    )
    assert "got '3' in line 2 of" in refused(table(photos, "image,AU1\nphotos/0.png,3\n"))
    message = refused(table(photos, "image,AU1_r\nphotos/0.png,7\n"))
    assert "'AU1_r' must be from 0 to 5, A to E, or blank, 9 or -1 for missing, got '7' in line 2" in message


def test_occurrence_and_intensity(photos):
    text = (
        "image,subject,AU01_c,AU01_r,AU12,AU25_r\n"
        "photos/0.png,a,1,0.5,,1.9\n"
        "photos/1.png,a,0,4,9,2\n"
        "photos/2.png,a,-1,,1,\n"
    )
    rows = rows_of(table(photos, text))
    assert [row["labels"] for row in rows] == [[1, -1, 0], [0, -1, 1], [-1, 1, -1]]
    np.testing.assert_allclose([row["intensities"] for row in rows], [[0.5, -1, 1.9], [4, -1, 2], [-1, -1, -1]])
    rows = rows_of(photos / "faces.csv", present_from=1)
    assert [row["labels"][2] for row in rows] == [1, 1, -1]


# Files.

TEXT = "image,subject,AU01,AU12\nphotos/0.png,Zoë,1,0\nphotos/1.png,bo,0,\n"
ROWS = [[1, 0], [0, -1]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encodings_and_separators(photos, encoding, separator):
    mark = "\ufeff" if encoding == "utf-16-le" else ""  # PowerShell's; the codec of a stated order writes none
    path = table(photos, mark + TEXT.replace(",", separator).replace("\n", "\r\n"), encoding=encoding)
    rows = rows_of(path)
    assert [row["labels"] for row in rows] == ROWS
    assert [row["subject_id"] for row in rows] == ["Zoë", "bo"]


def test_text_files_of_spreadsheets(photos):
    text = 'sep=;\nimage;AU01_r;subject;;\n"photos\\0.png";2,5;"a;b";;\n;;;;\nphotos/1.png;0;c;;\n'
    rows = rows_of(table(photos, text, "faces.tsv"))
    assert [(row["subject_id"], row["intensities"]) for row in rows] == [("a;b", [2.5]), ("c", [0])]


def test_jsonl_and_a_folder_with_one_table(photos):
    lines = [{"file_name": "photos/1.png", "AU01": False, "person": 7}, {"file_name": "photos/0.png", "AU01": True}]
    lines[1]["person"] = 7.0
    lines.append({"file_name": "photos/2.png", "AU01": 1, "person": "A\u2028B\x85"})  # no ends of a line in JSON
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n"
    table(photos, text, "faces.jsonl")
    (photos / "notes.txt").touch()
    rows = rows_of(photos)
    assert [(row["image"], row["labels"], row["subject_id"]) for row in rows] == [
        (0, [1], "7"), (1, [0], "7"), (2, [1], "A\u2028B"),
    ]  # fmt: skip


@pytest.mark.parametrize("embedded", [False, True], ids=["paths", "bytes"])
def test_parquet(photos, embedded):
    paths = [str(photos / "photos" / f"{number}.png") for number in range(3)]
    images = [{"bytes": Path(path).read_bytes(), "path": "x.png"} if embedded else path for path in paths]
    kind = datasets.Image() if embedded else datasets.Value("string")
    classes = datasets.ClassLabel(names=["present", "absent"])  # stored as 0 and 1
    features = datasets.Features(
        {"image": kind, "AU01": classes, "AU12": datasets.Value("float64"), "subject": datasets.Value("int64")}
    )
    columns = {"image": images, "AU01": [0, 1, 1], "AU12": [1.0, float("nan"), None], "subject": [1, 1, 2]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(photos / "faces.parquet")
    rows = rows_of(photos / "faces.parquet")
    assert [(row["image"], row["labels"], row["subject_id"]) for row in rows] == [
        (0, [1, 1], "1"), (1, [0, -1], "1"), (2, [0, -1], "2"),
    ]  # fmt: skip
    assert not any(str(photos) in row["sequence_id"] for row in rows if embedded)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"faces.xlsx": b"PK"}, "A table must end in .csv, .tsv, .jsonl, .parquet, got"),
        ({"faces.csv": b""}, "is empty. The first line must name the columns."),
        ({"faces.csv": b"image,AU1\n"}, "has no rows. Add labeled images."),
        ({"faces.csv": b"image,AU1\na,1,2\n"}, "has 3 values for 2 columns. Put values that hold the separator"),
        ({"faces.csv": b"image,AU1,AU1\na,1,2\n"}, "has two columns named 'AU1'. Rename or remove one."),
        ({"faces.csv": b"image,AU1\n\xfc.png,1\n"}, "as UTF-8: invalid start byte at byte 10. Save it as UTF-8."),
        ({"faces.csv": "image,AU1\n".encode("utf-16-le")}, "it is not a text file, or UTF-16 without a mark."),
        ({"faces.jsonl": b"{}\n{"}, "Line 2 of"),
        ({"faces.jsonl": b"[1]"}, "is not a JSON object. Write one object a line."),
        ({"faces.jsonl": b'{"a": 1}\n' + b"[" * 100_000}, "is not JSON: it is nested too deeply. Write one object"),
        ({"faces.parquet": b"PAR1"}, "Write it again."),
        ({"a.csv": b"", "b.csv": b""}, "holds several tables: 'a.csv', 'b.csv'. Pass the one with the labels."),
        ({"a.txt": b""}, "no file ends in .csv, .tsv, .jsonl, .parquet. Pass the table itself."),
    ],
)
def test_files_that_are_refused(tmp_path, files, message):
    folder = tmp_path / "own"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert message in refused(folder / "faces.xlsx" if "faces.xlsx" in files else folder)


def test_a_missing_table(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="Cannot find own data in .*no such file or folder. `hf-geaau exa"):
        load("folder", tmp_path / "no.csv")


def test_images_that_are_missing_or_twice(photos):
    path = table(photos, "image,subject,AU1\nphotos/0.png,a,1\nnone.png,a,1\n,b,0\nphotos/0.png,b,0\n")
    assert refused(path).startswith("2 of 4 rows have no image; the first is line 3 of")
    assert "none.png' does not exist. Copy the images, or pass `images`" in refused(path)
    with pytest.warns(DatasetWarning, match="1 rows have the image of an earlier row; the first is line 5 of"):
        assert [row["subject_id"] for row in rows_of(path, problems="warn")] == ["a"]
    moved = photos / "table"
    moved.mkdir()
    rows = rows_of(table(moved, "image,subject,AU1\n0.png,a,1\n"), images=photos / "photos")
    assert rows[0]["sequence_id"] == "0.png"


# Datasets of the ecosystem.


def test_a_dataset_in_memory(photos, monkeypatch):
    paths = [f"photos/{number}.png" for number in range(4)]
    table_ = {
        "image": [str(photos / path) for path in paths],
        "AU1": [True, False, None, True],
        "subject": list("abcd"),
    }
    plain = datasets.Dataset.from_dict(table_)
    decoded = plain.cast_column("image", datasets.Image()).shuffle(seed=1)
    for source in (plain, decoded):
        data = load("folder", source)
        assert type(data["train"]) is datasets.Dataset
        assert [row["labels"] for row in rows_of(source)] == [[1], [0], [-1], [1]]
    pictures = [Image.open(path) for path in table_["image"]]  # held as bytes
    assert len(rows_of(datasets.Dataset.from_dict({**table_, "image": pictures}))) == 4
    monkeypatch.chdir(photos)
    assert len(rows_of(datasets.Dataset.from_dict({**table_, "image": paths}))) == 4
    assert "`data_dir` must be a path, a datasets.Dataset or a DatasetDict, got list." in refused([1])
    assert "must be named train, validation or test, got 'odd'" in refused(datasets.DatasetDict(odd=plain))


def test_imagefolder(photos):
    for split, numbers in {"train": range(8), "test": range(8, 12)}.items():
        folder = photos / "faces" / split
        folder.mkdir(parents=True)
        lines = [f"{number}.png,{number % 2},{number // 2}" for number in numbers]
        table(folder, "\n".join(["file_name,AU12,subject", *lines]), "metadata.csv")
        for number in numbers:
            (photos / "photos" / f"{number}.png").rename(folder / f"{number}.png")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(photos / "faces"), cache_dir=str(photos / "cache"))
    for source in (loaded, photos / "faces"):
        data = load("folder", source, fold=1)
        assert {name: len(rows) for name, rows in data.items()} == {"train": 8, "test": 4}
        assert sorted(row["image"].width - 20 for row in data["test"]) == [8, 9, 10, 11]
        assert data["test"].sort("sequence_id")["labels"][:] == [[0], [1], [0], [1]]
        with pytest.raises(DatasetError, match="`fold` must be from 1 to 1 for own data, got 2"):
            load("folder", source, fold=2)


def test_csv_builder(photos):
    path = table(photos, TEXT)
    loaded = datasets.load_dataset("csv", data_files=str(path), cache_dir=str(photos / "cache"))
    assert [row["labels"] for row in rows_of(loaded, images=photos)] == ROWS


def test_a_dataset_card_of_somebody_else_is_no_crops(photos):
    table(photos, TEXT, "train.csv")
    (photos / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.csv\n---\n")
    assert [row["labels"] for row in rows_of(photos)] == ROWS
    assert len(open_aligned("folder", photos, None, aligned=True)) == 2


# Folds, sequences and frames.


def people(photos, sizes, header="image,subject,AU1", row=lambda number, who: f"photos/{number}.png,{who},1"):
    owners = [who for who, size in sizes.items() for _ in range(size)]
    return table(photos, "\n".join([header, *(row(number, who) for number, who in enumerate(owners))]))


def test_folds_are_exclusive_balanced_and_seeded(photos):
    path = people(photos, {"a": 4, "b": 1, "c": 1, "d": 2, "e": 1, "f": 1, "g": 2})
    tested = []
    for fold in (1, 2, 3):
        data = load("folder", path, fold=fold)
        train, test = ({*data[side]["subject_id"][:]} for side in ("train", "test"))
        assert not train & test
        assert len(data["test"]) == 4
        tested += sorted(test)
    assert sorted(tested) == list("abcdefg")

    def tests(**options):
        return [sorted(load("folder", path, fold=1, split="test", **options)["subject_id"][:]) for _ in range(2)]

    assert tests()[0] == tests()[1]
    assert len({str(tests(fold_seed=seed)[0]) for seed in range(5)}) == 1  # one person fills a fold
    assert len({str(load("folder", path, 2, "test", fold_seed=seed)["subject_id"][:]) for seed in range(5)}) > 1
    assert len(load("folder", path, fold=1, split="test", folds=4)) == 4  # the person with four images alone
    with pytest.raises(DatasetError, match="8 folds need as many subjects, got 7. Pass fewer `folds`"):
        load("folder", path, folds=8)
    with pytest.raises(DatasetError, match="`folds` must be at least 2 for .*, which has no test rows, got 1"):
        load("folder", path, folds=1)


def test_a_split_column_is_the_only_fold(photos):
    parts = {"a": "Train", "b": "val", "c": "test", "d": "training"}
    path = people(photos, dict.fromkeys(parts, 3), "image,subject,split,AU1",
                  lambda number, who: f"photos/{number}.png,{who},{parts[who]},1")  # fmt: skip
    data = load("folder", path)
    assert Counter(data["train"]["subject_id"][:]) == dict.fromkeys("abd", 3)
    assert Counter(data["test"]["subject_id"][:]) == {"c": 3}
    assert len(load("folder", path, fold=2, folds=2, split="test")) == 6
    text = path.read_text()
    table(photos, text.replace("test", "val"))
    assert set(load("folder", path, split="test")["subject_id"][:]) == {"b", "c"}
    table(photos, text.replace(",test", ",tset"))
    assert "'split' must be train, validation or test, got 'tset' in line 8" in refused(path)
    table(photos, text.replace("9.png,d", "9.png,c"))
    with pytest.warns(DatasetWarning, match="1 subjects of .* are in train and test, such as 'c'"):
        load("folder", path)
    table(photos, text.replace("val", "train").replace("test", "train"))
    assert get_dataset("folder").resolved(path)[0].folds == 3  # a column with one value divides nothing


def test_sequences_and_frames(photos):
    text = (
        "image,subject,clip,frame,AU1\nphotos/0.png,a,x,5,1\nphotos/1.png,a,x,2,0\n"
        "photos/2.png,b,x,1,1\nphotos/3.png,b,y,1,1\n"
    )
    path = table(photos, text)
    rows = [(row["image"], row["sequence_id"], row["frame"]) for row in rows_of(path)]
    assert rows == [(0, "a/x", 5), (1, "a/x", 2), (2, "b/x", 1), (3, "y", 1)]
    table(photos, text.replace(",5,", ",five,"))
    assert "'frame' must be a whole number, got 'five' in line 2" in refused(path)
    table(photos, text.replace("1.png,a", "1.png,"))
    assert "'subject' is blank in line 3 of" in refused(path)
    table(photos, text.replace("subject", "who"))
    with pytest.warns(DatasetWarning, match="No column of .* names the subject, so each sequence counts as one"):
        assert {row["subject_id"] for row in rows_of(path)} == {"x", "y"}
    table(photos, "image,AU1\nphotos/0.png,1\nphotos/1.png,1\nphotos/2.png,0\n")
    with pytest.warns(DatasetWarning, match="so each image counts as one: the same person may be in train and test"):
        assert {row["subject_id"] for row in rows_of(path)} == {f"photos/{number}.png" for number in range(3)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aligned": "yes"}, "`aligned` must be true or false, got 'yes'."),
        ({"present_from": 0}, "`present_from` must be an intensity above 0 and up to 5, got 0."),
        ({"folds": 0}, "`folds` must be a whole number from 1, got 0."),
        ({"imges": "."}, "Did you mean 'images'?"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(DatasetError) as error:
        get_dataset("folder", **options)
    assert message in str(error.value)


def test_aus_need_the_table():
    with pytest.raises(DatasetError, match="The AUs of own data are those of its table"):
        _ = get_dataset("folder").aus
    assert load_recipe("folder").action_units == ()


# Alignment.


@pytest.fixture
def own(tmp_path) -> Path:
    return write_example("folder", tmp_path / "own", subjects=3, frames=2)


def test_whole_photos_are_cut_once(own):
    Image.new("RGB", (80, 80)).save(own / "photos" / "person2_0.jpg")  # shows nobody
    with pytest.warns(DatasetWarning) as warnings:
        train = open_aligned("folder", own, 1, "train")
    first, second = (str(warning.message) for warning in warnings)
    assert first.startswith("The faces of 6 photos are found and cut once, into '")
    assert second.startswith("Of 6 photos: 1 dropped; see '")
    test = open_aligned("folder", own, 1, "test")
    assert len(train) + len(test) == 5
    assert train[0]["image"].size == (224, 224)
    crops = list((own.parent / "cache").glob("hf_geaau-folder-*/README.md"))
    assert len(crops) == 1
    (own / "photos" / "person2_0.jpg").write_bytes((own / "photos" / "person2_1.jpg").read_bytes())
    with pytest.warns(DatasetWarning, match="found and cut once"):
        assert len(open_aligned("folder", own, None)) == 6


def test_crops_are_taken_as_such(own):
    rows = open_aligned("folder", own, 1, "train", aligned=True)
    assert rows[0]["image"].size == (160, 160)
    assert len(open_aligned("folder", own, 1, "train", cut=False)) == 4


def test_prepared_crops_remember_aus_and_folds(own):
    out = own.parent / "crops"
    report = prepare("folder", own / "faces.csv", out, size=64, workers=1, folds=2)
    assert report.rows == 6
    dataset, _ = get_dataset("folder").resolved(out)
    assert (dataset.aus, dataset.fold_count) == ((1, 4, 12, 25), 2)
    sides = [set(open_aligned("folder", out, 2, side)["subject_id"][:]) for side in ("train", "test")]
    assert not sides[0] & sides[1]
    assert set(load("folder", own, 2, "test", folds=2)["subject_id"][:]) == sides[1]
    (out / ".prepare.json").unlink()  # as in a copy without hidden files
    assert get_dataset("folder").resolved(out)[0].aus == (1, 4, 12, 25)
    card = (out / "README.md").read_text()
    assert "the people of your own images" in card
    assert str(own) not in "".join(open_aligned("folder", out, 1, "train")["sequence_id"][:])
    prepare("folder", own / "faces.csv", own.parent / "again", size=64, workers=1)
    with pytest.raises(DatasetError, match="were cut with folds=3, not 2"):
        open_aligned("folder", own.parent / "again", folds=2)
