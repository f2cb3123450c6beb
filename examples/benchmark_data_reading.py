"""Measure how fast prepared crops are read, beside a plain PIL loop over the same JPEG files.

You see images per second decoded from the parquet shards that `prepare` writes and from single files, with one and two
processes, and their ratio. Both read in the same random order; rounds alternate, and the median counts.
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

from hf_geaau.data import write_example
from hf_geaau.prepare import prepare

IDENTITIES, FRAMES, SIZE, ROUNDS = 100, 20, 224, 11


def from_parquet(folder, cache, part, parts):
    data = datasets.load_dataset(folder, "all", split="train", cache_dir=cache)
    data = data.select_columns("image")
    return (lambda place: data[place]["image"].convert("RGB")), range(part, len(data), parts)


def from_files(folder, _cache, part, parts):
    paths = sorted(Path(folder).glob("*.jpg"))
    return (lambda place: Image.open(paths[place]).convert("RGB")), range(part, len(paths), parts)


def worker(make, folder, cache, part, parts, start, results):
    read, places = make(folder, cache, part, parts)
    read(places[0])
    order = sorted(places, key=lambda place: hash((place, 7)))
    for _ in range(ROUNDS + 1):
        start.wait()
        began = time.perf_counter()
        for place in order:
            read(place)
        results.put((len(order), began, time.perf_counter()))
        start.wait()


def crew(make, folder, cache, workers):
    """Start processes that read a round each time they are let go; gives a function that runs one round."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(workers + 1), context.Queue()
    for part in range(workers):
        arguments = (make, folder, cache, part, workers, start, results)
        context.Process(target=worker, args=arguments, daemon=True).start()

    def run():
        start.wait()
        rounds = [results.get() for _ in range(workers)]
        start.wait()
        seconds = max(end for _, _, end in rounds) - min(began for _, began, _ in rounds)
        return sum(count for count, _, _ in rounds) / seconds

    return run


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # Aligned already, so nothing is searched for; a few faces many times, because only their size matters here.
        renders = write_example("synthetic", root / "renders", identities=IDENTITIES, frames=FRAMES, size=SIZE)
        prepare("synthetic", renders, root / "crops", size=SIZE, workers=1)
        (root / "files").mkdir()
        data = datasets.load_dataset(str(root / "crops"), "all", split="train", cache_dir=str(root / "cache"))
        data = data.cast_column("image", datasets.Image(decode=False))
        for place, row in enumerate(data):
            (root / "files" / f"{place:06d}.jpg").write_bytes(row["image"]["bytes"])
        side = Image.open(io.BytesIO(data[0]["image"]["bytes"])).width
        print(f"{len(data)} crops of {side} pixels, {len(data[0]['image']['bytes']) / 1000:.1f} kB; median of {ROUNDS}")
        for workers in (1, 2):
            ours = crew(from_parquet, str(root / "crops"), str(root / "cache"), workers)
            plain = crew(from_files, str(root / "files"), "", workers)
            pairs = [(ours(), plain()) for _ in range(ROUNDS + 1)][1:]  # the first round warms up
            speeds = [statistics.median(column) for column in zip(*pairs, strict=True)]
            ratio = statistics.median(first / second for first, second in pairs)
            print(
                f"{workers} worker(s): parquet {speeds[0]:6.0f} images/s, PIL over files {speeds[1]:6.0f} images/s, "
                f"ratio {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
