"""The pipeline takes what people hold: columns, batches, open files, frames; and goes on past whatever is broken."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from hf_geaau import predict_video
from hf_geaau.errors import PhotoError, PhotoWarning
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT
from hf_geaau.pipeline import load_pipeline


@pytest.fixture(scope="module")
def detect():
    return load_pipeline()


@pytest.fixture(scope="module")
def photo(portrait):
    return np.asarray(Image.fromarray(portrait[0]).resize((256, 256)))


def smile(faces):
    (face,) = faces
    return face["action_units"]["AU12"]


def test_columns_of_datasets(detect, photo):
    datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG")
    rows = datasets.Dataset.from_dict({"image": [{"bytes": stream.getvalue(), "path": None}] * 3})
    expected = smile(detect(photo))
    for decode in (True, False):
        table = rows.cast_column("image", datasets.Image(decode=decode))
        results = detect(table["image"])
        assert isinstance(results, list)
        assert [smile(faces) for faces in results] == pytest.approx([expected] * 3, abs=1e-5)
        lazy = detect(table.to_iterable_dataset()["image"])
        assert not isinstance(lazy, list)
        assert [smile(faces) for faces in lazy] == pytest.approx([expected] * 3, abs=1e-5)


def test_batches_tuples_and_nothing(detect, photo):
    batch = np.stack([photo, photo[:, ::-1]])
    expected = [smile(faces) for faces in detect(list(batch))]
    tensor = torch.from_numpy(batch.copy())
    for form in (batch, batch.transpose(0, 3, 1, 2), tensor.permute(0, 3, 1, 2), tensor, tuple(batch)):
        assert [smile(faces) for faces in detect(form)] == pytest.approx(expected, abs=1e-5)
    assert detect([]) == detect(()) == []


@pytest.mark.parametrize("form", [list, iter, np.stack])
def test_frames_in_memory_are_a_video(detect, photo, form):
    rows = list(predict_video(form([photo] * 4), detect, fps=10))
    assert [(row["frame"], row["time_s"], row["track_id"]) for row in rows] == [
        (number, pytest.approx(number / 10), rows[0]["track_id"]) for number in range(4)
    ]
    assert rows[0]["quality"] == "good"


def test_an_error_has_the_name_of_its_file_and_the_rest_goes_on(detect, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "good.png")
    Image.fromarray(photo[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    good, broken = detect([tmp_path / "good.png", tmp_path / "float.tif"], on_error="return")
    assert len(good) == 1
    assert isinstance(broken, PhotoError)
    assert "float.tif" in str(broken)
    assert "array" not in str(broken)


def test_a_note_is_a_warning(detect, photo):
    with pytest.warns(PhotoWarning, match="read as 12-bit"):
        detect(photo.astype(np.uint16) * 16)


def test_small_cut_and_squeezed_faces_are_noted(detect, photo):
    picture = Image.fromarray(photo)
    small = Image.new("RGB", (200, 200), "gray")
    small.paste(picture.resize((64, 64)), (60, 60))
    notes = {"small": small, "cut": picture.crop((118, 0, 256, 256)), "squeezed": picture.resize((256, 110))}
    for note, image in notes.items():
        faces = detect(image, min_score=0.3)
        assert any(note in face["quality"] for face in faces), note
    assert detect(picture)[0]["quality"] == []


def test_a_whole_photo_is_no_crop_and_the_first_is_warned_of(photo, monkeypatch):
    from transformers import pipeline

    from hf_geaau.models.geaau import image_processing_geaau

    monkeypatch.setattr(image_processing_geaau, "_has_warned", False)
    classify = pipeline("image-classification", model=str(BUNDLED_CHECKPOINT))
    with pytest.warns(UserWarning, match="as an aligned face crop; of a whole photo, the scores mean nothing"):
        classify(Image.fromarray(photo))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classify(Image.fromarray(photo))
