"""Turn intensities of action units into weights of expression shapes and depths of wrinkles. Needs numpy only.

Pairs of values are (the person's left, the person's right).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.action_units import ACTION_UNITS, PRESENT_MIN, TRACE_MAX
from hf_geaau.synthetic.people import WRINKLES, Identity
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES, Gaps, ShapeWeights

AU_SHAPES: dict[int, tuple[tuple[str, float], ...]] = {
    1: (("browInnerUp", 1.5),),
    2: (("browOuterUp", 1.3),),
    4: (("browDown", 1.9),),
    5: (("eyeWide", 1.1),),
    6: (("cheekRaiser", 1.2), ("cheekSquint", 0.95)),
    7: (("eyeSquint", 1.3),),
    9: (("noseSneer", 1.3), ("browDown", 0.3)),
    10: (("mouthUpperUp", 1.0), ("noseSneer", 0.22), ("cheekSquint", 0.2)),
    12: (("mouthSmile", 1.0), ("cheekSquint", 0.22)),
    14: (("mouthDimple", 1.35),),
    15: (("mouthFrown", 1.45),),
    17: (("mouthShrugLower", 0.85),),
    20: (("mouthStretch", 1.2),),
    23: (("mouthRollLower", 0.6), ("mouthRollUpper", 0.6)),
    24: (("mouthPress", 1.3), ("mouthRollLower", 0.2), ("mouthRollUpper", 0.2)),
    25: (("mouthLowerDown", 0.9),),
    26: (("jawOpen", 0.75),),
    43: (("eyeBlink", 1.0),),
}
"""Which expression shapes an action unit moves, and their weights at intensity 5.

