"""From a recipe to a plain `transformers.Trainer`: arguments, parameter groups, callbacks."""

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch.overrides import TorchFunctionMode
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy

from hf_geaau import metrics
from hf_geaau.environ import process_count
from hf_geaau.errors import TrainingError
from hf_geaau.hub import LicenseCallback
from hf_geaau.models.geaau import GeaauForExpressionEmbedding, GeaauImageProcessor, GeaauModel

from .data import Collator, CropDataset
from .ema import WeightAverage, refuse_sharding
from .model import build_model
from .recipe import Recipe

if TYPE_CHECKING:
    from torch.utils.data import Dataset

Network = GeaauModel | GeaauForExpressionEmbedding

METRICS = {"expression": "accuracy", "action_units": "f1"}
"""The validation score that the best checkpoint is chosen by, by stage."""


def build_trainer(
    recipe: Recipe,
    train_dataset: "Dataset[Any]",
    eval_dataset: "Dataset[Any] | None" = None,
    model: Network | None = None,
    *,
    output: str | os.PathLike[str],
    callbacks: list[TrainerCallback] | None = None,
    use_cpu: bool | None = None,
) -> Trainer:
    """Build the trainer of a recipe; `trainer.train()` then trains.

    Args:
        recipe: What to do.
        train_dataset: A `CropDataset`, or any torch dataset whose items hold what the model's `forward` takes.
        eval_dataset: For validation; None trains without.
        model: A prepared model; None builds the recipe's, without class weights, which depend on the data.
        output: Folder for checkpoints and logs.
        callbacks: Further callbacks of the Trainer.
        use_cpu: Stay on the CPU; None: only if there is nothing else.

    Raises:
        TrainingError: If the batch cannot be divided over the processes, or the recipe asks for an average of weights
            that are themselves divided.
        ProcessError: If the environment says wrongly which of several processes this is.
    """
    model = build_model(recipe) if model is None else model
    model.to(memory_format=torch.channels_last)
    arguments = training_arguments(recipe, output, with_validation=eval_dataset is not None, use_cpu=use_cpu)
    arguments.label_names = _targets(model)
    processor = GeaauImageProcessor(size={"height": model.config.image_size, "width": model.config.image_size})
    extra: list[TrainerCallback] = [_Epoch(), LicenseCallback(), *(callbacks or [])]
    if eval_dataset is not None and recipe.early_stopping:
        extra.append(EarlyStoppingCallback(recipe.early_stopping))
    if recipe.ema_decay is not None:
        extra.append(WeightAverage(recipe.ema_decay))
    optimizer, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    trainer = _Trainer(
        model,
        arguments,
        data_collator=Collator(processor),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processor,
        compute_metrics=_metrics(model),
        callbacks=extra,
        # Not `optimizers=`: those FSDP and DeepSpeed refuse, or take without their own wrapping.
        optimizer_cls_and_kwargs=(optimizer, {**settings, "params": parameter_groups(model, recipe)}),
    )
    if recipe.ema_decay is not None:
        refuse_sharding(trainer)
    return trainer


SHARE_BETWEEN_SAVES = 0.1
"""Part of a training without validation after which a checkpoint is saved: what an interrupted run loses at most."""


def training_arguments(
    recipe: Recipe, output: str | os.PathLike[str], with_validation: bool = True, use_cpu: bool | None = None
) -> TrainingArguments:
    """Translate a recipe into `TrainingArguments`; float32 replaces bfloat16 that a CPU would only emulate."""
    if use_cpu is None:
        use_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    precision = recipe.precision
    if precision == "bf16" and use_cpu and not has_fast_bfloat16():
        precision = "fp32"
        logging.getLogger(__name__).warning("This CPU has no fast bfloat16: training in float32.")
    per_device, accumulation = _divide(recipe, use_cpu)
    every = IntervalStrategy.STEPS if recipe.evaluate_steps else IntervalStrategy.EPOCH
    length = {"max_steps": recipe.max_steps} if recipe.max_steps else {"num_train_epochs": recipe.epochs or 1}
    return TrainingArguments(
        output_dir=str(output),
        **length,
        per_device_train_batch_size=per_device,
        per_device_eval_batch_size=2 * recipe.per_device_batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        warmup_steps=int(recipe.warmup) if recipe.warmup >= 1 else recipe.warmup,
        lr_scheduler_type=recipe.scheduler if recipe.scheduler != "constant" else "constant_with_warmup",
        optim="adamw_torch" if recipe.optimizer == "adamw" else "sgd",
        optim_args=f"momentum={recipe.momentum},nesterov={recipe.momentum > 0}" if recipe.optimizer == "sgd" else None,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=use_cpu,
        eval_strategy=every if with_validation else IntervalStrategy.NO,
        # The best checkpoint is one that was validated. Without validation, an epoch may be the whole training.
        save_strategy=every if with_validation else IntervalStrategy.STEPS,
        eval_steps=recipe.evaluate_steps,
        save_steps=recipe.evaluate_steps or SHARE_BETWEEN_SAVES,
        save_total_limit=2,
        load_best_model_at_end=with_validation,
        metric_for_best_model=METRICS[recipe.stage] if with_validation else None,
        greater_is_better=True if with_validation else None,
        restore_callback_states_from_checkpoint=True,  # else a resumed run forgets how patient it was
        logging_steps=min(10, recipe.max_steps or 10),
        logging_first_step=True,
        report_to=_reporters(),
        dataloader_num_workers=recipe.workers,
        dataloader_persistent_workers=recipe.workers > 0,
        dataloader_pin_memory=not use_cpu,
        remove_unused_columns=False,  # the collator needs what `forward` does not take
        train_sampling_strategy="sequential",  # CropDataset shuffles, see there
        # Stage 2 leaves the expression embedding's projection without gradients; stage 1 uses everything.
        ddp_find_unused_parameters=recipe.stage == "action_units",
        ddp_timeout=12 * 3600,  # in seconds: the others wait while the first process scores the test fold
        seed=recipe.seed,
    )


