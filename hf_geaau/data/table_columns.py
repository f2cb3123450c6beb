"""Find out which columns of somebody's own table mean what, and read labels in any common spelling."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs
from hf_geaau.errors import DatasetError

ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "image_file", "file_name", "filename", "file", "file_path", "filepath", "path",
              "img", "img_path", "photo", "picture"),
    "subject": ("subject", "subject_id", "subject_name", "person", "person_id", "participant", "participant_id",
                "identity"),
    "split": ("split", "subset", "partition"),
    "sequence": ("sequence", "sequence_id", "video", "video_id", "clip", "clip_id"),
    "frame": ("frame", "frame_id", "frame_number", "frame_index", "frame_no"),
}  # fmt: skip
"""What tables call the columns beside the AUs, written as `_plain` writes names."""

_UNIT = re.compile(r"au_?(\d{1,3})(?:_?(c|r|occurrence|present|intensity))?")
_INTENSITY = ("r", "intensity")
_NEAR = 0.85  # similarity from which an unknown name is taken for a misspelled one: "subjct" has .92, "face_id" .80

_PRESENT, _ABSENT = ("1", "true", "yes", "y", "present"), ("0", "false", "no", "n", "absent")
_NOT_LABELED = ("", "-1", "9", "nan", "na", "n/a", "none", "null")  # 9: BP4D's code
_LETTERS = {letter: index for index, letter in enumerate("abcde", 1)}  # FACS's grades of intensity


@dataclass(frozen=True)
class Columns:
    """The names of the columns by what they mean.

    Attributes:
        occurrence, intensity: By AU number.
        roles: By the keys of `ROLES`.
        notes: One line for each column that is left out although it looks like one of these.
    """

    occurrence: dict[int, str] = field(default_factory=dict)
    intensity: dict[int, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def action_units(self) -> tuple[int, ...]:
        """All AUs, in ascending order."""
        return tuple(sorted({*self.occurrence, *self.intensity}))


def find_columns(
    names: Sequence[str], chosen: Mapping[str, str | None], where: str, wanted: Iterable[int] | None = None
) -> Columns:
    """Tell the columns of a table by their names.

    Args:
        names: Of the columns.
        chosen: The column of a role, where the user states it.
        where: The table, for messages.
        wanted: AUs to read; None for all.

    Raises:
        DatasetError: If a column is missing, if two could have the same meaning, or if an AU does not exist.
    """
    found = Columns(roles=_chosen(names, chosen, where))
    unknown = []
    for name in names:
        if name in found.roles.values():
            continue
        if match := _UNIT.fullmatch(_plain(name)):
            _add_unit(found, name, int(match[1]), match[2] in _INTENSITY, where, wanted)
        elif role := next((role for role, known in ROLES.items() if _plain(name) in known), None):
            if not chosen.get(role):
                _add(found.roles, role, name, where, f"Pass {role}_column with the right one.")
        else:
            unknown.append(name)
    _check(found, names, unknown, where, wanted)
    found.notes.extend(note for name in unknown if (note := _near_note(name, found, where)))
    return found


def _plain(name: str) -> str:
    """Write a name in small letters, with single underscores between its parts."""
    return re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")


def _chosen(names: Sequence[str], chosen: Mapping[str, str | None], where: str) -> dict[str, str]:
    roles = {}
    for role, wanted in chosen.items():
        if wanted is None:
            continue
        name = next((name for name in names if name == wanted or _plain(name) == _plain(wanted)), None)
        if name is None:
            raise DatasetError(f"`{role}_column` must be a column of {where}, got {wanted!r}.{_hint(wanted, names)}")
        roles[role] = name
    return roles


def _hint(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(_plain(word), [_plain(name) for name in known], n=1)
    match = next((name for name in known if near and _plain(name) == near[0]), None)
    return f" Did you mean {match!r}?" if match else f" It has {', '.join(map(repr, known))}."


def _add_unit(
    found: Columns, name: str, number: int, is_intensity: bool, where: str, wanted: Iterable[int] | None
) -> None:
    if wanted is not None and number not in wanted:
        return
    if number not in facs.ACTION_UNITS:
        raise DatasetError(
            f"The column {name!r} of {where} names no AU that is known here: {', '.join(map(str, facs.ACTION_UNITS))}. "
            "Remove it, or pass `action_units`, such as [1, 2, 4], for the ones to read."
        )
    _add(found.intensity if is_intensity else found.occurrence, number, name, where, "Remove or rename one.")


def _add(into: dict[Any, str], key: int | str, name: str, where: str, remedy: str) -> None:
    if key in into:
        meaning = facs.ACTION_UNITS[key].label if isinstance(key, int) else f"the {key}"
        raise DatasetError(f"Two columns of {where} could be {meaning}: {into[key]!r} and {name!r}. {remedy}")
    into[key] = name


def _check(
    found: Columns, names: Sequence[str], unknown: Sequence[str], where: str, wanted: Iterable[int] | None
) -> None:
    """Check that there are images and AUs."""
    if "image" not in found.roles:
        near = [name for name in unknown if get_close_matches(_plain(name), ROLES["image"], n=1, cutoff=_NEAR)]
        hint = f" Is it {near[0]!r}?" if near else f" It has {', '.join(map(repr, names))}."
        raise DatasetError(f"No column of {where} names the image.{hint} Call it 'image', or pass image_column.")
    if not found.action_units:
        near = [name for name in unknown if _near_unit(name)]
        hint = f" Is {near[0]!r} one?" if near else f" It has {', '.join(map(repr, names))}."
        raise DatasetError(f"No column of {where} is an AU.{hint} Call them AU01, AU02, …, intensities AU01_r.")
    if missing := sorted(set(wanted or ()) - set(found.action_units)):
        raise DatasetError(
            f"`action_units` must be among those of {where}, {', '.join(facs.labels(found.action_units))}, got "
            f"{', '.join(facs.labels(missing))}. Leave it out for all."
        )


def _near_unit(name: str) -> str | None:
    """Return the AU that a name resembles."""
    spellings = {spelling: unit.label for unit in facs.ACTION_UNITS.values() for spelling in _spellings(unit.number)}
    if begin := re.match(r"au_?(\d{1,2})(?!\d)", _plain(name)):
        unit = facs.ACTION_UNITS.get(int(begin[1]))
        return unit.label if unit else None
    near = get_close_matches(_plain(name), spellings, n=1, cutoff=_NEAR) if re.search(r"\d", name) else []
    return spellings[near[0]] if near else None


def _spellings(number: int) -> tuple[str, ...]:
    return (f"au{number:02d}", f"au{number}", f"au_{number}", f"au{number:02d}_c", f"au{number:02d}_r")


def _near_note(name: str, found: Columns, where: str) -> str | None:
    """Return a warning if an unknown column resembles an AU, or something that no other column is."""
    near = _near_unit(name)
    if near is None:
        roles = {known: role for role, names in ROLES.items() if role not in found.roles for known in names}
        match = get_close_matches(_plain(name), roles, n=1, cutoff=_NEAR)
        near = match[0] if match else None
    if near is None:
        return None
    return f"The column {name!r} of {where} is left out. If it is {near!r}, call it so."


def occurrences(values: Sequence[Any], name: str, place: Callable[[int], str]) -> NDArray[np.int8]:
    """Read a column of occurrences.

    Args:
        values: Numbers, booleans or texts.
        name: Of the column.
        place: Names a row for a message.

    Returns:
        (R,) 1 present, 0 absent, -1 not labeled.

    Raises:
        DatasetError: For a value that is none of these.

    Example:
        >>> occurrences(["yes", " 0 ", True, None, 9], "AU12", str).tolist()
        [1, 0, 1, -1, -1]
    """
    codes = {**dict.fromkeys(_PRESENT, 1), **dict.fromkeys(_ABSENT, 0), **dict.fromkeys(_NOT_LABELED, -1)}
    expected = "1, 0, true, false, yes, no, present, absent, or blank, 9 or -1 for not labeled"
    advice = f". Call a column of intensities {_plain(name).upper()}_r"
    return np.array(_coded(values, name, place, codes.get, expected, advice), np.int8)


def intensities(values: Sequence[Any], name: str, place: Callable[[int], str]) -> NDArray[np.float32]:
    """Read a column of intensities.

    Args:
        values, name, place: As for `occurrences`; FACS's letters A to E count as 1 to 5.

    Returns:
        (R,) 0 to 5, -1 missing.

    Raises:
        DatasetError: For a value that is none of these.

    Example:
        >>> intensities(["2,5", "E", "", 0], "AU12_r", str).tolist()
        [2.5, 5.0, -1.0, 0.0]
    """

    def code(text: str) -> float | None:
        if text in _NOT_LABELED:
            return -1.0
        try:
            number = float(_LETTERS.get(text, text.replace(",", ".")))  # a decimal comma, as Excel writes it
        except ValueError:
            return None
        return number if 0 <= number <= 5 else None

    expected = "from 0 to 5, A to E, or blank, 9 or -1 for missing"
    return np.array(_coded(values, name, place, code, expected, ""), np.float32)


def _coded(
    values: Sequence[Any],
    name: str,
    place: Callable[[int], str],
    code: Callable[[str], float | None],
    expected: str,
    advice: str,
) -> list[float]:
    """Translate values; equal ones are looked up once."""
    known: dict[Any, float] = {}
    result = []
    for row, value in enumerate(values):
        key = str(value) if isinstance(value, list | dict) else value
        if key not in known:
            number = code(plain_text(value).lower())
            if number is None:
                raise DatasetError(f"{name!r} must be {expected}, got {value!r} in {place(row)}{advice}.")
            known[key] = number
        result.append(known[key])
    return result


def plain_text(value: Any) -> str:
    """Return a value as text without blanks around it; "" for None and NaN, "1" for 1.0 and "1.0".

    Example:
        >>> plain_text(" 1.0 "), plain_text(float("nan")), plain_text(True)
        ('1', '', 'True')
    """
    if value is None or value != value:
        return ""
    text = str(value).strip()
    return text[: text.index(".")] if re.fullmatch(r"[+-]?\d+\.0*", text) else text
