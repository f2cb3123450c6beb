"""The one way from pixels to action units: every prediction outside of training runs the network here.

Needs numpy, not torch: what runs the network is one of `hf_geaau.backends`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import CheckpointError
from hf_geaau.faces import Face, FaceDetector
from hf_geaau.faces.quality import quality_notes
from hf_geaau.models.geaau.cropping_geaau import crop_faces, similarity_transform

OPTIONAL_OUTPUTS = ("embedding", "masks", "side_probabilities", "visibility")
"""Fields of a `Prediction` that a runner returns only if it is told to keep them."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says of B faces; a field that the model or the caller did without is None.

    Attributes:
        logits: (B, N) float32, one per AU.
        probabilities: (B, N) float32, calibrated.
        intensities: (B, N) float32, 0 to 5.
        side_probabilities: (B, N, 2) float32, of the person's left and right, calibrated. Of AUs that are not among
            `facs.SIDED` they mean nothing.
        visibility: (B, N) float32, probability that the region of each AU can be seen.
        embedding: (B, D) float32, L2-normalized expression embedding.
        masks: (B, N, h, w) float32, LAM masks.
    """

    logits: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    intensities: NDArray[np.float32] | None = None
    side_probabilities: NDArray[np.float32] | None = None
    visibility: NDArray[np.float32] | None = None
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


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What is known of a model without running it.

    Attributes:
        name: The checkpoint's directory or Hub id.
        action_units: Names of the AUs, in the order of the outputs; () for an expression encoder.
        thresholds: (N,) probability from which each AU counts as present.
        size: Height and width of the crop in pixels.
        crop_template: (5, 2) where the five points lie in the crop, as fractions of its side.
        predicts_intensities: Whether it predicts intensities.
        has_masks: Whether it predicts masks.
        has_sides: Whether it predicts the left and the right side of AUs.
        has_visibility: Whether it predicts which AUs can be seen.
    """

    name: str
    action_units: tuple[str, ...]
    thresholds: NDArray[np.float32]
    size: tuple[int, int]
    crop_template: NDArray[np.float64]
    predicts_intensities: bool
    has_masks: bool
    has_sides: bool = False
    has_visibility: bool = False


