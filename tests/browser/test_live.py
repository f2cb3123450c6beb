"""The live page in a real Chromium: built once, served below a sub-path, and driven as a visitor would."""

import base64
import functools
import http.server
import importlib.util
import io
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_geaau import facs
from hf_geaau.backends import load_analyzer
from hf_geaau.video.tables import columns
from tests.browser.conftest import no_console_errors
from tests.clips import write_clip

ROOT = Path(__file__).parents[2]
LOADING_MS = 60_000
CROP_DIFFERENCE, PROBABILITY_DIFFERENCE = 2.0, 0.02  # in gray levels, mean over a crop; and of any action unit
CONTRAST = 4.5  # WCAG 2.2, level AA, for text

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def live_page() -> Any:
    """Return the module that builds the page."""
    spec = importlib.util.spec_from_file_location("live_page", ROOT / "docs" / "live_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def live_folder(live_page: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "project" / "live"
    try:
        live_page.build(folder)
    except live_page.NoNpmError as error:
        pytest.skip(f"needs npm and its registry: {error}")
    return folder


class Server:
    """Serves the built page below /project/live/, as GitHub Pages does, and lists what it was asked for."""

    def __init__(self, folder: Path) -> None:
        requests = self.requests = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, _: str, *values: Any) -> None:
                requests.append(str(values[0]))

        handler = functools.partial(Handler, directory=str(folder.parents[1]))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.host = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.host}/project/live/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(live_folder: Path) -> Iterator[Server]:
    server = Server(live_folder)
    yield server
    server.close()


def load(page: Any, url: str) -> None:
    page.goto(url)
    wait_for(page, "Ready.", LOADING_MS)


def wait_for(page: Any, text: str | re.Pattern[str], timeout_ms: int = 60_000) -> None:
    from playwright.sync_api import expect

    expect(page.get_by_role("status")).to_contain_text(text, timeout=timeout_ms)


def values(page: Any) -> dict[str, float]:
    """Return the probabilities that the page shows."""
    rows = page.locator("#units tr").all()
    return {row.get_attribute("id"): float(row.locator(".value").inner_text()) for row in rows}


def downloaded(page: Any) -> pd.DataFrame:
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    return pd.read_csv(download.value.path())


@pytest.fixture(scope="session")
def analyzer() -> Any:
    return load_analyzer(backend="onnx")


@pytest.fixture(scope="session")
def smile(analyzer: Any, portrait_file: Path) -> float:
    """Return the probability of AU12 that Python gives the portrait."""
    (face,) = analyzer(np.asarray(Image.open(portrait_file)))
    return float(face.probabilities[analyzer.runner.action_units.index("AU12")])


@pytest.fixture(scope="session")
def rendered() -> list[Image.Image]:
    """The rendered faces of the fine-tuning example, 128 pixels each."""
    table = pd.read_parquet(ROOT / "examples" / "faces.parquet")
    return [Image.open(io.BytesIO(image["bytes"])).convert("RGBA") for image in table["image"]]


def placed(
    face: Image.Image, size: tuple[int, int], side: int, middle: tuple[float, float], angle: float
) -> Image.Image:
    """Paste a face, scaled and turned, on a picture with a soft background."""
    x, y = np.meshgrid(np.linspace(0, 3, size[0]), np.linspace(0, 3, size[1]))
    back = np.stack([100 + 50 * np.sin(x), 100 + 15 * y, 120 + 40 * np.cos(y)], -1).astype(np.uint8)
    picture = Image.fromarray(back).convert("RGBA")
    turned = face.resize((side, side), Image.Resampling.LANCZOS).rotate(angle, Image.Resampling.BICUBIC, expand=True)
    picture.alpha_composite(turned, tuple(round(at - edge / 2) for at, edge in zip(middle, turned.size, strict=True)))
    return picture.convert("RGB")


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def sentence(analyzer: Any, face: Any) -> str:
    """What the page says of a face."""
    present = np.array(analyzer.runner.action_units)[face.probabilities >= analyzer.runner.thresholds]
    return f"Present: {', '.join(f'{unit} {facs.ACTION_UNITS[int(unit[2:])].name.lower()}' for unit in present)}."


