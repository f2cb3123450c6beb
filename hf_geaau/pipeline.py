"""The pipeline "facial-action-unit-detection": photo -> faces -> action units."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

from hf_geaau.errors import CheckpointError, PhotoError
from hf_geaau.faces import Face, FaceDetector
from hf_geaau.models.geaau import GeaauModel
from hf_geaau.models.geaau.guard_geaau import keep_private
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, check_device, load_checkpoint
from hf_geaau.photos import read_photo

TASK = "facial-action-unit-detection"


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


class FacialActionUnitPipeline(ChunkPipeline):
    """Detect the faces of photos and the action units of each face.

    Every face of every photo is one item of the batch: `batch_size=32` fills batches across photos.

    Args (on construction or per call):
        aligned: The inputs are face crops, already aligned to the model's template; no detection.
        min_score: Faces with a lower detector score are dropped. Default 0.6.
        return_masks: Add "masks", (N, h, w) float32, the LAM mask of each AU over the crop.
        return_embedding: Add "embedding", (D,) float32, the expression embedding.
        on_error: "raise", or "return" to get the `PhotoError` in place of a photo's faces and go on with the rest.

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

    def __init__(self, *args: Any, face_detector: FaceDetector | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.model.config.model_type != "geaau":
            raise CheckpointError(f"'{TASK}' needs a model of type 'geaau', got '{self.model.config.model_type}'.")
        self.face_detector = face_detector or FaceDetector()

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Detect action units.

        Args:
            inputs: A path, http(s) URL, PIL image, array or tensor, as `hf_geaau.read_photo` takes them, or a list or
                generator of these.
            **kwargs: The arguments of the class, and `batch_size`.

        Returns:
            For each photo a list of faces, largest first: {"box": {"xmin", "ymin", "xmax", "ymax"}, "score",
            "points": 5×[x, y], "action_units": {"AU01": probability, ...}, "present": [...]}. Boxes and points are in
            pixels of the upright photo; an AU is present if its probability reaches the config's threshold. A
            checkpoint that predicts intensities adds "intensities": {"AU01": 0 to 5, ...}.

        Raises:
            PhotoError: If a photo cannot be read, unless `on_error="return"`.
            CheckpointError: If masks are asked for and the checkpoint has none.
        """
        return super().__call__(inputs, **kwargs)

    def push_to_hub(self, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Push as every transformers pipeline does; weights whose data is licensed go to private repositories only."""
        keep_private(self.model.config, repo_id, kwargs.get("private"), kwargs.get("token"))
        return super().push_to_hub(repo_id, *args, **kwargs)

    def _sanitize_parameters(
        self,
        aligned: bool | None = None,
        min_score: float | None = None,
        return_masks: bool | None = None,
        return_embedding: bool | None = None,
        on_error: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"`on_error` must be 'raise' or 'return', got '{on_error}'.")
        if min_score is not None and not 0 <= min_score <= 1:
            raise ValueError(f"`min_score` must lie in [0, 1], got {min_score}.")
        preprocess = {"aligned": aligned, "min_score": min_score, "on_error": on_error}
        postprocess = {"return_masks": return_masks, "return_embedding": return_embedding}
        return _given(preprocess), {}, _given(postprocess)

    def preprocess(
        self, source: Any, aligned: bool = False, min_score: float = 0.6, on_error: str = "raise"
    ) -> Iterator[dict[str, Any]]:
        """Yield one item per face; a photo without one yields an empty item, so that its place is kept."""
        error = None
        faces: list[Face] = []
        try:
            photo = read_photo(source)
            faces = [self._whole(photo)] if aligned else self.face_detector(photo, min_score=min_score)
        except PhotoError as problem:
            if on_error == "raise":
                raise
            error = problem
        if not faces:
            size = self.image_processor.size
            blank = torch.zeros(1, 3, size["height"], size["width"])
            yield {"pixel_values": blank, "face": None, "error": error, "is_last": True}
            return
        points = None if aligned else np.stack([face.points for face in faces])
        pixel_values = self.image_processor(photo, points=points, return_tensors="pt").pixel_values
        for index, face in enumerate(faces):
            is_last = index == len(faces) - 1
            yield {"pixel_values": pixel_values[index : index + 1], "face": face, "error": None, "is_last": is_last}

    def _whole(self, crop: Image.Image) -> Face:
        points = np.asarray(self.image_processor.crop_template, np.float32) * crop.size
        return Face(box=np.array([0, 0, *crop.size], np.float32), score=1.0, points=points)

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        output = self.model(pixel_values=model_inputs["pixel_values"])
        optional = {"intensities": output.intensities, "masks": output.au_masks}
        return {
            "probabilities": (output.logits.float() / self.model.config.temperature).sigmoid(),
            "embedding": output.expression_embedding.float(),
            **{name: value.float() for name, value in optional.items() if value is not None},
            **{key: model_inputs[key] for key in ("face", "error", "is_last")},
        }

    def postprocess(
        self, model_outputs: list[dict[str, Any]], return_masks: bool = False, return_embedding: bool = False
    ) -> list[dict[str, Any]] | PhotoError:
        """Gather the faces of one photo."""
        if model_outputs[0]["error"] is not None:
            return model_outputs[0]["error"]
        results = []
        for output in model_outputs:
            if output["face"] is None:
                continue
            result = self._describe(output["face"], output["probabilities"][0].numpy())
            if "intensities" in output:
                names = result["action_units"]
                result["intensities"] = dict(zip(names, output["intensities"][0].tolist(), strict=True))
            if return_masks and "masks" not in output:
                raise CheckpointError("Masks need a checkpoint with head='lam', got one with head='pooled'.")
            if return_masks:
                result["masks"] = output["masks"][0].numpy()
            if return_embedding:
                result["embedding"] = output["embedding"][0].numpy()
            results.append(result)
        return results

    def _describe(self, face: Face, probabilities: np.ndarray) -> dict[str, Any]:
        config = self.model.config
        names = [config.id2label[index] for index in range(config.num_labels)]
        present = probabilities >= np.asarray(config.thresholds, np.float32)
        return {
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, face.box), strict=True)),
            "score": float(face.score),
            "points": np.asarray(face.points, float).tolist(),
            "action_units": dict(zip(names, probabilities.tolist(), strict=True)),
            "present": [name for name, is_present in zip(names, present, strict=True) if is_present],
        }


def load_pipeline(
    model: str | Path | None = None, revision: str | None = None, token: str | bool | None = None, **kwargs: Any
) -> FacialActionUnitPipeline:
    """Load the pipeline with the bundled checkpoint or another one.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        revision: Branch, tag or commit of a Hub repository, such as "fold2".
        token: Of the Hub; None for the one that `hf auth login` stored.
        **kwargs: Handed to the pipeline, such as `device`, `batch_size`, `min_score`.

    Raises:
        CheckpointError: If the checkpoint is missing, of another model type, or not in safetensors, or the Hub does
            not give it: at once, where transformers asks for 23 seconds (measured) when the host cannot be resolved.
        DeviceError: If torch cannot use the device.
    """
    if isinstance(kwargs.get("device"), str):
        check_device(kwargs["device"])
    network, processor = load_checkpoint(model, revision, token)
    if not isinstance(network, GeaauModel):
        raise CheckpointError(
            f"'{TASK}' needs a checkpoint that predicts AUs, got an expression encoder in '{model}'. Train the second"
            " stage from it first, see `GeaauModel.from_expression_encoder`."
        )
    return FacialActionUnitPipeline(model=network, image_processor=processor, task=TASK, **kwargs)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
