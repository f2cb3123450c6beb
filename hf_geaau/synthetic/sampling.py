"""Draw what a rendered face is made of: who it is, what it does, how it is lit and photographed. Numpy only, no OpenGL.

Everything random is decided here, in one `Scene` per image, from `(seed, index)` alone, so that image i of seed s is
the same in every process. Identities are drawn from `(seed, identity_id)`: disjoint ranges of ids give disjoint people.

Words: `intensity` is FACS A–E as 1–5, 0 for none. An action unit counts as present (label 1) from intensity 1 on.
Traces, 0 < intensity < 1, exist on purpose and count as absent, and no action unit is drawn between `TRACE_MAX` and
`PRESENT_MIN`, so that the two do not touch. Pairs of values are (subject's left, right).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hf_geaau import facs

from .camera import Camera, sample_camera
from .lighting import Light, sample_light
from .point_errors import sample_point_errors

ACTION_UNITS = facs.SYNTHETIC
"""The action units that a rendered face can show, in the order of labels and intensities."""

PRESENT_MIN, TRACE_MAX = 1.2, 0.8
IDENTITY_SIZE = 100  # identity components of ICT-FaceKit

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
"""The 55 expression shapes of ICT-FaceKit, in the order of `Scene.shape_weights`; L is the subject's left."""

AU_SHAPES: dict[int, tuple[tuple[str, float], ...]] = {
    1: (("browInnerUp", 1.5),),
    2: (("browOuterUp", 1.3),),
    4: (("browDown", 1.9),),
    5: (("eyeWide", 1.1),),
    6: (("cheekRaiser", 1.2), ("cheekSquint", 0.95)),
    7: (("eyeSquint", 1.3),),
    9: (("noseSneer", 1.0),),
    10: (("mouthUpperUp", 1.0),),
    12: (("mouthSmile", 1.0), ("cheekSquint", 0.22)),
    14: (("mouthDimple", 1.35),),
    15: (("mouthFrown", 1.45),),
    17: (("mouthShrugLower", 0.85),),
    20: (("mouthStretch", 1.2),),
    23: (("mouthRollLower", 0.6), ("mouthRollUpper", 0.6)),
    24: (("mouthPress", 1.15),),
    25: (("mouthLowerDown", 0.9),),
    26: (("jawOpen", 0.75),),
    43: (("eyeBlink", 1.0),),
}
"""Which expression shapes an action unit moves, and their weights at intensity 5. Source: our reading of the shapes'
names beside the FACS manual, strengths judged by eye; AU06 takes two shapes, because either alone lifts the cheek too
little, and AU12 one of them, because a strong smile swells the cheeks a little by itself."""

# Change of the gap between the inner lips, in cm per unit of shape weight, measured on the neutral ICT-FaceKit mesh.
LIP_GAP_CM = {
    "jawOpen": 2.89, "mouthFunnel": 1.08, "mouthLowerDown": 0.29, "mouthUpperUp": 0.35, "noseSneer": 0.32,
    "mouthShrugUpper": 0.46, "mouthShrugLower": -0.64, "mouthClose": -3.72, "mouthPress": -0.11, "mouthDimple": -0.08,
    "mouthPucker": -0.13, "cheekSquint": 0.02, "cheekRaiser": 0.02, "mouthStretch": -0.02, "jawForward": 0.11,
}  # fmt: skip
LIPS_APART_CM = 1.6  # the lip gap that counts as AU25 of intensity 5
# The same for the gap between the eyelids, which is 0.83 cm on the neutral mesh.
LID_GAP_CM = {
    "eyeBlink": -0.79, "eyeLookDown": -0.45, "cheekSquint": -0.24, "cheekRaiser": -0.24, "eyeSquint": -0.20,
    "noseSneer": -0.11, "mouthSmile": -0.05, "eyeLookUp": 0.17, "eyeWide": 0.27,
}  # fmt: skip
LID_OPENING_CM = 0.83

PROTOTYPES: tuple[tuple[int, ...], ...] = (
    (6, 12, 25), (6, 12), (12,), (12, 25), (6, 7, 12, 25, 26), (1, 2, 5, 25, 26), (1, 2), (1, 2, 5), (1, 2, 12, 25),
    (1,), (2,), (1, 4), (1, 4, 15), (1, 4, 15, 17), (4,), (4, 7), (4, 7, 24), (4, 5, 7, 23), (4, 7, 23),
    (4, 6, 7, 9, 10), (9,), (4, 9, 10, 17), (9, 10, 25), (10,), (10, 25), (1, 2, 4), (1, 2, 4, 5, 20, 25), (14,),
    (12, 14), (15, 17), (17,), (17, 24), (20, 25), (23,), (25,), (25, 26), (6, 7), (6,), (7,), (5,), (43,),
    (4, 6, 7, 43), (1, 2, 26, 25), (2, 12),
)  # fmt: skip
"""Combinations seen on people: smiles, surprise, fear, sadness, anger, disgust, pain, doubt, contempt, and single
units, so that every unit is also seen alone."""

EXCLUSIONS = ((5, 43), (5, 6), (5, 7), (23, 25), (24, 25), (23, 26), (24, 26), (17, 26), (20, 23), (20, 24), (12, 15))
"""Pairs that oppose or hide each other at photo resolution; the weaker one goes (12 with 15 rarely stays)."""

WRINKLES = (
    "forehead_centre", "forehead_side", "glabella", "crows_feet",
    "lower_lid", "nose_root", "nasolabial", "dimple",
    "chin", "mouth_corner", "lip_lines", "cheek_stretch",
)  # fmt: skip
"""Layers of the wrinkle maps: three RGBA textures, see textures.wrinkle_maps."""

# Layer, action unit and strength: how much a full-strength action unit deepens each layer.
WRINKLE_SOURCES = (
    ("forehead_centre", 1, 1.2), ("forehead_centre", 2, 0.25), ("forehead_side", 2, 1.3), ("forehead_side", 1, 0.2),
    ("glabella", 4, 1.3), ("glabella", 9, 0.4), ("crows_feet", 6, 1.4), ("crows_feet", 7, 0.25),
    ("crows_feet", 12, 0.15), ("lower_lid", 7, 1.0), ("lower_lid", 6, 1.0), ("nose_root", 9, 1.0),
    ("nasolabial", 12, 0.8), ("nasolabial", 10, 0.8), ("nasolabial", 9, 0.5), ("nasolabial", 6, 0.2),
    ("nasolabial", 20, 0.3), ("dimple", 14, 1.0), ("dimple", 12, 0.3), ("chin", 17, 1.0), ("chin", 15, 0.2),
    ("mouth_corner", 15, 0.9), ("mouth_corner", 24, 0.2), ("lip_lines", 23, 0.7), ("lip_lines", 24, 0.6),
    ("cheek_stretch", 20, 0.8),
)  # fmt: skip


