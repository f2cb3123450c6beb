"""An exponential moving average of the weights, as a callback of the Trainer that survives interruptions."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from hf_geaau.errors import TrainingError
from hf_geaau.files import whole_file

EMA_FILE = "ema.safetensors"


class WeightAverage(TrainerCallback, ExportableState):
    """Averages weights and batch-norm statistics after each step, and lends them to the Trainer's validation.

    A checkpoint holds the weights themselves, to resume from, and the average beside them, which `load_average` loads
    at the end.

    Args:
        decay: Share of the average that remains at each step. At first it is smaller: (1 + n) / (10 + n) after n steps.

    Source:
        The average: `torch.optim.swa_utils`. Its warm-up, which keeps untrained heads out: TensorFlow's
        `ExponentialMovingAverage(num_updates)`.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: AveragedModel | None = None
        self.is_lent = False

    def state(self) -> dict[str, Any]:
        """Return what marks a checkpoint as one that holds an average."""
        return {"args": {"decay": self.decay}, "attributes": {}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Start from the model as it is, or from the average of an interrupted run."""
        self.average = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)
        if state.global_step:
            self.average.load_state_dict(load_file(_average_file(Path(args.output_dir), state.global_step)))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Add the new weights to the average."""
        assert self.average is not None
        self.average.update_parameters(model)
        self._lend(control, model)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Lend the average if validation follows the epoch."""
        self._lend(control, model)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Take the average back."""
        if self.is_lent:
            self._exchange(model)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the average beside the weights."""
        if state.is_world_process_zero and self.average is not None:
            tensors = {name: values.contiguous() for name, values in self.average.state_dict().items()}
            with whole_file(_average_file(Path(args.output_dir), state.global_step)) as part:
                save_file(tensors, part)

    def _average(self, averages: Any, weights: Any, count: Any) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))(averages, weights, count)

    def _lend(self, control: TrainerControl, model: PreTrainedModel) -> None:
        if control.should_evaluate and not self.is_lent:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: PreTrainedModel) -> None:
        assert self.average is not None
        average = self.average.module.state_dict()
        for name, values in model.state_dict().items():
            before = values.clone()
            values.copy_(average[name])
            average[name].copy_(before)
        self.is_lent = not self.is_lent


def refuse_sharding(trainer: Trainer) -> None:
    """Refuse an average of a model that no process holds whole.

    Raises:
        TrainingError: With FSDP or DeepSpeed.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise TrainingError("`ema_decay` must be null with FSDP or DeepSpeed, which divide the model. Leave it out.")


def load_average(trainer: Trainer, folder: Path) -> None:
    """Load the average of the best checkpoint into the model, or of the last one if none was chosen."""
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    saved = load_file(_average_file(folder, best or trainer.state.global_step))
    names = {name: name.removeprefix("module.") for name in saved if name != "n_averaged"}
    trainer.model.load_state_dict({short: saved[name] for name, short in names.items()})


def _average_file(output: Path, step: int) -> Path:
    return output / f"checkpoint-{step}" / EMA_FILE
