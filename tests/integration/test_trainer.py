"""A plain transformers Trainer fine-tunes the model, saves it and evaluates it, without a subclass."""

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_geaau import GeaauForExpressionEmbedding, GeaauModel

pytest.importorskip("accelerate", reason="the Trainer needs accelerate")


def arguments(folder) -> TrainingArguments:
    return TrainingArguments(
        str(folder), max_steps=3, per_device_train_batch_size=4, learning_rate=1e-3, report_to="none", use_cpu=True
    )


def test_trainer_fine_tunes_saves_and_gathers_logits_only(tiny_config, tmp_path):
    items = [{"pixel_values": torch.randn(3, 64, 64), "labels": torch.tensor([1.0, 0, -1])} for _ in range(12)]
    seen = {}

    def compute_metrics(prediction):
        seen["predictions"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {"mean": float(np.mean(prediction.predictions))}

    model = GeaauModel(tiny_config)
    before = model.classifier.weight.detach().clone()
    trainer = Trainer(
        model, arguments(tmp_path), train_dataset=items, eval_dataset=items, compute_metrics=compute_metrics
    )
    trainer.train()
    assert not torch.equal(before, model.classifier.weight)
    metrics = trainer.evaluate()
    assert np.isfinite(metrics["eval_loss"])
    assert seen["predictions"].shape == (12, 3)  # not the feature maps of the whole set
    assert seen["labels"].shape == (12, 3)
    trainer.save_model(str(tmp_path / "model"))
    again = GeaauModel.from_pretrained(tmp_path / "model")
    assert torch.equal(again.classifier.weight, model.classifier.weight)


def test_trainer_learns_from_triplets(tiny_config, tmp_path):
    items = [{"pixel_values": torch.randn(3, 3, 64, 64), "triplet_types": index % 3} for index in range(12)]
    settings = arguments(tmp_path)
    settings.remove_unused_columns = False
    trainer = Trainer(GeaauForExpressionEmbedding(tiny_config), settings, train_dataset=items)
    assert np.isfinite(trainer.train().training_loss)