def test_a_portrait_is_answered_as_by_python(page, server, portrait_file, analyzer):
    load(page, server.url)
    page.get_by_label("Photo or video").set_input_files(portrait_file)
    (face,) = analyzer(np.asarray(Image.open(portrait_file)))
    wait_for(page, f"1 face. {sentence(analyzer, face)}")
    shown = values(page)
    assert shown["AU12"] > 0.9
    assert "✓ yes" in page.get_by_role("row", name="AU12").inner_text()
    assert "✓" not in page.get_by_role("row", name="AU04").inner_text()
    table = downloaded(page)
    assert list(table) == columns(face.action_units, True)
    for name, probability in zip(face.action_units, face.probabilities, strict=True):
        assert shown[name] == pytest.approx(probability, abs=PROBABILITY_DIFFERENCE)
        assert table[name].item() == pytest.approx(probability, abs=PROBABILITY_DIFFERENCE)
    assert table["quality"].item() == "good"
    assert [name for name in face.action_units if table[f"{name}_present"].item()] == face.present


DETECT = """async ({url, photos}) => {
    const load = async (name) => new Uint8Array(await (await fetch(url + name)).arrayBuffer());
    const ort = await import(url + "ort.wasm.bundle.min.mjs");
    const { ActionUnitDetector, rgbPicture } = await import(url + "geaau.js");
    Object.assign(ort.env.wasm, { wasmBinary: await load("ort-wasm-simd-threaded.wasm"), numThreads: 1 });
    const session = async (name) => ort.InferenceSession.create(await load(name), { logSeverityLevel: 3 });
    const facts = JSON.parse(new TextDecoder().decode(await load("facts.json")));
    const cascade = new Float32Array((await load("five_points.bin")).buffer);
    const parts = { yunet: await session("yunet.onnx"), network: await session("geaau.onnx"), cascade };
    const detector = new ActionUnitDetector(ort, facts, parts), results = [];
    for (const { content, points } of photos) {
        const photo = await createImageBitmap(new Blob([Uint8Array.from(atob(content), (each) => each.charCodeAt(0))]));
        const canvas = new OffscreenCanvas(photo.width, photo.height), context = canvas.getContext("2d");
        context.drawImage(photo, 0, 0);
        const image = context.getImageData(0, 0, photo.width, photo.height), picture = rgbPicture(image);
        const crop = (face) => btoa(String.fromCharCode(...detector.crop(picture, face).data));
        const { faces } = await detector.detect(image);
        results.push({ faces, crops: faces.map(crop), aligned: crop({ points }) });
    }
    return results;
}"""


def test_crops_and_probabilities_are_those_of_python(page, server, rendered, analyzer):
    """50 rendered faces of 50 to 500 pixels, turned by up to 40° and some upside down, beginning from whole photos."""
    rng = np.random.default_rng(0)
    photos = []
    for number, face in enumerate(rendered[:50]):
        side, angle = int(rng.integers(60, 500)), 180 if number % 10 == 0 else rng.uniform(-40, 40)
        size = int(side * rng.uniform(1.6, 2.6)), int(side * rng.uniform(1.6, 2.2))
        photos.append(placed(face, size, side, (size[0] / 2, size[1] / 2), angle))
    expected = [analyzer(np.asarray(photo)) for photo in photos]
    assert all(len(faces) == 1 for faces in expected)
    load(page, server.url)
    sent = [
        {"content": base64.b64encode(png(photo)).decode(), "points": face.points.tolist()}
        for photo, (face,) in zip(photos, expected, strict=True)
    ]
    results = [
        result
        for start in range(0, 50, 10)
        for result in page.evaluate(DETECT, {"url": server.url, "photos": sent[start : start + 10]})
    ]
    same_points, crop_differences, probability_differences = 0, [], []
    for photo, (face,), result in zip(photos, expected, results, strict=True):
        (found,) = result["faces"]
        ours = analyzer.crop(np.asarray(photo), [face])[0].astype(int)
        theirs, aligned = (
            np.frombuffer(base64.b64decode(content), np.uint8).reshape(ours.shape)
            for content in (*result["crops"], result["aligned"])
        )
        same_points = max(same_points, int(np.abs(ours - aligned).max()))
        crop_differences.append(np.abs(ours - theirs).mean())
        probability_differences.append(np.abs(face.probabilities - found["probabilities"]).max())
        assert found["quality"] == list(face.quality)
        assert np.allclose(found["box"], face.box, atol=0.1)
    print(f"\nlargest differences: crops from the same points {same_points} gray levels,", end=" ")
    print(f"from photos {max(crop_differences):.2f}, probabilities {max(probability_differences):.4f}")
    assert same_points <= 1
    assert max(crop_differences) <= CROP_DIFFERENCE
    assert max(probability_differences) <= PROBABILITY_DIFFERENCE


