"""Random changes to training crops: geometry, light and color, frequencies, camera artifacts, occlusion.

Each works on one uint8 crop with torch's generator, so that a row's seed decides all of them. Changes that depend on a
pixel's own value alone are combined into one table per channel, which costs less than arithmetic on pixels.
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvF

from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE

from .recipe import Augmentation

LOW_FREQUENCIES = 0.05
"""Highest of the frequencies that are exchanged, as a share of the side. Source: Yang & Soatto, FDA: Fourier domain
adaptation for semantic segmentation, CVPR 2020, which tries 0.01, 0.05 and 0.09."""
_MIN_DEVIATION, _MAX_STRETCH = 0.02, 3.0  # limits for flat images, whose style cannot be stretched


def mirrored(settings: Augmentation) -> bool:
    """Draw whether a crop is mirrored, which exchanges its left and right labels."""
    return bool(settings.mirror) and float(torch.rand(())) < settings.mirror


def augmentations(settings: Augmentation, size: int = 112, styles: "StyleBank | None" = None) -> v2.Compose:
    """Build the random changes of a recipe but mirroring, which comes before them and changes labels, see `mirrored`.

    Args:
        settings: Each value above 0 becomes a step.
        size: Side of the crops in pixels.
        styles: Those of other training images; needed by `style` and `frequency`.
    """
    steps: list[Any] = []
    if settings.rotation or settings.scale or settings.shift or settings.points:
        steps.append(Warp(settings))
    if settings.style or settings.gamma or settings.gain or settings.brightness or settings.contrast:
        steps.append(_Tone(settings, styles))
    if settings.saturation or settings.hue:
        steps.append(v2.ColorJitter(saturation=settings.saturation, hue=settings.hue))
    if settings.gray:
        steps.append(v2.RandomGrayscale(settings.gray))
    if settings.frequency and styles is not None:
        steps.append(v2.RandomApply([v2.Lambda(styles.mix_frequencies)], settings.frequency))
    if settings.coarse:
        steps.append(v2.RandomApply([v2.Lambda(_coarse)], settings.coarse))
    if settings.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(5, sigma=(0.3, 1.5))], settings.blur))
    if settings.noise:
        steps.append(_Noise(settings.noise))
    if settings.jpeg:
        steps.append(v2.RandomApply([v2.Lambda(_as_jpeg)], settings.jpeg))
    if settings.erasing:
        steps.append(v2.RandomErasing(settings.erasing, scale=(0.02, 0.2)))
    return v2.Compose(steps or [v2.Identity()])


def needs_styles(settings: Augmentation) -> bool:
    """Return whether the changes need other training images."""
    return bool(settings.style or settings.frequency)


@dataclass(frozen=True, eq=False)
class StyleBank:
    """Colors and low frequencies of K training images.

    Attributes:
        means, deviations: (K, 3) of each channel, from 0 to 1.
        amplitudes: (K, 3, 2L + 1, L + 1) of the lowest frequencies, of pixel values from 0 to 255.
    """

    means: Tensor
    deviations: Tensor
    amplitudes: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "StyleBank":
        """Compute the styles of (K, 3, S, S) uint8 images."""
        deviations, means = torch.std_mean(images.float().flatten(2) / 255, dim=2)
        spectra = torch.fft.rfft2(images.float())
        return cls(means, deviations, spectra[(..., *_low(images.shape[-1]))].abs())

    def draw(self) -> int:
        """Draw the index of one of the images."""
        return int(torch.randint(len(self.means), ()))

    def mix_frequencies(self, image: Tensor) -> Tensor:
        """Move the low frequencies' amplitudes of a (3, S, S) uint8 image toward another's. Phases stay.

        Source:
            FDA (Yang & Soatto, CVPR 2020) exchanges the amplitudes. Moving them a random part of the way is the
            amplitude mix of Xu et al., A Fourier-based framework for domain generalization, CVPR 2021.
        """
        low, other = _low(image.shape[-1]), self.amplitudes[self.draw()]
        spectrum = torch.fft.rfft2(image.float())
        values = spectrum[(..., *low)]
        amplitude = values.abs().clamp(min=1e-3)
        spectrum[(..., *low)] = values * torch.lerp(amplitude, other, float(torch.rand(()))) / amplitude
        return _as_uint8(torch.fft.irfft2(spectrum, s=image.shape[-2:]))


def _low(side: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the low frequencies in the `rfft2` of a square image."""
    reach = max(1, round(LOW_FREQUENCIES * side))
    return torch.arange(-reach, reach + 1)[:, None], torch.arange(reach + 1)


