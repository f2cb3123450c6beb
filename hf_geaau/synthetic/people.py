"""Draw people: the shape of the head, skin, brows, beard, hair, eyes, wrinkles and spectacles. Needs numpy only.

A person is drawn from `(seed, identity_id)` alone. Disjoint ranges of ids give disjoint people. Colors are linear RGB
in 0-1. Pairs of values are (the person's left, the person's right).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.shapes import IDENTITY_SIZE, TRAITS, Gaps, ShapeWeights

WRINKLES = (
    "forehead_centre", "forehead_side", "glabella", "crows_feet",
    "lower_lid", "nose_root", "nasolabial", "dimple",
    "chin", "mouth_corner", "lip_lines", "cheek_stretch",
)  # fmt: skip
"""Layers of the wrinkle maps, see `wrinkles.wrinkle_maps`."""

HAIR_STYLES = ("bald", "buzz", "short", "fringe", "long", "bob", "curly", "updo", "cap")

WRINKLE_PATTERNS, SHIFTED_WRINKLE_PATTERNS = 6, 4
"""Number of wrinkle patterns. Those of the style "shifted" are numbered after the others."""

IDENTITIES_PER_PART = 1_000_000

BORROWED_SKINS = 0.6
"""Share of the people of a face model without photographs who wear a photographed skin, if there is one. Our choice."""

STREAM_IDENTITY, STREAM_IMAGE, STREAM_SHIFTED, STREAM_SKIN = 1, 2, 3, 4
"""Part of every random seed, so that person 7 and image 7 of one seed are independent."""


@dataclass(frozen=True)
class Skin:
    """Color and relief of the skin. Strengths are 0-1."""

    tone: NDArray[np.float32]  # (3,) mean color
    lips: NDArray[np.float32]  # (3,) factor from `tone` to the color of the lips
    redness: float  # of cheeks, nose and ears
    freckles: float  # density
    blotches: float  # large-scale unevenness
    pores: float  # small-scale unevenness
    eye_shadow: float  # dark rings around the eyes
    oil: float  # strength of highlights
    lipstick: float  # opacity, 0 for none


@dataclass(frozen=True)
class Brows:
    """Eyebrows: a tapering body with hair strokes. Lengths are fractions of the texture side, here about 26 cm."""

    thickness: float  # full height of the body where it is thickest
    density: float  # of the strokes, 0 (sparse) to 1 (bushy)
    # Shift from the landmarks. The brow ridge of the mesh, which the brow muscles move, lies at -0.02. Brows on
    # photos lie 1.3-1.8 cm above the pupil, at -0.035.
    height: float
    arch: float  # height of the bend
    peak: float  # position of the bend, 0 (inner end) to 1 (outer end)
    tilt: float  # rise toward the temple
    length: float  # factor on the landmarks' length
    inset: float  # shift of the inner ends toward the nose
    opacity: float  # 0-1
    pencil: float  # 0 (hairs only) to 1 (a smooth penciled shape)


@dataclass(frozen=True)
class Beard:
    """Facial hair."""

    # mustache, chin, cheeks: density of each part, 0 (shaven) to 1
    mustache: float
    chin: float
    cheeks: float
    stubble: bool  # whether the hairs are short
    length_cm: float  # by how much the hair lifts the surface


@dataclass(frozen=True)
class Hair:
    """Head hair, drawn as one surface around the head.

    Lengths are in cm. Heights are those of the mesh, where the eyes are at 3.4 and the brows at 6.
    """

    style: str  # one of HAIR_STYLES
    color: NDArray[np.float32]  # (3,)
    thickness: float  # distance from the skull
    hairline: float  # height of the hairline above the forehead
    recession: float  # how much higher the hairline lies above the temples
    fringe: float  # height of the front end. Below the hairline it is a fringe.
    fringe_side: float  # slant of the fringe, -1 to 1
    length: float  # height of the lower end at the sides
    face_angle: float  # half angle around the head that stays free for the face, radians
    wave: float  # amplitude of waves or curls
    sweep: float  # how far strands lean to one side on their way down, -1 to 1
    strand: float  # contrast of strands, 0-1
    gray: float  # share of gray strands, 0-1
    shade: int  # random seed of the strands


@dataclass(frozen=True)
class Eyes:
    """Eyes, lashes and make-up."""

    iris: NDArray[np.float32]  # (3,) color
    iris_radius: float  # degrees, seen from the center of the eyeball
    sclera: NDArray[np.float32]  # (3,) color
    # lash_density, lash_length: 0-1
    lash_density: float
    lash_length: float
    liner: float  # strength of the eyeliner, 0-1
    wing: float  # length of the eyeliner past the outer corner, 0 for none
    shadow: NDArray[np.float32]  # (3,) color of the eye shadow
    shadow_opacity: float  # 0 for none
    shadow_reach: float  # height of the eye shadow above the lid, as a fraction of the texture side
    fold: float  # height of the upper lid's fold above the lid's edge, in the same unit
    fold_depth: float  # 0 (monolid) to 1


@dataclass(frozen=True)
class Glasses:
    """Spectacles. Sizes are in cm."""

    # half_width, half_height: of a lens
    half_width: float
    half_height: float
    roundness: float  # exponent of the lens's outline: 2 for an ellipse, larger for a rectangle
    rim: float  # radius of the frame's wire
    color: NDArray[np.float32]  # (3,) of the frame
    tint: float  # 0 (clear) to 1 (dark) lenses
    lift: float  # by how much they sit above the usual height


@dataclass(frozen=True)
class Identity:
    """One person: shape and looks, the same in all their images."""

    identity_id: int  # number of the person. `(seed, identity_id)` decides everything below.
    # (100,) weights of the identity components, in standard deviations; or (P,) shares of scanned people, see `People`
    shape: NDArray[np.float32]
    # (P,) shares of the scanned people whose photographed skin it is; None for a painted skin
    photographed: NDArray[np.float32] | None
    age: float  # 0 (twenty) to 1 (eighty)
    feminine: float  # 0-1. Shifts the odds of beard, hair length, brows and make-up.
    skin: Skin
    brows: Brows
    beard: Beard
    hair: Hair
    eyes: Eyes
    teeth: NDArray[np.float32]  # (3,) color
    teeth_offset: tuple[float, float]  # by how far the teeth lie behind the lips, and the upper ones down, in cm
    wrinkle_pattern: int  # number of the set of wrinkle maps
    # (12, 2) depth of each of WRINKLES at rest, so that a line alone does not tell an action unit
    permanent_wrinkles: NDArray[np.float32]
    wrinkle_gain: float  # how deep this skin folds
    glasses: Glasses | None  # worn in about two thirds of the person's images. None if the person has none.
    texture_seed: int  # seed of the painted skin
    traits: NDArray[np.float32]  # (8,) strength of each of TRAITS
    # (55,) weights of expression shapes at rest, for low or arched brows, full lower lids, and hanging corners of the
    # mouth. They belong to the person, because FACS codes changes from the resting face.
    resting: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class People:
    """The people whose heads a face model blends.

    Attributes:
        names: (P,) names in which "_F_" and "_M_" tell the sex, as in VALID.
        tones: (P, 3) mean linear color of their skin.
        gaps: How the expression shapes part their lips and lids, on average.
        parts: Names of those whom identities below IDENTITIES_PER_PART blend, of those whom the next as many blend, and
            so on; the last are also for all identities above.
    """

    names: tuple[str, ...]
    tones: NDArray[np.float32]
    gaps: Gaps
    parts: tuple[frozenset[str], ...]

    def blend(self, rng: np.random.Generator, identity_id: int) -> NDArray[np.float32]:
        """Draw shares (P,) that sum to 1 of one to three people, mostly of one sex. Our choice.

        Each million of identities blends the people of its part.
        """
        part = min(identity_id // IDENTITIES_PER_PART, len(self.parts) - 1)
        pool = np.array([index for index, name in enumerate(self.names) if name in self.parts[part]])
        if not len(pool):
            raise ValueError(f"The face model must have all its people for identity {identity_id}, got others only.")
        sexes = np.array(["_F_" in self.names[index] for index in pool])
        if rng.random() < 0.9:
            pool = pool[sexes == (rng.random() < sexes.mean())]
        count = min(int(rng.choice([1, 2, 3], p=[0.4, 0.35, 0.25])), len(pool))
        shares = np.zeros(len(self.names), np.float32)
        shares[rng.choice(pool, count, replace=False)] = rng.dirichlet([1.2, 0.8, 0.8][:count])
        return shares


# From very light to very dark, along the Fitzpatrick scale. Our choice, by eye.
_TONES = np.array(
    [[0.80, 0.60, 0.52], [0.70, 0.47, 0.37], [0.58, 0.37, 0.26], [0.42, 0.25, 0.16], [0.26, 0.145, 0.09],
     [0.135, 0.073, 0.047], [0.065, 0.036, 0.026]]
)  # fmt: skip

_HAIR_COLORS = np.array(
    [[0.012, 0.010, 0.009], [0.022, 0.015, 0.011], [0.055, 0.03, 0.018], [0.12, 0.065, 0.035], [0.24, 0.14, 0.07],
     [0.42, 0.29, 0.16], [0.22, 0.065, 0.025], [0.26, 0.25, 0.24], [0.45, 0.44, 0.43]]
)  # fmt: skip

# Blue, red, green and violet, which hair is not by nature.
_HAIR_DYES = np.array([[0.05, 0.08, 0.30], [0.35, 0.03, 0.12], [0.04, 0.20, 0.14], [0.30, 0.10, 0.35]])

_IRIS_COLORS = np.array(
    [[0.035, 0.016, 0.007], [0.09, 0.04, 0.015], [0.15, 0.10, 0.035], [0.10, 0.14, 0.06], [0.12, 0.22, 0.33],
     [0.22, 0.27, 0.30]]
)  # fmt: skip


@lru_cache(maxsize=4)  # Images come in blocks of one person.
def sample_identity(
    seed: int, identity_id: int, people: People | None = None, donors: People | None = None
) -> Identity:
    """Draw one person, for a face model of scanned people a blend of these.

    Args:
        seed, identity_id: Decide the person.
        people: Those whom the face model blends.
        donors: For another face model: those whose photographed skin some people wear.

    Example:
        >>> sample_identity(0, 3).shape.shape
        (100,)
    """
    rng = np.random.default_rng([seed, STREAM_IDENTITY, identity_id])
    age, feminine = float(rng.beta(1.2, 1.6)), float(rng.random())
    tone_level = rng.uniform(0, len(_TONES) - 1)
    tone = np.array([np.interp(tone_level, range(len(_TONES)), _TONES[:, c]) for c in range(3)])
    tone *= rng.uniform(0.9, 1.1) * rng.uniform(0.95, 1.05, 3)
    photographed, scanned = None, people or donors
    if people is not None:
        photographed = people.blend(rng, identity_id)
    elif donors is not None:
        skin_rng = np.random.default_rng([seed, STREAM_SKIN, identity_id])
        photographed = donors.blend(skin_rng, identity_id) if skin_rng.random() < BORROWED_SKINS else None
    if photographed is not None and scanned is not None:
        tone = photographed @ scanned.tones
        tone_level = float(np.interp(-tone.mean(), -_TONES.mean(1), range(len(_TONES))))
        women = sum(share for share, name in zip(photographed, scanned.names, strict=True) if "_F_" in name)
        feminine, age = 0.5 * feminine + 0.5 * (women > 0.5), 0.6 * age  # these people are adults below fifty
    skin = _sample_skin(rng, tone, tone_level, age, feminine)
    hair = _sample_hair(rng, tone_level, age, feminine)
    return Identity(
        identity_id=identity_id,
        shape=_sample_shape(rng) if people is None or photographed is None else photographed,
        photographed=photographed,
        age=age,
        feminine=feminine,
        skin=skin,
        brows=_sample_brows(rng, feminine, age),
        beard=_sample_beard(rng, feminine),
        hair=hair,
        eyes=_sample_eyes(rng, tone_level, feminine),
        teeth=(np.array([0.72, 0.67, 0.57]) * rng.uniform(0.8, 1.15) * [1, 1, rng.uniform(0.85, 1.1)]).astype(
            np.float32
        ),
        teeth_offset=(float(rng.uniform(0, 0.35)), float(rng.uniform(-0.25, 0.4))),
        wrinkle_pattern=int(rng.integers(WRINKLE_PATTERNS)),
        permanent_wrinkles=_sample_permanent_wrinkles(rng, age),
        wrinkle_gain=_sample_wrinkle_gain(rng, age),
        glasses=_sample_glasses(rng) if rng.random() < 0.25 else None,
        texture_seed=int(rng.integers(2**31)),
        traits=_sample_traits(rng, age, feminine),
        resting=_sample_resting(rng, age),
    )


def _sample_shape(rng: np.random.Generator) -> NDArray[np.float32]:
    return (rng.normal(size=IDENTITY_SIZE) * rng.uniform(0.55, 1.0)).astype(np.float32)


@lru_cache(maxsize=4)
def sample_shifted_identity(
    seed: int, identity_id: int, people: People | None = None, donors: People | None = None
) -> Identity:
    """Draw a person of the style "shifted": nobody of "standard", and in colors that "standard" does not have."""
    rng = np.random.default_rng([seed, STREAM_SHIFTED, identity_id])
    person = sample_identity(int(rng.integers(2**31)), identity_id, people, donors)
    undertone = np.exp(rng.choice([-1, 1]) * rng.uniform(0.06, 0.14) * np.array([0.3, -0.7, 0.6]))  # Olive or rosy.
    dyed = _HAIR_DYES[rng.integers(4)] if rng.random() < 0.25 else person.hair.color * rng.uniform(0.6, 1.5, 3)
    return replace(
        person,
        identity_id=identity_id,
        skin=replace(person.skin, tone=(person.skin.tone * undertone).astype(np.float32)),
        hair=replace(person.hair, color=dyed.astype(np.float32), strand=float(rng.uniform(0.2, 1.0))),
        wrinkle_pattern=WRINKLE_PATTERNS + int(rng.integers(SHIFTED_WRINKLE_PATTERNS)),
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


def _sample_resting(rng: np.random.Generator, age: float) -> NDArray[np.float32]:
    """Draw a slight permanent expression (55,), weaker than a visible action unit (a third of full strength).

    One of four people looks hard, tired or sullen at rest: narrowed eyes, low brows, thin lips, a drawn-down mouth. The
    corners of the mouth sink with age.
    """
    weights = ShapeWeights()
    if rng.random() < 0.25:
        for name, largest in (("eyeSquint", 0.4), ("browDown", 0.35), ("mouthFrown", 0.25), ("mouthPress", 0.2)):
            weights.add_both(name, rng.uniform(0, largest) * (rng.random() < 0.6))
        for name in ("mouthRollLower", "mouthRollUpper"):
            weights.add_both(name, rng.uniform(0, 0.2) * (rng.random() < 0.5))
    weights.add_both("mouthFrown", rng.uniform(0, 0.2) * age)
    weights.add_both("noseSneer", rng.uniform(0, 0.15) * age)
    for name, spread, low, high in (
        ("browInnerUp", 0.14, -0.30, 0.25), ("browOuterUp", 0.14, -0.30, 0.22), ("browDown", 0.16, -0.30, 0.35),
        ("cheekSquint", 0.10, -0.10, 0.18), ("eyeSquint", 0.12, -0.15, 0.22), ("mouthSmile", 0.06, -0.10, 0.12),
        ("mouthFrown", 0.08, -0.10, 0.18), ("mouthDimple", 0.06, -0.05, 0.12), ("mouthShrugLower", 0.04, 0.0, 0.10),
        ("noseSneer", 0.05, -0.08, 0.12), ("eyeWide", 0.08, -0.15, 0.12),
    ):  # fmt: skip
        value = np.clip(rng.normal(0, spread), low, high)
        weights.add(name, *np.clip(value * rng.normal(1, 0.15, 2), low, high))
    weights.add_both("eyeBlink", max(rng.normal(0.10, 0.06), 0))  # Upper lids cover the rim of the iris.
    return weights.values.clip(-_MOST_RESTING, _MOST_RESTING).astype(np.float32)


_MOST_RESTING = 0.42


def _sample_skin(
    rng: np.random.Generator, tone: NDArray[np.float64], tone_level: float, age: float, feminine: float
) -> Skin:
    dark = tone_level / (len(_TONES) - 1)
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


def _sample_hair(rng: np.random.Generator, tone_level: float, age: float, feminine: float) -> Hair:
    weights = np.array([0.4, 0.8, 2.4, 0.8, 0.5, 0.2, 0.7, 0.5, 0.3])
    if feminine > 0.5:
        weights = np.array([0.03, 0.07, 0.5, 1.2, 4.5, 1.5, 0.9, 1.2, 0.2])
    elif age > 0.5:
        weights[:2] *= 2.5
    style = str(rng.choice(HAIR_STYLES, p=weights / weights.sum()))
    color_index = (
        int(rng.choice(7, p=[0.28, 0.22, 0.18, 0.14, 0.08, 0.06, 0.04])) if tone_level < 2.5 else int(rng.integers(3))
    )
    color, gray = (
        _HAIR_COLORS[color_index] * rng.uniform(0.7, 1.3),
        float(np.clip(rng.normal(1.5 * age - 0.75, 0.25), 0, 1)),
    )
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
    """Draw brows from plucked to bushy. Many are arched, low, raised or slanted, because these mimic action units."""
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
    if kind < 0.4:  # Shaven some days ago.
        depth *= 0.6
        return Beard(depth * rng.uniform(0.6, 1), depth, depth * rng.uniform(0.3, 1), True, 0.0)
    if kind < 0.75:
        sides = depth * rng.uniform(0.6, 1), depth, depth * rng.uniform(0.6, 1)
        return Beard(*sides, False, float(rng.uniform(0.05, 1.5)))
    return Beard(depth, depth if rng.random() < 0.6 else 0.0, 0.0, False, float(rng.uniform(0.05, 0.5)))


def _sample_eyes(rng: np.random.Generator, tone_level: float, feminine: float) -> Eyes:
    iris_index = int(rng.choice(len(_IRIS_COLORS), p=[0.35, 0.2, 0.15, 0.1, 0.12, 0.08])) if tone_level < 2.5 else 0
    made_up = feminine > 0.5 and rng.random() < 0.55
    white = np.array([0.50, 0.47, 0.45]) * (1 - 0.08 * tone_level) * rng.uniform(0.75, 1.15)
    shadows = [[0.02, 0.015, 0.015], [0.10, 0.045, 0.03], [0.25, 0.12, 0.09], [0.10, 0.03, 0.08], [0.03, 0.06, 0.15]]
    shadow = np.array(shadows[int(rng.choice(5, p=[0.25, 0.35, 0.2, 0.1, 0.1]))]) * rng.uniform(0.6, 1.6)
    return Eyes(
        iris=(_IRIS_COLORS[iris_index] * rng.uniform(0.4, 1.1) * rng.uniform(0.9, 1.1, 3)).astype(np.float32),
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
        lift=float(rng.normal(0.0, 0.25)),
    )


def _sample_wrinkle_gain(rng: np.random.Generator, age: float) -> float:
    """Draw how deep skin folds: hardly at all on one of five young faces, as on smooth or retouched skin."""
    if rng.random() < 0.2 * (1 - age):
        return float(rng.uniform(0, 0.1))
    return float(rng.uniform(0.0, 0.8) + 0.7 * age * rng.uniform(0.6, 1.0))


def _sample_permanent_wrinkles(rng: np.random.Generator, age: float) -> NDArray[np.float32]:
    depth = rng.beta(1.0, 3.0, len(WRINKLES)) * (0.25 + 0.75 * rng.random()) * (0.25 + 1.2 * age)
    for layer in np.flatnonzero(rng.random(len(WRINKLES)) < 0.06 + 0.16 * age):  # As deep as an expression's.
        depth[layer] += rng.uniform(0.3, 0.9) * (0.5 + 0.6 * age)
    quiet = [WRINKLES.index(name) for name in ("nose_root", "dimple", "chin", "lip_lines", "cheek_stretch")]
    depth[quiet] *= 0.3
    both = depth[:, None] * rng.uniform(0.8, 1.2, (len(WRINKLES), 2))
    both[WRINKLES.index("nasolabial")] += 0.15 + rng.uniform(0.1, 0.9) * age
    return both.astype(np.float32)
