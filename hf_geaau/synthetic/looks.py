"""Build what is drawn of a person in each of their images: head, hair, spectacles and skin.

Lengths and axes as in `geometry`.
"""

import numpy as np

from hf_geaau.synthetic.geometry import FloatArray, Surface, grid_surface, merge_surfaces, smoothstep, tube, unit
from hf_geaau.synthetic.head import HeadMesh
from hf_geaau.synthetic.painting import smooth_noise
from hf_geaau.synthetic.people import Glasses, Hair, Identity
from hf_geaau.synthetic.skin import TEXTURE_SIZE, beard_mask, photographic_skin, skin_texture

_SKULL_CENTER = np.array([0.0, 4.5, 0.0])

_AROUND, _DOWN = 129, 34  # Grid of the hair surface.
_LONG_BELOW_CM = 3  # Hair that ends lower hangs down beside the face.


class PersonLook:
    """The head without expression, hair, glasses and skin texture of one person, the same in all their images.

    Attributes:
        rest: (V, 3) vertices without expression.
        landmarks: (68, 3) before hair on the face lifts the surface.
        center: (3,) mean of the landmarks.
        scale: Turns cm into halves of the face.
        cover, shade: (V,) how much hair covers and shades the skin, 0-1.
    """

    def __init__(self, mesh: HeadMesh, identity: Identity, photo: FloatArray | None, chart: FloatArray | None) -> None:
        self.identity = identity
        moved = identity.shape @ mesh.identity_deltas + identity.traits @ mesh.trait_deltas
        self.expression_deltas = mesh.expressions_of(identity)
        moved += identity.resting @ self.expression_deltas
        self.rest = mesh.neutral + moved.reshape(-1, 3)
        self.rest += mesh.lash_roots * np.float32(1 - identity.eyes.lash_length)
        back, down = identity.teeth_offset
        self.rest[mesh.upper_teeth] -= np.array([0, down, back], np.float32)
        self.rest[mesh.lower_teeth] -= np.array([0, 2 * back, back], np.float32)
        self.landmarks = self.rest[mesh.landmarks]
        skin = self.rest[mesh.is_skin]
        self.hair = hair_surface(identity.hair, skin)
        cover, shade = scalp_cover(identity.hair, self.rest)
        self.cover, self.shade = cover * mesh.is_skin, shade * mesh.is_skin
        self.glasses = glasses_surfaces(identity.glasses, self.landmarks) if identity.glasses else None
        if photo is None or chart is None:
            self.texture = skin_texture(identity, mesh.landmark_uv)
        else:
            self.texture = photographic_skin(identity, mesh.landmark_uv, photo, chart)
        if identity.beard.length_cm:
            mask = beard_mask(identity, mesh.landmark_uv)
            texel = (mesh.uv_of_vertex.clip(0, 0.999) * TEXTURE_SIZE).astype(int)
            depth = mask[texel[:, 1], texel[:, 0]] * (mesh.is_face) * identity.beard.length_cm
            down = 0.5 + 0.5 * ((self.landmarks[57, 1] - self.rest[:, 1]) / 3).clip(-0.7, 1)
            self.rest += (depth * down)[:, None].astype(np.float32) * mesh.normals(self.rest)
        self.center = self.landmarks.mean(0)
        self.scale = 1 / np.abs(self.landmarks[:, :2] - self.center[:2]).max()


def hair_end(hair: Hair, around: FloatArray, line_only: bool = False) -> FloatArray:
    """Return the height in cm where hair ends, at angles around the head (radians, 0 in front, ±π at the back).

    With `line_only`, return the height of the hairline on the scalp, without fringe and long hair.
    """
    side = np.abs(around)
    top = np.full_like(side, hair.hairline if line_only else hair.fringe)
    if not line_only and hair.fringe < hair.hairline - 0.3:
        top = top + hair.fringe_side * np.sin(around * 1.2)
    temple = hair.recession * (np.exp(-(((side - 0.6) / 0.25) ** 2)) - 0.15 * (side < 0.3))
    front = np.where(top < hair.hairline - 0.3, top, top + temple - 0.25 * side)
    if hair.style == "cap":
        return np.interp(side, [0, 0.7, 1.3, 2.0, np.pi], hair.hairline + np.array([0, -0.3, -2.0, -4.5, -7]))
    below = np.interp(side, [0.9, 1.2, 1.35, 1.6, 1.9, 2.3, np.pi], [5.5, 3.6, 3.4, 5.6, 3.5, -1.5, -4.5])
    if not line_only:
        below = np.minimum(below, hair.length) if hair.length < _LONG_BELOW_CM else below + 0 * side
    edge = 1.0 if line_only or hair.length >= _LONG_BELOW_CM else hair.face_angle
    bend = 0.14 if line_only or hair.length >= _LONG_BELOW_CM else 0.3  # Long hair falls from its parting in a curve.
    return front + (below - front) * smoothstep(edge - bend, edge + bend, side)


