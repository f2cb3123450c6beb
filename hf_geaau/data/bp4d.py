"""BP4D: 41 people, 8 tasks, occurrence of 12 AUs and intensity of 5 in 146,847 frames; three folds.

Source of every fact here: the public label and path lists of ZhiwenShao/PyTorch-JAANet, CVI-SZU/ME-GraphAU and
CVI-SZU/MDHR, counted by us, and public loaders for the layout. The licensed release itself was not at hand.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError

from . import frame_files, label_files
from .base import AUDataset, DatasetNotes
from .frame_files import Frames
from .rows import Recording

Key = tuple[str, str]  # subject, task
Coded = tuple[NDArray[np.int32], NDArray[np.int8]]  # frame numbers (F,), labels (F, N)

_SUBJECT = re.compile(r"[FM]\d{3}")
_LABEL_FILE = re.compile(r"([FM]\d{3})_(T?\d+)\.csv", re.IGNORECASE)
_CELLS = (0, 1, 9)  # absent, present, not codable
_LEVELS = (0, 1, 2, 3, 4, 5, 9)


@dataclass(frozen=True)
class BP4D(AUDataset):
    """BP4D by its published 12-AU, three-fold protocol.

    The release codes one block of frames of each recording; its other frames have no labels and are not used.

    Attributes:
        with_intensities: Read `AU_INT` too; False if your copy lacks it (then `intensities` are -1).
        frames_dir: Where the frames are, if not found below `data_dir`: the folder that holds F001/ or F001.zip.
        frame_offset: What to add to a label's frame number to get its image's number; None finds out from the names.
    """

    NAME: ClassVar[str] = "bp4d"
    TITLE: ClassVar[str] = "BP4D"
    LICENSE: ClassVar[str] = "Agreement with Binghamton University, signed by an institution; no redistribution"
    HOMEPAGE: ClassVar[str] = "https://www.cs.binghamton.edu/~lijun/Research/3DFE/3DFE_Analysis.html"
    CITATION: ClassVar[str] = (
        "Zhang et al., BP4D-Spontaneous: a high-resolution spontaneous 3D dynamic facial expression database, "
        "Image and Vision Computing 32(10), 2014"
    )
    LAYOUT: ClassVar[str] = """
AUCoding/AU_OCC/F001_T1.csv         header 0,1,…,99: column = AU number, column 0 = frame; cells 0, 1, 9 (not codable)
AUCoding/AU_INT/AU06/F001_T1_AU06.csv  (AU 6, 10, 12, 14, 17) no header: frame,intensity 0-5, 9 (not codable)
F001/T1/0001.jpg                    or F001.zip with T1/0001.jpg in it, here or in one folder such as 2D+3D/;
                                    any padding; image n or n - 1 for label frame n
