"""How fast videos are analysed: frames/s of each stage alone and of all together, taking turns in one run.

You will see a table: decoding, detecting (with following in between) and the network, each alone in one thread, then
end to end; and, over the rounds, the median ratio of end to end to the slowest stage alone. With --face-model, another
table: what detecting in every k-th frame costs in accuracy, against truth. With --long, the memory over 20,000 frames.

    python examples/benchmark_video.py
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from skimage import data

from hf_geaau.faces import Face
from hf_geaau.five_points import upright_points
from hf_geaau.pipeline import FacialActionUnitPipeline, _StreamNetwork, load_pipeline
from hf_geaau.video.decoding import VideoReader
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import FaceStream, SeenFrame, Settings, _Group


def portrait_clip(path: Path, frames: int, size: tuple[int, int] = (640, 480)) -> Path:
    """NASA's portrait of Eileen Collins (public domain) swaying in front of grey, in H.264."""
    person = cv2.resize(data.astronaut(), (460, 460))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "veryfast"}
        for number in range(frames):
            picture = np.full((480, 640, 3), 110, np.uint8)
            left = round(90 + 60 * np.sin(number / 20))
            picture[20:480, left : left + 460] = person
            picture = cv2.resize(picture, size)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def stages(pipe: FacialActionUnitPipeline, clip: Path, settings: Settings) -> dict[str, Callable[[], object]]:
    """Each stage alone, over the same frames, and all together."""
    network = _StreamNetwork(pipe, False, 0.6, {"masks": False, "embedding": False})
    stream, source = FaceStream(network, settings), Source("video", str(clip))
    frames = list(VideoReader(clip))
    step = settings.detect_every
    groups = [_Group(0, source, frames[start : start + step]) for start in range(0, len(frames), step)]
    found = [one for group in groups for one in stream._search(group)]
    crops = torch.cat([one.crops for one in found if one.crops is not None])
    return {
        "decode only": lambda: list(VideoReader(clip)),
        "detector only": lambda: [stream._search(group) for group in groups],
        "network only": lambda: [network.analyse(part) for part in crops.split(settings.batch_size)],
        "end to end": lambda: list(FaceStream(network, settings).run([source])),
    }


