"""Random changes to training crops: geometry, light and colour, frequencies, what a camera does, occlusion.

Each works on one uint8 crop with torch's generator, so that a row's seed decides all of it. What is a function of a
pixel's own value becomes one table for each channel: that costs less than the arithmetic on pixels.
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

from hf_geaau.models.geaau.configuration_geaau import CROP_TEMPLATE

from .recipe import Augmentation

LOW_FREQUENCIES = 0.05
"""The frequencies that are exchanged, from the lowest, as a share of the side. Source: Yang & Soatto, FDA: Fourier
domain adaptation for semantic segmentation, CVPR 2020, which tries 0.01, 0.05 and 0.09."""
_LEAST_DEVIATION, _MOST_STRETCH = 0.02, 3.0  # a flat picture has no style that could be stretched


def augmentations(settings: Augmentation, size: int = 112, styles: "StyleBank | None" = None) -> v2.Compose:
    """Make the random changes of a recipe.

    Args:
        settings: What is above 0 becomes a step.
        size: Side of the crops in pixels.
        styles: Of other training images; `style` and `frequency` need it.
    """
    steps: list[Any] = [v2.RandomHorizontalFlip(settings.mirror)] if settings.mirror else []
    if settings.rotation or settings.scale or settings.shift or settings.points:
        steps.append(_Warp(settings))
    if settings.style or settings.gamma or settings.gain or settings.brightness or settings.contrast:
        steps.append(_Tone(settings, styles))
    if settings.saturation or settings.hue:
        steps.append(v2.ColorJitter(saturation=settings.saturation, hue=settings.hue))
    if settings.grey:
        steps.append(v2.RandomGrayscale(settings.grey))
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
    """Tell whether other training images are needed."""
    return bool(settings.style or settings.frequency)


@dataclass(frozen=True, eq=False)
class StyleBank:
    """Colours and low frequencies of K training images.

    Attributes:
        means, deviations: (K, 3) of each channel, from 0 to 1.
        amplitudes: (K, 3, 2L + 1, L + 1) of the lowest frequencies, of pixel values from 0 to 255.
    """

    means: Tensor
    deviations: Tensor
    amplitudes: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "StyleBank":
        """Describe (K, 3, S, S) uint8 images."""
        deviations, means = torch.std_mean(images.float().flatten(2) / 255, dim=2)
        spectra = torch.fft.rfft2(images.float())
        return cls(means, deviations, spectra[(..., *_low(images.shape[-1]))].abs())

    def draw(self) -> int:
        """Draw one of the images."""
        return int(torch.randint(len(self.means), ()))

    def mix_frequencies(self, image: Tensor) -> Tensor:
        """Move the low frequencies' amplitudes of a (3, S, S) uint8 image toward another's; phases stay.

        Source:
            FDA (Yang & Soatto, CVPR 2020) exchanges them; to move a random part of the way is the amplitude mix of Xu
            et al., A Fourier-based framework for domain generalization, CVPR 2021.
        """
        place, other = _low(image.shape[-1]), self.amplitudes[self.draw()]
        spectrum = torch.fft.rfft2(image.float())
        low = spectrum[(..., *place)]
        amplitude = low.abs().clamp(min=1e-3)
        spectrum[(..., *place)] = low * torch.lerp(amplitude, other, float(torch.rand(()))) / amplitude
        return _as_uint8(torch.fft.irfft2(spectrum, s=image.shape[-2:]))


def _low(side: int) -> tuple[Tensor, Tensor]:
    """Give the places of the low frequencies in what `rfft2` gives of a square picture."""
    reach = max(1, round(LOW_FREQUENCIES * side))
    return torch.arange(-reach, reach + 1)[:, None], torch.arange(reach + 1)


class _Warp:
    """Turns, scales and shifts, all at random; also as errors of the five points would, in the same single step."""

    def __init__(self, settings: Augmentation):
        self.settings = settings
        template = np.asarray(CROP_TEMPLATE)
        self.eyes = float(np.linalg.norm(template[1] - template[0]))
        self.template = torch.from_numpy(template - 0.5).float()  # from the middle, around which a crop is turned

    def __call__(self, image: Tensor) -> Tensor:
        own, side = self.settings, image.shape[-1]
        angle, scale, right, down = (2 * torch.rand(4) - 1).tolist()
        angle, scale = own.rotation * angle, 1 + own.scale * scale
        shift = torch.tensor([right, down]) * own.shift
        if own.points:
            turn, stretch, moved = self._misalignment()
            angle, scale, shift = angle + turn, scale * stretch, shift + moved
        bilinear = v2.InterpolationMode.BILINEAR
        return tvF.affine(image, angle, (shift * side).tolist(), scale, [0.0, 0.0], interpolation=bilinear)

    def _misalignment(self) -> tuple[float, float, Tensor]:
        """Give angle, scale and shift of the crop that is cut by noisy points: the least-squares similarity.

        In first order: of centred points p with noise n, the similarity that takes p + n to p turns by -Σ p×n / Σ p²
        and grows by -Σ p·n / Σ p².
        """
        noise = torch.randn(5, 2) * (self.settings.points * self.eyes)
        middle = self.template.mean(0)
        arm, moved = self.template - middle, noise.mean(0)
        power = arm.square().sum()
        turn = -(arm[:, 0] * noise[:, 1] - arm[:, 1] * noise[:, 0]).sum() / power
        growth = -(arm * noise).sum() / power
        # The turn is around the points' middle, not the crop's: what it moves the crop's middle by comes on top.
        side = torch.stack([-middle[1], middle[0]])
        return math.degrees(float(turn)), 1 + float(growth), -moved - float(growth) * middle - float(turn) * side


class _Tone:
    """Style, brightness, contrast, gamma and gain as one table for each channel.

    Source:
        `style` mixes means and deviations as MixStyle (Zhou et al., ICLR 2021) does, of pixels as in Reinhard et al.,
        Color transfer between images, 2001; AdaIN exchanges them whole. The share is uniform, our choice.
    """

    def __init__(self, settings: Augmentation, styles: StyleBank | None):
        self.settings, self.styles = settings, styles
        self.levels = torch.arange(256) / 255

    def __call__(self, image: Tensor) -> Tensor:
        own = self.settings
        pixels = image.flatten(1)
        table = self.levels.expand(3, 256)
        if own.style or own.contrast:
            deviations, means = torch.std_mean(pixels[:, ::5].float() / 255, dim=1)  # a fifth tells as much
        if self.styles is not None and float(torch.rand(())) < own.style:
            other, share = self.styles.draw(), float(torch.rand(()))
            deviations = deviations.clamp(min=_LEAST_DEVIATION)
            stretch = torch.lerp(deviations, self.styles.deviations[other], share) / deviations
            target = torch.lerp(means, self.styles.means[other], share)
            table = (table - means[:, None]) * stretch.clamp(max=_MOST_STRETCH)[:, None] + target[:, None]
            means = target
        brightness, contrast, gamma = (2 * torch.rand(3) - 1).tolist()
        table = table * (1 + own.brightness * brightness)
        if own.contrast:
            table = torch.lerp(means.mean() * (1 + own.brightness * brightness), table, 1 + own.contrast * contrast)
        if own.gamma:
            table = table.clamp(min=0) ** math.exp(own.gamma * gamma)
        if own.gain:
            table = table * (1 + own.gain * (2 * torch.rand(3, 1) - 1))
        return torch.gather(_as_uint8(255 * table), 1, pixels.long()).view_as(image)


class _Noise:
    """Adds independent noise to pixels, of a strength drawn from 0 to `most`."""

    def __init__(self, most: float):
        self.most = most

    def __call__(self, image: Tensor) -> Tensor:
        strength = 255 * self.most * float(torch.rand(()))
        return _as_uint8(image + strength * torch.randn(image.shape))


def _coarse(image: Tensor) -> Tensor:
    """Shrink to between a third and the whole of the side, and enlarge again."""
    side = image.shape[-1]
    small = max(8, round(side / float(1 + 2 * torch.rand(()))))
    return tvF.resize(tvF.resize(image, [small, small], antialias=True), [side, side], antialias=True)


def _as_jpeg(image: Tensor) -> Tensor:
    """Encode and decode; torchvision's own `JPEG` rests on functions that it is going to remove."""
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, "JPEG", quality=int(torch.randint(20, 81, ())))
    return torch.from_numpy(np.array(Image.open(content))).permute(2, 0, 1)


def _as_uint8(values: Tensor) -> Tensor:
    return (values + 0.5).clamp(0, 255).to(torch.uint8)
