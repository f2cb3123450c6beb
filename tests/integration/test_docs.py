"""The Python blocks of README and docs run, in order, page by page; and the links between pages lead somewhere.

The commands of docs/tables.md run here, those of docs/own_data.md in test_own_data.py; the blocks of docs/app.md, which
need the app, in test_app_server.py.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from hf_geaau import GeaauModel
from hf_geaau.models.loading import BUNDLED_CHECKPOINT
from tests.clips import walking, write_clip
from tests.command import run_command

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_HERE = [page for page in PAGES if page.name != "app.md"]
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


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language; "" for those that name none, which hold commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that the pages name."""
    from skimage import data

    portrait = data.astronaut()
    Image.fromarray(portrait).save(tmp_path / "photo.jpg")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    write_clip(tmp_path / "interview.mp4", walking(portrait[:240, 100:340], 12))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN_HERE if python_blocks(page).strip()], ids=lambda page: page.name)
def test_python_blocks_run(page, inputs):
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(python_blocks(page), str(page), "exec"), names)
    if page.name == "fine_tuning.md":  # the Trainer's checkpoint predicts
        run_command("predict", "photo.jpg", "--model", "finetuned", "--output", "finetuned.csv")
        table = pd.read_csv("finetuned.csv")
        assert [name for name in table if re.fullmatch(r"AU\d\d", name)] == ["AU12", "AU18", "AU34"]
        assert table[["AU12", "AU18", "AU34"]].gt(0).all(axis=None)
        start = GeaauModel.from_pretrained(BUNDLED_CHECKPOINT).with_action_units([12, 18, 34]).state_dict()
        trained = GeaauModel.from_pretrained("finetuned").state_dict()
        assert not all(trained[name].equal(value) for name, value in start.items())
        assert names["trainer"].evaluate()["eval_auc"] > 0.8  # of 14 people it has not seen; .95 where it was written
    if page.name == "tables.md":
        assert names["rested"]["AU12"].mean() != names["speaker"]["AU12"].mean()


@pytest.fixture
def tables(inputs):
    """What the commands of docs/tables.md write."""
    Path("events.csv").write_text("onset,duration,label\n0.2,0.1,question\n")
    for line in blocks(ROOT / "docs" / "tables.md", "")[0].splitlines():
        run_command(*shlex.split(line, comments=True)[1:])


@pytest.mark.slow
def test_commands_for_tables(tables):
    run_command("table", "aus.parquet", "--summary", "plain.csv")
    levels = [pd.read_csv(name).query("AU == 'AU12'")["mean"].item() for name in ("plain.csv", "summary.csv")]
    assert levels[0] != levels[1], "--baseline changes nothing"
    assert {"AU12", "FaceScore", "Identity"} <= set(pd.read_csv("fex.csv"))
    assert (pd.read_csv("with_events.csv")["event"] == "question").sum() == 4  # 25 frames a second, half a frame more
    (script,) = [block for block in blocks(ROOT / "docs" / "tables.md", "python") if "read_csv" in block]
    names: dict[str, Any] = {"pd": pd}
    exec(script.partition("\n\n")[2], names)  # on the file that `predict` wrote
    assert len(names["good"]) == 12


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R")
def test_r_script_for_tables(tables):
    (script,) = blocks(ROOT / "docs" / "tables.md", "r")
    done = subprocess.run(["Rscript", "-"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, mean, last = done.stdout.splitlines()[1].split()[1:]
    table = pd.read_csv("openface.csv")
    assert (file, float(last)) == ("openface.csv", 0.44)
    assert float(mean) == pytest.approx(table["AU12_r"].mean(), rel=1e-4)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_readme_is_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