@dataclass(frozen=True)
class Skin:
    """Colour and relief of the skin; colours are linear RGB in 0–1.

    Attributes:
        tone: Mean colour (3).
        lips: Factor from tone to lip colour (3).
        redness: 0–1, of cheeks, nose and ears.
        freckles: 0–1.
        blotches: 0–1, large-scale unevenness.
        pores: 0–1, small-scale unevenness.
        eye_shadow: 0–1, dark rings around the eyes.
        oil: 0–1, strength of highlights.
        lipstick: 0 for none, else opacity.
    """

    tone: NDArray[np.float32]
    lips: NDArray[np.float32]
    redness: float
    freckles: float
    blotches: float
    pores: float
    eye_shadow: float
    oil: float
    lipstick: float


@dataclass(frozen=True)
class Brows:
    """Eyebrows: a tapering body with hair strokes. Lengths as fractions of the texture side, about 26 cm here.

    Attributes:
        thickness: Full height of the body where it is thickest.
        density: 0 (sparse) – 1 (bushy), of the strokes.
        height: Shift from the landmarks; the brow ridge of the mesh, which the brow muscles move, lies at -0.02, brows
            on photos 1.3-1.8 cm above the pupil, at -0.035.
        arch: Height of the bend, and `peak` its place, 0 (inner end) – 1 (outer end).
        tilt: Rise towards the temple.
        length: Factor on the landmarks' length.
        inset: Shift of the inner ends towards the nose.
        opacity: 0–1.
        pencil: 0 (hairs only) – 1 (a smooth pencilled shape).
    """

    thickness: float
    density: float
    height: float
    arch: float
    peak: float
    tilt: float
    length: float
    inset: float
    opacity: float
    pencil: float


@dataclass(frozen=True)
class Beard:
    """Facial hair: each part 0 (shaven) – 1 (dense); `length_cm` lifts the surface."""

    moustache: float
    chin: float
    cheeks: float
    stubble: bool
    length_cm: float


@dataclass(frozen=True)
class Hair:
    """Head hair as one surface around the head. Heights are in cm of the mesh, where eyes are at 3.4 and brows at 6.

    Attributes:
        style: One of HAIR_STYLES.
        color: Linear RGB (3).
        thickness: Distance from the skull, cm.
        hairline: Height of the hairline above the forehead, cm.
        recession: How much further it lies above the temples, cm.
        fringe: Height of the front end, cm; below the hairline it is a fringe.
        fringe_side: -1–1, slant of the fringe.
        length: Height of the lower end at the sides, cm.
        face_angle: Half angle around the head that stays free for the face, radians.
        wave: Amplitude of waves or curls, cm.
        sweep: -1–1, how far strands lean to one side on their way down.
        strand: Contrast of strands, 0–1.
        gray: Share of grey strands, 0–1.
        shade: Per-strand randomness seed.
    """

    style: str
    color: NDArray[np.float32]
    thickness: float
    hairline: float
    recession: float
    fringe: float
    fringe_side: float
    length: float
    face_angle: float
    wave: float
    sweep: float
    strand: float
    gray: float
    shade: int


@dataclass(frozen=True)
class Eyes:
    """Eyes, lashes and what is painted around them.

    Attributes:
        iris, sclera: Linear RGB (3).
        iris_radius: Degrees seen from the eyeball's centre.
        lash_density, lash_length: 0–1.
        liner: 0–1, and its `wing` past the outer corner, 0 for none.
        shadow: Linear RGB (3) of eye shadow, with `shadow_opacity` 0 for none and `shadow_reach` up from the lid, as a
            fraction of the texture side.
        fold: Height of the upper lid's fold above its edge, same unit; `fold_depth` 0 (monolid) – 1.
    """

    iris: NDArray[np.float32]
    iris_radius: float
    sclera: NDArray[np.float32]
    lash_density: float
    lash_length: float
    liner: float
    wing: float
    shadow: NDArray[np.float32]
    shadow_opacity: float
    shadow_reach: float
    fold: float
    fold_depth: float


@dataclass(frozen=True)
class Glasses:
    """Spectacles: `tint` is 0 for clear to 1 for dark lenses; sizes in cm."""

    half_width: float
    half_height: float
    roundness: float
    rim: float
    color: NDArray[np.float32]
    tint: float
    drop: float


TRAITS = ("feminine", "child", "hooded_lids", "pouches", "cheeks", "jowls", "full_lips", "big_eyes")
"""Directions of shape with a meaning, which the identity components lack; see geometry.trait_deltas."""

HAIR_STYLES = ("bald", "buzz", "short", "fringe", "long", "bob", "curly", "updo", "cap")


