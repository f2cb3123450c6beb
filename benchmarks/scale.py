"""Measure prediction on Ray: photos, videos, start, one and two workers, fake workers, memory.

One process without Ray takes turns with Ray over the same inputs. Rates are given per second and per CPU second, which
depends little on what else the machine does.

    python -m benchmarks.scale --photos 600 --clips 12
    python -m benchmarks.scale --fake 1 10 100
    python -m benchmarks.scale --tiny 100000
"""

import argparse
import functools
import shutil
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.video import portrait_clip
from hf_geaau import distributed
from hf_geaau.backends import load_analyzer
from hf_geaau.distributed import Job, Unit, predict_on_ray
from hf_geaau.video.decoding import VideoReader
from hf_geaau.video.run import predict_to_table
from hf_geaau.video.stream import Settings

UNIT = 50  # photos of a unit in this benchmark
CLIP_S, FRAMES_PER_SECOND = 20, 25


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
            held = 0.0
            for each in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    held += each.memory_info().rss / 2**20 if "_Worker" in " ".join(each.cmdline()) else 0.0
            self.driver, self.all = max(self.driver, own), max(self.all, own + held)
            self.history.append(own + held)


@dataclass
class Course:
    """How a run went: its seconds, and when each unit ended, with the CPU seconds that all its processes had taken.

    Attributes:
        seconds: From start to end.
        ends: Seconds and CPU seconds after each unit.
    """

    seconds: float = 0.0
    ends: list[tuple[float, float]] = field(default_factory=list)


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those it started: Ray's own and the workers."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system
    return total


def timed(run: Any) -> Course:
    """Return how a run went, which is called with what takes its progress."""
    course = Course()
    began, used = time.perf_counter(), cpu_seconds()

    def take(done: int, total: int) -> None:
        course.ends.append((time.perf_counter() - began, cpu_seconds() - used))

    run(take)
    course.seconds = time.perf_counter() - began
    return course


def handed_over(inputs: list[Path], work: Path, photos: int) -> tuple[float, int]:
    """Return how many bytes of units go through Ray's object store, and how many units."""
    import pyarrow.parquet as pq

    _, _, units = distributed._write_plan(inputs, work / "plan.parquet", photos, ("image", None))
    return pq.read_table(work / "plan.parquet").nbytes, units


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


def measure(inputs: list[Path], amount: float, work: Path, rounds: int, **options: Any) -> None:
    """Print what one process, one worker and two workers do with the same inputs, in turn; medians of the rounds.

    Seconds depend on what else the machine does; CPU seconds hardly do.
    """
    analyzer = load_analyzer(backend="onnx")
    found: dict[int, list[tuple[float, ...]]] = {0: [], 1: [], 2: []}
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        predict_to_table(inputs, work / "alone.parquet", analyzer, Settings(workers=1), overwrite=True)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        found[0].append((amount / seconds, amount / cpu, 0.0, 1.0, 1.0))
        alone = found[0][-1]
        for workers in (1, 2):
            run = functools.partial(predict_on_ray, inputs, work / "ray.parquet", workers=workers, **options)
            course = timed(lambda show, run=run: run(backend="onnx", overwrite=True, progress=show))
            (first, early), (last, late) = course.ends[workers - 1], course.ends[-1]  # once all are there
            done = amount * (len(course.ends) - workers) / len(course.ends)
            rate, per_core = done / (last - first), done / (late - early)
            start = course.seconds - amount / rate
            found[workers].append((rate, per_core, start, rate / alone[0], per_core / alone[1]))
    for workers, title in enumerate(("one process, one thread", "Ray, 1 worker", "Ray, 2 workers")):
        rate, per_core, start, gain, efficiency = np.median(found[workers], axis=0)
        spread = ", ".join(f"{each[3]:.2f}" for each in found[workers])
        print(
            f"| {title} | {rate:.2f} | {per_core:.2f} | {start:.1f} | {gain:.2f} ({spread}) | {efficiency:.2f} |",
            flush=True,
        )


HEADER = (
    "| {} | {} | per CPU s | start, s | rate, of one process (rounds) | per CPU s, of it |\n|---|--:|--:|--:|--:|--:|"
)


def decoding(video: Path) -> None:
    """Print how fast a video is read without looking at it, as a range does with what comes before it."""
    with closing(VideoReader(str(video), start=10**9)) as reader:
        used = time.process_time()
        list(reader)
        print(f"decoding alone: {reader.decoded / (time.process_time() - used):.0f} frames per CPU second", flush=True)


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
        course = timed(lambda show, job=job, units=units: distributed._run(job, units, units, show))
        seconds, ends = course.seconds, [second for second, _ in course.ends]
        steady = np.array(ends)[count:] if len(ends) > 2 * count else np.array(ends)
        rate = (len(steady) - 1) / (steady[-1] - steady[0])
        print(
            f"| {count} | {units} | {seconds:.0f} | {ends[0]:.0f} | {rate:.1f} | {rate * SECONDS / count:.0%} |"
            f" {course.ends[-1][1] / units:.2f} |",
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
    parser.add_argument("--clips", type=int, default=0, help="videos of 20 s with one face, 640×480")
    parser.add_argument("--rounds", type=int, default=3, help="how often one process and Ray take turns")
    parser.add_argument("--tiny", type=int, default=0, help="blank pictures: memory")
    parser.add_argument("--fake", type=int, nargs="*", default=[], help="numbers of workers that only wait")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if arguments.photos:
            print(HEADER.format("photos", "photos/s"))
            folder = pictures(work / "photos", arguments.photos)
            measure([folder], arguments.photos, work, arguments.rounds, photos=UNIT)
            size, units = handed_over([folder], work, distributed.PHOTOS)
            print(f"through the object store: {size / arguments.photos:.0f} bytes a photo, {units} units")
        if arguments.clips:
            print(HEADER.format("video", "s of video a second"))
            clip = portrait_clip(work / "clip.mp4", CLIP_S * FRAMES_PER_SECOND)
            (work / "clips").mkdir()
            for number in range(arguments.clips):
                shutil.copy(clip, work / "clips" / f"{number}.mp4")
            measure([work / "clips"], arguments.clips * CLIP_S, work, arguments.rounds)
            decoding(clip)
        if arguments.tiny:
            folder = pictures(work / "tiny", arguments.tiny, side=16)
            with Peak() as peak:
                course = timed(
                    lambda show: predict_on_ray([folder], work / "tiny.parquet", backend="onnx", progress=show)
                )
            half = max(peak.history[: len(peak.history) // 2])
            print(
                f"{arguments.tiny} pictures in {course.seconds:.0f} s: at most {half:.0f} MiB in the first half,",
                end=" ",
            )
            print(f"{peak.all:.0f} MiB in all, {peak.driver:.0f} MiB of them the driver")
        if arguments.fake:
            print(
                "| workers | units | s | first unit after, s | units/s | of the ideal | CPU s per unit |"
                "\n|--:|--:|--:|--:|--:|--:|--:|"
            )
            fake(arguments.fake, work)


if __name__ == "__main__":
    main()
