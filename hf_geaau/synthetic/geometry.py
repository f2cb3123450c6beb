"""Triangles of one head: face model to drawable mesh, hair as a surface around the skull, spectacles.

Lengths in cm, y up, z towards the camera, x to the image's right (the subject's left).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .face_model import FaceModel
from .sampling import EXPRESSION_SHAPES, TRAITS, Glasses, Hair
from .textures import smooth_noise

Array = NDArray[Any]  # what it holds is said beside it; numpy's own types would hide the code

SKIN, BACK_HEAD, MOUTH, TEETH, EYE, LASHES = range(6)
_MATERIALS = {
    "M_Face": SKIN, "M_BackHead": BACK_HEAD, "M_GumsTongue": MOUTH, "M_Teeth": TEETH, "M_ScleraLeft": EYE,
    "M_ScleraRight": EYE, "M_EyeLashes": LASHES,
}  # fmt: skip
"""What is drawn. Sclera meshes bulge over the iris meshes, so irises are coloured on the sclera by angle instead."""


class HeadMesh:
    """The face model, reduced to what is drawn and cut at texture seams.

    V vertices of the surface, S >= V vertices after the cut (one per pair of vertex and texture coordinate).

    Attributes:
        neutral: (V, 3); expression_deltas (55, V*3) and identity_deltas (100, V*3), float32.
        landmarks: (68,) indices into V; landmark_uv: (68, 2).
        triangles: (T, 3) int32 into S; source: (S,) index into V.
        uv: (S, 2); material: (S,) one of SKIN … LASHES.
        eyeballs: Indices into V of the subject's left and right eyeball.
        upper_teeth, lower_teeth: (V,) bool, those that the jaw leaves and those that it carries.
        eye_angles: (S, 2) degrees from the gaze axis, to the right and up; only on EYE.
    """

    def __init__(self, model: FaceModel) -> None:
        code = np.array([_MATERIALS.get(name, -1) for name in model.materials])[model.triangle_material]
        triangles, uv_triangles = model.triangles[code >= 0], model.uv_triangles[code >= 0]
        code = code[code >= 0]
        used = np.unique(triangles)
        renumber = np.full(len(model.vertices), -1)
        renumber[used] = np.arange(len(used))
        corners = renumber[triangles]
        self.neutral: Array = model.vertices[used]
        self.expression_deltas: Array = (
            model.expression_deltas[:, used].reshape(len(model.expression_deltas), -1).astype("f4")
        )
        self.identity_deltas: Array = (
            model.identity_deltas[:, used].reshape(len(model.identity_deltas), -1).astype("f4")
        )
        self.landmarks = renumber[model.landmarks68]
        pairs = corners.astype(np.int64) * len(model.uv) + uv_triangles
        unique, self.triangles = np.unique(pairs.reshape(-1), return_inverse=True)
        self.triangles = self.triangles.reshape(-1, 3).astype(np.int32)
        self.source = (unique // len(model.uv)).astype(np.int32)
        self.uv: Array = model.uv[unique % len(model.uv)]
        self.material = np.zeros(len(unique), np.float32)
        self.material[self.triangles.reshape(-1)] = np.repeat(code, 3)
        uv_of_vertex = np.zeros((len(used), 2), np.float32)
        uv_of_vertex[self.source[::-1]] = self.uv[::-1]
        self.uv_of_vertex: Array = uv_of_vertex
        self.landmark_uv: Array = uv_of_vertex[self.landmarks]
        self.material_of_vertex = np.zeros(len(used), np.float32)
        self.material_of_vertex[self.source] = self.material
        self._carry_brows()
        self._prepare_teeth()
        self._prepare_eyes(model)
        self._prepare_lashes()
        self._prepare_normals(corners, code)
        self.trait_deltas: Array = _trait_deltas(self)
        self._prepare_relief()

    def _carry_brows(self) -> None:
        """Let the shapes that move the brow ridge move the brows whole, which lie below the ridge on most people.

        At their height the ridge's movement has half gone, so that a brow would be stretched instead of raised. The
        loose skin between brow and lid, which folds and unfolds on people too, takes up the difference.
        """
        place = np.flatnonzero(self.material_of_vertex == SKIN)
        place = place[(self.neutral[place, 2] > 3) & (self.neutral[place, 1] > 3) & (self.neutral[place, 1] < 7)]
        here = self.neutral[place, :2]
        beside_nose = _smoothstep(0.6, 1.4, np.abs(here[:, 0]))[:, None]
        for names, reach in _BROW_REACH_CM.items():
            above = np.column_stack([here[:, 0], np.interp(here[:, 1], *reach)])
            distance = np.linalg.norm(above[:, None] - here, axis=-1)
            near = np.argsort(distance, 1)[:, :6]
            weight = 1 / (np.take_along_axis(distance, near, 1) + 0.02) ** 2
            weight /= weight.sum(1, keepdims=True)
            for name in names:
                moved = self.expression_deltas[EXPRESSION_SHAPES.index(name)].reshape(-1, 3)
                carried = (weight[..., None] * moved[place][near]).sum(1)
                inside = (above[:, 1:] > here[:, 1:] + 1e-3) * beside_nose
                moved[place] += (inside * (carried - moved[place])).astype(np.float32)
        for side in "LR":  # browOuterUp lifts the inner end half as much as the outer; AU02 does not
            outer, inner = (EXPRESSION_SHAPES.index(f"brow{part}Up_{side}") for part in ("Outer", "Inner"))
            self.expression_deltas[outer] -= 0.45 * self.expression_deltas[inner]

    def _prepare_teeth(self) -> None:
        """Find the teeth that the jaw carries and those that it does not."""
        teeth = self.material_of_vertex == TEETH
        falls = self.expression_deltas[EXPRESSION_SHAPES.index("jawOpen")].reshape(-1, 3)[:, 1]
        carried = falls < falls[teeth].mean() if teeth.any() else teeth
        self.upper_teeth, self.lower_teeth = teeth & ~carried, teeth & carried

    def _prepare_eyes(self, model: FaceModel) -> None:
        angles = np.full((len(self.neutral), 2), 180, np.float32)
        renumber = {vertex: place for place, vertex in enumerate(np.unique(model.triangles[np.isin(
            model.triangle_material, [model.materials.index(name) for name in _MATERIALS])]))}  # fmt: skip
        self.eyeballs = []
        for side in ("Left", "Right"):
            ball = np.unique(model.triangles[model.material(f"M_Sclera{side}")])
            iris = np.unique(model.triangles[model.material(f"M_Iris{side}")])
            center = model.vertices[ball].mean(0)
            gaze = unit(model.vertices[iris].mean(0) - center)
            right = unit(np.cross([0, 1, 0], gaze))
            ray = unit(model.vertices[ball] - center)
            x, y = ray @ right, ray @ np.cross(gaze, right)
            angle = np.degrees(np.arccos((ray @ gaze).clip(-1, 1)))
            place = np.array([renumber[vertex] for vertex in ball])
            angles[place] = (angle / np.maximum(np.hypot(x, y), 1e-6))[:, None] * np.stack([x, y], 1)
            self.eyeballs.append(place)
            # The cornea bulges so far that it would pierce a closing lid: flatten it, and sit back a little.
            length = np.linalg.norm(model.vertices[ball] - center, axis=1)
            self.neutral[place] += ray * (np.minimum(length, np.median(length) + 0.02) - length)[:, None]
            self.neutral[place, 2] -= 0.05
        self.eye_angles: Array = angles[self.source]

    def _prepare_lashes(self) -> None:
        """Find from each lash vertex the way back to the lid, so that lashes can be short."""
        lashes = np.flatnonzero(self.material_of_vertex == LASHES)
        lids = self.neutral[self.material_of_vertex == SKIN]
        self.lash_roots = np.zeros_like(self.neutral)
        if not (len(lashes) and len(lids)):
            return
        box = self.neutral[lashes].min(0) - 0.5, self.neutral[lashes].max(0) + 0.5
        lids = lids[((lids > box[0]) & (lids < box[1])).all(1)]
        distance = np.linalg.norm(self.neutral[lashes][:, None] - lids, axis=-1)
        self.lash_roots[lashes] = lids[distance.argmin(1)] - self.neutral[lashes]

    def _prepare_normals(self, corners: Array, code: Array) -> None:
        """Sort the skin's triangle corners by vertex, so that normals are one gather and one segmented sum."""
        self._skin_corners = corners[code <= BACK_HEAD].astype(np.int32)
        flat = self._skin_corners.reshape(-1)
        order = np.argsort(flat, kind="stable")
        self._face_of_corner = (order // 3).astype(np.int32)
        self._skin_vertices, self._corner_starts = np.unique(flat[order], return_index=True)
        self._rest_normals = np.zeros_like(self.neutral)
        every = corners.astype(np.int32)
        cross = _triangle_cross(self.neutral, every)
        for axis in range(3):
            self._rest_normals[:, axis] = np.bincount(
                every.reshape(-1), np.repeat(cross[:, axis], 3), len(self.neutral)
            )
        self._rest_normals = unit(self._rest_normals)

    def normals(self, vertices: Array) -> Array:
        """Vertex normals (V, 3): exact on skin, spheres on eyeballs, those of the rest pose in the mouth."""
        normals = self._rest_normals.copy()
        cross = _triangle_cross(vertices, self._skin_corners)[self._face_of_corner]
        normals[self._skin_vertices] = unit(np.add.reduceat(cross, self._corner_starts, axis=0))
        for ball in self.eyeballs:
            normals[ball] = self._eyeball_normals(vertices, ball)
        return normals

    def _prepare_relief(self, steps: int = 3) -> None:
        """Find for each vertex of the face up to eight others some steps away across the surface, half a cm or so."""
        face = np.flatnonzero(self.material_of_vertex == SKIN)
        corners = self._skin_corners
        edges = np.concatenate([corners[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2))])
        edges = np.unique(edges, axis=0)
        slot = np.arange(len(edges)) - np.searchsorted(edges[:, 0], edges[:, 0])
        edges, slot = edges[slot < 8], slot[slot < 8]
        beside = np.repeat(np.arange(len(self.neutral))[:, None], 8, 1)
        beside[edges[:, 0], slot] = edges[:, 1]
        start, here = np.repeat(face, 8), beside[face].reshape(-1)
        heading = self.neutral[here] - self.neutral[start]
        for _ in range(steps - 1):  # go straight on
            options = beside[here]
            ahead = ((self.neutral[options] - self.neutral[here][:, None]) * heading[:, None]).sum(-1)
            here = options[np.arange(len(here)), ahead.argmax(1)]
        self._relief_face, self._relief_ring = face, here.reshape(-1, 8).astype(np.int32)
        self._relief_at_rest = np.zeros(len(face), np.float32)
        self._relief_at_rest = self.relief(self.neutral, self.normals(self.neutral))[face]

    def relief(self, vertices: Array, normals: Array) -> Array:
        """How deep each vertex (V,) lies below its surroundings, in cm, against the neutral head; 0 off the face.

        Folds, the hollow under the lower lip and the line beside a raised cheek are positive, the cheek is negative.
        """
        depth = np.zeros(len(vertices), np.float32)
        if len(self._relief_face):
            around = vertices[self._relief_ring].mean(1) - vertices[self._relief_face]
            depth[self._relief_face] = (around * normals[self._relief_face]).sum(1) - self._relief_at_rest
        return depth

    def _eyeball_normals(self, vertices: Array, ball: Array) -> Array:
        return unit(vertices[ball] - vertices[ball].mean(0))

    @cached_property
    def is_skin(self) -> Array:
        """(V,) whether a vertex lies on the face or the back of the head."""
        return self.material_of_vertex <= BACK_HEAD


