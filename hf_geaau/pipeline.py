"""The pipeline "facial-action-unit-detection": photo or video -> faces -> action units."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

from hf_geaau.errors import CheckpointError, PhotoError, VideoError
from hf_geaau.faces import Face, FaceDetector
from hf_geaau.faces.photos import read_photo
from hf_geaau.models.geaau import GeaauModel
from hf_geaau.models.geaau.licensing_geaau import keep_private
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, check_device, load_checkpoint
from hf_geaau.video.sources import Source, find_sources, is_video
from hf_geaau.video.stream import FaceStream, SeenFace, SeenFrame, Settings, SourceEnd
from hf_geaau.video.tracking import head_pose

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
            inputs: A path, http(s) URL, PIL image, array or tensor, as `hf_geaau.read_photo` takes them, the path of
                a video, or a list or generator of photos.
            **kwargs: The arguments of the class, and `batch_size`.

        Returns:
            For each photo a list of faces, largest first: {"box": {"xmin", "ymin", "xmax", "ymax"}, "score",
            "points": 5×[x, y], "action_units": {"AU01": probability, ...}, "present": [...]}. Boxes and points are in
            pixels of the upright photo; an AU is present if its probability reaches the config's threshold. A
            checkpoint that predicts intensities adds "intensities": {"AU01": 0 to 5, ...}. For a video one list of the
            faces of all its frames, each with "frame", "time_s" and "track_id" as well; `predict_video` gives them one
            by one.

        Raises:
            PhotoError: If a photo cannot be read, unless `on_error="return"`.
            VideoError: If a video cannot be read.
            CheckpointError: If masks are asked for and the checkpoint has none.
        """
        if isinstance(inputs, list | tuple) and any(is_video(source) for source in inputs):
            return [self(source, **kwargs) for source in inputs]
        if is_video(inputs):
            return list(self._faces_of_video(os.fspath(inputs), **kwargs))
        return super().__call__(inputs, **kwargs)

    def _faces_of_video(self, path: str, **kwargs: Any) -> Iterator[dict[str, Any]]:
        names = ("aligned", "min_score", "return_masks", "return_embedding")
        given = {name: kwargs.pop(name) for name in names if name in kwargs}
        kwargs.setdefault("batch_size", self._batch_size or 16)
        for name in ("on_error", "num_workers"):
            kwargs.pop(name, None)
        for item in self.stream([Source("video", path)], Settings(**kwargs), **given):
            if isinstance(item, SourceEnd):
                if item.error is not None:
                    raise item.error
                return
            for seen in item.faces:
                where = {"frame": item.number, "time_s": item.time_s, "track_id": seen.track}
                yield {**where, **self.describe(seen, **_masks_and_embedding(given))}

    def stream(
        self,
        sources: list[Source],
        settings: Settings | None = None,
        *,
        aligned: bool | None = None,
        min_score: float | None = None,
        return_masks: bool = False,
        return_embedding: bool = False,
        done: int = 0,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> Iterator[SeenFrame | SourceEnd]:
        """Go through photos, videos and cameras; decoding, detection and the network work at the same time.

        Args:
            sources: From `hf_geaau.video.sources.find_sources`.
            settings: How; see `hf_geaau.video.stream.Settings`.
            aligned: The inputs are face crops, as on construction.
            min_score: As on construction.
            return_masks: Keep each face's LAM masks.
            return_embedding: Keep each face's expression embedding.
            done: How many of the sources to leave out, being done.
            checkpoint: Where to go on in the first of the rest, from `SeenFrame.checkpoint`.

        Returns:
            A generator of frames with their faces, and of the ends of the sources; `describe` makes a face readable.
        """
        defaults = self._preprocess_params
        network = _StreamNetwork(
            self,
            bool(defaults.get("aligned", False) if aligned is None else aligned),
            float(defaults.get("min_score", 0.6) if min_score is None else min_score),
            {"masks": return_masks, "embedding": return_embedding},
        )
        return FaceStream(network, settings or Settings()).run(sources, done, checkpoint)

    def describe(self, seen: SeenFace, return_masks: bool = False, return_embedding: bool = False) -> dict[str, Any]:
        """Make a face of `stream` what a face of a photo is, with "roll" and "yaw" of the head in degrees."""
        result = self._describe(seen.face, seen.values["probabilities"], seen.values.get("intensities"))
        result["roll"], result["yaw"] = head_pose(seen.face.points)
        if return_masks and "masks" in seen.values:
            result["masks"] = seen.values["masks"]
        if return_embedding:
            result["embedding"] = seen.values["embedding"]
        return result

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
            intensities = output["intensities"][0].numpy() if "intensities" in output else None
            result = self._describe(output["face"], output["probabilities"][0].numpy(), intensities)
            if return_masks and "masks" not in output:
                raise CheckpointError("Masks need a checkpoint with head='lam', got one with head='pooled'.")
            if return_masks:
                result["masks"] = output["masks"][0].numpy()
            if return_embedding:
                result["embedding"] = output["embedding"][0].numpy()
            results.append(result)
        return results

    def _describe(self, face: Face, probabilities: np.ndarray, intensities: np.ndarray | None = None) -> dict[str, Any]:
        config = self.model.config
        names = [config.id2label[index] for index in range(config.num_labels)]
        present = probabilities >= np.asarray(config.thresholds, np.float32)
        return {
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, face.box), strict=True)),
            "score": float(face.score),
            "points": np.asarray(face.points, float).tolist(),
            "action_units": dict(zip(names, probabilities.tolist(), strict=True)),
            "present": [name for name, is_present in zip(names, present, strict=True) if is_present],
            **({} if intensities is None else {"intensities": dict(zip(names, intensities.tolist(), strict=True))}),
        }


