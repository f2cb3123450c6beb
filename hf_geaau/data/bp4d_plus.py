"""BP4D+: 140 people, AUs coded in 4 of 10 tasks, 197,756 frames; four folds.

Its label files look like BP4D's and are not: the header's first two cells are both called 1 (frame and AU 1), so
columns are read by position. Source: public loaders and the README of forever208/FMAE-IAT, whose random draw the folds
are. The licensed release itself was not at hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError

from . import label_files
from .base import DatasetNotes, Fold, choose
from .bp4d import BP4D, Key
from .frame_files import Frames
from .rows import Recording

HEADER = (1, 1, 2, 4, 5, 6, 7, *range(9, 21), 22, 23, 24, *range(27, 40), 99)
"""The AU that each column holds. Column 0 is the frame, 35 the flag called AU 99."""
FLAG = len(HEADER) - 1


@dataclass(frozen=True)
class BP4DPlus(BP4D):
    """BP4D+ with the 12 AUs of BP4D and four folds.

    Attributes:
        unreliable: What to do with frames whose flag (column 99) is set: "mask" makes their labels -1, so that they
            count for nothing but stay in the total; "keep" trusts them; "drop" leaves out all frames without a label.
            Masking is our choice: the published protocol does not say.
    """

    NAME: ClassVar[str] = "bp4d_plus"
    TITLE: ClassVar[str] = "BP4D+"
    CITATION: ClassVar[str] = (
        "Zhang et al., Multimodal spontaneous emotion corpus for human behavior analysis, CVPR 2016"
    )
    LAYOUT: ClassVar[str] = """
AUCoding/AU_OCC/F001_T1.csv         T1, T6, T7, T8; 36 columns by position: frame, then the AUs; 9 not codable,
                                    the last one (99) flags unreliable frames
AUCoding/AU_INT/AU06/F001_T1_AU06.csv  (AU 6, 10, 12, 14, 17) no header: frame,intensity 0-5, 9 (not codable)
2D+3D/F001.zip or 2D+3D/F001/T1/…jpg   image n - 1 for label frame n, counted from 0"""
    PARTS: ClassVar[tuple[tuple[str, ...], ...]] = tuple(
        tuple(part.split())
        for part in (
            "M040 F072 M015 M029 M003 F076 F053 F026 F044 F066 F057 F061 F071 M050 M033 F079 F020 M025 F014 F004 F013 "
            "M017 F033 M042 M004 F038 F019 M036 M026 M048 F039 F046 M051 F047 M020",
            "F074 F012 F034 M001 F056 F075 M009 M038 F024 M047 F016 M045 M034 M022 F060 M011 M044 M046 M005 M028 F077 "
            "F028 M055 M019 F032 F030 M037 M043 F031 F022 M023 M018 M016 F065 M052",
            "F029 F054 F064 F045 F009 F040 F008 M041 F063 M056 M024 F001 F080 M010 F062 F035 M054 F052 F027 F043 F042 "
            "F050 M057 F078 F058 F017 M035 M030 M027 F021 M031 F069 F002 M008 F068",
            "M058 F037 F010 F023 M007 M002 F025 F073 F048 F041 F051 F011 M032 F005 M021 F018 M013 M049 M014 F070 F006 "
            "F067 M039 M006 F059 F003 F007 F049 M053 F081 F055 M012 F082 F015 F036",
        )
    )
    HAS_MEGRAPHAU_FOLDS: ClassVar[bool] = False
    PART_FRAMES: ClassVar[tuple[tuple[int, int], ...]] = ()
    TOTAL_FRAMES: ClassVar[int] = 197_756
    DROP_LIST: ClassVar[Mapping[str, tuple[tuple[int, int], ...]]] = {}
    TASKS: ClassVar[tuple[str, ...]] = ("T1", "T6", "T7", "T8")
    OLD_TASKS: ClassVar[tuple[str, ...]] = ()
    AUS: ClassVar[tuple[int, ...]] = facs.BP4D_PLUS

    unreliable: str = "mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("unreliable", self.unreliable, ("mask", "keep", "drop"))

    def read(self, data_dir: Path, notes: DatasetNotes) -> list[Recording]:
        """Read all labels and match them with images."""
        recordings = super().read(data_dir, notes)
        if self.unreliable == "drop":
            recordings = [recording.select(np.any(recording.labels >= 0, axis=1)) for recording in recordings]
        return recordings

    def published_counts(self, fold: Fold) -> dict[str, int]:
        """Return the published total; sizes of the folds are not published."""
        return {} if self.unreliable == "drop" else {"train+test": self.TOTAL_FRAMES}

    def _columns(self, header: list[str], path: Path) -> list[int]:
        """Return the columns of frame number, AUs and flag; the header is only checked."""
        wanted = [HEADER.index(number, 1) for number in self.aus]
        if len(header) != len(HEADER) or any(header[column] != str(HEADER[column]) for column in (*wanted, FLAG)):
            raise DatasetError(
                f"The header of {str(path)!r} ({len(header)} columns) is not that of BP4D+ ({len(HEADER)} columns: 1, "
                "1, 2, 4, 5, …, 39, 99). Is this BP4D? Its name is 'bp4d'."
            )
        return [0, *wanted, FLAG]

    def _decode(self, cells: NDArray[np.int32], path: Path) -> NDArray[np.int8]:
        """Turn cells into labels: 9 becomes -1, and so do all labels of an unreliable frame."""
        label_files.check_values(cells, (0, 1, 9), path, 1)
        labels = super()._decode(cells[:, :-1], path)
        if self.unreliable != "keep":
            labels[cells[:, -1] == 1] = -1
        return labels

    def _offset(self, recordings: dict[Key, tuple[NDArray[np.int32], Frames]]) -> int:
        """Return -1, the release's own numbering, unless the files show that they were renumbered."""
        if self.frame_offset is not None or not recordings:
            return -1 if self.frame_offset is None else self.frame_offset
        for key, (frames, images) in recordings.items():
            first, last = int(frames[0]), int(frames[-1])
            if first - 1 not in images.names and last in images.names and last - 1 in images.names:
                raise DatasetError(
                    f"The images of {'_'.join(key)} have the numbers of its label frames, {first}-{last}; in BP4D+ the "
                    "image of label frame n is image n - 1. If your frames were renumbered, pass `frame_offset=0`."
                )
        return -1


DATASET = BP4DPlus
