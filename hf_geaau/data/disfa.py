"""DISFA: 27 people, 12 AUs with intensities in 130,814 frames; three folds; 8 AUs in the usual protocol.

Source of every fact here: the public label and path lists of ZhiwenShao/PyTorch-JAANet, CVI-SZU/ME-GraphAU and
CVI-SZU/MDHR, counted by us, and public loaders for the layout. The licensed release itself was not at hand.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError

from . import frame_files, label_files
from .base import AUDataset, DatasetNotes, choose, require
from .rows import Recording

Camera = Literal["left", "right"]
CAMERAS: tuple[Camera, ...] = get_args(Camera)
_SUBJECT = re.compile(r"SN\d{3}")


@dataclass(frozen=True)
class DISFA(AUDataset):
    """DISFA by its published three-fold protocol.

    Attributes:
        camera: "left" or "right"; has no default, because published numbers use either. Not needed with `frames_dir`.
        frames_dir: Extracted frames instead of the videos: the folder that holds SN001/0.png or the like.
        variant: 8 (the usual protocol) or 12 (all coded AUs).
        threshold: Intensity from which an AU counts as present; the protocol says 2.
        frame_offset: With `frames_dir`, what to add to a label's frame number (from 1) to get its image's number;
            None finds out from the names.
    """

    NAME: ClassVar[str] = "disfa"
    TITLE: ClassVar[str] = "DISFA"
    LICENSE: ClassVar[str] = "Request form, non-commercial research; no redistribution"
    HOMEPAGE: ClassVar[str] = "http://mohammadmahoor.com/disfa/"
    CITATION: ClassVar[str] = (
        "Mavadati et al., DISFA: a spontaneous facial action intensity database, "
        "IEEE Transactions on Affective Computing 4(2), 2013"
    )
    LAYOUT: ClassVar[str] = """
ActionUnit_Labels/SN001/SN001_au1.txt       one line per frame: frame,intensity; frames from 1, intensity 0-5;
                                            AU 1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26
