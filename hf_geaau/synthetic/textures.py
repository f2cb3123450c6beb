"""Paint what lies on the face, in the texture space of the mesh: skin, lips, brows, beard, and maps of wrinkles.

Texture space: u to the image's right, v up the face, both 0–1 over M_Face; arrays are indexed [v, u], row 0 is v = 0.
Landmarks are given as (68, 2) texture coordinates. Everything is drawn from the identity's own seed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .sampling import WRINKLES, Identity

SIZE, WRINKLE_SIZE = 384, 256  # texels; at a 128 px crop a texel is about a third, a half of a pixel
_GAMMA = 2.0  # what the shader undoes by squaring
_SHIFT = 4  # fractional bits of cv2's drawing coordinates

Canvas = NDArray[Any]  # float32 unless said otherwise
Points = NDArray[Any]  # (…, 2)


def smooth_noise(rng: np.random.Generator, size: int, cell: int) -> Canvas:
    """Draw smooth noise of mean 0 and about ±1, `cell` texels per grid cell; (size, size)."""
    grid = rng.standard_normal((size // cell + 2, size // cell + 2)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def _lines(canvas: Canvas, lines: list[Points], value: int, width: int = 1) -> None:
    """Draw polylines given in texture coordinates (K, 2)."""
    scaled = [np.round(line * (canvas.shape[0] << _SHIFT)).astype(np.int32) for line in lines]
    cv2.polylines(canvas, scaled, False, value, width, cv2.LINE_AA, _SHIFT)


def _polygon(points: Points, blur: float) -> Canvas:
    """Fill a polygon given in texture coordinates, softened by `blur` texels; values 0–1."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * (SIZE << _SHIFT)).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), blur)


def _spot(center: Points | tuple[float, float], radius: tuple[float, float]) -> Canvas:
    """A Gaussian spot; centre and radii (u, v) in texture coordinates."""
    place = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    u, v = (np.exp(-0.5 * ((place - center[c]) / radius[c]) ** 2) for c in range(2))
    return np.outer(v, u)


def _by(u: float, v: float) -> Points:
    return np.array([u, v])


def _mirrored(points: Points) -> Points:
    return np.stack([1 - points[..., 0], points[..., 1]], -1)


def skin_texture(identity: Identity, landmarks: Points) -> Canvas:
    """Paint one person's face.

    Args:
        identity: Whose.
        landmarks: (68, 2) texture coordinates.

    Returns:
        (384, 384, 4) uint8: colour coded with gamma 2 and, in the fourth channel, gloss.
    """
    rng = np.random.default_rng(identity.texture_seed)
    skin = identity.skin
    base = skin.tone.astype(np.float32)
    color = np.broadcast_to(base ** (1 / _GAMMA), (SIZE, SIZE, 3)).copy()
    gloss = 0.35 + 0.5 * _spot(landmarks[30], (0.05, 0.10)) + 0.35 * _spot((0.5, 0.9), (0.16, 0.07))
    _paint_complexion(color, rng, identity, landmarks)
    _paint_lips(color, gloss, rng, identity, landmarks)
    _paint_beard(color, gloss, rng, identity, landmarks)
    _paint_lids(color, identity, landmarks)
    _paint_brows(color, gloss, rng, identity, landmarks)
    texture = np.empty((SIZE, SIZE, 4), np.uint8)
    texture[..., :3] = (color * 255).clip(0, 255)
    texture[..., 3] = (gloss * 200).clip(0, 255)
    return texture


