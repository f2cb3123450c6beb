"""Measure how fast prepared crops are read, beside a plain PIL loop over the same JPEG files.

Prints images per second decoded from the parquet shards that `prepare` writes and from single files, with one and two
processes, and their ratio. Both are read in the same random order, taking turns in the same processes. Medians count.
"""

import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import datasets
from PIL import Image

from hf_geaau.data import prepare, write_example

IDENTITIES, FRAMES, SIZE, ROUNDS = 100, 20, 224, 11


def from_parquet(folder, cache, part, parts):
    data = datasets.load_dataset(folder, "all", split="train", cache_dir=cache)
    data = data.select_columns("image")
    return (lambda index: data[index]["image"].convert("RGB")), range(part, len(data), parts)


def from_files(folder, _cache, part, parts):
    paths = sorted(Path(folder).glob("*.jpg"))
    return (lambda index: Image.open(paths[index]).convert("RGB")), range(part, len(paths), parts)


def worker(folders, cache, part, parts, start, results):
    """Read rounds in turn from parquet and from files, so that a slow process slows both."""
    readers = [from_parquet(folders[0], cache, part, parts), from_files(folders[1], cache, part, parts)]
    orders = [sorted(indices, key=lambda index: hash((index, 7))) for _, indices in readers]
    for _ in range(ROUNDS + 1):
        for (read, _indices), order in zip(readers, orders, strict=True):
            start.wait()
            began = time.perf_counter()
            for index in order:
                read(index)
            results.put((len(order), began, time.perf_counter()))
            start.wait()


def measure(folders, cache, workers):
    """Return images/s from parquet and from files, (rounds, 2), read by several processes at once."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(workers + 1), context.Queue()
    for part in range(workers):
        context.Process(target=worker, args=(folders, cache, part, workers, start, results), daemon=True).start()
    speeds = []
    for _ in range(2 * (ROUNDS + 1)):
        start.wait()
        parts = [results.get() for _ in range(workers)]
        start.wait()
        seconds = max(end for _, _, end in parts) - min(began for _, began, _ in parts)
        speeds.append(sum(count for count, _, _ in parts) / seconds)
    return list(zip(speeds[2::2], speeds[3::2], strict=True))  # the first round warms up


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # Aligned already, so that no face is detected; few faces, each repeated, because only their size matters.
        renders = write_example("synthetic", root / "renders", identities=IDENTITIES, frames=FRAMES, size=SIZE)
        prepare("synthetic", renders, root / "crops", size=SIZE, workers=1)
        (root / "files").mkdir()
        data = datasets.load_dataset(str(root / "crops"), "all", split="train", cache_dir=str(root / "cache"))
        data = data.cast_column("image", datasets.Image(decode=False))
        for index, row in enumerate(data):
            (root / "files" / f"{index:06d}.jpg").write_bytes(row["image"]["bytes"])
        side = Image.open(io.BytesIO(data[0]["image"]["bytes"])).width
        print(f"{len(data)} crops of {side} pixels, {len(data[0]['image']['bytes']) / 1000:.1f} kB; median of {ROUNDS}")
        for workers in (1, 2):
            pairs = measure((str(root / "crops"), str(root / "files")), str(root / "cache"), workers)
            speeds = [statistics.median(column) for column in zip(*pairs, strict=True)]
            ratio = statistics.median(first / second for first, second in pairs)
            print(
                f"{workers} worker(s): parquet {speeds[0]:6.0f} images/s, PIL over files {speeds[1]:6.0f} images/s, "
                f"ratio {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
