"""DISFA: 27 people, 12 AUs with intensities in 130,814 frames; three folds; 8 AUs in the usual protocol.

Source of every fact here: the public label and path lists of ZhiwenShao/PyTorch-JAANet, CVI-SZU/ME-GraphAU and
CVI-SZU/MDHR, counted by us, and public loaders for the layout. The licensed release itself was not at hand.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau import facs
from hf_geaau.errors import DatasetError

from . import _examples, _frames, _labels
from ._base import AUDataset, DatasetNotes, Sequence, choose, not_found, require

CAMERAS = ("left", "right")
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
    MEGRAPHAU_FOLDS: ClassVar[tuple[int, ...]] = (3, 2, 1)
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
    frames_dir: str | None = None
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
        return labels + list(self._image_places(data_dir).values())

    def sequences(self, data_dir: Path, notes: DatasetNotes) -> list[Sequence]:
        """Read all labels and match them with images."""
        labels, places = self._subjects(data_dir), self._image_places(data_dir)
        for subject in sorted(places.keys() - labels.keys()):
            notes.add(
                f"Each recording must have its labels, got {str(places[subject])!r} but no folder "
                f"'ActionUnit_Labels/{subject}' in {str(data_dir)!r}. Copy it from the release."
            )
        for subject in sorted(labels.keys() - places.keys()):
            notes.add(
                f"Each label folder must have its {'frames' if self.frames_dir else 'video'}, got "
                f"{str(labels[subject])!r} but none of {subject} in {str(self._image_root(data_dir))!r}. Copy them."
            )
        subjects = sorted(labels.keys() & places.keys())
        levels = self._levels({subject: labels[subject] for subject in subjects}, notes)
        if self.frames_dir is None:
            return [self._from_video(subject, *levels[subject], places[subject], notes) for subject in levels]
        images = {subject: _frames.in_folder(places[subject]) for subject in levels}
        offset = self.frame_offset
        if offset is None:
            votes = {subject: _frames.offset_of(levels[subject][0], images[subject]) for subject in levels}
            offset = _frames.agree(votes, "frame_offset")
        return [self._from_frames(subject, *levels[subject], images[subject], offset, notes) for subject in levels]

    def _subjects(self, data_dir: Path) -> dict[str, Path]:
        """Find the label folders by subject."""
        root = data_dir / "ActionUnit_Labels"
        if not root.is_dir():
            raise not_found(self, data_dir, "no folder 'ActionUnit_Labels'")
        found = {path.name: path for path in sorted(root.iterdir()) if _SUBJECT.fullmatch(path.name) and path.is_dir()}
        if not found:
            raise not_found(self, data_dir, f"no folder such as 'SN001' in {str(root)!r}")
        for subject, path in found.items():
            self._check_subject(subject, path)
        return found

    def _check_subject(self, subject: str, path: Path) -> None:
        if not any(subject in part for part in self.PARTS):
            raise DatasetError(
                f"Subjects must be those of DISFA's folds, got {subject!r} in {str(path)!r}. Remove it, or check that "
                "this is DISFA and not DISFA+."
            )

    def _image_root(self, data_dir: Path) -> Path:
        if self.frames_dir is not None:
            return Path(self.frames_dir).expanduser().absolute()
        return data_dir / f"Videos_{str(self.camera).capitalize()}Camera"

    def _image_places(self, data_dir: Path) -> dict[str, Path]:
        """Find the videos of the chosen camera, or the folders of frames, by subject."""
        root = self._image_root(data_dir)
        if not root.is_dir():
            raise not_found(self, data_dir, f"no folder {str(root)!r}")
        if self.frames_dir is not None:
            places = {path.name: path for path in root.iterdir() if _SUBJECT.fullmatch(path.name) and path.is_dir()}
        else:
            require("av", "._video", "hf_geaau.data.disfa")  # also makes `datasets` able to open frames of videos
            name = re.compile(rf"{self.camera}Video(SN\d{{3}})_comp\.avi", re.IGNORECASE)
            matches = [(name.fullmatch(path.name), path) for path in root.iterdir()]
            places = {match[1].upper(): path for match, path in matches if match}
        for subject, path in places.items():
            self._check_subject(subject, path)
        if not places:
            raise not_found(self, data_dir, f"no recordings of DISFA's subjects in {str(root)!r}")
        return places

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
                    f"Each subject must have a label file per AU, got no {missing[0].name!r} in "
                    f"{str(missing[0].parent)!r}. Copy it from the release."
                )
            else:
                complete[subject] = files
        flat = [path for files in complete.values() for path in files]
        values = dict(zip(flat, _labels.read_columns(flat, 2, (0, 1)), strict=True))
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
        for start, stop in _labels.check_frames(values[:, 0], path, 0):
            notes.add(
                f"Coded frames must be one block, got none of frames {start}-{stop} in {str(path)!r}. Frames without a "
                "label cannot be used; copy the file again from the release."
            )
        if not np.array_equal(values[:, 0], frames):
            raise DatasetError(
                f"The label files of a subject must have the same frames, got {len(values)} lines in {str(path)!r} and "
                f"{len(frames)} in {str(first)!r}. One seems to be cut off; copy it again from the release."
            )
        _labels.check_values(values[:, 1], range(6), path, 0)

    def _sequence(self, subject: str, frames: NDArray[Any], levels: NDArray[np.int8], images: list[str]) -> Sequence:
        return Sequence(subject, subject, frames, (levels >= self.threshold).astype(np.int8), levels, images)

    def _from_video(
        self, subject: str, frames: NDArray[Any], levels: NDArray[np.int8], video: Path, notes: DatasetNotes
    ) -> Sequence:
        """Label frame n is the n-th frame of the video; frames after the last label are not used."""
        from ._video import VideoFrames, frame_url

        reader = VideoFrames(video)
        declared = reader.declared_count
        reader.close()
        keep = frames <= declared if declared else np.ones(len(frames), bool)
        if not keep.all():
            notes.add(
                f"A video must have a frame for each label, got {declared} frames and labels up to frame {frames[-1]} "
                f"for {str(video)!r}. The video ends early; copy it again. Labels are never moved to fit."
            )
        urls = [frame_url(video, frame - 1) for frame in frames[keep].tolist()]
        return self._sequence(subject, frames[keep], levels[keep], urls)

    def _from_frames(
        self,
        subject: str,
        frames: NDArray[Any],
        levels: NDArray[np.int8],
        images: _frames.Frames,
        offset: int,
        notes: DatasetNotes,
    ) -> Sequence:
        there = _frames.with_image(frames, images, offset, subject, notes)
        paths = [images.path(frame + offset) for frame in frames[there].tolist()]
        return self._sequence(subject, frames[there], levels[there], paths)

    @classmethod
    def write_example(
        cls,
        folder: str | os.PathLike[str],
        *,
        subjects_per_part: int = 2,
        frames: int = 12,
        extra_frames: int = 9,
        cameras: tuple[str, ...] = CAMERAS,
        extracted: str | None = None,
        digits: int = 1,
        first_image: int = 0,
        full_size: bool = False,
        faces: bool = True,
        size: int = 160,
        face_model: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Write a small imitation of the release, with invented labels and faces; give its folder.

        Args:
            folder: Where; made if missing.
            subjects_per_part: People of each part of the folds.
            frames: Labelled frames of each person.
            extra_frames: How many more frames a video has than labels, as in the release.
            cameras: Whose videos to write; the right camera's are mirrored. () for none.
            extracted: Also write extracted frames, PNG, into this folder below `folder`.
            digits: To how many the numbers of extracted frames are padded.
            first_image: Number of the first extracted frame, 0 or 1.
            full_size: Write all people with the published numbers of frames, in videos of 16 pixels.
            faces: Draw faces; without, images are of one color that says their number.
            size: Side of the images.
            face_model: ICT-FaceKit (see `hf_geaau.synthetic.load_face_model`): render the faces.

        Example:
            >>> import tempfile
            >>> folder = DISFA.write_example(tempfile.mkdtemp(), subjects_per_part=1, frames=2, faces=False)
            >>> sorted(path.name for path in folder.iterdir())
            ['ActionUnit_Labels', 'Videos_LeftCamera', 'Videos_RightCamera']
        """
        members = [subject for part in cls.PARTS for subject in (part if full_size else part[:subjects_per_part])]
        for identity, subject in enumerate(members):
            count = (4844 if subject == "SN010" else 4845) if full_size else frames
            levels = _examples.random_levels([identity, count], count, len(facs.DISFA_12))
            if full_size or not faces:
                images = [_flat(number, 16 if full_size else size) for number in range(count + extra_frames)]
            else:  # the last expression lasts to the end of the video
                rows = levels[np.minimum(np.arange(count + extra_frames), count - 1)]
                images = [
                    _examples.picture(identity, number, row, facs.DISFA_12, size, face_model)
                    for number, row in enumerate(rows)
                ]
            _write_recording(Path(folder), subject, levels, images, cameras)
            if extracted is not None:
                place = Path(folder) / extracted / subject
                place.mkdir(parents=True, exist_ok=True)
                for number, image in enumerate(images[:count], first_image):
                    image.save(place / f"{number:0{digits}d}.png")
        return Path(folder)


