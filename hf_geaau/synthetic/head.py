"""The drawable mesh of a head, made from a face model.

Lengths in cm, y up, z toward the camera, x to the image's right, which is the person's left.
"""

import numpy as np

from hf_geaau.synthetic.face_model import FaceModel
from hf_geaau.synthetic.geometry import FloatArray, IntArray, smoothstep, triangle_cross, unit
from hf_geaau.synthetic.people import Identity
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES, TRAITS
from hf_geaau.synthetic.valid import eye_center

SKIN, BACK_HEAD, MOUTH, TEETH, EYE, LASHES = range(6)

_MATERIALS = {
    "M_Face": SKIN, "M_BackHead": BACK_HEAD, "M_GumsTongue": MOUTH, "M_Teeth": TEETH, "M_ScleraLeft": EYE,
    "M_ScleraRight": EYE, "M_EyeLashes": LASHES,
}  # fmt: skip
"""What is drawn. Sclera meshes bulge over the iris meshes, so irises are colored on the sclera by angle instead."""

# Heights on the neutral mesh, and the heights whose movement they take, from the lid's fold to above the brow.
_BROW_REACH_CM = {
    ("browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R"): ((0, 4.45, 4.9, 5.6), (0, 4.45, 5.45, 5.6)),
    ("browDown_L", "browDown_R"): ((0, 4.35, 4.85, 5.4), (0, 4.35, 5.15, 5.4)),
}

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


_SCANNED_EYE = 1.2
"""The eyeballs of scanned people are larger than those of ICT-FaceKit: their irises fill a smaller angle."""


