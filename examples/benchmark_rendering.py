"""Measure how fast faces are rendered, beside two references on the same machine.

You see images per second of the whole renderer on one core, milliseconds of its parts (some hold others), and two
references: the product of all 155 shapes with their weights in numpy, and Pillow's JPEG encoder.
"""

import io
import os
import time
from collections import defaultdict
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", LP_NUM_THREADS="1")

import numpy as np
from PIL import Image

from hf_geaau.synthetic import Renderer, load_face_model, rendering, sample_scene

FACE_MODEL = os.environ.get("FACE_MODEL", str(Path(__file__).parents[2] / "shared/face_model/ict_facekit.npz"))
COUNT, SIZE, IMAGES_PER_IDENTITY = 120, 128, 6
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


renderer = Renderer(load_face_model(FACE_MODEL), SIZE)
renderer.render(sample_scene(0, 0, 10_000))
for owner, name, part in (
    (renderer, "_prepare_look", "identity: texture, hair"), (renderer, "_pose", "geometry with identity"),
    (renderer, "_write_geometry", "normals, light, upload"), (renderer, "_draw_head", "OpenGL with upload"),
    (rendering, "background", "background"), (rendering, "develop", "camera"),
):  # fmt: skip
    timed(owner, name, part)
start = time.perf_counter()
for index in range(COUNT):
    image = renderer.render(sample_scene(0, index, index // IMAGES_PER_IDENTITY)).image
speed = COUNT / (time.perf_counter() - start)

shapes = np.concatenate([renderer.mesh.expression_deltas, renderer.mesh.identity_deltas])
weights = np.ones(len(shapes), np.float32)
product = per_second(lambda: weights @ shapes)
jpeg = per_second(lambda: Image.fromarray(image).save(io.BytesIO(), "JPEG"), 300)
print(f"renderer, one core   {speed:8.1f} images/s")
for part, seconds in sorted(spent.items(), key=lambda item: -item[1]):
    print(f"  {part:24s} {1000 * seconds / COUNT:6.1f} ms")
print(f"all shapes in numpy  {product:8.1f} products/s   ratio renderer / reference {speed / product:.2f}")
print(f"Pillow JPEG          {jpeg:8.1f} images/s     ratio renderer / reference {speed / jpeg:.3f}")
