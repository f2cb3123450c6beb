"""Measure the cost of GTLE-Net over its backbone: images/s of GeaauModel and of the bare timm model in one run.

Prints a row per backbone and batch size. The two models take turns, so that other load slows both alike; the ratio is
the median over the rounds.

    OMP_NUM_THREADS=2 python benchmarks/forward.py
"""

import argparse
import time

import numpy as np
import timm
import torch

from hf_geaau import GeaauConfig, GeaauModel


def seconds(model: torch.nn.Module, pixel_values: torch.Tensor) -> float:
    start = time.perf_counter()
    model(pixel_values)
    return time.perf_counter() - start


@torch.inference_mode()
def compare(backbone: str, batch: int, rounds: int) -> tuple[float, float, float]:
    """Return images/s of the bare backbone, images/s of GeaauModel, and their ratio."""
    bare = timm.create_model(backbone, num_classes=0).eval()
    ours = GeaauModel(GeaauConfig(backbone=backbone)).eval()
    pixel_values = torch.randn(batch, 3, 224, 224)
    for model in (bare, ours) * 2:
        model(pixel_values)
    times = np.array([(seconds(bare, pixel_values), seconds(ours, pixel_values)) for _ in range(rounds)])
    bare_rate, our_rate = batch / np.median(times, axis=0)
    return float(bare_rate), float(our_rate), float(np.median(times[:, 0] / times[:, 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    print(f"12 AUs, 224 px, float32, {torch.get_num_threads()} threads")
    print("| backbone | batch | bare timm, images/s | GeaauModel, images/s | ratio |\n|---|--:|--:|--:|--:|")
    for backbone in ("mobilenetv4_conv_small", "resnet50"):
        for batch in (1, 16):
            bare, ours, ratio = compare(backbone, batch, args.rounds if batch > 1 else 4 * args.rounds)
            print(f"| {backbone} | {batch} | {bare:.1f} | {ours:.1f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
