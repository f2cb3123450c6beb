"""An imitation of FEC: two ragged csv files and a folder of photos."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveInt

from ..fec import CSV_FILES, IMAGES, TYPES, image_name, url_name
from .drawing import Side
from .faces import example_face

# Intensities by AU of the three expressions that are told apart.
EXPRESSIONS: tuple[dict[int, float], ...] = ({12: 4.5, 6: 3.0}, {4: 4.5, 15: 4.0}, {1: 4.5, 2: 4.5, 26: 4.5})

Cells = list[str | float]  # of one photo: its URL, and the left, right, top and bottom of its face


@dataclass(frozen=True)
class Quirks:
    """What an imitation of FEC can be asked for.

    Attributes:
        triplets: Rows of the train file; the test file has half as many.
        photos: Distinct photos, two faces side by side in every third; train and test share none.
        extra_votes: Give every third row seven votes instead of six, so that rows differ in length.
        own_names: Name photos as their URLs do, not by the SHA-1 of the URL.
        missing_photos: How many photos to leave out, as dead links do.
        disagreement: Let the voters of the last row of each file disagree.
        size: Height of the photos in pixels.
        base_url: What the URLs begin with.
        face_model: ICT-FaceKit, to render the faces instead of drawing them.
    """

    triplets: PositiveInt = 12
    photos: Annotated[int, Field(ge=2 * len(EXPRESSIONS))] = 9  # two of each expression for a triplet
    extra_votes: bool = True
    own_names: bool = False
    missing_photos: NonNegativeInt = 0
    disagreement: bool = True
    size: Side = 160
    base_url: str = "http://photos.invalid"
    face_model: str | os.PathLike[str] | None = None


def write(folder: Path, quirks: Quirks) -> None:
    """Write the imitation into a folder."""
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    for offset, (split, count) in enumerate((("train", quirks.triplets), ("test", (quirks.triplets + 1) // 2))):
        rng = np.random.default_rng(offset)
        photos = [_write_photo(folder / IMAGES, split, offset, number, quirks) for number in range(quirks.photos)]
        with (folder / CSV_FILES[split]).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for row in range(count):
                votes = 7 if quirks.extra_votes and row % 3 == 0 else 6
                disagree = quirks.disagreement and row == count - 1
                writer.writerow(_triplet(rng, photos, TYPES[1 if row % 2 else 2], votes, disagree))


def _write_photo(folder: Path, split: str, offset: int, number: int, quirks: Quirks) -> tuple[int, Cells]:
    """Write one photo; return its expression and its cells."""
    expression = number % len(EXPRESSIONS)
    url = f"{quirks.base_url}/{split}/{split}_{number:04d}_b.jpg"
    seed, model = 1000 * offset + number, quirks.face_model
    faces = [example_face(seed, quirks.size, intensities=EXPRESSIONS[expression], face_model=model)]
    if number % 3 == 2:
        faces.append(example_face(seed + 500, quirks.size, face_model=model))
    if number >= quirks.missing_photos:
        side_by_side = Image.fromarray(np.hstack([np.asarray(face) for face in faces]))
        name = url_name(url) if quirks.own_names else image_name(url)
        side_by_side.save(folder / name, format="JPEG", quality=92)
    share = 1 / len(faces)
    return expression, [url, 0.18 * share, 0.82 * share, 0.2, 0.98]


def _triplet(
    rng: np.random.Generator, photos: list[tuple[int, Cells]], kind: str, votes: int, disagree: bool
) -> list[str | float]:
    """Make a row: two faces of one expression and one of another, and votes for the odd one."""
    expressions = sorted({expression for expression, _ in photos})
    cells_of = {wanted: [cells for expression, cells in photos if expression == wanted] for wanted in expressions}
    pair, other = rng.choice(expressions, 2, replace=False)
    three = [cells_of[pair][index] for index in rng.choice(len(cells_of[pair]), 2, replace=False)]
    odd = int(rng.integers(3))
    three.insert(odd, cells_of[other][int(rng.integers(len(cells_of[other])))])
    row = [cell for cells in three for cell in cells] + [kind]
    for annotator in range(votes):
        is_minority = annotator % 2 == 0 if disagree else annotator == votes - 1
        row += [f"annotator_{annotator}", ((odd + 1) % 3 if is_minority else odd) + 1]
    return row
