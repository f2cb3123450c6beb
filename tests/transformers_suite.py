"""The common tests of the installed transformers, taken from its source distribution, which carries them.

`suite_module` imports one of their files, for the conformity tests to subclass what is in it. The distribution leaves
some helpers out; what the tests import of those is replaced by `STUBS`.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers
from filelock import FileLock
from PIL import Image

PACKAGE = "transformers_suite_tests"
CACHE = Path(__file__).parents[1] / ".pytest_cache"
SECONDS = 120  # for fetching 11 MB

# What a config of a vision model takes, with labels as ours must be.
CONFIG_VALUES = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["BertModel"],
    "id2label": {0: "AU12"},
    "label2id": {"AU12": 0},
    "problem_type": "multi_label_classification",
}

# Not in the source distribution. Exporting has tests of our own, and nothing here generates text.
STUBS: dict[str, dict[str, Any]] = {
    f"{PACKAGE}.exporters": {"__path__": []},
    f"{PACKAGE}.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    f"{PACKAGE}.generation": {"__path__": []},
    f"{PACKAGE}.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    f"{PACKAGE}.utils": {"__path__": []},
    f"{PACKAGE}.utils.test_configuration_utils": {"config_common_kwargs": CONFIG_VALUES},
    "fetch_hub_objects_for_ci": {
        "url_to_local_path": lambda url: Image.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 100).convert("RGB")
    },
}


def suite_module(name: str) -> Any:
    """Import a file of the suite, such as "test_modeling_common".

    Raises:
        OSError: If the source distribution cannot be fetched.
    """
    folder = CACHE / f"transformers-{transformers.__version__}"
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "transformers.lock"):
        if not folder.exists():
            _fetch_once_per_run(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    for stub, content in STUBS.items():
        if stub not in sys.modules:
            sys.modules[stub] = ModuleType(stub)
            sys.modules[stub].__dict__.update(content)
    return importlib.import_module(f"{PACKAGE}.{name}")


def _fetch_once_per_run(folder: Path) -> None:
    """Fetch, unless another process of this pytest-xdist run has failed to: all must collect the same tests."""
    run, failures = os.environ.get("PYTEST_XDIST_TESTRUNUID", ""), CACHE / "transformers.failed"
    failed_run, _, reason = failures.read_text(encoding="utf-8").partition("\n") if failures.exists() else ("", "", "")
    if run and failed_run == run:
        raise OSError(reason)
    try:
        _fetch(folder)
    except OSError as error:
        failures.write_text(f"{run}\n{error}", encoding="utf-8")
        raise


def _fetch(folder: Path) -> None:
    """Download the source distribution and unpack its common tests as a package in `folder`."""
    requirement = f"transformers=={transformers.__version__}"
    options = ["--no-deps", "--no-build-isolation", "--no-binary", "transformers", "--retries", "1", "--timeout", "10"]
    command = [sys.executable, "-m", "pip", "download", "-q", *options, requirement]
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS, cwd=scratch)
        except subprocess.SubprocessError as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
            raise OSError(f"Cannot fetch the source distribution of {requirement}: {reason}") from error
        package = Path(scratch) / "suite" / PACKAGE
        package.mkdir(parents=True)
        with tarfile.open(next(Path(scratch).glob("transformers-*.tar.gz"))) as archive:
            for member in archive:
                path = Path(member.name)
                if member.isfile() and path.match("transformers-*/tests/*.py"):
                    (package / path.name).write_bytes(archive.extractfile(member).read())
        (package / "__init__.py").touch()
        package.parent.rename(folder)
