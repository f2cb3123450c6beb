"""Read the heads of VALID: 42 people with photographic skins, in the packed form that `valid_clone` writes.

All heads share their vertices, so people can be blended. Their shapes are mapped to the names of `shapes`, and they are
moved to where the head of ICT-FaceKit is: centimeters, the eyes at the same place.
"""

import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau.errors import FaceModelError
from hf_geaau.synthetic.geometry import FloatArray, smoothstep
from hf_geaau.synthetic.shapes import CENTRAL_SHAPES, EXPRESSION_SHAPES, SIDED_SHAPES, Gaps

REPOSITORY = "https://github.com/c-frame/valid-avatars-glb"
PACKED_FILE = "valid_heads.npz"
SKIN_SIDE = 1024
"""Side of the skins in texels. In a crop of 128 pixels a texel of the face is about a third of a pixel."""
REMEDY = f"Clone {REPOSITORY} and pass the clone's folder."

EYES_CM = np.array([0.0, 3.55, 8.3], np.float32)
"""Where the middle of the eyeballs comes to lie: there the corners of the eyes are those of ICT-FaceKit's mean head."""

_SIDED: dict[str, dict[str, float]] = {
    "browDown": {"browDown": 0.68, "outerBrowDown": 0.32},
    "browInnerUp": {"browUp": 1.0, "pityful": 0.35},
    "browOuterUp": {"outerBrowUp": 1.3},
    "cheekPuff": {"blow": 0.8},
    "cheekSquint": {"smileClose": 0.08},
    "cheekRaiser": {"squint": 0.32, "smileClose": 0.06},
    "eyeBlink": {"eyeClose": 1.0},
    "eyeLookDown": {"eyeClose": 0.45},
    "eyeLookUp": {"eyeOpen": 0.35},
    "eyeSquint": {"lowLid": 0.70},
    "eyeWide": {"eyeOpen": 0.9},
    "mouthDimple": {"lipCorner": 1.0},
    "mouthFrown": {"mouthSad": 0.83},
    "mouthLowerDown": {"lipDown": 0.9},
    "mouthPress": {"MPB_Up": 0.87, "MPB_Down": 0.87, "JawCompress": 0.26},
    "mouthSmile": {"smileClose": 1.1},
    "mouthStretch": {"lipSide": 1.5},
    "mouthUpperUp": {"lipUp": 0.8},
    "noseSneer": {"disgust": 1.1, "nostril": 0.5},
}
"""Shapes of `shapes`, made of those of VALID, on each side. Where VALID has one shape for both sides, half of the face
takes it. Our choice by eye, so that the weights of `expressions.AU_SHAPES` show the action units on VALID as well."""
_CENTRAL: dict[str, dict[str, float]] = {
    "jawForward": {"JawFront": 1.0},
    "jawLeft": {"Ljaw": 1.0},
    "jawRight": {"Rjaw": 1.0},
    "jawOpen": {"MouthOpen": 1.0, "Shout": 0.2},
    "mouthFunnel": {"SH_CH": 1.0},
    "mouthPucker": {"Kiss": 1.0},
    "mouthRollLower": {"MPB_Down": 1.9, "Kiss": 0.22},
    "mouthRollUpper": {"MPB_Up": 1.6, "Kiss": 0.22},
    "mouthShrugLower": {"Chin": 1.65},
}
# What VALID lacks: bumps of movement at the corner of the mouth, by radii and movement in cm; x away from the middle.
_CORNER_PULLS = {
    "mouthDimple": ((0.9, 0.8, 1.2), (0.24, 0.04, -0.42)),
    "mouthStretch": ((1.7, 1.2, 1.8), (0.42, -0.10, -0.22)),
}
_GAZE = {"eyeLookIn": (0.45, 0), "eyeLookOut": (-0.45, 0), "eyeLookUp": (0, 0.35), "eyeLookDown": (0, -0.45)}
"""Radians by which a shape of weight 1 turns an eyeball, inward and up."""


def read_packed_valid(folder: Path) -> dict[str, NDArray]:
    """Read the packed heads into the arrays of a face model.

    Args:
        folder: With `valid_heads.npz` and `textures/NAME_color.webp`.

    Raises:
        FaceModelError: If a file is missing or has other arrays.
    """
    path = folder / PACKED_FILE
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as packed:
            heads = {name: packed[name] for name in packed.files}
        return _face_model_arrays(heads)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise FaceModelError(f"Cannot read the heads of VALID in '{path}': {error}. {REMEDY}") from error


