"""Directions of head shape with a meaning, such as full lips, which the identity components lack. Lengths are in cm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hf_geaau.synthetic.geometry import FloatArray
from hf_geaau.synthetic.shapes import TRAITS

if TYPE_CHECKING:
    from hf_geaau.synthetic.head import HeadMesh

# Movement of landmarks (of 68) in the image's left half; the other half mirrors it. Our choice, by eye.
_LANDMARK_TRAITS: dict[str, dict[int, tuple[float, float, float]]] = {
    "feminine": {
        2: (0.15, 0.0, 0.0), 3: (0.30, 0.05, 0.0), 4: (0.45, 0.1, 0.0), 5: (0.45, 0.2, 0.0), 6: (0.35, 0.25, 0.0),
        7: (0.2, 0.3, 0.0), 8: (0.0, 0.3, -0.1), 17: (0.0, 0.1, -0.1), 19: (0.0, 0.15, -0.25), 21: (0.0, 0.1, -0.3),
        27: (0.0, 0.0, -0.2), 30: (0.0, 0.15, -0.2), 31: (0.12, 0.08, 0.0), 33: (0.0, 0.1, -0.1),
        37: (0.0, 0.06, 0.0), 38: (0.0, 0.06, 0.0), 50: (0.0, 0.05, 0.05), 51: (0.0, 0.05, 0.05), 57: (0.0, -0.06, 0.1),
    },
    "child": {
        1: (-0.1, 0.0, 0.0), 3: (0.05, 0.3, 0.0), 4: (0.2, 0.5, 0.0), 5: (0.3, 0.7, 0.0), 6: (0.25, 0.8, 0.0),
        7: (0.1, 0.85, -0.2), 8: (0.0, 0.9, -0.3), 30: (0.0, 0.4, -0.5), 31: (0.2, 0.4, -0.1), 33: (0.0, 0.4, -0.3),
        36: (-0.12, 0.0, 0.0), 37: (0.0, 0.1, 0.0), 38: (0.0, 0.1, 0.0), 39: (0.08, 0.0, 0.0), 40: (0.0, -0.06, 0.0),
        41: (0.0, -0.06, 0.0), 48: (0.25, 0.4, 0.0), 51: (0.0, 0.4, 0.0), 57: (0.0, 0.5, 0.0), 27: (0.0, -0.1, -0.4),
    },
    "full_lips": {
        50: (0.0, 0.10, 0.12), 51: (0.0, 0.10, 0.12), 49: (0.0, 0.06, 0.06), 57: (0.0, -0.12, 0.14),
        58: (0.0, -0.12, 0.12), 59: (0.0, -0.06, 0.06), 33: (0.0, 0.0, 0.0), 48: (0.0, 0.0, 0.0), 62: (0.0, 0.0, 0.05),
        66: (0.0, 0.0, 0.05), 8: (0.0, 0.0, 0.0),
    },
    "big_eyes": {
        36: (-0.10, 0.0, 0.0), 37: (0.0, 0.08, 0.0), 38: (0.0, 0.08, 0.0), 39: (0.06, 0.0, 0.0),
        40: (0.0, -0.05, 0.0), 41: (0.0, -0.05, 0.0), 27: (0.0, 0.0, 0.0), 1: (0.0, 0.0, 0.0), 19: (0.0, 0.0, 0.0),
    },
}  # fmt: skip

# Bumps: center (x < 0, y), radii (x, y) and movement (x, y, z) on the neutral mesh, on both sides. Our choice, by eye.
_BUMP_TRAITS = {
    "hooded_lids": ((-3.9, 4.65), (1.3, 0.42), (0.0, -0.26, 0.14)),
    "pouches": ((-3.2, 2.15), (1.1, 0.38), (0.0, -0.04, 0.20)),
    "cheeks": ((-4.3, -0.6), (1.3, 1.5), (-0.15, 0.0, 0.28)),
    "jowls": ((-4.2, -6.3), (1.2, 1.1), (-0.1, -0.45, 0.12)),
}

_MIRRORED_LANDMARK = {**{i: 16 - i for i in range(17)}, 17: 26, 18: 25, 19: 24, 20: 23, 21: 22, 27: 27, 30: 30, 31: 35,
                      33: 33, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46, 48: 54, 49: 53, 50: 52, 51: 51, 57: 57,
                      58: 56, 59: 55, 62: 62, 66: 66}  # fmt: skip


def trait_deltas(mesh: HeadMesh) -> FloatArray:
    """Return the movement of all vertices for each of TRAITS at strength 1: (8, V*3) float32.

    A trait given by landmarks becomes the most likely face that has it: weights of the identity components by ridge
    regression. So the rest of the head follows as it does on people.
    """
    deltas = np.zeros((len(TRAITS), len(mesh.neutral), 3), np.float32)
    components = mesh.identity_deltas.reshape(len(mesh.identity_deltas), -1, 3)
    side = np.where(mesh.neutral[:, 0] < 0, 1, -1)
    for index, name in enumerate(TRAITS):
        if name in _BUMP_TRAITS:
            center, radii, movement = _BUMP_TRAITS[name]
            away = (-np.abs(mesh.neutral[:, 0]) - center[0]) / radii[0], (mesh.neutral[:, 1] - center[1]) / radii[1]
            bump = np.exp(-0.5 * (away[0] ** 2 + away[1] ** 2)) * (mesh.is_face)
            bump *= mesh.neutral[:, 2] > 4
            deltas[index] = bump[:, None] * np.array(movement) * np.stack([side, 1 + 0 * side, 1 + 0 * side], 1)
            continue
        moved = {**_LANDMARK_TRAITS[name]}
        moved.update({_MIRRORED_LANDMARK[i]: (-x, y, z) for i, (x, y, z) in _LANDMARK_TRAITS[name].items()})
        at = components[:, mesh.landmarks[list(moved)]].reshape(len(components), -1)
        target = np.array(list(moved.values())).reshape(-1)
        weights = np.linalg.solve(at @ at.T + 0.02 * np.eye(len(at)), at @ target)
        deltas[index] = np.tensordot(weights, components, 1)
    return deltas.reshape(len(TRAITS), -1)
