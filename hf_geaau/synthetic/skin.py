"""Paint the skin of the face, with lips, brows, lids and beard, in the texture space of the mesh.

Landmarks are (68, 2) texture coordinates. Everything is drawn from the person's own seed.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.synthetic.painting import FRACTION_BITS, Canvas, Points, draw_lines, fixed_point, mirrored, smooth_noise
from hf_geaau.synthetic.people import Identity

TEXTURE_SIZE = 384
"""Side of the texture in texels. In a crop of 128 pixels a texel is about a third of a pixel."""

_GAMMA = 2.0  # The shader undoes it by squaring.


def _polygon(points: Points, blur: float) -> Canvas:
    """Fill a polygon of texture coordinates, softened by `blur` texels; (384, 384), 0-1."""
    canvas = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
    cv2.fillPoly(canvas, [fixed_point(points, TEXTURE_SIZE)], 255, cv2.LINE_AA, FRACTION_BITS)
    return cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), blur)


def _spot(center: Points | tuple[float, float], radius: tuple[float, float]) -> Canvas:
    """Draw a Gaussian spot (384, 384); center and radii (u, v) in texture coordinates."""
    texel = (np.arange(TEXTURE_SIZE, dtype=np.float32) + 0.5) / TEXTURE_SIZE
    u, v = (np.exp(-0.5 * ((texel - center[c]) / radius[c]) ** 2) for c in range(2))
    return np.outer(v, u)


def _offset(u: float, v: float) -> Points:
    return np.array([u, v])


def skin_texture(identity: Identity, landmarks: Points) -> NDArray[np.uint8]:
    """Paint the face of one person: (384, 384, 4) uint8, color coded with gamma 2 and, in the fourth channel, gloss."""
    rng = np.random.default_rng(identity.texture_seed)
    color = np.broadcast_to(identity.skin.tone ** (1 / _GAMMA), (TEXTURE_SIZE, TEXTURE_SIZE, 3)).copy()
    gloss = 0.35 + 0.5 * _spot(landmarks[30], (0.05, 0.10)) + 0.35 * _spot((0.5, 0.9), (0.16, 0.07))
    _paint_complexion(color, rng, identity, landmarks)
    _paint_lips(color, gloss, rng, identity, landmarks)
    _paint_wet_lips(color, rng, landmarks)
    _paint_beard(color, gloss, rng, identity, landmarks)
    _paint_lids(color, identity, landmarks)
    _paint_brows(color, gloss, rng, identity, landmarks)
    texture = np.empty((TEXTURE_SIZE, TEXTURE_SIZE, 4), np.uint8)
    texture[..., :3] = (color * 255).clip(0, 255)
    texture[..., 3] = (gloss * 200).clip(0, 255)
    return texture


def photographic_skin(
    identity: Identity, landmarks: Points, photo: NDArray[np.uint8], chart: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Paint beard and make-up over photographed skin.

    Args:
        identity: The person.
        landmarks: (68, 2) in the chart where things are painted.
        photo: (H, W, 3) sRGB.
        chart: (H, W, 2) where each texel of the photo lies in the chart.

    Returns:
        (H, W, 4) uint8, as from `skin_texture`.
    """
    # Painting maps every color c to a·c + b: what black and white become tells a and b, which then suit any photo.
    (black, gloss), (white, _) = (_make_up(identity, landmarks, base) for base in (0.0, 1.0))
    layers = np.dstack([black, white - black, gloss]).astype(np.float32)
    u, v = (chart[..., axis] * np.float32(TEXTURE_SIZE) - np.float32(0.5) for axis in range(2))
    layers = np.asarray(cv2.remap(layers, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    coded = (np.arange(256, dtype=np.float32) / 255) ** (2.2 / _GAMMA)
    texture = np.empty((*photo.shape[:2], 4), np.uint8)
    texture[..., :3] = (255 * (layers[..., 3:6] * coded[photo] + layers[..., :3])).clip(0, 255)
    texture[..., 3] = (layers[..., 6] * 200).clip(0, 255)
    return texture


def _make_up(identity: Identity, landmarks: Points, base: float) -> tuple[Canvas, Canvas]:
    """Paint lipstick, beard and eye make-up over one shade, and return color and gloss."""
    rng = np.random.default_rng(identity.texture_seed)
    color = np.full((TEXTURE_SIZE, TEXTURE_SIZE, 3), base, np.float32)
    gloss = 0.35 + 0.5 * _spot(landmarks[30], (0.05, 0.10)) + 0.35 * _spot((0.5, 0.9), (0.16, 0.07))
    if identity.skin.lipstick:
        _paint_lips(color, gloss, rng, identity, landmarks)
    _paint_wet_lips(color, rng, landmarks)
    _paint_beard(color, gloss, rng, identity, landmarks)
    if identity.eyes.shadow_opacity or identity.eyes.liner > 0.2:
        _paint_lids(color, identity, landmarks)
    return color, gloss


def _paint_complexion(color: Canvas, rng: np.random.Generator, identity: Identity, landmarks: Points) -> None:
    """Paint unevenness, red cheeks and nose, rings around the eyes, freckles, and an even border for the seam."""
    skin = identity.skin
    uneven = 0.030 * skin.blotches * smooth_noise(rng, TEXTURE_SIZE, 48)
    uneven += 0.022 * skin.blotches * smooth_noise(rng, TEXTURE_SIZE, 14)
    pores = 0.030 * skin.pores * smooth_noise(rng, TEXTURE_SIZE, 3)
    uneven += pores + 0.012 * rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE)).astype(np.float32)
    cheek = 0.55 * landmarks[48] + 0.45 * landmarks[1] + _offset(0.03, 0.06)
    red = _spot(cheek, (0.07, 0.07)) + _spot(mirrored(cheek), (0.07, 0.07)) + 0.8 * _spot(landmarks[30], (0.04, 0.05))
    red = skin.redness * red * (1 + 0.4 * smooth_noise(rng, TEXTURE_SIZE, 24))
    red += 0.12 * skin.blotches * smooth_noise(rng, TEXTURE_SIZE, 30)
    dark = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.float32)
    for eye in (landmarks[36:42].mean(0), landmarks[42:48].mean(0)):
        inner = eye + _offset(0.012 if eye[0] < 0.5 else -0.012, 0)
        dark += skin.eye_shadow * (
            0.8 * _spot(inner - _offset(0, 0.035), (0.055, 0.022)) + 0.5 * _spot(inner + _offset(0, 0.03), (0.06, 0.02))
        )
    freckles = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
    for _ in range(int(220 * skin.freckles)):
        u, v = rng.normal(0.5, 0.16), rng.normal(0.62, 0.10)
        center = (int(u * TEXTURE_SIZE * 16), int(v * TEXTURE_SIZE * 16))
        radius, depth = int(16 * rng.uniform(0.8, 2.2)), int(rng.uniform(60, 220))
        cv2.circle(freckles, center, radius, depth, -1, cv2.LINE_AA, FRACTION_BITS)
    for _ in range(rng.poisson(1.5)):  # Moles.
        x, y = (int(value * TEXTURE_SIZE * 16) for value in rng.uniform(0.2, 0.9, 2))
        cv2.circle(freckles, (x, y), int(16 * rng.uniform(1.0, 2.5)), 255, -1, cv2.LINE_AA, FRACTION_BITS)
    spots = cv2.GaussianBlur(freckles, (0, 0), 0.8).astype(np.float32) / 255
    across = np.arange(TEXTURE_SIZE, dtype=np.float32) / TEXTURE_SIZE
    inside = np.minimum(np.minimum(across, 1 - across) * 12, 1)
    inside = np.outer(inside, inside)
    shade = inside * (uneven - 0.10 * dark - 0.16 * spots)
    red = inside * red
    color *= (1 + shade)[..., None] * (1 + red[..., None] * np.array([0.03, -0.085, -0.07], np.float32))
    color *= 1 - dark.clip(0, 1)[..., None] * np.array([0.03, 0.06, 0.03], np.float32)


