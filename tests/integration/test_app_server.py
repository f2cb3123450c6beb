"""The app without a browser: its API, its Space, its command line."""

import shutil
import socket
import time
from pathlib import Path

import pandas as pd
import pytest

from hf_geaau.app import EXAMPLES
from tests.app_server import running_app
from tests.command import run_command
from tests.integration.test_docs import python_blocks

httpx = pytest.importorskip("httpx")
gradio_client = pytest.importorskip("gradio_client", reason="needs the extra app")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("app")) as app:
        yield app


@pytest.fixture(scope="module")
def client(app, tmp_path_factory):
    return gradio_client.Client(app.address, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def example(name):
    return gradio_client.handle_file(EXAMPLES / name)


def test_the_api_has_three_documented_endpoints(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/photo", "/compare", "/video"}
    names = {name: [each["parameter_name"] for each in endpoint["parameters"]] for name, endpoint in endpoints.items()}
    assert names == {"/photo": ["photo"], "/compare": ["first", "second"], "/video": ["video", "heat_map", "blur"]}
    assert all(endpoint["description"].endswith(".") for endpoint in endpoints.values())


def test_the_example_of_the_documentation_runs(app, tmp_path, monkeypatch):
    for name, file in (("photo", "smile.jpg"), ("rest", "rest.jpg"), ("smile", "smile.jpg"), ("clip", "clip.mp4")):
        shutil.copy(EXAMPLES / file, tmp_path / f"{name}{Path(file).suffix}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "downloads"))
    code = python_blocks(ROOT / "docs" / "app.md")
    assert "http://127.0.0.1:7860" in code
    names = {}
    exec(code.replace("http://127.0.0.1:7860", app.address), names)
    assert names["face"]["action_units"]["AU12"] > 0.9
    assert Path(names["table"]).is_file()


def test_photo_by_the_api(client):
    answer = client.predict(example("two_people.jpg"), api_name="/photo")
    assert (answer["width"], answer["height"], answer["notes"]) == (768, 384, [])
    assert len(answer["faces"]) == 2
    for face in answer["faces"]:
        assert set(face) == {"box", "score", "points", "quality", "action_units", "present", "intensities"}
    assert {"AU12" in face["present"] for face in answer["faces"]} == {True, False}


def test_compare_by_the_api(client):
    answer = client.predict(example("rest.jpg"), example("smile.jpg"), api_name="/compare")
    differing = {unit["action_unit"] for unit in answer["action_units"] if unit["differs"]}
    assert {"AU06", "AU12", "AU25"} <= differing
    assert [unit["differs"] for unit in answer["action_units"]] == [True] * len(differing) + [False] * (
        18 - len(differing)
    )
    assert 0 < answer["distance"] < 4
    same = client.predict(example("smile.jpg"), example("smile.jpg"), api_name="/compare")
    assert same["distance"] == 0
    assert not any(unit["differs"] for unit in same["action_units"])


def test_video_by_the_api(client, app):
    answer, table, overlay = client.predict(example("clip.mp4"), "AU12", True, api_name="/video")
    assert (answer["frames"], answer["tracks"], answer["frames_without_face"]) == (80, 1, 0)
    shares = {row["AU"]: row["present"] for row in answer["summary"]}
    assert shares["AU12"] > 0.2 > shares["AU15"]
    rows = pd.read_csv(table)
    assert len(rows) == 80
    assert set(rows.source) == {"clip.mp4"}  # no path of the server
    assert overlay.endswith(".mp4")


def test_what_is_wrong_is_one_line(client, app, tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    for arguments, name in (
        ([text], "/photo"),
        ([EXAMPLES / "rest.jpg", text], "/compare"),
        ([text, "none", False], "/video"),
    ):
        files = [value if isinstance(value, str | bool) else gradio_client.handle_file(value) for value in arguments]
        with pytest.raises(gradio_client.exceptions.AppError, match=r"^(.*photo: )?Cannot .*'notes.jpg': ") as error:
            client.predict(*files, api_name=name)
        assert str(app.temporary) not in str(error.value)
    with pytest.raises(gradio_client.exceptions.AppError, match="`heat_map` must be none or one of AU01"):
        client.predict(example("clip.mp4"), "AU99", False, api_name="/video")
    assert client.predict(example("smile.jpg"), api_name="/photo")["faces"]  # it still answers


def test_files_of_the_machine_cannot_be_asked_for(app):
    """A path that was not uploaded is refused, with or without Gradio's mark; clients would upload it."""
    secret = app.temporary / "secret.jpg"
    secret.write_bytes((EXAMPLES / "smile.jpg").read_bytes())
    endpoint = f"{app.address}gradio_api/call/photo"
    for value in ({"path": str(secret)}, {"path": str(secret), "meta": {"_type": "gradio.FileData"}}, str(secret)):
        event = httpx.post(endpoint, json={"data": [value]}).json()["event_id"]
        answer = httpx.get(f"{endpoint}/{event}", timeout=20).text
        assert answer.startswith("event: error")
        assert "action_units" not in answer


def test_uploads_and_results_are_deleted_in_time(tmp_path):
    short = "page.KEPT_S, page.CHECKED_S = 2, 1"
    code = f"from hf_geaau.app import page, server; {short}; server.serve(port=7900)"
    with running_app(tmp_path, ["-c", code]) as app:
        examples = {path for path in app.uploads() if path.stat().st_size}
        client = gradio_client.Client(app.address, verbose=False, download_files=False)
        client.predict(example("smile.jpg"), api_name="/photo")
        client.predict(example("clip.mp4"), "none", False, api_name="/video")
        deadline = time.monotonic() + 20
        while {path for path in app.uploads() if path.stat().st_size} != examples:
            assert time.monotonic() < deadline, app.uploads()
            time.sleep(0.2)
        assert client.predict(example("smile.jpg"), api_name="/photo")["faces"]


def test_a_space_runs_and_is_not_overwritten(tmp_path):
    folder = tmp_path / "space"
    result = run_command("app", "--export-space", folder)
    assert "app.py, requirements.txt, README.md" in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    assert "hf_geaau[app]" in (folder / "requirements.txt").read_text()
    assert f"'{folder}' is not empty" in run_command("app", "--export-space", folder, code=1).stderr
    (folder / "mine.txt").write_text("mine")
    run_command("app", "--export-space", folder, "--overwrite")
    assert (folder / "mine.txt").read_text() == "mine"
    with running_app(tmp_path, [folder / "app.py"]) as app:
        client = gradio_client.Client(app.address, verbose=False, download_files=False)
        assert "AU12" in client.predict(example("smile.jpg"), api_name="/photo")["faces"][0]["present"]


def test_ports_and_hosts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running_app(tmp_path, ["-m", "hf_geaau", "app", "--no-open", "--port", port]) as app:
            assert port < int(app.address.rstrip("/").rpartition(":")[2]) < port + 20
            assert app.uploads()  # the examples at least
    assert app.process.returncode == 0
    assert not app.uploads()
    assert not any(path.name.startswith("hf-geaau-app-") for path in tmp_path.iterdir())
    assert "one of torch, onnx" in run_command("app", "--no-open", "--backend", "tensorrt", code=2).stderr
    wrong = run_command("app", "--no-open", "--host", "192.0.2.1", code=1).stderr
    assert wrong.startswith("error: Cannot listen at '192.0.2.1': ")
    assert len(wrong.splitlines()) == 1
