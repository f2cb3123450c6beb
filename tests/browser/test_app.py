"""The app in a real browser, driven as a person would drive it. Set APP_PICTURES to a folder to keep screenshots."""

import os
import re
import time
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hf_geaau.app import EXAMPLES, markup
from tests.app_server import running_app
from tests.browser.conftest import no_console_errors
from tests.clips import write_clip

pytest.importorskip("gradio", reason="needs the extra app")
pytestmark = pytest.mark.slow

PICTURES = os.environ.get("APP_PICTURES")
TABS = ("Photo", "Webcam", "Video", "Compare")
MAX_PAGE_BYTES = 1_000_000  # docs/app.md states what was measured
ANSWER_MS = 60_000  # no limit on speed: other tests may keep the machine busy


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("app")) as app:
        yield app


@pytest.fixture
def opened(page, app):
    """Return the page with the app; a test fails on requests to other hosts."""
    with only_own_requests(page, app):
        open_app(page, app)
        yield page


class only_own_requests:
    """Fail at the end if a page asked another host for something."""

    def __init__(self, page, app):
        self.foreign = []
        own = (app.address, "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(own) else self.foreign.append(request.url))

    def __enter__(self):
        pass

    def __exit__(self, kind, *_):
        assert kind or self.foreign == []


def open_app(page, app):
    page.set_default_timeout(ANSWER_MS)
    page.goto(app.address)
    page.locator("#photo-input").wait_for()


def go_to(page, tab):
    page.get_by_role("tab", name=tab).click()


def meter(page, unit, where="#photo-bars"):
    return page.locator(where).get_by_role("meter", name=unit)


def value(page, unit, where="#photo-bars"):
    return float(meter(page, unit, where).get_attribute("aria-valuenow"))


def upload(page, file, where="#photo-input"):
    page.locator(f"{where} input[type=file]").set_input_files(file)


def keep_picture(page, name, settle_ms=800, **options):
    """Write a screenshot for docs/app.md, if it is asked for."""
    if PICTURES:
        page.wait_for_timeout(settle_ms)
        path = Path(PICTURES) / f"{name}.png"
        page.screenshot(path=path, **options)
        with Image.open(path) as picture:
            small = picture.convert("RGB")
        small.thumbnail((1100, 2200))
        small.save(path.with_suffix(".webp"), quality=75, method=6)
        path.unlink()


def test_a_photo_is_answered_with_bars_and_a_picture(opened, portrait_file):
    assert markup.CAUTION in opened.locator("body").inner_text()
    upload(opened, portrait_file)
    meter(opened, "AU12").wait_for()
    assert value(opened, "AU12") > 0.9
    assert value(opened, "AU43") < 0.1
    row = opened.locator("#photo-bars tr.is-present", has_text="AU12").inner_text()
    assert "Lip corner puller" in row
    assert "✓" in row
    picture = opened.get_by_alt_text("The photo with a box")
    plain = picture.get_attribute("src")
    opened.get_by_label("Heat map: where the model looks").click()
    opened.get_by_role("option", name="AU12 Lip corner puller").click()
    opened.wait_for_function("([picture, plain]) => picture.src !== plain", arg=[picture.element_handle(), plain])
    keep_picture(opened, "app_photo")


def test_one_of_several_faces_is_chosen(opened):
    opened.get_by_role("button", name="Two people").click()
    opened.get_by_text("Face 1 of 2.").wait_for()
    first = value(opened, "AU12")
    opened.get_by_label("Face", exact=True).click()
    opened.get_by_role("option", name="2").click()
    opened.get_by_text("Face 2 of 2.").wait_for()
    assert abs(value(opened, "AU12") - first) > 0.5  # one smiles, the other does not


def test_what_is_no_photo_gets_a_friendly_line(opened, tmp_path, portrait_file):
    text, disguised, faceless = tmp_path / "notes.txt", tmp_path / "notes.jpg", tmp_path / "grey.png"
    for path in (text, disguised):
        path.write_text("no photo")
    Image.new("RGB", (320, 240), "grey").save(faceless)
    upload(opened, text)
    opened.get_by_text("Invalid file type: notes.txt").wait_for()
    for path, line in (
        (disguised, "Cannot read 'notes.jpg': its content is no image"),
        (faceless, "No face was found"),
    ):
        upload(opened, path)
        opened.get_by_role("alert").filter(has_text=line).wait_for()
        assert "Traceback" not in opened.locator("body").inner_text()
        opened.get_by_label("Remove Image").click()
        opened.locator("#photo-bars").get_by_text("Choose a photo").wait_for()
    upload(opened, portrait_file)
    meter(opened, "AU12").wait_for()


def test_a_phone_photo_is_read_upright(opened, portrait_file, tmp_path):
    """HEIC, which browsers do not show, and a JPEG turned by EXIF."""
    heif = pytest.importorskip("pillow_heif", reason="writes HEIC")
    photo = Image.open(portrait_file)
    heif.from_pillow(photo).save(tmp_path / "phone.heic")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    for name in ("phone.heic", "turned.jpg"):
        upload(opened, tmp_path / name)
        meter(opened, "AU12").wait_for()
        assert value(opened, "AU12") > 0.9
        opened.get_by_label("Remove Image").click()
        opened.locator("#photo-bars").get_by_text("Choose a photo").wait_for()


def test_the_webcam_moves_the_bars(chromium, app, tmp_path):
    """A rendered person smiles, then raises the brows, before a camera that plays a clip again and again."""
    with av.open(str(EXAMPLES / "clip.mp4")) as clip:
        frames = [frame.to_image().resize((640, 480)) for frame in clip.decode(video=0)]
    for number, frame in enumerate(frames):
        frame.save(tmp_path / f"{number:03}.jpg", quality=90)
    camera = tmp_path / "camera.mjpeg"  # Motion JPEG is JPEG after JPEG
    camera.write_bytes(b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.jpg"))))
    flags = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with closing(chromium(*flags, f"--use-file-for-fake-video-capture={camera}")) as browser:
        page = browser.new_context(permissions=["camera"], viewport={"width": 1280, "height": 900}).new_page()
        with no_console_errors(page), only_own_requests(page, app):
            open_app(page, app)
            held = len(app.uploads())
            go_to(page, "Webcam")
            page.locator("#webcam-input").get_by_text("Click to Access Webcam").click()
            page.locator("#webcam-input").get_by_text("Record").filter(visible=True).click()
            for unit, other in (("AU02", "AU12"), ("AU12", "AU02")):
                reached = f"""() => {{
                    const value = unit => document.querySelector(`#webcam-bars [aria-label^=${{unit}}]`)?.ariaValueNow;
                    return value("{unit}") > 0.6 && value("{other}") < 0.4;
                }}"""
                page.wait_for_function(reached, polling=50)
            keep_picture(page, "app_webcam", settle_ms=0)
            assert len(app.uploads()) == held  # no picture of the stream is kept


def test_a_video_is_analyzed_and_downloaded(opened, tmp_path):
    go_to(opened, "Video")
    opened.get_by_role("button", name="Smile, then raised brows").click()
    opened.locator("#video-input video").wait_for()
    opened.get_by_role("button", name="Analyze the video").click()
    opened.locator("#video-summary table").wait_for()
    assert "80 frames, faces followed: 1" in opened.locator("#video-summary").inner_text()
    assert value(opened, "AU12", "#video-summary") > 0.2
    opened.get_by_alt_text("A curve of the probability").wait_for()
    opened.locator("#video-strongest img").first.wait_for()
    files = []
    for kind in ("table (.csv)", "overlay (.mp4)"):
        with opened.expect_download() as download:
            opened.get_by_role("button", name=f"Download the {kind}").click()
        files.append(tmp_path / download.value.suggested_filename)
        download.value.save_as(files[-1])
    table, overlay = files
    rows = pd.read_csv(table)
    assert len(rows) == 80
    assert set(rows.source) == {"clip.mp4"}
    with av.open(str(overlay)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 80
    keep_picture(opened, "app_video", full_page=True)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    with av.open(str(EXAMPLES / "clip.mp4")) as clip:
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", frames * 20)


def start_long_video(page, video):
    """Upload the video, and wait until its analysis shows progress."""
    go_to(page, "Video")
    if not page.locator("#video-input video").count():
        upload(page, video, "#video-input")
        page.locator("#video-input video").wait_for()
    page.get_by_role("button", name="Analyze the video").click()
    page.get_by_text(re.compile(r"\d/1\.6k frames")).first.wait_for()


def results(app):
    """Return the tables, overlays and parts of them that the app holds."""
    return {path for path in app.uploads() if path.suffix in (".csv", ".partial") or "overlay" in path.name}


def wait_until(is_true, seconds=5):
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_long_video_shows_progress_and_can_be_stopped(opened, app, long_video):
    before = results(app)
    for _ in range(2):  # it can be started again
        start_long_video(opened, long_video)
        opened.get_by_role("button", name="Stop", exact=True).click()
        opened.get_by_text("Stopped. Nothing of the video is kept.").wait_for()
        assert results(app) == before


def test_closing_the_page_stops_its_video(browser, app, long_video):
    before = results(app)
    page = browser.new_page()
    open_app(page, app)
    start_long_video(page, long_video)
    wait_until(lambda: results(app) > before)
    page.close()
    wait_until(lambda: results(app) == before)  # all of it would take longer


def test_a_text_as_video_gets_a_friendly_line(opened, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    go_to(opened, "Video")
    opened.get_by_role("button", name="Analyze the video").click()
    opened.get_by_text("There is no video yet. Choose one first.").wait_for()
    upload(opened, tmp_path / "notes.mp4", "#video-input")
    opened.locator("#video-input video").wait_for()
    opened.get_by_role("button", name="Analyze the video").click()
    opened.get_by_role("alert").filter(has_text="Cannot read 'notes.mp4'").wait_for()


def test_two_faces_are_compared(opened, portrait_file):
    go_to(opened, "Compare")
    opened.get_by_role("button", name="One person at rest and smiling").click()
    opened.locator("#compare-result table").wait_for()
    text = opened.locator("#compare-result").inner_text()
    assert "Only in the second:" in text
    assert "AU12 lip corner puller" in text
    keep_picture(opened, "app_compare")
    opened.locator("#compare-first").get_by_label("Remove Image").click()
    opened.get_by_text("Choose two photos.").wait_for()
    upload(opened, portrait_file, "#compare-first")
    opened.locator("#compare-result table").wait_for()


def test_the_keyboard_suffices(opened, portrait_file):
    from playwright.sync_api import TimeoutError as NotInTimeError

    def tab_to(name):
        for _ in range(40):
            opened.keyboard.press("Tab")
            if opened.evaluate("(document.activeElement.ariaLabel || document.activeElement.innerText).trim()") == name:
                return
        pytest.fail(f"'{name}' is not reached by the Tab key.")

    tab_to("Raised brows")
    opened.keyboard.press("Enter")
    meter(opened, "AU02").wait_for()
    assert value(opened, "AU02") > 0.5
    opened.get_by_label("Remove Image").focus()
    opened.keyboard.press("Enter")
    opened.locator("#photo-bars").get_by_text("Choose a photo").wait_for()
    opened.wait_for_timeout(1000)  # Gradio draws the upload anew
    for attempt in range(5):  # a key pressed while it does is lost, so people press it again
        opened.get_by_role("tab", name="Photo").focus()
        tab_to("Drop an image file here to upload")
        try:
            with opened.expect_file_chooser(timeout=5000) as chooser:
                opened.keyboard.press("Enter")
            break
        except NotInTimeError:
            if attempt == 4:
                raise
    chooser.value.set_files(portrait_file)
    meter(opened, "AU12").wait_for()
    heat_map = opened.get_by_label("Heat map: where the model looks")
    heat_map.focus()
    opened.get_by_role("option").first.wait_for()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        opened.wait_for_timeout(300)  # as fast as people press keys
        opened.keyboard.press(key)
    opened.get_by_role("option").first.wait_for(state="hidden")
    assert heat_map.input_value() == "AU02 Outer brow raiser"
    opened.get_by_role("tab", name="Photo").focus()
    tab_to("Compare")
    opened.keyboard.press("Enter")
    opened.locator("#compare-first").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_shows_all(browser, app, portrait_file, scheme):
    page = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme).new_page()
    with no_console_errors(page), only_own_requests(page, app):
        open_app(page, app)
        upload(page, portrait_file)
        meter(page, "AU12").wait_for()
        if scheme == "dark":
            keep_picture(page, "app_narrow", full_page=True)
        for tab in TABS:
            go_to(page, tab)
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            wide = page.evaluate("""[...document.querySelectorAll('.geaau, .geaau *, button')]
                .filter(each => each.checkVisibility() && each.getBoundingClientRect().right > 361
                                && !each.closest('.geaau-hidden') && each.innerText).map(each => each.outerHTML)""")
            assert wide == []
    page.context.close()


# Contrast as WCAG 2.2 defines it, of every text that is shown, before the nearest opaque background.
POOR_CONTRAST = """() => {
    const channels = color => color.match(/[\\d.]+/g).map(Number);
    const light = color => { const [r, g, b] = channels(color).map(each => each / 255)
        .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = each => { for (; each; each = each.parentElement) {
        const color = getComputedStyle(each).backgroundColor, [, , , alpha = 1] = channels(color);
        if (alpha === 1) return color; } return 'rgb(255, 255, 255)'; };
    return [...document.querySelectorAll('.geaau, .geaau-header, .geaau-message, [role=tab], footer button')]
        .flatMap(each => [each, ...each.querySelectorAll('*')])
        .filter(each => each.checkVisibility()
            && [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
        .map(each => { const pair = [getComputedStyle(each).color, behind(each)].map(light).sort((a, b) => b - a);
            return [(pair[0] + 0.05) / (pair[1] + 0.05), each.innerText.slice(0, 30)]; })
        .filter(([ratio]) => ratio < 4.5);
}"""

# As a screen reader finds names: a label, a text, a title, or a picture's text.
NAMELESS = """() => [...document.querySelectorAll('button, input:not([type=hidden]), select, textarea, [role=meter]')]
    .filter(each => each.checkVisibility() && !(each.ariaLabel || each.innerText.trim() || each.title
        || each.labels?.[0]?.innerText.trim() || each.querySelector('img')?.alt))
    .map(each => each.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_and_contrast(browser, app, scheme):
    page = browser.new_context(color_scheme=scheme).new_page()
    open_app(page, app)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title() == "Facial action units"
    page.get_by_role("button", name="Two people").click()
    page.get_by_text("Face 1 of 2.").wait_for()
    for tab in TABS:
        go_to(page, tab)
        if tab == "Compare":
            page.get_by_role("button", name="One person at rest and smiling").click()
            page.locator("#compare-result table").wait_for()
        page.wait_for_timeout(400)
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate(POOR_CONTRAST) == []
    page.context.close()


def test_present_is_not_said_by_color_alone(opened):
    opened.get_by_role("button", name="Smile", exact=True).click()
    meter(opened, "AU12").wait_for()
    for row in opened.locator("#photo-bars tbody tr").all():
        is_present = "is-present" in row.get_attribute("class")
        assert ("present" in row.inner_text()) == is_present
        threshold, probability = (float(row.locator(".geaau-number").nth(index).inner_text()) for index in (1, 0))
        assert (probability >= threshold) == is_present or abs(probability - threshold) < 0.011


def test_the_page_is_light(page, app):
    sizes = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    open_app(page, app)
    page.wait_for_timeout(3000)
    print(f"{len(sizes)} requests, {sum(sizes) / 1e6:.2f} MB")
    assert 0 < sum(sizes) < MAX_PAGE_BYTES


def test_a_result_is_a_picture_of_what_was_sent(opened, tmp_path):
    """Two photos in a row: the second answer belongs to the second photo."""
    for name, high in (("Smile", "AU12"), ("Raised brows", "AU02")):
        opened.get_by_role("button", name=name, exact=True).click()
        opened.wait_for_function(
            "unit => document.querySelector(`#photo-bars [aria-label^=${unit}]`)?.ariaValueNow > 0.6", arg=high
        )
    assert value(opened, "AU12") < 0.4
    assert np.isfinite(value(opened, "AU02"))
