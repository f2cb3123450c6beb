"""Measure how fast videos are analyzed: each stage alone and all together, taking turns in one run.

Prints a table of decoding, detection (with tracking in between), alignment and the network, each alone in one thread
and on all cores; then the speed from end to end beside three bounds. With --face-model, another table: the error of
detecting only in every k-th frame, against the truth of rendered clips; with --save and --compare, how far the points
and probabilities of another version differ. With --long: the memory over a long clip.

    python -m benchmarks.video                          # 7 rounds; for a first look --frames 60 --rounds 1
    python -m benchmarks.video --rounds 0 --face-model FOLDER
    python -m benchmarks.video --rounds 0 --face-model FOLDER --save old.npz     # in a checkout of the old version
    python -m benchmarks.video --rounds 0 --face-model FOLDER --compare old.npz
    python -m benchmarks.video --long 20000
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from skimage import data

from hf_geaau.detection import ActionUnitDetector
from hf_geaau.faces import Face
from hf_geaau.faces.five_points import upright_points
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.pipeline import load_pipeline
from hf_geaau.video.decoding import Frame, VideoReader
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import AnalyzedFrame, FaceStream, Settings, carry_on, cores
from hf_geaau.video.tables import TableWriter, columns, face_row
from hf_geaau.video.tracking import appearance_of

Task = Callable[[], Any]


def write_clip(path: Path, frames: Iterable[np.ndarray], options: dict[str, str]) -> Path:
    """Encode RGB frames, 25 a second, in H.264."""
    with av.open(str(path), "w") as container:
        stream: Any = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=25)
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
                stream.options = {"preset": "veryfast", **options}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    return path


def portrait_clip(path: Path, frames: int, size: tuple[int, int] = (640, 480)) -> Path:
    """NASA's portrait of Eileen Collins (public domain) swaying in front of gray."""
    person = cv2.resize(data.astronaut(), (460, 460))

    def picture(number: int) -> np.ndarray:
        canvas = np.full((480, 640, 3), 110, np.uint8)
        left = round(90 + 60 * np.sin(number / 20))
        canvas[20:480, left : left + 460] = person
        return cv2.resize(canvas, size)

    return write_clip(path, map(picture, range(frames)), {})