class _StreamNetwork:
    """The pipeline's detector, image processor and model, as a stream wants them."""

    def __init__(
        self, pipe: FacialActionUnitPipeline, aligned: bool, min_score: float, wanted: dict[str, bool]
    ) -> None:
        self.pipe, self.aligned, self.min_score = pipe, aligned, min_score
        self.unwanted = [name for name, is_wanted in wanted.items() if not is_wanted]

    def find(self, image: np.ndarray) -> list[Face]:
        if self.aligned:
            return [self.pipe._whole(Image.fromarray(image))]
        return self.pipe.face_detector(image, min_score=self.min_score)

    def crop(self, image: np.ndarray, points: np.ndarray) -> torch.Tensor:
        return self.pipe.image_processor(
            image, points=None if self.aligned else points, return_tensors="pt"
        ).pixel_values

    def analyse(self, crops: torch.Tensor) -> dict[str, np.ndarray]:
        output = self.pipe.forward({"pixel_values": crops, "face": None, "error": None, "is_last": True})
        for name in (*self.unwanted, "face", "error", "is_last"):
            output.pop(name, None)
        return {name: values.numpy() for name, values in output.items()}


def _masks_and_embedding(given: Mapping[str, Any]) -> dict[str, bool]:
    return {name: bool(given.get(name)) for name in ("return_masks", "return_embedding")}


def predict_video(
    path: str | os.PathLike[str] | int,
    model: "str | Path | FacialActionUnitPipeline | None" = None,
    *,
    every: int = 1,
    fps: float | None = None,
    detect_every: int | None = None,
    smooth: float = 0.0,
    batch_size: int = 16,
    workers: int | None = None,
    min_score: float = 0.6,
    device: Any = None,
) -> Iterator[dict[str, Any]]:
    """Predict the action units of a video's faces, frame by frame, in bounded memory.

    Args:
        path: A video, anything else that `hf-geaau predict` takes, or the number of a camera.
        model: Hub id or directory, or a pipeline that is loaded already; None for the bundled checkpoint.
        every: Take every n-th frame.
        fps: Take about so many frames a second instead.
        detect_every: Detect faces in every k-th of these frames, and carry them on in between; None for every third,
            or, with `every` or `fps`, in all.
        smooth: Time constant in seconds of the smoothing of probabilities over time; 0 for none.
        batch_size: Faces per forward pass.
        workers: Threads that compute; None for one per core.
        min_score: Faces with a lower detector score are dropped.
        device: Such as "cuda"; None for what is there.

    Yields:
        A row per face and frame, as in the table of `hf-geaau predict`: `pandas.DataFrame(predict_video(path))`.

    Raises:
        VideoError: If the video cannot be read.

    Example:
        >>> for row in predict_video("clip.mp4", fps=5):  # doctest: +SKIP
        ...     print(row["time_s"], row["track_id"], row["AU12"])
    """
    from hf_geaau.video.tables import row_of

    pipe = model if isinstance(model, FacialActionUnitPipeline) else load_pipeline(model, **_given({"device": device}))
    choices = _given({"fps": fps, "workers": workers, "detect_every": detect_every})
    settings = Settings(every=every, smooth_s=smooth, batch_size=batch_size, **choices)
    found = find_sources([str(path) if isinstance(path, int) else path])
    if not found.sources:
        raise VideoError(" ".join(found.problems))
    for item in pipe.stream(found.sources, settings, min_score=min_score):
        if isinstance(item, SourceEnd):
            if item.error is not None:
                raise item.error
            continue
        for index, seen in enumerate(item.faces):
            yield row_of(item, index, seen.track, pipe.describe(seen))


def load_pipeline(
    model: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    *,
    dtype: Any = None,
    **kwargs: Any,
) -> FacialActionUnitPipeline:
    """Load the pipeline with the bundled checkpoint or another one.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        revision: Branch, tag or commit of a Hub repository, such as "fold2".
        token: Of the Hub; None for the one that `hf auth login` stored.
        dtype: Of the weights, such as "bfloat16"; None for the checkpoint's own.
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
    if dtype is not None:
        network = network.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return FacialActionUnitPipeline(model=network, image_processor=processor, task=TASK, **kwargs)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