def _paint_lids(color: Canvas, identity: Identity, landmarks: Points) -> None:
    """Paint eye shadow, the fold of the upper lid, the dark line of the lashes' roots, and a liner with its wing."""
    eyes = identity.eyes
    lid = landmarks[36:42]  # From the outer corner over the upper lid to the inner corner and back.
    outer, inner, middle = lid[0], lid[3], 0.5 * (lid[1] + lid[2])
    if eyes.shadow_opacity:
        center, radius = middle + _offset(-0.006, 0.5 * eyes.shadow_reach), (0.038, 0.6 * eyes.shadow_reach)
        for side in (center, mirrored(center)):
            _tint(color, eyes.shadow_opacity * _spot(side, radius), eyes.shadow)
    ends = outer + _offset(-0.012, 0.012), inner + _offset(0.004, 0.012)
    over = np.stack([ends[0], *(lid[1:3] + _offset(0, eyes.fold)), ends[1]])
    fold = _soft_line(over, 2, 1.2) * eyes.fold_depth
    _tint(color, fold, identity.skin.tone * np.array([0.30, 0.22, 0.20]))
    # The visible edge lies a little above the upper landmarks, and below the lower ones.
    ink = _soft_line(lid[:4] + _offset(0, 0.008), round(3 + 2.5 * eyes.liner), 0.8)
    ink *= min(0.6 + 0.8 * eyes.lash_density + 1.3 * eyes.liner, 1.3)
    below = _soft_line(lid[[0, 5, 4, 3]] - _offset(0, 0.005), round(1 + 2 * eyes.liner), 0.8)
    ink = np.maximum(ink, below * min(0.26 * eyes.lash_density + 0.9 * eyes.liner, 1.0))
    if eyes.wing:
        tip = outer + _offset(-0.012 - 0.02 * eyes.wing, 0.012 + 0.01 * eyes.wing)
        wing = _soft_line(np.stack([lid[1] + _offset(0, 0.008), outer + _offset(-0.004, 0.007), tip]), 2, 0.7)
        ink = np.maximum(ink, 1.1 * wing)
    _tint(color, ink, np.array([0.03, 0.022, 0.018]))