def test_several_faces_are_told_apart(page, server, rendered, tmp_path):
    load(page, server.url)
    picture = placed(rendered[0], (900, 420), 320, (250, 210), 0)
    picture.paste(placed(rendered[3], (300, 300), 220, (150, 150), 8), (560, 60))
    picture.save(tmp_path / "two.png")
    page.get_by_label("Photo or video").set_input_files(tmp_path / "two.png")
    wait_for(page, "2 faces. The largest:")
    first = values(page)
    page.get_by_role("radio", name="2").check()
    assert values(page) != first
    table = downloaded(page)
    assert table["face"].tolist() == [0, 1]
    assert {name: round(value, 2) for name, value in table.loc[1, list(first)].items()} == values(page)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "notes.txt",
            b"AU12 is a smile.",
            "Cannot read 'notes.txt' as a photo: it is no picture (text/plain). Choose a JPEG, PNG or WebP photo",
        ),
        ("cut.jpg", b"\xff\xd8\xff\xe0", "Cannot read 'cut.jpg' as a photo: this browser cannot decode it."),
        (
            "cut.mp4",
            b"\0\0\0\x18ftypmp42",
            "Cannot read 'cut.mp4' as a video: this browser cannot decode it. Convert it",
        ),
        ("gray.png", png(Image.new("RGB", (320, 240), "gray")), "No face was found."),
    ],
)
def test_what_cannot_be_analyzed_gets_a_friendly_line(page, server, tmp_path, name, content, message):
    load(page, server.url)
    (tmp_path / name).write_bytes(content)
    page.get_by_label("Photo or video").set_input_files(tmp_path / name)
    wait_for(page, message)


@pytest.fixture(scope="session")
def smiling(rendered: list[Image.Image], analyzer: Any) -> list[np.ndarray]:
    """Return 50 frames of a rendered face that wanders and, in the second half, smiles."""
    crops = [np.asarray(face.convert("RGB")) for face in rendered]
    smiles = analyzer.runner.predict(crops).probabilities[:, analyzer.runner.action_units.index("AU12")]
    faces = [rendered[int(smiles.argmin())]] * 25 + [rendered[int(smiles.argmax())]] * 25
    middles = [(320 + 60 * np.sin(number / 12), 240) for number in range(50)]
    return [np.asarray(placed(face, (640, 480), 260, at, 5)) for face, at in zip(faces, middles, strict=True)]


def test_a_video_becomes_a_table_and_a_timeline(page, server, smiling, tmp_path):
    load(page, server.url)
    clip = write_clip(tmp_path / "clip.mp4", smiling)
    page.get_by_label("Photo or video").set_input_files(clip)
    wait_for(page, "The video has ended", 60_000)
    assert page.get_by_role("img", name="Action units over time").is_visible()
    table = downloaded(page)
    assert set(table["track_id"]) == {1}
    assert table["time_s"].is_monotonic_increasing and 1.5 < table["time_s"].max() < 2.1
    halves = table.groupby(table["time_s"] >= 1)["AU12"].mean()
    assert halves[True] > halves[False] + 0.3