@lru_cache(maxsize=1)
def has_fast_bfloat16() -> bool:
    """Measure whether this CPU convolves in bfloat16 at least half as fast as in float32.

    torch does not tell. Without AVX512-BF16, AMX or their like on other CPUs it emulates bfloat16: 65 times slower than
    float32 where we measured it, so the limit need not be exact.
    """

    def seconds(dtype: torch.dtype) -> float:
        layer, pixels = torch.nn.Conv2d(64, 64, 1, dtype=dtype), torch.zeros(4, 64, 32, 32, dtype=dtype)
        times = []
        with torch.inference_mode():
            for _ in range(4):
                began = perf_counter()
                layer(pixels)
                times.append(perf_counter() - began)
        return min(times)

    return seconds(torch.bfloat16) < 2 * seconds(torch.float32)


class GroupedConvolutionsInFloat32(TorchFunctionMode):
    """Computes grouped convolutions in float32 under bfloat16 autocast on a CPU.

    Their backward pass in bfloat16 is several times slower there than in float32, so that a network with depthwise
    convolutions gains little over float32. Measured on steps of the bundled network alone, in turn (torch 2.14, two
    cores with AMX): 41 and 46 faces/s without this, 54 and 69 with it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch; grouped convolutions of CPU tensors without autocast."""
        kwargs = kwargs or {}
        if func is not torch.conv2d or (args[6] if len(args) > 6 else kwargs.get("groups", 1)) == 1:
            return func(*args, **kwargs)
        pixels, weight, *rest = args
        with torch.autocast("cpu", enabled=False):
            return func(pixels.float(), weight, *rest, **kwargs).to(pixels.dtype)


class _Trainer(Trainer):
    """A plain Trainer but for `GroupedConvolutionsInFloat32`."""

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """Return the context of the forward pass."""
        contexts = ExitStack()
        contexts.enter_context(super().compute_loss_context_manager())
        if self.args.bf16 and self.args.device.type == "cpu":
            contexts.enter_context(GroupedConvolutionsInFloat32())
        return contexts


def _divide(recipe: Recipe, use_cpu: bool) -> tuple[int, int]:
    """Divide the global batch over processes (or devices of one process) and accumulation steps."""
    devices = process_count()  # a wrong value is one line there, and a traceback in torch
    if devices == 1 and not use_cpu:
        devices = max(1, torch.cuda.device_count())
    share, rest = divmod(recipe.batch_size, devices)
    if rest or not share:
        raise TrainingError(
            f"`batch_size` must be a multiple of the number of processes, got {recipe.batch_size} for {devices}. It is"
            " the size over all of them."
        )
    accumulation = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= recipe.per_device_batch_size)
    return share // accumulation, accumulation


def _reporters() -> list[str]:
    from transformers.integrations import is_tensorboard_available

    return ["tensorboard"] if is_tensorboard_available() else []


def _targets(model: Network) -> list[str]:
    """Return the names of the inputs that are targets, so that the Trainer hands them to the metrics."""
    if isinstance(model, GeaauForExpressionEmbedding):
        return ["triplet_types"]
    return ["labels", "intensities"] if model.config.predict_intensity else ["labels"]


def _metrics(model: Network) -> Callable[..., dict[str, float]]:
    if isinstance(model, GeaauForExpressionEmbedding):
        return metrics.compute_triplet_metrics
    return metrics.metrics_for(model.config)


def parameter_groups(model: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """Return groups of parameters with their learning rate and weight decay.

    Norms and biases (all vectors) have no weight decay. The encoder's rate is scaled, and falls from layer to layer by
    timm's own grouping of the backbone if the recipe has a `layer_decay`.
    """
    encoder = model.gee
    inner = encoder.backbone.model if hasattr(encoder.backbone, "model") else encoder.backbone
    exempt = inner.no_weight_decay() if hasattr(inner, "no_weight_decay") else ()
    backbone = (
        param_groups_weight_decay(inner, recipe.weight_decay, no_weight_decay_list=exempt)
        if recipe.layer_decay is None
        else param_groups_layer_decay(
            inner, recipe.weight_decay, no_weight_decay_list=exempt, layer_decay=recipe.layer_decay
        )
    )
    known = {id(parameter) for group in backbone for parameter in group["params"]} | set(map(id, inner.parameters()))
    groups = [(group, recipe.encoder_learning_rate_scale * group.pop("lr_scale", 1.0)) for group in backbone]
    for module, scale in ((encoder, recipe.encoder_learning_rate_scale), (model, 1.0)):
        rest = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
        known |= set(map(id, rest))
        for decay, members in (
            (recipe.weight_decay, [p for p in rest if p.ndim > 1]),
            (0.0, [p for p in rest if p.ndim <= 1]),
        ):
            if members:
                groups.append(({"params": members, "weight_decay": decay}, scale))
    return [{**group, "lr": recipe.learning_rate * scale} for group, scale in groups]


class _Epoch(TrainerCallback):
    """Tells the dataset the epoch.

    The dataloader of accelerate does so itself, except in several processes and in an epoch resumed in its middle.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        dataset = getattr(train_dataloader, "dataset", None)
        if isinstance(dataset, CropDataset):
            dataset.set_epoch(int(state.epoch or 0))