def hair_surface(hair: Hair, vertices: FloatArray) -> Surface | None:
    """Lay hair around a head: from the crown over the skull, then hanging down.

    Args:
        hair: What it looks like.
        vertices: (K, 3) skin of this head without expression.

    Returns:
        The surface, or None for bald and shaven heads. The extra values are the turn around the head, 0-1, the distance
        from the crown (0) to the end (1), and the length in cm.
    """
    if hair.style in ("bald", "buzz"):
        return None
    rng, skull = np.random.default_rng([hair.shade, 5]), _skull_radius(vertices)
    around = np.linspace(-np.pi, np.pi, _AROUND)[:, None]
    t = np.linspace(0, 1, _DOWN)[None, :]
    end = hair_end(hair, around) + _uneven_ends(hair, rng)[:, None]
    hangs = (hair.length < _LONG_BELOW_CM) & (np.abs(around) > hair.face_angle - 0.2) & (end < 4.2)
    share = np.where(hangs, 0.5, 1.0)  # Share of the grid that lies on the skull.
    polar = (t / share).clip(0, 1) * np.where(hangs, 1.45, _polar_of_height(skull, around, end))
    lumps = smooth_noise(rng, 64, 7 if hair.style == "curly" else 12)
    rows = np.abs(((np.arange(_AROUND) / (_AROUND - 1)) * 100).astype(int) - 50)  # Mirrored, to have no seam.
    lumps = lumps[rows[:, None].clip(0, 63), (t * 63).astype(int)]
    taper = 1 - 0.75 * smoothstep(0.72, 1.0, t) * (~hangs & (hair.fringe > hair.hairline - 0.3))
    thickness = 0.12 + hair.thickness * taper * (0.75 + 0.25 * np.cos(polar)) + hair.wave * lumps
    radius = _lookup(skull, polar, around + 0 * polar) + thickness.clip(0.05)
    across, y = radius * np.sin(polar), _SKULL_CENTER[1] + radius * np.cos(polar)
    fall = ((t - share) / (1 - share + 1e-9)).clip(0, 1) * hangs
    covering_ears = np.maximum(across, np.where(hangs, 8.5 + 0.8 * hair.thickness, 0))
    across = across + (covering_ears - across) * smoothstep(0, 0.12, fall)
    across = across + hair.wave * np.sin(7 * fall + 5 * lumps) * 0.6 * (fall > 0)
    across = across * (1 + 0.10 * np.sin(np.pi * fall))
    grid = np.stack([across * np.sin(around), y + (end - y) * fall, across * np.cos(around)], -1)
    return grid_surface(grid, around / (2 * np.pi) + 0.5 + 0 * t, t + 0 * around)