def _write_recording(
    root: Path, subject: str, levels: NDArray[np.int8], images: list[Image.Image], cameras: tuple[str, ...]
) -> None:
    for column, unit in enumerate(facs.DISFA_12):
        lines = [f"{frame},{level}" for frame, level in enumerate(levels[:, column].tolist(), 1)]
        _examples.write_lines(root / "ActionUnit_Labels" / subject / f"{subject}_au{unit}.txt", lines)
    for camera in cameras:
        place = root / f"Videos_{camera.capitalize()}Camera"
        place.mkdir(parents=True, exist_ok=True)
        _write_video(place / f"{camera.capitalize()}Video{subject}_comp.avi", images, camera == "right")


def _flat(number: int, size: int) -> Image.Image:
    """Make an image whose color tells its number, modulo 1,000, even after lossy coding."""
    return Image.new("RGB", (size, size), (25 * (number // 100 % 10), 25 * (number // 10 % 10), 25 * (number % 10)))


def _write_video(path: Path, images: list[Image.Image], mirrored: bool) -> None:
    """Encode a video with a key frame every 12 frames, so that seeking has something to get wrong."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height = images[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size = 12
        for image in images:
            shown = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
            container.mux(stream.encode(av.VideoFrame.from_image(shown)))
        container.mux(stream.encode())


DATASET = DISFA
