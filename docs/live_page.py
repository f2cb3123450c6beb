"""Build the live page, which detects action units in the visitor's browser: `python docs/live_page.py DIR`.

The static folder holds the sources in docs/live, ONNX Runtime from npm, the networks, and every constant of the Python
package that the page's code needs. It works below any address, such as `live/` of the documentation.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import hf_geaau
from hf_geaau.backends import load_runner
from hf_geaau.export import export
from hf_geaau.faces import FaceDetector, detector, five_points, quality, yunet
from hf_geaau.facs import ACTION_UNITS
from hf_geaau.files import whole_file
from hf_geaau.models.geaau import cropping_geaau
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT
from hf_geaau.video.tables import FACE_COLUMNS, POINTS, POSE, columns
from hf_geaau.video.tracking import HEAD

SOURCES = Path(__file__).with_name("live")
ENGINES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "jspi": ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
    "asyncify": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
"""ONNX Runtime's script and program, of which a browser loads one pair: without WebGPU, and with it two ways of waiting
for the GPU. JSPI is the smaller and needs a recent Chromium."""


class NoNpmError(RuntimeError):
    """npm is missing, or cannot install onnxruntime-web."""


def build(target: Path) -> None:
    """Write the page into a folder, which is created; files of an earlier build are replaced.

    Raises:
        NoNpmError: If npm is missing, or cannot install onnxruntime-web.
    """
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "live")
        made.mkdir()
        _copy_engines(Path(scratch), made)
        for source in SOURCES.iterdir():
            if source.suffix in (".html", ".css", ".js"):
                shutil.copy(source, made)
        _write_networks(made)
        (made / "facts.json").write_text(json.dumps(facts()), encoding="utf-8")
        _write_file_list(made)
        target.mkdir(parents=True, exist_ok=True)
        for file in made.iterdir():
            with whole_file(target / file.name) as part:
                shutil.copyfile(file, part)


def facts() -> dict[str, Any]:
    """Return what the page's code knows of the model and the detector, as JSON values; constants keep their names."""
    known, finder = load_runner().facts, FaceDetector()
    return {
        "version": hf_geaau.__version__,
        "model": BUNDLED_CHECKPOINT.name,
        "action_units": [{"label": name, "name": ACTION_UNITS[int(name[2:])].name} for name in known.action_units],
        "thresholds": known.thresholds.astype(float).round(6).tolist(),
        "size": known.size,
        "crop_template": known.crop_template.tolist(),
        "columns": columns(known.action_units, known.predicts_intensities),
        "face_columns": [FACE_COLUMNS, POINTS, POSE],
        "cascade_shape": _cascade().shape,
        "head_inverse": np.linalg.pinv(HEAD - HEAD.mean(0)).tolist(),
        "min_score": finder.min_score,
        "max_side": finder.max_side,
        "detector": _constants(detector),
        "yunet": _constants(yunet),
        "five_points": _constants(five_points),
        "quality": _constants(quality),
        "cropping": _constants(cropping_geaau),
    }


def _constants(module: ModuleType) -> dict[str, Any]:
    """Return the numbers that a module names in capitals."""
    values = {name: value for name, value in vars(module).items() if re.fullmatch("[A-Z_]*[A-Z]", name)}
    plain = {name: list(value) if isinstance(value, range) else value for name, value in values.items()}
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in plain.items()}
    return {name: value for name, value in plain.items() if isinstance(value, int | float | tuple | list)}


def _cascade() -> Any:
    return load_file(five_points.WEIGHTS)["cascade"].astype("<f4")


def _write_networks(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(export(None, scratch).path, folder / "geaau.onnx")
    (folder / "yunet.onnx").write_bytes(yunet.bundled_file().read_bytes().replace(yunet.SIZE_640, yunet.ANY_SIZE))
    (folder / "five_points.bin").write_bytes(_cascade().tobytes())


def _copy_engines(scratch: Path, folder: Path) -> None:
    """Install onnxruntime-web by the lock file, and copy what browsers load."""
    npm = shutil.which("npm")
    if npm is None:
        raise NoNpmError("npm is not installed: get it with Node.js 18 or newer")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, scratch)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "npm warn" not in line), "no reason given")
        raise NoNpmError(f"`npm ci` failed: {reason.removeprefix('npm error ')[:200]}")
    for name in (name for pair in ENGINES.values() for name in pair):
        shutil.copy(scratch / "node_modules" / "onnxruntime-web" / "dist" / name, folder)


def _write_file_list(folder: Path) -> None:
    """Write files.js: what the page loads, with bytes for its progress bar and a version for its offline copy."""
    files = sorted(folder.iterdir())
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
    content = {"version": digest[:16], "engines": ENGINES, "bytes": {file.name: file.stat().st_size for file in files}}
    (folder / "files.js").write_text(f"self.FILES = {json.dumps(content)};\n", encoding="utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
