"""Tell which action units of a rendered face can be seen, past hair, hands and the head itself. Needs numpy only."""

import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.geometry import FloatArray
from hf_geaau.synthetic.views import View

_INNER_BROWS, _OUTER_BROWS, _EYES = (20, 21, 22, 23), (17, 18, 19, 24, 25, 26), tuple(range(36, 48))
_LOWER_LIDS, _NOSE, _MOUTH = (36, 39, 40, 41, 42, 45, 46, 47), tuple(range(27, 36)), tuple(range(48, 60))
_CORNERS, _UPPER_LIP, _CHIN = (48, 49, 53, 54, 55, 59), (31, 33, 35, 49, 50, 51, 52, 53), (7, 8, 9, 56, 57, 58)

LANDMARKS: dict[int, tuple[int, ...]] = {
    1: _INNER_BROWS, 2: _OUTER_BROWS, 4: (*_INNER_BROWS, 19, 24, 27), 5: _EYES, 6: _LOWER_LIDS, 7: _EYES, 9: _NOSE,
    10: _UPPER_LIP, 12: _CORNERS, 14: _CORNERS, 15: _CORNERS, 17: _CHIN, 20: _CORNERS, 23: _MOUTH, 24: _MOUTH,
    25: _MOUTH, 26: (*_CHIN, 51, 57), 43: _EYES,
}  # fmt: skip
"""The landmarks (of 68) by which each action unit is seen. Our choice, from where FACS looks for it."""

_DARK_TINT = 0.45  # of lenses, from which eyes behind them are hidden
_THICKNESS_CM = 0.5  # by which things must lie before a landmark to hide it, more than lids, lips and wrinkles


def seen_landmarks(view: View, clip: FloatArray, depth: FloatArray) -> NDArray[np.bool_]:
    """Return which landmarks (68,) lie inside the picture and behind nothing.

    Args:
        view: The head.
        clip: (4, 4), from `View.matrices`.
        depth: (H, W) of the drawn head with its hair, 0-1, rows from the bottom as OpenGL has them.
    """
    # Towards the camera, in the head's own frame
    toward = (np.array([0, 0, view.focal]) / view.scale) @ view.turn + view.center - view.landmarks
    near = view.landmarks + _THICKNESS_CM * toward / np.linalg.norm(toward, axis=1, keepdims=True)
    x, y, z = _window(near, clip, depth.shape).T
    inside = (x >= 0) & (y >= 0) & (x < depth.shape[1]) & (y < depth.shape[0])
    column, row = (values.clip(0, size - 1).astype(int) for values, size in zip((x, y), depth.shape[::-1], strict=True))
    return inside & (z <= depth[row, column])


def _window(points: FloatArray, clip: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Map points (P, 3) to columns and rows of a picture, from its lower left corner, and depth 0-1."""
    seen = np.column_stack([points, np.ones(len(points))]) @ clip.T
    return (seen[:, :3] / seen[:, 3:] + 1) / 2 * [shape[1], shape[0], 1]


def visible_shares(seen: NDArray[np.bool_], lens_tint: float = 0.0) -> NDArray[np.float32]:
    """Return the share of each action unit's landmarks that is visible, (18,) in the order of ACTION_UNITS.

    Args:
        seen: (68,) which landmarks nothing hides.
        lens_tint: Darkness of the spectacles, 0-1; 0 for none.
    """
    if lens_tint > _DARK_TINT:
        seen = seen.copy()
        seen[[*_EYES]] = False
    return np.array([seen[[*LANDMARKS[number]]].mean() for number in ACTION_UNITS], np.float32)