@dataclass(frozen=True)
class Identity:
    """One person: shape and looks, the same in all their images.

    Attributes:
        identity_id: Its number; `(seed, identity_id)` decides everything below.
        shape: (100,) weights of the identity components, in standard deviations.
        age: 0 (twenty) – 1 (eighty).
        feminine: 0–1; shifts the odds of beard, hair length, brows and make-up.
        teeth: Linear RGB (3).
        teeth_place: How far the teeth lie back behind the lips, and the upper ones down, cm.
        wrinkle_pattern: Which of the wrinkle map sets, 0–WRINKLE_PATTERNS-1.
        permanent_wrinkles: (12, 2) depth of each layer at rest, so that a line alone does not tell an action unit.
        wrinkle_gain: How deep this skin folds.
        glasses: Spectacles of this person, worn in about two thirds of the images, or None.
        texture_seed: Seed of the painted texture.
        traits: (8,) strength of each of TRAITS.
        resting: (55,) expression shapes that this face shows at rest: low or arched brows, full lower lids, corners of
            the mouth that hang. They belong to the person, as FACS codes changes from the rest.
    """

    identity_id: int
    shape: NDArray[np.float32]
    age: float
    feminine: float
    skin: Skin
    brows: Brows
    beard: Beard
    hair: Hair
    eyes: Eyes
    teeth: NDArray[np.float32]
    teeth_place: tuple[float, float]
    wrinkle_pattern: int
    permanent_wrinkles: NDArray[np.float32]
    wrinkle_gain: float
    glasses: Glasses | None
    texture_seed: int
    traits: NDArray[np.float32]
    resting: NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """Everything one image needs.

    Attributes:
        seed, index: Where it comes from.
        identity: Who.
        intensities: (18,) float32, 0–5, in the order of ACTION_UNITS.
        labels: (18,) float32, 1 present and 0 absent.
        shape_weights: (55,) float32 in the order of EXPRESSION_SHAPES.
        wrinkles: (12, 2) depth of each layer in WRINKLES, for the subject's left and right.
        yaw, pitch, roll: Head pose, radians; positive yaw turns the face to the image's right, positive pitch down.
        wears_glasses: Whether identity.glasses is on.
        pupil: Radius in degrees.
        cloth: Linear RGB (3) of what is worn below `collar`, a height in cm.
        point_jitter: (5, 2) error of a detector's points in the upright crop, in eye distances of the template.
        crop_jitter: Rotation (radians), log scale, and shift x, y (fractions of the crop side).
        backdrop_seed: Seed of background and occluder.
        occluder: One of OCCLUDERS or SHIFTED_OCCLUDERS, or "" for none.
        source: Where the action units come from, one of SOURCES.
        style: One of STYLES.
    """

    seed: int
    index: int
    identity: Identity
    intensities: NDArray[np.float32]
    labels: NDArray[np.float32]
    shape_weights: NDArray[np.float32]
    wrinkles: NDArray[np.float32]
    yaw: float
    pitch: float
    roll: float
    wears_glasses: bool
    pupil: float
    cloth: NDArray[np.float32]
    collar: float
    light: Light
    camera: Camera
    point_jitter: NDArray[np.float32]
    crop_jitter: NDArray[np.float32]
    backdrop_seed: int
    occluder: str = ""
    source: str = "given"
    style: str = "standard"


STYLES = ("standard", "shifted")
"""Settings of the renderer. "shifted" is for tests: its people, lights, backgrounds, occluders, cameras, hair colours,
undertones and wrinkle patterns are never seen in "standard"."""
OCCLUDERS, SHIFTED_OCCLUDERS = ("hand", "bar", "mug", "shadow"), ("scarf", "microphone", "strands")
WRINKLE_PATTERNS, SHIFTED_WRINKLE_PATTERNS = 6, 4  # the shifted ones are numbered after the others
_STREAM_IDENTITY, _STREAM_IMAGE, _STREAM_SHIFTED = 1, 2, 3  # keeps image 7 and identity 7 of one seed apart

# Skin tones from very light to very dark as linear RGB: our choice along the Fitzpatrick scale, judged by eye.
_TONES = np.array(
    [[0.80, 0.60, 0.52], [0.70, 0.47, 0.37], [0.58, 0.37, 0.26], [0.42, 0.25, 0.16], [0.26, 0.145, 0.09],
     [0.135, 0.073, 0.047], [0.065, 0.036, 0.026]]
)  # fmt: skip
_HAIR_COLORS = np.array(
    [[0.012, 0.010, 0.009], [0.022, 0.015, 0.011], [0.055, 0.03, 0.018], [0.12, 0.065, 0.035], [0.24, 0.14, 0.07],
     [0.42, 0.29, 0.16], [0.22, 0.065, 0.025], [0.26, 0.25, 0.24], [0.45, 0.44, 0.43]]
)  # fmt: skip
_IRIS_COLORS = np.array(
    [[0.035, 0.016, 0.007], [0.09, 0.04, 0.015], [0.15, 0.10, 0.035], [0.10, 0.14, 0.06], [0.12, 0.22, 0.33],
     [0.22, 0.27, 0.30]]
)  # fmt: skip


@lru_cache(maxsize=4)  # images come in blocks of one identity
def sample_identity(seed: int, identity_id: int) -> Identity:
    """Draw one person.

    Example:
        >>> sample_identity(0, 3).shape.shape
        (100,)
    """
    rng = np.random.default_rng([seed, _STREAM_IDENTITY, identity_id])
    age, feminine = float(rng.beta(1.2, 1.6)), float(rng.random())
    tone_place = rng.uniform(0, len(_TONES) - 1)
    tone = np.array([np.interp(tone_place, range(len(_TONES)), _TONES[:, c]) for c in range(3)])
    tone *= rng.uniform(0.9, 1.1) * rng.uniform(0.95, 1.05, 3)
    skin = _sample_skin(rng, tone, tone_place, age, feminine)
    hair = _sample_hair(rng, tone_place, age, feminine)
    return Identity(
        identity_id=identity_id,
        shape=(rng.normal(size=IDENTITY_SIZE) * rng.uniform(0.55, 1.0)).astype(np.float32),
        age=age,
        feminine=feminine,
        skin=skin,
        brows=_sample_brows(rng, feminine, age),
        beard=_sample_beard(rng, feminine),
        hair=hair,
        eyes=_sample_eyes(rng, tone_place, feminine),
        teeth=(np.array([0.72, 0.67, 0.57]) * rng.uniform(0.8, 1.15) * [1, 1, rng.uniform(0.85, 1.1)]).astype(
            np.float32
        ),
        teeth_place=(float(rng.uniform(0, 0.35)), float(rng.uniform(-0.25, 0.4))),
        wrinkle_pattern=int(rng.integers(WRINKLE_PATTERNS)),
        permanent_wrinkles=_sample_permanent_wrinkles(rng, age),
        wrinkle_gain=float(rng.uniform(0.0, 0.8) + 0.7 * age * rng.uniform(0.6, 1.0)),
        glasses=_sample_glasses(rng) if rng.random() < 0.25 else None,
        texture_seed=int(rng.integers(2**31)),
        traits=_sample_traits(rng, age, feminine),
        resting=_sample_resting(rng),
    )


