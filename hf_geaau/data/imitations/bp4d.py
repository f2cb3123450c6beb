"""An imitation of BP4D's release: label files, and frames in folders or zips."""

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from hf_geaau.errors import DatasetError

from ..base import choose
from ..bp4d import BP4D, Key
from .drawing import Side, dot, draw, jpeg, random_levels, shares, write_lines


@dataclass(frozen=True)
class Quirks:
    """What an imitation of BP4D or BP4D+ can be asked for.

    Attributes:
        subjects_per_part: People of each part of the folds.
        tasks: Names of the tasks; None for the first two.
        frames: Labeled frames of each recording.
        first_frame: Number of the first.
        around: Unlabeled frames before and after, as many as numbers allow.
        digits: To how many the numbers of image names are padded.
        frame_offset: 0 for image n, -1 for image n - 1 of label frame n; None for the release's own.
        old_tasks: Name tasks as the older release does.
        zips: Pack each person's frames into a zip.
        subfolder: Folder of the frames, such as "2D+3D".
        not_codable: Frames of each recording whose first AU is 9.
        with_intensities: Write AU_INT.
        full_size: Write all people and tasks with the published numbers of frames, as empty files: names only.
        faces: Draw faces; without, each image is one and the same pixel.
        size: Side of the images.
        face_model: ICT-FaceKit (see `hf_geaau.synthetic.load_face_model`): render the faces.
    """

    subjects_per_part: PositiveInt = 2
    tasks: tuple[str, ...] | None = None
    frames: PositiveInt = 6
    first_frame: NonNegativeInt = 11
    around: NonNegativeInt = 0
    digits: PositiveInt = 4
    frame_offset: Literal[0, -1] | None = None
    old_tasks: bool = False
    zips: bool = False
    subfolder: str = ""
    not_codable: NonNegativeInt = 1
    with_intensities: bool = True
    full_size: bool = False
    faces: bool = True
    size: Side = 160
    face_model: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class Release:
    """What BP4D and BP4D+ do differently."""

    dataset: type[BP4D]
    frame_offset: int  # image number minus label number
    full_blocks: Callable[[], dict[Key, range]]
    # Of the frames, (F, N) intensities and number of frames that are not codable.
    occurrence_lines: Callable[[range, NDArray[np.int8], int], Iterator[str]]


def write(folder: Path, quirks: Quirks) -> None:
    """Write the imitation into a folder."""
    write_release(Release(BP4D, 0, full_blocks, _occurrence_lines), folder, quirks)


def full_blocks() -> dict[Key, range]:
    """Divide the published numbers of frames over people and tasks, with the drop list inside the blocks."""
    blocks = {}
    for part, (total, _) in zip(BP4D.PARTS, BP4D.PART_FRAMES, strict=True):
        keys = [(subject, task) for subject in part for task in BP4D.TASKS]
        for key, count in zip(keys, shares(total, len(keys)), strict=True):
            first = max(1, min((start for start, _ in BP4D.DROP_LIST.get("_".join(key), ((1, 1),))), default=1) - 50)
            blocks[key] = range(first, first + count)
    return blocks


def write_release(release: Release, folder: Path, quirks: Quirks) -> None:
    """Write the recordings of a release, with labels and images."""
    dataset = release.dataset
    if quirks.old_tasks and not dataset.OLD_TASKS:
        raise DatasetError(f"`old_tasks` must be false for {dataset.TITLE}, whose tasks have one name. Leave it out.")
    for task in quirks.tasks or ():
        choose("tasks", task, dataset.TASKS)
    blocks = {
        (subject, task): range(quirks.first_frame, quirks.first_frame + quirks.frames)
        for part in dataset.PARTS
        for subject in part[: quirks.subjects_per_part]
        for task in quirks.tasks or dataset.TASKS[:2]
    }
    for seed, ((subject, task), block) in enumerate((release.full_blocks() if quirks.full_size else blocks).items()):
        code = dataset.OLD_TASKS[dataset.TASKS.index(task)] if quirks.old_tasks else task
        levels = random_levels([seed, len(block)], len(block), len(dataset.AUS))
        _write_labels(release, folder / "AUCoding", f"{subject}_{code}", block, levels, quirks)
        offset = release.frame_offset if quirks.frame_offset is None else quirks.frame_offset
        identity = int(subject[1:]) + 1000 * (subject[0] == "M")
        images = (
            (f"{frame + offset:0{quirks.digits}d}.jpg", content)
            for frame, content in _images(identity, block, levels, dataset.AUS, quirks)
        )
        _write_images(folder / quirks.subfolder, subject, code, images, quirks.zips)


def _write_labels(
    release: Release, coding: Path, name: str, block: range, levels: NDArray[np.int8], quirks: Quirks
) -> None:
    write_lines(coding / "AU_OCC" / f"{name}.csv", release.occurrence_lines(block, levels, quirks.not_codable))
    for number in release.dataset.INTENSITY_AUS if quirks.with_intensities else ():
        column = levels[:, release.dataset.AUS.index(number)].tolist()
        lines = [f"{frame},{level}" for frame, level in zip(block, column, strict=True)]
        write_lines(coding / "AU_INT" / f"AU{number:02d}" / f"{name}_AU{number:02d}.csv", lines)


def _occurrence_lines(block: range, levels: NDArray[np.int8], not_codable: int) -> Iterator[str]:
    yield ",".join(map(str, range(100)))
    for row, frame in enumerate(block):
        cells = [9] * 100
        cells[0] = frame
        for number, level in zip(BP4D.AUS, levels[row].tolist(), strict=True):
            cells[number] = int(level > 0)
        if row < not_codable:
            cells[1] = 9
        yield ",".join(map(str, cells))


def _images(
    identity: int, block: range, levels: NDArray[np.int8], units: tuple[int, ...], quirks: Quirks
) -> Iterator[tuple[int, bytes]]:
    """Yield label frame number and content of a recording's images."""
    for frame in range(max(block[0] - quirks.around, 1), block[-1] + quirks.around + 1):
        if quirks.full_size:
            yield frame, b""
        elif not quirks.faces:
            yield frame, dot()
        else:
            row = levels[min(max(frame - block[0], 0), len(block) - 1)]
            yield frame, jpeg(draw(identity, frame, row, units, quirks.size, quirks.face_model))


def _write_images(root: Path, subject: str, code: str, images: Iterator[tuple[str, bytes]], zips: bool) -> None:
    """Write a recording's images into their folder or zip."""
    folder = root if zips else root / subject / code
    folder.mkdir(parents=True, exist_ok=True)
    if zips:
        with zipfile.ZipFile(root / f"{subject}.zip", "a") as archive:
            for name, content in images:
                archive.writestr(f"{code}/{name}", content)
        return
    for name, content in images:
        (folder / name).write_bytes(content)
