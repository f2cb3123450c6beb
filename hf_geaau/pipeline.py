"""The pipeline "facial-action-unit-detection": photo or video -> faces -> action units."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import AutoModelForImageClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from hf_geaau.errors import CheckpointError, GeaauError, PhotoWarning, VideoError
from hf_geaau.faces import Face, FaceDetector, read_photo
from hf_geaau.faces.photos import load_photo, source_name
from hf_geaau.faces.pixels import is_batch, split_batch
from hf_geaau.inference import FaceAnalyzer, Runner
from hf_geaau.models.geaau.licensing_geaau import keep_private
from hf_geaau.models.loading import BUNDLED_CHECKPOINT, check_device, load_checkpoint
from hf_geaau.video.kinds import is_video
from hf_geaau.video.sources import Source, find_sources
from hf_geaau.video.stream import AnalyzedFrame, FaceStream, Settings, failure
from hf_geaau.video.tables import face_row
from hf_geaau.video.tracking import head_pose

TASK = "facial-action-unit-detection"
BATCH_SIZE = 16


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
        on_error: "raise", or "return" to get the error in place of an input's faces and continue with the rest.
        batch_size: Faces per forward pass. Default 16.
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

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Detect action units.

        Args:
            inputs: A photo as `hf_geaau.read_photo` takes it, or the path of a video; a list, tuple or other sequence
                of these, such as a column of a dataset; an array or tensor of photos, NHWC or NCHW; or a generator,
                another iterable or a torch dataset of these, whose results are lazy: it is read a limited number of
                photos ahead, in another thread.
            **kwargs: The arguments of the class; for videos also `every`, `fps`, `detect_every`, `smooth_s`,
                `start_s` and `end_s` of `hf_geaau.video.stream.Settings`.

        Returns:
            For each photo a list of faces, largest first: {"box": {"xmin", "ymin", "xmax", "ymax"}, "score",
            "points": 5×[x, y], "quality": notes of `hf_geaau.faces.quality`, "action_units": {"AU01": probability,
            ...}, "present": [...]}. Boxes and points are in pixels of the upright photo; an AU is present if its
            probability reaches the config's threshold. A checkpoint that predicts intensities adds "intensities":
            {"AU01": 0 to 5, ...}. For a video, one list of the faces of all its frames, each also with "frame",
            "time_s", "track_id", and "roll" and "yaw" of the head in degrees; `predict_video` yields them one by one.

        Raises:
            PhotoError: If a photo cannot be read, unless `on_error="return"`.
            VideoError: If a video cannot be read, unless `on_error="return"`.
            CheckpointError: If masks are asked for and the checkpoint has none.
        """
        settings = self._settings(kwargs)
        preprocess, _, postprocess = self._sanitize_parameters(**kwargs)
        postprocess = {**self._postprocess_params, **postprocess}
        on_error = postprocess.pop("on_error", "raise")
        analyzer = self.analyzer(**preprocess, keep=self._kept(**postprocess))
        if is_batch(inputs):
            inputs = split_batch(inputs)
        if _is_one(inputs) and not is_video(inputs):
            return _one_photo(analyzer, inputs, on_error)
        stream = FaceStream(analyzer, settings)
        if _is_one(inputs):
            (result,) = _results(stream, [inputs], on_error)  # a video
            return result
        if isinstance(inputs, Dataset):
            return _DatasetResults(stream, inputs, on_error)
        results = _results(stream, inputs, on_error)
        return list(results) if isinstance(inputs, Sequence) else results

    def analyzer(
        self, *, aligned: bool | None = None, min_score: float | None = None, keep: Sequence[str] = ()
    ) -> FaceAnalyzer:
        """Return the pipeline's detector and model for `hf_geaau.video.stream.FaceStream`.

        Args:
            aligned: The inputs are face crops; None for what was given on construction.
            min_score: Faces with a lower score are dropped; None for what was given on construction.
            keep: Which of "embedding" and "masks" to keep.
        """
        options = {**self._preprocess_params, **_given({"aligned": aligned, "min_score": min_score})}
        return FaceAnalyzer(Runner(self.model, self.image_processor, keep=keep), self.face_detector, **options)

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
            raise ValueError(f"`min_score` must be between 0 and 1, got {min_score}.")
        postprocess = {"return_masks": return_masks, "return_embedding": return_embedding, "on_error": on_error}
        return _given({"aligned": aligned, "min_score": min_score}), {}, _given(postprocess)

    # The three steps of the base class, for one photo.

    def preprocess(self, source: Any, **options: Any) -> dict[str, Any]:
        """Read the photo."""
        analyzer = self.analyzer(**options, keep=("masks", "embedding"))
        return {"analyzer": analyzer, "image": np.asarray(read_photo(source))}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return {"faces": model_inputs["analyzer"](model_inputs["image"])}

    def postprocess(self, model_outputs: dict[str, list[Face]], on_error: str = "raise", **options: bool) -> Any:
        """Return the faces as dictionaries."""
        dropped: dict[str, Any] = dict.fromkeys({"masks", "embedding"}.difference(self._kept(**options)))
        return [replace(face, **dropped).to_dict() for face in model_outputs["faces"]]

    def _settings(self, kwargs: dict[str, Any]) -> Settings:
        """Take what concerns the stream out of the arguments of a call."""
        names = ("every", "fps", "detect_every", "smooth_s", "batch_size", "workers", "start_s", "end_s")
        chosen = _given({name: kwargs.pop(name, None) for name in names})
        workers = kwargs.pop("num_workers", self._num_workers) or None  # 0 is the default of transformers
        return Settings(**{"batch_size": self._batch_size or BATCH_SIZE, "workers": workers, **chosen})

    def _kept(self, return_masks: bool = False, return_embedding: bool = False) -> list[str]:
        if return_masks and self.model.config.head != "lam":
            raise CheckpointError(
                f"Masks need a checkpoint with head='lam', got one with head='{self.model.config.head}'."
            )
        wanted = {"masks": return_masks, "embedding": return_embedding}
        return [name for name, is_wanted in wanted.items() if is_wanted]


