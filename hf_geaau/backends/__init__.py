"""What runs a network behind `hf_geaau.inference.Runner`: torch, ONNX Runtime or OpenVINO.

Exported networks, which need no torch, lie in the checkpoint's folder where Optimum looks for them. They carry the
digest of the weights and settings that they were exported from, and are not used once these have changed.
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_geaau.errors import CheckpointError, DeviceError, MissingExtraError
from hf_geaau.files import parse_json
from hf_geaau.inference import FaceAnalyzer, Runner, check_outputs
from hf_geaau.models.zoo import find_checkpoint, local_checkpoint, quoted

BACKENDS = ("torch", "onnx", "openvino")
"""Their names."""

ONNX_FILE, OPENVINO_FILE = Path("onnx", "model.onnx"), Path("openvino", "openvino_model.xml")
"""Where the folder of a checkpoint holds its exported networks: the layout of Optimum and Transformers.js."""

NETWORKS = {".onnx": "onnx", ".xml": "openvino"}
"""The backend of an exported network, by the end of its name."""

_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
# What saving again or sharing may change, and no output depends on.
_VOLATILE = (
    "transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map", "trained_on", "side_weight",
    "visibility_weight", "embedding_weight",
)  # fmt: skip
# Settings that older checkpoints lack, at the values that mean the same as their absence: saving again adds them.
_ADDED = {"predict_sides": False, "predict_visibility": False, "intensity_scale": 1.0}


def load_runner(
    model: str | Path | None = None,
    *,
    backend: str | None = None,
    device: str | None = None,
    keep: Sequence[str] = (),
    must_predict: bool = True,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Runner:
    """Load a checkpoint.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint. Or an exported network: a file
            that ends in .onnx or .xml.
        backend: One of BACKENDS. None: ONNX Runtime if a directory holds a current `onnx/model.onnx` and no other
            device than the CPU is asked for, because it is the fastest there (benchmarks/backends.py); else torch.
        device: For torch, such as "cuda:1"; None for the accelerator if there is one.
        keep: Which of `hf_geaau.inference.OPTIONAL_OUTPUTS` to keep.
        must_predict: Refuse expression encoders, which predict no AUs.
        revision: Branch, tag or commit of a Hub repository, such as "fold2".
        token: Hub token; None for the one that `hf auth login` stored.

    Raises:
        CheckpointError: If the checkpoint does not load, predicts no AUs, or has no current network for the backend.
        DeviceError: If the backend cannot use the device.
        MissingExtraError: If the package of the backend is not installed.
        ValueError: If the backend is unknown.
    """
    backend = choose_backend(model, backend, device)
    if model is not None and Path(model).suffix in NETWORKS:
        return _load_file(Path(model), backend, device, keep)
    folder = find_checkpoint(model, revision, token, exported=backend != "torch")
    if backend == "torch":
        from .torch_runner import load_torch

        return load_torch(folder, device, keep, must_predict)
    path = _current(folder, OPENVINO_FILE) if backend == "openvino" else None
    path = path or _current(folder, ONNX_FILE)  # which OpenVINO reads as well
    if path is None:
        raise CheckpointError(
            f"{quoted(folder)} has no network for the backend '{backend}' that fits its weights and settings. Make one"
            f" with `hf-geaau export {folder} --format {backend}`."
        )
    return _load_file(path, backend, device, keep, name=str(folder))


def load_analyzer(
    model: str | Path | None = None,
    *,
    backend: str | None = None,
    device: str | None = None,
    keep: Sequence[str] = (),
    must_predict: bool = True,
    **options: Any,
) -> FaceAnalyzer:
    """Load a checkpoint for streams.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        backend, device: See `load_runner`.
        keep: Which of `hf_geaau.inference.OPTIONAL_OUTPUTS` to keep.
        must_predict: Refuse expression encoders, which predict no AUs.
        **options: `aligned` and `min_score` of `FaceAnalyzer`.

    Raises:
        MissingExtraError: If what the backend needs is not installed.
        CheckpointError: If the checkpoint does not load, predicts no AUs, or not what is to be kept.
        DeviceError: If torch cannot use the device.
    """
    runner = load_runner(model, backend=backend, device=device, keep=keep, must_predict=must_predict)
    check_outputs(runner.facts, keep)
    return FaceAnalyzer(runner, **options)


def choose_backend(model: str | Path | None = None, backend: str | None = None, device: str | None = None) -> str:
    """Return the backend that `load_runner` takes for these arguments.

    Raises:
        MissingExtraError: If the package of the backend is not installed.
        ValueError: If the backend is unknown.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(BACKENDS)}, got '{backend}'.")
    chosen = backend or _fastest(model, device)
    if not _is_installed(chosen):
        package = "hf_geaau" if chosen == "torch" else _PACKAGES[chosen]
        raise MissingExtraError(
            f"The backend '{chosen}' needs {_PACKAGES[chosen]}. Install it with `pip install {package}`."
        )
    return chosen


