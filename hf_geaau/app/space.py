"""Write the folder of a Hugging Face Space that runs the app."""

import json
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distribution, version
from pathlib import Path

from hf_geaau.app import require_gradio
from hf_geaau.app.markup import CAUTION
from hf_geaau.errors import GeaauError
from hf_geaau.files import FolderLock, whole_file

MAX_SECONDS = 60  # of a video: a free Space has two cores for all its visitors; our choice

_APP = '''"""Facial action units in the browser, on Hugging Face Spaces."""

from hf_geaau.app.server import serve

if __name__ == "__main__":
    serve({model!r}, host="0.0.0.0", port=7860, max_seconds={max_seconds}, max_file_size="200mb")
'''
_REQUIREMENTS = """# torch for CPUs, without the libraries of CUDA
--extra-index-url https://download.pytorch.org/whl/cpu
{package}
"""
_README = """---
{metadata}
---

# Facial action units

See which muscles move in a face: photos, webcam, videos, and two faces compared. Made with
[hf_geaau](https://github.com/geaau/hf_geaau), `hf-geaau app --export-space`.

**{caution}**

Uploads and results are deleted after an hour. The first {max_seconds} seconds of a video are analyzed.
"""


class SpaceError(GeaauError, ValueError):
    """A Space cannot be written."""


@dataclass(frozen=True)
class Space:
    """A folder for a Space.

    Attributes:
        folder: Where it is.
        files: Names of the files that were written.
        notes: What is to be done before it is uploaded.
    """

    folder: Path
    files: list[str]
    notes: list[str] = field(default_factory=list)


def export_space(folder: str | Path, *, model: str | None = None, overwrite: bool = False) -> Space:
    """Write app.py, requirements.txt and README.md, ready for `hf upload --repo-type space`.

    Args:
        folder: Created if it is missing.
        model: Hub id; None for the bundled checkpoint.
        overwrite: Replace these files in a folder that is not empty. Other files, such as .git, stay.

    Raises:
        SpaceError: If the folder is not empty, is in use, or cannot be written; or if the model lies on this machine.
        MissingExtraError: If Gradio, whose version the Space states, is not installed.
    """
    require_gradio()
    from huggingface_hub import SpaceCardData

    if model is not None and Path(model).exists():
        raise SpaceError(
            f"A Space cannot read '{model}' of this machine. Push it with `hf-geaau push`, and pass its Hub id."
        )
    package, notes = _requirement(distribution("hf_geaau"))
    metadata = SpaceCardData(
        title="Facial action units", emoji="🙂", colorFrom="blue", colorTo="gray", sdk="gradio",
        sdk_version=version("gradio"), app_file="app.py", license="apache-2.0", models=[model] if model else None,
        tags=["facial-action-units", "facs", "face", "hf_geaau"],
        short_description="Which muscles move in a face",
    )  # fmt: skip
    files = {
        "app.py": _APP.format(model=model, max_seconds=MAX_SECONDS),
        "requirements.txt": _REQUIREMENTS.format(package=package),
        "README.md": _README.format(metadata=metadata.to_yaml(), caution=CAUTION, max_seconds=MAX_SECONDS),
    }
    with FolderLock(folder, content="a Space", error=SpaceError) as lock:
        if not (lock.is_empty or overwrite):
            raise SpaceError(f"'{folder}' is not empty. Pass another folder, or --overwrite.")
        for name, text in files.items():
            with whole_file(lock.folder / name) as part:
                part.write_text(text, encoding="utf-8")
    return Space(lock.folder, list(files), notes)


def _requirement(package: Distribution) -> tuple[str, list[str]]:
    """Return the line of requirements.txt that installs this version, from where it was installed if that is public."""
    origin = json.loads(package.read_text("direct_url.json") or "{}")  # PEP 610
    if "vcs_info" in origin:
        info = origin["vcs_info"]
        return f"hf_geaau[app] @ {info['vcs']}+{origin['url']}@{info['commit_id']}", []
    pinned = f"hf_geaau[app]=={package.version}"
    if origin:
        return pinned, [
            f"hf_geaau was installed from this machine, but the Space will install {pinned} from PyPI. If that is not"
            " the version you want, name another source in requirements.txt, such as git+https://…@commit."
        ]
    return pinned, []
