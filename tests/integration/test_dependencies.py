"""The dependencies can be installed on the systems and Pythons that we name, from wheels alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
PLATFORMS = ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"]
UNREACHABLE = ("Failed to fetch", "error sending request", "Could not connect", "dns error", "timed out")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(UV is None, reason="needs uv, such as `pip install uv`")]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_dependencies_resolve_to_wheels(platform, version):
    target = ["--python-platform", platform, "--python-version", version, "--only-binary", ":all:"]
    target += ["--python", sys.executable, "--no-python-downloads"]  # no Python of that version is needed to resolve
    command = [UV, "pip", "compile", str(PROJECT), "--all-extras", "--quiet", "--no-header", *target]
    try:
        # onnxruntime for Python 3.14 needs macOS 14, where uv assumes 13.
        environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}
        result = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=120, cwd=PROJECT.parent, env=environment
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index did not answer in time")
    if result.returncode and any(words in result.stderr for words in UNREACHABLE):
        pytest.skip(f"the package index cannot be reached: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    assert "transformers==" in result.stdout
