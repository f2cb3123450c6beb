"""Draw which action units a face shows, and how strongly. Needs numpy only.

`intensity` is FACS A-E as 1-5, and 0 for none. An action unit counts as present (label 1) from intensity 1 on. Traces,
0 < intensity < 1, are drawn on purpose and count as absent. No intensity is drawn between `TRACE_MAX` and
`PRESENT_MIN`, so that present and absent stay apart.
"""

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs

ACTION_UNITS = facs.SYNTHETIC
"""The action units that a rendered face can show, in the order of labels and intensities."""

TRACE_MAX, PRESENT_MIN = 0.8, 1.2
"""No intensity between these two is drawn. Our choice."""

PROTOTYPES: tuple[tuple[int, ...], ...] = (
    (6, 12, 25), (6, 12), (12,), (12, 25), (6, 7, 12, 25, 26), (1, 2, 5, 25, 26), (1, 2), (1, 2, 5), (1, 2, 12, 25),
    (1,), (2,), (1, 4), (1, 4, 15), (1, 4, 15, 17), (4,), (4, 7), (4, 7, 24), (4, 5, 7, 23), (4, 7, 23),
    (4, 6, 7, 9, 10), (9,), (4, 9, 10, 17), (9, 10, 25), (10,), (10, 25), (1, 2, 4), (1, 2, 4, 5, 20, 25), (14,),
    (12, 14), (15, 17), (17,), (17, 24), (20, 25), (23,), (25,), (25, 26), (6, 7), (6,), (7,), (5,), (43,),
    (4, 6, 7, 43), (1, 2, 26, 25), (2, 12),
)  # fmt: skip
"""Combinations seen on people: smiles, surprise, fear, sadness, anger, disgust, pain, doubt, contempt. Single units are
among them, so that every unit is also seen alone."""

CONFUSABLE: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((12, 25), (6, 12, 25), (12, 25), (10, 25), (10, 12, 25), (6, 9, 10, 12, 25), (20, 25), (12, 25, 26)),
    ((12,), (6, 12), (12, 14), (14,), (12, 17), (12, 24), (12, 15), (20,)),
    ((17,), (24,), (17, 24), (23,), (15,), (15, 17), (14,), (14, 17)),
    ((1, 4), (1, 2, 4), (1,), (4,), (1, 2), (2,), (1, 4, 7)),
    ((6,), (7,), (6, 7), (4, 7), (43,), (6, 12), (7, 12)),
    ((9,), (10,), (4, 9), (9, 10), (4,), (4, 10)),
)
"""Groups of looks that are easily taken for each other: open smiles and raised upper lips, closed smiles and dimples,
pouts and pressed lips, brows that rise while they are drawn together, narrowed eyes, wrinkled noses. Our choice, from
what earlier weights confused on photos."""

LEAST_AU10_IN_SMILES = 3.0
"""Intensity of AU10 beside AU12 at least. A smile raises the upper lip by itself, see `expressions`. Our choice."""

EXCLUSIONS = ((5, 43), (5, 6), (5, 7), (23, 25), (24, 25), (23, 26), (24, 26), (17, 26), (20, 23), (20, 24), (12, 15))
"""Pairs that oppose or hide each other at photo resolution. The weaker of the two is removed; 12 with 15 stays in 15 %
of the cases."""

_COMMON_SHARE = 0.85  # The source below says "more than 70 %" for these units. We take the middle.

