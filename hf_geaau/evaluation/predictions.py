"""Run a model over all rows of a dataset. Only its outputs are kept, so memory does not grow with the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_geaau.backends.torch_runner import TorchRunner, evaluating
from hf_geaau.data import column_array, side_labels, visibility_labels
from hf_geaau.errors import EvaluationError, PhotoError
from hf_geaau.faces.photos import read_photo
from hf_geaau.inference import Prediction
from hf_geaau.models.geaau.cropping_geaau import crop_faces
from hf_geaau.models.loading import check_device

if TYPE_CHECKING:
    import datasets

Progress = Callable[[int, int], None]
MOST_WORKERS = 1024  # as in recipes


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions and labels of F frames.

    Attributes:
        logits: (F, N) float32, in the model's order of AUs.
        probabilities: (F, N) float32: the sigmoid of logits / temperature.
        predicted_intensities: (F, N) float32, 0-5, or None if the model predicts none.
        labels: (F, M) float32, in the dataset's order of AUs: 1, 0, or -1 (not labeled).
        intensities: (F, M) float32, 0-5, or -1 (missing).
        sides: (F, M, 2) float32, labels of the person's left and right, or None if the model does not predict them.
        side_probabilities: (F, N, 2) float32, or None.
        visible: (F, M) float32, 1 if the AU can be seen, 0 if not, -1 unknown; None if the model does not predict it.
        visibility: (F, N) float32, predicted probability that the AU can be seen, or None.
        subject_id: (F,) subject of each frame.
        rows: (F,) row of each frame in the dataset.
        skipped: One line for each row whose image cannot be read; such rows are in none of the arrays.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    predicted_intensities: NDArray[np.float32] | None
    labels: NDArray[np.float32]
    intensities: NDArray[np.float32]
    subject_id: NDArray[np.str_]
    rows: NDArray[np.int64]
    skipped: list[str] = field(default_factory=list)
    sides: NDArray[np.float32] | None = None
    side_probabilities: NDArray[np.float32] | None = None
    visible: NDArray[np.float32] | None = None
    visibility: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class TripletPredictions:
    """Distances between the embedded faces of B triplets.

    Attributes:
        distances: (B, 3) float32 squared distances of the faces 1-2, 1-3 and 2-3.
        triplet_types: (B,) 0 one-class, 1 two-class, 2 three-class.
        rows, skipped: As in `Predictions`.
    """

    distances: NDArray[np.float32]
    triplet_types: NDArray[np.int64]
    rows: NDArray[np.int64]
    skipped: list[str] = field(default_factory=list)


def predict_dataset(
    model: Any,
    image_processor: Any,
    dataset: "datasets.Dataset",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    progress: Progress | None = None,
    bf16: bool = False,
) -> Predictions:
    """Predict the AUs of all rows.

    Args:
        model, image_processor: A `GeaauModel` and its image processor.
        dataset: Rows with aligned crops, from `hf_geaau.data.open_aligned`.
        batch_size: Frames per forward pass.
        device: None for the accelerator if there is one.
        num_workers: Further processes that decode images, 0 to 1024; no more than batches are started.
        progress: Called with the number of finished rows and of all rows.
        bf16: Compute in bfloat16 where torch's autocast considers it safe; faster on recent GPUs.

    Raises:
        EvaluationError: If there is no row or no readable image, or if the model predicts no AUs.
        DeviceError: If torch cannot use the device.
    """
    if not hasattr(model, "classifier"):
        raise EvaluationError(
            "`model` must predict AUs, got an expression encoder. Evaluate it on triplets, or train the second stage"
            " from it."
        )
    crops = _Crops(dataset, image_processor)
    config = model.config
    keep = ["side_probabilities"] * config.predict_sides + ["visibility"] * config.predict_visibility
    predicted, rows, skipped = _run(
        model, image_processor, crops, keep, batch_size, device, num_workers, progress, bf16
    )
    assert predicted.logits is not None
    assert predicted.probabilities is not None
    return Predictions(
        logits=predicted.logits,
        probabilities=predicted.probabilities,
        predicted_intensities=predicted.intensities,
        labels=column_array(dataset, "labels")[rows],
        intensities=column_array(dataset, "intensities")[rows],
        subject_id=np.array(dataset["subject_id"][:], dtype=np.str_)[rows],
        rows=rows,
        skipped=skipped,
        sides=side_labels(dataset)[rows] if config.predict_sides else None,
        side_probabilities=predicted.side_probabilities,
        visible=visibility_labels(dataset)[rows] if config.predict_visibility else None,
        visibility=predicted.visibility,
    )


def predict_triplets(
    model: Any,
    image_processor: Any,
    dataset: "datasets.Dataset",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    progress: Progress | None = None,
    bf16: bool = False,
) -> TripletPredictions:
    """Embed the faces of all triplets, and return their distances.

    Args:
        model: A `GeaauForExpressionEmbedding`.
        image_processor, dataset, device, num_workers, progress, bf16: As for `predict_dataset`.
        batch_size: Faces per forward pass; a triplet has three.

    Raises:
        EvaluationError: If there is no row or no readable image, or if the model predicts AUs.
        DeviceError: If torch cannot use the device.
    """
    if hasattr(model, "classifier"):
        raise EvaluationError(
            "`model` must be an expression encoder, GeaauForExpressionEmbedding, got a model that predicts AUs."
            " Evaluate it on an AU dataset."
        )
    crops = _Crops(dataset, image_processor)
    rows_per_batch = max(1, batch_size // 3)
    predicted, rows, skipped = _run(
        model, image_processor, crops, ("embedding",), rows_per_batch, device, num_workers, progress, bf16
    )
    assert predicted.embedding is not None
    faces = predicted.embedding.reshape(len(rows), 3, -1)
    distances = np.square(faces[:, [0, 0, 1]] - faces[:, [1, 2, 2]]).sum(axis=-1)
    return TripletPredictions(distances, column_array(dataset, "triplet_type")[rows].astype(np.int64), rows, skipped)


class _Crops(torch.utils.data.Dataset[Any]):
    """The crops of some rows' readable images, or None; these rows; and the problems of the others."""

    def __init__(self, dataset: "datasets.Dataset", image_processor: Any) -> None:
        from datasets import Image as ImageFeature
        from datasets import List

        self.is_triplet = "images" in dataset.column_names
        self.column = "images" if self.is_triplet else "image"
        raw = ImageFeature(decode=False)
        # Decoded here and not by `datasets`, so that a damaged image costs one row and not the whole run.
        self.images = dataset.select_columns(self.column).cast_column(
            self.column, List(raw, length=3) if self.is_triplet else raw
        )
        self.template = image_processor.crop_template
        self.size = image_processor.size["height"], image_processor.size["width"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: list[int]) -> tuple[NDArray[np.uint8] | None, list[int], list[str]]:
        crops, readable, problems = [], [], []
        for row, entry in zip(rows, self.images[rows][self.column], strict=True):
            try:
                images = entry if self.is_triplet else [entry]
                crops += [read_photo(image["bytes"] or image["path"]) for image in images]
                readable.append(row)
            except PhotoError as error:
                problems.append(f"row {row} (from 0): {error}")
        resized = [crop_faces(np.asarray(crop), None, self.template, self.size) for crop in crops]
        return np.concatenate(resized) if resized else None, readable, problems


