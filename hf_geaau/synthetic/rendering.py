"""Render scenes with OpenGL: a `Scene` becomes pixels and the five points in them.

Needs moderngl (extra `[synthetic]`) and an OpenGL driver with EGL; Mesa's software driver is enough and is what the
speed is tuned for. A `Renderer` belongs to one process. With several EGL devices, the environment variable
GLCONTEXT_DEVICE_INDEX of moderngl's backend picks one, as a GPU beside the software driver.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import MissingExtraError
from hf_geaau.models.geaau.cropping_geaau import CROP_TEMPLATE, similarity_transform
from hf_geaau.synthetic import shaders
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.borrowed_skins import borrowed_skins, own_chart
from hf_geaau.synthetic.environments import Environments
from hf_geaau.synthetic.expressions import ICT_GAPS
from hf_geaau.synthetic.face_model import FaceModel
from hf_geaau.synthetic.geometry import FloatArray, Surface, rotation, unit
from hf_geaau.synthetic.head import LASHES, HeadMesh
from hf_geaau.synthetic.lighting import RADIANCE_OF_IRRADIANCE, harmonics
from hf_geaau.synthetic.looks import PersonLook
from hf_geaau.synthetic.people import Identity
from hf_geaau.synthetic.photography import develop
from hf_geaau.synthetic.scenes import Scene, sample_scene
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES
from hf_geaau.synthetic.skin import TEXTURE_SIZE, hair_texture
from hf_geaau.synthetic.surroundings import background, occlude, shifted_background, shoulders
from hf_geaau.synthetic.views import View, bake_chart, bake_visibility, five_points, jitter_matrix, lip_gap
from hf_geaau.synthetic.visibility import seen_landmarks, visible_shares
from hf_geaau.synthetic.wrinkles import WRINKLE_SIZE, blend_wrinkles, wrinkle_maps

_LOOKS = 4  # Number of people whose looks are kept.
_EYES_CLOSED = ACTION_UNITS.index(43)
_SHUT_GAP_CM, _SUNK_CM = 0.02, 0.3
_HOLLOW_PER_CM = 2.6  # Share of the sky lost per cm of depth below the surroundings. Our choice, by eye.


@dataclass(frozen=True)
class Render:
    """One picture."""

    image: NDArray[np.uint8]  # (H, W, 3) uint8 RGB
    points: NDArray[np.float32]  # (5, 2) float32, true five points in pixels of `image`, in the order of CROP_TEMPLATE
    visible: NDArray[np.float32]  # (18,) float32, share of each action unit's landmarks that nothing hides, 0-1


def _connect() -> Any:
    os.environ.setdefault("LP_NUM_THREADS", "1")  # one process per core renders faster than threads
    try:
        import moderngl
    except ImportError as error:
        raise MissingExtraError(
            "Rendering needs 'moderngl'. Install it with `pip install \"hf_geaau[synthetic]\"`."
        ) from error
    try:
        settings: dict[str, Any] = {"standalone": True, "backend": "egl"}
        return moderngl.create_context(**settings)
    except Exception as error:
        raise MissingExtraError(
            f"Rendering needs OpenGL 3.3 through EGL, got: {error}. On Debian: apt install libegl1 libgl1-mesa-dri."
        ) from error


class Renderer:
    """Draw scenes of one face model.

    Args:
        face_model: From `load_face_model`.
        size: Side of a crop in pixels.
        supersample: Pixels are drawn this many times finer each way, then averaged.
        environments: Panoramas that light some of the scenes that `sample_scene` draws.
        donor: A face model with photographed skins, which some people wear if `face_model` has none of its own.

    Raises:
        MissingExtraError: If moderngl or OpenGL is not installed.
    """

    def __init__(
        self,
        face_model: FaceModel,
        size: int = 128,
        supersample: float = 1.5,
        environments: Environments | None = None,
        donor: FaceModel | None = None,
    ) -> None:
        if size < 16:
            raise ValueError(f"`size` must be at least 16 pixels, got {size}.")
        self.size, self.supersample, self.environments = size, supersample, environments
        self.mesh = HeadMesh(face_model)
        self.face_model, scans = face_model.name, face_model.scans
        self.people = scans.people if scans else None
        self._skins = scans.skins if scans else None
        self.gaps = self.people.gaps if self.people else ICT_GAPS
        self.donors = donor.scans.people if donor and donor.scans and not scans else None
        self._context = _connect()
        self._context.enable(self._context.DEPTH_TEST)
        self._chart: Any = None  # (side, side, 2) where things are painted on photographed skin
        self._look: Any = None  # A PersonLook once something was drawn.
        self._looks: dict[int, PersonLook] = {}
        self._wrinkles: dict[int, FloatArray] = {}
        self._extras: dict[str, tuple[Any, ...]] = {}
        self._targets: dict[tuple[int, int], Any] = {}
        self._build()
        if donor is not None and self.donors is not None:
            self._skins = borrowed_skins(self._context, self.mesh, donor)
            self._chart = own_chart()
        self._sky, seen = bake_visibility(self._context, self.mesh)
        facing = np.maximum(self._sky @ self.mesh.normals(self.mesh.neutral).T, 0)
        # What each vertex gets of each harmonic of the radiance around the head, with and without the head in its way.
        basis = harmonics(self._sky)
        self._from_sky = np.linalg.pinv(basis)  # radiance in each direction -> harmonics
        self._transfer = np.stack([(seen * facing).T @ basis, facing.T @ basis]).astype(np.float32)
        self._seen = np.ascontiguousarray(seen[:, self.mesh.is_skin])

    def close(self) -> None:
        """Release the OpenGL context."""
        self._context.release()

    def _build(self) -> None:
        context, mesh = self._context, self.mesh
        self._head_program, self._lash_program, self._hair_program, self._plain_program = (
            context.program(vertex_shader=shaders.VERTEX + vertex, fragment_shader=shaders.FRAGMENT + fragment)
            for vertex, fragment in (
                (shaders.HEAD_VERTEX, shaders.HEAD_FRAGMENT),
                (shaders.HEAD_VERTEX, shaders.LASH_FRAGMENT),
                (shaders.HAIR_VERTEX, shaders.HAIR_FRAGMENT),
                (shaders.PLAIN_VERTEX, shaders.PLAIN_FRAGMENT),
            )
        )
        static = np.column_stack([mesh.uv, mesh.fold_uv, mesh.material, mesh.eye_angles]).astype("f4")
        count = len(mesh.source)
        self._moving = context.buffer(reserve=count * 10 * 4)
        self._vertex_data = np.zeros((len(mesh.neutral), 10), np.float32)
        self._scalp = context.buffer(reserve=count * 4)
        shape = (self._moving, "3f 3f 4f", "position", "normal", "seen")
        fixed = (context.buffer(static.tobytes()), "2f 2f 1f 2f", "uv", "fold", "material", "eye")
        lashes = mesh.material[mesh.triangles[:, 0]] == LASHES
        solid = mesh.triangles[~lashes]
        # What hides most comes first, the mouth last.
        order = np.array([0, 2, 3, 3, 1])[mesh.material[solid[:, 0]].astype(int)]
        solid = solid[np.argsort(order, kind="stable")]
        self._without_mouth = 3 * int((order < 3).sum())
        self._head = context.vertex_array(
            self._head_program, [shape, fixed, (self._scalp, "1f", "scalp")], context.buffer(solid.tobytes())
        )
        self._lashes = (
            context.vertex_array(
                self._lash_program,
                [(self._moving, "3f 3f 4x4", "position", "normal"), (fixed[0], "2f 5x4", "uv")],
                context.buffer(mesh.triangles[lashes].tobytes()),
            )
            if lashes.any()
            else None
        )
        import moderngl

        side = TEXTURE_SIZE if self._skins is None else self._skins.shape[1]
        self._chart = None if self._skins is None else bake_chart(context, mesh, side)
        self._skin = context.texture((side, side), 4)
        self._folds = context.texture((WRINKLE_SIZE, WRINKLE_SIZE), 1)
        self._skin.build_mipmaps()
        self._skin.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
        strands = hair_texture(np.random.default_rng(11))
        self._strands = context.texture(strands.shape[1::-1], 2, strands.tobytes())
        self._strands.build_mipmaps()
        self._strands.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)

    def sample_scene(
        self,
        seed: int,
        index: int,
        identity_id: int,
        intensities: Sequence[float] | NDArray[np.floating] | None = None,
        style: str = "standard",
    ) -> Scene:
        """Draw a scene with a person of this face model; arguments as of `scenes.sample_scene`."""
        return sample_scene(seed, index, identity_id, intensities, style, self.people, self.donors, self.environments)

    def render(self, scene: Scene) -> Render:
        """Render an aligned crop, `size` × `size`, with an alignment error like a detector's."""
        camera_points, view = self.pose(scene)
        template, truth = np.array(CROP_TEMPLATE) * self.size, five_points(camera_points)
        upright = similarity_transform(truth, template)[:, :2]
        eye_distance = template[1, 0] - template[0, 0]
        detected = truth + scene.point_jitter * eye_distance @ np.linalg.inv(upright).T
        matrix = similarity_transform(detected, template)
        turn, log_scale, *shift = scene.crop_jitter.astype(float)
        jitter = jitter_matrix(turn, np.exp(log_scale), np.array(shift) * self.size, self.size)
        matrix = jitter @ np.vstack([matrix, [0, 0, 1]])
        return self._draw(scene, view, matrix[:2], camera_points, self.size, self.size)

    def render_photo(
        self,
        scene: Scene,
        height: int,
        width: int,
        eye_distance: float,
        center: tuple[float, float],
        roll: float = 0.0,
        backdrop: FloatArray | None = None,
    ) -> Render:
        """Render a whole photo with head, neck and shoulders.

        Args:
            scene: What to show.
            height, width: Size of the photo in pixels.
            eye_distance: Distance of the eyes in pixels, were the face frontal.
            center: x, y of the point between the eyes, in pixels.
            roll: In-plane rotation, radians, clockwise.
            backdrop: (height, width, 3) uint8 RGB to stand before; None for one of the scene's own.
        """
        camera_points, view = self.pose(scene)
        points = five_points(camera_points)
        frontal = np.linalg.norm(np.diff(five_points(view.landmarks)[:2, :2], axis=0)) * view.scale
        size = eye_distance / frontal
        linear = size * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        shift = np.array(center) - linear @ points[:2].mean(0)
        return self._draw(scene, view, np.column_stack([linear, shift]), camera_points, height, width, True, backdrop)

    def pose(self, scene: Scene) -> tuple[FloatArray, View]:
        """Shape the head and look at it: landmarks on the camera plane (68, 2), y down, and what drawing needs."""
        with self._context:  # another renderer of this process may have drawn since
            look = self._prepare_look(scene.identity)
        active = np.flatnonzero(scene.shape_weights)
        vertices = look.rest.copy()
        moved, step = vertices.reshape(-1), np.empty(vertices.size, np.float32)
        for index in active:  # Row by row, because a matrix product would copy the rows first.
            moved += np.multiply(look.expression_deltas[index], scene.shape_weights[index], out=step)
        self._close_lids(vertices, look, scene.side_intensities[_EYES_CLOSED] >= 1)
        turn, focal = rotation(scene.yaw, scene.pitch, scene.roll), scene.camera.distance * look.scale
        view = View(vertices, vertices[self.mesh.landmarks], turn, look.scale, look.center, focal)
        seen = (view.landmarks - look.center) @ turn.T * look.scale
        plane = seen[:, :2] / (focal - seen[:, 2:]) * focal
        return plane * [1, -1], view

    def _close_lids(self, vertices: FloatArray, look: PersonLook, closed: NDArray[np.bool_]) -> None:
        """Shut the left and the right eye, if closed: shapes that close a mean face's may leave a slit on others."""
        for side, (upper, lower) in enumerate((((43, 44), (47, 46)), ((37, 38), (41, 40)))):
            if not closed[side]:
                continue
            pairs = self.mesh.landmarks[[*upper]], self.mesh.landmarks[[*lower]]
            blink = look.expression_deltas[EXPRESSION_SHAPES.index("eyeBlink_L") + side].reshape(-1, 3)
            gap = (vertices[pairs[0], 1] - vertices[pairs[1], 1]).max() - _SHUT_GAP_CM
            speed = (blink[pairs[1], 1] - blink[pairs[0], 1]).mean()
            vertices += np.float32(np.clip(gap / speed, 0, 0.6)) * blink
            vertices[self.mesh.eyeballs[side], 2] -= _SUNK_CM  # else large ones pierce the lids

    def _prepare_look(self, identity: Identity) -> PersonLook:
        if self._look is not None and self._look.identity is identity:
            return self._look
        if len(identity.shape) != len(self.mesh.identity_deltas):
            raise ValueError(
                f"The scene's person must be of {self.face_model}, got one of another face model. "
                "Draw the scene with `renderer.sample_scene`."
            )
        look = self._looks.pop(id(identity), None)
        if look is None or look.identity is not identity:
            look = PersonLook(self.mesh, identity, self._photographed(identity), self._chart)
        self._looks[id(identity)] = look  # people of one clip take turns
        if len(self._looks) > _LOOKS:
            del self._looks[next(iter(self._looks))]
        level: FloatArray = look.texture
        for number in range(len(level).bit_length()):
            self._skin.write(np.ascontiguousarray(level), level=number)
            level = cv2.resize(level, (max(level.shape[0] // 2, 1),) * 2, interpolation=cv2.INTER_AREA)
        self._scalp.write(look.cover[self.mesh.source].astype("f4").tobytes())
        for arrays in self._extras.values():
            for item in arrays:
                item.release()
        self._extras = {}
        if look.hair is not None:
            self._extras["hair"] = self._upload(look.hair, self._hair_program)
        if look.glasses is not None:
            self._extras["frame"] = self._upload(look.glasses[0], self._plain_program)
            self._extras["lens"] = self._upload(look.glasses[1], self._plain_program)
        self._look = look
        return look

    def _photographed(self, identity: Identity) -> FloatArray | None:
        """Blend the photographs of the skins of the people that make up a person; (H, W, 3) uint8."""
        shares = identity.photographed
        if self._skins is None or shares is None:
            return None
        blend = np.zeros(self._skins.shape[1:], np.float32)
        for person in np.flatnonzero(shares):
            blend += shares[person] * self._skins[person]
        return blend.clip(0, 255).astype(np.uint8)

    def _upload(self, surface: Surface, program: Any) -> tuple[Any, ...]:
        data = np.column_stack([surface.vertices, surface.normals, surface.extra]).astype("f4")
        vertices, index = self._context.buffer(data.tobytes()), self._context.buffer(surface.triangles.tobytes())
        array = self._context.vertex_array(program, [(vertices, "3f 3f 3f", "position", "normal", "extra")], index)
        return array, vertices, index

    def _target(self, height: int, width: int) -> Any:
        if (height, width) not in self._targets:
            if len(self._targets) > 3:  # photos of many sizes must not pile up
                for target in self._targets.values():
                    for part in (*target.color_attachments, target.depth_attachment, target):
                        part.release()
                self._targets.clear()
            color = self._context.texture((width, height), 4)
            depth = self._context.depth_texture((width, height))
            self._targets[height, width] = self._context.framebuffer([color], depth)
        return self._targets[height, width]

    def _draw(
        self, scene: Scene, view: View, matrix: FloatArray, landmarks: FloatArray,
        height: int, width: int, body: bool = False, backdrop: FloatArray | None = None,
    ) -> Render:  # fmt: skip
        """Draw, put things before it, and photograph; `matrix` (2, 3) maps the camera plane to pixels.

        `landmarks` (68, 2) lie on the camera plane.
        """
        rng = np.random.default_rng(scene.backdrop_seed)
        fine = self.supersample
        tall, wide = round(height * fine), round(width * fine)
        with self._context:
            layer, seen = self._draw_head(scene, view, matrix * fine, tall, wide)
        # Drawn also where another takes its place: what follows draws from the same rng.
        draw = background if scene.style == "standard" else shifted_background
        image: FloatArray = draw(rng, tall, wide, bright=scene.light.kind == "back")
        backdrop = scene.backdrop if backdrop is None else backdrop
        if backdrop is not None:
            image = cv2.resize(backdrop, (wide, tall), interpolation=cv2.INTER_LINEAR).astype(image.dtype)
        if body:
            self._draw_body(rng, image, view, matrix * fine, 255 * np.sqrt(1 - np.exp(-scene.cloth)))
        alpha = layer[..., 3:].astype(np.uint16)
        image = ((layer[..., :3] * alpha + image * (255 - alpha)) // 255).astype(np.uint8)
        if scene.occluder:
            hidden = occlude(image, scene.occluder, rng, scene.identity.skin.tone)
            columns, rows = (landmarks @ (fine * matrix[:, :2]).T + fine * matrix[:, 2]).T.astype(int)
            seen &= ~hidden[rows.clip(0, tall - 1), columns.clip(0, wide - 1)]
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        final = five_points(landmarks) @ matrix[:, :2].T + matrix[:, 2]
        unit = np.hypot(*matrix[:, 0]) * 2.6  # about the side of a crop
        glasses = scene.identity.glasses
        visible = visible_shares(seen, glasses.tint if glasses and scene.wears_glasses else 0.0)
        return Render(develop(image, scene.camera, rng, unit), final.astype(np.float32), visible)

    def _draw_body(
        self, rng: np.random.Generator, image: FloatArray, view: View, matrix: FloatArray, color: FloatArray
    ) -> None:
        foot = np.array([0.0, -14.5, -2.0]) - view.center
        seen = foot * view.scale
        plane = seen[:2] / (view.focal - seen[2]) * view.focal * [1, -1]
        x, y = matrix[:, :2] @ plane + matrix[:, 2]
        unit = np.hypot(*matrix[:, 0]) * 7.5 * view.scale
        shoulders(rng, image, (x, y), unit, matrix[:, 1] / np.hypot(*matrix[:, 1]), color)

    def _draw_head(
        self, scene: Scene, view: View, matrix: FloatArray, height: int, width: int
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Draw the head alone: (H, W, 4) uint8 with coverage in the fourth channel, and which landmarks are seen."""
        import moderngl

        look, context = self._look, self._context
        clip, turn = view.matrices(matrix, height, width)
        self._write_geometry(scene, view, turn)
        self._set_uniforms(scene, view, clip, turn)
        pattern = scene.identity.wrinkle_pattern
        if pattern not in self._wrinkles:
            self._wrinkles[pattern] = wrinkle_maps(pattern, self.mesh.landmark_uv)
        self._folds.write(blend_wrinkles(self._wrinkles[pattern], scene.wrinkles))
        target = self._target(height, width)
        target.use()
        target.clear(0, 0, 0, 0)
        self._skin.use(0)
        self._folds.use(1)
        self._strands.use(2)
        context.enable(moderngl.CULL_FACE)
        parted = lip_gap(view.landmarks) > lip_gap(look.landmarks) + 0.06
        self._head.render(vertices=-1 if parted else self._without_mouth)
        context.disable(moderngl.CULL_FACE)
        context.enable(moderngl.BLEND)
        context.blend_func = moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA, moderngl.ONE, moderngl.ONE
        if self._lashes is not None:
            self._lashes.render()
        context.disable(moderngl.BLEND)
        if "hair" in self._extras:
            self._extras["hair"][0].render()
        depth = np.frombuffer(target.depth_attachment.read(), np.float32).reshape(height, width)
        seen = seen_landmarks(view, clip, depth)
        if "frame" in self._extras and scene.wears_glasses:
            self._plain_program["lens"].value = 0.0
            self._extras["frame"][0].render()
            context.enable(moderngl.BLEND)
            self._plain_program["lens"].value = 1.0
            self._extras["lens"][0].render()
            context.disable(moderngl.BLEND)
        return np.frombuffer(target.read(components=4), np.uint8).reshape(height, width, 4)[::-1], seen

    def _write_geometry(self, scene: Scene, view: View, turn: FloatArray) -> None:
        """Upload positions, normals, and how much of the sky and of each light every vertex sees."""
        look, light = self._look, scene.light
        toward = light.directions.astype(np.float64) @ turn  # lights in the head's frame
        weights = np.exp(14 * (toward @ self._sky.T - 1))
        data, skin = self._vertex_data, self.mesh.is_skin
        data[:, :3], data[:, 3:6] = view.vertices, self.mesh.normals(view.vertices)
        data[:, 6] = self._open_sky(light.ambient.mean(1), turn) * (1 - 0.55 * look.shade)
        # What the bake of the neutral head cannot know: folds and swellings of this face and this expression.
        hollow = self.mesh.relief(data[:, :3], data[:, 3:6])
        data[:, 6] *= (1 - _HOLLOW_PER_CM * hollow).clip(0.4, 1.25)
        unshaded = (1 - 0.45 * look.shade[skin]) * (1 - 0.4 * _HOLLOW_PER_CM * hollow[skin]).clip(0.6, 1.1)
        for lamp, weight in enumerate(weights):
            near = np.argsort(weight)[-8:]
            data[skin, 7 + lamp] = (weight[near] / weight[near].sum()).astype(np.float32) @ self._seen[near] * unshaded
        self._moving.write(data.take(self.mesh.source, 0))

    def _open_sky(self, ambient: FloatArray, turn: FloatArray) -> FloatArray:
        """Share of the sky's light that reaches each vertex past the head itself: less where the bright part hides."""
        radiance = harmonics(self._sky @ turn.T) @ (ambient * RADIANCE_OF_IRRADIANCE)
        turned = (self._from_sky @ np.maximum(radiance, 0)).astype(np.float32)
        seen, all_ = self._transfer @ turned
        return (seen / np.maximum(all_, 1e-3 * all_.max())).clip(0, 1)

    def _set_uniforms(self, scene: Scene, view: View, clip: FloatArray, turn: FloatArray) -> None:
        identity, light = scene.identity, scene.light
        lids = view.landmarks[[36, 37, 38, 39, 42, 43, 44, 45], :2]
        glasses = identity.glasses
        shared = {
            "clip": clip.T, "turn": turn.T, "light_directions": light.directions, "light_colors": light.colors,
            "light_halves": unit(light.directions + np.array([0, 0, 1])),
            "ambient": light.ambient, "exposure": 2.0**scene.camera.exposure, "hair_color": identity.hair.color,
            "skin_tone": identity.skin.tone, "oil": identity.skin.oil,
            "lids": lids, "lip_depth": view.landmarks[[51, 57], 2].mean(), "lip_gap": lip_gap(view.landmarks),
            "cloth_color": scene.cloth, "collar": scene.collar, "sweep": identity.hair.sweep,
            "iris_color": identity.eyes.iris, "iris_radius": identity.eyes.iris_radius, "pupil": scene.pupil,
            "sclera_color": identity.eyes.sclera, "lash_density": identity.eyes.lash_density,
            "liner": identity.eyes.liner,
            "teeth_color": identity.teeth, "strand": identity.hair.strand, "shade": identity.hair.shade / 1000,
            "gray": identity.hair.gray, "buzz": 0.8 if identity.hair.style == "buzz" else 1.0,
            "cap": float(identity.hair.style == "cap"),
            "scanned": float(self.mesh.is_scanned), "skin": 0, "wrinkles": 1, "strands": 2,
            "frame_color": glasses.color if glasses else np.zeros(3), "tint": glasses.tint if glasses else 0.0,
        }  # fmt: skip
        for program in (self._head_program, self._lash_program, self._hair_program, self._plain_program):
            for name, value in shared.items():
                if name in program:
                    uniform = program[name]
                    if np.ndim(value):
                        uniform.write(np.ascontiguousarray(value, "f4").tobytes())
                    else:
                        uniform.value = value