COMPOUND_EXPRESSIONS: tuple[tuple[tuple[int, ...], dict[int, float]], ...] = (
    ((12, 25), {6: 0.51}), ((4, 15), {1: 0.60, 6: 0.50, 17: 0.67}), ((1, 4, 20, 25), {2: 0.57, 5: 0.63, 26: 0.33}),
    ((4, 7, 24), {10: 0.26, 17: 0.52, 23: 0.29}), ((1, 2, 25, 26), {5: 0.66}), ((9, 10, 17), {4: 0.31, 24: 0.26}),
    ((1, 2, 12, 25), {5: 0.64, 26: 0.67}), ((10, 12, 25), {4: 0.32, 6: 0.61, 9: 0.59}),
    ((1, 4, 20, 25), {2: 0.46, 5: 0.24, 6: 0.34, 15: 0.30}), ((4, 15), {6: 0.26, 7: 0.48, 17: 0.50}),
    ((1, 4, 25, 26), {2: 0.27, 6: 0.31}), ((4, 10), {1: 0.49, 6: 0.61, 9: 0.20, 15: 0.54, 17: 0.47, 25: 0.43}),
    ((4, 20, 25), {5: 0.40, 7: 0.39, 10: 0.30}), ((1, 2, 5, 20, 25), {4: 0.47, 10: 0.35, 26: 0.51}),
    ((1, 4, 10, 20, 25), {2: 0.64, 5: 0.50, 6: 0.26, 9: 0.28, 15: 0.33}), ((4, 25, 26), {5: 0.35, 7: 0.50, 10: 0.34}),
    ((4, 10, 17), {7: 0.60, 9: 0.57, 24: 0.36}), ((1, 2, 5, 10), {4: 0.45, 9: 0.37, 17: 0.66, 24: 0.33}),
    ((4, 10), {6: 0.25, 9: 0.56, 17: 0.67, 24: 0.36}), ((4, 10), {7: 0.57, 9: 0.27, 17: 0.63, 24: 0.37}),
    ((1, 2, 5, 25), {4: 0.21, 20: 0.62, 26: 0.56}),
)  # fmt: skip
"""Emotion categories: their common action units, and rarer ones with the share of 230 people who use them.

Source: Du, Tao and Martinez 2014, "Compound facial expressions of emotion", PNAS 111(15), Table 1, coded with FACS.
AU11 is left out, because no shape renders it."""

SPONTANEOUS_RATES: dict[int, float] = {
    1: 0.211, 2: 0.171, 4: 0.203, 6: 0.461, 7: 0.549, 10: 0.594, 12: 0.562, 14: 0.466, 15: 0.169, 17: 0.343,
    23: 0.165, 24: 0.151, 9: 0.042, 25: 0.277, 26: 0.088,
}  # fmt: skip
"""Share of frames that show an action unit while people react to something.

Sources: the frame lists of BP4D (146,847 frames; AU 1-24 without 9) and, for AU 9, 25 and 26, those of DISFA at
intensity 2 and above (130,814 frames)."""

SOURCES = {
    "neutral": 0.22, "compound": 0.20, "spontaneous": 0.07, "prototype": 0.15, "confusable": 0.19, "speech": 0.05,
    "free": 0.12,
}  # fmt: skip
"""How the action units of an image are drawn, and the share of images (our choice).

"neutral": none, or traces. "compound": one of COMPOUND_EXPRESSIONS. "spontaneous": each by itself at SPONTANEOUS_RATES.
"prototype": one of PROTOTYPES. "confusable": one of a group of CONFUSABLE. "speech": a talking mouth in a calm face.
"free": each by itself at equal rates."""

# Share of the smiles (AU12) drawn without AU06 that get it after all, so that two of three raise the cheeks. Our
# choice: published rates, 0.46 and 0.56 of BP4D's frames, do not tell how often they meet. Independent draws would
# leave most smiles without AU06.
_SMILES_WITH_CHEEKS_ADDED = 0.5
# Share of the smiles drawn with AU10 that keep it. Our choice: coders see it in few open smiles on photos, and weights
# that met it in half of their smiles saw it in many.
_SMILES_WITH_AU10_KEPT = 0.4
_CALM_RATE = 0.35  # Share of the faces whose units are all weak, FACS A to C. Our choice.
_SPEECH_RATES = {25: 0.8, 26: 0.35, 23: 0.1, 10: 0.1, 12: 0.1}  # Our choice.