def _paint_complexion(color: Canvas, rng: np.random.Generator, identity: Identity, landmarks: Points) -> None:
    """Paint unevenness, red cheeks and nose, rings around the eyes, freckles, and an even border for the seam."""
    skin = identity.skin
    uneven = 0.030 * skin.blotches * smooth_noise(rng, SIZE, 48) + 0.022 * skin.blotches * smooth_noise(rng, SIZE, 14)
    uneven += 0.030 * skin.pores * smooth_noise(rng, SIZE, 3) + 0.012 * rng.standard_normal((SIZE, SIZE)).astype(
        np.float32
    )
    cheek = 0.55 * landmarks[48] + 0.45 * landmarks[1] + _by(0.03, 0.06)
    red = _spot(cheek, (0.07, 0.07)) + _spot(_mirrored(cheek), (0.07, 0.07)) + 0.8 * _spot(landmarks[30], (0.04, 0.05))
    red = skin.redness * red * (1 + 0.4 * smooth_noise(rng, SIZE, 24)) + 0.12 * skin.blotches * smooth_noise(
        rng, SIZE, 30
    )
    dark = np.zeros((SIZE, SIZE), np.float32)
    for eye in (landmarks[36:42].mean(0), landmarks[42:48].mean(0)):
        inner = eye + _by(0.012 if eye[0] < 0.5 else -0.012, 0)
        dark += skin.eye_shadow * (
            0.8 * _spot(inner - _by(0, 0.035), (0.055, 0.022)) + 0.5 * _spot(inner + _by(0, 0.03), (0.06, 0.02))
        )
    freckles = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(int(220 * skin.freckles)):
        place = rng.normal(0.5, 0.16), rng.normal(0.62, 0.10)
        center = (int(place[0] * SIZE * 16), int(place[1] * SIZE * 16))
        cv2.circle(
            freckles, center, int(16 * rng.uniform(0.8, 2.2)), int(rng.uniform(60, 220)), -1, cv2.LINE_AA, _SHIFT
        )
    for _ in range(rng.poisson(1.5)):  # moles
        x, y = (int(value * SIZE * 16) for value in rng.uniform(0.2, 0.9, 2))
        cv2.circle(freckles, (x, y), int(16 * rng.uniform(1.0, 2.5)), 255, -1, cv2.LINE_AA, _SHIFT)
    spots = cv2.GaussianBlur(freckles, (0, 0), 0.8).astype(np.float32) / 255
    across = np.arange(SIZE, dtype=np.float32) / SIZE
    inside = np.minimum(np.minimum(across, 1 - across) * 12, 1)
    inside = np.outer(inside, inside)
    shade = inside * (uneven - 0.10 * dark - 0.16 * spots)
    red = inside * red
    color *= (1 + shade)[..., None] * (1 + red[..., None] * np.array([0.03, -0.085, -0.07], np.float32))
    color *= 1 - dark.clip(0, 1)[..., None] * np.array([0.03, 0.06, 0.03], np.float32)


def _paint_lids(color: Canvas, identity: Identity, landmarks: Points) -> None:
    """Paint eye shadow, the fold of the upper lid, the dark line of the lashes' roots, and a liner with its wing."""
    eyes = identity.eyes
    lid = landmarks[36:42]  # from the outer corner over the upper lid to the inner corner and back; mirrored below
    outer, inner, middle = lid[0], lid[3], 0.5 * (lid[1] + lid[2])
    if eyes.shadow_opacity:
        center, radius = middle + _by(-0.006, 0.5 * eyes.shadow_reach), (0.038, 0.6 * eyes.shadow_reach)
        for place in (center, _mirrored(center)):
            _tint(color, eyes.shadow_opacity * _spot(place, radius), eyes.shadow)
    over = np.stack([outer + _by(-0.012, 0.012), *(lid[1:3] + _by(0, eyes.fold)), inner + _by(0.004, 0.012)])
    fold = _soft_line(over, 2, 1.2) * eyes.fold_depth
    _tint(color, fold, identity.skin.tone * np.array([0.30, 0.22, 0.20]))
    # The edge that is seen lies a little above the upper landmarks, and below the lower ones.
    ink = _soft_line(lid[:4] + _by(0, 0.008), round(3 + 2.5 * eyes.liner), 0.8)
    ink *= min(0.6 + 0.8 * eyes.lash_density + 1.3 * eyes.liner, 1.3)
    below = _soft_line(lid[[0, 5, 4, 3]] - _by(0, 0.005), round(1 + 2 * eyes.liner), 0.8)
    ink = np.maximum(ink, below * min(0.26 * eyes.lash_density + 0.9 * eyes.liner, 1.0))
    if eyes.wing:
        tip = outer + _by(-0.012 - 0.02 * eyes.wing, 0.012 + 0.01 * eyes.wing)
        wing = _soft_line(np.stack([lid[1] + _by(0, 0.008), outer + _by(-0.004, 0.007), tip]), 2, 0.7)
        ink = np.maximum(ink, 1.1 * wing)
    _tint(color, ink, np.array([0.03, 0.022, 0.018]))


