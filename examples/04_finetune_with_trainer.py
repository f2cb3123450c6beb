"""Fine-tune the bundled checkpoint in your own script: nothing but `transformers.Trainer`.

You will see the loss, and F1 on people who were not trained on; `OUTPUT` is then a checkpoint. The faces are drawn, so
the scores mean nothing: point `DATA` to rendered faces, or to what `hf-geaau prepare` wrote, and name its dataset.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from hf_geaau import GeaauImageProcessor, GeaauModel
from hf_geaau.data import get_dataset, open_aligned, write_example
from hf_geaau.metrics import compute_metrics
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT

DATASET, DATA, OUTPUT = "synthetic", Path("faces"), Path("runs/finetuned")
STEPS, BATCH = 4, 8

if not DATA.exists():
    write_example(DATASET, DATA)
train, test = (open_aligned(DATASET, DATA, fold=1, split=split) for split in ("train", "test"))
processor = GeaauImageProcessor.from_pretrained(BUNDLED_CHECKPOINT)
model = GeaauModel.from_pretrained(BUNDLED_CHECKPOINT, dtype=torch.float32)
model = model.with_action_units(list(get_dataset(DATASET).aus))  # AUs that both have keep their weights
model.config.trained_on = sorted({*model.config.trained_on, DATASET})  # the data's license follows the weights


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Make a batch of images and labels."""
    batch = processor([row["image"].convert("RGB") for row in rows], aligned=True, return_tensors="pt")
    return {"pixel_values": batch["pixel_values"], "labels": torch.tensor([row["labels"] for row in rows])}


arguments = TrainingArguments(
    str(OUTPUT),
    max_steps=STEPS,
    per_device_train_batch_size=BATCH,
    learning_rate=3e-4,
    remove_unused_columns=False,  # `collate` reads the column "image"
    label_names=["labels"],
    report_to="none",
    save_strategy="no",
)
trainer = Trainer(model, arguments, collate, train, test, processing_class=processor, compute_metrics=compute_metrics)
trainer.train()
print({name: round(value, 3) for name, value in trainer.evaluate().items() if "f1" in name})
trainer.save_model()
