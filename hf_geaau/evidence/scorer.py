"""Run a checkpoint over images at hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.evaluation.predictions import probabilities_of
from hf_geaau.metrics import au_auc


@dataclass(frozen=True, eq=False)
class Scorer:
    """A checkpoint, ready to look at pictures.

    Attributes:
        network, processor: The model, on its device, and its image processor.
        batch_size: Pictures at a time.
        device: As for `predict_dataset`.
    """

    network: Any
    processor: Any
    batch_size: int = 64
    device: str | None = None

    @property
    def names(self) -> list[str]:
        """The AUs' labels, in the order of the outputs."""
        return facs.labels(self.network.config.action_units)

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[Any], points: Sequence[NDArray[Any]] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Give (n, N) probabilities, and intensities if the model has them, of one face in each picture.

        Args:
            images: Aligned crops, or with `points` photos.
            points: The (5, 2) points of each face, in pixels of its photo.
        """
        logits, strengths = [], []
        for start in range(0, len(images), self.batch_size):
            place = slice(start, start + self.batch_size)
            aligned = {} if points is None else {"points": [face[None] for face in points[place]]}
            pixels = self.processor(list(images[place]), **aligned, return_tensors="pt").pixel_values
            output = self.network(pixel_values=pixels.to(self.network.device))
            logits.append(output.logits.float().cpu().numpy())
            if output.intensities is not None:
                strengths.append(output.intensities.float().cpu().numpy())
        chances = probabilities_of(np.concatenate(logits), self.network.config.temperature)
        return chances, np.concatenate(strengths) if strengths else None


def by_name(names: Sequence[str], values: NDArray[Any]) -> dict[str, float | None]:
    """Name values; NaN becomes None. Their mean, over what is defined, is added."""
    known = values[~np.isnan(values)]
    entries = [*zip(names, values.tolist(), strict=True), ("mean", float(known.mean()) if known.size else np.nan)]
    return {name: None if value != value else round(float(value), 6) for name, value in entries}


def aucs(names: Sequence[str], labels: NDArray[Any], scores: NDArray[Any]) -> dict[str, float | None]:
    """Give the AUC of each column of scores, of any scale; None where a class lacks."""
    found = []
    for marks, values in zip(labels.T, scores.T, strict=True):
        known = np.isfinite(values)
        ranks = np.unique(values[known], return_inverse=True)[1]  # the metric wants probabilities; only order counts
        chances = ranks / max(1, ranks.max(initial=1))
        has = known.any()
        found.append(au_auc(marks[known][:, None], chances[:, None])["auc"][0] if has else np.nan)
    return by_name(names, np.array(found))
