"""Measure prediction on Ray: photos/s, seconds of video a second, start, one and two workers, fake workers, memory.

Each figure stands beside the same inputs in one process without Ray, in the same run.

    python benchmarks/scale.py --photos 600 --video-s 60
    python benchmarks/scale.py --fake 1 10 100
    python benchmarks/scale.py --tiny 100000
"""

import argparse
import functools
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.video import portrait_clip
from hf_geaau import distributed
from hf_geaau.backends import load_analyzer
from hf_geaau.distributed import Job, Unit, predict_on_ray
from hf_geaau.video.run import predict_to_table
from hf_geaau.video.stream import Settings

UNIT = 50  # photos of a unit in this benchmark
FRAMES_PER_SECOND = 25


class Peak:
    """The most memory that this process and its workers take together, and this process alone, in MiB."""

    def __init__(self) -> None:
        self.all = self.driver = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.history: list[float] = []

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            own = psutil.Process().memory_info().rss / 2**20
            workers = [
                each for each in psutil.process_iter(["cmdline"]) if "_Worker" in " ".join(each.info["cmdline"] or [])
            ]
            held = sum(each.memory_info().rss for each in workers if each.is_running()) / 2**20
            self.driver, self.all = max(self.driver, own), max(self.all, own + held)
            self.history.append(own + held)


def timed(run: Any) -> tuple[float, list[float]]:
    """Return the seconds that a run takes, and when each of its units ended."""
    ends: list[float] = []
    began = time.perf_counter()
    run(lambda done, total: ends.append(time.perf_counter() - began))
    return time.perf_counter() - began, ends


def pictures(folder: Path, count: int, side: int | None = None) -> Path:
    """Write copies of a portrait, or blank pictures of a few pixels."""
    folder.mkdir()
    if side is None:
        from skimage import data

        first = Image.fromarray(data.astronaut())
    else:
        first = Image.new("RGB", (side, side), "gray")
    first.save(folder / "0.jpg", quality=90)
    content = (folder / "0.jpg").read_bytes()
    for number in range(1, count):
        (folder / f"{number}.jpg").write_bytes(content)
    return folder


def measure(inputs: list[Path], amount: float, work: Path, **options: Any) -> None:
    """Print what one process, one worker and two workers do with the same inputs."""
    analyzer = load_analyzer(backend="onnx")
    alone, _ = timed(lambda _: predict_to_table(inputs, work / "alone.parquet", analyzer, Settings(workers=1)))
    print(f"| one process, one thread | {amount / alone:.2f} | | 1.00 |")
    for workers in (1, 2):
        run = functools.partial(predict_on_ray, inputs, work / f"ray{workers}.parquet", workers=workers, **options)
        seconds, ends = timed(lambda show, run=run: run(backend="onnx", progress=show))
        rate = amount * (len(ends) - workers) / len(ends) / (ends[-1] - ends[workers - 1])  # once all are there
        title = f"Ray, {workers} worker{'s' * (workers > 1)}"
        print(f"| {title} | {rate:.2f} | {seconds - amount / rate:.1f} | {rate * alone / amount:.2f} |", flush=True)


class Sleeper:
    """A worker that only waits."""

    def __init__(self, job: Job) -> None:
        pass

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        time.sleep(SECONDS)
        return {"name": batch["name"]}


SECONDS = 2.0  # that a fake unit takes; a real one takes 5 to 60


def fake(counts: list[int], work: Path) -> None:
    """Print how many units fake workers do, of those that they could do without overhead."""
    import ray

    distributed._Worker = Sleeper  # type: ignore[misc, assignment]
    for count in counts:
        ray.init("local", num_cpus=count + 1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        job = Job(work / f"fake{count}", Settings(), {}, 600.0)
        job.folder.mkdir()
        units = max(20, 8 * count)
        _write(job, units)
        seconds, ends = timed(lambda show, job=job, units=units: distributed._run(job, units, units, show))
        steady = np.array(ends)[count:] if len(ends) > 2 * count else np.array(ends)
        rate = (len(steady) - 1) / (steady[-1] - steady[0])
        print(
            f"| {count} | {units} | {seconds:.0f} | {ends[0]:.0f} | {rate:.1f} | {rate * SECONDS / count:.0%} |",
            flush=True,
        )
        ray.shutdown()


def _write(job: Job, units: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [Unit(f"{number:08d}", "photos", [("photo", "a.jpg")] * UNIT).to_row() for number in range(units)]
    pq.write_table(pa.Table.from_pylist(rows), job.folder / distributed.PLAN)


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=0, help="portraits of 512 px")
    parser.add_argument("--video-s", type=int, default=0, help="seconds of a video with one face, 640×480")
    parser.add_argument("--tiny", type=int, default=0, help="blank pictures: memory")
    parser.add_argument("--fake", type=int, nargs="*", default=[], help="numbers of workers that only wait")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if arguments.photos:
            print("| photos | photos/s | start, s | of one process |\n|---|--:|--:|--:|")
            folder = pictures(work / "photos", arguments.photos)
            measure([folder], arguments.photos, work, photos=UNIT)
        if arguments.video_s:
            print("| video | s of video a second | start, s | of one process |\n|---|--:|--:|--:|")
            (work / "video").mkdir()
            video = portrait_clip(work / "video.mp4", arguments.video_s * FRAMES_PER_SECOND)
            measure([video], arguments.video_s, work / "video", range_s=arguments.video_s / 6)
        if arguments.tiny:
            folder = pictures(work / "tiny", arguments.tiny, side=16)
            with Peak() as peak:
                seconds, _ = timed(
                    lambda show: predict_on_ray([folder], work / "tiny.parquet", backend="onnx", progress=show)
                )
            half = max(peak.history[: len(peak.history) // 2])
            print(f"{arguments.tiny} pictures in {seconds:.0f} s: at most {half:.0f} MiB in the first half,", end=" ")
            print(f"{peak.all:.0f} MiB in all, {peak.driver:.0f} MiB of them the driver")
        if arguments.fake:
            print("| workers | units | s | first unit after, s | units/s | of the ideal |\n|--:|--:|--:|--:|--:|--:|")
            fake(arguments.fake, work)


if __name__ == "__main__":
    main()