def _soft_line(line: Points, width: int, blur: float) -> Canvas:
    """Draw a smooth line near a polyline (K, 2), and its mirror image; width and blur in texels, values 0-1."""
    canvas = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
    smooth = _smoothed(line)
    draw_lines(canvas, [smooth, mirrored(smooth)], 255, width)
    return cv2.GaussianBlur(canvas, (0, 0), blur).astype(np.float32) / 255


def _tint(color: Canvas, cover: Canvas, ink: Points) -> None:
    """Paint a linear color (3,) over `color`, in place, where `cover` (0-1) says."""
    color += cover.clip(0, 1)[..., None] * ((ink ** (1 / _GAMMA)).astype(np.float32) - color)


def _smoothed(line: Points) -> Points:
    """Return a smooth curve near a polyline (K, 2), by two rounds of corner cutting (Chaikin 1974)."""
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
    noise = rng.standard_normal((8, 170)).astype(np.float32)
    lines = 1 + 0.05 * cv2.resize(noise, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_CUBIC)
    opacity = (mask * max(skin.lipstick, rng.uniform(0.55, 0.95)))[..., None]
    color *= 1 - opacity
    color += opacity * lips * lines[..., None]
    # Wet inner lips are darker and redder. The line between closed lips is faint on some people and black on others.
    color *= 1 - rng.uniform(0.2, 0.95) * inner[..., None]
    color[..., 1:] *= 1 - 0.12 * inner[..., None]
    gloss += mask * (0.25 + 0.5 * skin.lipstick)


def _paint_wet_lips(color: Canvas, rng: np.random.Generator, landmarks: Points) -> None:
    """Paint the bright band of wet or glossy lips, which at a few pixels looks like teeth between parted lips.

    Two of five people have it. Our choice.
    """
    shine = rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.0
    middle = 0.5 * (landmarks[57] + landmarks[66]) + rng.normal(0, 0.003, 2)
    band = shine * _spot(middle, (rng.uniform(0.012, 0.04), rng.uniform(0.003, 0.007)))
    color += band[..., None] * (np.array([1.0, 0.92, 0.9], np.float32) - color)


def _paint_hairs(color: Canvas, gloss: Canvas, hairs: Canvas, tint: Points, opacity: float, soft: float) -> None:
    cover = cv2.GaussianBlur(hairs, (0, 0), soft).astype(np.float32)[..., None] * (opacity / 255)
    color *= 1 - cover
    color += cover * tint.astype(np.float32)
    gloss *= 1 - 0.7 * cover[..., 0]


