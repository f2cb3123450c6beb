"""Crops for training: decode, augment and batch them, the same in every process and after a resume.

Every random number is a function of (seed, epoch, row). Neither the number of worker processes, nor that of training
processes, nor an interruption changes what the model sees. That is why this dataset shuffles by itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tvF

from hf_geaau import facs
from hf_geaau.data import side_labels, visibility_labels
from hf_geaau.errors import PhotoError, TrainingError
from hf_geaau.faces.photos import read_photo
from hf_geaau.models.geaau import GeaauImageProcessor

from .augmentation import StyleBank, augmentations, mirrored, needs_styles
from .recipe import Augmentation

if TYPE_CHECKING:
    from datasets import Dataset

STYLES = 256  # training images whose colours and low frequencies others may take over; our choice


class CropDataset(torch.utils.data.Dataset):
    """Aligned crops, or triplets of them, as uint8 tensors with their labels.

    Args:
        rows: A `datasets.Dataset` with the columns of `hf_geaau.data.load`: "image" and "labels", or "images" and
            "triplet_type".
        size: Side of the crops that the model takes, in pixels.
        row_units: FACS numbers of the label columns, in order; () for triplets.
        action_units: FACS numbers of the model; None for those of the rows.
        with_intensities: Return the intensities as well.
        with_sides: Return the labels of the left and right side, "sides" (AUs, 2), as well; see `label_targets`.
        with_visibility: Return whether each AU can be seen, "visible" (AUs,), as well.
        ignore_traces: Set labels to -1 where the intensity is above 0 and below 1.
        augmentation: Random changes; None for none.
        shuffle: Return the rows in an order that each epoch draws anew.
        batch_size: Size of the batches over all processes; an epoch is cut to whole batches, if it has at least one.
        seed: Decides order and augmentation.

    Raises:
        TrainingError: If there are no rows, or their labels are not -1, 0 or 1 or of another number.
    """

    def __init__(
        self,
        rows: "Dataset",
        size: int,
        row_units: Sequence[int] = (),
        action_units: Sequence[int] | None = None,
        *,
        with_intensities: bool = False,
        with_sides: bool = False,
        with_visibility: bool = False,
        ignore_traces: bool = False,
        augmentation: Augmentation | None = None,
        shuffle: bool = False,
        batch_size: int = 1,
        seed: int = 0,
    ) -> None:
        import datasets

        if len(rows) == 0:
            raise TrainingError("The training data has no rows. Check the fold, and that its subjects are there.")
        self.is_triplets = "images" in rows.column_names
        raw = datasets.Image(decode=False)
        feature = datasets.List(raw, length=3) if self.is_triplets else raw
        self.rows = rows.cast_column("images" if self.is_triplets else "image", feature)
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.targets = (
            _triplet_targets(rows) if self.is_triplets else label_targets(rows, row_units, action_units, ignore_traces)
        )
        wanted = {"intensities": with_intensities, "sides": with_sides, "visible": with_visibility}
        for name, is_wanted in wanted.items():
            if not is_wanted:
                self.targets.pop(name, None)
        self.length = max(len(rows) // batch_size * batch_size, 0) or len(rows)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # worker processes see it change
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self.augmentation = augmentation
        self.augment = None
        if augmentation is not None:
            self.augment = augmentations(augmentation, size, self._styles() if needs_styles(augmentation) else None)

    def _styles(self) -> StyleBank:
        """Describe some training images, drawn by the seed, so that a row's style does not depend on its batch."""
        rows = np.random.default_rng([self.seed, STYLES]).permutation(len(self.rows))[:STYLES]
        entries = (self.rows[int(row)] for row in rows)
        images = [entry["images"][0] if self.is_triplets else entry["image"] for entry in entries]
        return StyleBank.of(torch.stack([self._pixels(image, row) for image, row in zip(images, rows, strict=True)]))

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of an epoch."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return image (3, S, S) or images (3, 3, S, S) as uint8, the targets, and the number of the row."""
        epoch = int(self._epoch)
        row = self._row(epoch, index)
        values = self.rows[row]
        images = values["images"] if self.is_triplets else [values["image"]]
        pixels = [self._pixels(image, row) for image in images]
        item = {name: column[row] for name, column in self.targets.items()}
        if self.augment is not None and self.augmentation is not None:
            with _seeded(self.seed, epoch, row):
                # Each face of a triplet is mirrored and changed by itself (our choice): a property that all three share
                # by chance, such as light from the left, must not tell which are alike.
                for index, image in enumerate(pixels):
                    is_mirrored = mirrored(self.augmentation)
                    pixels[index] = self.augment(tvF.horizontal_flip(image) if is_mirrored else image)
                    if is_mirrored and "sides" in item:  # of the one image
                        item["sides"] = item["sides"].flip(-1)
        return {"pixel_values": torch.stack(pixels) if self.is_triplets else pixels[0], **item, "row": row}

    def _row(self, epoch: int, index: int) -> int:
        if not self.shuffle:
            return index
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        return int(self._order[1][index])

    def _pixels(self, image: Any, row: int) -> Tensor:
        try:
            pixels = _decode(image)
        except Exception as error:  # whatever a damaged file leads a decoder to
            name = image.get("path") if isinstance(image, dict) else None
            reason = str(error) if isinstance(error, PhotoError) else "it is missing, truncated or damaged"
            raise TrainingError(
                f"Cannot read the image of row {row} of the training data ({name or 'stored as bytes'}): {reason}"
                f"{'' if reason.endswith('.') else '. Prepare or render it again.'}"
            ) from error
        if pixels.shape[-2:] != (self.size, self.size):
            # Before the augmentation, because that then has less to do; by the function that the image processor uses.
            pixels = tvF.resize(pixels, [self.size, self.size], antialias=True)
        return pixels