def _face_model_arrays(heads: Mapping[str, NDArray]) -> dict[str, NDArray]:
    heads = {**heads, "landmarks68": find_landmarks(heads["uv"], heads["part"])}
    people = 100 * (heads["vertices"] - heads["eye_center"][:, None]) + EYES_CM
    neutral = people.mean(0)
    triangles = heads["triangles"]
    kept = neutral[triangles, 1].min(1) > _LOWEST_CM
    triangles = triangles[kept]
    materials, material = _materials(heads, neutral, triangles)
    names = [str(name) for name in heads["expression_names"]]
    unit = 100 * float(heads["delta_unit"])
    deltas = np.stack(
        [
            _vocabulary(dict(zip(names, unit * moved.astype(np.float32), strict=True)), neutral, heads)
            for moved in heads["expression_deltas"]
        ]
    )
    landmarks = _inner_lips(heads["landmarks68"], neutral, deltas.mean(0), heads["part"])
    return {
        "vertices": neutral.astype(np.float32),
        "uv": heads["uv"].astype(np.float32),  # v counts down, as rows of the pictures do
        "chart": chart(neutral),
        "triangles": triangles,
        "uv_triangles": triangles,
        "triangle_material": material,
        "materials": np.array(materials),
        "expression_deltas": deltas.mean(0).astype(np.float16),
        "person_expressions": (deltas - deltas.mean(0)).astype(np.float16),
        "identity_deltas": (people - neutral).astype(np.float32),
        "landmarks68": landmarks,
        "people": heads["names"],
    }


_LOWEST_CM = -17.0  # as low as a crop or photo of a face reaches

_VALIDATION = frozenset({"AIAN_F_2", "Asian_M_2", "Black_M_1", "Hispanic_F_1", "White_F_1", "White_M_3"})
_TEST = frozenset(
    {"AIAN_M_2", "Asian_F_3", "Black_F_2", "Black_M_3", "Hispanic_M_1", "MENA_F_1", "White_F_2", "White_M_2"}
)


def parts_of(names: tuple[str, ...]) -> tuple[frozenset[str], ...]:
    """Return whom each million of identities blends: those for training, validation, tests, tests, and training again.

    They are the sets of `hf_geaau.training.rendered`, whose fifth trains the expression embedding. Who is in which is
    our choice: both sexes and all skin tones in each.
    """
    training = frozenset(names) - _VALIDATION - _TEST
    return training, _VALIDATION, _TEST, _TEST, training


_MIDDLE_U = 0.3255
_LANDMARK_UV = {
    0: (-0.169, 0.218), 1: (-0.166, 0.268), 2: (-0.161, 0.318), 3: (-0.154, 0.367), 4: (-0.134, 0.385),
    5: (-0.121, 0.403), 6: (-0.090, 0.437), 7: (-0.040, 0.441), 8: (0.000, 0.448), 17: (-0.119, 0.193),
    18: (-0.102, 0.179), 19: (-0.083, 0.172), 20: (-0.054, 0.170), 21: (-0.030, 0.178), 27: (0.000, 0.209),
    28: (0.000, 0.238), 29: (0.000, 0.267), 30: (0.000, 0.289), 31: (-0.030, 0.296), 32: (-0.023, 0.305),
    33: (0.000, 0.307), 36: (-0.086, 0.217), 37: (-0.074, 0.214), 38: (-0.057, 0.212), 39: (-0.040, 0.214),
    40: (-0.058, 0.220), 41: (-0.074, 0.220), 48: (-0.058, 0.358), 49: (-0.038, 0.342), 50: (-0.024, 0.339),
    51: (0.000, 0.340), 55: (0.035, 0.380), 56: (0.019, 0.383), 57: (0.000, 0.383), 60: (-0.051, 0.360),
    61: (-0.013, 0.357), 62: (0.000, 0.356), 65: (0.013, 0.362), 66: (0.000, 0.356),
}  # fmt: skip
"""Where landmarks of the image's left half and the middle lie in the texture: u from _MIDDLE_U, and v. By eye."""
_RIGHT_OF = {**{i: 16 - i for i in range(8)}, **{i: 43 - i for i in range(17, 22)}, 31: 35, 32: 34, 36: 45, 37: 44}
_RIGHT_OF |= {38: 43, 39: 42, 40: 47, 41: 46, 48: 54, 49: 53, 50: 52, 55: 59, 56: 58, 60: 64, 61: 63, 65: 67}
"""The landmark on the other side."""