def labels_of(intensities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return 1 for each action unit of intensity 1 (FACS A) and above, else 0; float32, in the shape given.

    Example:
        >>> labels_of(np.array([0.0, 0.8, 1.2])).tolist()
        [0.0, 0.0, 1.0]
    """
    return (np.asarray(intensities) >= 1).astype(np.float32)


def sample_source(rng: np.random.Generator) -> str:
    """Draw one of SOURCES."""
    return str(rng.choice(list(SOURCES), p=list(SOURCES.values())))


def sample_intensities(rng: np.random.Generator, source: str | None = None) -> NDArray[np.float64]:
    """Draw the intensities (18,) of one face, in the order of ACTION_UNITS. Without a source of SOURCES, draw one."""
    if source is None:
        source = sample_source(rng)
    values, chosen = np.zeros(len(ACTION_UNITS)), sample_units(rng, source)
    level, reach = rng.uniform(-0.3, 0.3), 5.0  # A face is lively or calm as a whole.
    if rng.random() < _CALM_RATE:
        level, reach = 0.0, rng.uniform(1.6, 3.2)
    trace_rate = rng.choice([0.0, 0.15]) if source == "neutral" else 0.12
    for index, number in enumerate(ACTION_UNITS):
        if number in chosen:
            values[index] = PRESENT_MIN + (reach - PRESENT_MIN) * np.clip(rng.beta(1.4, 1.5) + level, 0, 1)
        elif rng.random() < trace_rate:
            values[index] = rng.uniform(0.1, TRACE_MAX)
    smile, lip = values[ACTION_UNITS.index(12)], ACTION_UNITS.index(10)
    if smile >= PRESENT_MIN and values[lip] >= PRESENT_MIN:  # What is less looks like the smile alone.
        values[lip] = max(values[lip], LEAST_AU10_IN_SMILES)
    for first, second in EXCLUSIONS:
        a, b = ACTION_UNITS.index(first), ACTION_UNITS.index(second)
        if values[a] > 0 and values[b] > 0 and not ((first, second) == (12, 15) and rng.random() < 0.15):
            values[a if values[a] < values[b] else b] = 0.0
    return values


def sample_units(rng: np.random.Generator, source: str) -> set[int]:
    """Draw the numbers of the action units that are present, from one of SOURCES."""
    chosen: set[int] = set()
    if source == "compound":
        common, rarer = COMPOUND_EXPRESSIONS[rng.integers(len(COMPOUND_EXPRESSIONS))]
        shares = {**dict.fromkeys(common, _COMMON_SHARE), **rarer}
        chosen |= {number for number, share in shares.items() if rng.random() < share}
    elif source == "spontaneous":
        chosen |= {number for number, rate in SPONTANEOUS_RATES.items() if rng.random() < rate}
    elif source == "prototype":
        units = PROTOTYPES[rng.integers(len(PROTOTYPES))]
        chosen |= {number for number in units if len(units) == 1 or rng.random() < 0.92}
    elif source == "confusable":
        group = CONFUSABLE[max(0, int(rng.integers(-1, len(CONFUSABLE))))]  # the first twice as often as each other
        chosen |= set(group[rng.integers(len(group))])
    elif source == "speech":
        chosen |= {number for number, rate in _SPEECH_RATES.items() if rng.random() < rate}
    elif source == "free":
        rate = rng.choice([0.06, 0.12, 0.2])
        chosen |= {number for number in ACTION_UNITS if rng.random() < rate}
    if source in ("compound", "prototype", "speech") and rng.random() < 0.15:  # One more of any kind.
        chosen.add(int(rng.choice(ACTION_UNITS)))
    if 12 in chosen and rng.random() < _SMILES_WITH_CHEEKS_ADDED:
        chosen.add(6)
    if 12 in chosen and source != "confusable" and rng.random() >= _SMILES_WITH_AU10_KEPT:
        chosen.discard(10)
    if source != "neutral" and rng.random() < 0.04:  # Caught in a blink.
        chosen.add(43)
    return chosen