class Runner(ABC):
    """Cut crops and run a network over them.

    It is safe to call from several threads.

    Args:
        keep: Which of OPTIONAL_OUTPUTS to return; they cost memory.

    Example:
        >>> from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel
        >>> from hf_geaau.backends.torch_runner import TorchRunner
        >>> model = GeaauModel(GeaauConfig(backbone="test_resnet", image_size=64, action_units=[12, 25])).eval()
        >>> runner = TorchRunner(model, GeaauImageProcessor(size={"height": 64, "width": 64}))
        >>> runner.predict([np.zeros((64, 64, 3), np.uint8)]).probabilities.shape
        (1, 2)
    """

    def __init__(self, *, keep: Sequence[str] = OPTIONAL_OUTPUTS) -> None:
        self.keep = frozenset(keep)

    @property
    @abstractmethod
    def facts(self) -> ModelFacts:
        """What is known of the model."""

    @abstractmethod
    def __call__(self, crops: NDArray[np.uint8]) -> Prediction:
        """Run the network over (B, height, width, 3) RGB crops, as `crop` cuts them."""

    @property
    def action_units(self) -> tuple[str, ...]:
        """Names of the AUs, in the order of the outputs; () for an expression encoder."""
        return self.facts.action_units

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """(N,) probability from which each AU counts as present."""
        return self.facts.thresholds

    @property
    def batch_size(self) -> int:
        """Faces per forward pass from which more bring no speed."""
        return 16

    def keeping(self, keep: Sequence[str]) -> "Runner":
        """Return the same runner that keeps other outputs."""
        other = copy(self)
        other.keep = frozenset(keep)
        return other

    def crop(self, image: Any, points: Any = None, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Cut the crops of the faces of one image.

        Args:
            image: (H, W, 3) uint8 RGB array or PIL image: a photo, or without `points` an aligned crop.
            points: (5, 2) or (n, 5, 2), in pixels of the photo.
            size: Height and width of the crops, other than the model's.

        Returns:
            (n, height, width, 3); n is 1 without points.

        Raises:
            ValueError: If the image or the points are not of this form, or the points cannot be aligned.
        """
        facts = self.facts
        return crop_faces(np.asarray(image), points, facts.crop_template, size or facts.size)

    def crop_matrices(self, points: Any) -> NDArray[np.float64]:
        """Return the (..., 2, 3) matrices from photo pixels to the unit square of the crop for (..., 5, 2) points."""
        return similarity_transform(points, self.facts.crop_template)

    def predict(
        self, images: Sequence[Any], points: Sequence[NDArray[Any]] | None = None, batch_size: int = 64
    ) -> Prediction:
        """Run the network over one face in each image.

        Args:
            images: Aligned crops, or with `points` photos; as `crop` takes them.
            points: (5, 2) points of the face in each photo, in pixels.
            batch_size: Faces per forward pass.
        """
        parts = []
        for start in range(0, len(images), batch_size):
            batch = range(start, min(start + batch_size, len(images)))
            crops = [self.crop(images[index], None if points is None else points[index]) for index in batch]
            parts.append(self(np.concatenate(crops)))
        return Prediction.concatenate(parts)


def check_outputs(facts: ModelFacts, keep: Sequence[str]) -> None:
    """Check that a model predicts the sides and the visibility that are to be kept.

    Raises:
        CheckpointError: If it does not.
    """
    known = {
        "side_probabilities": (facts.has_sides, "tell left and right apart", "predict_sides", "sides"),
        "visibility": (facts.has_visibility, "tell what is hidden", "predict_visibility", "visibility"),
    }
    for output, (is_there, ability, option, name) in known.items():
        if output in keep and not is_there:
            raise CheckpointError(
                f"The checkpoint '{facts.name}' does not {ability}: it was trained without `model.{option}=true`."
                f" Do without {name}, or pass a checkpoint that has {'them' if name == 'sides' else 'it'}."
            )


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
        >>> from hf_geaau.backends.torch_runner import TorchRunner
        >>> model = GeaauModel(GeaauConfig(backbone="test_resnet", image_size=64, action_units=[12, 25])).eval()
        >>> runner = TorchRunner(model, GeaauImageProcessor(size={"height": 64, "width": 64}))
        >>> face, = FaceAnalyzer(runner, aligned=True)(np.zeros((64, 64, 3), np.uint8))
        >>> face.action_units, face.probabilities.shape
        (('AU12', 'AU25'), (2,))
    """

    def __init__(
        self, runner: Runner, detector: FaceDetector | None = None, *, aligned: bool = False, min_score: float = 0.6
    ) -> None:
        self.runner, self.detector = runner, detector or FaceDetector()
        self.aligned, self.min_score = aligned, min_score

    @property
    def batch_size(self) -> int:
        """Faces per forward pass from which more bring no speed."""
        return self.runner.batch_size

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
            points = np.asarray(self.runner.facts.crop_template, np.float32) * size
            return [assessed(Face(np.array([0, 0, *size], np.float32), 1.0, points), size)]
        return [assessed(face, size) for face in self.detector(image, min_score=self.min_score, near=near)]

    def crop(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> NDArray[np.uint8]:
        """Cut out faces: (n, height, width, 3) crops of n faces, at least one, of one image."""
        return self.runner.crop(image, None if self.aligned else np.stack([face.points for face in faces]))

    def analyze(self, faces: Sequence[Face], crops: NDArray[np.uint8]) -> list[Face]:
        """Predict the action units of faces.

        Args:
            faces: n of them, of any images.
            crops: (n, height, width, 3), from `crop`.

        Returns:
            The faces with what the model predicts of them, in the same order.
        """
        prediction = self.runner(crops)
        if prediction.probabilities is not None and not np.isfinite(prediction.probabilities).all():
            raise CheckpointError(
                "The model predicts NaN: its weights overflow, or were damaged. Load another checkpoint."
            )
        facts = self.runner.facts
        if (sides := prediction.side_probabilities) is not None:
            has_sides = np.isin(np.arange(sides.shape[1]), list(facs.sided(facts.action_units).values()))
            sides = np.where(has_sides[:, None], sides, np.float32(np.nan))
            prediction = replace(prediction, side_probabilities=sides)
        values: list[dict[str, Any]] = [{} for _ in faces]
        for name in ("probabilities", "intensities", *OPTIONAL_OUTPUTS):
            if (rows := getattr(prediction, name)) is not None:
                for value, row in zip(values, rows, strict=True):
                    value[name] = row
        shared: dict[str, Any] = {}
        if prediction.probabilities is not None:
            shared = {"action_units": facts.action_units, "thresholds": facts.thresholds}
        return [replace(face, **value, **shared) for face, value in zip(faces, values, strict=True)]


def assessed(face: Face, size: tuple[int, int]) -> Face:
    """Return a face with the notes on its quality in an image of `size` (width, height)."""
    return replace(face, quality=quality_notes(face.box, face.points, size))
