"""Facial action units for the Hugging Face ecosystem: GTLE-Net as a transformers model.

Importing this package registers the model type "geaau" with transformers' Auto classes and the pipeline task
"facial-action-unit-detection". The names below load on first use.
"""

import importlib
from typing import Any

from hf_geaau import facs
from hf_geaau.pipeline import TASK, register_pipeline

from .models.geaau import (
    GeaauConfig,
    GeaauForExpressionEmbedding,
    GeaauImageProcessor,
    GeaauImageProcessorPil,
    GeaauModel,
    register_auto_classes,
)

__version__ = "0.1.0"

register_auto_classes()
register_pipeline()

_LAZY = {
    "Face": "hf_geaau.faces",
    "FaceDetector": "hf_geaau.faces",
    "predict_to_table": "hf_geaau.video.run",
    "predict_video": "hf_geaau.pipeline",
    "read_photo": "hf_geaau.faces",
}

__all__ = [
    "TASK",
    "Face",
    "FaceDetector",
    "GeaauConfig",
    "GeaauForExpressionEmbedding",
    "GeaauImageProcessor",
    "GeaauImageProcessorPil",
    "GeaauModel",
    "facs",
    "predict_to_table",
    "predict_video",
    "read_photo",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hf_geaau' has no attribute '{name}'")