def _sample_traits(rng: np.random.Generator, age: float, feminine: float) -> NDArray[np.float32]:
    young = age < 0.12
    traits = {
        "feminine": rng.normal(2.2 * feminine - 1.1, 0.4),
        "child": rng.uniform(0.4, 1.2) if young and rng.random() < 0.6 else max(rng.normal(0, 0.2), 0),
        "hooded_lids": rng.uniform(0.3, 1.0) if rng.random() < 0.2 + 0.4 * age else rng.uniform(0, 0.2),
        "pouches": rng.uniform(0.3, 1.0) if rng.random() < 0.2 + 0.4 * age else rng.uniform(0, 0.2),
        "cheeks": rng.normal(0.2, 0.5),
        "jowls": max(rng.normal(0.9 * age - 0.2, 0.3), 0),
        "full_lips": rng.normal(0.3 * feminine - 0.3 * age, 0.6),
        "big_eyes": rng.normal(0.3 * feminine - 0.2 * age, 0.5),
    }
    return np.array([traits[name] for name in TRAITS], np.float32)


def _sample_resting(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a slight permanent expression, weaker than a visible action unit (a third of the full one)."""
    weights = _Weights()
    for name, spread, low, high in (
        ("browInnerUp", 0.14, -0.30, 0.25), ("browOuterUp", 0.14, -0.30, 0.22), ("browDown", 0.16, -0.30, 0.35),
        ("cheekSquint", 0.10, -0.10, 0.18), ("eyeSquint", 0.12, -0.15, 0.22), ("mouthSmile", 0.06, -0.10, 0.12),
        ("mouthFrown", 0.08, -0.10, 0.18), ("mouthDimple", 0.06, -0.05, 0.12), ("mouthShrugLower", 0.04, 0.0, 0.10),
        ("noseSneer", 0.05, -0.08, 0.12), ("eyeWide", 0.08, -0.15, 0.12),
    ):  # fmt: skip
        value = np.clip(rng.normal(0, spread), low, high)
        weights.add(name, *np.clip(value * rng.normal(1, 0.15, 2), low, high))
    weights.add("eyeBlink", *[max(rng.normal(0.10, 0.06), 0)] * 2)  # upper lids cover the rim of the iris
    return weights.values.astype(np.float32)


def _sample_skin(
    rng: np.random.Generator, tone: NDArray[np.float64], tone_place: float, age: float, feminine: float
) -> Skin:
    dark = tone_place / (len(_TONES) - 1)
    green = rng.uniform(0.5, 0.8)
    lips = np.array([rng.uniform(0.8, 1.02), green, green * rng.uniform(0.9, 1.12)])
    lipstick = 0.0
    if feminine > 0.6 and rng.random() < 0.4:
        lipstick = float(rng.uniform(0.3, 0.9))
        color = np.array([rng.uniform(0.15, 0.4), rng.uniform(0.015, 0.1), 0.0]) * (0.2 + 0.8 * tone.mean() / 0.6)
        lips = np.append(color[:2], color[1] * rng.uniform(0.6, 1.5)) / np.maximum(tone, 0.02)
    return Skin(
        tone=tone.astype(np.float32),
        lips=lips.astype(np.float32),
        redness=float(rng.beta(1.5, 2.5) * (1 - 0.7 * dark)),
        freckles=float(rng.beta(0.5, 2.5) * (1 - dark)),
        blotches=float(rng.beta(1.5, 2) * (0.6 + 0.5 * age)),
        pores=float(rng.beta(1.5, 2)),
        eye_shadow=float(rng.beta(1.3, 2) * (0.5 + 0.5 * age)),
        oil=float(rng.beta(1.4, 2)),
        lipstick=lipstick,
    )


def _sample_hair(rng: np.random.Generator, tone_place: float, age: float, feminine: float) -> Hair:
    weights = np.array([0.4, 0.8, 2.4, 0.8, 0.5, 0.2, 0.7, 0.5, 0.3])
    if feminine > 0.5:
        weights = np.array([0.03, 0.07, 0.5, 1.2, 4.5, 1.5, 0.9, 1.2, 0.2])
    elif age > 0.5:
        weights[:2] *= 2.5
    style = str(rng.choice(HAIR_STYLES, p=weights / weights.sum()))
    place = (
        int(rng.choice(7, p=[0.28, 0.22, 0.18, 0.14, 0.08, 0.06, 0.04])) if tone_place < 2.5 else int(rng.integers(3))
    )
    color, gray = _HAIR_COLORS[place] * rng.uniform(0.7, 1.3), float(np.clip(rng.normal(1.5 * age - 0.75, 0.25), 0, 1))
    color = (1 - gray) * color + gray * _HAIR_COLORS[7 + int(rng.random() < 0.5)]
    if style == "cap":
        color = rng.uniform(0.01, 0.6) * rng.uniform(0.2, 1.0, 3)
    hairline = float(np.clip(rng.normal(10.2, 0.8), 8.6, 12.2))
    thickness = {"bald": 0.0, "buzz": 0.12, "short": rng.uniform(0.4, 1.8), "curly": rng.uniform(0.8, 3.5), "cap": 0.5}
    fringe = (
        rng.uniform(4.3, 8.2) if style == "fringe" or (style in ("long", "bob") and rng.random() < 0.35) else hairline
    )
    long = {"long": rng.uniform(-18, -7), "bob": rng.uniform(-6, 0.0), "fringe": rng.choice([4.0, rng.uniform(-15, 0)])}
    curly_length = float(rng.choice([3.5, rng.uniform(-10, 2)], p=[0.6, 0.4]))
    long["curly"] = curly_length
    return Hair(
        style=style,
        color=color.astype(np.float32),
        thickness=float(thickness.get(style, rng.uniform(0.5, 2.2))),
        hairline=float(rng.uniform(6.8, 9.5)) if style == "cap" else hairline,
        recession=float(0.0 if style == "cap" else rng.exponential(0.4 + 0.8 * age * (1 - feminine))),
        fringe=float(fringe),
        fringe_side=float(rng.normal(0, 0.5)),
        length=float(long.get(style, rng.uniform(3.0, 5.0))),
        face_angle=float(rng.uniform(0.62, 1.15)),
        wave=float(rng.uniform(0.3, 0.9) if style == "curly" else rng.exponential(0.12)),
        sweep=float(rng.normal(0, 0.6)),
        strand=float(0.08 if style == "cap" else rng.uniform(0.35, 1.0)),
        gray=gray,
        shade=int(rng.integers(1000)),
    )


def _sample_brows(rng: np.random.Generator, feminine: float, age: float) -> Brows:
    """Draw brows from plucked to bushy; arched, low, raised and slanted ones are frequent: they mimic action units."""
    plucked = feminine > 0.5 and rng.random() < 0.6
    made_up = plucked and rng.random() < 0.6
    bushy = not plucked and rng.random() < 0.3
    thickness = rng.uniform(0.009, 0.018) if plucked else rng.uniform(0.014, 0.028) + 0.008 * bushy
    density = rng.uniform(0.5, 1.0) if plucked or bushy else rng.uniform(0.15, 0.9) * (1 - 0.3 * age)
    return Brows(
        thickness=float(thickness),
        density=float(density),
        height=float(np.clip(rng.normal(-0.034 + 0.005 * feminine, 0.0075), -0.050, -0.010)),
        arch=float(np.clip(rng.normal(0.002 + 0.003 * feminine, 0.004), -0.006, 0.013)),
        peak=float(rng.uniform(0.5, 0.8)),
        tilt=float(rng.normal(0.001, 0.006)),
        length=float(rng.uniform(0.82, 1.02)),
        inset=float(rng.normal(-0.004 if plucked else 0.002, 0.006)),
        opacity=float(rng.uniform(0.75, 1.0) if made_up or bushy else rng.uniform(0.3, 0.95)),
        pencil=float(rng.uniform(0.5, 1.0) if made_up else rng.uniform(0, 0.35)),
    )


def _sample_beard(rng: np.random.Generator, feminine: float) -> Beard:
    if feminine > 0.5 or rng.random() < 0.4:
        return Beard(0.0, 0.0, 0.0, False, 0.0)
    kind, depth = rng.random(), rng.uniform(0.35, 1.0)
    if kind < 0.4:  # shaven some days ago
        depth *= 0.6
        return Beard(depth * rng.uniform(0.6, 1), depth, depth * rng.uniform(0.3, 1), True, 0.0)
    if kind < 0.75:
        return Beard(
            depth * rng.uniform(0.6, 1), depth, depth * rng.uniform(0.6, 1), False, float(rng.uniform(0.05, 1.5))
        )
    return Beard(depth, depth if rng.random() < 0.6 else 0.0, 0.0, False, float(rng.uniform(0.05, 0.5)))


def _sample_eyes(rng: np.random.Generator, tone_place: float, feminine: float) -> Eyes:
    place = int(rng.choice(len(_IRIS_COLORS), p=[0.35, 0.2, 0.15, 0.1, 0.12, 0.08])) if tone_place < 2.5 else 0
    made_up = feminine > 0.5 and rng.random() < 0.55
    white = np.array([0.50, 0.47, 0.45]) * (1 - 0.08 * tone_place) * rng.uniform(0.75, 1.15)
    shadows = [[0.02, 0.015, 0.015], [0.10, 0.045, 0.03], [0.25, 0.12, 0.09], [0.10, 0.03, 0.08], [0.03, 0.06, 0.15]]
    shadow = np.array(shadows[int(rng.choice(5, p=[0.25, 0.35, 0.2, 0.1, 0.1]))]) * rng.uniform(0.6, 1.6)
    return Eyes(
        iris=(_IRIS_COLORS[place] * rng.uniform(0.4, 1.1) * rng.uniform(0.9, 1.1, 3)).astype(np.float32),
        iris_radius=float(rng.uniform(27, 31)),
        sclera=(white * [1, rng.uniform(0.93, 1), rng.uniform(0.88, 1)]).astype(np.float32),
        lash_density=float(np.clip(rng.normal(0.3 + 0.3 * feminine + 0.25 * made_up, 0.2), 0.05, 1)),
        lash_length=float(np.clip(rng.normal(0.15 + 0.2 * feminine + 0.2 * made_up, 0.12), 0.05, 1)),
        liner=float(rng.uniform(0.3, 1.0) if made_up else rng.uniform(0, 0.12)),
        wing=float(rng.uniform(0.2, 1.0) if made_up and rng.random() < 0.4 else 0.0),
        shadow=shadow.astype(np.float32),
        shadow_opacity=float(rng.uniform(0.2, 0.75) if made_up and rng.random() < 0.75 else 0.0),
        shadow_reach=float(rng.uniform(0.012, 0.032)),
        fold=float(rng.uniform(0.016, 0.030)),
        fold_depth=float(rng.uniform(0.25, 0.75) if rng.random() < 0.8 else rng.uniform(0, 0.2)),
    )


def _sample_glasses(rng: np.random.Generator) -> Glasses:
    dark = rng.random() < 0.45
    return Glasses(
        half_width=float(rng.uniform(2.1, 2.75)),
        half_height=float(rng.uniform(1.3, 2.3)),
        roundness=float(rng.uniform(2.0, 4.5)),
        rim=float(rng.uniform(0.05, 0.11) if rng.random() < 0.5 else rng.uniform(0.11, 0.26)),
        color=(rng.uniform(0.005, 0.05, 3) if dark else rng.uniform(0.03, 0.5) * rng.uniform(0.4, 1, 3)).astype(
            np.float32
        ),
        tint=float(rng.uniform(0.45, 0.9) if rng.random() < 0.12 else rng.uniform(0, 0.15)),
        drop=float(rng.normal(0.0, 0.25)),
    )


def _sample_permanent_wrinkles(rng: np.random.Generator, age: float) -> NDArray[np.float32]:
    depth = rng.beta(1.0, 3.0, len(WRINKLES)) * (0.25 + 0.75 * rng.random()) * (0.25 + 1.2 * age)
    for place in np.flatnonzero(rng.random(len(WRINKLES)) < 0.06 + 0.16 * age):  # as deep as an expression's
        depth[place] += rng.uniform(0.3, 0.9) * (0.5 + 0.6 * age)
    quiet = [WRINKLES.index(name) for name in ("nose_root", "dimple", "chin", "lip_lines", "cheek_stretch")]
    depth[quiet] *= 0.3
    both = depth[:, None] * rng.uniform(0.8, 1.2, (len(WRINKLES), 2))
    both[WRINKLES.index("nasolabial")] += 0.15 + 0.2 * age
    return both.astype(np.float32)


def weight_of_intensity(intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map intensity 0–5 to shape weight 0–1: `(intensity / 5) ** 0.75`, so that A (1) is already visible, at 0.30.

    Our choice: FACS orders A–E but gives no metric; a linear 0.2 moves a brow by less than a pixel at 128 px.

    Example:
        >>> weight_of_intensity(np.array([0.0, 1.0, 5.0])).round(2).tolist()
        [0.0, 0.3, 1.0]
    """
    return (np.clip(intensity, 0, 5) / 5) ** 0.75


def labels_of(intensities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Occurrence of each action unit: 1 from intensity 1 (FACS A) on, else 0.

    Example:
        >>> labels_of(np.array([0.0, 0.8, 1.2])).tolist()
        [0.0, 0.0, 1.0]
    """
    return (np.asarray(intensities) >= 1).astype(np.float32)


# Emotion categories as action units with the share of 230 people who use them. Source: Du, Tao and Martinez 2014,
# "Compound facial expressions of emotion", PNAS 111(15), Table 1, coded with FACS; AU11 is left out, as it is none of
# ours. The table says "more than 70 %" for the units that it gives no share for; we take 0.85, the middle.
_COMMON = 0.85
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

SPONTANEOUS_RATES: dict[int, float] = {
    1: 0.211, 2: 0.171, 4: 0.203, 6: 0.461, 7: 0.549, 10: 0.594, 12: 0.562, 14: 0.466, 15: 0.169, 17: 0.343,
    23: 0.165, 24: 0.151, 9: 0.042, 25: 0.277, 26: 0.088,
}  # fmt: skip
"""Share of frames that show an action unit while people are moved to show something. Sources: the frame lists of BP4D
(146,847 frames; AU 1–24 without 9) and, for AU 9, 25 and 26, of DISFA at intensity 2 and above (130,814 frames)."""

SOURCES = {"neutral": 0.24, "compound": 0.24, "spontaneous": 0.10, "prototype": 0.20, "speech": 0.06, "free": 0.16}
"""Where the action units of an image come from, and the share of images (our choice). "neutral": none, or traces;
"compound": COMPOUND_EXPRESSIONS; "spontaneous": each on its own at SPONTANEOUS_RATES; "prototype": PROTOTYPES;
"speech": a mouth that talks in a calm face; "free": each on its own at equal rates."""


_CHEEKS_WITH_SMILE = 0.5
"""Share of the smiles (AU12) drawn without AU06 that get it after all, so that two of three raise the cheeks. Our
choice: published rates, 0.46 and 0.56 of BP4D's frames, say nothing of pairs; drawn apart most smiles would lack it."""


def sample_intensities(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw (18,) intensities: neutral faces, combinations as published or of our own, single units, and traces."""
    return _draw_intensities(rng, str(rng.choice(list(SOURCES), p=list(SOURCES.values()))))


def _draw_intensities(rng: np.random.Generator, source: str) -> NDArray[np.float64]:
    values, chosen = np.zeros(len(ACTION_UNITS)), _draw_units(rng, source)
    level = rng.uniform(-0.3, 0.3)  # one face is lively or calm as a whole
    traces = rng.choice([0.0, 0.15]) if source == "neutral" else 0.12
    for place, number in enumerate(ACTION_UNITS):
        if number in chosen:
            values[place] = PRESENT_MIN + (5 - PRESENT_MIN) * np.clip(rng.beta(1.4, 1.5) + level, 0, 1)
        elif rng.random() < traces:
            values[place] = rng.uniform(0.1, TRACE_MAX)
    for first, second in EXCLUSIONS:
        a, b = ACTION_UNITS.index(first), ACTION_UNITS.index(second)
        if values[a] > 0 and values[b] > 0 and not ((first, second) == (12, 15) and rng.random() < 0.15):
            values[a if values[a] < values[b] else b] = 0.0
    return values


def _draw_units(rng: np.random.Generator, source: str) -> set[int]:
    """Draw which action units are present."""
    chosen: set[int] = set()
    if source == "compound":
        common, rarer = COMPOUND_EXPRESSIONS[rng.integers(len(COMPOUND_EXPRESSIONS))]
        shares = {**dict.fromkeys(common, _COMMON), **rarer}
        chosen |= {number for number, share in shares.items() if rng.random() < share}
    elif source == "spontaneous":
        chosen |= {number for number, rate in SPONTANEOUS_RATES.items() if rng.random() < rate}
    elif source == "prototype":
        units = PROTOTYPES[rng.integers(len(PROTOTYPES))]
        chosen |= {number for number in units if len(units) == 1 or rng.random() < 0.92}
    elif source == "speech":
        chosen |= {number for number, share in {25: 0.8, 26: 0.35, 23: 0.1, 10: 0.1, 12: 0.1}.items()
                   if rng.random() < share}  # fmt: skip
    elif source == "free":
        rate = rng.choice([0.06, 0.12, 0.2])
        chosen |= {number for number in ACTION_UNITS if rng.random() < rate}
    if source in ("compound", "prototype", "speech") and rng.random() < 0.15:  # one more of any kind
        chosen.add(int(rng.choice(ACTION_UNITS)))
    if 12 in chosen and rng.random() < _CHEEKS_WITH_SMILE:
        chosen.add(6)
    if source != "neutral" and rng.random() < 0.04:  # caught in a blink
        chosen.add(43)
    return chosen


class _Weights:
    """Accumulates shape weights by name, for one side or both."""

    def __init__(self) -> None:
        self.values = np.zeros(len(EXPRESSION_SHAPES))

    def add(self, name: str, left: float, right: float) -> None:
        """Add to both sides of a sided shape; a central shape takes the mean."""
        if name in CENTRAL_SHAPES:
            self.values[EXPRESSION_SHAPES.index(name)] += (left + right) / 2
        else:
            place = EXPRESSION_SHAPES.index(f"{name}_L")
            self.values[place] += left
            self.values[place + 1] += right

    def gap(self, table: dict[str, float], side: int | None = None) -> float:
        """Change of an opening in cm: sum of weight times the table's effect, for one eye (0 left) or the mouth."""
        total = 0.0
        for name, effect in table.items():
            if name in CENTRAL_SHAPES:
                total += effect * self.values[EXPRESSION_SHAPES.index(name)]
                continue
            place = EXPRESSION_SHAPES.index(f"{name}_L")
            total += effect * (self.values[place : place + 2].sum() if side is None else self.values[place + side])
        return float(total)


def expression(
    intensities: NDArray[np.floating], rng: np.random.Generator, nuisances: bool = True, speech: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Turn intensities into shape weights, and read back what the shapes make of them.

    Args:
        intensities: (18,), 0–5.
        rng: Source of asymmetry, of the shapes' own variation, and of nuisances such as gaze.
        nuisances: Whether to add movements that belong to no action unit here.
        speech: Whether the lips take a shape of speech.

    Returns:
        Shape weights (55,), final intensities (18,), and side gains (18, 2). AU25's intensity is that of the final gap
        between the lips, because a dropped jaw or a raised upper lip parts them too.
    """
    final, weights = np.array(intensities, np.float64), _Weights()
    gains = np.ones((len(ACTION_UNITS), 2))
    base = weight_of_intensity(final)
    for place, number in enumerate(ACTION_UNITS):
        if number not in (23, 25, 26):
            gains[place] = _side_gains(rng, may_be_one_sided=number in (2, 6, 7, 9, 10, 12, 14, 15))
        strength = base[place] * gains[place]
        if number == 43:
            strength = (
                0.5 * min(final[place], 1) * gains[place]
            )  # a trace is a half-lowered lid; _settle_lids shuts eyes
        if final[place] > 0:
            for name, factor in AU_SHAPES[number]:
                weights.add(name, *(factor * strength * rng.uniform(0.85, 1.15)))
    if final[ACTION_UNITS.index(17)] > 0:
        share = base[ACTION_UNITS.index(17)] * rng.uniform(0.1, 0.5)
        weights.add("mouthShrugUpper", share, share)
    if nuisances:
        _add_nuisances(weights, rng)
    if speech:
        name, top = (("mouthFunnel", 0.9), ("mouthPucker", 0.9), ("mouthRollLower", 0.4), ("mouthShrugUpper", 0.4),
                     ("mouthStretch", 0.2))[rng.integers(5)]  # fmt: skip
        weights.add(name, *[rng.uniform(0.1, top)] * 2)
    _settle_lips(weights, final, rng)
    _settle_lids(weights, final)
    return weights.values.clip(0, 2.0).astype(np.float32), final.astype(np.float32), gains.astype(np.float32)


def _side_gains(rng: np.random.Generator, may_be_one_sided: bool) -> NDArray[np.float64]:
    kind = rng.random()
    if may_be_one_sided and kind < 0.08:
        return rng.permutation([1.0, rng.uniform(0, 0.25)])
    spread = 0.05 if kind < 0.7 else 0.18
    return np.clip(1 + rng.normal(0, spread, 2), 0.55, 1.3)


def _add_nuisances(weights: _Weights, rng: np.random.Generator) -> None:
    """Add gaze, half-lowered lids and the movements of jaw, lips and cheeks that belong to no action unit here."""
    if rng.random() < 0.65:
        side, height = rng.normal(0, 0.3), rng.normal(-0.05, 0.3)
        look_left, look_right = max(side, 0), max(-side, 0)  # the subject's left and right
        weights.add("eyeLookOut", look_left, look_right)
        weights.add("eyeLookIn", look_right, look_left)
        weights.add("eyeLookUp" if height > 0 else "eyeLookDown", *np.clip([abs(height)] * 2, 0, 0.9))
    if rng.random() < 0.2:  # lids in mid-blink, or a lazy lid
        half = rng.uniform(0.05, 0.4)
        weights.add("eyeBlink", *(half * rng.uniform(0.8, 1.0, 2)))
    for name, chance, top in (
        ("jawForward", 0.08, 0.5), ("jawLeft", 0.05, 0.5), ("jawRight", 0.05, 0.5), ("mouthLeft", 0.05, 0.35),
        ("mouthRight", 0.05, 0.35), ("mouthFunnel", 0.05, 0.6), ("mouthPucker", 0.07, 0.8), ("cheekPuff", 0.04, 0.6),
    ):  # fmt: skip
        if rng.random() < chance:
            weights.add(name, *[rng.uniform(0.05, top)] * 2)


def _settle_lips(weights: _Weights, final: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Make AU25 and the lip gap agree: open lips that should part, close or relabel lips that parted unasked."""
    place, jaw = ACTION_UNITS.index(25), ACTION_UNITS.index(26)
    wanted, gap = final[place], weights.gap(LIP_GAP_CM)
    pressed = max(final[ACTION_UNITS.index(number)] for number in (23, 24)) >= 1
    if wanted >= 1:
        if rng.random() < 0.7 and final[jaw] < 1:  # the jaw helps a little, below a visible AU26
            weights.add("jawOpen", *[rng.uniform(0.02, 0.16)] * 2)
        missing = 0.3 - weights.gap(LIP_GAP_CM)
        if missing > 0:
            weights.add("jawOpen", missing / 2.89, missing / 2.89)
    elif final[jaw] < 1 and gap > 0.05 and (pressed or rng.random() < 0.6 or gap < 0.25 or wanted > 0):
        weights.add("mouthClose", gap / 3.72, gap / 3.72)
    gap = weights.gap(LIP_GAP_CM)
    final[place] = 5 * np.clip(gap / LIPS_APART_CM, 0, 1) ** 0.75
    if TRACE_MAX < final[place] < PRESENT_MIN:  # leave the no man's land
        close = (gap - LIPS_APART_CM * (TRACE_MAX / 5) ** (1 / 0.75)) / 3.72 + 0.002
        weights.add("mouthClose", close, close)
        final[place] = 5 * np.clip(weights.gap(LIP_GAP_CM) / LIPS_APART_CM, 0, 1) ** 0.75


def _settle_lids(weights: _Weights, final: NDArray[np.float64]) -> None:
    """Shut both eyes for AU43, keep them open without it, and never let lids pass through each other."""
    shut = final[ACTION_UNITS.index(43)]
    for side in range(2):
        blink = EXPRESSION_SHAPES.index("eyeBlink_L") + side
        others = -weights.gap(LID_GAP_CM, side) + LID_GAP_CM["eyeBlink"] * weights.values[blink]
        if shut >= 1:
            limit = LID_OPENING_CM * (0.85 + 0.03 * shut)
            weights.values[blink] = max((limit - others) / -LID_GAP_CM["eyeBlink"], 0.0)
        else:
            limit = LID_OPENING_CM * 0.8
            weights.values[blink] = np.clip(
                weights.values[blink], 0, max((limit - others) / -LID_GAP_CM["eyeBlink"], 0)
            )
        weights.values[EXPRESSION_SHAPES.index("eyeWide_L") + side] += max(others - limit, 0) / LID_GAP_CM["eyeWide"]


def wrinkle_depths(
    identity: Identity, intensities: NDArray[np.floating], gains: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Depth of the 12 wrinkle layers for left and right: at rest by age, deepened by the action units."""
    depth = identity.permanent_wrinkles.astype(np.float64)
    base = weight_of_intensity(np.asarray(intensities, np.float64))
    for layer, number, strength in WRINKLE_SOURCES:
        place = ACTION_UNITS.index(number)
        depth[WRINKLES.index(layer)] += identity.wrinkle_gain * strength * base[place] * gains[place]
    return depth.clip(0, 1.6).astype(np.float32)


MAX_YAW, MAX_PITCH = np.deg2rad(45), np.deg2rad(30)


def sample_pose(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw yaw, pitch and roll in radians: mostly near frontal, with tails to ±45° and ±30°.

    Our choice: two in three faces look at the camera (standard deviations 9° and 7°), one looks about (25° and 14°).
    """
    about = rng.random() < 0.33
    yaw, pitch = np.inf, np.inf
    while abs(yaw) > MAX_YAW:  # drawn again instead of cut off: nothing piles up at the limits
        yaw = rng.normal(0, np.deg2rad(25 if about else 9))
    while abs(pitch) > MAX_PITCH:
        pitch = rng.normal(np.deg2rad(1.5), np.deg2rad(14 if about else 7))
    return float(yaw), float(pitch), float(rng.normal(0, 0.08))


@lru_cache(maxsize=4)
def _shifted_identity(seed: int, identity_id: int) -> Identity:
    """Draw a person of the style "shifted": nobody of "standard", and in colours that "standard" does not have."""
    rng = np.random.default_rng([seed, _STREAM_SHIFTED, identity_id])
    person = sample_identity(int(rng.integers(2**31)), identity_id)
    undertone = np.exp(rng.choice([-1, 1]) * rng.uniform(0.06, 0.14) * np.array([0.3, -0.7, 0.6]))  # olive or rosy
    dyed = _hair_dye(rng) if rng.random() < 0.25 else person.hair.color * rng.uniform(0.6, 1.5, 3)
    return replace(
        person,
        identity_id=identity_id,
        skin=replace(person.skin, tone=(person.skin.tone * undertone).astype(np.float32)),
        hair=replace(person.hair, color=dyed.astype(np.float32), strand=float(rng.uniform(0.2, 1.0))),
        wrinkle_pattern=WRINKLE_PATTERNS + int(rng.integers(SHIFTED_WRINKLE_PATTERNS)),
    )


def _hair_dye(rng: np.random.Generator) -> NDArray[np.float64]:
    """Colours that grow on nobody."""
    return np.array([[0.05, 0.08, 0.30], [0.35, 0.03, 0.12], [0.04, 0.20, 0.14], [0.30, 0.10, 0.35]])[rng.integers(4)]


def sample_scene(
    seed: int,
    index: int,
    identity_id: int,
    intensities: Sequence[float] | NDArray[np.floating] | None = None,
    style: str = "standard",
) -> Scene:
    """Draw everything for one image.

    Args:
        seed: Seed of the data set.
        index: Number of the image.
        identity_id: Who is on it.
        intensities: (18,) 0–5 to show instead of drawn ones.
        style: One of STYLES.

    Raises:
        ValueError: If `intensities` or `style` is none of these.

    Example:
        >>> scene = sample_scene(0, 0, 0)
        >>> scene.labels.shape, scene.shape_weights.shape
        ((18,), (55,))
    """
    if style not in STYLES:
        raise ValueError(f"`style` must be one of {', '.join(STYLES)}, got {style!r}.")
    shifted = style == "shifted"
    rng = np.random.default_rng([seed, _STREAM_SHIFTED if shifted else _STREAM_IMAGE, index])
    identity = (_shifted_identity if shifted else sample_identity)(seed, identity_id)
    source = "given" if intensities is not None else str(rng.choice(list(SOURCES), p=list(SOURCES.values())))
    wanted = _draw_intensities(rng, source) if intensities is None else np.asarray(intensities, np.float64)
    if wanted.shape != (len(ACTION_UNITS),):
        raise ValueError(
            f"`intensities` must have shape ({len(ACTION_UNITS)},), got {wanted.shape}. One per ACTION_UNITS."
        )
    shape_weights, final, gains = expression(wanted, rng, speech=source == "speech")
    yaw, pitch, roll = sample_pose(rng)
    camera = sample_camera(rng, float(identity.skin.tone.mean()), style)
    return Scene(
        seed=seed,
        index=index,
        identity=identity,
        intensities=final,
        labels=labels_of(final),
        shape_weights=shape_weights,
        wrinkles=wrinkle_depths(identity, final, gains),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        wears_glasses=identity.glasses is not None and bool(rng.random() < 0.65),
        pupil=float(rng.uniform(6.5, 13)),
        cloth=(rng.uniform(0.01, 0.7) * rng.uniform(0.4, 1.0, 3)).astype(np.float32),
        collar=float(rng.uniform(-14.5, -11.5)),
        light=sample_light(rng, style),
        camera=camera,
        point_jitter=sample_point_errors(rng, yaw, pitch, camera.face_pixels or float(np.exp(rng.uniform(4.1, 5.4)))),
        crop_jitter=(rng.normal(0, 1, 4) * [0.015, 0.015, 0.005, 0.005]).astype(np.float32),
        backdrop_seed=int(rng.integers(2**31)),
        occluder=str(rng.choice(SHIFTED_OCCLUDERS if shifted else OCCLUDERS)) if rng.random() < 0.12 else "",
        source=source,
        style=style,
    )