def _uneven_ends(hair: Hair, rng: np.random.Generator) -> FloatArray:
    """Draw by how much the ends of locks differ around the head, in cm; mirrored, so that the back has no seam."""
    if hair.style == "cap":
        return np.zeros(_AROUND)
    from_back = np.abs(np.arange(_AROUND) - _AROUND // 2)
    sides = np.sin(np.linspace(-np.pi, np.pi, _AROUND)) * smooth_noise(rng, _AROUND, 9)[:, 0]
    return 0.22 * (smooth_noise(rng, _AROUND // 2 + 1, 5)[from_back, 0] + 0.6 * sides)


def _skull_radius(vertices: FloatArray) -> FloatArray:
    """Return the distance of the surface from _SKULL_CENTER: a grid of 24 polar angles (0-2 rad) by 64 around."""
    ray = vertices - _SKULL_CENTER
    ears = (np.abs(vertices[:, 0]) > 7.4) & (vertices[:, 1] < 5.5) & (vertices[:, 2] < 4)
    ray = ray[(vertices[:, 1] > -3) & ~ears]
    radius = np.linalg.norm(ray, axis=1)
    polar = (np.arccos(ray[:, 1] / radius) / 2.0 * 24).astype(int)
    around = ((np.arctan2(ray[:, 0], ray[:, 2]) / (2 * np.pi) + 0.5) * 64).astype(int) % 64
    total, count = np.zeros((24, 64)), np.full((24, 64), 1e-6)
    keep = polar < 24
    np.add.at(total, (polar[keep], around[keep]), radius[keep])
    np.add.at(count, (polar[keep], around[keep]), 1)
    weight = np.minimum(count, 1)
    filled = total / count * weight
    for _ in range(4):  # Normalized smoothing fills empty cells.
        wide = np.concatenate([filled[:, -1:], filled, filled[:, :1]], 1)
        mass = np.concatenate([weight[:, -1:], weight, weight[:, :1]], 1)
        filled, weight = (0.25 * a[:, :-2] + 0.5 * a[:, 1:-1] + 0.25 * a[:, 2:] for a in (wide, mass))
        filled, weight = (
            0.25 * np.vstack([a[:1], a[:-1]]) + 0.5 * a + 0.25 * np.vstack([a[1:], a[-1:]]) for a in (filled, weight)
        )
    return filled / weight


def _lookup(grid: FloatArray, polar: FloatArray, around: FloatArray) -> FloatArray:
    row = (polar / 2.0 * 24 - 0.5).clip(0, 22.999)
    column = ((around / (2 * np.pi) + 0.5) * 64 - 0.5) % 64
    r, c = row.astype(int), column.astype(int) % 64
    fr, fc, n = row - r, column - np.floor(column), (c + 1) % 64
    return (grid[r, c] * (1 - fc) + grid[r, n] * fc) * (1 - fr) + (grid[r + 1, c] * (1 - fc) + grid[r + 1, n] * fc) * fr


def _polar_of_height(skull: FloatArray, around: FloatArray, height: FloatArray) -> FloatArray:
    """Return the polar angle (A, 1) at which the skull has a given height (A, 1), at angles around the head (A, 1)."""
    polar = np.linspace(0, 1.85, 50)[None, :] + 0 * around
    heights = _SKULL_CENTER[1] + _lookup(skull, polar, around + 0 * polar) * np.cos(polar)
    rows = zip(height[:, 0], heights, polar, strict=True)
    return np.array([np.interp(-wanted, -row, angles) for wanted, row, angles in rows])[:, None]


def scalp_cover(hair: Hair, vertices: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return how much hair covers the skin, and how much it shades it, per vertex (K,), 0-1."""
    if hair.style == "bald":
        none = np.zeros(len(vertices), np.float32)
        return none, none
    around = np.arctan2(vertices[:, 0], vertices[:, 2])
    y = vertices[:, 1]
    cover = smoothstep(-0.1, 0.9, y - hair_end(hair, around, line_only=True))
    if hair.style == "buzz":
        return cover.astype(np.float32), np.zeros(len(vertices), np.float32)
    depth = hair_end(hair, around) - y  # Below the ends of the hair.
    shade = np.where(depth < 0, 1.0, np.exp(-((depth.clip(0) / 0.7) ** 2)))
    if hair.length < _LONG_BELOW_CM:
        curtain = smoothstep(hair.face_angle - 0.22, hair.face_angle, np.abs(around)) * (y > hair.length)
        shade = np.maximum(shade, curtain)
    return cover.astype(np.float32), shade.astype(np.float32)


def glasses_surfaces(glasses: Glasses, landmarks: FloatArray) -> tuple[Surface, Surface]:
    """Build frame and lenses, from landmarks (68, 3) of the face without expression.

    The extra values of lenses are x and y within the lens, -1 to 1, and 0.
    """
    eyes = np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0)])
    front = max(landmarks[28, 2] - 0.1, landmarks[[19, 24], 2].max() + 0.3, eyes[:, 2].max() + 1.2)
    height = eyes[:, 1].mean() - 0.25 + glasses.lift
    center = max(abs(eyes[:, 0]).mean(), glasses.half_width + 0.75)

    def depth(x: FloatArray) -> FloatArray:
        return front - 0.022 * x**2

    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    corner = np.stack([np.cos(angle), np.sin(angle)], 1)
    rim = np.sign(corner) * np.abs(corner) ** (2 / glasses.roundness)  # A superellipse within -1 to 1.
    frame, lenses = [], []
    for side in (-1, 1):
        x = side * center + glasses.half_width * rim[:, 0] * side
        y = height + glasses.half_height * rim[:, 1] * (1 - 0.1 * (rim[:, 1] < 0))
        path = np.stack([x, y, depth(x)], 1)
        frame.append(tube(path, glasses.rim, closed=True))
        lenses.append(_lens(path, rim))
        outer = side * (center + glasses.half_width)
        ear = np.array([side * 7.9, eyes[0, 1] + 0.6, 0.5])
        hinge = np.array([outer, height + 0.45 * glasses.half_height, depth(np.array(outer))])
        bow = np.array([side * 7.7, hinge[1], 0.7 * hinge[2]])
        t = np.linspace(0, 1, 8)[:, None]
        temple = (1 - t) ** 2 * hinge + 2 * t * (1 - t) * bow + t**2 * ear
        frame.append(tube(temple, max(glasses.rim, 0.1), closed=False))
    x = np.linspace(-(center - glasses.half_width), center - glasses.half_width, 9)
    arch = height + 0.3 * glasses.half_height + 0.25 * np.cos(np.linspace(-1.5, 1.5, 9))
    bridge = np.stack([x, arch, depth(x) + 0.1], 1)
    frame.append(tube(bridge, max(0.8 * glasses.rim, 0.07), closed=False))
    return merge_surfaces(frame), merge_surfaces(lenses)


def _lens(path: FloatArray, rim: FloatArray) -> Surface:
    """Fill an outline (36, 3) with a fan of triangles."""
    count = len(path)
    vertices = np.concatenate([path.mean(0, keepdims=True), path])
    inside = np.concatenate([[[0, 0]], rim])
    fan = np.stack([np.zeros(count, int), 1 + np.arange(count), 1 + (np.arange(count) + 1) % count], 1)
    normals = unit(np.array([0, 0, 1.0]) + 0 * vertices)
    return Surface(vertices, normals, np.column_stack([inside, 0 * inside[:, 0]]), fan)