Our choice, from the shapes' names and the FACS manual; the strengths are judged by eye. AU06 takes two shapes, because
either alone lifts the cheek too little. AU10 also widens the wings of the nose and lifts the triangle below the eyes,
which deepens the nasolabial furrow and tells it from a smile that shows the upper teeth. AU09 pulls the inner brows
down, and AU24 thins the red of the lips, as the manual says. AU12 takes a shape of AU06,
because a strong smile swells the cheeks a little."""

_LIP_GAP_CM = {
    "jawOpen": 2.89, "mouthFunnel": 1.08, "mouthLowerDown": 0.29, "mouthUpperUp": 0.35, "noseSneer": 0.32,
    "mouthShrugUpper": 0.46, "mouthShrugLower": -0.64, "mouthClose": -3.72, "mouthPress": -0.11, "mouthDimple": -0.08,
    "mouthPucker": -0.13, "cheekSquint": 0.02, "cheekRaiser": 0.02, "mouthStretch": -0.02, "jawForward": 0.11,
}  # fmt: skip
LIPS_APART_CM = 1.6
"""The gap between the lips that counts as AU25 of intensity 5."""

_LID_GAP_CM = {
    "eyeBlink": -0.79, "eyeLookDown": -0.45, "cheekSquint": -0.24, "cheekRaiser": -0.24, "eyeSquint": -0.20,
    "noseSneer": -0.11, "mouthSmile": -0.05, "eyeLookUp": 0.17, "eyeWide": 0.27,
}  # fmt: skip
ICT_GAPS = Gaps(_LIP_GAP_CM, _LID_GAP_CM, lid_opening=0.83)
"""Measured on the neutral mesh of ICT-FaceKit."""

WRINKLE_SOURCES = (
    ("forehead_centre", 1, 1.2), ("forehead_centre", 2, 0.25), ("forehead_side", 2, 1.3), ("forehead_side", 1, 0.2),
    ("glabella", 4, 1.3), ("glabella", 9, 0.4), ("crows_feet", 6, 1.4), ("crows_feet", 7, 0.25),
    ("crows_feet", 12, 0.15), ("lower_lid", 7, 1.0), ("lower_lid", 6, 1.0), ("nose_root", 9, 1.0),
    ("nasolabial", 12, 0.8), ("nasolabial", 10, 0.8), ("nasolabial", 9, 0.5), ("nasolabial", 6, 0.2),
    ("nasolabial", 20, 0.3), ("dimple", 14, 1.0), ("dimple", 12, 0.3), ("chin", 17, 1.0), ("chin", 15, 0.2),
    ("mouth_corner", 15, 0.9), ("mouth_corner", 24, 0.2), ("lip_lines", 23, 0.7), ("lip_lines", 24, 0.6),
    ("cheek_stretch", 20, 0.8),
)  # fmt: skip
"""Wrinkle layer, action unit, and by how much the unit deepens the layer at intensity 5. Our choice."""

_CENTRAL_UNITS = (23, 25, 26)  # These have no sides.
_ONE_SIDED_RATES = {1: 0.06, 2: 0.2, 4: 0.06, 6: 0.1, 7: 0.1, 9: 0.1, 10: 0.15, 12: 0.18, 14: 0.3, 15: 0.12, 20: 0.1}
_ONE_SIDED_RATES |= {43: 0.15}
"""Share of the faces with an action unit that show it on one side, hardly on the other. Our choice: smirks, contempt,
winks and one raised brow are common enough on photos."""
_SPEECH_SHAPES = (
    ("mouthFunnel", 0.9), ("mouthPucker", 0.9), ("mouthRollLower", 0.4), ("mouthShrugUpper", 0.4),
    ("mouthStretch", 0.2),
)  # fmt: skip
_NUISANCES = (  # Shape, share of the faces that have it, largest weight. Our choice.
    ("jawForward", 0.08, 0.5), ("jawLeft", 0.05, 0.5), ("jawRight", 0.05, 0.5), ("mouthLeft", 0.05, 0.35),
    ("mouthRight", 0.05, 0.35), ("mouthFunnel", 0.05, 0.6), ("mouthPucker", 0.07, 0.8), ("cheekPuff", 0.04, 0.6),
)  # fmt: skip


class Expression(NamedTuple):
    """What a face does."""

    shape_weights: NDArray[np.float32]  # (55,) float32, in the order of EXPRESSION_SHAPES
    # (18,) float32, what the shapes show. AU25's is that of the final gap between the lips, because a dropped jaw or
    # a raised upper lip parts them too.
    intensities: NDArray[np.float32]
    side_gains: NDArray[np.float32]  # (18, 2) float32, the strength of each action unit on either side

    @property
    def side_intensities(self) -> NDArray[np.float32]:
        """Intensity (18, 2) of each action unit on either side; units without sides have the same on both."""
        weights = weight_of_intensity(self.intensities.astype(np.float64))[:, None] * self.side_gains
        return (5 * weights.clip(0, 1) ** (1 / _WEIGHT_EXPONENT)).astype(np.float32)


def weight_of_intensity(intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map intensity 0-5 to shape weight 0-1: `(intensity / 5) ** 0.75`.

    Our choice. FACS orders A-E but gives no metric. At A (1) the weight is 0.30, which is visible. A linear 0.2 would
    move a brow by less than a pixel at 128 px.

    Example:
        >>> weight_of_intensity(np.array([0.0, 1.0, 5.0])).round(2).tolist()
        [0.0, 0.3, 1.0]
    """
    return (np.clip(intensity, 0, 5) / 5) ** _WEIGHT_EXPONENT


_WEIGHT_EXPONENT = 0.75


