"""BP4D: 41 people, 8 tasks, occurrence of 12 AUs and intensity of 5 in 146,847 frames; three folds.

Source of every fact here: the public label and path lists of ZhiwenShao/PyTorch-JAANet, CVI-SZU/ME-GraphAU and
CVI-SZU/MDHR, counted by us, and public loaders for the layout. The licensed release itself was not at hand.
"""

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError

from . import _examples, _frames, _labels
from ._base import AUDataset, DatasetNotes, Sequence, not_found

Key = tuple[str, str]  # subject, task

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
    MEGRAPHAU_FOLDS: ClassVar[tuple[int, ...]] = (3, 2, 1)
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
    INTENSITY_AUS: ClassVar[tuple[int, ...]] = (6, 10, 12, 14, 17)

    with_intensities: bool = True
    frames_dir: str | None = None
    frame_offset: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame_offset not in (None, 0, -1):
            raise DatasetError(f"`frame_offset` must be 0, -1 or None (find out), got {self.frame_offset!r}.")

    @property
    def aus(self) -> tuple[int, ...]:
        """The 12 AUs of the protocol."""
        return self._aus()

    def files(self, data_dir: Path) -> list[Path]:
        """Find label files, and the folders and zips of frames."""
        occurrence = list(self._label_files(data_dir).values())
        intensity = []
        if self.with_intensities:
            coded = self._coding(data_dir) / "AU_INT"
            intensity = [path for number in self.INTENSITY_AUS for path in coded.glob(f"AU{number:02d}/*.csv")]
        return occurrence + intensity + self._places(self._frames_root(data_dir))

    def sequences(self, data_dir: Path, notes: DatasetNotes) -> list[Sequence]:
        """Read all labels and match them with images."""
        files, images = self._label_files(data_dir), self._images(self._frames_root(data_dir))
        for subject, task in sorted(images.keys() - files.keys()):
            notes.add(
                f"Each recording must have its labels, got frames of {subject}_{task} but no "
                f"'AUCoding/AU_OCC/{subject}_{task}.csv' in {str(data_dir)!r}. Copy that file from the release."
            )
        for subject, task in sorted(files.keys() - images.keys()):
            notes.add(
                f"Each label file must have its frames, got {str(files[subject, task])!r} but no frames of "
                f"{subject}/{task} in {str(self._frames_root(data_dir))!r}. Extract or copy them."
            )
        keys = sorted(files.keys() & images.keys())
        occurrence = dict(zip(keys, self._occurrence([files[key] for key in keys], notes), strict=True))
        intensities = self._intensities(data_dir, {key: occurrence[key][0] for key in keys}, notes)
        offset = self._offset({key: (occurrence[key][0], images[key]) for key in keys})
        return [self._sequence(key, *occurrence[key], intensities[key], images[key], offset, notes) for key in keys]

    # Labels.

    def _coding(self, data_dir: Path) -> Path:
        for folder in (data_dir / "AUCoding", data_dir):
            if (folder / "AU_OCC").is_dir():
                return folder
        raise not_found(self, data_dir, "no folder 'AUCoding/AU_OCC'")

    def _label_files(self, data_dir: Path) -> dict[Key, Path]:
        """Find the occurrence files by subject and task."""
        folder = self._coding(data_dir) / "AU_OCC"
        found: dict[Key, Path] = {}
        for path in sorted(folder.iterdir()):
            if match := _LABEL_FILE.fullmatch(path.name):
                key = self._subject(match[1].upper(), path), self._task(match[2].upper(), path)
                if key in found:
                    raise DatasetError(
                        f"Each recording must have one label file, got {found[key].name!r} and {path.name!r} in "
                        f"{str(folder)!r}. Remove the one of the older release."
                    )
                found[key] = path
        if not found:
            raise not_found(self, data_dir, f"no file such as 'F001_T1.csv' in {str(folder)!r}")
        return found

    def _subject(self, name: str, path: Path) -> str:
        if not any(name in part for part in self.PARTS):
            raise DatasetError(
                f"Subjects must be those of {self.TITLE}'s folds, got {name!r} in {str(path)!r}. Remove it, or check "
                "that this is the right dataset."
            )
        return name

    def _task(self, name: str, path: Path) -> str:
        """Give the task's new name, T1 to T8."""
        if name in self.TASKS:
            return name
        if name in self.OLD_TASKS:
            return self.TASKS[self.OLD_TASKS.index(name)]
        old = f" or {', '.join(self.OLD_TASKS)}" if self.OLD_TASKS else ""
        raise DatasetError(
            f"Tasks with labels must be {', '.join(self.TASKS)}{old}, got {name!r} in {str(path)!r}. "
            "Rename or remove it."
        )

    def _columns(self, header: list[str], path: Path) -> list[int]:
        """Give the positions of frame number and AUs, by header."""
        missing = [number for number in self.aus if header[1:].count(str(number)) != 1]
        if missing:
            raise DatasetError(
                f"The header must name each AU once, got no single column {missing[0]} in {str(path)!r}, line 1. "
                "Copy the file again from the release."
            )
        return [0, *(header.index(str(number), 1) for number in self.aus)]

    def _occurrence(self, paths: list[Path], notes: DatasetNotes) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Read frame numbers and labels, with files of one header together."""
        headers: dict[tuple[str, ...], list[Path]] = {}
        for path in paths:
            headers.setdefault(tuple(_labels.read_header(path)), []).append(path)
        values: dict[Path, NDArray[np.int32]] = {}
        for header, group in headers.items():
            columns = self._columns(list(header), group[0])
            values.update(zip(group, _labels.read_columns(group, len(header), columns, 1), strict=True))
        for path in paths:
            frames, cells = values[path][:, 0], values[path][:, 1:]
            for first, last in _labels.check_frames(frames, path, 1):
                notes.add(
                    f"Coded frames must be one block, got none of frames {first}-{last} in {str(path)!r}. "
                    "Frames without a label cannot be used; copy the file again from the release."
                )
            yield frames, self._decode(cells, path)

    def _decode(self, cells: NDArray[np.int32], path: Path) -> NDArray[np.int8]:
        """Turn cells into labels: 9 becomes -1, not labelled."""
        _labels.check_values(cells[:, : len(self.aus)], _CELLS, path, 1)
        return np.where(cells == 9, -1, cells).astype(np.int8)

    def _intensities(
        self, data_dir: Path, frames: dict[Key, NDArray[Any]], notes: DatasetNotes
    ) -> dict[Key, NDArray[np.int8]]:
        """Read AU_INT onto the frames of the occurrence files; what it lacks stays -1."""
        found = {key: np.full((len(value), len(self.aus)), -1, np.int8) for key, value in frames.items()}
        if not self.with_intensities:
            return found
        folder = self._coding(data_dir) / "AU_INT"
        if not folder.is_dir():
            raise DatasetError(
                f"{self.TITLE} must have the folder 'AU_INT' beside 'AU_OCC', got none in {str(folder.parent)!r}. "
                "Copy it from the release, or pass `with_intensities=False`."
            )
        for number in self.INTENSITY_AUS:
            keys, paths = [], []
            for key in frames:
                path = self._intensity_file(folder, number, key)
                if path is None:
                    notes.add(
                        f"Each recording must have its intensities, got no '{key[0]}_{key[1]}_AU{number:02d}.csv' in "
                        f"{str(folder / f'AU{number:02d}')!r}. Copy it, or pass `with_intensities=False`."
                    )
                else:
                    keys.append(key)
                    paths.append(path)
            for key, path, values in zip(keys, paths, _labels.read_columns(paths, 2, (0, 1)), strict=True):
                _labels.check_frames(values[:, 0], path, 0)
                _labels.check_values(values[:, 1], _LEVELS, path, 0)
                _, here, there = np.intersect1d(frames[key], values[:, 0], assume_unique=True, return_indices=True)
                level = values[there, 1]
                found[key][here, self.aus.index(number)] = np.where(level == 9, -1, level)
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
            if not root.is_dir() or not self._places(root):
                raise not_found(self, root, "no frames such as 'F001/T1/0001.jpg' or 'F001.zip' (`frames_dir`)")
            return root
        children = sorted(path for path in data_dir.iterdir() if path.is_dir() and not _SUBJECT.fullmatch(path.name))
        roots = [root for root in (data_dir, *children) if self._places(root, only_first=True)]
        if not roots:
            raise not_found(self, data_dir, "no frames such as 'F001/T1/0001.jpg' or 'F001.zip'")
        if len(roots) > 1:
            raise DatasetError(
                f"{self.TITLE} must have one tree of frames, got {str(roots[0])!r} and {str(roots[1])!r}. "
                "Say which with `frames_dir`."
            )
        return roots[0]

    def _places(self, root: Path, only_first: bool = False) -> list[Path]:
        """Give the task folders, and the zips of subjects that have none."""
        places: list[Path] = []
        for subject in sorted(os.scandir(root), key=lambda entry: entry.name):
            if subject.is_dir() and _SUBJECT.fullmatch(subject.name):
                places += [Path(task.path) for task in os.scandir(subject.path) if self._is_task_folder(task)]
            elif _SUBJECT.fullmatch(subject.name.removesuffix(".zip")) and subject.name.endswith(".zip"):
                places.append(Path(subject.path))
            if only_first and places:
                break
        return places

    def _is_task_folder(self, entry: os.DirEntry[str]) -> bool:
        """Tell a folder of frames; the release keeps other things of a subject in folders too."""
        if not entry.is_dir() or entry.name.upper() not in (*self.TASKS, *self.OLD_TASKS):
            return False
        with os.scandir(entry.path) as files:
            return next((True for file in files if file.name.lower().endswith((".jpg", ".jpeg", ".png"))), False)

    def _images(self, root: Path) -> dict[Key, _frames.Frames]:
        """List the frames by subject and task; a folder counts before a zip of the same subject."""
        found: dict[Key, _frames.Frames] = {}
        for place in sorted(self._places(root), key=lambda path: path.suffix == ".zip"):
            if place.suffix == ".zip":
                subject = self._subject(place.stem, place)
                listed = {
                    self._task(name.upper(), place): frames
                    for name, frames in _frames.in_zip(place).items()
                    if name.upper() in (*self.TASKS, *self.OLD_TASKS) and frames.names
                }
            else:
                subject = self._subject(place.parent.name, place.parent)
                listed = {self._task(place.name.upper(), place): _frames.in_folder(place)}
            for task, frames in listed.items():
                found.setdefault((subject, task), frames)
        return found

    def _offset(self, recordings: dict[Key, tuple[NDArray[Any], _frames.Frames]]) -> int:
        if self.frame_offset is not None or not recordings:
            return self.frame_offset or 0
        votes = {"_".join(key): _frames.offset_of(frames, images) for key, (frames, images) in recordings.items()}
        return _frames.agree(votes, "frame_offset")

    def _sequence(
        self,
        key: Key,
        frames: NDArray[np.int32],
        labels: NDArray[np.int8],
        intensities: NDArray[np.int8],
        images: _frames.Frames,
        offset: int,
        notes: DatasetNotes,
    ) -> Sequence:
        """Join labels and images, and report labels that have none."""
        there = _frames.with_image(frames, images, offset, "_".join(key), notes)
        kept = frames[there]
        paths = [images.path(frame + offset) for frame in kept.tolist()]
        return Sequence(key[0], "_".join(key), kept, labels[there], intensities[there], paths)

    # The imitation.

    @classmethod
    def write_example(
        cls,
        folder: str | os.PathLike[str],
        *,
        subjects_per_part: int = 2,
        tasks: tuple[str, ...] | None = None,
        frames: int = 6,
        first_frame: int = 11,
        around: int = 0,
        digits: int = 4,
        frame_offset: int | None = None,
        old_tasks: bool = False,
        zips: bool = False,
        subfolder: str = "",
        not_codable: int = 1,
        with_intensities: bool = True,
        full_size: bool = False,
        faces: bool = True,
        size: int = 160,
        face_model: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Write a small imitation of the release, with invented labels and faces; give its folder.

        Args:
            folder: Where; made if missing.
            subjects_per_part: People of each part of the folds.
            tasks: Which; None for the first two.
            frames: Labelled frames of each recording.
            first_frame: Number of the first.
            around: Unlabelled frames before and after, as many as numbers allow.
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

        Example:
            >>> import tempfile
            >>> folder = BP4D.write_example(tempfile.mkdtemp(), subjects_per_part=1, frames=1, faces=False)
            >>> sorted(path.name for path in folder.iterdir())
            ['AUCoding', 'F001', 'F003', 'F004']
        """
        offset = cls._release_offset() if frame_offset is None else frame_offset
        pixels = None if full_size else size if faces else 0
        quirks = (digits, offset, around, not_codable, old_tasks, zips, with_intensities)
        plan = _Plan(Path(folder), subfolder, *quirks, pixels, face_model)
        blocks = cls._full_blocks() if full_size else cls._blocks(subjects_per_part, tasks, first_frame, frames)
        for seed, (key, block) in enumerate(blocks.items()):
            cls._write_recording(plan, key, block, seed)
        return plan.root

    @classmethod
    def _write_recording(cls, plan: "_Plan", key: Key, block: range, seed: int) -> None:
        subject, task = key
        code = cls.OLD_TASKS[cls.TASKS.index(task)] if plan.old_tasks else task
        coding, name = plan.root / "AUCoding", f"{subject}_{code}"
        levels = _examples.random_levels([seed, len(block)], len(block), len(cls._aus()))
        _examples.write_lines(coding / "AU_OCC" / f"{name}.csv", cls._occurrence_lines(block, levels, plan.not_codable))
        for number in cls.INTENSITY_AUS if plan.with_intensities else ():
            column = levels[:, cls._aus().index(number)].tolist()
            lines = [f"{frame},{level}" for frame, level in zip(block, column, strict=True)]
            _examples.write_lines(coding / "AU_INT" / f"AU{number:02d}" / f"{name}_AU{number:02d}.csv", lines)
        identity = int(subject[1:]) + 1000 * (subject[0] == "M")
        plan.write_images(subject, code, plan.images(identity, block, levels, cls._aus()))

    @classmethod
    def _aus(cls) -> tuple[int, ...]:
        return facs.BP4D

    @classmethod
    def _release_offset(cls) -> int:
        return 0

    @classmethod
    def _blocks(cls, subjects_per_part: int, tasks: tuple[str, ...] | None, first: int, count: int) -> dict[Key, range]:
        return {
            (subject, task): range(first, first + count)
            for part in cls.PARTS
            for subject in part[:subjects_per_part]
            for task in tasks or cls.TASKS[:2]
        }

    @classmethod
    def _full_blocks(cls) -> dict[Key, range]:
        """Divide the published numbers of frames over people and tasks, with the drop list inside the blocks."""
        blocks = {}
        for part, (total, _) in zip(cls.PARTS, cls.PART_FRAMES, strict=True):
            keys = [(subject, task) for subject in part for task in cls.TASKS]
            for key, count in zip(keys, _examples.shares(total, len(keys)), strict=True):
                first = max(1, min((start for start, _ in cls.DROP_LIST.get("_".join(key), ((1, 1),))), default=1) - 50)
                blocks[key] = range(first, first + count)
        return blocks

    @classmethod
    def _occurrence_lines(cls, block: range, levels: NDArray[np.int8], not_codable: int) -> Iterator[str]:
        yield ",".join(map(str, range(100)))
        for row, frame in enumerate(block):
            cells = [9] * 100
            cells[0] = frame
            for number, level in zip(cls._aus(), levels[row].tolist(), strict=True):
                cells[number] = int(level > 0)
            if row < not_codable:
                cells[1] = 9
            yield ",".join(map(str, cells))


