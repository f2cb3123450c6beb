"""Measure a training step of GTLE-Net by `hf_geaau.training` against a bare timm + torch loop.

Both have the same backbone, batch, crops, augmentation and optimiser; rounds alternate, so that other load
slows both alike. Prints images/s of both, their ratio, and the share of time that the Trainer waits for data.

    python benchmarks/training.py renders
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from hf_geaau.training import build_trainer, datasets_of, load_recipe, open_split, training_config


class Waiting(TrainerCallback):
    """Sum the time between the end of a step and the beginning of the next: the wait for a batch."""

    def __init__(self) -> None:
        self.seconds, self.since = 0.0, 0.0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.since = time.perf_counter()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if self.since:
            self.seconds += time.perf_counter() - self.since


def bare_loop(recipe: Any, batches: torch.utils.data.DataLoader, steps: int, units: int, device: str) -> float:
    """Train the same backbone, to the same stage, with pooling and one linear layer; return the seconds."""
    backbone: Any = timm.create_model(
        recipe.model["backbone"],
        features_only=True,
        feature_cls="getter",
        out_indices=(recipe.model.get("backbone_stage", -1),),
        **(recipe.model.get("backbone_kwargs") or {}),
    )
    head = torch.nn.Linear(backbone.feature_info.channels()[-1], units)
    model = torch.nn.ModuleList([backbone, head]).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    model.train()
    start, done = time.perf_counter(), 0
    while done < steps:
        for batch in batches:
            batch = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
            with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bf16"):
                logits = head(backbone(batch["pixel_values"])[-1].mean((2, 3)))
            loss = binary_cross_entropy_with_logits(logits.float(), batch["labels"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
            if done == steps:
                break
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="rendered faces")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE of the recipe synthetic")
    parser.add_argument("--steps", type=int, default=40, help="steps of a round; few would measure the start")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    length = [f"max_steps={args.steps}", "epochs=null", "validation_share=0", "early_stopping=null"]
    recipe = load_recipe("synthetic", [*args.settings, *length])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    split = open_split(recipe, args.data, None)
    rows, _ = datasets_of(recipe, split, training_config(recipe, split))
    images = args.steps * recipe.batch_size
    ours, theirs, waits = [], [], []
    for number in range(args.rounds + 1):  # the first warms up
        with tempfile.TemporaryDirectory() as folder:
            waiting = Waiting()
            trainer = build_trainer(recipe, rows, output=folder, callbacks=[waiting])
            trainer.args.save_strategy = "no"
            for kind in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(kind)
            batches = torch.utils.data.DataLoader(
                rows, recipe.batch_size, num_workers=recipe.workers, collate_fn=trainer.data_collator
            )
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
        bare = bare_loop(recipe, batches, args.steps, len(recipe.action_units), device)
        if number:
            ours.append(images / seconds)
            theirs.append(images / bare)
            waits.append(waiting.seconds / seconds)
    ratio = statistics.median(here / there for here, there in zip(ours, theirs, strict=True))
    size = recipe.model["image_size"]
    print(f"{recipe.model['backbone']}, {size} px, batch {recipe.batch_size}, {recipe.precision}, {device}")
    print(
        f"hf_geaau.training  {statistics.median(ours):7.1f} images/s, {statistics.median(waits):.0%} waiting for data"
    )
    print(f"bare timm loop     {statistics.median(theirs):7.1f} images/s")
    print(f"ratio              {ratio:7.2f}")


if __name__ == "__main__":
    main()
