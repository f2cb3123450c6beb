"""Measure a checkpoint's network with every backend that is installed: crops per second, against eager torch.

A call takes a batch on one core, and `threads` calls run at once, as a stream makes them. Every round measures all
backends one after another, so that noise is shared; the ratio is the median over rounds. "change" is the largest
difference of a probability from eager torch. With --test, the mean AUC on labeled photos or rendered faces follows.

    python benchmarks/backends.py [CHECKPOINT] [--batches 1 16] [--threads 1 2] [--faces FACES] [--test TEST ...]
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from hf_geaau.backends import load_runner
from hf_geaau.backends.torch_runner import TorchRunner
from hf_geaau.errors import GeaauError
from hf_geaau.export import export, faces_for
from hf_geaau.inference import Runner
from hf_geaau.metrics import au_auc
from hf_geaau.models.loading import load_checkpoint
from hf_geaau.models.zoo import find_checkpoint

FACES = Path(__file__).parents[1] / "examples" / "faces.parquet"
CROPS = 128  # per measurement and thread


def runners(checkpoint: str | None, folder: Path, faces: Path) -> dict[str, Runner]:
    """Load every backend; exported networks are made in `folder`."""
    model, processor = load_checkpoint(checkpoint, must_predict=True)
    fast, _ = load_checkpoint(checkpoint, must_predict=True)
    found: dict[str, Runner] = {
        "torch": TorchRunner(model, processor, keep=()),
        "torch, bfloat16, channels last": TorchRunner(
            fast.to(memory_format=torch.channels_last), processor, keep=(), bf16=True
        ),
        "torch.compile": TorchRunner(torch.compile(model), processor, keep=()),
    }
    source = find_checkpoint(checkpoint)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(source / name, folder)
    crops, labels = faces_for(checkpoint, faces, aligned=True)
    networks = [(kind, dtype) for dtype in ("fp32", "fp16") for kind in ("onnx", "openvino")]
    for kind, dtype in [*networks, ("onnx", "int8")]:
        given = {"crops": crops, "labels": labels} if dtype == "int8" else {}
        try:
            path = export(checkpoint, folder, format=kind, dtype=dtype, **given).path
            found[f"{kind}, {dtype}"] = load_runner(path, backend=kind)
        except GeaauError as error:  # not installed, or refused
            print(f"{kind}, {dtype}: {error}")
    return found


def seconds(runner: Runner, batch: np.ndarray, threads: int) -> float:
    """Return the time that `threads` calls at once take for CROPS crops each."""
    calls = max(1, CROPS // len(batch))

    def work(_: int) -> None:
        for _ in range(calls):
            runner(batch)

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(lambda _: time.sleep(0.01), range(threads)))  # starts the threads
        start = time.perf_counter()
        list(pool.map(work, range(threads)))
        return (time.perf_counter() - start) / (calls * len(batch) * threads)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="directory or Hub id; default: the bundled checkpoint")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--faces", type=Path, default=FACES, help="aligned crops; int8 is calibrated on half of them")
    parser.add_argument("--test", type=Path, nargs="+", default=[], help="labeled photos (a table), rendered faces")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = runners(arguments.checkpoint, Path(folder), arguments.faces)
        size = found["torch"].facts.size
        pixels = np.random.default_rng(0).integers(0, 256, (max(arguments.batches), *size, 3)).astype(np.uint8)
        crops, _ = faces_for(arguments.checkpoint, arguments.faces, aligned=True, limit=64)
        plain = probabilities(found["torch"], crops)
        changes = {name: np.abs(probabilities(runner, crops) - plain).max() for name, runner in found.items()}
        settings = [(batch, threads) for batch in arguments.batches for threads in arguments.threads]
        times = {(name, setting): [] for name in found for setting in settings}  # type: ignore[var-annotated]
        for batch, threads in settings:
            for runner in found.values():
                seconds(runner, pixels[:batch], threads)  # warms up, and compiles
            for _ in range(arguments.rounds):
                for name, runner in found.items():
                    times[name, (batch, threads)].append(seconds(runner, pixels[:batch], threads))
    show(times, settings, changes)
    for test in arguments.test:
        crops, labels = faces_for(arguments.checkpoint, test, aligned=test.is_dir())
        scores = {
            name: au_auc(labels, runner.predict(crops).probabilities)["mean"]["auc"] for name, runner in found.items()
        }
        print(f"mean AUC on {len(crops)} faces: {', '.join(f'{name} {auc:.4f}' for name, auc in scores.items())}")


def probabilities(runner: Runner, crops: np.ndarray) -> np.ndarray:
    return np.asarray(runner(crops).probabilities)


def show(times: dict, settings: list[tuple[int, int]], changes: dict[str, float]) -> None:
    """Print crops per second and, in brackets, the ratio to eager torch."""
    titles = [f"batch {batch}, {threads} thread{'s' * (threads > 1)}" for batch, threads in settings]
    print(f"| backend | {' | '.join(titles)} | change |\n|---|{'--:|' * (len(settings) + 1)}")
    cell: Callable[[str, tuple[int, int]], str] = lambda name, setting: (  # noqa: E731
        f"{1 / np.median(times[name, setting]):.0f}"
        f" ({np.median(np.array(times['torch', setting]) / np.array(times[name, setting])):.1f}×)"
    )
    for name, change in changes.items():
        print(f"| {name} | {' | '.join(cell(name, setting) for setting in settings)} | {change:.1g} |")


if __name__ == "__main__":
    main()
