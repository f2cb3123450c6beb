"""GTLE-Net in three self-contained files, and its registration with transformers' Auto classes."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

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


def register_auto_classes() -> None:
    """Make `AutoModel.from_pretrained` and its kin load this model type. Calling it again changes nothing."""
    AutoConfig.register(GeaauConfig.model_type, GeaauConfig, exist_ok=True)
    AutoModel.register(GeaauConfig, GeaauModel, exist_ok=True)
    AutoModelForImageClassification.register(GeaauConfig, GeaauModel, exist_ok=True)
    processors = {"torchvision": GeaauImageProcessor, "pil": GeaauImageProcessorPil}
    AutoImageProcessor.register(GeaauConfig, image_processor_classes=processors, exist_ok=True)
