"""The Facial Action Coding System: action units, their names, muscles and regions, and the AU order of each benchmark.

Source: Ekman, Friesen & Hager, "Facial Action Coding System: The Manual" (2002) for numbers, names and muscles. The
AU lists are in the order of the published 12-AU (BP4D, BP4D+) and 8- and 12-AU (DISFA) protocols.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ActionUnit:
    """One action unit.

    Attributes:
        number: FACS number.
        name: FACS name.
        muscle: The muscle or muscles that produce it; "" for action descriptors, for which FACS names none.
        region: Part of the face where it shows: brow, eye, cheek, nose, mouth or chin.
        boxes: Where that is in the aligned crop, see `regions`.
    """

    number: int
    name: str
    muscle: str
    region: str
    boxes: tuple[Box, ...]

    @property
    def label(self) -> str:
        """The two-digit label used in columns, tables and cards, such as 'AU06'."""
        return f"AU{self.number:02d}"


_INNER_BROWS = ((0.30, 0.08, 0.70, 0.36),)
_OUTER_BROWS = ((0.10, 0.10, 0.40, 0.36), (0.60, 0.10, 0.90, 0.36))
_BROWS = ((0.22, 0.14, 0.78, 0.40),)
_EYES = ((0.20, 0.25, 0.48, 0.47), (0.52, 0.25, 0.80, 0.47))
_CHEEKS = ((0.10, 0.30, 0.46, 0.62), (0.54, 0.30, 0.90, 0.62))
_NOSE = ((0.32, 0.28, 0.68, 0.62),)
_UPPER_LIP = ((0.28, 0.46, 0.72, 0.76),)
_NASOLABIAL = ((0.22, 0.46, 0.78, 0.74),)
_MOUTH_CORNERS = ((0.22, 0.56, 0.46, 0.86), (0.54, 0.56, 0.78, 0.86))
_LIPS = ((0.30, 0.60, 0.70, 0.88),)
_MOUTH = ((0.22, 0.58, 0.78, 0.90),)
_JAW = ((0.24, 0.58, 0.76, 1.00),)
_CHIN = ((0.30, 0.70, 0.70, 1.00),)
_LOWER_CHEEKS = ((0.10, 0.46, 0.40, 0.86), (0.60, 0.46, 0.90, 0.86))

ACTION_UNITS: dict[int, ActionUnit] = {
    unit.number: unit
    for unit in (
        ActionUnit(1, "Inner brow raiser", "frontalis, pars medialis", "brow", _INNER_BROWS),
        ActionUnit(2, "Outer brow raiser", "frontalis, pars lateralis", "brow", _OUTER_BROWS),
        ActionUnit(
            4, "Brow lowerer", "depressor glabellae, depressor supercilii, corrugator supercilii", "brow", _BROWS
        ),
        ActionUnit(5, "Upper lid raiser", "levator palpebrae superioris, superior tarsal muscle", "eye", _EYES),
        ActionUnit(6, "Cheek raiser", "orbicularis oculi, pars orbitalis", "cheek", _CHEEKS),
        ActionUnit(7, "Lid tightener", "orbicularis oculi, pars palpebralis", "eye", _EYES),
        ActionUnit(8, "Lips toward each other", "orbicularis oris", "mouth", _LIPS),
        ActionUnit(9, "Nose wrinkler", "levator labii superioris alaeque nasi", "nose", _NOSE),
        ActionUnit(10, "Upper lip raiser", "levator labii superioris", "mouth", _UPPER_LIP),
        ActionUnit(11, "Nasolabial deepener", "zygomaticus minor", "cheek", _NASOLABIAL),
        ActionUnit(12, "Lip corner puller", "zygomaticus major", "mouth", _MOUTH_CORNERS),
        ActionUnit(13, "Sharp lip puller", "levator anguli oris", "mouth", _MOUTH_CORNERS),
        ActionUnit(14, "Dimpler", "buccinator", "mouth", _MOUTH_CORNERS),
        ActionUnit(15, "Lip corner depressor", "depressor anguli oris", "mouth", _MOUTH_CORNERS),
        ActionUnit(16, "Lower lip depressor", "depressor labii inferioris", "mouth", _LIPS),
        ActionUnit(17, "Chin raiser", "mentalis", "chin", _CHIN),
        ActionUnit(18, "Lip pucker", "incisivii labii superioris, incisivii labii inferioris", "mouth", _LIPS),
        ActionUnit(19, "Tongue show", "", "mouth", _LIPS),
        ActionUnit(20, "Lip stretcher", "risorius, platysma", "mouth", _MOUTH),
        ActionUnit(21, "Neck tightener", "platysma", "chin", _CHIN),
        ActionUnit(22, "Lip funneler", "orbicularis oris", "mouth", _LIPS),
        ActionUnit(23, "Lip tightener", "orbicularis oris", "mouth", _LIPS),
        ActionUnit(24, "Lip pressor", "orbicularis oris", "mouth", _LIPS),
        ActionUnit(
            25, "Lips part", "depressor labii inferioris, or relaxed mentalis or orbicularis oris", "mouth", _MOUTH
        ),
        ActionUnit(26, "Jaw drop", "masseter, relaxed temporalis and internal pterygoid", "mouth", _JAW),
        ActionUnit(27, "Mouth stretch", "pterygoids, digastric", "mouth", _JAW),
        ActionUnit(28, "Lip suck", "orbicularis oris", "mouth", _LIPS),
        ActionUnit(29, "Jaw thrust", "", "chin", _JAW),
        ActionUnit(30, "Jaw sideways", "", "chin", _JAW),
        ActionUnit(31, "Jaw clencher", "masseter", "cheek", _LOWER_CHEEKS),
        ActionUnit(32, "Lip bite", "", "mouth", _LIPS),
        ActionUnit(33, "Cheek blow", "", "cheek", _LOWER_CHEEKS),
        ActionUnit(34, "Cheek puff", "", "cheek", _LOWER_CHEEKS),
        ActionUnit(35, "Cheek suck", "", "cheek", _LOWER_CHEEKS),
        ActionUnit(36, "Tongue bulge", "", "cheek", _LOWER_CHEEKS),
        ActionUnit(37, "Lip wipe", "", "mouth", _LIPS),
        ActionUnit(38, "Nostril dilator", "nasalis, pars alaris", "nose", _NOSE),
        ActionUnit(39, "Nostril compressor", "nasalis, pars transversa, and depressor septi nasi", "nose", _NOSE),
        ActionUnit(43, "Eyes closed", "relaxed levator palpebrae superioris", "eye", _EYES),
        ActionUnit(
            45, "Blink", "relaxed levator palpebrae superioris, orbicularis oculi, pars palpebralis", "eye", _EYES
        ),
        ActionUnit(
            46, "Wink", "relaxed levator palpebrae superioris, orbicularis oculi, pars palpebralis", "eye", _EYES
        ),
    )
}

# The AUs of each benchmark, in the order of its published results.
BP4D = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
BP4D_PLUS = BP4D
DISFA = (1, 2, 4, 6, 9, 12, 25, 26)
DISFA_12 = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
SYNTHETIC = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26, 43)

ORDERS: dict[str, tuple[int, ...]] = {
    "bp4d": BP4D,
    "bp4d_plus": BP4D_PLUS,
    "disfa": DISFA,
    "disfa_12": DISFA_12,
    "synthetic": SYNTHETIC,
}

SIDES = ("left", "right")
"""The sides of a face, as its owner names them: the person's left lies to the image's right."""

SIDED = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 20, 43)
"""The AUs that are predicted for each side: paired muscles move them, and FACS scores one-sided ones as left or right.
Our choice among those of `SYNTHETIC`, whose renderer knows both sides."""

AUList = str | Sequence[int] | Sequence[str]


def numbers(units: AUList) -> tuple[int, ...]:
    """Return the FACS numbers of an AU list.

    Args:
        units: Name of a benchmark (a key of `ORDERS`), labels such as "AU06", or FACS numbers.

    Raises:
        ValueError: If the benchmark or an AU is unknown, or an AU occurs twice.

    Example:
        >>> numbers("disfa")
        (1, 2, 4, 6, 9, 12, 25, 26)
        >>> numbers(["AU06", "AU12"])
        (6, 12)
    """
    if isinstance(units, str):
        if units not in ORDERS:
            raise ValueError(f"`units` must be one of {', '.join(ORDERS)}, or a list of AUs, got '{units}'.")
        return ORDERS[units]
    result = tuple(_number(unit) for unit in units)
    unknown = [number for number in result if number not in ACTION_UNITS]
    if unknown or len(set(result)) != len(result):
        raise ValueError(
            f"AUs must be distinct and among {', '.join(map(str, ACTION_UNITS))}, got {', '.join(map(str, result))}."
        )
    return result


def _number(unit: int | str) -> int:
    try:
        return int(str(unit).upper().removeprefix("AU"))
    except ValueError:
        raise ValueError(f"An AU must be a number or a label such as 'AU06', got '{unit}'.") from None


def labels(units: AUList) -> list[str]:
    """Return the two-digit labels of an AU list.

    Example:
        >>> labels([6, 12])
        ['AU06', 'AU12']
    """
    return [ACTION_UNITS[number].label for number in numbers(units)]


def sided(names: Sequence[str]) -> dict[str, int]:
    """Return the labels of the AUs that have sides, with their positions in a list of labels.

    Example:
        >>> sided(["AU12", "AU25", "AU43"])
        {'AU12': 0, 'AU43': 2}
    """
    known = labels(SIDED)
    return {name: index for index, name in enumerate(names) if name in known}


def regions(units: AUList) -> list[list[list[float]]]:
    """Return the boxes of the aligned crop in which each AU shows, by FACS.

    Returns:
        For each AU its boxes: x0, y0, x1, y1 as fractions of the crop side, in the frame of the model's
        `CROP_TEMPLATE`. The boxes of one AU do not overlap.

    Source:
        The manual's appearance changes name the parts of the face; the boxes, drawn generously on the crop template,
        are our choice.

    Example:
        >>> regions([1])
        [[[0.3, 0.08, 0.7, 0.36]]]
    """
    return [[list(box) for box in ACTION_UNITS[number].boxes] for number in numbers(units)]


def index_map(source: AUList, target: AUList) -> tuple[list[int], list[int]]:
    """Return the positions of the shared AUs in two AU lists, in the target's order.

    Returns:
        Their positions in `source`, and their positions in `target`.

    Example:
        >>> index_map("bp4d", "disfa")
        ([0, 1, 2, 3, 6], [0, 1, 2, 3, 5])
    """
    source, target = numbers(source), numbers(target)
    shared = [number for number in target if number in source]
    return [source.index(number) for number in shared], [target.index(number) for number in shared]


def remap(values: ArrayLike, source: AUList, target: AUList) -> NDArray[Any]:
    """Reorder the last axis from one AU list to another; an AU that the source lacks becomes -1 (not labeled).

    Args:
        values: (..., len(source)) labels or intensities.
        source: AU list of the last axis of `values`.
        target: AU list of the result.

    Returns:
        (..., len(target)), of the same dtype.

    Raises:
        ValueError: If the last axis does not have the AUs of `source`.

    Example:
        >>> remap([[1, 0, 1]], [1, 6, 12], [12, 25, 1]).tolist()
        [[1, -1, 1]]
    """
    values = np.asarray(values)
    source, target = numbers(source), numbers(target)
    if values.shape[-1:] != (len(source),):
        raise ValueError(
            f"The last axis of `values` must have {len(source)} AUs ({', '.join(labels(source))}), got {values.shape}."
        )
    take, put = index_map(source, target)
    result = np.full((*values.shape[:-1], len(target)), -1, dtype=values.dtype)
    result[..., put] = values[..., take]
    return result
