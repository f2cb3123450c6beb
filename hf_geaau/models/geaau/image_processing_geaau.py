"""Image processor of GTLE-Net: aligned face crops, or photos with five points, become `pixel_values`.

The crop (its size and where the five points lie in it) is part of `preprocessor_config.json`, so that training,
rendering and inference cut the same crop. Two backends, torchvision and PIL, do the same steps and agree within one
gray level.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import (
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    ImageInput,
    PILImageResampling,
    make_flat_list_of_images,
)
from transformers.processing_utils import ImagesKwargs
from transformers.utils import is_torchvision_available

from .configuration_geaau import MAX_IMAGE_SIZE, check_crop_template
from .cropping_geaau import CROP_TEMPLATE, checked_points, cut_crop, plan_crop, similarity_transform

if is_torchvision_available():  # as remote code the PIL backend works without
    from torchvision.transforms.v2 import functional as tvF


def action_unit_probabilities(logits: torch.Tensor, temperature: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Return calibrated probabilities, the sigmoid of logits / temperature, as float32.

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017.

    Example:
        >>> action_unit_probabilities(torch.tensor([0.0])).tolist()
        [0.5]
    """
    return (logits.float() / temperature).sigmoid()


class GeaauImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Settings beside the ones that every image processor has.

    crop_template: five points (x, y) as fractions of the crop side.
    """

    crop_template: list[list[float]] | None


class _GeaauImageProcessing(BaseImageProcessor):
    """The steps that both backends share."""

    valid_kwargs = GeaauImageProcessorKwargs
    model_input_names = ["pixel_values"]
    do_convert_rgb = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    size = {"height": 224, "width": 224}
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    crop_template = [list(point) for point in CROP_TEMPLATE]

    def __init__(self, **kwargs: Any) -> None:
        # transformers sets every entry of a preprocessor_config.json as an attribute, over methods, too.
        taken = [name for name in kwargs if name.startswith("__") or callable(getattr(type(self), name, None))]
        if taken:
            raise ValueError(f"An image processor has no setting '{taken[0][:60]}'. Remove it.")
        super().__init__(**kwargs)
        self._check_settings()

    def _check_settings(self) -> None:
        """Check sizes, template and numbers, before a picture is made from them.

        Raises:
            ValueError: If one of them is out of range or of the wrong type.
        """
        try:
            check_crop_template(self.crop_template)
        except TypeError as error:
            raise ValueError(f"`crop_template` must hold 5 points of 2 fractions: {error}.") from error
        for name in ("size", "crop_size", "pad_size"):
            size = getattr(self, name, None)
            sides = {} if size is None else {side: value for side, value in dict(size).items() if value is not None}
            if (name == "size" or sides) and sides.keys() != {"height", "width"}:
                raise ValueError(f"`{name}` must have a height and a width, got {str(sides)[:80]}.")
            if any(type(side) is not int or not 1 <= side <= MAX_IMAGE_SIZE for side in sides.values()):
                raise ValueError(f"`{name}` must lie from 1 to {MAX_IMAGE_SIZE} pixels, got {str(sides)[:80]}.")
        # Our choice of ranges: pixels may be rescaled to any range up to that of 16 bits.
        ranges = {"image_mean": (-65535, 65535), "image_std": (1e-4, 65535), "rescale_factor": (1e-6, 65535)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            numbers = value if isinstance(value, list | tuple) else [value]
            if len(numbers) not in (1, 3) or not all(
                type(number) in (int, float) and low <= number <= high for number in numbers
            ):
                raise ValueError(
                    f"`{name}` must be a number, or one for each of 3 channels, from {low:g} to {high:g}, got"
                    f" {str(value)[:80]}."
                )
        for name in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
            if not isinstance(getattr(self, name), bool | None):  # transformers takes None for false
                raise ValueError(f"`{name}` must be true or false, got {str(getattr(self, name))[:80]}.")
        if self.resample not in tuple(PILImageResampling):
            raise ValueError(f"`resample` must be a number from 0 to 5, got {str(self.resample)[:80]}.")

    def preprocess(
        self,
        images: ImageInput,
        points: ArrayLike | Sequence[ArrayLike] | None = None,
        aligned: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """Return `pixel_values` made from aligned crops, or from photos and the five points of each face.

        Without points, an image is taken as a crop. One of another size than the crop's may be a whole photo, of which
        scores mean nothing: the first of a process is answered with a warning, unless `aligned` says otherwise.

        Args:
            images: One or more PIL images, arrays or tensors; uint8, or float in [0, 1].
            points: None if the images are aligned crops. Else, for each photo, (5, 2) or (faces, 5, 2): x then y in
                pixels of the upright photo, in the order image-left eye, image-right eye, nose tip, image-left mouth
                corner, image-right mouth corner.
            aligned: The images are aligned crops, whatever their size.
            **kwargs: Settings that differ from the stored ones for this call.

        Returns:
            A `BatchFeature` with `pixel_values`, (B, 3, H, W); B counts images, or faces over all photos in order.

        Raises:
            ValueError: If an image is no RGB, gray or RGBA picture, holds NaN or lies outside [0, 1], or if points
                are missing, mirrored, on one spot or outside their photo.
        """
        if points is None and not aligned:
            size = kwargs.get("size") or self.size
            _warn_of_whole_photos(images, sorted((size["height"], size["width"])))
        return super().preprocess(images, image_like_kwargs={"points": points}, **kwargs)

    def post_process_action_units(
        self, outputs: Any, thresholds: float | Sequence[float] | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """Turn the raw outputs of a `GeaauModel` into action units.

        Args:
            outputs: With `logits` (B, N); `temperature` (B, 1) and `thresholds` (B, N) are those of the model's config.
            thresholds: Probability from which an AU counts as present: one for all AUs, or N of them. None: those of
                `outputs`, or 0.5 where it has none.

        Returns:
            For each of the B faces: "probabilities" (N,) float32, calibrated; "present" (N,) bool; and, if the model
            predicts them, "intensities" (N,) float32, 0 to 5, and of the person's left and right, by the same
            temperature and thresholds, "side_probabilities" (N, 2) float32 and "side_present" (N, 2) bool, and
            "visibility" (N,) float32, the probability that the AU can be seen. The order of all is that of
            `config.id2label`.

        Raises:
            ValueError: If the number of thresholds is neither 1 nor N.

        Example:
            >>> from types import SimpleNamespace
            >>> outputs = SimpleNamespace(logits=torch.tensor([[2.0, -2.0]]))
            >>> GeaauImageProcessor().post_process_action_units(outputs)[0]["present"].tolist()
            [True, False]
        """
        temperature = getattr(outputs, "temperature", None)
        temperature = 1.0 if temperature is None else temperature
        probabilities = action_unit_probabilities(outputs.logits, temperature)
        if thresholds is None:
            limits = getattr(outputs, "thresholds", None)
            limits = torch.full_like(probabilities, 0.5) if limits is None else limits
        else:
            limits = torch.as_tensor(thresholds, dtype=torch.float32, device=probabilities.device)
            if limits.ndim > 1 or limits.numel() not in (1, probabilities.shape[1]):
                raise ValueError(
                    f"`thresholds` must be one number or {probabilities.shape[1]}, one per AU, got {limits.numel()}."
                )
        values = {"probabilities": probabilities, "present": probabilities >= limits}
        if getattr(outputs, "intensities", None) is not None:
            values["intensities"] = outputs.intensities.float()
        if getattr(outputs, "visibility_logits", None) is not None:
            values["visibility"] = outputs.visibility_logits.float().sigmoid()
        if getattr(outputs, "side_logits", None) is not None:
            both = temperature if isinstance(temperature, float) else temperature.unsqueeze(-1)
            values["side_probabilities"] = action_unit_probabilities(outputs.side_logits, both)
            values["side_present"] = values["side_probabilities"] >= limits.unsqueeze(-1)
        return [{name: rows[index] for name, rows in values.items()} for index in range(len(probabilities))]

    def crop_matrices(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return the (..., 2, 3) matrices from photo pixels to crop pixels for (..., 5, 2) points."""
        return similarity_transform(points, np.asarray(self.crop_template) * (self.size["width"], self.size["height"]))

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(image, Image.Image):
            image = ImageOps.exif_transpose(image)
        elif image.ndim == 3 and not {image.shape[0], image.shape[-1]} & {1, 3, 4}:
            raise ValueError(f"An image must have 1, 3 or 4 channels, got an array of shape {tuple(image.shape)}.")
        if isinstance(image, np.ndarray) and not image.flags.writeable:
            image = image.copy()  # torch warns about sharing read-only memory
        image = super().process_image(image, *args, **kwargs)
        if "float" in str(image.dtype):
            if bool((image != image).any()):
                raise ValueError("An image must hold finite numbers, got NaN. Check how it was loaded.")
            if float(image.min()) < 0 or float(image.max()) > 1:
                raise ValueError(
                    f"A float image must lie in [0, 1], got values from {float(image.min()):.3g} to"
                    f" {float(image.max()):.3g}. Pass uint8, or divide by the largest value."
                )
            image = (image * 255).round()
        elif "uint8" not in str(image.dtype):
            raise ValueError(f"An image must be uint8 or float in [0, 1], got {image.dtype}. Scale it to uint8 first.")
        return image.to(torch.uint8) if isinstance(image, torch.Tensor) else image.astype(np.uint8)

    def _preprocess_image_like_inputs(self, images: ImageInput, points: Any = None, **kwargs: Any) -> BatchFeature:
        if points is None:
            return super()._preprocess_image_like_inputs(images, **kwargs)
        photos = make_flat_list_of_images(self.fetch_images(images))
        if len(photos) == 1 and np.ndim(points) < 4:
            points = [points]
        if len(points) != len(photos):
            raise ValueError(f"`points` must have one entry per photo ({len(photos)}), got {len(points)}.")
        size = (kwargs["size"]["height"], kwargs["size"]["width"])
        target = np.asarray(kwargs["crop_template"]) * (size[1], size[0])
        crops = []
        for photo, faces in zip(photos, points, strict=True):
            array = self._prepare_image_like_inputs(photo, **kwargs)[0]
            faces = checked_points(faces, array.shape[-1], array.shape[-2])
            crops += [self._cut(array, matrix, size) for matrix in similarity_transform(faces, target)]
        return self._preprocess(crops, **{**kwargs, "do_resize": False})


