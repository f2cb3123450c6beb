"""Fine-tune the bundled checkpoint on DISFA with a plain Trainer, and push the result with its card.

You will see the loss, F1 on people that it was not trained on, and where the weights went: to a private repository,
because DISFA is licensed. Without --data-dir it rehearses on a small imitation with drawn faces. Log in first with
`hf auth login`.

    python examples/finetune_and_push.py --repo OWNER/NAME --contact "Ada Example, ada@example.org" \
        --intended-use "To compare protocols" --data-agreement "Signed by Example University in 2025"
"""

import argparse
import json
import tempfile
from pathlib import Path

import datasets
import torch
from transformers import Trainer, TrainingArguments

from hf_geaau import GeaauImageProcessor, GeaauModel, facs
from hf_geaau.data import write_example
from hf_geaau.hub import push
from hf_geaau.metrics import compute_metrics
from hf_geaau.model_card import Statements
from hf_geaau.models.zoo import BUNDLED_CHECKPOINT
from hf_geaau.data import prepare


def rehearsal(folder: Path) -> Path:
    """Write an imitation of DISFA, all invented, and cut its faces."""
    write_example("disfa", folder / "disfa", cameras=("left",), subjects_per_part=1, frames=4)
    prepare("disfa", folder / "disfa", folder / "crops", size=112, workers=1, camera="left")
    return folder / "crops"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", required=True, help="OWNER/NAME")
    parser.add_argument("--data-dir", type=Path, help="what `hf-geaau prepare disfa` wrote; default: an imitation")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("runs/finetuned"))
    for name in ("contact", "intended-use", "license", "data-agreement"):
        parser.add_argument(f"--{name}", default="", help="for the card; see `hf-geaau push --help`")
    args = parser.parse_args()

    crops = args.data_dir or rehearsal(Path(tempfile.mkdtemp()))
    data = datasets.load_dataset(str(crops), "fold1")

    model = GeaauModel.from_pretrained(BUNDLED_CHECKPOINT).with_action_units(list(facs.DISFA))
    model.config.trained_on = [*model.config.trained_on, "disfa"]  # the licence travels with the weights
    processor = GeaauImageProcessor.from_pretrained(BUNDLED_CHECKPOINT)

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        pixels = processor([row["image"].convert("RGB") for row in rows], return_tensors="pt").pixel_values
        return {"pixel_values": pixels, "labels": torch.tensor([row["labels"] for row in rows])}

    arguments = TrainingArguments(
        str(args.output),
        max_steps=args.steps,
        per_device_train_batch_size=8,
        learning_rate=3e-4,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=data["train"],
        eval_dataset=data["test"],
        compute_metrics=compute_metrics,
    )
    trainer.train()
    scores = trainer.evaluate()
    print(json.dumps({name: value for name, value in scores.items() if "f1" in name}, indent=1))
    trainer.save_model(str(args.output))
    processor.save_pretrained(args.output)

    said = {name: getattr(args, name) for name in ("contact", "intended_use", "license", "data_agreement")}
    pushed = push(args.output, args.repo, Statements(**said))
    print(f"{'private' if pushed.private else 'public'} at {pushed.url}")


if __name__ == "__main__":
    main()