def _is_one(inputs: Any) -> bool:
    """Return whether this is one photo or video, or at least no collection of them."""
    is_text = isinstance(inputs, str | os.PathLike | bytes | bytearray | memoryview | dict)
    return (
        is_text or hasattr(inputs, "read") or hasattr(inputs, "__array__") or not isinstance(inputs, Iterable | Dataset)
    )


def _one_photo(analyzer: FaceAnalyzer, photo: Any, on_error: str) -> Any:
    """Analyze one photo in this thread: starting those of a stream takes longer than they save."""
    try:
        image, notes = load_photo(photo)
        _warn(photo, notes)
        return [face.to_dict() for face in analyzer(np.asarray(image))]
    except Exception as error:
        problem = failure(Source("photo", photo), error)
        if on_error == "raise":
            raise problem  # noqa: B904 it has its cause
        return problem


def _warn(source: Any, notes: list[str]) -> None:
    for note in notes:
        warnings.warn(f"{source_name(source)}: {note}.", PhotoWarning, stacklevel=3)


class _DatasetResults:
    """Results over a torch dataset, computed while they are iterated over; their number is that of the dataset."""

    def __init__(self, stream: FaceStream, inputs: Any, on_error: str) -> None:
        self.stream, self.inputs, self.on_error = stream, inputs, on_error

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[Any]:
        has_length = hasattr(self.inputs, "__len__") and hasattr(self.inputs, "__getitem__")
        items = (self.inputs[index] for index in range(len(self.inputs))) if has_length else iter(self.inputs)
        return _results(self.stream, items, self.on_error)


def _results(stream: FaceStream, inputs: Iterable[Any], on_error: str) -> Iterator[list[dict[str, Any]] | GeaauError]:
    """Yield the faces of each input, or its error."""
    sources = (Source("video" if is_video(each) else "photo", each) for each in inputs)
    faces: list[dict[str, Any]] = []
    with closing(stream.run(sources)) as items:
        for item in items:
            if isinstance(item, AnalyzedFrame):
                faces += [_result(item, face) for face in item.faces]
            elif item.error is not None and on_error == "raise":
                raise item.error
            else:
                _warn(item.source.location, item.notes)
                yield faces if item.error is None else item.error
                faces = []