def _decode(image: dict[str, Any]) -> Tensor:
    """Decode an encoded image to (3, H, W) uint8."""
    photo = read_photo(image["path"] if image["bytes"] is None else image["bytes"])
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)


def label_targets(
    rows: "Dataset", row_units: Sequence[int], action_units: Sequence[int] | None = None, ignore_traces: bool = False
) -> dict[str, Tensor]:
    """Read and check the labels, intensities and sides of all rows, in the model's order of AUs.

    Args:
        rows, row_units, action_units, ignore_traces: As for `CropDataset`.

    Returns:
        The columns "labels" and "intensities" that the rows have, each (rows, AUs) float32; and with labels "sides",
        (rows, AUs, 2) float32, the labels of the person's left and right: -1 for AUs without sides, and where the rows
        tell none; and "visible", (rows, AUs) float32: 1 if the AU can be seen, 0 if not, -1 unknown.

    Raises:
        TrainingError: If a row has another number of values, or a value is none of those allowed.
    """
    targets = {}
    for name in ("labels", "intensities"):
        if name in rows.column_names:
            column = rows.select_columns(name).with_format("arrow")[:][name].combine_chunks()
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
            _check_targets(name, values, row_units)
            ordered = facs.remap(values, row_units, list(action_units or row_units))
            targets[name] = torch.from_numpy(np.ascontiguousarray(ordered, np.float32))
    if ignore_traces and "intensities" in targets:
        strength = targets["intensities"]
        targets["labels"][(strength > 0) & (strength < 1)] = -1
    if "labels" in targets:
        sides = np.moveaxis(side_labels(rows, ignore_traces), 1, 2)
        ordered = np.moveaxis(facs.remap(sides, row_units, list(action_units or row_units)), 2, 1)
        targets["sides"] = torch.from_numpy(np.ascontiguousarray(ordered))
        visible = facs.remap(visibility_labels(rows), row_units, list(action_units or row_units))
        targets["visible"] = torch.from_numpy(np.ascontiguousarray(visible, np.float32))
    return targets


def _check_targets(name: str, values: NDArray[np.floating], row_units: Sequence[int]) -> None:
    names = facs.labels(row_units)
    if values.shape[1] != len(names):
        raise TrainingError(
            f"Each row must have {len(names)} {name}, one for each of {', '.join(names)}, got {values.shape[1]}. Check"
            " the dataset's options."
        )
    allowed = np.isin(values, (-1, 0, 1)) if name == "labels" else (values >= -1) & (values <= 5)
    if not allowed.all():
        row, column = np.argwhere(~allowed)[0]
        expected = "1 (present), 0 (absent) or -1 (not labeled)" if name == "labels" else "from 0 to 5, or -1"
        raise TrainingError(
            f"{name.capitalize()} must be {expected}, got {values[row, column]:g} for {names[column]} in row {row}."
            " Map other codes, such as BP4D's 9, to -1."
        )


def _triplet_targets(rows: "Dataset") -> dict[str, Tensor]:
    return {"triplet_types": torch.tensor(rows.with_format("arrow")[:]["triplet_type"].to_numpy())}


@contextmanager
def _seeded(*key: int) -> Iterator[None]:
    """Seed torch's generator by a key, and restore it afterwards, because dropout draws from the same one."""
    generator = torch.random.default_generator
    state = generator.get_state()
    generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        generator.set_state(state)


class Collator:
    """Make a batch of items: normalized by the model's image processor, in the memory layout channels last.

    Args:
        image_processor: A `GeaauImageProcessor`; its settings are those of inference.
    """

    def __init__(self, image_processor: GeaauImageProcessor) -> None:
        self.image_processor = image_processor

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return pixel_values, (B, 3, S, S) or (B, 3, 3, S, S), and the targets.

        Raises:
            TrainingError: If an image holds NaN or infinity; the message names the row.
        """
        pixels = torch.stack([torch.as_tensor(item["pixel_values"]) for item in items])
        images = pixels.flatten(0, 1) if pixels.ndim == 5 else pixels
        if images.is_floating_point():
            finite = torch.isfinite(pixels).flatten(1).all(1)
            if not finite.all():
                index = int(finite.int().argmin())
                raise TrainingError(
                    f"Images must hold finite numbers, got NaN or infinity in row {items[index].get('row', index)}. "
                    "Check how it was made: one such value would spoil the weights."
                )
        else:
            images = self.image_processor(images, aligned=True, do_resize=False, return_tensors="pt").pixel_values
        # Channels last: twice as fast on CPUs and GPUs with half precision.
        images = images.contiguous(memory_format=torch.channels_last)
        batch = {"pixel_values": images.unflatten(0, (-1, 3)) if pixels.ndim == 5 else images}
        for name in ("labels", "intensities", "sides", "visible", "triplet_types"):
            if name in items[0]:
                batch[name] = torch.stack([torch.as_tensor(item[name]) for item in items])
        return batch