def _triangle_cross(vertices: Array, triangles: Array) -> Array:
    a, b, c = (vertices[triangles[:, place]] for place in range(3))
    u, v = (b - a).T, (c - a).T
    return np.stack([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]], 1)


# Heights on the neutral mesh, and the heights whose movement they take: from the lid's fold to above the brow.
_BROW_REACH_CM = {
    ("browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R"): ((0, 4.45, 4.9, 5.6), (0, 4.45, 5.45, 5.6)),
    ("browDown_L", "browDown_R"): ((0, 4.35, 4.85, 5.4), (0, 4.35, 5.15, 5.4)),
}

# Movement in cm of landmarks (of 68), of the image's left half; the other half mirrors it. Our choice, by eye.
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
# Bumps: centre (x < 0, y), radii (x, y) and movement (x, y, z), cm on the neutral mesh; both sides.
_BUMP_TRAITS = {
    "hooded_lids": ((-3.9, 4.65), (1.3, 0.42), (0.0, -0.26, 0.14)),
    "pouches": ((-3.2, 2.15), (1.1, 0.38), (0.0, -0.04, 0.20)),
    "cheeks": ((-4.3, -0.6), (1.3, 1.5), (-0.15, 0.0, 0.28)),
    "jowls": ((-4.2, -6.3), (1.2, 1.1), (-0.1, -0.45, 0.12)),
}
_MIRRORED_LANDMARK = {**{i: 16 - i for i in range(17)}, 17: 26, 18: 25, 19: 24, 20: 23, 21: 22, 27: 27, 30: 30, 31: 35,
                      33: 33, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46, 48: 54, 49: 53, 50: 52, 51: 51, 57: 57,
                      58: 56, 59: 55, 62: 62, 66: 66}  # fmt: skip


