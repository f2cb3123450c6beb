"""What the app says, and what it writes; the page itself is tested in a browser."""

import threading
from importlib.util import find_spec

import numpy as np
import pytest
import yaml
from PIL import Image

from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel
from hf_geaau.app import EXAMPLES, Answers, markup, require_gradio, server, space
from hf_geaau.app.answers import Cancelled
from hf_geaau.errors import FaceNotFoundError, MissingExtraError, PhotoError, VideoError
from tests.clips import numbered, write_clip
from tests.command import run_command


@pytest.fixture(scope="module")
def answers():
    return Answers()


def test_a_photo_is_described_and_drawn(answers):
    answer = answers.photo(EXAMPLES / "two_people.jpg")
    plain, heated = answers.picture(answer), answers.picture(answer, "AU12")
    assert plain.size == answer.image.size
    assert np.abs(np.asarray(plain, int) - np.asarray(heated, int)).max() > 30
    bars = markup.face_bars(answer.faces[1], 2, 2, ("A note.",))
    assert "Face 2 of 2" in bars
    assert "A note." in bars
    assert bars.count('role="meter"') == 18
    assert ("✓" in bars) == bool(answer.faces[1].present)


def test_large_photos_are_drawn_smaller(answers):
    large = Image.open(EXAMPLES / "smile.jpg").resize((2000, 2000))
    assert answers.picture(answers.photo(large)).size == (1280, 1280)


def test_bad_photos_have_one_line_without_paths(answers, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    with pytest.raises(PhotoError, match=r"^Cannot read 'notes.txt': its content is no image") as error:
        answers.photo(text)
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(PhotoError, match=r"^Cannot read 'gone.jpg': there is no such file"):
        answers.photo(tmp_path / "gone.jpg")
    with pytest.raises(FaceNotFoundError, match="No face was found"):
        answers.photo(Image.new("RGB", (64, 64)))
    with pytest.raises(PhotoError, match=r"^The second photo: Cannot read 'notes.txt'"):
        answers.compare(EXAMPLES / "rest.jpg", text)


def test_text_of_others_is_escaped(answers):
    face = answers.photo(EXAMPLES / "smile.jpg").faces[0]
    assert "<script>" not in markup.face_bars(face, notes=("<script>alert(1)</script>",))
    assert "&lt;img" in markup.message("<img src=x>")
    assert "<i>" not in markup.header("<i>model</i>")


@pytest.mark.slow
def test_a_video_leaves_nothing_when_it_fails_or_is_stopped(answers, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    faceless = write_clip(tmp_path / "grey.mp4", numbered(5))
    with pytest.raises(VideoError, match=r"^No face was found in the 5 frames of 'grey.mp4'"):
        answers.video(faceless, folder)
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"^Cannot read 'notes.mp4'"):
        answers.video(tmp_path / "notes.mp4", folder)
    cancelled, seen = threading.Event(), []

    def stop_at_ten(done, total):
        seen.append((done, total))
        if done == 10:
            cancelled.set()

    with pytest.raises(Cancelled, match="Stopped"):
        answers.video(EXAMPLES / "clip.mp4", folder, on_frame=stop_at_ten, cancelled=cancelled)
    assert seen[-1] == (10, 80)
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_only_the_first_seconds_of_a_video_are_analyzed(tmp_path):
    answer = Answers(max_seconds=1).video(EXAMPLES / "clip.mp4", tmp_path)
    assert 20 <= answer.frames <= 21
    assert answer.notes == ["only the first 1 seconds were analyzed"]
    assert "only the first 1 seconds" in markup.video_summary(answer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["action_units.csv", "over_time.png", "overlay.mp4"]


@pytest.mark.slow
def test_a_model_without_masks_and_intensities(tiny_config, tmp_path):
    config = GeaauConfig(**{**tiny_config.to_dict(), "head": "pooled"})
    GeaauModel(config).save_pretrained(tmp_path / "model")
    GeaauImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "model")
    answers = Answers(tmp_path / "model")
    assert answers.heat_maps == ()
    answer = answers.photo(EXAMPLES / "smile.jpg")
    assert answers.picture(answer, "AU12").size == answer.image.size
    bars = markup.face_bars(answer.faces[0])
    assert bars.count('role="meter"') == 3
    assert "Intensit" not in bars.replace("and its intensity", "")
    comparison = answers.compare(EXAMPLES / "rest.jpg", EXAMPLES / "smile.jpg")
    assert "never trained" not in markup.comparison(comparison)


def test_the_space_says_what_it_is(tmp_path):
    pytest.importorskip("gradio", reason="needs the extra app")
    made = space.export_space(tmp_path / "space", model="owner/name")
    text = (made.folder / "README.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["sdk"] == "gradio"
    assert metadata["sdk_version"].startswith("6.")
    assert (metadata["app_file"], metadata["license"], metadata["models"]) == ("app.py", "apache-2.0", ["owner/name"])
    assert markup.CAUTION in text
    assert "serve('owner/name'" in (made.folder / "app.py").read_text()
    with pytest.raises(space.SpaceError, match="Push it with `hf-geaau push`"):
        space.export_space(tmp_path / "other", model=str(tmp_path))


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("hf_geaau.app.find_spec", lambda name: None if name == "gradio" else find_spec(name))
    with pytest.raises(MissingExtraError, match=r'pip install "hf_geaau\[app\]"'):
        require_gradio()
    assert "pip install" in run_command("app", "--no-open", code=1).stderr


def test_the_policy_lets_no_other_host_in():
    assert "http" not in server.CONTENT_POLICY
    assert server.CONTENT_POLICY.startswith("default-src 'self'")


def test_overwrite_needs_a_folder():
    assert "--export-space" in run_command("app", "--overwrite", code=2).stderr
