"""Fine-tune a checkpoint on your AU data with your own script: nothing but `transformers.Trainer`.

You will see the F1 of each epoch on people that were not trained on; OUTPUT is then a checkpoint directory. DATA is a
folder of rendered faces, of drawn ones, or of crops that `hf-geaau prepare` wrote.

    hf-geaau example-data synthetic faces
    python examples/finetune_trainer.py synthetic faces finetuned
"""

import argparse
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from hf_geaau import GeaauImageProcessor, GeaauModel
from hf_geaau.data import get_dataset, open_aligned
from hf_geaau.metrics import compute_metrics
from hf_geaau.pipeline import BUNDLED_CHECKPOINT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="synthetic, bp4d, bp4d_plus or disfa")
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--checkpoint", default=str(BUNDLED_CHECKPOINT), help="directory or Hub id")
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()

    units = get_dataset(args.dataset).aus
    model = GeaauModel.from_pretrained(args.checkpoint, dtype=torch.float32)
    if list(units) != model.config.action_units:
        model = model.with_action_units(list(units))  # AUs that both have keep their weights
    processor = GeaauImageProcessor.from_pretrained(args.checkpoint)
    train, test = (open_aligned(args.dataset, args.data, args.fold, split) for split in ("train", "test"))

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        batch = processor([row["image"] for row in rows], return_tensors="pt")
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}

    trainer = Trainer(
        model,
        TrainingArguments(
            str(args.output),
            num_train_epochs=args.epochs,
            learning_rate=3e-4,
            per_device_train_batch_size=32,
            eval_strategy="epoch",
            save_strategy="no",
            remove_unused_columns=False,  # `collate` reads the column "image"
            label_names=["labels"],
            report_to="none",
            use_cpu=args.cpu,
        ),
        data_collator=collate,
        train_dataset=train,
        eval_dataset=test,
        compute_metrics=compute_metrics,
        processing_class=processor,
    )
    trainer.train()
    model.config.trained_on = sorted({*(model.config.trained_on or []), args.dataset})
    trainer.save_model()


if __name__ == "__main__":
    main()
