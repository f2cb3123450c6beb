"""Fine-tune the bundled weights on your own AUs in your own script: nothing but `transformers.Trainer`.

The table `faces.parquet` beside this script has 84 rendered faces of 42 people, labeled with AU12, which the bundled
weights know, and with AU18 (lip pucker) and AU34 (cheek puff), which they do not. You will see the loss, and F1 and AUC
on people who were not trained on; `OUTPUT` is then a checkpoint: `hf-geaau predict photo.jpg --model runs/finetuned`.
"""

from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2.functional import horizontal_flip
from transformers import Trainer, TrainingArguments

from hf_geaau import GeaauImageProcessor, GeaauModel
from hf_geaau.data import load
from hf_geaau.metrics import metrics_for
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT

TABLE, OUTPUT = Path(__file__).with_name("faces.parquet"), Path("runs/finetuned")
STEPS = 40

faces = load("folder", TABLE, aligned=True)  # train and test share nobody; of your photos, see open_aligned
processor = GeaauImageProcessor.from_pretrained(BUNDLED_CHECKPOINT)
model = GeaauModel.from_pretrained(BUNDLED_CHECKPOINT, dtype=torch.float32)
model = model.with_action_units([12, 18, 34])  # AU12 keeps its weights, the others start anew
model.config.trained_on = ["synthetic", "folder"]  # the data's license follows the weights


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Make a batch of images and labels."""
    batch = processor([row["image"] for row in rows], aligned=True, return_tensors="pt")["pixel_values"]
    if model.training and torch.rand(()) < 0.5:
        batch = horizontal_flip(batch)
    return {"pixel_values": batch, "labels": torch.tensor([row["labels"] for row in rows])}


arguments = TrainingArguments(
    str(OUTPUT),
    max_steps=STEPS,
    per_device_train_batch_size=16,
    learning_rate=1e-3,
    lr_scheduler_type="cosine",
    remove_unused_columns=False,  # `collate` reads the column "image"
    label_names=["labels"],
    report_to="none",
    save_strategy="no",
)
trainer = Trainer(
    model,
    arguments,
    collate,
    faces["train"],
    faces["test"],
    processing_class=processor,
    compute_metrics=metrics_for(model.config),
)
trainer.train()
print({name: round(value, 3) for name, value in trainer.evaluate().items() if "f1" in name or "auc" in name})
trainer.save_model()
