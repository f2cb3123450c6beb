"""GTLE-Net in self-contained files that travel as remote code, and its registration with transformers.

Nothing here imports transformers before it is needed: running an exported network does without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from .configuration_geaau import GeaauConfig
    from .image_processing_geaau import GeaauImageProcessor, GeaauImageProcessorPil
    from .modeling_geaau import GeaauForExpressionEmbedding, GeaauModel

__all__ = [
    "GeaauConfig",
    "GeaauForExpressionEmbedding",
    "GeaauImageProcessor",
    "GeaauImageProcessorPil",
    "GeaauModel",
    "register_auto_classes",
]

_FILES = {
    "GeaauConfig": "configuration_geaau",
    "GeaauForExpressionEmbedding": "modeling_geaau",
    "GeaauImageProcessor": "image_processing_geaau",
    "GeaauImageProcessorPil": "image_processing_geaau",
    "GeaauModel": "modeling_geaau",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def register_auto_classes() -> None:
    """Make `AutoModel.from_pretrained` and its kin load this model type. Calling it again changes nothing.

    Each Auto class learns of it when transformers imports the file that holds it, or now if it has done so.
    """
    for name, register in {
        "configuration_auto": _register_config,
        "modeling_auto": _register_models,
        "image_processing_auto": _register_image_processors,
    }.items():
        register_post_import_hook(register, f"transformers.models.auto.{name}")


def _register_config(auto: Any) -> None:
    from .configuration_geaau import GeaauConfig

    auto.AutoConfig.register(GeaauConfig.model_type, GeaauConfig, exist_ok=True)


def _register_models(auto: Any) -> None:
    from .modeling_geaau import GeaauConfig, GeaauModel

    auto.AutoModel.register(GeaauConfig, GeaauModel, exist_ok=True)
    auto.AutoModelForImageClassification.register(GeaauConfig, GeaauModel, exist_ok=True)


def _register_image_processors(auto: Any) -> None:
    from .configuration_geaau import GeaauConfig
    from .image_processing_geaau import GeaauImageProcessor, GeaauImageProcessorPil

    processors = {"torchvision": GeaauImageProcessor, "pil": GeaauImageProcessorPil}
    auto.AutoImageProcessor.register(GeaauConfig, image_processor_classes=processors, exist_ok=True)
