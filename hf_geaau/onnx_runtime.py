"""Import ONNX Runtime without its telemetry."""

import os
from types import ModuleType


def import_onnxruntime() -> ModuleType:
    """Return the module `onnxruntime`, which sends nothing to anybody unless the environment asks for it.

    From 1.29 on, its official builds report sessions and models to Microsoft, and leave a file `.ses` in the folder for
    temporary files, unless ORT_DISABLE_TELEMETRY is 1 when it is first imported
    (https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md). A value that is set already is kept.

    Example:
        >>> "CPUExecutionProvider" in import_onnxruntime().get_available_providers()
        True
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
