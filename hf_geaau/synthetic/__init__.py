"""Rendered faces with known action units: `sampling` says what, `rendering` how, `dataset` how many."""

import importlib
from typing import Any

_LAZY = {
    "FaceModel": "face_model",
    "load_face_model": "face_model",
    "Render": "rendering",
    "Renderer": "rendering",
    "RenderedFace": "dataset",
    "iter_renders": "dataset",
    "render_dataset": "dataset",
    "Scene": "sampling",
    "sample_scene": "sampling",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module 'hf_geaau.synthetic' has no attribute {name!r}")