def _fastest(model: str | Path | None, device: str | None) -> str:
    if model is not None and Path(model).suffix in NETWORKS:
        return NETWORKS[Path(model).suffix]
    if device not in (None, "cpu") or not _is_installed("onnx"):
        return "torch"
    # A network of the Hub comes from anybody, and nobody has compared it with the weights: only if it is asked for.
    folder = local_checkpoint(model)
    return "torch" if folder is None or _current(folder, ONNX_FILE) is None else "onnx"


def _load_file(path: Path, backend: str, device: str | None, keep: Sequence[str], name: str | None = None) -> Runner:
    if backend == "torch" or (backend == "onnx" and path.suffix == ".xml"):
        raise CheckpointError(f"The backend '{backend}' cannot run {quoted(path)}. Pass the directory of a checkpoint.")
    if device not in (None, "cpu"):
        raise DeviceError(f"The backend '{backend}' runs on the CPU, got the device '{device}'. Use the backend torch.")
    if not path.is_file():
        raise CheckpointError(f"Cannot find {quoted(path)}. Check the path.")
    from .exported import OnnxRunner, OpenVinoRunner

    return (OpenVinoRunner if backend == "openvino" else OnnxRunner)(path, keep, name=name)


def source_digest(folder: Path) -> str:
    """Return the digest of a checkpoint's weights and settings, which an exported network carries.

    Args:
        folder: The checkpoint.
    """
    digest = hashlib.sha256()
    for name in _SETTINGS:
        if (folder / name).is_file():
            digest.update(_canonical((folder / name).read_text(encoding="utf-8")))
    for path in sorted(folder.glob("model*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _canonical(text: str) -> bytes:
    """Return settings without what depends on the writer, such as the order of keys and line ends."""
    try:
        content: Any = parse_json(text)
    except ValueError:
        return text.encode()
    if isinstance(content, dict):
        content = {
            name: value
            for name, value in content.items()
            if name not in _VOLATILE and not (name in _ADDED and value == _ADDED[name])
        }
    return json.dumps(content, sort_keys=True).encode()


def exported_networks(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's exported networks that fit its weights and settings, as paths inside it.

    Args:
        folder: The checkpoint.
    """
    found: list[Path] = []
    digest = source_digest(folder)
    for plain in (ONNX_FILE, OPENVINO_FILE):
        paths = [folder / plain.with_stem(plain.stem + suffix) for suffix in ("", "_fp16", "_int8")]
        current = [path.relative_to(folder) for path in paths if _carries(path, digest)]
        found += [file for path in current for file in (path, path.with_suffix(".bin")) if (folder / file).is_file()]
    return found


def _current(folder: Path, name: Path) -> Path | None:
    """Return the path of an exported network if it fits the weights and settings beside it."""
    path = folder / name
    return path if path.is_file() and _carries(path, source_digest(folder)) else None


def _carries(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:  # the digest stands in the metadata, at the end of either kind of file
        file.seek(max(0, path.stat().st_size - 65536))
        return digest.encode() in file.read()


def _is_installed(backend: str) -> bool:
    try:
        return importlib.util.find_spec(_PACKAGES[backend]) is not None
    except ModuleNotFoundError:  # of an import hook that refuses it
        return False
