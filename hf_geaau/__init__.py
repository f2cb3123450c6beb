"""Facial action units for the Hugging Face ecosystem: GTLE-Net as a transformers model.

Importing this package registers the model type "geaau" with transformers' Auto classes and the pipeline task
"facial-action-unit-detection", as soon as transformers itself is imported. The names below load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

from hf_geaau import facs
from hf_geaau.models.geaau import register_auto_classes

if TYPE_CHECKING:
    from hf_geaau.detection import ActionUnitDetector
    from hf_geaau.faces import Face, FaceDetector, read_photo
    from hf_geaau.models.geaau import (
        GeaauConfig,
        GeaauForExpressionEmbedding,
        GeaauImageProcessor,
        GeaauImageProcessorPil,
        GeaauModel,
    )
    from hf_geaau.pipeline import load_pipeline, predict_video
    from hf_geaau.video.run import predict_to_table

__version__ = "0.1.0"

TASK = "facial-action-unit-detection"

_LAZY = {
    "ActionUnitDetector": "hf_geaau.detection",
    "Face": "hf_geaau.faces",
    "FaceDetector": "hf_geaau.faces",
    "GeaauConfig": "hf_geaau.models.geaau",
    "GeaauForExpressionEmbedding": "hf_geaau.models.geaau",
    "GeaauImageProcessor": "hf_geaau.models.geaau",
    "GeaauImageProcessorPil": "hf_geaau.models.geaau",
    "GeaauModel": "hf_geaau.models.geaau",
    "load_pipeline": "hf_geaau.pipeline",
    "predict_to_table": "hf_geaau.video.run",
    "predict_video": "hf_geaau.pipeline",
    "read_photo": "hf_geaau.faces",
}

__all__ = [
    "TASK",
    "ActionUnitDetector",
    "Face",
    "FaceDetector",
    "GeaauConfig",
    "GeaauForExpressionEmbedding",
    "GeaauImageProcessor",
    "GeaauImageProcessorPil",
    "GeaauModel",
    "facs",
    "load_pipeline",
    "predict_to_table",
    "predict_video",
    "read_photo",
]


register_auto_classes()
register_post_import_hook(lambda _: importlib.import_module("hf_geaau.transformers_pipeline"), "transformers.pipelines")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hf_geaau' has no attribute '{name}'")