def _trait_deltas(mesh: HeadMesh) -> Array:
    """Movement of all vertices for each of sampling.TRAITS at strength 1: (8, V*3) float32.

    Traits of landmarks become the most likely face that has them: weights of the identity components by ridge
    regression, so that the rest of the head follows as it does on people.
    """
    deltas = np.zeros((len(TRAITS), len(mesh.neutral), 3), np.float32)
    components = mesh.identity_deltas.reshape(len(mesh.identity_deltas), -1, 3)
    side = np.where(mesh.neutral[:, 0] < 0, 1, -1)
    for place, name in enumerate(TRAITS):
        if name in _BUMP_TRAITS:
            center, radii, movement = _BUMP_TRAITS[name]
            away = (-np.abs(mesh.neutral[:, 0]) - center[0]) / radii[0], (mesh.neutral[:, 1] - center[1]) / radii[1]
            bump = np.exp(-0.5 * (away[0] ** 2 + away[1] ** 2)) * (mesh.material_of_vertex == SKIN)
            bump *= mesh.neutral[:, 2] > 4
            deltas[place] = bump[:, None] * np.array(movement) * np.stack([side, 1 + 0 * side, 1 + 0 * side], 1)
            continue
        moved = {**_LANDMARK_TRAITS[name]}
        moved.update({_MIRRORED_LANDMARK[i]: (-x, y, z) for i, (x, y, z) in _LANDMARK_TRAITS[name].items()})
        at = components[:, mesh.landmarks[list(moved)]].reshape(len(components), -1)
        target = np.array(list(moved.values())).reshape(-1)
        weights = np.linalg.solve(at @ at.T + 0.02 * np.eye(len(at)), at @ target)
        deltas[place] = np.tensordot(weights, components, 1)
    return deltas.reshape(len(TRAITS), -1)