def measure(frames: int, rounds: int, settings: Settings) -> None:
    pipe = load_pipeline(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        work = stages(pipe, portrait_clip(Path(folder) / "clip.mp4", frames), settings)
        times = np.array([[seconds(stage) for stage in work.values()] for _ in range(rounds)])
    print(f"640×480, one face, detection in every {settings.detect_every}. frame; {rounds} rounds of {frames} frames")
    print("| stage | frames/s, median |\n|---|--:|")
    for name, taken in zip(work, np.median(times, axis=0), strict=True):
        print(f"| {name} | {frames / taken:.0f} |")
    ratios = times[:, :3].max(axis=1) / times[:, 3]
    print(f"end to end / slowest stage alone: {np.median(ratios):.2f} (from {ratios.min():.2f} to {ratios.max():.2f})")


def trade_off(face_model: str) -> None:
    """Error of the points, change of the probabilities and time for each k, on rendered clips."""
    from hf_geaau.synthetic import Act, Actor, Renderer, load_face_model, render_clip

    renderer = Renderer(load_face_model(face_model), supersample=1)
    acts = {12: [Act(0.3, 0.9, 1.5)], 25: [Act(0.4, 0.9, 1.4)], 1: [Act(1.4, 1.7, 2.0)], 43: [Act(0.1, 0.16, 0.22, 5)]}
    path = [(0, 250, 200), (1.0, 400, 230), (2, 300, 210)]
    actors = [Actor(10 + n, path, 45 + 15 * n, acts, 0.15 + 0.1 * n) for n in range(4)]
    clips = [list(render_clip(renderer, [actor], 2.0, seed=5 + n)) for n, actor in enumerate(actors)]
    pipe, every = load_pipeline(device="cpu"), {}
    print("| detect every | error of points, share of eye distance | change of probabilities | CPU ms per frame |")
    print("|--:|--:|--:|--:|")
    for step in (1, 2, 3, 5, 8):
        network = _StreamNetwork(pipe, False, 0.6, {"masks": False, "embedding": False})
        stream = FaceStream(network, Settings(detect_every=step))
        errors, taken = [], 0.0
        for place, clip in enumerate(clips):
            frames = [SeenFrame(0, Source("video", ""), n, n / 25, [], frame.image) for n, frame in enumerate(clip)]
            start = time.process_time()
            found = [
                one for begin in range(0, len(frames), step) for one in stream._search(_grouped(frames, begin, step))
            ]
            taken += time.process_time() - start
            probabilities = network.analyse(torch.cat([one.crops[:1] for one in found]))["probabilities"]
            every.setdefault(place, probabilities)
            for one, frame in zip(found, clip, strict=True):
                truth = frame.people[0].points
                distance = np.linalg.norm(one.faces[0].points - truth, axis=1).mean()
                errors.append(distance / np.linalg.norm(truth[1] - truth[0]))
            every[place, step] = np.abs(probabilities - every[place]).mean()
        change = np.mean([every[place, step] for place in range(len(clips))])
        print(f"| {step} | {np.median(errors):.1%} | {change:.4f} | {1000 * taken / len(errors):.1f} |", flush=True)


def _grouped(frames: list[SeenFrame], begin: int, step: int) -> _Group:
    from hf_geaau.video.decoding import Frame

    part = [Frame(seen.number, seen.time_s, seen.image) for seen in frames[begin : begin + step]]
    return _Group(0, frames[0].source, part)


class _StubNetwork:
    """Sees one face in every frame at no cost, so that 20,000 frames take a minute: memory is what is measured."""

    def find(self, image: np.ndarray) -> list[Face]:
        points = upright_points(64, 24).astype(np.float32)
        return [Face(np.float32([0, 0, 64, 64]), 0.9, points)]

    def crop(self, image: np.ndarray, points: np.ndarray) -> torch.Tensor:
        return torch.zeros(len(points), 3, 112, 112)

    def analyse(self, crops: torch.Tensor) -> dict[str, np.ndarray]:
        return {"probabilities": crops[:, 0, 0, :18].numpy()}


def memory(count: int) -> None:
    """Resident memory while a long clip is decoded, grouped, followed, linked, batched and written as a table."""
    import os

    from hf_geaau.video.tables import TableWriter, columns, row_of

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    labels = [f"AU{number:02d}" for number in range(1, 19)]
    face = {"score": 0.9, "box": dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), 1.0), "points": np.zeros((5, 2))}
    face |= {"roll": 0.0, "yaw": 0.0, "action_units": dict.fromkeys(labels, 0.5), "present": []}
    with tempfile.TemporaryDirectory() as folder:
        clip = portrait_clip(Path(folder) / "clip.mp4", count, (128, 96))
        writer = TableWriter(Path(folder) / "table.parquet", columns(labels), {}, chunk_rows=1000)
        rows = 0
        for item in FaceStream(_StubNetwork(), Settings()).run([Source("video", str(clip))]):
            if isinstance(item, SeenFrame):
                rows += len(item.faces)
                writer.add([row_of(item, n, seen.track, face) for n, seen in enumerate(item.faces)])
                if writer.is_due and item.checkpoint is not None:
                    writer.commit({"done": 0, "checkpoint": item.checkpoint()})
                if item.number % (count // 10) == count // 20:
                    print(f"frame {item.number}: {resident():.0f} MiB resident", flush=True)
        writer.commit({"done": 1, "checkpoint": None})
        writer.finish()
        print(f"{rows} rows written: {resident():.0f} MiB resident")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=None, help="threads that detect")
    parser.add_argument("--face-model", default=None, help="ICT-FaceKit, for the trade-off of detection")
    parser.add_argument("--long", type=int, default=0, metavar="FRAMES", help="measure memory over so many frames")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if arguments.long:
        memory(arguments.long)
        return
    if arguments.rounds:
        measure(arguments.frames, arguments.rounds, Settings(workers=arguments.workers))
    if arguments.face_model:
        trade_off(arguments.face_model)


if __name__ == "__main__":
    main()
