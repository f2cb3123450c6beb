"""A real Chromium for the tests of the app and of the live page, driven by Playwright."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
# Root in a container has no sandbox; the rest keeps Chromium from calling hosts of its own.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Callable[..., Any]]:
    """Return a function that starts Chromium with more flags, and returns Playwright's browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the PyPI package playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: Debian's package chromium, or its path in the environment variable CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])


@pytest.fixture(scope="session")
def browser(chromium: Callable[..., Any]) -> Iterator[Any]:
    browser = chromium()
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Return a new page 1280 pixels wide. A test fails on errors that its page writes to the console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    with no_console_errors(page):
        yield page
    context.close()


@contextmanager
def no_console_errors(page: Any) -> Iterator[None]:
    """Collect the errors that a page logs or throws, and fail with them at the end."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield
    assert errors == []


@pytest.fixture(scope="session")
def portrait_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PNG of NASA's portrait of Eileen Collins (public domain)."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, which carries the photo")
    from PIL import Image

    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path