@pytest.fixture
def camera(chromium: Callable[..., Any], smiling: list[np.ndarray], tmp_path: Path) -> Iterator[Any]:
    """Return a page whose camera shows a rendered clip, again and again."""
    with (tmp_path / "camera.mjpeg").open("wb") as stream:
        for frame in smiling:
            Image.fromarray(frame).save(stream, "JPEG", quality=95)
    file = f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}"
    browser = chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", file)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    with no_console_errors(page):
        yield page
    browser.close()


def test_the_webcam_by_keyboard_alone(camera, server):
    from playwright.sync_api import expect

    load(camera, server.url)
    with camera.expect_file_chooser():
        camera.keyboard.press("Tab")
        camera.keyboard.press("Enter")
    camera.keyboard.press("Tab")
    camera.keyboard.press("Enter")
    wait_for(camera, re.compile(r"1 face · \d+ frames/s"))
    expect(camera.locator("#AU12 .value")).to_have_text(re.compile(r"0\.[6-9]|1\.0"), timeout=60_000)
    assert camera.get_by_role("img", name="Action units over time").is_visible()
    camera.wait_for_timeout(4000)  # slow machines analyze a frame or two a second
    camera.keyboard.press("Enter")
    wait_for(camera, "The webcam is off")
    assert camera.get_by_role("button", name="Start webcam").is_visible()
    camera.keyboard.press("Tab")
    with camera.expect_download() as download:
        camera.keyboard.press("Enter")
    table = pd.read_csv(download.value.path())
    assert len(table) > 5 and (table["source"] == "webcam").all()
    assert table["time_s"].between(0, 60).all()


def test_a_refused_camera_gets_a_friendly_line(page, server):
    load(page, server.url)
    page.get_by_role("button", name="Start webcam").click()
    wait_for(page, re.compile("Cannot use the camera: .*, and press 'Start webcam' again."))