def unit(vectors: Array) -> Array:
    """Scale vectors (..., 3) to length one."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


@dataclass(frozen=True)
class Surface:
    """A drawable surface: vertices (N, 3), normals (N, 3), extra (N, 3) per-vertex values, triangles (T, 3)."""

    vertices: Array
    normals: Array
    extra: Array
    triangles: Array


_SKULL_CENTER = np.array([0.0, 4.5, 0.0])
_AROUND, _DOWN = 129, 34  # grid of the hair surface


def _smoothstep(low: float, high: float, value: Array) -> Array:
    t = ((value - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def hair_end(hair: Hair, around: Array, line_only: bool = False) -> Array:
    """Height in cm where hair ends, at angles around the head (0 front, ±π back, radians).

    With `line_only`, the hairline on the scalp instead of the ends of fringe and long hair.
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
        below = np.minimum(below, hair.length) if hair.length < 3 else below + 0 * side
    edge = 1.0 if line_only or hair.length >= 3 else hair.face_angle
    bend = 0.14 if line_only or hair.length >= 3 else 0.3  # long hair falls from its parting in a curve
    return front + (below - front) * _smoothstep(edge - bend, edge + bend, side)


def _skull_radius(vertices: Array) -> Array:
    """Distance of the surface from _SKULL_CENTER on a grid: (polar angle 0–2 rad in 24, angle around in 64)."""
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
    for _ in range(4):  # normalised smoothing fills empty cells
        wide = np.concatenate([filled[:, -1:], filled, filled[:, :1]], 1)
        mass = np.concatenate([weight[:, -1:], weight, weight[:, :1]], 1)
        filled, weight = (0.25 * a[:, :-2] + 0.5 * a[:, 1:-1] + 0.25 * a[:, 2:] for a in (wide, mass))
        filled, weight = (
            0.25 * np.vstack([a[:1], a[:-1]]) + 0.5 * a + 0.25 * np.vstack([a[1:], a[-1:]]) for a in (filled, weight)
        )
    return filled / weight


