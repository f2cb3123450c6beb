"""Render faces with known action units.

`action_units`, `expressions`, `people` and `scenes` draw what an image shows; `rendering` turns it into pixels; `dataset`
makes many of them. `face_model` loads the mesh.
"""

import importlib
from typing import Any

_LAZY = {
    "ACTION_UNITS": "action_units",
    "FaceModel": "face_model",
    "expression": "expressions",
    "load_face_model": "face_model",
    "Render": "rendering",
    "Renderer": "rendering",
    "RenderedFace": "dataset",
    "RenderFolderError": "dataset",
    "iter_renders": "dataset",
    "render_dataset": "dataset",
    "Scene": "scenes",
    "sample_scene": "scenes",
    "wrinkle_depths": "expressions",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"hf_geaau.synthetic.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'hf_geaau.synthetic' has no attribute {name!r}")
