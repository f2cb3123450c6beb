"""Fine-tune the bundled checkpoint on your own AU data with a plain `transformers.Trainer`.

You will see the loss and the F1 on people that were not trained on; `finetuned` is then a checkpoint directory. The
data is a folder of drawn faces, so the numbers mean nothing.

    python examples/04_finetune_with_trainer.py
"""

from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from hf_geaau import GeaauImageProcessor, GeaauModel
from hf_geaau.data import get_dataset, open_aligned, write_example
from hf_geaau.metrics import compute_metrics
from hf_geaau.models.loading import BUNDLED_CHECKPOINT

DATASET, FOLD, STEPS = "synthetic", 1, 4
OUTPUT = Path("finetuned")


def main() -> None:
    faces = write_example(DATASET, "faces", identities=6, frames=8, size=128)
    train, test = (open_aligned(DATASET, faces, FOLD, split) for split in ("train", "test"))

    processor = GeaauImageProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    model = GeaauModel.from_pretrained(BUNDLED_CHECKPOINT, dtype=torch.float32)
    model = model.with_action_units(list(get_dataset(DATASET).aus))  # AUs that both have keep their weights
    model.config.trained_on = sorted({*model.config.trained_on, DATASET})  # sharing depends on it

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        batch = processor([row["image"].convert("RGB") for row in rows], return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}

    arguments = TrainingArguments(
        str(OUTPUT), max_steps=STEPS, learning_rate=3e-4, per_device_train_batch_size=8, save_strategy="no",
        remove_unused_columns=False,  # `collate` reads the column "image"
        label_names=["labels"], report_to="none", use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, data_collator=collate, train_dataset=train, eval_dataset=test,
        compute_metrics=compute_metrics, processing_class=processor,
    )  # fmt: skip
    trainer.train()
    print(f"F1 {trainer.evaluate()['eval_f1']:.3f}")
    trainer.save_model()


if __name__ == "__main__":
    main()