def _lookup(grid: Array, polar: Array, around: Array) -> Array:
    row = (polar / 2.0 * 24 - 0.5).clip(0, 22.999)
    column = ((around / (2 * np.pi) + 0.5) * 64 - 0.5) % 64
    r, c = row.astype(int), column.astype(int) % 64
    fr, fc, n = row - r, column - np.floor(column), (c + 1) % 64
    return (grid[r, c] * (1 - fc) + grid[r, n] * fc) * (1 - fr) + (grid[r + 1, c] * (1 - fc) + grid[r + 1, n] * fc) * fr


def hair_surface(hair: Hair, vertices: Array) -> Surface | None:
    """Lay hair around a head: from the crown over the skull, then hanging down.

    Args:
        hair: What kind.
        vertices: (K, 3) skin of this head without expression.

    Returns:
        The surface with extra = (turn around the head 0–1, distance from the crown 0 to end 1, length in cm), or None
        for bald and shaven heads.
    """
    if hair.style in ("bald", "buzz"):
        return None
    rng, skull = np.random.default_rng([hair.shade, 5]), _skull_radius(vertices)
    around = np.linspace(-np.pi, np.pi, _AROUND)[:, None]
    t = np.linspace(0, 1, _DOWN)[None, :]
    end = hair_end(hair, around) + _uneven_ends(hair, rng)[:, None]
    hangs = (hair.length < 3) & (np.abs(around) > hair.face_angle - 0.2) & (end < 4.2)
    share = np.where(hangs, 0.5, 1.0)  # of the grid that lies on the skull
    polar = (t / share).clip(0, 1) * np.where(hangs, 1.45, _polar_of_height(skull, around, end))
    lumps = smooth_noise(rng, 64, 7 if hair.style == "curly" else 12)
    rows = np.abs(((np.arange(_AROUND) / (_AROUND - 1)) * 100).astype(int) - 50)[:, None]  # mirrored: no seam
    lumps = lumps[rows.clip(0, 63), (t * 63).astype(int) + 0 * rows]
    taper = 1 - 0.75 * _smoothstep(0.72, 1.0, t) * (~hangs & (hair.fringe > hair.hairline - 0.3))
    thickness = 0.12 + hair.thickness * taper * (0.75 + 0.25 * np.cos(polar)) + hair.wave * lumps
    radius = _lookup(skull, polar, around + 0 * polar) + thickness.clip(0.05)
    across, y = radius * np.sin(polar), _SKULL_CENTER[1] + radius * np.cos(polar)
    fall = ((t - share) / (1 - share + 1e-9)).clip(0, 1) * hangs
    covering_ears = np.maximum(across, np.where(hangs, 8.5 + 0.8 * hair.thickness, 0))
    across = across + (covering_ears - across) * _smoothstep(0, 0.12, fall)
    across = across + hair.wave * np.sin(7 * fall + 5 * lumps) * 0.6 * (fall > 0)
    across = across * (1 + 0.10 * np.sin(np.pi * fall))
    grid = np.stack([across * np.sin(around), y + (end - y) * fall, across * np.cos(around)], -1)
    return _grid_surface(grid, around / (2 * np.pi) + 0.5 + 0 * t, t + 0 * around)


