"""Name what a face model can move, and collect weights of its expression shapes.

The vocabulary is that of ICT-FaceKit. Another face model must map its own shapes to these names. Pairs of values are
(the person's left, the person's right).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IDENTITY_SIZE = 100
"""Number of identity components of ICT-FaceKit."""

SIDED_SHAPES = [
    "browDown", "browInnerUp", "browOuterUp", "cheekPuff", "cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookIn",
    "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown", "mouthLowerDown", "mouthPress",
    "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer", "cheekRaiser",
]  # fmt: skip
CENTRAL_SHAPES = [
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthFunnel", "mouthLeft", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
]  # fmt: skip
EXPRESSION_SHAPES = tuple(f"{name}_{side}" for name in SIDED_SHAPES for side in "LR") + tuple(CENTRAL_SHAPES)
"""The 55 expression shapes of ICT-FaceKit, in the order of `Scene.shape_weights`. L is the person's left."""

TRAITS = ("feminine", "child", "hooded_lids", "pouches", "cheeks", "jowls", "full_lips", "big_eyes")
"""Directions of head shape with a meaning, which the identity components lack; see `head.trait_deltas`."""


@dataclass(frozen=True, eq=False)
class Gaps:
    """What the expression shapes of a face model do to the gaps between lips and between eyelids.

    Attributes:
        lips: Change of the gap between the inner lips, in cm per unit of weight, by the shape's name; of a sided shape
            that of each side.
        lids: Change of the gap between the eyelids, likewise.
        lid_opening: Gap between the eyelids of the neutral face, in cm.
    """

    lips: Mapping[str, float]
    lids: Mapping[str, float]
    lid_opening: float


class ShapeWeights:
    """Sum up weights of expression shapes by name, for one side or both.

    Attributes:
        values: (55,) float64, in the order of EXPRESSION_SHAPES.

    Example:
        >>> weights = ShapeWeights()
        >>> weights.add("mouthSmile", 0.5, 0.25)
        >>> float(weights.values[EXPRESSION_SHAPES.index("mouthSmile_R")])
        0.25
    """

    def __init__(self) -> None:
        self.values = np.zeros(len(EXPRESSION_SHAPES))

    def add(self, name: str, left: float, right: float) -> None:
        """Add to both sides of a sided shape. A central shape takes the mean."""
        if name in CENTRAL_SHAPES:
            self.values[EXPRESSION_SHAPES.index(name)] += (left + right) / 2
        else:
            index = EXPRESSION_SHAPES.index(f"{name}_L")
            self.values[index] += left
            self.values[index + 1] += right

    def add_both(self, name: str, value: float) -> None:
        """Add the same value to both sides."""
        self.add(name, value, value)

    def gap_change(self, effects: Mapping[str, float], side: int | None = None) -> float:
        """Return by how much these weights change a gap, in cm.

        Args:
            effects: Change of the gap per unit of weight, by the shape's name.
            side: 0 for the gap of the left eyelids, 1 for the right ones, None for the lips.
        """
        total = 0.0
        for name, effect in effects.items():
            if name in CENTRAL_SHAPES:
                total += effect * self.values[EXPRESSION_SHAPES.index(name)]
                continue
            index = EXPRESSION_SHAPES.index(f"{name}_L")
            total += effect * (self.values[index : index + 2].sum() if side is None else self.values[index + side])
        return float(total)

    @property
    def clipped(self) -> NDArray[np.float32]:
        """The weights within 0 and 2, as a scene holds them."""
        return self.values.clip(0, 2.0).astype(np.float32)