def _run(
    model: Any,
    image_processor: Any,
    crops: _Crops,
    keep: Sequence[str],
    batch_size: int,
    device: str | torch.device | None,
    num_workers: int,
    progress: Progress | None,
    bf16: bool,
) -> tuple[Prediction, NDArray[np.int64], list[str]]:
    """Return the prediction of all faces, the readable rows in order, and the problems of the others."""
    if len(crops) == 0:
        raise EvaluationError("The dataset must have rows, got none. Choose another fold or split.")
    if batch_size < 1:
        raise EvaluationError(f"`batch_size` must be at least 1, got {batch_size}.")
    if not 0 <= num_workers <= MOST_WORKERS:
        raise EvaluationError(f"`num_workers` must be from 0 to {MOST_WORKERS}, got {num_workers}.")
    if device is not None:
        check_device(device)
    batches = torch.utils.data.BatchSampler(range(len(crops)), batch_size, drop_last=False)
    processes = min(num_workers, len(batches))
    loader = torch.utils.data.DataLoader(crops, batch_size=None, sampler=batches, num_workers=processes)
    predicted: list[Prediction] = []
    rows: list[int] = []
    skipped: list[str] = []
    with evaluating(model, device):
        runner = TorchRunner(model, image_processor, keep=keep, bf16=bf16)
        for pixels, readable, problems in loader:
            if pixels is not None:
                predicted.append(runner(pixels.numpy()))
            rows += readable
            skipped += problems
            if progress is not None:
                progress(len(rows) + len(skipped), len(crops))
    if not rows:
        raise EvaluationError(f"Cannot read any of the {len(crops)} rows' images; the first problem: {skipped[0]}")
    return Prediction.concatenate(predicted), np.array(rows, dtype=np.int64), skipped