_has_warned = False


def _warn_of_whole_photos(images: ImageInput, size: list[int]) -> None:
    """Warn once in a process of images that are not of the crop's size, as transformers' own pipelines pass them."""
    global _has_warned
    if _has_warned or isinstance(images, str):
        return
    for image in make_flat_list_of_images(images):
        shape = getattr(image, "size", ()) if isinstance(image, Image.Image) else getattr(image, "shape", ())
        if len(shape) > 1 and sorted(shape)[-2:] != size:
            _has_warned = True
            warnings.warn(
                f"GeaauImageProcessor takes an image of {'×'.join(map(str, shape))} without `points` as an aligned face"
                " crop; of a whole photo, the scores mean nothing. Use pipeline('facial-action-unit-detection'), which"
                " finds the face, pass `points`, or pass `aligned=True` if it is a crop.",
                stacklevel=4,
            )
            return


class GeaauImageProcessor(_GeaauImageProcessing, TorchvisionBackend):
    """Torchvision backend: tensors stay on their device, same-sized images are processed in one batch.

    Example:
        >>> processor = GeaauImageProcessor(size={"height": 112, "width": 112})
        >>> photo = np.zeros((480, 640, 3), np.uint8)
        >>> points = [[270, 200], [370, 200], [320, 260], [280, 310], [360, 310]]
        >>> processor(photo, points=points, return_tensors="pt").pixel_values.shape
        torch.Size([1, 3, 112, 112])
    """

    def _cut(self, photo: torch.Tensor, matrix: NDArray[np.float64], size: tuple[int, int]) -> torch.Tensor:
        (left, top, right, bottom), new, inverse = plan_crop(matrix, size)
        height, width = photo.shape[-2:]
        inside = photo[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        pads = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
        region = tvF.resize(F.pad(inside, pads), list(new), antialias=True).to(torch.float32)
        # Sampling positions of the crop's pixel centers, in the [-1, 1] frame of grid_sample.
        theta = inverse @ np.array([[size[1] / 2, 0, size[1] / 2], [0, size[0] / 2, size[0] / 2], [0, 0, 1]])
        theta = theta / np.array([[new[1] / 2], [new[0] / 2]]) - [[0, 0, 1], [0, 0, 1]]
        theta = torch.as_tensor(theta, dtype=torch.float32, device=photo.device)[None]
        grid = F.affine_grid(theta, [1, 3, *size], align_corners=False)
        crop = F.grid_sample(region[None], grid, mode="bilinear", align_corners=False)[0]
        return (crop + 1e-3).to(torch.uint8)  # cut off like PIL, not rounded


class GeaauImageProcessorPil(_GeaauImageProcessing, PilBackend):
    """PIL backend, for machines without torchvision's kernels; same result within one gray level."""

    def _cut(self, photo: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.moveaxis(cut_crop(np.moveaxis(photo, 0, -1), matrix, size), -1, 0)


__all__ = ["GeaauImageProcessor", "GeaauImageProcessorPil"]