def _result(frame: AnalyzedFrame, face: Face) -> dict[str, Any]:
    if frame.source.kind == "photo":
        return face.to_dict()
    where = {"frame": frame.number, "time_s": frame.time_s, "track_id": face.track_id}
    return {**where, **face.to_dict(), **dict(zip(("roll", "yaw"), head_pose(face.points), strict=True))}


def predict_video(
    video: Any,
    model: "str | Path | FacialActionUnitPipeline | None" = None,
    *,
    every: int = 1,
    fps: float | None = None,
    detect_every: int | None = None,
    smooth: float = 0.0,
    batch_size: int = 16,
    workers: int | None = None,
    min_score: float = 0.6,
    start: float = 0.0,
    end: float | None = None,
    device: Any = None,
) -> Iterator[dict[str, Any]]:
    """Predict the action units of a video's faces, frame by frame, in bounded memory.

    Args:
        video: A video, anything else that `hf-geaau predict` takes, or the number of a camera; the content of a video
            as bytes or an open file; or its frames: a list, generator, array or tensor (NHWC or NCHW) of what
            `hf_geaau.read_photo` takes, or the pattern of numbered files, such as "frames/%04d.png".
        model: Hub id or directory, or a loaded pipeline; None for the bundled checkpoint.
        every: Take every n-th frame.
        fps: Take about this many frames per second instead; of frames, their rate, 25 if it is None.
        detect_every: Search every k-th of these frames for faces and carry them on in between. None: search about three
            a second, and find known faces again in every third frame; with `every` or `fps`, search every one.
        smooth: Time constant in seconds of the smoothing of probabilities over time; 0 for none.
        batch_size: Faces per forward pass.
        workers: Threads that detect and analyze; None for one per core.
        min_score: Faces with a lower detector score are dropped.
        start: Leave out what comes before this time, in seconds.
        end: Stop at this time.
        device: Such as "cuda"; None for the accelerator if there is one.

    Yields:
        A row per face and frame, as in the table of `hf-geaau predict`: `pandas.DataFrame(predict_video(path))`.

    Raises:
        VideoError: If the video cannot be read.

    Example:
        >>> for row in predict_video("clip.mp4", fps=5):  # doctest: +SKIP
        ...     print(row["time_s"], row["track_id"], row["AU12"])
    """
    pipe = model if isinstance(model, FacialActionUnitPipeline) else load_pipeline(model, **_given({"device": device}))
    choices = _given({"fps": fps, "workers": workers, "detect_every": detect_every, "end_s": end})
    settings = Settings(every=every, smooth_s=smooth, batch_size=batch_size, start_s=start, **choices)
    for item in FaceStream(pipe.analyzer(min_score=min_score), settings).run(_video_sources(video)):
        if isinstance(item, AnalyzedFrame):
            for index, face in enumerate(item.faces):
                yield face_row(item, index, face)
        elif item.error is not None:
            raise item.error


def _video_sources(video: Any) -> list[Source]:
    if not isinstance(video, str | os.PathLike | int):
        return [Source("video", video)]
    found = find_sources([str(video) if isinstance(video, int) else video])
    if not found.sources:
        raise VideoError(" ".join(found.problems))
    return list(found.sources)


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
        token: Hub token; None for the one that `hf auth login` stored.
        dtype: Of the weights, such as "bfloat16"; None for the checkpoint's own.
        **kwargs: Arguments of the pipeline, such as `device`, `batch_size`, `min_score`.

    Raises:
        CheckpointError: If the checkpoint is missing, of another model type, or not in safetensors, or the Hub does
            not serve it. Unlike transformers, which retries for 23 seconds (measured) if the host cannot be resolved,
            this fails at once.
        DeviceError: If torch cannot use the device.
    """
    if isinstance(kwargs.get("device"), str):
        check_device(kwargs["device"])
    network, processor = load_checkpoint(model, revision, token, must_predict=True)
    if dtype is not None:
        network = network.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return FacialActionUnitPipeline(model=network, image_processor=processor, task=TASK, **kwargs)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
