"""Measure how fast faces are rendered, beside two references in the same run.

Prints images per second of one process and of all workers once they have started, the milliseconds of the parts (some
contain others), and the ratio to numpy's product of all 155 shapes with their weights and to Pillow's JPEG encoder.

    python benchmarks/rendering.py --face-model ICT-FaceKit
"""

import argparse
import io
import os
import time
from collections import defaultdict

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", LP_NUM_THREADS="1")  # one core per process

import numpy as np
from PIL import Image

from hf_geaau.synthetic import Renderer, iter_renders, load_face_model, rendering, sample_scene

COUNT, SIZE, IMAGES_PER_IDENTITY = 120, 128, 8
spent: dict[str, float] = defaultdict(float)


def timed(owner, name, part):
    original = getattr(owner, name)

    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        result = original(*args, **kwargs)
        spent[part] += time.perf_counter() - start
        return result

    setattr(owner, name, wrapper)


def per_second(work, count=30):
    start = time.perf_counter()
    for _ in range(count):
        work()
    return count / (time.perf_counter() - start)


def one_process(face_model):
    """Print the speed of one process, its parts and the references."""
    renderer = Renderer(face_model, SIZE)
    renderer.render(sample_scene(0, 0, 10_000))
    for owner, name, part in (
        (renderer, "_prepare_look", "identity: texture, hair"),
        (renderer, "pose", "geometry with identity"),
        (renderer, "_write_geometry", "normals, light, upload"),
        (renderer, "_draw_head", "OpenGL with upload"),
        (rendering, "background", "background"),
        (rendering, "develop", "camera"),
    ):
        timed(owner, name, part)
    start = time.perf_counter()
    for index in range(COUNT):
        image = renderer.render(sample_scene(0, index, index // IMAGES_PER_IDENTITY)).image
    speed = COUNT / (time.perf_counter() - start)
    shapes = np.concatenate([renderer.mesh.expression_deltas, renderer.mesh.identity_deltas])
    weights = np.ones(len(shapes), np.float32)
    product = per_second(lambda: weights @ shapes)
    jpeg = per_second(lambda: Image.fromarray(image).save(io.BytesIO(), "JPEG"), 300)
    print(f"one process          {speed:8.1f} images/s")
    for part, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {part:24s} {1000 * seconds / COUNT:6.1f} ms")
    print(f"all shapes in numpy  {product:8.1f} products/s   ratio renderer / reference {speed / product:.2f}")
    print(f"Pillow JPEG          {jpeg:8.1f} images/s     ratio renderer / reference {speed / jpeg:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--face-model", required=True, help="clone of ICT-FaceKit, or its packed .npz")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--count", type=int, default=1500, help="images of the workers' measurement")
    arguments = parser.parse_args()
    times = [
        time.perf_counter()
        for _ in iter_renders(
            arguments.face_model,
            arguments.count,
            0,
            size=SIZE,
            images_per_identity=IMAGES_PER_IDENTITY,
            workers=arguments.workers,
        )
    ]
    late = len(times) // 4  # the first images wait for the processes to start
    print(f"{arguments.workers} processes          {(len(times) - late) / (times[-1] - times[late]):8.1f} images/s")
    one_process(load_face_model(arguments.face_model))


if __name__ == "__main__":
    main()