def _soft_line(line: Points, width: int, blur: float) -> Canvas:
    """A smooth line near a polyline (K, 2) and its mirror image; width and blur in texels, values 0–1."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    smooth = _through(line)
    _lines(canvas, [smooth, _mirrored(smooth)], 255, width)
    return cv2.GaussianBlur(canvas, (0, 0), blur).astype(np.float32) / 255


def _tint(color: Canvas, cover: Canvas, ink: Points) -> None:
    """Lay a linear colour (3) over the painting, in place."""
    color += cover.clip(0, 1)[..., None] * ((ink ** (1 / _GAMMA)).astype(np.float32) - color)


def _through(line: Points) -> Points:
    """A smooth curve near a polyline (K, 2): two rounds of corner cutting (Chaikin 1974)."""
    for _ in range(2):
        cut = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], 1).reshape(-1, 2)
        line = np.concatenate([line[:1], cut, line[-1:]])
    return line


def _paint_lips(color: Canvas, gloss: Canvas, rng: np.random.Generator, identity: Identity, landmarks: Points) -> None:
    skin = identity.skin
    scale = np.array([1.0, rng.uniform(0.88, 1.08)])
    center = landmarks[48:60].mean(0)
    outline = (landmarks[48:60] - center) * scale + center
    mask = _polygon(outline, rng.uniform(1.2, 3.2))
    inner = _polygon(landmarks[60:68], rng.uniform(2.0, 4.5))
    lips = (skin.tone * skin.lips).clip(0, 1) ** (1 / _GAMMA)
    lines = 1 + 0.05 * cv2.resize(
        rng.standard_normal((8, 170)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC
    )
    opacity = (mask * max(skin.lipstick, rng.uniform(0.55, 0.95)))[..., None]
    color *= 1 - opacity
    color += opacity * lips * lines[..., None]
    # Wet inner lips are darker and redder; the line between closed lips is faint on some people and black on others.
    color *= 1 - rng.uniform(0.2, 0.95) * inner[..., None]
    color[..., 1:] *= 1 - 0.12 * inner[..., None]
    gloss += mask * (0.25 + 0.5 * skin.lipstick)


def _paint_hairs(color: Canvas, gloss: Canvas, hairs: Canvas, tint: Points, opacity: float, soft: float) -> None:
    cover = cv2.GaussianBlur(hairs, (0, 0), soft).astype(np.float32)[..., None] * (opacity / 255)
    color *= 1 - cover
    color += cover * tint.astype(np.float32)
    gloss *= 1 - 0.7 * cover[..., 0]


def _facial_hair_tint(identity: Identity) -> Points:
    """Brows and beards are a little darker than the head's hair; gamma-coded (3,)."""
    hair = identity.hair
    source = np.array([0.03, 0.02, 0.014]) if hair.style == "cap" else hair.color
    return (np.minimum(source, 0.7 * np.maximum(identity.skin.tone, 0.05)) * 0.75) ** (1 / _GAMMA)


