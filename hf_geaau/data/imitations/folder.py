"""Own data: a csv table and a folder of photos, drawn or rendered."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveInt

from hf_geaau import facs
from hf_geaau.errors import DatasetError
from hf_geaau.files import whole_file

from .drawing import Side, draw, jpeg, random_levels

TABLE, PHOTOS = "faces.csv", "photos"


@dataclass(frozen=True)
class Quirks:
    """What an imitation of own data can be asked for.

    Attributes:
        subjects: How many people.
        frames: Photos of each.
        action_units: FACS numbers of the columns.
        size: Side of the photos in pixels.
        with_intensities: Write intensities as well, in columns AU01_r, …
        face_model: ICT-FaceKit, see `hf_geaau.synthetic.load_face_model`.
    """

    subjects: PositiveInt = 6
    frames: PositiveInt = 4
    action_units: facs.AUList = (1, 4, 12, 25)
    size: Side = 160
    with_intensities: bool = False
    face_model: str | os.PathLike[str] | None = None


def write(folder: Path, quirks: Quirks) -> None:
    """Write the imitation into a folder. The second photo of each person has no label of the first AU."""
    try:
        units, names = facs.numbers(quirks.action_units), facs.labels(quirks.action_units)
    except ValueError as error:
        raise DatasetError(f"`action_units` does not fit: {error}") from error
    if not units:
        raise DatasetError("`action_units` must name at least one AU, got none.")
    (folder / PHOTOS).mkdir(exist_ok=True)
    graded = [f"{name}_r" for name in names] if quirks.with_intensities else []
    rows = [["image", "subject", *names, *graded]]
    for person in range(quirks.subjects):
        levels = random_levels([person], quirks.frames, len(units))
        for frame, values in enumerate(levels):
            path = f"{PHOTOS}/person{person}_{frame}.jpg"
            photo = draw(person, person * quirks.frames + frame, values, units, quirks.size, quirks.face_model)
            (folder / path).write_bytes(jpeg(photo))
            labels = [str(int(value >= 2)) for value in values]
            labels[0] = "" if frame == 1 else labels[0]
            rows.append([path, f"person{person}", *labels, *(map(str, values) if graded else ())])
    with whole_file(folder / TABLE) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
