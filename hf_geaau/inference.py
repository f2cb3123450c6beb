"""The one way from pixels to action units: every prediction outside of training runs the network here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_geaau.errors import CheckpointError
from hf_geaau.faces import Face, FaceDetector
from hf_geaau.faces.quality import quality_notes
from hf_geaau.models.loading import check_device, load_checkpoint


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says of B faces; a field that the model or the caller did without is None.

    Attributes:
        logits: (B, N) float32, one per AU.
        probabilities: (B, N) float32, calibrated.
        intensities: (B, N) float32, 0 to 5.
        embedding: (B, D) float32, L2-normalized expression embedding.
        masks: (B, N, h, w) float32, LAM masks.
    """

    logits: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    intensities: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    masks: NDArray[np.float32] | None = None

    @classmethod
    def concatenate(cls, parts: Sequence["Prediction"]) -> "Prediction":
        """Join batches along the first axis."""
        joined = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            joined[field.name] = np.concatenate(values) if values and values[0] is not None else None
        return cls(**joined)


class Runner:
    """Cut crops and run a checkpoint over them.

    It is safe to call from several threads.

    Args:
        model: A `GeaauModel`, or a `GeaauForExpressionEmbedding`, which predicts only embeddings; on its device and in
            evaluation mode (see `evaluating`).
        image_processor: Its image processor.
        keep: Which of "embedding" and "masks" to return; they cost memory.
        bf16: Compute in bfloat16 where torch's autocast considers it safe; faster on recent GPUs.

    Example:
        >>> from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel
        >>> model = GeaauModel(GeaauConfig(backbone="test_resnet", image_size=64, action_units=[12, 25])).eval()
        >>> runner = Runner(model, GeaauImageProcessor(size={"height": 64, "width": 64}))
        >>> runner.predict([np.zeros((64, 64, 3), np.uint8)]).probabilities.shape
        (1, 2)
    """

    def __init__(
        self, model: Any, image_processor: Any, *, keep: Sequence[str] = ("embedding", "masks"), bf16: bool = False
    ) -> None:
        self.model, self.image_processor, self.keep, self.bf16 = model, image_processor, frozenset(keep), bf16

    @property
    def action_units(self) -> tuple[str, ...]:
        """Names of the AUs, in the order of the outputs; () for an expression encoder."""
        labels = self.model.config.id2label if hasattr(self.model, "classifier") else {}
        return tuple(labels[index] for index in range(len(labels)))

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """(N,) probability from which each AU counts as present, from the config."""
        return np.asarray(self.model.config.thresholds, np.float32)

    def crop(self, images: Any, points: Any = None) -> torch.Tensor:
        """Cut crops and normalize them.

        Args:
            images: An image or several: aligned crops, or with `points` photos.
            points: The five points of each face, see `GeaauImageProcessor.preprocess`.

        Returns:
            (B, 3, H, W) `pixel_values`, on the CPU.
        """
        return self.image_processor(images, points=points, aligned=True, return_tensors="pt").pixel_values

    @torch.inference_mode()
    def __call__(self, pixel_values: torch.Tensor) -> Prediction:
        """Run the network.

        Args:
            pixel_values: (B, 3, H, W) from `crop`, on any device.
        """
        device = self.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            output = self.model(pixel_values=pixel_values.to(device, non_blocking=True))
        values = {"embedding": output.expression_embedding if "embedding" in self.keep else None}
        if (logits := output.get("logits")) is not None:
            scores = self.image_processor.post_process_action_units(output)
            values |= {name: torch.stack([face[name] for face in scores]) for name in scores[0] if name != "present"}
            values |= {"logits": logits, "masks": output.au_masks if "masks" in self.keep else None}
        return Prediction(**{name: value.float().cpu().numpy() for name, value in values.items() if value is not None})

    def predict(
        self, images: Sequence[Any], points: Sequence[NDArray[Any]] | None = None, batch_size: int = 64
    ) -> Prediction:
        """Run the network over one face in each image.

        Args:
            images: Aligned crops, or with `points` photos.
            points: (5, 2) points of the face in each photo, in pixels.
            batch_size: Faces per forward pass.
        """
        parts = []
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            faces = None if points is None else [face[None] for face in points[batch]]
            parts.append(self(self.crop(list(images[batch]), faces)))
        return Prediction.concatenate(parts)


