"""Load a detector with any backend, and run one over a video. Importing this needs no torch."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_geaau import TASK
from hf_geaau.backends import choose_backend, load_runner
from hf_geaau.detection import ActionUnitDetector
from hf_geaau.errors import VideoError
from hf_geaau.video.sources import Source, find_sources
from hf_geaau.video.stream import AnalyzedFrame, FaceStream, Settings
from hf_geaau.video.tables import face_row

if TYPE_CHECKING:
    from hf_geaau.transformers_pipeline import FacialActionUnitPipeline

__all__ = ["TASK", "FacialActionUnitPipeline", "load_pipeline", "predict_video"]


def __getattr__(name: str) -> Any:
    if name == "FacialActionUnitPipeline":
        from hf_geaau.transformers_pipeline import FacialActionUnitPipeline

        return FacialActionUnitPipeline
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def load_pipeline(
    model: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    *,
    backend: str | None = None,
    device: Any = None,
    dtype: Any = None,
    **options: Any,
) -> "ActionUnitDetector | FacialActionUnitPipeline":
    """Load a detector with the bundled checkpoint or another one.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint. Or an exported network, a file
            that ends in .onnx or .xml.
        revision: Branch, tag or commit of a Hub repository, such as "fold2".
        token: Hub token; None for the one that `hf auth login` stored.
        backend: "torch", "onnx" or "openvino"; None for the fastest, see `hf_geaau.backends.load_runner`.
        device: For torch, such as "cuda"; None for the accelerator if there is one.
        dtype: Of torch's weights, such as "bfloat16"; None for the checkpoint's own.
        **options: Those of a call of `ActionUnitDetector`, such as `batch_size` and `min_score`.

    Returns:
        A `FacialActionUnitPipeline` of transformers for torch, else an `ActionUnitDetector`. Both are called alike.

    Raises:
        CheckpointError: If the checkpoint is missing, of another model type, or not in safetensors, the Hub does not
            serve it, or it has no network for the backend.
        DeviceError: If the backend cannot use the device.
        MissingExtraError: If the package of the backend is not installed.
    """
    if backend is None and (dtype is not None or not isinstance(device, str | None)):
        backend = "torch"
    if choose_backend(model, backend, device) == "torch":
        from hf_geaau.transformers_pipeline import load_torch_pipeline

        return load_torch_pipeline(model, revision, token, device=device, dtype=dtype, **options)
    runner = load_runner(model, backend=backend, device=device, revision=revision, token=token)
    return ActionUnitDetector(runner, **options)


def predict_video(
    video: Any,
    model: "str | Path | ActionUnitDetector | FacialActionUnitPipeline | None" = None,
    *,
    every: int = 1,
    fps: float | None = None,
    detect_every: int | None = None,
    smooth: float = 0.0,
    batch_size: int | None = None,
    workers: int | None = None,
    min_score: float = 0.6,
    start: float = 0.0,
    end: float | None = None,
    device: str | None = None,
    backend: str | None = None,
    return_sides: bool = False,
    return_visibility: bool = False,
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
        batch_size: Faces per forward pass; None for what suits the backend.
        workers: Threads that detect and analyze; None for one per core.
        min_score: Faces with a lower detector score are dropped.
        start: Leave out what comes before this time, in seconds.
        end: Stop at this time.
        device, backend: See `hf_geaau.backends.load_runner`.
        return_sides: Add the sides of AUs, and how they differ, see docs/tables.md.
        return_visibility: Add the probability that the region of each AU can be seen.

    Yields:
        A row per face and frame, as in the table of `hf-geaau predict`: `pandas.DataFrame(predict_video(path))`.

    Raises:
        VideoError: If the video cannot be read.
        CheckpointError: If sides or visibility are asked for and the checkpoint has none.

    Example:
        >>> for row in predict_video("clip.mp4", fps=5):  # doctest: +SKIP
        ...     print(row["time_s"], row["track_id"], row["AU12"])
    """
    is_path = model is None or isinstance(model, str | os.PathLike)
    detector: Any = load_pipeline(model, device=device, backend=backend) if is_path else model  # type: ignore[arg-type]
    settings = Settings(every, fps, detect_every, smooth, batch_size, workers, start_s=start, end_s=end)
    keep = ["side_probabilities"] * return_sides + ["visibility"] * return_visibility
    analyzer = detector.analyzer(min_score=min_score, keep=keep or None)
    for item in FaceStream(analyzer, settings).run(_video_sources(video)):
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