def _facial_hair_tint(identity: Identity) -> Points:
    """Return the gamma-coded color (3,) of brows and beards, which are a little darker than the head's hair."""
    hair = identity.hair
    source = np.array([0.03, 0.02, 0.014]) if hair.style == "cap" else hair.color
    return (np.minimum(source, 0.7 * np.maximum(identity.skin.tone, 0.05)) * 0.75) ** (1 / _GAMMA)


def _paint_brows(color: Canvas, gloss: Canvas, rng: np.random.Generator, identity: Identity, landmarks: Points) -> None:
    """Draw each brow as a tapering body and some hundred strokes that follow it, rising at the inner end."""
    brows = identity.brows
    hairs = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
    for side, ids in ((1, range(22, 27)), (-1, range(21, 16, -1))):
        t = np.linspace(0, 1, 25)
        spine = _brow_line(landmarks[list(ids)].astype(np.float64), identity, side, t)
        half = 0.5 * brows.thickness * np.interp(t, [0, 0.06, 0.25, 0.6, 0.85, 1], [0.55, 0.85, 1.0, 0.85, 0.45, 0.08])
        body = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
        edge = np.concatenate([spine + half[:, None] * [0, 1], (spine - half[:, None] * [0, 1])[::-1]])
        cv2.fillPoly(body, [fixed_point(edge, TEXTURE_SIZE)], 255, cv2.LINE_AA, FRACTION_BITS)
        soft = cv2.GaussianBlur(body, (0, 0), 0.8 + (1 - brows.pencil) * brows.thickness * TEXTURE_SIZE * 0.22)
        from_inner_end = np.abs(np.arange(TEXTURE_SIZE) / TEXTURE_SIZE - spine[0, 0])
        fade = np.interp(from_inner_end, [0, 0.03], [0.35 + 0.3 * brows.pencil, 1.0])
        cover = (0.35 + 0.35 * brows.density) * (1 - brows.pencil) + 0.9 * brows.pencil
        np.maximum(hairs, (soft * (cover * fade)).astype(np.uint8), out=hairs)
        _brow_strokes(hairs, rng, identity, side, t, spine, half)
    _paint_hairs(color, gloss, hairs, _facial_hair_tint(identity), brows.opacity, 0.6)


def _brow_line(spine: Points, identity: Identity, side: int, t: Points) -> Points:
    """Return the middle of a brow from the inner end (t = 0) to the outer one (1), from its five landmarks."""
    brows = identity.brows
    spine = spine[0] + (spine - spine[0]) * [brows.length, 0.7]
    line = np.stack([np.interp(t * 4, range(5), spine[:, c]) for c in range(2)], 1)
    bend = np.interp(t, [0, brows.peak, 1], [0, 1, 0])
    bend = 0.5 * bend + 0.5 * np.sin(np.pi * t ** (np.log(0.5) / np.log(brows.peak)))
    line[:, 0] -= side * brows.inset * (1 - t)
    line[:, 1] += brows.height + brows.arch * 1.5 * bend + brows.tilt * (t - 0.4)
    smooth: Points = cv2.blur(line.astype(np.float32), (1, 5), borderType=cv2.BORDER_REPLICATE)
    return smooth


def _brow_strokes(
    hairs: Canvas, rng: np.random.Generator, identity: Identity, side: int, t: Points, spine: Points, half: Points
) -> None:
    brows = identity.brows
    count = int((50 + 300 * brows.density) * (1 - 0.75 * brows.pencil))
    along = rng.beta(1.0, 1.3, count)
    across = rng.uniform(-1, 1, count)
    root = np.stack([np.interp(along, t, spine[:, c]) for c in range(2)], 1)
    root[:, 1] += across * np.interp(along, t, half)
    slope = np.gradient(spine[:, 1], spine[:, 0])
    slant = side * np.arctan(np.interp(along, t, slope))  # Lower hairs rise, upper ones lie flat.
    lift = slant + np.interp(along, [0, 0.15, 0.4, 1], [1.2, 0.7, 0.35, 0.1]) - 0.35 * across * (along > 0.2)
    lift += rng.normal(0, 0.2, count)
    length = rng.uniform(0.004, 0.011, count) * (0.7 + 0.4 * brows.density)
    length *= np.interp(along, [0, 0.2, 1], [0.8, 1, 0.6])
    tip = root + length[:, None] * np.stack([side * np.cos(lift), np.sin(lift)], 1)
    draw_lines(hairs, list(np.stack([root, tip], 1)), int(150 + 70 * brows.density))