def test_nothing_leaves_the_machine(page, server, portrait_file):
    """Not while it loads. During analysis, there is no request but the browser's check for a new version."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    load(page, server.url)
    assert asked and all(url.startswith(server.url) for url in asked)
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert "default-src 'none'" in policy and "http" not in policy and "unsafe-inline" not in policy
    asked.clear()
    served = len(server.requests)
    page.get_by_label("Photo or video").set_input_files(portrait_file)
    wait_for(page, "1 face.")
    assert asked == []
    checks = {f"GET /project/live/{name} HTTP/1.1" for name in ("service_worker.js", "files.js")}
    assert set(server.requests[served:]) <= checks


def test_it_works_offline_after_the_first_visit(page, live_folder, portrait_file):
    server = Server(live_folder)
    load(page, server.url)
    assert "works offline" in page.locator("#engine").inner_text()
    server.close()
    page.reload()
    wait_for(page, "Ready.", LOADING_MS)
    page.get_by_label("Photo or video").set_input_files(portrait_file)
    wait_for(page, "AU12 lip corner puller")


def test_a_failed_load_is_said(page, live_folder, tmp_path):
    broken = tmp_path / "project" / "live"
    shutil.copytree(live_folder, broken)
    (broken / "geaau.onnx").write_bytes(b"short")
    server = Server(broken)
    page.goto(server.url)
    wait_for(page, "Cannot load the networks: geaau.onnx has 5 instead of", LOADING_MS)
    server.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_and_readable_text(browser, server, portrait_file, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    load(page, server.url)
    page.get_by_label("Photo or video").set_input_files(portrait_file)
    wait_for(page, "1 face.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    texts = page.evaluate(
        """() => [...document.querySelectorAll("h1, p, a, th, td, caption, button, .button, .value")].map((each) => {
            const paper = (element) => getComputedStyle(element).backgroundColor;
            let back = each;
            while (paper(back).endsWith(", 0)")) back = back.parentElement;
            return [each.textContent.trim().slice(0, 30), getComputedStyle(each).color, paper(back)];
        })"""
    )
    low = [text for text, ink, paper in texts if contrast(ink, paper) < CONTRAST]
    assert len(texts) > 60 and low == []
    context.close()


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two CSS colors, by WCAG 2.2."""
    lights = []
    for color in (one, other):
        parts = np.array([int(part) for part in re.findall(r"\d+", color)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_every_control_has_a_name(page, server):
    load(page, server.url)
    controls = page.locator("input, button, canvas, progress, table, section").all()
    names = [
        page.evaluate(
            "each => each.ariaLabel || each.labels?.[0]?.textContent || each.caption?.textContent || each.textContent",
            each.element_handle(),
        )
        for each in controls
    ]
    assert len(names) > 8 and all(name.strip() for name in names)
    assert page.locator("html").get_attribute("lang") == "en"
    assert "judge emotion, health, honesty or fitness for a job" in page.inner_text("footer")


def test_webgpu_gives_the_same(chromium, server, portrait_file, analyzer):
    """On Chromium's software GPU: slow, but the same code."""
    browser = chromium("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    page = browser.new_page()
    load(page, server.url)
    if "WebGPU" not in page.locator("#engine").inner_text():
        browser.close()
        pytest.skip("this Chromium has no software WebGPU")
    page.get_by_label("Photo or video").set_input_files(portrait_file)
    (face,) = analyzer(np.asarray(Image.open(portrait_file)))
    wait_for(page, sentence(analyzer, face), LOADING_MS)
    smile = face.probabilities[analyzer.runner.action_units.index("AU12")]
    assert values(page)["AU12"] == pytest.approx(smile, abs=0.01)
    browser.close()


EMBEDDING = """<!doctype html><link rel="icon" href="data:,"><canvas id="canvas"></canvas><script type="module">
const canvas = document.getElementById("canvas"), context = canvas.getContext("2d"), photo = new Image();
photo.src = "astronaut.png";
await photo.decode();
Object.assign(canvas, {{ width: photo.width, height: photo.height }});
context.drawImage(photo, 0, 0);
const nextFrame = context.getImageData(0, 0, photo.width, photo.height);
{block}
console.log("next", next.faces.length);
</script>"""


def test_the_module_is_embedded_as_the_documentation_says(page, server, live_folder, portrait_file, smile):
    (block,) = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "browser.md").read_text(encoding="utf-8"), re.DOTALL)
    imports, rest = (
        re.findall(r"^import .*?$", block, re.MULTILINE),
        re.sub(r"^import .*?$", "", block, flags=re.MULTILINE),
    )
    html = EMBEDDING.format(block=rest).replace(
        '<script type="module">', '<script type="module">\n' + "\n".join(imports)
    )
    (live_folder.parent / "embedding.html").write_text(html, encoding="utf-8")
    shutil.copy(portrait_file, live_folder.parent / "astronaut.png")
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    with page.expect_console_message(lambda message: message.text.startswith("next"), timeout=LOADING_MS):
        page.goto(f"{server.host}/project/embedding.html")
    first, following = (text for text in logged if not text.startswith("Canvas2D"))  # Chromium's advice
    probability, intensity = map(float, first.split()[-2:])
    assert probability == pytest.approx(smile, abs=0.01) and intensity > 3
    assert following == "next 1"


def test_without_npm_the_build_says_so(live_page, tmp_path, monkeypatch):
    monkeypatch.setattr(live_page.shutil, "which", lambda _: None)
    with pytest.raises(live_page.NoNpmError, match="npm is not installed: get it with Node.js 18 or newer"):
        live_page.build(tmp_path / "live")
    assert not (tmp_path / "live").exists()


def test_a_failing_npm_is_quoted(live_page, tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="npm warn old\nnpm error code ENOTFOUND\nnpm error network")
    monkeypatch.setattr(live_page.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(live_page.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(live_page.NoNpmError, match="`npm ci` failed: code ENOTFOUND"):
        live_page.build(tmp_path / "live")


def test_no_constant_is_written_twice(live_folder, analyzer):
    facts = json.loads((live_folder / "facts.json").read_text())
    known = analyzer.runner.facts
    assert [unit["label"] for unit in facts["action_units"]] == list(known.action_units)
    assert facts["thresholds"] == pytest.approx(known.thresholds.tolist())
    assert facts["columns"] == columns(known.action_units, True)
