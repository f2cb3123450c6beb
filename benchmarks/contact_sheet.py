"""Draw a sheet of rendered faces: each action unit at 0, 25, 50, 75 and 100 %, on some people, under one light.

Draws one row for each action unit and five pictures for each person. Look at it after a change to the renderer: each
row should show what FACS describes, and nothing else.

    python benchmarks/contact_sheet.py --face-model ICT-FaceKit --output sheet.jpg
"""

import argparse
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from hf_geaau.synthetic import ACTION_UNITS, Renderer, expression, load_face_model
from hf_geaau.synthetic.camera import Camera
from hf_geaau.synthetic.lighting import Light

LEVELS = (0.0, 1.25, 2.5, 3.75, 5.0)
ROWS = (*((number,) for number in ACTION_UNITS), (6, 12), (6, 12, 25), (1, 2), (1, 4))
MARGIN = 52


def window_light():
    """One soft lamp above the camera's left, and an even room."""
    directions = np.array([[-0.45, 0.5, 0.74], [0, 0, 1], [0, 0, 1]], np.float32)
    colors = np.array([[0.6, 0.58, 0.55], [0, 0, 0], [0, 0, 0]], np.float32)
    ambient = np.zeros((9, 3), np.float32)
    ambient[0], ambient[2] = 0.38, 0.08
    return Light(directions, colors, ambient, kind="window")


def scene_of(renderer, identity_id, numbers, level):
    """A clean picture of one person, turned a little, who shows some action units at one intensity."""
    wanted = np.zeros(len(ACTION_UNITS))
    wanted[[ACTION_UNITS.index(number) for number in numbers]] = level
    shown = expression(wanted, np.random.default_rng(0), nuisances=False, gaps=renderer.gaps)
    scene = renderer.sample_scene(0, identity_id, identity_id).showing(shown)
    return replace(
        scene,
        camera=Camera(distance=90, exposure=0.33 * np.log2(0.35 / scene.identity.skin.tone.mean())),
        light=window_light(), style="standard", yaw=0.15, pitch=0.0, roll=0.0, occluder="", wears_glasses=False,
        backdrop_seed=3, point_jitter=np.zeros((5, 2), np.float32), crop_jitter=np.zeros(4, np.float32),
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--face-model", required=True, help="clone of ICT-FaceKit or of VALID's avatars")
    parser.add_argument("--output", default="sheet.jpg")
    parser.add_argument("--identities", type=int, nargs="+", default=[11, 30])
    parser.add_argument("--size", type=int, default=96, help="side of a picture in pixels")
    arguments = parser.parse_args()
    size, people = arguments.size, arguments.identities
    renderer = Renderer(load_face_model(arguments.face_model), size)
    sheet = Image.new("RGB", (MARGIN + size * len(LEVELS) * len(people), size * len(ROWS)), "white")
    for person, identity_id in enumerate(people):  # a person's texture is painted once
        for row, numbers in enumerate(ROWS):
            for column, level in enumerate(LEVELS):
                picture = Image.fromarray(renderer.render(scene_of(renderer, identity_id, numbers, level)).image)
                sheet.paste(picture, (MARGIN + size * (person * len(LEVELS) + column), size * row))
    draw = ImageDraw.Draw(sheet)
    for row, numbers in enumerate(ROWS):
        draw.text((3, size * row + size // 2 - 6), "+".join(f"{number}" for number in numbers), fill="black")
    sheet.save(arguments.output, quality=85)


if __name__ == "__main__":
    main()