def beard_mask(identity: Identity, landmarks: Points) -> Canvas:
    """Return how densely facial hair grows, (384, 384), 0-1."""
    beard, points = identity.beard, landmarks
    mask = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.float32)
    lower = _polygon(points[[48, 59, 58, 57, 56, 55, 54, 64, 62, 60]], 2.0)
    if beard.mustache:
        top = points[[35, 34, 33, 32, 31]] - _offset(0, 0.012)
        ends = points[54] + _offset(0.035, -0.03), points[48] - _offset(0.035, 0.03)
        shape = np.concatenate([points[48:55], ends[:1], top, ends[1:]])
        mask = np.maximum(mask, beard.mustache * _polygon(shape, 3.5))
    if beard.chin:
        shape = points[[48, 6, 7, 8, 9, 10, 54, 55, 56, 57, 58, 59]].astype(np.float64)
        shape[[1, 5]] = 0.5 * (points[[6, 10]] + points[[48, 54]])
        below = shape.copy()
        below[:6, 1] -= 0.10
        mask = np.maximum(mask, beard.chin * np.maximum(_polygon(shape, 6), _polygon(below[:7], 7)))
    if beard.cheeks:
        outer, top = points[[1, 2, 3, 4, 5, 6]] - _offset(0.03, 0.06), 0.5 * points[48] + 0.5 * points[2]
        left = np.concatenate([outer, points[[7, 48]], [top]])
        mask = np.maximum(mask, beard.cheeks * np.maximum(_polygon(left, 9), _polygon(mirrored(left), 9)))
    lips = _polygon(points[48:60], 2.0)
    return mask * (1 - np.maximum(lips, lower)).clip(0, 1)


def _paint_beard(color: Canvas, gloss: Canvas, rng: np.random.Generator, identity: Identity, landmarks: Points) -> None:
    beard = identity.beard
    if not (beard.mustache or beard.chin or beard.cheeks):
        return
    mask = beard_mask(identity, landmarks)
    mask *= (1 + 0.25 * smooth_noise(rng, TEXTURE_SIZE, 20)).clip(0, 1.3)
    count = 5000
    root = np.stack([rng.uniform(0.1, 0.9, count), rng.uniform(0.12, 0.58, count)], 1)
    texel = (root * TEXTURE_SIZE).astype(int)
    root = root[rng.random(count) < mask[texel[:, 1], texel[:, 0]] * 1.2]
    outward = (root[:, 0] - 0.5) * 1.2 + rng.normal(0, 0.35, len(root))
    length = (0.004 if beard.stubble else 0.016) * rng.uniform(0.6, 1.3, len(root))
    tip = root + length[:, None] * np.stack([np.sin(outward), -np.cos(outward)], 1)
    hairs = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
    draw_lines(hairs, list(np.stack([root, tip], 1)), 235)
    body = mask * (0.5 if beard.stubble else 0.72)
    np.maximum(hairs, (body * 255).clip(0, 255).astype(np.uint8), out=hairs)
    _paint_hairs(color, gloss, hairs, _facial_hair_tint(identity), 0.55 if beard.stubble else 0.92, 0.8)


def hair_texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw strands of hair: (256, 512, 2) uint8, brightness and height.

    Strands run along the first axis. The second axis tiles.
    """
    fine = rng.standard_normal((10, 512)).astype(np.float32)
    coarse = cv2.resize(rng.standard_normal((5, 96)).astype(np.float32), (512, 10), interpolation=cv2.INTER_LINEAR)
    strands = cv2.resize(0.7 * fine + 0.8 * coarse, (512, 256), interpolation=cv2.INTER_CUBIC)
    strands[:, -16:] += np.linspace(0, 1, 16) * (strands[:, :1] - strands[:, -16:])
    height = cv2.GaussianBlur(strands, (0, 0), 1.0)
    return np.stack([(128 + 52 * strands).clip(0, 255), (128 + 52 * height).clip(0, 255)], -1).astype(np.uint8)