class FaceAnalyzer:
    """Find the faces of an image, cut them out, and predict their action units.

    The three steps are separate so that a stream can run them in several threads and fill batches across images. They
    are safe to call from several threads.

    Args:
        runner: Cuts crops and runs the network.
        detector: Finds faces; None for `FaceDetector()`.
        aligned: Images are face crops, already aligned to the model's template: each is one face, without detection.
        min_score: Faces with a lower detector score are dropped.

    Example:
        >>> from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel
        >>> model = GeaauModel(GeaauConfig(backbone="test_resnet", image_size=64, action_units=[12, 25])).eval()
        >>> runner = Runner(model, GeaauImageProcessor(size={"height": 64, "width": 64}))
        >>> face, = FaceAnalyzer(runner, aligned=True)(np.zeros((64, 64, 3), np.uint8))
        >>> face.action_units, face.probabilities.shape
        (('AU12', 'AU25'), (2,))
    """

    def __init__(
        self, runner: Runner, detector: FaceDetector | None = None, *, aligned: bool = False, min_score: float = 0.6
    ) -> None:
        self.runner, self.detector = runner, detector or FaceDetector()
        self.aligned, self.min_score = aligned, min_score

    def __call__(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find and analyze the faces of one (H, W, 3) RGB image, largest first."""
        faces = self.find(image)
        return self.analyze(faces, self.crop(image, faces)) if faces else []

    def find(self, image: NDArray[np.uint8], near: Sequence[Face] = ()) -> list[Face]:
        """Find the faces, largest first, and note their quality; an aligned crop is one face that fills it.

        Args:
            image: (H, W, 3) RGB.
            near: Where faces are expected, see `FaceDetector.__call__`; () to look everywhere.
        """
        size = image.shape[1], image.shape[0]
        if self.aligned:
            points = np.asarray(self.runner.image_processor.crop_template, np.float32) * size
            return [assessed(Face(np.array([0, 0, *size], np.float32), 1.0, points), size)]
        return [assessed(face, size) for face in self.detector(image, min_score=self.min_score, near=near)]

    def crop(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> torch.Tensor:
        """Cut out faces: (n, 3, H, W) `pixel_values` of n faces, at least one, of one image."""
        return self.runner.crop(image, None if self.aligned else np.stack([face.points for face in faces]))

    def analyze(self, faces: Sequence[Face], crops: torch.Tensor) -> list[Face]:
        """Predict the action units of faces.

        Args:
            faces: n of them, of any images.
            crops: (n, 3, H, W), from `crop`.

        Returns:
            The faces with what the model predicts of them, in the same order.
        """
        prediction = self.runner(crops)
        if prediction.probabilities is not None and not np.isfinite(prediction.probabilities).all():
            raise CheckpointError(
                "The model predicts NaN: its weights overflow, or were damaged. Load another checkpoint."
            )
        values: list[dict[str, Any]] = [{} for _ in faces]
        for name in ("probabilities", "intensities", "embedding", "masks"):
            if (rows := getattr(prediction, name)) is not None:
                for value, row in zip(values, rows, strict=True):
                    value[name] = row
        shared: dict[str, Any] = {}
        if prediction.probabilities is not None:
            shared = {"action_units": self.runner.action_units, "thresholds": self.runner.thresholds}
        return [replace(face, **value, **shared) for face, value in zip(faces, values, strict=True)]


def assessed(face: Face, size: tuple[int, int]) -> Face:
    """Return a face with the notes on its quality in an image of `size` (width, height)."""
    return replace(face, quality=quality_notes(face.box, face.points, size))


def load_analyzer(
    model: str | Path | None = None, *, device: str | None = None, keep: Sequence[str] = (), **options: Any
) -> FaceAnalyzer:
    """Load a checkpoint that predicts action units, for streams.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        device: Such as "cuda:1"; None for the accelerator if there is one. On CUDA the weights become bfloat16.
        keep: Which of "embedding" and "masks" to keep.
        **options: `aligned` and `min_score` of `FaceAnalyzer`.

    Raises:
        CheckpointError: If the checkpoint does not load or predicts no AUs.
        DeviceError: If torch cannot use the device.
    """
    if device is not None:
        check_device(device)
    network, image_processor = load_checkpoint(model, must_predict=True)
    target = torch.device(device) if device is not None else best_device()
    network = network.to(target, torch.bfloat16 if target.type == "cuda" else None)
    return FaceAnalyzer(Runner(network, image_processor, keep=keep), **options)


def best_device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


@contextmanager
def evaluating(model: Any, device: str | torch.device | None = None) -> Iterator[Any]:
    """Put a model into evaluation mode on a device, and back when the block ends.

    Args:
        model: Any torch model with `device`.
        device: None for the accelerator if there is one.
    """
    before, was_training = model.device, model.training
    try:
        yield model.to(torch.device(device) if device is not None else best_device()).eval()
    finally:
        model.train(was_training).to(before)