def measured(tasks: Sequence[Task], threads: int) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that a pool of threads takes for all tasks."""
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(lambda _: time.sleep(0.01), range(threads)))  # starts all threads
        start, cpu = time.perf_counter(), time.process_time()
        list(pool.map(lambda task: task(), tasks))
        return time.perf_counter() - start, time.process_time() - cpu


def detected(pipe: ActionUnitDetector, frames: Sequence[Frame], stride: int) -> list[list[Face]]:
    """Search the first of some frames, and find its faces again in the others, as a stream does."""
    found = [pipe.face_detector(frames[0].image)]
    for number, (before, after) in enumerate(pairwise(frames), 1):
        if number % stride:
            found.append(carry_on(before.image, after.image, found[-1]))
        else:
            found.append(pipe.face_detector(after.image, near=found[-1]))
    return found


def aligned(pipe: ActionUnitDetector, frame: Frame, faces: list[Face]) -> np.ndarray:
    """Cut the crops, and compute the appearance that tracks are matched by."""
    for face in faces:
        appearance_of(frame.image, face.points)
    return pipe.analyzer().crop(frame.image, faces)


def stages(pipe: ActionUnitDetector, clip: Path, settings: Settings) -> dict[str, list[Task]]:
    """Return the work of each stage over the same frames, in parts that threads can share."""
    frames = list(VideoReader(clip))
    length = settings.stride if settings.detect_every else 9  # at 25 frames a second
    groups = [frames[start : start + length] for start in range(0, len(frames), length)]
    faces = [each for group in groups for each in detected(pipe, group, settings.stride)]
    crops = np.concatenate([aligned(pipe, frame, here) for frame, here in zip(frames, faces, strict=True)])
    return {
        "decode only": [lambda: list(VideoReader(clip))],
        "detector only": [lambda group=group: detected(pipe, group, settings.stride) for group in groups],
        "alignment only": [
            lambda frame=frame, here=here: aligned(pipe, frame, here) for frame, here in zip(frames, faces, strict=True)
        ],
        "network only": [
            lambda part=part: pipe.runner(part) for part in np.array_split(crops, len(crops) // pipe.runner.batch_size)
        ],
    }


def mediapipe_on(clip: Path, peer: Sequence[str]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that MediaPipe takes, in its own environment."""
    python, model = peer
    command = [python, str(Path(__file__).with_name("mediapipe_speed.py")), str(clip), model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["cpu_seconds"]


def measure(count: int, rounds: int, settings: Settings, peer: Sequence[str] | None = None) -> None:
    """Measure in every round each stage in one thread and in all, and all together, so that noise is shared."""
    pipe, threads = load_pipeline(device="cpu"), settings.workers or cores()
    with tempfile.TemporaryDirectory() as folder:
        clip = portrait_clip(Path(folder) / "clip.mp4", count)
        work = stages(pipe, clip, settings)
        together: list[Task] = [lambda: list(FaceStream(pipe.analyzer(), settings).run([Source("video", str(clip))]))]
        measured(together, 1)  # warms up
        alone, shared, cpu, whole, peers = [], [], [], [], []
        for _ in range(rounds):
            one = [measured(tasks, 1) for tasks in work.values()]
            alone.append([seconds for seconds, _ in one])
            cpu.append([seconds for _, seconds in one])
            shared.append([measured(tasks, threads)[0] for tasks in work.values()])
            whole.append(measured(together, 1))
            peers += [mediapipe_on(clip, peer)] if peer else []
    print(f"640×480, one face, detection every {settings.stride} frames, {threads} threads;", end=" ")
    print(f"median of {rounds} rounds of {count} frames")
    print(f"| stage | frames/s in one thread | frames/s in {threads} | CPU ms per frame |\n|---|--:|--:|--:|")
    for name, *values in zip(work, *(np.median(times, axis=0) for times in (alone, shared, cpu)), strict=True):
        print(f"| {name} | {count / values[0]:.0f} | {count / values[1]:.0f} | {1000 * values[2] / count:.1f} |")
    taken, cpu_taken = np.median(whole, axis=0)
    print(f"| end to end | | {count / taken:.0f} | {1000 * cpu_taken / count:.1f} |")
    if peers:
        taken, cpu_taken = np.median(peers, axis=0)
        print(f"| MediaPipe FaceLandmarker | | {count / taken:.0f} | {1000 * cpu_taken / count:.1f} |")
    bounds = {
        "the slowest stage alone in one thread": np.max(alone, axis=1),
        f"the slowest stage alone in {threads} threads": np.max(shared, axis=1),
        f"all stages' CPU time spread over {threads} cores": np.sum(cpu, axis=1) / threads,
    }
    print("| end to end, as a share of | median | lowest | highest |\n|---|--:|--:|--:|")
    for name, seconds in bounds.items():
        ratios = seconds / np.array(whole)[:, 0]
        print(f"| {name} | {np.median(ratios):.2f} | {ratios.min():.2f} | {ratios.max():.2f} |")


def rendered_clips(face_model: str, folder: Path) -> list[tuple[Path, list[np.ndarray]]]:
    """Render four people who move, blink, speak and smile for two seconds each; return also their true points."""
    from benchmarks.clips import Act, Actor, render_clip
    from hf_geaau.synthetic import Renderer, load_face_model

    renderer = Renderer(load_face_model(face_model), supersample=1)
    acts = {12: [Act(0.3, 0.9, 1.5)], 25: [Act(0.4, 0.9, 1.4)], 1: [Act(1.4, 1.7, 2.0)], 43: [Act(0.1, 0.16, 0.22, 5)]}
    path = [(0, 250, 200), (1.0, 400, 230), (2, 300, 210)]
    clips = []
    for number in range(4):
        actor = Actor(10 + number, path, 45 + 15 * number, acts, 0.15 + 0.1 * number)
        frames = list(render_clip(renderer, [actor], 2.0, seed=5 + number))
        target = folder / f"{number}.mp4"
        write_clip(target, [frame.image for frame in frames], {"crf": "12"})
        clips.append((target, [frame.people[0].points for frame in frames]))
    return clips


Truth = list[tuple[Path, list[np.ndarray]]]


def largest_faces(pipe: ActionUnitDetector, clips: Truth, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Return points, (frames, 5, 2), and probabilities, (frames, AUs), of one face a frame; NaN if there is none."""
    width = len(pipe.runner.action_units)
    points, probabilities = [], []
    for path, _ in clips:
        for seen in FaceStream(pipe.analyzer(), settings).run([Source("video", str(path))]):
            if isinstance(seen, AnalyzedFrame):
                points.append(seen.faces[0].points if seen.faces else np.full((5, 2), np.nan))
                probabilities.append(seen.faces[0].probabilities if seen.faces else np.full(width, np.nan))
    return np.array(points), np.array(probabilities)


def shares(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the mean distance of corresponding points in each frame, as a share of the distance between the eyes."""
    eyes = np.linalg.norm(others[:, 1] - others[:, 0], axis=1)
    return np.linalg.norm(points - others, axis=2).mean(1) / eyes


def trade_off(pipe: ActionUnitDetector, clips: Truth) -> None:
    """Print the error of the points, the change of the probabilities and the time for each k."""
    truth = np.array([points for _, of_clip in clips for points in of_clip])
    in_every = None
    print("| detect every | error of points, share of eye distance | change of probabilities | CPU ms per frame |")
    print("|--:|--:|--:|--:|")
    for stride in (1, 2, 3, 5, 8, None):
        start = time.process_time()
        points, probabilities = largest_faces(pipe, clips, Settings(detect_every=stride))
        taken = 1000 * (time.process_time() - start) / len(truth)
        in_every = probabilities if in_every is None else in_every
        change, error = np.nanmean(np.abs(probabilities - in_every)), np.nanmedian(shares(points, truth))
        print(f"| {stride or 'default'} | {error:.1%} | {change:.4f} | {taken:.1f} |", flush=True)


def compare(pipe: ActionUnitDetector, clips: Truth, other: Path) -> None:
    """Print how far the results differ from those that another version saved."""
    truth = np.array([points for _, of_clip in clips for points in of_clip])
    points, probabilities = largest_faces(pipe, clips, Settings())
    before = np.load(other)
    errors = [np.nanmean(shares(each, truth)) for each in (before["points"], points)]
    missed = [int(np.isnan(each[:, 0, 0]).sum()) for each in (before["points"], points)]
    moved, changed = shares(points, before["points"]), np.abs(probabilities - before["probabilities"])
    print(f"points: error {errors[0]:.3%} before, {errors[1]:.3%} now; frames without a face {missed[0]}, {missed[1]}")
    print(f"points: moved by {np.nanmean(moved):.3%} of the eye distance in the mean, {np.nanmax(moved):.2%} at most")
    print(f"probabilities: changed by {np.nanmean(changed):.4f} in the mean, {np.nanmax(changed):.3f} at most")


class _StubAnalyzer(FaceAnalyzer):
    """Find one face in every frame at no cost, so that 20,000 frames take a minute: only memory is measured."""

    batch_size = 16

    def __init__(self, action_units: Sequence[str]) -> None:
        self.aligned, self.action_units = False, tuple(action_units)

    def find(self, image: np.ndarray, near: Sequence[Face] = ()) -> list[Face]:
        points = upright_points(64, 24).astype(np.float32)
        return [Face(np.float32([0, 0, 64, 64]), 0.9, points)]

    def crop(self, image: np.ndarray, faces: Sequence[Face]) -> np.ndarray:
        return np.zeros((len(faces), 112, 112, 3), np.uint8)

    def analyze(self, faces: Sequence[Face], crops: np.ndarray) -> list[Face]:
        values = crops[:, 0, : len(self.action_units), 0].astype(np.float32)
        thresholds = np.full(len(self.action_units), 0.5, np.float32)
        return [replace(face, action_units=self.action_units, probabilities=row, thresholds=thresholds)
                for face, row in zip(faces, values, strict=True)]  # fmt: skip


def memory(count: int) -> None:
    """Print resident memory while a long clip is decoded, grouped, followed, linked, batched and written as a table."""

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    labels = [f"AU{number:02d}" for number in range(1, 19)]
    with tempfile.TemporaryDirectory() as folder:
        clip = portrait_clip(Path(folder) / "clip.mp4", count, (128, 96))
        writer = TableWriter(Path(folder) / "table.parquet", columns(labels), {}, chunk_rows=1000)
        rows = 0
        for item in FaceStream(_StubAnalyzer(labels), Settings()).run([Source("video", str(clip))]):
            if isinstance(item, AnalyzedFrame):
                rows += len(item.faces)
                writer.add([face_row(item, index, face) for index, face in enumerate(item.faces)])
                if writer.is_due and item.checkpoint is not None:
                    writer.commit({"done": 0, "checkpoint": item.checkpoint()})
                if item.number % (count // 10) == count // 20:
                    print(f"frame {item.number}: {resident():.0f} MiB resident", flush=True)
        writer.commit({"done": 1, "checkpoint": None})
        writer.finish()
        print(f"{rows} rows written: {resident():.0f} MiB resident")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--detect-every", type=int, default=None)
    parser.add_argument("--workers", type=int, default=None, help="threads that compute; default: one per core")
    parser.add_argument("--face-model", default=None, help="ICT-FaceKit, for the trade-off of detection")
    parser.add_argument("--save", type=Path, default=None, help="write the results on the rendered clips here")
    parser.add_argument("--compare", type=Path, default=None, help="compare with what another version saved")
    parser.add_argument("--long", type=int, default=0, metavar="FRAMES", help="measure memory over so many frames")
    parser.add_argument(
        "--peer", nargs=2, metavar=("PYTHON", "TASK"), help="a Python with MediaPipe, and face_landmarker.task"
    )
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if arguments.long:
        memory(arguments.long)
        return
    if arguments.rounds:
        settings = Settings(1, None, arguments.detect_every, workers=arguments.workers)
        measure(arguments.frames, arguments.rounds, settings, arguments.peer)
    if arguments.face_model:
        pipe = load_pipeline(device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            clips = rendered_clips(arguments.face_model, Path(folder))
            if arguments.save:
                points, probabilities = largest_faces(pipe, clips, Settings())
                np.savez(arguments.save, points=points, probabilities=probabilities)
            elif arguments.compare:
                compare(pipe, clips, arguments.compare)
            else:
                trade_off(pipe, clips)


if __name__ == "__main__":
    main()
