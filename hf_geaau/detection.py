"""Photos and videos in, faces with action units out: what every backend shares. Needs no torch."""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from hf_geaau.errors import CheckpointError, GeaauError, PhotoWarning
from hf_geaau.faces import Face, FaceDetector
from hf_geaau.faces.photos import load_photo, source_name
from hf_geaau.faces.pixels import is_batch, split_batch
from hf_geaau.inference import FaceAnalyzer, Runner, check_outputs
from hf_geaau.video.kinds import is_video
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import AnalyzedFrame, FaceStream, Settings, failure
from hf_geaau.video.tracking import head_pose

_STREAM = ("every", "fps", "detect_every", "smooth_s", "batch_size", "start_s", "end_s")
KEPT = {
    "return_masks": "masks", "return_embedding": "embedding", "return_sides": "side_probabilities",
    "return_visibility": "visibility",
}  # fmt: skip
"""The output of the network that each option asks for."""

_OPTIONS = ("aligned", "min_score", *KEPT, "on_error", "num_workers", *_STREAM)


class ActionUnitDetector:
    """Detect the faces of photos and videos, and the action units of each face.

    Reading, detection and the network run at the same time in several threads, and batches are filled across photos.
    It is what `FacialActionUnitPipeline` does, without torch if the runner needs none.

    Args:
        runner: Runs the network, from `hf_geaau.backends.load_runner`.
        face_detector: Finds faces; None for `FaceDetector()`.
        **options: Defaults of the options of a call.

    Example:
        >>> from hf_geaau import load_pipeline
        >>> detect = load_pipeline()
        >>> detect(np.zeros((120, 160, 3), np.uint8))
        []
    """

    def __init__(self, runner: Runner, face_detector: FaceDetector | None = None, **options: Any) -> None:
        self.runner, self.face_detector = runner, face_detector or FaceDetector()
        self.options = checked_options(options)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Detect action units.

        Args:
            inputs: A photo as `hf_geaau.read_photo` takes it, or the path of a video; a list, tuple or other sequence
                of these, such as a column of a dataset; an array or tensor of photos, NHWC or NCHW; or a generator,
                another iterable or a torch dataset of these, whose results are lazy: it is read a limited number of
                photos ahead, in another thread.
            **options: For this call:
                aligned: The inputs are face crops, already aligned to the model's template; no detection.
                min_score: Faces with a lower detector score are dropped. Default 0.6.
                return_masks: Add "masks", (N, h, w) float32, the LAM mask of each AU over the crop.
                return_embedding: Add "embedding", (D,) float32, the expression embedding.
                return_sides: Add "sides", {"AU12_left": probability, "AU12_right": ...} of each AU in
                    `hf_geaau.facs.SIDED`; left and right are the person's own.
                return_visibility: Add "visibility", {"AU12": probability that its region can be seen, ...}, and
                    "hidden", the AUs whose region is not. What is said of these is a guess.
                on_error: "raise", or "return" to get the error in place of an input's faces and continue.
                batch_size: Faces per forward pass. Default: what suits the backend.
                num_workers: Threads that detect and analyze. Default: one per core.
                every, fps, detect_every, smooth_s, start_s, end_s: Of videos, see `hf_geaau.video.stream.Settings`.

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
            CheckpointError: If masks, sides or visibility are asked for and the checkpoint has none.
            TypeError, ValueError: If an option is unknown or out of range.
        """
        options = checked_options({**self.options, **_given(options)})
        on_error = options.get("on_error", "raise")
        keep = [output for option, output in KEPT.items() if options.get(option)]
        analyzer = self.analyzer(**{name: options.get(name) for name in ("aligned", "min_score")}, keep=keep)
        chosen = {name: options[name] for name in _STREAM if name in options}
        settings = Settings(**chosen, workers=options.get("num_workers") or None)
        if is_batch(inputs):
            inputs = split_batch(inputs)
        if _is_one(inputs) and not is_video(inputs):
            return _one_photo(analyzer, inputs, on_error)
        stream = FaceStream(analyzer, settings)
        if _is_one(inputs):
            (result,) = _results(stream, [inputs], on_error)  # a video
            return result
        if _is_torch_dataset(inputs):
            return _DatasetResults(stream, inputs, on_error)
        results = _results(stream, inputs, on_error)
        return list(results) if isinstance(inputs, Sequence) else results

    def analyzer(
        self, *, aligned: bool | None = None, min_score: float | None = None, keep: Sequence[str] | None = None
    ) -> FaceAnalyzer:
        """Return the detector and network for `hf_geaau.video.stream.FaceStream`.

        Args:
            aligned: The inputs are face crops; None for what was given on construction.
            min_score: Faces with a lower score are dropped; None for what was given on construction.
            keep: Which of `hf_geaau.inference.OPTIONAL_OUTPUTS` to keep; None for what was given on construction.

        Raises:
            CheckpointError: If masks, sides or visibility are asked for and the checkpoint has none.
        """
        if keep is None:
            keep = [output for option, output in KEPT.items() if self.options.get(option)]
        check_outputs(self.runner.facts, keep)
        if "masks" in keep and not self.runner.facts.has_masks:
            raise CheckpointError("Masks need a checkpoint with head='lam', got one without.")
        stated = {"aligned": aligned, "min_score": min_score}
        options = {name: self.options.get(name) if value is None else value for name, value in stated.items()}
        return FaceAnalyzer(self.runner.keeping(keep), self.face_detector, **_given(options))


def checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a detector or call, which are known and in range.

    Raises:
        TypeError: If one is unknown.
        ValueError: If one is out of range.
    """
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise TypeError(f"A detector has no option `{unknown[0]}`. It has {', '.join(_OPTIONS)}.")
    if options.get("on_error", "raise") not in ("raise", "return"):
        raise ValueError(f"`on_error` must be 'raise' or 'return', got '{options['on_error']}'.")
    score = options.get("min_score")
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"`min_score` must be between 0 and 1, got {score}.")
    return options


def _is_torch_dataset(inputs: Any) -> bool:
    data = sys.modules.get("torch.utils.data")  # whoever has such a dataset has imported it
    return data is not None and isinstance(inputs, data.Dataset)


def _is_one(inputs: Any) -> bool:
    """Return whether this is one photo or video, or at least no collection of them."""
    is_text = isinstance(inputs, str | os.PathLike | bytes | bytearray | memoryview | dict)
    return (
        is_text
        or hasattr(inputs, "read")
        or hasattr(inputs, "__array__")
        or not (isinstance(inputs, Iterable) or _is_torch_dataset(inputs))
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


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
