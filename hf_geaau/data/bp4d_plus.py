"""BP4D+: 140 people, AUs coded in 4 of 10 tasks, 197,756 frames; four folds.

Its label files look like BP4D's and are not: the header's first two cells are both called 1 (frame and AU 1), so
columns are read by position. Source: public loaders and the README of forever208/FMAE-IAT, whose random draw the folds
are. The licensed release itself was not at hand.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError

from . import _examples, _frames, _labels
from ._base import DatasetNotes, Sequence, choose
from .bp4d import BP4D, Key

# Column = position; the AU each position holds. Position 0 is the frame, 35 the flag called AU 99.
HEADER = (1, 1, 2, 4, 5, 6, 7, *range(9, 21), 22, 23, 24, *range(27, 40), 99)
_FLAG = len(HEADER) - 1


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
    MEGRAPHAU_FOLDS: ClassVar[tuple[int, ...]] = ()
    PART_FRAMES: ClassVar[tuple[tuple[int, int], ...]] = ()
    TOTAL_FRAMES: ClassVar[int] = 197_756
    DROP_LIST: ClassVar[Mapping[str, tuple[tuple[int, int], ...]]] = {}
    TASKS: ClassVar[tuple[str, ...]] = ("T1", "T6", "T7", "T8")
    OLD_TASKS: ClassVar[tuple[str, ...]] = ()

    unreliable: str = "mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("unreliable", self.unreliable, ("mask", "keep", "drop"))

    def sequences(self, data_dir: Path, notes: DatasetNotes) -> list[Sequence]:
        """Read all labels and match them with images."""
        found = super().sequences(data_dir, notes)
        if self.unreliable == "drop":
            found = [sequence.select(np.any(sequence.labels >= 0, axis=1)) for sequence in found]
        return found

    def expected(self, fold: int | None, protocol: str) -> dict[str, int]:
        """Give the published total; sizes of the folds are not published."""
        return {} if self.unreliable == "drop" else {"train+test": self.TOTAL_FRAMES}

    def _columns(self, header: list[str], path: Path) -> list[int]:
        """Give the positions of frame number, AUs and flag; the header is only checked."""
        wanted = [HEADER.index(number, 1) for number in self.aus]
        if len(header) != len(HEADER) or any(header[column] != str(HEADER[column]) for column in (*wanted, _FLAG)):
            raise DatasetError(
                f"The header must be that of BP4D+ ({len(HEADER)} columns: 1, 1, 2, 4, 5, …, 39, 99), got "
                f"{len(header)} columns in {str(path)!r}, line 1. Is this BP4D? Its name is 'bp4d'."
            )
        return [0, *wanted, _FLAG]

    def _decode(self, cells: NDArray[np.int32], path: Path) -> NDArray[np.int8]:
        """Turn cells into labels: 9 becomes -1, and so do all labels of an unreliable frame."""
        _labels.check_values(cells, (0, 1, 9), path, 1)
        labels = super()._decode(cells[:, :-1], path)
        if self.unreliable != "keep":
            labels[cells[:, -1] == 1] = -1
        return labels

    def _offset(self, recordings: dict[Key, tuple[NDArray[Any], _frames.Frames]]) -> int:
        """Give -1, the release's own numbering, unless the files say that they were renumbered."""
        if self.frame_offset is not None or not recordings:
            return -1 if self.frame_offset is None else self.frame_offset
        for key, (frames, images) in recordings.items():
            first, last = int(frames[0]), int(frames[-1])
            if first - 1 not in images.names and last in images.names and last - 1 in images.names:
                raise DatasetError(
                    f"Image n - 1 must belong to label frame n in BP4D+, got images {first}-{last} for frames "
                    f"{first}-{last} of {'_'.join(key)}. If your frames were renumbered, pass `frame_offset=0`."
                )
        return -1

    @classmethod
    def _aus(cls) -> tuple[int, ...]:
        return facs.BP4D_PLUS

    @classmethod
    def _release_offset(cls) -> int:
        return -1

    @classmethod
    def _full_blocks(cls) -> dict[Key, range]:
        keys = [(subject, task) for part in cls.PARTS for subject in part for task in cls.TASKS]
        counts = _examples.shares(cls.TOTAL_FRAMES, len(keys))
        return {key: range(1, count + 1) for key, count in zip(keys, counts, strict=True)}

    @classmethod
    def _occurrence_lines(cls, block: range, levels: NDArray[np.int8], not_codable: int) -> Iterator[str]:
        """Write the header of BP4D+, and flag the last frames, as many as are not codable, as unreliable."""
        yield ",".join(map(str, HEADER))
        columns = [HEADER.index(number, 1) for number in cls._aus()]
        for row, frame in enumerate(block):
            cells = [frame, *[0] * (len(HEADER) - 1)]
            for column, level in zip(columns, levels[row].tolist(), strict=True):
                cells[column] = int(level > 0)
            if row < not_codable:
                cells[1] = 9
            cells[_FLAG] = int(row >= len(block) - not_codable)
            yield ",".join(map(str, cells))


DATASET = BP4DPlus
