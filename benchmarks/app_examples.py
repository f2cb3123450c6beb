"""Render the example photos and the clip of `hf-geaau app`: people who do not exist, with known action units."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.clips import Act, Actor, render_clip
from hf_geaau.synthetic import load_face_model
from hf_geaau.synthetic.rendering import Renderer
from hf_geaau.video.overlay import OverlayWriter

SIDE = 384  # pixels of a photo
QUALITY = 82
FPS = 20
SEED = 3
PHOTOS: Mapping[str, tuple[int, Mapping[int, float]]] = {  # who, and which action units at which intensity
    "rest": (14, {}),
    "smile": (14, {6: 3.5, 12: 4.5, 25: 4.0}),
    "raised_brows": (2, {1: 4.5, 2: 4.5, 5: 3.5, 26: 3.0, 25: 3.0}),
    "lowered_brows": (12, {4: 4.5, 9: 2.5, 17: 3.5}),
}


def photo(renderer: Renderer, people: Sequence[tuple[int, Mapping[int, float]]], seed: int) -> NDArray[np.uint8]:
    """Render people side by side, each (who, intensities by action unit)."""
    width = SIDE * len(people)
    actors = []
    for place, (who, levels) in enumerate(people):
        acts = {number: [Act(-1, 0, 1, level)] for number, level in levels.items()}
        center = (SIDE * (place + 0.5), SIDE * 0.42)
        actors.append(Actor(who, [(0, *center), (1, *center)], 72, acts, sway=0.1, resting=0.2))
    (frame,) = render_clip(renderer, actors, 1.0, 1.0, (width, SIDE), seed)
    return frame.image


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--face-model", required=True, help="ICT-FaceKit: a clone, or a packed .npz")
    parser.add_argument("--output", type=Path, default=Path("hf_geaau/app/examples"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with closing(Renderer(load_face_model(arguments.face_model), 64)) as renderer:
        pictures = {name: photo(renderer, [person], SEED) for name, person in PHOTOS.items()}
        pictures["two_people"] = photo(renderer, [PHOTOS["smile"], PHOTOS["raised_brows"]], SEED)
        for name, picture in pictures.items():
            Image.fromarray(picture).save(arguments.output / f"{name}.jpg", quality=QUALITY, optimize=True)
        acts = {
            12: [Act(0.5, 1.2, 2.2, 4.5)], 6: [Act(0.5, 1.2, 2.2, 3.5)], 25: [Act(0.6, 1.2, 2.1, 4.0)],
            1: [Act(2.6, 3.2, 3.9, 4.5)], 2: [Act(2.6, 3.2, 3.9, 4.5)], 5: [Act(2.6, 3.2, 3.9, 3.0)],
        }  # fmt: skip
        actor = Actor(22, [(0, 160, 100), (4, 165, 102)], 56, acts, sway=0.15, resting=0.2)
        writer = OverlayWriter(arguments.output / "clip.mp4", FPS)
        for number, frame in enumerate(render_clip(renderer, [actor], 4.0, FPS, (320, 240), SEED)):
            writer.add(Image.fromarray(frame.image), number / FPS)
        writer.close()


if __name__ == "__main__":
    main()
