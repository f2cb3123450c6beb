"""Run a network that `hf_geaau.export` wrote, with ONNX Runtime or OpenVINO; neither needs torch."""

import os
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import CheckpointError
from hf_geaau.files import parse_json
from hf_geaau.inference import OPTIONAL_OUTPUTS, ModelFacts, Prediction, Runner
from hf_geaau.models.zoo import quoted
from hf_geaau.onnx_runtime import import_onnxruntime

METADATA = "hf_geaau"
"""Key of the metadata of an exported network, JSON: see `hf_geaau.export.metadata`."""

INPUT = "pixel_values"


class ExportedRunner(Runner):
    """Run an exported network: (B, 3, height, width) float32 pixels from 0 to 255 in, what a `Prediction` holds out.

    Args:
        path: The file.
        metadata: JSON of its metadata.
        outputs: The names of its outputs.
        keep: Which of `hf_geaau.inference.OPTIONAL_OUTPUTS` to return.
        name: The checkpoint; None for the path.

    Raises:
        CheckpointError: If the file is not one that `hf_geaau.export` wrote.
    """

    def __init__(
        self, path: Path, metadata: str, outputs: Sequence[str], keep: Sequence[str], name: str | None = None
    ) -> None:
        super().__init__(keep=keep)
        self.metadata = parse_metadata(path, metadata)
        self._outputs = outputs
        self._facts = facts_of(name or str(path), self.metadata, outputs)

    @property
    def facts(self) -> ModelFacts:
        """What the file says of itself."""
        return self._facts

    @property
    def batch_size(self) -> int:
        """Faces per forward pass from which more bring no speed: on one core, few fit its cache best."""
        return 4

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs to compute."""
        return [output for output in self._outputs if output in self.keep or output not in OPTIONAL_OUTPUTS]

    def __call__(self, crops: NDArray[np.uint8]) -> Prediction:
        """Run the network over (B, height, width, 3) RGB crops."""
        pixels = np.ascontiguousarray(np.moveaxis(crops, -1, 1), np.float32)
        return Prediction(**dict(zip(self.outputs, self._run(pixels), strict=True)))

    @abstractmethod
    def _run(self, pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """Return the values of `self.outputs`."""


class OnnxRunner(ExportedRunner):
    """Run an ONNX file with ONNX Runtime, on one core a call: streams call it from one thread per core."""

    def __init__(self, path: Path, keep: Sequence[str], name: str | None = None) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own, of no common class
            raise _unreadable(path, error) from error
        metadata = self._session.get_modelmeta().custom_metadata_map.get(METADATA, "")
        super().__init__(path, metadata, [output.name for output in self._session.get_outputs()], keep, name)

    def _run(self, pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        return self._session.run(self.outputs, {INPUT: pixels})


class OpenVinoRunner(ExportedRunner):
    """Run an exported network with OpenVINO, on one core a call; it reads its own .xml files and .onnx files."""

    def __init__(self, path: Path, keep: Sequence[str], name: str | None = None) -> None:
        import openvino

        # As many calls at once as there are cores, each on one of them. Not pinned: other threads run there as well.
        cores = os.cpu_count() or 1
        options = {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores, "ENABLE_CPU_PINNING": False}
        try:
            core = openvino.Core()
            model = core.read_model(path)
            self._compiled = core.compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise _unreadable(path, error) from error
        # OpenVINO keeps our metadata at this place in its own files, below "framework" in ONNX files.
        places = [place for place in ([METADATA], ["framework", METADATA]) if model.has_rt_info(place)]
        metadata = model.get_rt_info(places[0]).astype(str) if places else ""
        super().__init__(path, metadata, [output.any_name for output in model.outputs], keep, name)
        self._thread = threading.local()

    def _run(self, pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        if not hasattr(self._thread, "request"):  # one for each thread, as a request holds its results
            self._thread.request = self._compiled.create_infer_request()
        results = self._thread.request.infer({INPUT: pixels})
        return [np.array(results[name]) for name in self.outputs]


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"Cannot load {quoted(path)}: {' '.join(str(error).split())[:200]} Export it again.")


def parse_metadata(path: Path, text: str) -> dict[str, Any]:
    """Return the metadata of an exported network.

    Raises:
        CheckpointError: If it is not that of `hf_geaau.export`.
    """
    try:
        content = parse_json(text)
        count, points = len(content["action_units"]), np.asarray(content["crop_template"], float)
        is_whole = len(content["thresholds"]) == count and points.shape == (5, 2) and len(content["size"]) == 2
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise CheckpointError(
            f"Cannot use {quoted(path)}: it lacks the metadata that `hf-geaau export` writes. Export it again."
        )
    return dict(content)


def facts_of(name: str, metadata: Mapping[str, Any], outputs: Sequence[str]) -> ModelFacts:
    """Return what the metadata says."""
    height, width = metadata["size"]
    return ModelFacts(
        name=name,
        action_units=tuple(metadata["action_units"]),
        thresholds=np.asarray(metadata["thresholds"], np.float32),
        size=(int(height), int(width)),
        crop_template=np.asarray(metadata["crop_template"], np.float64),
        predicts_intensities="intensities" in outputs,
        has_masks="masks" in outputs,
        has_sides="side_probabilities" in outputs,
        has_visibility="visibility" in outputs,
    )