def _uneven_ends(hair: Hair, rng: np.random.Generator) -> Array:
    """Let locks end at different heights, in cm around the head; mirrored, so that there is no seam at the back."""
    if hair.style == "cap":
        return np.zeros(_AROUND)
    place = np.abs(np.arange(_AROUND) - _AROUND // 2)
    sides = np.sin(np.linspace(-np.pi, np.pi, _AROUND)) * smooth_noise(rng, _AROUND, 9)[:, 0]
    return 0.22 * (smooth_noise(rng, _AROUND // 2 + 1, 5)[place, 0] + 0.6 * sides)


def _polar_of_height(skull: Array, around: Array, height: Array) -> Array:
    """Polar angle (A, 1) at which the skull has a given height (A, 1), at angles around the head (A, 1)."""
    polar = np.linspace(0, 1.85, 50)[None, :] + 0 * around
    heights = _SKULL_CENTER[1] + _lookup(skull, polar, around + 0 * polar) * np.cos(polar)
    rows = zip(height[:, 0], heights, polar, strict=True)
    return np.array([np.interp(-wanted, -row, angles) for wanted, row, angles in rows])[:, None]


def _grid_surface(grid: Array, turn: Array, down: Array) -> Surface:
    """Turn a grid of points (A, D, 3) into triangles; `turn` and `down` (A, D) become its extra values."""
    normals = unit(np.cross(np.gradient(grid, axis=1), np.gradient(grid, axis=0)))
    normals[:, 0] = [0, 1, 0]
    length = np.cumsum(np.linalg.norm(np.diff(grid, axis=1, prepend=grid[:, :1]), axis=-1), 1)
    count, depth = grid.shape[:2]
    index = (np.arange(count - 1)[:, None] * depth + np.arange(depth - 1)).reshape(-1)
    quads = np.stack([index, index + 1, index + depth, index + depth, index + 1, index + depth + 1], 1)
    flat = [array.reshape(-1, 3).astype(np.float32) for array in (grid, normals, np.stack([turn, down, length], -1))]
    return Surface(flat[0], flat[1], flat[2], quads.reshape(-1, 3).astype(np.int32))


def scalp_cover(hair: Hair, vertices: Array) -> tuple[Array, Array]:
    """How much hair covers the skin, and how much hair shades it, per vertex (K,), 0–1."""
    if hair.style == "bald":
        none = np.zeros(len(vertices), np.float32)
        return none, none
    around = np.arctan2(vertices[:, 0], vertices[:, 2])
    y = vertices[:, 1]
    cover = _smoothstep(-0.1, 0.9, y - hair_end(hair, around, line_only=True))
    if hair.style == "buzz":
        return cover.astype(np.float32), np.zeros(len(vertices), np.float32)
    depth = hair_end(hair, around) - y  # below the ends of the hair
    shade = np.where(depth < 0, 1.0, np.exp(-((depth.clip(0) / 0.7) ** 2)))
    if hair.length < 3:
        curtain = _smoothstep(hair.face_angle - 0.22, hair.face_angle, np.abs(around)) * (y > hair.length)
        shade = np.maximum(shade, curtain)
    return cover.astype(np.float32), shade.astype(np.float32)


def _tube(path: Array, radius: float, closed: bool) -> tuple[Array, Array, Array]:
    """Sweep a hexagon along a path (K, 3)."""
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent = unit(tangent)
    first = unit(np.cross(tangent, [0.3, 0.2, 0.93]))
    second = np.cross(tangent, first)
    angle = np.arange(6) * np.pi / 3
    normals = first[:, None] * np.cos(angle)[:, None] + second[:, None] * np.sin(angle)[:, None]
    vertices = path[:, None] + radius * normals
    count = len(path)
    rings = np.arange(count if closed else count - 1)
    i, j = rings[:, None] * 6, ((rings + 1) % count)[:, None] * 6
    a, b = np.arange(6), (np.arange(6) + 1) % 6
    triangles = np.concatenate([np.stack([i + a, i + b, j + a], -1), np.stack([j + a, i + b, j + b], -1)]).reshape(
        -1, 3
    )
    return vertices.reshape(-1, 3).astype("f4"), normals.reshape(-1, 3).astype("f4"), triangles.astype(np.int32)


def glasses_surfaces(glasses: Glasses, landmarks: Array) -> tuple[Surface, Surface]:
    """Build frame and lenses for a face.

    Args:
        glasses: What kind.
        landmarks: (68, 3) of the face without expression.

    Returns:
        Frame and lenses; extra = (x, y within the lens -1–1, 0).
    """
    eyes = np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0)])
    front = max(landmarks[28, 2] - 0.1, landmarks[[19, 24], 2].max() + 0.3, eyes[:, 2].max() + 1.2)
    height = eyes[:, 1].mean() - 0.25 + glasses.drop
    center = max(abs(eyes[:, 0]).mean(), glasses.half_width + 0.75)

    def bend(x: Array) -> Array:
        return front - 0.022 * x**2

    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    power = 2 / glasses.roundness
    rim = np.stack(
        [
            np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power,
            np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power,
        ],
        1,
    )
    frame, lenses = [], []
    for side in (-1, 1):
        x = side * center + glasses.half_width * rim[:, 0] * side
        y = height + glasses.half_height * rim[:, 1] * (1 - 0.1 * (rim[:, 1] < 0))
        path = np.stack([x, y, bend(x)], 1)
        frame.append(_tube(path, glasses.rim, closed=True))
        middle = path.mean(0, keepdims=True)
        fan = np.stack([np.zeros(36, int), 1 + np.arange(36), 1 + (np.arange(36) + 1) % 36], 1)
        lenses.append((np.concatenate([middle, path]), np.concatenate([[[0, 0]], rim]), fan))
        outer = side * (center + glasses.half_width)
        ear = np.array([side * 7.9, eyes[0, 1] + 0.6, 0.5])
        hinge = np.array([outer, height + 0.45 * glasses.half_height, bend(np.array(outer))])
        bow = np.array([side * 7.7, hinge[1], 0.7 * hinge[2]])
        t = np.linspace(0, 1, 8)[:, None]
        frame.append(
            _tube((1 - t) ** 2 * hinge + 2 * t * (1 - t) * bow + t**2 * ear, max(glasses.rim, 0.1), closed=False)
        )
    x = np.linspace(-(center - glasses.half_width), center - glasses.half_width, 9)
    arch = height + 0.3 * glasses.half_height + 0.25 * np.cos(np.linspace(-1.5, 1.5, 9))
    frame.append(_tube(np.stack([x, arch, bend(x) + 0.1], 1), max(0.8 * glasses.rim, 0.07), closed=False))
    return _merge([(v, n, np.zeros((len(v), 3)), t) for v, n, t in frame]), _merge(
        [(v, unit(np.array([0, 0, 1.0]) + 0 * v), np.column_stack([e, 0 * e[:, 0]]), t) for v, e, t in lenses]
    )


def _merge(parts: list[tuple[Array, Array, Array, Array]]) -> Surface:
    starts = np.cumsum([0] + [len(part[0]) for part in parts[:-1]])
    vertices, normals, extra = (np.concatenate([part[place] for part in parts]).astype("f4") for place in range(3))
    triangles = np.concatenate([part[3] + start for part, start in zip(parts, starts, strict=True)]).astype(np.int32)
    return Surface(vertices, normals, extra, triangles)