def find_landmarks(uv: FloatArray, part: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the vertices (68,) of the skin that lie nearest to the landmarks in the texture."""
    places = np.zeros((68, 2))
    for index, (u, v) in _LANDMARK_UV.items():
        places[index] = _MIDDLE_U + u, v
        places[_RIGHT_OF.get(index, index)] = _MIDDLE_U - u if index in _RIGHT_OF else _MIDDLE_U + u, v
    skin = np.flatnonzero(part == 0)
    return skin[np.linalg.norm(uv[skin] - places[:, None], axis=-1).argmin(1)]


def read_skins(folder: Path, names: tuple[str, ...]) -> NDArray[np.uint8]:
    """Read the photographs of the skins: (P, SKIN_SIDE, SKIN_SIDE, 3) sRGB.

    Raises:
        FaceModelError: If one is missing or damaged.
    """

    def read(name: str) -> NDArray[np.uint8]:
        path = folder / "textures" / f"{name}_color.webp"
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB").resize((SKIN_SIDE, SKIN_SIDE), Image.Resampling.BOX))
        except OSError as error:
            raise FaceModelError(f"Cannot read the skin '{path}': {error}. {REMEDY}") from error

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(read, names)))


def measured_gaps(neutral: FloatArray, deltas: NDArray[np.floating], landmarks: NDArray[np.int64]) -> Gaps:
    """Measure by how much each expression shape parts the lips and the lids of a neutral face (V, 3)."""
    upper_lip, lower_lip = landmarks[[61, 62, 63]], landmarks[[65, 66, 67]]
    lids = ((landmarks[[43, 44]], landmarks[[47, 46]]), (landmarks[[37, 38]], landmarks[[41, 40]]))  # left, right
    lips_by, lids_by = {}, {}
    for name in (*SIDED_SHAPES, *CENTRAL_SHAPES):
        full_names = [f"{name}_L", f"{name}_R"] if name in SIDED_SHAPES else [name]
        rises = deltas[[EXPRESSION_SHAPES.index(full) for full in full_names], :, 1].astype(np.float64)
        lips_by[name] = float((rises[:, upper_lip].mean(1) - rises[:, lower_lip].mean(1)).mean())
        if name in SIDED_SHAPES:
            changes = [
                rise[upper].mean() - rise[lower].mean() for rise, (upper, lower) in zip(rises, lids, strict=True)
            ]
            lids_by[name] = float(np.mean(changes))
    opening = np.mean([neutral[upper, 1].mean() - neutral[lower, 1].mean() for upper, lower in lids])
    return Gaps(lips_by, lids_by, float(opening))


def skin_tones(skins: NDArray[np.uint8], uv: FloatArray, landmarks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean linear RGB (P, 3) of the cheeks."""
    cheeks = np.stack([0.5 * (uv[landmarks[eye]].mean(0) + uv[landmarks[corner]]) for eye, corner in _CHEEKS])
    middle, reach = (cheeks * SKIN_SIDE).astype(int), SKIN_SIDE // 50
    patches = [skins[:, y - reach : y + reach, x - reach : x + reach] for x, y in middle]
    return (np.stack(patches).mean((0, 2, 3)) / 255).astype(np.float32) ** 2.2


_CHEEKS = ((slice(36, 42), 48), (slice(42, 48), 54))


def chart(vertices: FloatArray) -> FloatArray:
    """Return coordinates (V, 2) in which wrinkles, beards and make-up are drawn: the face rolled off a cylinder.

    The cylinder is that which comes closest to the texture coordinates of ICT-FaceKit, for which painting was made:
    0.02 of the side at the landmarks.
    """
    x, y, z = np.moveaxis(vertices, -1, 0)
    return np.stack([0.5 + 0.295 * np.arctan2(x, z - 2), 0.571 + 0.041 * y], -1).clip(0.002, 0.998).astype(np.float32)


_MATERIALS = ("M_Face", "M_BackHead", "M_GumsTongue", "M_Teeth", "M_ScleraLeft", "M_ScleraRight", "M_Other")


def _materials(heads: Mapping[str, NDArray], neutral: FloatArray, triangles: NDArray) -> tuple[list[str], NDArray]:
    """Return names of materials, and that of each triangle."""
    parts = [str(part) for part in heads["parts"]]
    material_of_part = {"H_DDS_HighRes": 0, "h_TeethUp": 3, "h_TeethDown": 3, "h_L_eye": 4, "h_R_eye": 5}
    of_vertex = np.array([material_of_part.get(part, 6) for part in parts], np.uint8)[heads["part"]]
    material = of_vertex[triangles[:, 0]]
    material[(material == 0) & is_behind_face(neutral[triangles].mean(1))] = 1
    return list(_MATERIALS), material


def is_behind_face(places: FloatArray) -> NDArray[np.bool_]:
    """Tell which places (K, 3) of the skin belong to the back of the head or the neck."""
    return (np.abs(np.arctan2(places[:, 0], places[:, 2] - 2)) > 1.55) | (places[:, 1] < -9.5)


def _vocabulary(moved: dict[str, FloatArray], neutral: FloatArray, heads: Mapping[str, NDArray]) -> FloatArray:
    """Return the movements (55, V, 3) of the shapes of `shapes`, made of one person's own (V, 3)."""
    by_side = {}
    for name in {part for parts in _SIDED.values() for part in parts}:
        for side, sign in (("L", 1), ("R", -1)):
            own = _OUTER.get(name, "{0}" + name).format(side)
            if own in moved:
                by_side[name, side] = moved[own]
            else:  # one shape for both sides
                by_side[name, side] = moved[name] * smoothstep(-0.6, 0.6, sign * neutral[:, :1])
    result = np.zeros((len(EXPRESSION_SHAPES), *neutral.shape), np.float32)
    for name in SIDED_SHAPES:
        for side in "LR":
            index = EXPRESSION_SHAPES.index(f"{name}_{side}")
            for part, weight in _SIDED.get(name, {}).items():
                result[index] += weight * by_side[part, side]
            if name in _CORNER_PULLS:
                result[index] += _corner_pull(neutral, heads, side, *_CORNER_PULLS[name])
            if name in _GAZE:
                result[index] += _turned_eye(neutral, heads, side, *_GAZE[name])
    for name in CENTRAL_SHAPES:
        index = EXPRESSION_SHAPES.index(name)
        for part, weight in _CENTRAL.get(name, {}).items():
            result[index] += weight * moved[part]
    opening = result[EXPRESSION_SHAPES.index("jawOpen")] * (heads["part"] == 0)[:, None]
    result[EXPRESSION_SHAPES.index("mouthClose")] = closing(opening, neutral, heads["landmarks68"])
    return result


_OUTER = {"outerBrowUp": "{0}{0}browUp", "outerBrowDown": "{0}{0}browDown"}


def _corner_pull(
    neutral: FloatArray, heads: Mapping[str, NDArray], side: str, radii: Sequence[float], movement: Sequence[float]
) -> FloatArray:
    corner = neutral[heads["landmarks68"][54 if side == "L" else 48]]
    near = np.exp(-((((neutral - corner) / radii) ** 2).sum(1))) * (heads["part"] == 0)
    outward = np.array(movement) * [1 if side == "L" else -1, 1, 1]
    return (near[:, None] * outward).astype(np.float32)


def _turned_eye(neutral: FloatArray, heads: Mapping[str, NDArray], side: str, inward: float, up: float) -> FloatArray:
    """Return the movement of an eyeball that turns by some radians, inward and up."""
    moved = np.zeros_like(neutral)
    ball = heads["part"] == [str(part) for part in heads["parts"]].index(f"h_{side}_eye")
    center = eye_center(neutral[ball])
    turn = -inward if side == "L" else inward  # the left eye lies at positive x, and looks inward to negative x
    ray = neutral[ball] - center
    around_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(up), np.sin(up)], [0, -np.sin(up), np.cos(up)]])
    moved[ball] = ray @ (around_y @ around_x).T - ray
    return moved