def expression(
    intensities: NDArray[np.floating],
    rng: np.random.Generator,
    nuisances: bool = True,
    speech: bool = False,
    gaps: Gaps = ICT_GAPS,
) -> Expression:
    """Turn intensities into shape weights, and read back the intensities that the shapes show.

    Args:
        intensities: (18,), 0-5, in the order of ACTION_UNITS.
        rng: Random generator for asymmetry, variation of the shapes, and nuisances.
        nuisances: Whether to add movements that belong to no action unit here, such as gaze.
        speech: Whether the lips take a shape of speech.
        gaps: How the face model's shapes part lips and lids.
    """
    final, weights = np.array(intensities, np.float64), ShapeWeights()
    gains = _add_units(weights, final, rng)
    _combine(weights, final, gains, rng)
    if final[_index(17)] > 0:
        weights.add_both("mouthShrugUpper", weight_of_intensity(final)[_index(17)] * rng.uniform(0.1, 0.5))
    if nuisances:
        _add_nuisances(weights, rng)
    if speech:
        name, largest = _SPEECH_SHAPES[rng.integers(len(_SPEECH_SHAPES))]
        weights.add_both(name, rng.uniform(0.1, largest))
    _match_lips(weights, final, rng, gaps)
    _match_lids(weights, final, gains, gaps)
    return Expression(weights.clipped, final.astype(np.float32), gains.astype(np.float32))


def _index(number: int) -> int:
    return ACTION_UNITS.index(number)