def _paint_brows(color: Canvas, gloss: Canvas, rng: np.random.Generator, identity: Identity, landmarks: Points) -> None:
    """Draw each brow as a tapering body and some hundred strokes that follow it, rising at the inner end."""
    brows = identity.brows
    hairs = np.zeros((SIZE, SIZE), np.uint8)
    for side, ids in ((1, range(22, 27)), (-1, range(21, 16, -1))):
        t = np.linspace(0, 1, 25)
        spine = _brow_line(landmarks[list(ids)].astype(np.float64), identity, side, t)
        half = 0.5 * brows.thickness * np.interp(t, [0, 0.06, 0.25, 0.6, 0.85, 1], [0.55, 0.85, 1.0, 0.85, 0.45, 0.08])
        body = np.zeros((SIZE, SIZE), np.uint8)
        edge = np.concatenate([spine + half[:, None] * [0, 1], (spine - half[:, None] * [0, 1])[::-1]])
        cv2.fillPoly(body, [np.round(edge * (SIZE << _SHIFT)).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
        soft = cv2.GaussianBlur(body, (0, 0), 0.8 + (1 - brows.pencil) * brows.thickness * SIZE * 0.22)
        fade = np.interp(np.abs(np.arange(SIZE) / SIZE - spine[0, 0]), [0, 0.03], [0.35 + 0.3 * brows.pencil, 1.0])
        cover = (0.35 + 0.35 * brows.density) * (1 - brows.pencil) + 0.9 * brows.pencil
        np.maximum(hairs, (soft * (cover * fade)).astype(np.uint8), out=hairs)
        _brow_strokes(hairs, rng, identity, side, t, spine, half)
    _paint_hairs(color, gloss, hairs, _facial_hair_tint(identity), brows.opacity, 0.6)


def _brow_line(spine: Points, identity: Identity, side: int, t: Points) -> Points:
    """The middle of a brow from the inner end (t = 0) to the outer (1), from its five landmarks."""
    brows = identity.brows
    spine = spine[0] + (spine - spine[0]) * [brows.length, 0.7]
    line = np.stack([np.interp(t * 4, range(5), spine[:, c]) for c in range(2)], 1)
    bend = np.interp(t, [0, brows.peak, 1], [0, 1, 0])
    bend = 0.5 * bend + 0.5 * np.sin(np.pi * t ** (np.log(0.5) / np.log(brows.peak)))
    line[:, 0] -= side * brows.inset * (1 - t)
    line[:, 1] += brows.height + brows.arch * 1.5 * bend + brows.tilt * (t - 0.4)
    return cv2.blur(line.astype(np.float32), (1, 5), borderType=cv2.BORDER_REPLICATE)


def _brow_strokes(
    hairs: Canvas, rng: np.random.Generator, identity: Identity, side: int, t: Points, spine: Points, half: Points
) -> None:
    brows = identity.brows
    count = int((50 + 300 * brows.density) * (1 - 0.75 * brows.pencil))
    place = rng.beta(1.0, 1.3, count)
    across = rng.uniform(-1, 1, count)
    root = np.stack([np.interp(place, t, spine[:, c]) for c in range(2)], 1)
    root[:, 1] += across * np.interp(place, t, half)
    slope = np.gradient(spine[:, 1], spine[:, 0])
    along = side * np.arctan(np.interp(place, t, slope))  # lower hairs rise, upper ones lie flat
    lift = along + np.interp(place, [0, 0.15, 0.4, 1], [1.2, 0.7, 0.35, 0.1]) - 0.35 * across * (place > 0.2)
    lift += rng.normal(0, 0.2, count)
    length = (
        rng.uniform(0.004, 0.011, count) * (0.7 + 0.4 * brows.density) * np.interp(place, [0, 0.2, 1], [0.8, 1, 0.6])
    )
    tip = root + length[:, None] * np.stack([side * np.cos(lift), np.sin(lift)], 1)
    _lines(hairs, list(np.stack([root, tip], 1)), int(150 + 70 * brows.density))


def beard_mask(identity: Identity, landmarks: Points) -> Canvas:
    """Where facial hair grows and how densely, (384, 384), 0–1."""
    beard, points = identity.beard, landmarks
    mask = np.zeros((SIZE, SIZE), np.float32)
    lower = _polygon(points[[48, 59, 58, 57, 56, 55, 54, 64, 62, 60]], 2.0)
    if beard.moustache:
        top = points[[35, 34, 33, 32, 31]] - _by(0, 0.012)
        shape = np.concatenate([points[48:55], [points[54] + _by(0.035, -0.03)], top, [points[48] - _by(0.035, 0.03)]])
        mask = np.maximum(mask, beard.moustache * _polygon(shape, 3.5))
    if beard.chin:
        shape = points[[48, 6, 7, 8, 9, 10, 54, 55, 56, 57, 58, 59]] + _by(0, 0.0)
        shape[[1, 5]] = 0.5 * (points[[6, 10]] + points[[48, 54]])
        below = shape.copy()
        below[:6, 1] -= 0.10
        mask = np.maximum(mask, beard.chin * np.maximum(_polygon(shape, 6), _polygon(below[:7], 7)))
    if beard.cheeks:
        left = np.concatenate(
            [points[[1, 2, 3, 4, 5, 6]] - _by(0.03, 0.06), points[[7, 48]], [0.5 * points[48] + 0.5 * points[2]]]
        )
        mask = np.maximum(mask, beard.cheeks * np.maximum(_polygon(left, 9), _polygon(_mirrored(left), 9)))
    lips = _polygon(points[48:60], 2.0)
    return mask * (1 - np.maximum(lips, lower)).clip(0, 1)


def _paint_beard(color: Canvas, gloss: Canvas, rng: np.random.Generator, identity: Identity, landmarks: Points) -> None:
    beard = identity.beard
    if not (beard.moustache or beard.chin or beard.cheeks):
        return
    mask = beard_mask(identity, landmarks)
    mask *= (1 + 0.25 * smooth_noise(rng, SIZE, 20)).clip(0, 1.3)
    count = 5000
    root = np.stack([rng.uniform(0.1, 0.9, count), rng.uniform(0.12, 0.58, count)], 1)
    place = (root * SIZE).astype(int)
    root = root[rng.random(count) < mask[place[:, 1], place[:, 0]] * 1.2]
    outward = (root[:, 0] - 0.5) * 1.2 + rng.normal(0, 0.35, len(root))
    length = (0.004 if beard.stubble else 0.016) * rng.uniform(0.6, 1.3, len(root))
    tip = root + length[:, None] * np.stack([np.sin(outward), -np.cos(outward)], 1)
    hairs = np.zeros((SIZE, SIZE), np.uint8)
    _lines(hairs, list(np.stack([root, tip], 1)), 235)
    body = mask * (0.5 if beard.stubble else 0.72)
    np.maximum(hairs, (body * 255).clip(0, 255).astype(np.uint8), out=hairs)
    _paint_hairs(color, gloss, hairs, _facial_hair_tint(identity), 0.55 if beard.stubble else 0.92, 0.8)


def hair_texture(rng: np.random.Generator) -> Canvas:
    """Draw strands: (256, 512, 2) uint8, brightness and height; along the first axis, tiling in the second."""
    fine = rng.standard_normal((10, 512)).astype(np.float32)
    coarse = cv2.resize(rng.standard_normal((5, 96)).astype(np.float32), (512, 10), interpolation=cv2.INTER_LINEAR)
    strands = cv2.resize(0.7 * fine + 0.8 * coarse, (512, 256), interpolation=cv2.INTER_CUBIC)
    strands[:, -16:] += np.linspace(0, 1, 16) * (strands[:, :1] - strands[:, -16:])
    height = cv2.GaussianBlur(strands, (0, 0), 1.0)
    return np.stack([(128 + 52 * strands).clip(0, 255), (128 + 52 * height).clip(0, 255)], -1).astype(np.uint8)


def wrinkle_maps(pattern: int, landmarks: Points) -> Canvas:
    """Draw one set of wrinkles, as heights.

    Args:
        pattern: Which set; the same number gives the same set.
        landmarks: (68, 2) texture coordinates.

    Returns:
        (12, 256, 256) float32: the layers of sampling.WRINKLES, 0 for smooth skin, down to -1 for creases.
    """
    rng = np.random.default_rng([pattern, 77])
    layers = np.empty((len(WRINKLES), WRINKLE_SIZE, WRINKLE_SIZE), np.float32)
    for place, name in enumerate(WRINKLES):
        canvas = np.zeros((512, 512), np.uint8)
        for line, width in _CREASES[name](rng, landmarks):
            _lines(canvas, [line, _mirrored(line)], int(rng.uniform(170, 255)), width)
        crease = canvas.astype(np.float32) * (1 + 0.35 * smooth_noise(rng, 512, 20)).clip(0.1, 1.5)
        spread = 2.8 if name in ("nasolabial", "lower_lid", "chin", "dimple", "mouth_corner") else 2.0
        sharp = cv2.GaussianBlur(crease, (0, 0), spread)
        soft = cv2.GaussianBlur(crease, (0, 0), spread * 3.2)
        height = ((1.1 * soft - 1.5 * sharp) / 128).clip(-1, 0.6)
        layers[place] = cv2.resize(height, (WRINKLE_SIZE, WRINKLE_SIZE), interpolation=cv2.INTER_AREA)
    return layers


def blend_wrinkles(layers: Canvas, depths: Points) -> Canvas:
    """Add up wrinkle layers by depth (12, 2), subject's left and right: (256, 256) uint8, 128 for smooth."""
    half, band = WRINKLE_SIZE // 2, WRINKLE_SIZE // 24
    height = np.empty((WRINKLE_SIZE, WRINKLE_SIZE), np.float32)
    height[:, :half] = np.tensordot(depths[:, 1], layers[..., :half], 1)
    height[:, half:] = np.tensordot(depths[:, 0], layers[..., half:], 1)
    middle = slice(half - band, half + band)  # the sides meet softly
    share = np.linspace(-0.5, 0.5, 2 * band, dtype=np.float32)
    mean, half_change = depths.mean(1), (depths[:, 0] - depths[:, 1])
    height[:, middle] = np.tensordot(mean, layers[..., middle], 1)
    height[:, middle] += share * np.tensordot(half_change, layers[..., middle], 1)
    return (128 + 127 * (height / 2).clip(-0.45, 0.25)).astype(np.uint8)


_Crease = tuple[Points, int]


def _curve(points: Sequence[Any], rng: np.random.Generator, wobble: float = 0.002, count: int = 14) -> Points:
    """A smooth line through two or three control points, with a little wobble."""
    t = np.linspace(0, 1, count)[:, None]
    start, end = np.asarray(points[0], float), np.asarray(points[-1], float)
    middle = 2 * np.asarray(points[1], float) - 0.5 * (start + end) if len(points) == 3 else 0.5 * (start + end)
    line = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    return line + rng.normal(0, wobble, (1, 2)) + wobble * np.cumsum(rng.normal(0, 0.35, (count, 2)), 0)


def _forehead(rng: np.random.Generator, start: float, end: float) -> list[_Crease]:
    lines = []
    for v in np.linspace(0.845, 0.925, rng.integers(3, 6)):
        v += rng.normal(0, 0.004)
        sag = rng.normal(0.004, 0.004)
        lines.append(
            (_curve([(0.5 - start, v - sag), (0.5 - (start + end) / 2, v + sag), (0.5 - end, v - 3 * sag)], rng), 2)
        )
    return lines


def _glabella(rng: np.random.Generator, points: Points) -> list[_Crease]:
    bottom, top = points[27][1] + 0.018, points[21][1] + rng.uniform(0.0, 0.018)
    lines = [(_curve([(0.5 - x, bottom), (0.5 - x - 0.004, (top + bottom) / 2), (0.5 - x - 0.010, top)], rng, 0.001), 2)
             for x in ((0.020,) if rng.random() < 0.5 else (0.012, 0.026))]  # fmt: skip
    return [*lines, (_curve([(0.5 - 0.02, points[27][1] + 0.004), (0.5, points[27][1] + 0.006)], rng, 0.001), 1)]


def _crows_feet(rng: np.random.Generator, points: Points) -> list[_Crease]:
    corner = points[36] - _by(0.018, 0.0)
    return [
        (_curve([corner + 0.3 * reach, corner + 0.65 * reach + _by(0, 0.004), corner + reach], rng, 0.0012), 2)
        for angle in np.linspace(-0.75, 0.65, rng.integers(3, 6)) + rng.normal(0, 0.08)
        for reach in [rng.uniform(0.04, 0.075) * np.array([-np.cos(angle), np.sin(angle)])]
    ]


def _lower_lid(rng: np.random.Generator, points: Points) -> list[_Crease]:
    inner, outer, low = points[39], points[36], points[[40, 41]].mean(0)
    return [
        (_curve([inner - _by(0.0, d * 0.8), low - _by(0.0, d * 1.35), outer - _by(0.006, d * 0.6)], rng, 0.0015), 2)
        for d in rng.uniform(0.016, 0.024) * np.arange(1, rng.integers(2, 4))
    ]


def _nose_root(rng: np.random.Generator, points: Points) -> list[_Crease]:
    lines: list[_Crease] = []
    for v in np.linspace(points[27][1] - 0.012, points[27][1] + 0.022, 3):
        lines.append((_curve([(0.475, v + 0.004), (0.5, v - 0.002)], rng, 0.001), 2))
    for d in (0.0, 0.02, 0.04):
        start = np.array([0.485, points[28][1] + 0.01 - d])
        lines.append((_curve([start, start + _by(-0.03, 0.012), start + _by(-0.05, 0.03)], rng, 0.001), 2))
    return lines


def _nasolabial(rng: np.random.Generator, points: Points) -> list[_Crease]:
    top, bottom = points[31] + _by(-0.020, 0.035), points[48] + _by(-0.035, rng.uniform(-0.03, 0.01))
    return [(_curve([top, 0.5 * (top + bottom) + _by(-0.012, 0.014), bottom], rng, 0.0015), 3)]


def _dimple(rng: np.random.Generator, points: Points) -> list[_Crease]:
    center = points[48] - _by(rng.uniform(0.022, 0.034), 0.0)
    return [(_curve([center + _by(0.008, 0.028), center - _by(0.006, 0), center + _by(0.008, -0.028)], rng, 0.001), 3)]


def _chin(rng: np.random.Generator, points: Points) -> list[_Crease]:
    low, high = points[8], points[57]
    lines = [(_curve([(0.44, high[1] - 0.035), (0.5, high[1] - 0.022)], rng, 0.001), 3)]
    for _ in range(14):
        place = np.array([0.5 - abs(rng.normal(0, 0.03)), rng.uniform(low[1] + 0.005, high[1] - 0.04)])
        lines.append((_curve([place, place + rng.normal(0, 0.006, 2)], rng, 0.001, 3), 3))
    return lines


def _mouth_corner(rng: np.random.Generator, points: Points) -> list[_Crease]:
    corner = points[48]
    return [
        (
            _curve(
                [corner + _by(-0.006, -0.004), corner + _by(-0.018, -0.025), corner + _by(-0.022, -0.06)], rng, 0.001
            ),
            3,
        )
    ]


def _lip_lines(rng: np.random.Generator, points: Points) -> list[_Crease]:
    lines = []
    for x in np.linspace(0.42, 0.495, 7):
        x += rng.normal(0, 0.003)
        top = np.interp(x, points[48:52, 0], points[48:52, 1])
        low = np.interp(x, points[[48, 59, 58, 57], 0], points[[48, 59, 58, 57], 1])
        lines += [(_curve([(x, top), (x, top + rng.uniform(0.01, 0.025))], rng, 0.001), 1)]
        lines += [(_curve([(x, low), (x, low - rng.uniform(0.008, 0.02))], rng, 0.001), 1)]
    return lines


def _cheek_stretch(rng: np.random.Generator, points: Points) -> list[_Crease]:
    corner = points[48]
    return [
        (_curve([corner + _by(-d, 0.04), corner + _by(-d - 0.012, 0.0), corner + _by(-d, -0.045)], rng, 0.0015), 2)
        for d in np.linspace(0.04, 0.085, rng.integers(2, 4))
    ]


_CREASES: dict[str, Callable[[np.random.Generator, Points], list[_Crease]]] = {
    "forehead_centre": lambda rng, points: _forehead(rng, 0.0, 0.13),
    "forehead_side": lambda rng, points: _forehead(rng, 0.10, 0.23),
    "glabella": _glabella,
    "crows_feet": _crows_feet,
    "lower_lid": _lower_lid,
    "nose_root": _nose_root,
    "nasolabial": _nasolabial,
    "dimple": _dimple,
    "chin": _chin,
    "mouth_corner": _mouth_corner,
    "lip_lines": _lip_lines,
    "cheek_stretch": _cheek_stretch,
}