def eye_center(cap: FloatArray) -> FloatArray:
    """Return the center (3,) of the sphere that fits the front of an eyeball (K, 3) best."""
    equations = np.column_stack([2 * cap, np.ones(len(cap))])
    return np.linalg.lstsq(equations, (cap**2).sum(1), rcond=None)[0][:3]


def closing(opening: FloatArray, neutral: FloatArray, landmarks: NDArray[np.int64]) -> FloatArray:
    """Return what brings the lips of an open jaw together: the movement of the lips back, and less so around them."""
    mouth = neutral[landmarks[48:60]].mean(0)
    away = (neutral - mouth) / [3.6, 1.6, 4.0]
    near = np.exp(-((away**2).sum(1) ** 2))
    return -opening * near[:, None].astype(np.float32)


def _inner_lips(landmarks: NDArray, neutral: FloatArray, deltas: FloatArray, part: NDArray) -> NDArray:
    """Replace the landmarks of the inner lips, which lie on the same vertices in the packed list."""
    falls = deltas[EXPRESSION_SHAPES.index("jawOpen"), :, 1]
    landmarks, mouth = landmarks.copy(), neutral[landmarks[48:60]].mean(0)
    lowest_fall = falls[landmarks[57]]
    near = (part == 0) & (np.abs(neutral[:, 1] - mouth[1]) < 1.2) & (neutral[:, 2] > mouth[2] - 0.8)
    upper, lower = near & (falls > 0.25 * lowest_fall), near & (falls < 0.6 * lowest_fall)
    for group, indices, sign in ((upper, (61, 62, 63), 1), (lower, (67, 66, 65), -1)):
        for index, x in zip(indices, (-0.9, 0.0, 0.9), strict=True):
            column = np.flatnonzero(group & (np.abs(neutral[:, 0] - x) < 0.3))
            # the vertex at the edge toward the other lip, of those in front
            score = sign * neutral[column, 1] - 1.0 * neutral[column, 2]
            landmarks[index] = column[score.argmin()]
    return landmarks
