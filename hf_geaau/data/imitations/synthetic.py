"""What `render_dataset` writes: rendered if the face model is given, else with drawn faces."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from hf_geaau import facs
from hf_geaau.files import whole_file, write_json

from ..synthetic import IMAGES, LABELS_FILE, SETTINGS_FILE
from .drawing import Side
from .faces import example_face


@dataclass(frozen=True)
class Quirks:
    """What an imitation of rendered faces can be asked for.

    Attributes:
        identities: How many people.
        frames: Images of each.
        size: Side of the images in pixels.
        missing_images: How many images to leave out.
        one_sided: Annotated[float, Field(ge=0, le=1)] of the AUs with sides that a drawn face shows on one side only.
        face_model: ICT-FaceKit, see `hf_geaau.synthetic.load_face_model`.
    """

    identities: PositiveInt = 6
    frames: PositiveInt = 4
    size: Side = 128
    missing_images: NonNegativeInt = 0
    one_sided: Annotated[float, Field(ge=0, le=1)] = 0.2
    face_model: str | os.PathLike[str] | None = None


def write(folder: Path, quirks: Quirks) -> None:
    """Write the imitation into a folder."""
    if quirks.face_model is None:
        _draw(folder, quirks)
    else:
        from hf_geaau.synthetic import render_dataset

        count = quirks.identities * quirks.frames
        render_dataset(
            quirks.face_model, count, 0, folder, size=quirks.size, images_per_identity=quirks.frames, workers=1
        )
    for path in sorted((folder / IMAGES).iterdir())[: quirks.missing_images]:
        path.unlink()


def _draw(folder: Path, quirks: Quirks) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_geaau.synthetic.action_units import labels_of, sample_intensities

    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for index in range(quirks.identities * quirks.frames):
        identity, frame = divmod(index, quirks.frames)
        levels = sample_intensities(rng)
        sides = _sides(levels, np.random.default_rng([1, index]), quirks.one_sided)
        name = f"{IMAGES}/{index:08d}.jpg"
        shown = dict(zip(facs.SYNTHETIC, map(tuple, sides.tolist()), strict=True))
        example_face(index, quirks.size, identity=identity, intensities=shown).save(folder / name, quality=92)
        rows.append(
            {
                "file_name": name,
                "labels": labels_of(levels),
                "intensities": levels,
                "side_intensities": sides.reshape(-1),
                "visible": np.ones(len(levels)),
                "subject_id": f"render-0-{identity}",
                "sequence_id": "render",
                "frame": frame,
            }
        )
    with whole_file(folder / LABELS_FILE) as part:
        pq.write_table(pa.Table.from_pylist(rows), part)
    settings = {"count": len(rows), "action_units": list(facs.SYNTHETIC), "size": quirks.size}
    write_json(settings, folder / SETTINGS_FILE)


def _sides(levels: NDArray[np.floating], rng: np.random.Generator, share: float) -> NDArray[np.float32]:
    """Return the intensities (18, 2) on the person's left and right, 0 on one of them for a share of the AUs."""
    sides = np.repeat(levels[:, None], len(facs.SIDES), axis=1).astype(np.float32)
    is_one_sided = np.isin(facs.SYNTHETIC, facs.SIDED) & (rng.random(len(sides)) < share)
    sides[is_one_sided, rng.integers(len(facs.SIDES), size=int(is_one_sided.sum()))] = 0
    return sides
