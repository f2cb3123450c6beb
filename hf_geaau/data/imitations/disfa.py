"""An imitation of DISFA's release: label files, videos of both cameras, and extracted frames."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import NonNegativeInt, PositiveInt

from hf_geaau import facs

from ..disfa import CAMERAS, DISFA, Camera
from .drawing import Side, draw, random_levels, write_lines


@dataclass(frozen=True)
class Quirks:
    """What an imitation of DISFA can be asked for.

    Attributes:
        subjects_per_part: People of each part of the folds.
        frames: Labeled frames of each person.
        extra_frames: How many more frames a video has than labels, as in the release.
        cameras: Whose videos to write; the right camera's are mirrored. () for none.
        extracted: Also write extracted frames, PNG, into this folder.
        digits: To how many the numbers of extracted frames are padded.
        first_image: Number of the first extracted frame, 0 or 1.
        full_size: Write all people with the published numbers of frames, in videos of 16 pixels.
        faces: Draw faces; without, images are of one color that encodes their number, see `numbered_image`.
        size: Side of the images.
        face_model: ICT-FaceKit (see `hf_geaau.synthetic.load_face_model`): render the faces.
    """

    subjects_per_part: PositiveInt = 2
    frames: PositiveInt = 12
    extra_frames: NonNegativeInt = 9
    cameras: tuple[Camera, ...] = CAMERAS
    extracted: str | os.PathLike[str] | None = None
    digits: PositiveInt = 1
    first_image: Literal[0, 1] = 0
    full_size: bool = False
    faces: bool = True
    size: Side = 160
    face_model: str | os.PathLike[str] | None = None


def write(folder: Path, quirks: Quirks) -> None:
    """Write the imitation into a folder."""
    members = [
        subject for part in DISFA.PARTS for subject in (part if quirks.full_size else part[: quirks.subjects_per_part])
    ]
    for identity, subject in enumerate(members):
        count = (4844 if subject == "SN010" else 4845) if quirks.full_size else quirks.frames
        levels = random_levels([identity, count], count, len(facs.DISFA_12))
        images = _images(identity, levels, quirks)
        for column, unit in enumerate(facs.DISFA_12):
            lines = [f"{frame},{level}" for frame, level in enumerate(levels[:, column].tolist(), 1)]
            write_lines(folder / "ActionUnit_Labels" / subject / f"{subject}_au{unit}.txt", lines)
        for camera in quirks.cameras:
            videos = folder / f"Videos_{camera.capitalize()}Camera"
            videos.mkdir(parents=True, exist_ok=True)
            write_video(videos / f"{camera.capitalize()}Video{subject}_comp.avi", images, mirrored=camera == "right")
        if quirks.extracted is not None:
            frames = folder / quirks.extracted / subject
            frames.mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(images[:count], quirks.first_image):
                image.save(frames / f"{number:0{quirks.digits}d}.png")


def _images(identity: int, levels: NDArray[np.int8], quirks: Quirks) -> list[Image.Image]:
    """Make the frames of a video; the last expression lasts to its end."""
    count = len(levels) + quirks.extra_frames
    if quirks.full_size or not quirks.faces:
        return [numbered_image(number, 16 if quirks.full_size else quirks.size) for number in range(count)]
    rows = levels[np.minimum(np.arange(count), len(levels) - 1)]
    return [
        draw(identity, number, row, facs.DISFA_12, quirks.size, quirks.face_model) for number, row in enumerate(rows)
    ]


def numbered_image(number: int, size: int) -> Image.Image:
    """Return an image whose color encodes its number, modulo 1,000, even after lossy coding.

    Red, green and blue are 25 times the hundreds, tens and ones.
    """
    return Image.new("RGB", (size, size), (25 * (number // 100 % 10), 25 * (number // 10 % 10), 25 * (number % 10)))


def write_video(path: Path, images: list[Image.Image], *, mirrored: bool = False) -> None:
    """Encode a video with a key frame every 12 frames, so that seeking has something to get wrong."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height = images[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size = 12
        for image in images:
            frame = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
