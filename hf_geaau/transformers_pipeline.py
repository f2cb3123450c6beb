"""The pipeline "facial-action-unit-detection" of transformers: photo or video -> faces -> action units."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from hf_geaau import TASK
from hf_geaau.backends.torch_runner import TorchRunner
from hf_geaau.detection import KEPT, ActionUnitDetector, checked_options
from hf_geaau.errors import CheckpointError
from hf_geaau.faces import Face, FaceDetector, read_photo
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.models.geaau.licensing_geaau import keep_private
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, check_device, load_checkpoint


def register_pipeline() -> None:
    """Make `transformers.pipeline("facial-action-unit-detection")` known. Calling it again changes nothing."""
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=FacialActionUnitPipeline,
            pt_model=AutoModelForImageClassification,
            default={"model": (str(BUNDLED_CHECKPOINT), "main")},
            type="image",
        )


class FacialActionUnitPipeline(Pipeline):
    """Detect the faces of photos and videos, and the action units of each face.

    Reading, detection and the network run at the same time in several threads, and batches are filled across photos.

    Args (on construction or per call):
        aligned: The inputs are face crops, already aligned to the model's template; no detection.
        min_score: Faces with a lower detector score are dropped. Default 0.6.
        return_masks: Add "masks", (N, h, w) float32, the LAM mask of each AU over the crop.
        return_embedding: Add "embedding", (D,) float32, the expression embedding.
        return_sides: Add "sides", {"AU12_left": probability, "AU12_right": ...}, left and right being the person's own.
        return_visibility: Add "visibility", {"AU12": probability that its region can be seen, ...}, and "hidden".
        on_error: "raise", or "return" to get the error in place of an input's faces and continue with the rest.
        batch_size: Faces per forward pass. Default: 16, or 256 on a GPU.
        num_workers: Threads that detect and analyze. Default: one per core.

    Example:
        >>> from transformers import pipeline
        >>> detect = pipeline("facial-action-unit-detection")  # doctest: +SKIP
        >>> detect("photo.jpg")[0]["present"]  # doctest: +SKIP
        ['AU06', 'AU12', 'AU25']
    """

    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, face_detector: FaceDetector | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.model.config.model_type != "geaau":
            raise CheckpointError(f"'{TASK}' needs a model of type 'geaau', got '{self.model.config.model_type}'.")
        self.face_detector = face_detector or FaceDetector()

    @property
    def runner(self) -> TorchRunner:
        """What runs the model: its `action_units` and `thresholds` are those of `ActionUnitDetector.runner`."""
        return TorchRunner(self.model, self.image_processor)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Detect action units: see `hf_geaau.detection.ActionUnitDetector.__call__`."""
        return self._detector(kwargs)(inputs)

    def analyzer(
        self, *, aligned: bool | None = None, min_score: float | None = None, keep: Sequence[str] | None = None
    ) -> FaceAnalyzer:
        """Return the pipeline's detector and model: see `hf_geaau.detection.ActionUnitDetector.analyzer`."""
        return self._detector({}).analyzer(aligned=aligned, min_score=min_score, keep=keep)

    def _detector(self, options: dict[str, Any]) -> ActionUnitDetector:
        """Return what does the work, with the options of construction and of a call."""
        stated = {"batch_size": self._batch_size, "num_workers": self._num_workers}
        stated |= {**self._preprocess_params, **self._postprocess_params, **options}
        return ActionUnitDetector(self.runner, self.face_detector, **{k: v for k, v in stated.items() if v is not None})

    def push_to_hub(self, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Push as every transformers pipeline does; weights whose data is licensed go to private repositories only."""
        keep_private(self.model.config, repo_id, kwargs.get("private"), kwargs.get("token"))
        return super().push_to_hub(repo_id, *args, **kwargs)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        options = checked_options(options)
        before = ("aligned", "min_score")
        first = {name: value for name, value in options.items() if name in before}
        return first, {}, {name: value for name, value in options.items() if name not in before}

    # The three steps of the base class, for one photo.

    def preprocess(self, source: Any, **options: Any) -> dict[str, Any]:
        """Read the photo."""
        config = self.model.config
        keep = ["embedding"] + ["masks"] * (config.head == "lam") + ["side_probabilities"] * config.predict_sides
        keep += ["visibility"] * config.predict_visibility
        return {"analyzer": self.analyzer(**options, keep=keep), "image": np.asarray(read_photo(source))}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return {"faces": model_inputs["analyzer"](model_inputs["image"])}

    def postprocess(self, model_outputs: dict[str, list[Face]], on_error: str = "raise", **options: bool) -> Any:
        """Return the faces as dictionaries."""
        dropped: dict[str, Any] = {output: None for option, output in KEPT.items() if not options.get(option)}
        return [replace(face, **dropped).to_dict() for face in model_outputs["faces"]]


def load_torch_pipeline(
    model: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    *,
    dtype: Any = None,
    **kwargs: Any,
) -> FacialActionUnitPipeline:
    """Load the pipeline of transformers: `hf_geaau.load_pipeline` for the backend torch.

    Args:
        model, revision, token, dtype: See there.
        **kwargs: Arguments of the pipeline, such as `device`, `batch_size`, `min_score`.

    Raises:
        CheckpointError: See there. Unlike transformers, which retries for 23 seconds (measured) if the host cannot be
            resolved, this fails at once.
        DeviceError: If torch cannot use the device.
    """
    if isinstance(kwargs.get("device"), str | torch.device):
        check_device(kwargs["device"])
    network, processor = load_checkpoint(model, revision, token, must_predict=True)
    if dtype is not None:
        network = network.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return FacialActionUnitPipeline(model=network, image_processor=processor, task=TASK, **kwargs)


register_pipeline()