def _add_units(weights: ShapeWeights, final: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Add the shapes of every action unit and return the gains (18, 2) of both sides."""
    gains, base = np.ones((len(ACTION_UNITS), 2)), weight_of_intensity(final)
    for index, number in enumerate(ACTION_UNITS):
        if number not in _CENTRAL_UNITS:
            gains[index] = _side_gains(rng, _ONE_SIDED_RATES.get(number, 0.0), is_wink=number == 43)
        strength = base[index] * gains[index]
        if number == 43:  # A trace is a half-lowered lid. _match_lids shuts the eyes.
            strength = 0.5 * min(final[index], 1) * gains[index]
        if final[index] > 0:
            for name, factor in AU_SHAPES[number]:
                weights.add(name, *(factor * strength * rng.uniform(0.85, 1.15)))
    return gains


def _combine(
    weights: ShapeWeights, final: NDArray[np.float64], gains: NDArray[np.float64], rng: np.random.Generator
) -> None:
    """Correct what units do together.

    An open smile bares the upper teeth without AU10. Of AU04 beside AU01, the inner brows are drawn together but do
    not sink. Our choice, from the combinations 1+4 and 12+25 of the FACS manual.
    """
    strength = weight_of_intensity(final)[:, None] * gains
    if final[_index(25)] >= 1:
        weights.add("mouthUpperUp", *(rng.uniform(0, SMILE_LIFT) * strength[_index(12)]))
    sinking = dict(AU_SHAPES[4])["browDown"] * _KEPT_UP * strength[_index(4)] * strength[_index(1)].clip(0, 1)
    weights.add("browDown", *-sinking)


SMILE_LIFT = 0.75
"""Largest weight of "mouthUpperUp" that an open smile of intensity 5 brings by itself. Our choice by eye."""
_KEPT_UP = 0.6


def _side_gains(rng: np.random.Generator, one_sided_rate: float, is_wink: bool) -> NDArray[np.float64]:
    kind = rng.random()
    if kind < one_sided_rate:
        return rng.permutation([1.0, 0.0 if is_wink else rng.uniform(0, 0.25)])
    if is_wink:  # otherwise both eyes close
        return np.ones(2)
    spread = 0.05 if kind < 0.7 else 0.18
    return np.clip(1 + rng.normal(0, spread, 2), 0.55, 1.3)


def _add_nuisances(weights: ShapeWeights, rng: np.random.Generator) -> None:
    """Add gaze, half-lowered lids and the movements of jaw, lips and cheeks that belong to no action unit here."""
    if rng.random() < 0.65:
        side, height = rng.normal(0, 0.3), rng.normal(-0.05, 0.3)
        look_left, look_right = max(side, 0), max(-side, 0)  # The person's left and right.
        weights.add("eyeLookOut", look_left, look_right)
        weights.add("eyeLookIn", look_right, look_left)
        weights.add("eyeLookUp" if height > 0 else "eyeLookDown", *np.clip([abs(height)] * 2, 0, 0.9))
    if rng.random() < 0.2:  # Lids in mid-blink, or a lazy lid.
        half = rng.uniform(0.05, 0.4)
        weights.add("eyeBlink", *(half * rng.uniform(0.8, 1.0, 2)))
    for name, rate, largest in _NUISANCES:
        if rng.random() < rate:
            weights.add_both(name, rng.uniform(0.05, largest))


def _match_lips(weights: ShapeWeights, final: NDArray[np.float64], rng: np.random.Generator, gaps: Gaps) -> None:
    """Make AU25 and the gap between the lips agree.

    Lips of AU25 are opened if they do not part. Lips that parted without it are closed, or relabeled.
    """
    index, jaw = _index(25), _index(26)
    wanted, gap = final[index], weights.gap_change(gaps.lips)
    pressed = max(final[_index(23)], final[_index(24)]) >= 1
    if wanted >= 1:
        if rng.random() < 0.7 and final[jaw] < 1:  # The jaw helps a little, below a visible AU26.
            weights.add_both("jawOpen", rng.uniform(0.02, 0.16))
        missing = 0.3 - weights.gap_change(gaps.lips)
        if missing > 0:
            weights.add_both("jawOpen", missing / gaps.lips["jawOpen"])
    elif final[jaw] < 1 and gap > 0.05 and (pressed or rng.random() < 0.6 or gap < 0.25 or wanted > 0):
        weights.add_both("mouthClose", gap / -gaps.lips["mouthClose"])
    final[index] = _lip_intensity(weights, gaps)
    if TRACE_MAX < final[index] < PRESENT_MIN:  # Close the lips until the gap is a trace.
        gap = weights.gap_change(gaps.lips)
        largest_trace = LIPS_APART_CM * (TRACE_MAX / 5) ** (1 / 0.75)
        weights.add_both("mouthClose", (gap - largest_trace) / -gaps.lips["mouthClose"] + 0.002)
        final[index] = _lip_intensity(weights, gaps)


def _lip_intensity(weights: ShapeWeights, gaps: Gaps) -> float:
    return 5 * np.clip(weights.gap_change(gaps.lips) / LIPS_APART_CM, 0, 1) ** 0.75


def _match_lids(weights: ShapeWeights, final: NDArray[np.float64], gains: NDArray[np.float64], gaps: Gaps) -> None:
    """Shut the eyes that AU43 shuts, keep others open, and keep the lids from passing through each other."""
    intensity, closing = final[_index(43)], -gaps.lids["eyeBlink"]
    for side in range(2):
        blink = EXPRESSION_SHAPES.index("eyeBlink_L") + side
        closed_by_others = -weights.gap_change(gaps.lids, side) + gaps.lids["eyeBlink"] * weights.values[blink]
        shut = intensity >= 1 and gains[_index(43), side] > 0.5
        limit = gaps.lid_opening * (0.85 + 0.03 * intensity if shut else 0.8)
        needed = max((limit - closed_by_others) / closing, 0.0)
        weights.values[blink] = needed if shut else np.clip(weights.values[blink], 0, needed)
        wide = EXPRESSION_SHAPES.index("eyeWide_L") + side
        weights.values[wide] += max(closed_by_others - limit, 0) / gaps.lids["eyeWide"]


def wrinkle_depths(
    identity: Identity, intensities: NDArray[np.floating], gains: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return the depth (12, 2) of each wrinkle layer: the person's own at rest, deepened by the action units.

    `gains` are `Expression.side_gains` (18, 2).
    """
    depth = identity.permanent_wrinkles.astype(np.float64)
    base = weight_of_intensity(np.asarray(intensities, np.float64))
    for layer, number, strength in WRINKLE_SOURCES:
        index = _index(number)
        depth[WRINKLES.index(layer)] += identity.wrinkle_gain * strength * base[index] * gains[index]
    return depth.clip(0, 1.6).astype(np.float32)