Videos_LeftCamera/LeftVideoSN001_comp.avi   may decode to more frames than there are labels
Videos_RightCamera/RightVideoSN001_comp.avi
Extracted frames, if you have them: <frames_dir>/SN001/0.png, counted from 0 or 1, any padding, jpg or png"""
    # JAA-Net's parts 1, 2, 3; ME-GraphAU counts the same sets backwards.
    PARTS: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("SN001", "SN002", "SN009", "SN010", "SN016", "SN026", "SN027", "SN030", "SN032"),
        ("SN006", "SN011", "SN012", "SN013", "SN018", "SN021", "SN024", "SN028", "SN031"),
        ("SN003", "SN004", "SN005", "SN007", "SN008", "SN017", "SN023", "SN025", "SN029"),
    )
    HAS_MEGRAPHAU_FOLDS: ClassVar[bool] = True
    PART_FRAMES: ClassVar[tuple[tuple[int, int], ...]] = ((43_604, 43_173), (43_605, 40_344), (43_605, 42_627))
    # 4,670 frames with bad landmarks, counted from 1: exactly those that JAA-Net's lists lack.
    DROP_LIST: ClassVar[Mapping[str, tuple[tuple[int, int], ...]]] = {
        "SN001": ((398, 420), (3190, 3243)),
        "SN002": ((800, 826),),
        "SN004": ((4541, 4555),),
        "SN006": ((1349, 1405),),
        "SN009": ((1736, 1808), (1851, 1885)),
        "SN011": ((4529, 4533), (4830, 4845)),
        "SN021": (
            (574, 616), (985, 1164), (1190, 1205), (1305, 1338), (1665, 1710), (1862, 2477), (2554, 4657),
            (4710, 4722),
        ),
        "SN023": ((1021, 1049), (3378, 3557), (3584, 3668), (4547, 4621), (4741, 4772), (4825, 4845)),
        "SN025": ((4596, 4662), (4816, 4835)),
        "SN027": ((3461, 3494), (4738, 4785)),
        "SN028": ((1875, 1885), (4571, 4690)),
        "SN029": ((4090, 4543),),
        "SN030": ((939, 962), (1406, 1422), (2100, 2132), (2893, 2955)),
    }  # fmt: skip

    camera: str | None = None
    frames_dir: str | os.PathLike[str] | None = None
    variant: int = 8
    threshold: int = 2
    frame_offset: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("variant", self.variant, (8, 12))
        choose("threshold", self.threshold, (1, 2, 3, 4, 5))
        choose("frame_offset", self.frame_offset, (None, 0, -1))
        if self.frames_dir is None and self.camera not in CAMERAS:
            raise DatasetError(
                f"`camera` must be 'left' or 'right', got {self.camera!r}. Published numbers use either "
                "(ME-GraphAU the left, FMAE-IAT the right), so choose one; or pass `frames_dir` for extracted frames."
            )

    @property
    def aus(self) -> tuple[int, ...]:
        """The 8 AUs of the protocol, or all 12."""
        return facs.DISFA if self.variant == 8 else facs.DISFA_12

    def files(self, data_dir: Path) -> list[Path]:
        """Find label files, and videos or folders of frames."""
        subjects = self._subjects(data_dir)
        labels = [path for folder in subjects.values() for path in folder.glob("*.txt")]
        return labels + list(self._image_paths(data_dir).values())

    def read(self, data_dir: Path, notes: DatasetNotes) -> list[Recording]:
        """Read all labels and match them with images."""
        labels, paths = self._subjects(data_dir), self._image_paths(data_dir)
        for subject in sorted(paths.keys() - labels.keys()):
            notes.add(
                f"{str(paths[subject])!r} has no labels: there is no folder 'ActionUnit_Labels/{subject}' in "
                f"{str(data_dir)!r}. Copy it from the release."
            )
        for subject in sorted(labels.keys() - paths.keys()):
            notes.add(
                f"The label folder {str(labels[subject])!r} has no {'frames' if self.frames_dir else 'video'} of "
                f"{subject} in {str(self._image_root(data_dir))!r}. Copy them."
            )
        levels = self._levels({subject: labels[subject] for subject in sorted(labels.keys() & paths.keys())}, notes)
        recordings = [
            Recording(subject, subject, frames, (coded >= self.threshold).astype(np.int8), coded, [])
            for subject, (frames, coded) in levels.items()
        ]
        if self.frames_dir is None:
            return [self._add_video(recording, paths[recording.subject_id], notes) for recording in recordings]
        images = {subject: frame_files.in_folder(paths[subject]) for subject in levels}
        offset = self.frame_offset
        if offset is None:
            votes = {subject: frame_files.offset_of(levels[subject][0], images[subject]) for subject in levels}
            offset = frame_files.common_offset(votes, "frame_offset")
        return [
            frame_files.add_images(recording, images[recording.subject_id], offset, notes) for recording in recordings
        ]

    def _subjects(self, data_dir: Path) -> dict[str, Path]:
        """Find the label folders by subject."""
        root = data_dir / "ActionUnit_Labels"
        if not root.is_dir():
            raise self.not_found(data_dir, "no folder 'ActionUnit_Labels'")
        found = {path.name: path for path in sorted(root.iterdir()) if _SUBJECT.fullmatch(path.name) and path.is_dir()}
        if not found:
            raise self.not_found(data_dir, f"no folder such as 'SN001' in {str(root)!r}")
        for subject, path in found.items():
            self._check_subject(subject, path)
        return found

    def _check_subject(self, subject: str, path: Path) -> None:
        if not any(subject in part for part in self.PARTS):
            raise DatasetError(
                f"Subject {subject!r} of {str(path)!r} is in no fold of DISFA. Remove it, or check that this is DISFA "
                "and not DISFA+."
            )

    def _image_root(self, data_dir: Path) -> Path:
        if self.frames_dir is not None:
            return Path(self.frames_dir).expanduser().absolute()
        return data_dir / f"Videos_{str(self.camera).capitalize()}Camera"

    def _image_paths(self, data_dir: Path) -> dict[str, Path]:
        """Find the videos of the chosen camera, or the folders of frames, by subject."""
        root = self._image_root(data_dir)
        if not root.is_dir():
            raise self.not_found(data_dir, f"no folder {str(root)!r}")
        if self.frames_dir is not None:
            paths = {path.name: path for path in root.iterdir() if _SUBJECT.fullmatch(path.name) and path.is_dir()}
        else:
            require("av", ".video_frames", "hf_geaau.data.disfa")  # also makes `datasets` able to open frames of videos
            name = re.compile(rf"{self.camera}Video(SN\d{{3}})_comp\.avi", re.IGNORECASE)
            matches = [(name.fullmatch(path.name), path) for path in root.iterdir()]
            paths = {match[1].upper(): path for match, path in matches if match}
        for subject, path in paths.items():
            self._check_subject(subject, path)
        if not paths:
            raise self.not_found(data_dir, f"no recordings of DISFA's subjects in {str(root)!r}")
        return paths

    def _levels(
        self, folders: dict[str, Path], notes: DatasetNotes
    ) -> dict[str, tuple[NDArray[np.int32], NDArray[np.int8]]]:
        """Read frame numbers and intensities by subject; AUs by their numbers, not by the order of files."""
        paths = {subject: [folder / f"{subject}_au{au}.txt" for au in self.aus] for subject, folder in folders.items()}
        complete = {}
        for subject, files in paths.items():
            missing = [path for path in files if not path.is_file()]
            if missing:
                notes.add(
                    f"The label file {missing[0].name!r} is missing in {str(missing[0].parent)!r}. Copy it from the "
                    "release."
                )
            else:
                complete[subject] = files
        flat = [path for files in complete.values() for path in files]
        values = dict(zip(flat, label_files.read_columns(flat, 2, (0, 1)), strict=True))
        found = {}
        for subject, files in complete.items():
            frames = values[files[0]][:, 0]
            for path in files:
                self._check(values[path], frames, path, files[0], notes)
            found[subject] = (frames, np.stack([values[path][:, 1] for path in files], axis=1).astype(np.int8))
        return found

    def _check(
        self, values: NDArray[np.int32], frames: NDArray[np.int32], path: Path, first: Path, notes: DatasetNotes
    ) -> None:
        for start, stop in label_files.check_frames(values[:, 0], path, 0):
            notes.add(
                f"Frames {start}-{stop} are missing in {str(path)!r}, and coded frames are one block in the release. "
                "Copy the file again."
            )
        if not np.array_equal(values[:, 0], frames):
            raise DatasetError(
                f"The label files of a subject have different frames: {len(values)} lines in {str(path)!r} and "
                f"{len(frames)} in {str(first)!r}. One seems to be truncated; copy it again from the release."
            )
        label_files.check_values(values[:, 1], range(6), path, 0)

    def _add_video(self, recording: Recording, path: Path, notes: DatasetNotes) -> Recording:
        """Return the labeled frames that the video has, with their URLs.

        Label frame n is the n-th frame of the video; frames after the last label are not used.
        """
        from .video_frames import VideoFrames, frame_url

        video = VideoFrames(path)
        declared, frames = video.declared_count, recording.frames
        video.close()
        has_image = frames <= declared if declared else np.ones(len(frames), bool)
        if not has_image.all():
            notes.add(
                f"The video {str(path)!r} has {declared} frames, and its labels reach frame {frames[-1]}. The video "
                "ends early; copy it again. Labels are never moved to fit."
            )
        recording.images = [frame_url(path, frame - 1) for frame in frames.tolist()]
        return recording.select(has_image)


DATASET = DISFA