class HeadMesh:
    """The face model, reduced to what is drawn and cut at texture seams.

    It has V vertices on its surface, and S >= V vertices after the cut, one per pair of vertex and texture coordinate.

    Attributes:
        neutral: (V, 3) float32 vertices of the neutral mean face.
        expression_deltas, identity_deltas, trait_deltas: (55, V*3), (100, V*3) and (8, V*3) float32.
        landmarks: (68,) indices into V, in Multi-PIE order.
        landmark_uv: (68, 2) texture coordinates.
        triangles: (T, 3) int32 indices into S.
        source: (S,) indices into V.
        uv: (S, 2) coordinates in the texture of the skin.
        fold_uv, uv_of_vertex: (S, 2) and (V, 2) coordinates in which wrinkles, beards and make-up are drawn.
        is_scanned: Whether the skin is a photograph of scanned people.
        material, material_of_vertex: (S,) and (V,) one of SKIN, BACK_HEAD, MOUTH, TEETH, EYE, LASHES.
        is_face: (V,) bool, on the face.
        is_skin: (V,) bool, on the face or the back of the head.
        eyeballs: Indices into V of the person's left and right eyeball.
        upper_teeth, lower_teeth: (V,) bool, those that stay and those that move with the jaw.
        lash_roots: (V, 3) way from each lash vertex back to the lid.
        eye_angles: (S, 2) degrees from the gaze axis, to the right and up, only on EYE.
    """

    def __init__(self, model: FaceModel) -> None:
        code = np.array([_MATERIALS.get(name, -1) for name in model.materials])[model.triangle_material]
        triangles, uv_triangles = model.triangles[code >= 0], model.uv_triangles[code >= 0]
        code = code[code >= 0]
        used = np.unique(triangles)
        renumber = np.full(len(model.vertices), -1)
        renumber[used] = np.arange(len(used))
        corners = renumber[triangles]
        self.neutral: FloatArray = model.vertices[used]
        self.expression_deltas, self.identity_deltas = (
            deltas[:, used].reshape(len(deltas), -1).astype(np.float32)
            for deltas in (model.expression_deltas, model.identity_deltas)
        )
        self._person_expressions = None if model.scans is None else model.scans.expressions[:, :, used]
        self.landmarks = renumber[model.landmarks68]
        pairs = corners.astype(np.int64) * len(model.uv) + uv_triangles
        unique, self.triangles = np.unique(pairs.reshape(-1), return_inverse=True)
        self.triangles = self.triangles.reshape(-1, 3).astype(np.int32)
        self.source = (unique // len(model.uv)).astype(np.int32)
        self.uv: FloatArray = model.uv[unique % len(model.uv)]
        self.material = np.zeros(len(unique), np.float32)
        self.material[self.triangles.reshape(-1)] = np.repeat(code, 3)
        self.is_scanned = model.scans is not None
        self.fold_uv: FloatArray = self.uv if model.scans is None else model.scans.chart[used][self.source]
        uv_of_vertex = np.zeros((len(used), 2), np.float32)
        uv_of_vertex[self.source[::-1]] = self.fold_uv[::-1]
        self.uv_of_vertex: FloatArray = uv_of_vertex
        self.landmark_uv: FloatArray = uv_of_vertex[self.landmarks]
        self.material_of_vertex = np.zeros(len(used), np.float32)
        self.material_of_vertex[self.source] = self.material
        self.is_face = self.material_of_vertex == SKIN
        self.is_skin = self.material_of_vertex <= BACK_HEAD
        if not self.is_scanned:
            self._carry_brows()
        self._prepare_teeth()
        self._prepare_eyes(model, renumber)
        self._prepare_lashes()
        self._prepare_normals(corners, code)
        self.trait_deltas = trait_deltas(self)
        self._prepare_relief()

    def expressions_of(self, identity: Identity) -> FloatArray:
        """Return the movements (55, V*3) of the expression shapes on one person's face."""
        if self._person_expressions is None:
            return self.expression_deltas
        own = self.expression_deltas.copy()
        for person in np.flatnonzero(identity.shape):
            own += identity.shape[person] * self._person_expressions[person].reshape(len(own), -1)
        return own

    def _carry_brows(self) -> None:
        """Make the shapes that move the brow ridge move the whole brow, which lies below the ridge on most people.

        At the height of the brow the ridge's movement is halved, so that a brow would be stretched instead of raised.
        The loose skin between brow and lid, which folds and unfolds on people too, takes up the difference.
        """
        area = np.flatnonzero(self.is_face)
        area = area[(self.neutral[area, 2] > 3) & (self.neutral[area, 1] > 3) & (self.neutral[area, 1] < 7)]
        here = self.neutral[area, :2]
        beside_nose = smoothstep(0.6, 1.4, np.abs(here[:, 0]))[:, None]
        for names, reach in _BROW_REACH_CM.items():
            above = np.column_stack([here[:, 0], np.interp(here[:, 1], *reach)])
            distance = np.linalg.norm(above[:, None] - here, axis=-1)
            near = np.argsort(distance, 1)[:, :6]
            weight = 1 / (np.take_along_axis(distance, near, 1) + 0.02) ** 2
            weight /= weight.sum(1, keepdims=True)
            for name in names:
                moved = self.expression_deltas[EXPRESSION_SHAPES.index(name)].reshape(-1, 3)
                carried = (weight[..., None] * moved[area][near]).sum(1)
                inside = (above[:, 1:] > here[:, 1:] + 1e-3) * beside_nose
                moved[area] += (inside * (carried - moved[area])).astype(np.float32)
        for side in "LR":  # browOuterUp lifts the inner end half as much as the outer one. AU02 does not.
            outer, inner = (EXPRESSION_SHAPES.index(f"brow{part}Up_{side}") for part in ("Outer", "Inner"))
            self.expression_deltas[outer] -= 0.45 * self.expression_deltas[inner]

    def _prepare_teeth(self) -> None:
        """Find the teeth that move with the jaw, and those that do not."""
        teeth = self.material_of_vertex == TEETH
        falls = self.expression_deltas[EXPRESSION_SHAPES.index("jawOpen")].reshape(-1, 3)[:, 1]
        carried = falls < falls[teeth].mean() if teeth.any() else teeth
        self.upper_teeth, self.lower_teeth = teeth & ~carried, teeth & carried

    def _prepare_eyes(self, model: FaceModel, renumber: IntArray) -> None:
        """Find the angles from the gaze axis, and flatten the cornea; `renumber` maps the model's vertices to V."""
        angles = np.full((len(self.neutral), 2), 180, np.float32)
        self.eyeballs: list[IntArray] = []
        self._eye_offsets: list[FloatArray] = []  # from the mean of a ball's vertices to its center
        for side in ("Left", "Right"):
            ball = np.unique(model.triangles[model.material(f"M_Sclera{side}")])
            if self.is_scanned:
                center, gaze = eye_center(model.vertices[ball]), np.array([0.0, 0.0, 1.0])
            else:
                iris = np.unique(model.triangles[model.material(f"M_Iris{side}")])
                center = model.vertices[ball].mean(0)
                gaze = unit(model.vertices[iris].mean(0) - center)
            right = unit(np.cross([0, 1, 0], gaze))
            ray = unit(model.vertices[ball] - center)
            x, y = ray @ right, ray @ np.cross(gaze, right)
            angle = np.degrees(np.arccos((ray @ gaze).clip(-1, 1)))
            inside = renumber[ball]
            angle = angle * (_SCANNED_EYE if self.is_scanned else 1)
            angles[inside] = (angle / np.maximum(np.hypot(x, y), 1e-6))[:, None] * np.stack([x, y], 1)
            self.eyeballs.append(inside)
            # The cornea bulges so far that it would pierce a closing lid. Flatten it, and move the eye back a little.
            length = np.linalg.norm(model.vertices[ball] - center, axis=1)
            self.neutral[inside] += ray * (np.minimum(length, np.median(length) + 0.02) - length)[:, None]
            self.neutral[inside, 2] -= 0.05
            self._eye_offsets.append(center - model.vertices[ball].mean(0))
        self.eye_angles: FloatArray = angles[self.source]

    def _prepare_lashes(self) -> None:
        """Find the way from each lash vertex back to the lid, so that lashes can be shortened."""
        lashes = np.flatnonzero(self.material_of_vertex == LASHES)
        lids = self.neutral[self.is_face]
        self.lash_roots = np.zeros_like(self.neutral)
        if not (len(lashes) and len(lids)):
            return
        box = self.neutral[lashes].min(0) - 0.5, self.neutral[lashes].max(0) + 0.5
        lids = lids[((lids > box[0]) & (lids < box[1])).all(1)]
        distance = np.linalg.norm(self.neutral[lashes][:, None] - lids, axis=-1)
        self.lash_roots[lashes] = lids[distance.argmin(1)] - self.neutral[lashes]

    def _prepare_normals(self, corners: IntArray, code: IntArray) -> None:
        """Sort the corners of skin triangles by vertex, so that normals are one gather and one segmented sum."""
        self._skin_corners = corners[code <= BACK_HEAD].astype(np.int32)
        flat = self._skin_corners.reshape(-1)
        order = np.argsort(flat, kind="stable")
        self._face_of_corner = (order // 3).astype(np.int32)
        self._skin_vertices, self._corner_starts = np.unique(flat[order], return_index=True)
        self._rest_normals = np.zeros_like(self.neutral)
        every = corners.astype(np.int32)
        cross = triangle_cross(self.neutral, every)
        for axis in range(3):
            sums = np.bincount(every.reshape(-1), np.repeat(cross[:, axis], 3), len(self.neutral))
            self._rest_normals[:, axis] = sums
        self._rest_normals = unit(self._rest_normals)

    def normals(self, vertices: FloatArray) -> FloatArray:
        """Return vertex normals (V, 3): exact on skin, of spheres on eyeballs, of the neutral pose in the mouth."""
        normals = self._rest_normals.copy()
        cross = triangle_cross(vertices, self._skin_corners)[self._face_of_corner]
        normals[self._skin_vertices] = unit(np.add.reduceat(cross, self._corner_starts, axis=0))
        for ball, offset in zip(self.eyeballs, self._eye_offsets, strict=True):
            normals[ball] = unit(vertices[ball] - vertices[ball].mean(0) - offset)
        return normals

    def _prepare_relief(self, steps: int = 3) -> None:
        """Find up to eight vertices around each vertex of the face, `steps` edges or about half a cm away."""
        face = np.flatnonzero(self.is_face)
        corners = self._skin_corners
        edges = np.concatenate([corners[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2))])
        edges = np.unique(edges, axis=0)
        slot = np.arange(len(edges)) - np.searchsorted(edges[:, 0], edges[:, 0])
        edges, slot = edges[slot < 8], slot[slot < 8]
        beside = np.repeat(np.arange(len(self.neutral))[:, None], 8, 1)
        beside[edges[:, 0], slot] = edges[:, 1]
        start, here = np.repeat(face, 8), beside[face].reshape(-1)
        heading = self.neutral[here] - self.neutral[start]
        for _ in range(steps - 1):  # Go straight on.
            options = beside[here]
            ahead = ((self.neutral[options] - self.neutral[here][:, None]) * heading[:, None]).sum(-1)
            here = options[np.arange(len(here)), ahead.argmax(1)]
        self._relief_face, self._relief_ring = face, here.reshape(-1, 8).astype(np.int32)
        self._relief_at_rest = np.zeros(len(face), np.float32)
        self._relief_at_rest = self.relief(self.neutral, self.normals(self.neutral))[face]

    def relief(self, vertices: FloatArray, normals: FloatArray) -> FloatArray:
        """Return how much deeper each vertex (V,) lies below its surroundings than on the neutral head; 0 off the face.

        Folds, the hollow under the lower lip, and the line beside a raised cheek are positive. The cheek is negative.
        """
        depth = np.zeros(len(vertices), np.float32)
        if len(self._relief_face):
            around = vertices[self._relief_ring].mean(1) - vertices[self._relief_face]
            depth[self._relief_face] = (around * normals[self._relief_face]).sum(1) - self._relief_at_rest
        return depth


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
        if mesh.is_scanned:  # these people have such traits by nature
            continue
        drawn = _LANDMARK_TRAITS[name]
        moved = drawn | {_MIRRORED_LANDMARK[i]: (-x, y, z) for i, (x, y, z) in drawn.items()}
        at = components[:, mesh.landmarks[list(moved)]].reshape(len(components), -1)
        target = np.array(list(moved.values())).reshape(-1)
        weights = np.linalg.solve(at @ at.T + 0.02 * np.eye(len(at)), at @ target)
        deltas[index] = np.tensordot(weights, components, 1)
    return deltas.reshape(len(TRAITS), -1)