@dataclass(frozen=True)
class _Plan:
    """How an imitation's files are named and made."""

    root: Path
    subfolder: str
    digits: int
    offset: int
    around: int
    not_codable: int
    old_tasks: bool
    zips: bool
    with_intensities: bool
    size: int | None  # side of the faces; 0 for one pixel, None for empty files
    face_model: str | os.PathLike[str] | None

    def images(
        self, identity: int, block: range, levels: NDArray[np.int8], units: tuple[int, ...]
    ) -> Iterator[tuple[str, bytes]]:
        """Give names and contents of a recording's images."""
        for frame in range(max(block[0] - self.around, 1), block[-1] + self.around + 1):
            content = b"" if self.size is None else _examples.dot()
            if self.size:
                row = levels[min(max(frame - block[0], 0), len(block) - 1)]
                content = _examples.jpeg(_examples.picture(identity, frame, row, units, self.size, self.face_model))
            yield f"{frame + self.offset:0{self.digits}d}.jpg", content

    def write_images(self, subject: str, code: str, images: Iterator[tuple[str, bytes]]) -> None:
        """Write a recording's images into their folder or zip."""
        place = self.root / self.subfolder
        if self.zips:
            place.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(place / f"{subject}.zip", "a") as archive:
                for name, content in images:
                    archive.writestr(f"{code}/{name}", content)
            return
        folder = place / subject / code
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in images:
            (folder / name).write_bytes(content)


DATASET = BP4D
