"""Run a model of transformers with torch, on a CPU or an accelerator."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_geaau.inference import OPTIONAL_OUTPUTS, ModelFacts, Prediction, Runner
from hf_geaau.models.loading import check_device, load_checkpoint


class TorchRunner(Runner):
    """Run a `GeaauModel`, or a `GeaauForExpressionEmbedding`, which predicts only embeddings.

    Args:
        model: The model, on its device and in evaluation mode (see `evaluating`).
        image_processor: Its image processor: how crops are cut and normalized.
        keep: Which of `hf_geaau.inference.OPTIONAL_OUTPUTS` to return; they cost memory.
        bf16: Compute in bfloat16 where torch's autocast considers it safe; faster on recent GPUs.
    """

    def __init__(
        self, model: Any, image_processor: Any, *, keep: Sequence[str] = OPTIONAL_OUTPUTS, bf16: bool = False
    ) -> None:
        super().__init__(keep=keep)
        self.model, self.image_processor, self.bf16 = model, image_processor, bf16

    @property
    def facts(self) -> ModelFacts:
        """What config and image processor say now: both may be changed after loading."""
        return facts_of(self.model, self.image_processor)

    @property
    def batch_size(self) -> int:
        """Faces per forward pass from which more bring no speed; more on a GPU (our choice)."""
        return 256 if self.model.device.type == "cuda" else super().batch_size

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8]) -> Prediction:
        """Run the network over (B, height, width, 3) RGB crops."""
        device = self.model.device
        pixels = (
            torch.from_numpy(np.require(crops, requirements=["C", "W"]))
            .to(device, non_blocking=True)
            .permute(0, 3, 1, 2)
        )
        factor, shift = (torch.as_tensor(values, device=device) for values in normalization(self.image_processor))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            output = self.model(pixel_values=(pixels * factor + shift).to(self.model.dtype))
        values = {"embedding": output.expression_embedding if "embedding" in self.keep else None}
        if (logits := output.get("logits")) is not None:
            scores = self.image_processor.post_process_action_units(output)
            names = ["probabilities", "intensities", *({"side_probabilities", "visibility"} & self.keep)]
            values |= {name: torch.stack([face[name] for face in scores]) for name in names if name in scores[0]}
            values |= {"logits": logits, "masks": output.au_masks if "masks" in self.keep else None}
        return Prediction(**{name: value.float().cpu().numpy() for name, value in values.items() if value is not None})


def facts_of(model: Any, image_processor: Any) -> ModelFacts:
    """Return what a model and its image processor say of themselves."""
    config = model.config
    labels = config.id2label if hasattr(model, "classifier") else {}
    return ModelFacts(
        name=str(model.name_or_path),
        action_units=tuple(labels[index] for index in range(len(labels))),
        thresholds=np.asarray(config.thresholds, np.float32),
        size=(image_processor.size["height"], image_processor.size["width"]),
        crop_template=np.asarray(image_processor.crop_template, np.float64),
        predicts_intensities=bool(labels) and bool(getattr(config, "predict_intensity", False)),
        has_masks=bool(labels) and config.head == "lam",
        has_sides=bool(labels) and bool(getattr(config, "predict_sides", False)),
        has_visibility=bool(labels) and bool(getattr(config, "predict_visibility", False)),
    )


def normalization(image_processor: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (3, 1, 1) `factor` and `shift` with which `factor * pixel + shift` is what the model takes.

    Args:
        image_processor: Of the model; pixels are 0 to 255.
    """
    factor, shift = np.ones(3), np.zeros(3)
    if image_processor.do_rescale:
        factor = factor * image_processor.rescale_factor
    if image_processor.do_normalize:
        mean, std = np.asarray(image_processor.image_mean, float), np.asarray(image_processor.image_std, float)
        factor, shift = factor / std, shift - mean / std
    return factor.astype(np.float32).reshape(3, 1, 1), shift.astype(np.float32).reshape(3, 1, 1)


def load_torch(folder: Path, device: str | None, keep: Sequence[str], must_predict: bool) -> TorchRunner:
    """Load a checkpoint; on CUDA its weights become bfloat16."""
    if device is not None:
        check_device(device)
    network, image_processor = load_checkpoint(folder, must_predict=must_predict)
    target = torch.device(device) if device is not None else best_device()
    network = network.to(target, torch.bfloat16 if target.type == "cuda" else None)
    return TorchRunner(network, image_processor, keep=keep)


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
