"""The Python blocks of README and docs run, in order, page by page; and the links between pages lead somewhere."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.clips import walking, write_clip

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def python_blocks(page: Path) -> str:
    """Return the Python blocks of a page as one program; lines in between are blank, so that line numbers fit."""
    lines, is_code = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            is_code = line == "```python"
            lines.append("")
        else:
            lines.append(line if is_code else "")
    return "\n".join(lines)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that the pages name."""
    from skimage import data

    portrait = data.astronaut()
    Image.fromarray(portrait).save(tmp_path / "photo.jpg")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    write_clip(tmp_path / "interview.mp4", walking(portrait[:240, 100:340], 12))
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page).strip()], ids=lambda page: page.name)
def test_python_blocks_run(page, inputs):
    exec(compile(python_blocks(page), str(page), "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_readme_is_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    """`make docs` in short: every link, anchor and reference of the site resolves."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    import subprocess
    import sys

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "site")
