"""Run a model over all rows of a dataset. Only logits are kept, so memory does not grow with the images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_geaau.errors import EvaluationError, PhotoError
from hf_geaau.faces.photos import read_photo
from hf_geaau.models.loading import check_device

if TYPE_CHECKING:
    import datasets

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of F frames, and what their labels say.

    Attributes:
        logits: (F, N) float32, in the model's order of AUs.
        probabilities: (F, N) float32: the sigmoid of logits / temperature.
        predicted_intensities: (F, N) float32, 0-5, or None if the model predicts none.
        labels: (F, M) float32, in the dataset's order of AUs: 1, 0, or -1 (not labelled).
        intensities: (F, M) float32, 0-5, or -1 (missing).
        subject_id: (F,) who.
        rows: (F,) places in the dataset.
        skipped: A line for each row whose image cannot be read; it is in none of the arrays.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    predicted_intensities: NDArray[np.float32] | None
    labels: NDArray[np.float32]
    intensities: NDArray[np.float32]
    subject_id: NDArray[np.str_]
    rows: NDArray[np.int64]
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class TripletPredictions:
    """How far apart an encoder sees the faces of B triplets.

    Attributes:
        distances: (B, 3) float32, squared, of the faces 1-2, 1-3 and 2-3.
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
        model: A `GeaauModel`.
        image_processor: Its image processor.
        dataset: Rows with aligned crops, as `hf_geaau.data` gives them.
        batch_size: Frames per forward pass.
        device: Where to compute; None for the accelerator if there is one.
        num_workers: Processes that decode images beside this one.
        progress: Called with rows done and in all.
        bf16: Compute in bfloat16 where torch's autocast thinks it safe; faster on recent GPUs.

    Raises:
        EvaluationError: If there is no row, no readable image, or the model predicts no AUs.
        DeviceError: If torch cannot use the device.
    """
    if not hasattr(model, "classifier"):
        raise EvaluationError(
            "AUs need a model that predicts them, got an expression encoder. Evaluate it on triplets, or train the"
            " second stage from it."
        )
    logits, strengths = [], []

    def keep(output: Any) -> None:
        logits.append(output.logits.float().cpu().numpy())
        if output.intensities is not None:
            strengths.append(output.intensities.float().cpu().numpy())

    rows, skipped = _run(model, image_processor, dataset, batch_size, device, num_workers, progress, bf16, keep)
    scores = np.concatenate(logits)
    return Predictions(
        logits=scores,
        probabilities=probabilities_of(scores, model.config.temperature),
        predicted_intensities=np.concatenate(strengths) if strengths else None,
        labels=_matrix(dataset, "labels")[rows],
        intensities=_matrix(dataset, "intensities")[rows],
        subject_id=np.array(dataset["subject_id"][:], dtype=np.str_)[rows],
        rows=rows,
        skipped=skipped,
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
    """Embed the faces of all triplets, and give their distances.

    Args:
        model: A `GeaauForExpressionEmbedding`.
        image_processor, dataset, device, num_workers, progress, bf16: As for `predict_dataset`.
        batch_size: Faces per forward pass; a triplet has three.

    Raises:
        EvaluationError: If there is no row, no readable image, or the model predicts AUs.
        DeviceError: If torch cannot use the device.
    """
    if hasattr(model, "classifier"):
        raise EvaluationError(
            "Triplets need an expression encoder, GeaauForExpressionEmbedding, got a model that predicts AUs."
            " Evaluate it on an AU dataset."
        )
    distances: list[NDArray[np.float32]] = []
    rows, skipped = _run(
        model,
        image_processor,
        dataset,
        max(1, batch_size // 3),
        device,
        num_workers,
        progress,
        bf16,
        lambda output: distances.append(output.distances.float().cpu().numpy()),
    )
    types = np.array(dataset["triplet_type"][:], dtype=np.int64)[rows]
    return TripletPredictions(np.concatenate(distances), types, rows, skipped)


def probabilities_of(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Give the sigmoid of logits / temperature, as the pipeline computes it."""
    return torch.from_numpy(logits).div(temperature).sigmoid().numpy()


def best_device() -> torch.device:
    """Give the accelerator, if there is one."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


@dataclass(frozen=True, eq=False)
class _Batch:
    """Pixels of the readable rows of a batch, and the others' problems."""

    pixel_values: torch.Tensor | None
    rows: list[int]
    problems: list[str]


class _Crops(torch.utils.data.Dataset):
    """Reads, decodes and scales the images of some rows; in a worker process or here."""

    def __init__(self, dataset: "datasets.Dataset", image_processor: Any):
        from datasets import Image, List

        self.is_triplet = "images" in dataset.column_names
        self.column = "images" if self.is_triplet else "image"
        raw = Image(decode=False)
        # Decoding is ours, so that a damaged image is one line and not the end.
        self.images = dataset.select_columns(self.column).cast_column(
            self.column, List(raw, length=3) if self.is_triplet else raw
        )
        self.image_processor = image_processor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> _Batch:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> _Batch:
        crops: list[Any] = []
        kept, problems = [], []
        for row, entry in zip(rows, self.images[rows][self.column], strict=True):
            try:
                crops += [
                    read_photo(image["bytes"] or image["path"]) for image in (entry if self.is_triplet else [entry])
                ]
                kept.append(row)
            except PhotoError as error:
                problems.append(f"row {row} (from 0): {error}")
        if not kept:
            return _Batch(None, [], problems)
        pixel_values = self.image_processor(crops, return_tensors="pt").pixel_values
        return _Batch(pixel_values.unflatten(0, (-1, 3)) if self.is_triplet else pixel_values, kept, problems)


def _run(
    model: Any,
    image_processor: Any,
    dataset: "datasets.Dataset",
    batch_size: int,
    device: str | torch.device | None,
    num_workers: int,
    progress: Progress | None,
    bf16: bool,
    keep: Callable[[Any], None],
) -> tuple[NDArray[np.int64], list[str]]:
    """Hand the output of each batch to `keep`; give the rows that it saw and the problems of the others."""
    if len(dataset) == 0:
        raise EvaluationError("The dataset must have rows, got none. Choose another fold or split.")
    for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
        if value < least:
            raise EvaluationError(f"`{name}` must be at least {least}, got {value}.")
    if device is not None:
        check_device(device)
    place = torch.device(device) if device is not None else best_device()
    loader = torch.utils.data.DataLoader(
        _Crops(dataset, image_processor),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        pin_memory=place.type == "cuda",
    )
    rows: list[int] = []
    skipped: list[str] = []
    with _ready(model, place), torch.autocast(place.type, torch.bfloat16, enabled=bf16):
        for batch in loader:
            if batch.pixel_values is not None:
                keep(model(pixel_values=batch.pixel_values.to(place, non_blocking=True)))
            rows += batch.rows
            skipped += batch.problems
            if progress is not None:
                progress(len(rows) + len(skipped), len(dataset))
    if not rows:
        raise EvaluationError(
            f"At least one image must be readable, got none of {len(dataset)}, the first being {skipped[0]}"
        )
    return np.array(rows, dtype=np.int64), skipped


@contextmanager
def _ready(model: Any, place: torch.device) -> Iterator[None]:
    """Put a model into evaluation mode on a device, and back."""
    before, was_training = model.device, model.training
    try:
        model.to(place).eval()
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training).to(before)


def _as_it_is(batch: Any) -> Any:
    return batch


def _matrix(dataset: "datasets.Dataset", name: str) -> NDArray[np.float32]:
    """Read a column of lists at once: as Python lists, 150,000 rows would take seconds."""
    column = dataset.select_columns(name).with_format("arrow")[:][name].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)