class Warp:
    """Rotate, scale and shift at random, also as errors of the five points would, in one step."""

    def __init__(self, settings: Augmentation):
        self.settings = settings
        template = np.asarray(CROP_TEMPLATE)
        self.eyes = float(np.linalg.norm(template[1] - template[0]))
        self.template = torch.from_numpy(template - 0.5).float()  # from the center, around which a crop is turned

    def __call__(self, image: Tensor) -> Tensor:
        """Change a (3, S, S) crop."""
        settings, side = self.settings, image.shape[-1]
        angle, scale, right, down = (2 * torch.rand(4) - 1).tolist()
        angle, scale = settings.rotation * angle, 1 + settings.scale * scale
        shift = torch.tensor([right, down]) * settings.shift
        if settings.points:
            turn, stretch, moved = self.misalignment()
            angle, scale, shift = angle + turn, scale * stretch, shift + moved
        bilinear = v2.InterpolationMode.BILINEAR
        return tvF.affine(image, angle, (shift * side).tolist(), scale, [0.0, 0.0], interpolation=bilinear)

    def misalignment(self) -> tuple[float, float, Tensor]:
        """Draw noise on the five points, and return the change of a crop that is aligned by them.

        It is the least-squares similarity in first order: for centered points p with noise n, the similarity that
        takes p + n to p turns by -Σ p×n / Σ p² and grows by -Σ p·n / Σ p².

        Returns:
            Angle in degrees; scale; shift (2,) to the right and down, as shares of the crop's side.
        """
        noise = torch.randn(5, 2) * (self.settings.points * self.eyes)
        middle = self.template.mean(0)
        arm, moved = self.template - middle, noise.mean(0)
        power = arm.square().sum()
        turn = -(arm[:, 0] * noise[:, 1] - arm[:, 1] * noise[:, 0]).sum() / power
        growth = -(arm * noise).sum() / power
        # The turn is around the center of the points, not of the crop, whose center therefore moves as well.
        side = torch.stack([-middle[1], middle[0]])
        return math.degrees(float(turn)), 1 + float(growth), -moved - float(growth) * middle - float(turn) * side


class _Tone:
    """Change style, brightness, contrast, gamma and gain by one table per channel.

    Source:
        `style` mixes means and deviations as MixStyle (Zhou et al., ICLR 2021) does, but of pixels, as Reinhard et al.,
        Color transfer between images, 2001; AdaIN exchanges them completely. The share is uniform (our choice).
    """

    def __init__(self, settings: Augmentation, styles: StyleBank | None):
        self.settings, self.styles = settings, styles
        self.levels = torch.arange(256) / 255

    def __call__(self, image: Tensor) -> Tensor:
        settings = self.settings
        pixels = image.flatten(1)
        table = self.levels.expand(3, 256)
        if settings.style or settings.contrast:
            deviations, means = torch.std_mean(pixels[:, ::5].float() / 255, dim=1)  # a fifth of the pixels is enough
        if self.styles is not None and float(torch.rand(())) < settings.style:
            other, share = self.styles.draw(), float(torch.rand(()))
            deviations = deviations.clamp(min=_MIN_DEVIATION)
            stretch = torch.lerp(deviations, self.styles.deviations[other], share) / deviations
            target = torch.lerp(means, self.styles.means[other], share)
            table = (table - means[:, None]) * stretch.clamp(max=_MAX_STRETCH)[:, None] + target[:, None]
            means = target
        brightness, contrast, gamma = (2 * torch.rand(3) - 1).tolist()
        table = table * (1 + settings.brightness * brightness)
        if settings.contrast:
            table = torch.lerp(
                means.mean() * (1 + settings.brightness * brightness), table, 1 + settings.contrast * contrast
            )
        if settings.gamma:
            table = table.clamp(min=0) ** math.exp(settings.gamma * gamma)
        if settings.gain:
            table = table * (1 + settings.gain * (2 * torch.rand(3, 1) - 1))
        return torch.gather(_as_uint8(255 * table), 1, pixels.long()).view_as(image)


class _Noise:
    """Add independent noise to pixels, with a strength drawn from 0 to `limit`."""

    def __init__(self, limit: float):
        self.limit = limit

    def __call__(self, image: Tensor) -> Tensor:
        strength = 255 * self.limit * float(torch.rand(()))
        return _as_uint8(image + strength * torch.randn(image.shape))


def _coarse(image: Tensor) -> Tensor:
    """Shrink to between a third of the side and all of it, and enlarge again."""
    side = image.shape[-1]
    small = max(8, round(side / float(1 + 2 * torch.rand(()))))
    return tvF.resize(tvF.resize(image, [small, small], antialias=True), [side, side], antialias=True)


def _as_jpeg(image: Tensor) -> Tensor:
    """Encode and decode as JPEG. torchvision's own `JPEG` uses functions that it is going to remove."""
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, "JPEG", quality=int(torch.randint(20, 81, ())))
    return torch.from_numpy(np.array(Image.open(content))).permute(2, 0, 1)


def _as_uint8(values: Tensor) -> Tensor:
    return (values + 0.5).clamp(0, 255).to(torch.uint8)