An older release names tasks 01 03 07 08 09 10 11 13 for T1 … T8, in folders and label files."""
    # JAA-Net's parts 1, 2, 3; ME-GraphAU counts the same sets backwards.
    PARTS: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("F001", "F002", "F008", "F009", "F010", "F016", "F018", "F023",
         "M001", "M004", "M007", "M008", "M012", "M014"),
        ("F003", "F005", "F011", "F013", "F020", "F022",
         "M002", "M005", "M010", "M011", "M013", "M016", "M017", "M018"),
        ("F004", "F006", "F007", "F012", "F014", "F015", "F017", "F019", "F021", "M003", "M006", "M009", "M015"),
    )  # fmt: skip
    HAS_MEGRAPHAU_FOLDS: ClassVar[bool] = True
    PART_FRAMES: ClassVar[tuple[tuple[int, int], ...]] = ((50_631, 50_601), (50_182, 50_166), (46_034, 45_809))
    # 271 frames that JAA-Net's lists lack, because landmarks are missing.
    DROP_LIST: ClassVar[Mapping[str, tuple[tuple[int, int], ...]]] = {
        "F017_T3": ((198, 201), (203, 206), (209, 263), (265, 267), (269, 332), (335, 335)),
        "F021_T3": ((223, 227),),
        "F023_T6": ((1002, 1031),),
        "M003_T5": ((844, 845),),
        "M003_T7": ((1386, 1461),),
        "M009_T4": ((749, 753), (755, 760)),
        "M010_T6": ((942, 957),),
    }
    TASKS: ClassVar[tuple[str, ...]] = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8")
    OLD_TASKS: ClassVar[tuple[str, ...]] = ("01", "03", "07", "08", "09", "10", "11", "13")
    AUS: ClassVar[tuple[int, ...]] = facs.BP4D
    INTENSITY_AUS: ClassVar[tuple[int, ...]] = (6, 10, 12, 14, 17)

    with_intensities: bool = True
    frames_dir: str | os.PathLike[str] | None = None
    frame_offset: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame_offset not in (None, 0, -1):
            raise DatasetError(f"`frame_offset` must be 0, -1 or None (find out), got {self.frame_offset!r}.")

    @property
    def aus(self) -> tuple[int, ...]:
        """The 12 AUs of the protocol."""
        return self.AUS

    def files(self, data_dir: Path) -> list[Path]:
        """Find label files, and the folders and zips of frames."""
        occurrence = list(self._label_files(data_dir).values())
        intensity = []
        if self.with_intensities:
            coded = self._coding(data_dir) / "AU_INT"
            intensity = [path for number in self.INTENSITY_AUS for path in coded.glob(f"AU{number:02d}/*.csv")]
        return occurrence + intensity + self._containers(self._frames_root(data_dir))

    def read(self, data_dir: Path, notes: DatasetNotes) -> list[Recording]:
        """Read all labels and match them with images."""
        files, images = self._label_files(data_dir), self._images(self._frames_root(data_dir))
        for subject, task in sorted(images.keys() - files.keys()):
            notes.add(
                f"Frames of {subject}_{task} have no label file 'AUCoding/AU_OCC/{subject}_{task}.csv' in "
                f"{str(data_dir)!r}. Copy that file from the release."
            )
        for subject, task in sorted(files.keys() - images.keys()):
            notes.add(
                f"Label file {str(files[subject, task])!r} has no frames {subject}/{task} in "
                f"{str(self._frames_root(data_dir))!r}. Extract or copy them."
            )
        keys = sorted(files.keys() & images.keys())
        occurrence = dict(zip(keys, self._occurrence([files[key] for key in keys], notes), strict=True))
        intensities = self._intensities(data_dir, {key: occurrence[key][0] for key in keys}, notes)
        offset = self._offset({key: (occurrence[key][0], images[key]) for key in keys})
        return [
            frame_files.add_images(
                Recording(key[0], "_".join(key), *occurrence[key], intensities[key], []), images[key], offset, notes
            )
            for key in keys
        ]

    # Labels.

    def _coding(self, data_dir: Path) -> Path:
        for folder in (data_dir / "AUCoding", data_dir):
            if (folder / "AU_OCC").is_dir():
                return folder
        raise self.not_found(data_dir, "no folder 'AUCoding/AU_OCC'")

    def _label_files(self, data_dir: Path) -> dict[Key, Path]:
        """Find the occurrence files by subject and task."""
        folder = self._coding(data_dir) / "AU_OCC"
        found: dict[Key, Path] = {}
        for path in sorted(folder.iterdir()):
            if match := _LABEL_FILE.fullmatch(path.name):
                key = self._subject(match[1].upper(), path), self._task(match[2].upper(), path)
                if key in found:
                    raise DatasetError(
                        f"One recording has two label files, {found[key].name!r} and {path.name!r}, in "
                        f"{str(folder)!r}. Remove the one of the older release."
                    )
                found[key] = path
        if not found:
            raise self.not_found(data_dir, f"no file such as 'F001_T1.csv' in {str(folder)!r}")
        return found

    def _subject(self, name: str, path: Path) -> str:
        if not any(name in part for part in self.PARTS):
            raise DatasetError(
                f"Subject {name!r} of {str(path)!r} is in no fold of {self.TITLE}. Remove it, or check that this is "
                "the right dataset."
            )
        return name

    def _task(self, name: str, path: Path) -> str:
        """Return the task's new name, T1 to T8."""
        if name in self.TASKS:
            return name
        if name in self.OLD_TASKS:
            return self.TASKS[self.OLD_TASKS.index(name)]
        old = f" or {', '.join(self.OLD_TASKS)}" if self.OLD_TASKS else ""
        raise DatasetError(
            f"A labeled task must be {', '.join(self.TASKS)}{old}, got {name!r} in {str(path)!r}. Rename or remove it."
        )

    def _columns(self, header: list[str], path: Path) -> list[int]:
        """Return the columns of frame number and AUs, by header."""
        missing = [number for number in self.aus if header[1:].count(str(number)) != 1]
        if missing:
            raise DatasetError(
                f"The header of {str(path)!r} does not name AU {missing[0]} exactly once. "
                "Copy the file again from the release."
            )
        return [0, *(header.index(str(number), 1) for number in self.aus)]

    def _occurrence(self, paths: list[Path], notes: DatasetNotes) -> Iterator[Coded]:
        """Read frame numbers and labels, with files of one header together."""
        headers: dict[tuple[str, ...], list[Path]] = {}
        for path in paths:
            headers.setdefault(tuple(label_files.read_header(path)), []).append(path)
        values: dict[Path, NDArray[np.int32]] = {}
        for header, group in headers.items():
            columns = self._columns(list(header), group[0])
            values.update(zip(group, label_files.read_columns(group, len(header), columns, 1), strict=True))
        for path in paths:
            frames, cells = values[path][:, 0], values[path][:, 1:]
            for first, last in label_files.check_frames(frames, path, 1):
                notes.add(
                    f"Frames {first}-{last} are missing in {str(path)!r}, and coded frames are one block in the "
                    "release. Copy the file again."
                )
            yield frames, self._decode(cells, path)

    def _decode(self, cells: NDArray[np.int32], path: Path) -> NDArray[np.int8]:
        """Turn cells into labels: 9 becomes -1, not labeled."""
        label_files.check_values(cells[:, : len(self.aus)], _CELLS, path, 1)
        return np.where(cells == 9, -1, cells).astype(np.int8)

    def _intensities(
        self, data_dir: Path, frames: dict[Key, NDArray[np.int32]], notes: DatasetNotes
    ) -> dict[Key, NDArray[np.int8]]:
        """Read AU_INT onto the frames of the occurrence files; what it lacks stays -1."""
        found = {key: np.full((len(value), len(self.aus)), -1, np.int8) for key, value in frames.items()}
        if not self.with_intensities:
            return found
        folder = self._coding(data_dir) / "AU_INT"
        if not folder.is_dir():
            raise DatasetError(
                f"Cannot find the folder 'AU_INT' of {self.TITLE} beside 'AU_OCC' in {str(folder.parent)!r}. "
                "Copy it from the release, or pass `with_intensities=False`."
            )
        for number in self.INTENSITY_AUS:
            keys, paths = [], []
            for key in frames:
                path = self._intensity_file(folder, number, key)
                if path is None:
                    notes.add(
                        f"Cannot find the intensities '{key[0]}_{key[1]}_AU{number:02d}.csv' in "
                        f"{str(folder / f'AU{number:02d}')!r}. Copy them, or pass `with_intensities=False`."
                    )
                else:
                    keys.append(key)
                    paths.append(path)
            for key, path, values in zip(keys, paths, label_files.read_columns(paths, 2, (0, 1)), strict=True):
                label_files.check_frames(values[:, 0], path, 0)
                label_files.check_values(values[:, 1], _LEVELS, path, 0)
                _, rows, lines = np.intersect1d(frames[key], values[:, 0], assume_unique=True, return_indices=True)
                levels = values[lines, 1]
                found[key][rows, self.aus.index(number)] = np.where(levels == 9, -1, levels)
        return found

    def _intensity_file(self, folder: Path, number: int, key: Key) -> Path | None:
        subject, task = key
        codes = [task, self.OLD_TASKS[self.TASKS.index(task)]] if self.OLD_TASKS else [task]
        paths = [folder / f"AU{number:02d}" / f"{subject}_{code}_AU{number:02d}.csv" for code in codes]
        return next((path for path in paths if path.is_file()), None)

    # Images.

    def _frames_root(self, data_dir: Path) -> Path:
        """Find the folder that holds F001/ or F001.zip: the data folder, or one folder in it."""
        if self.frames_dir is not None:
            root = Path(self.frames_dir).expanduser().absolute()
            if not root.is_dir() or not self._containers(root):
                raise self.not_found(root, "no frames such as 'F001/T1/0001.jpg' or 'F001.zip' (`frames_dir`)")
            return root
        children = sorted(path for path in data_dir.iterdir() if path.is_dir() and not _SUBJECT.fullmatch(path.name))
        roots = [root for root in (data_dir, *children) if self._containers(root, only_first=True)]
        if not roots:
            raise self.not_found(data_dir, "no frames such as 'F001/T1/0001.jpg' or 'F001.zip'")
        if len(roots) > 1:
            raise DatasetError(
                f"{self.TITLE} has two trees of frames, {str(roots[0])!r} and {str(roots[1])!r}. "
                "Choose one with `frames_dir`."
            )
        return roots[0]

    def _containers(self, root: Path, only_first: bool = False) -> list[Path]:
        """Return the task folders, and the zips of subjects that have none."""
        containers: list[Path] = []
        for subject in sorted(os.scandir(root), key=lambda entry: entry.name):
            if subject.is_dir() and _SUBJECT.fullmatch(subject.name):
                containers += [Path(task.path) for task in os.scandir(subject.path) if self._is_task_folder(task)]
            elif _SUBJECT.fullmatch(subject.name.removesuffix(".zip")) and subject.name.endswith(".zip"):
                containers.append(Path(subject.path))
            if only_first and containers:
                break
        return containers

    def _is_task_folder(self, entry: os.DirEntry[str]) -> bool:
        """Return whether this is a folder of frames; the release keeps other things of a subject in folders too."""
        if not entry.is_dir() or entry.name.upper() not in (*self.TASKS, *self.OLD_TASKS):
            return False
        with os.scandir(entry.path) as files:
            return next((True for file in files if file.name.lower().endswith((".jpg", ".jpeg", ".png"))), False)

    def _images(self, root: Path) -> dict[Key, Frames]:
        """List the frames by subject and task; a folder counts before a zip of the same subject."""
        found: dict[Key, Frames] = {}
        for path in sorted(self._containers(root), key=lambda path: path.suffix == ".zip"):
            if path.suffix == ".zip":
                subject = self._subject(path.stem, path)
                listed = {
                    self._task(name.upper(), path): frames
                    for name, frames in frame_files.in_zip(path).items()
                    if name.upper() in (*self.TASKS, *self.OLD_TASKS) and frames.names
                }
            else:
                subject = self._subject(path.parent.name, path.parent)
                listed = {self._task(path.name.upper(), path): frame_files.in_folder(path)}
            for task, frames in listed.items():
                found.setdefault((subject, task), frames)
        return found

    def _offset(self, recordings: dict[Key, tuple[NDArray[np.int32], Frames]]) -> int:
        if self.frame_offset is not None or not recordings:
            return self.frame_offset or 0
        votes = {"_".join(key): frame_files.offset_of(frames, images) for key, (frames, images) in recordings.items()}
        return frame_files.common_offset(votes, "frame_offset")


DATASET = BP4D
