"""What is drawn of a person in each of their images."""

import numpy as np

from hf_geaau.synthetic.glasses import glasses_surfaces
from hf_geaau.synthetic.hair import hair_surface, scalp_cover
from hf_geaau.synthetic.head import HeadMesh
from hf_geaau.synthetic.people import Identity
from hf_geaau.synthetic.skin import TEXTURE_SIZE, beard_mask, skin_texture


class PersonLook:
    """The head without expression, hair, glasses and skin texture of one person, the same in all their images.

    Args:
        mesh: The mesh to shape.
        identity: The person.

    Attributes:
        rest: (V, 3) vertices without expression.
        landmarks: (68, 3) before hair on the face lifts the surface.
        center: (3,) mean of the landmarks.
        scale: Turns cm into halves of the face.
        texture: (384, 384, 4) uint8, see `skin.skin_texture`.
        cover, shade: (V,) how much hair covers and shades the skin, 0-1.
        hair: Surface of the hair, or None.
        glasses: Frame and lenses, or None.
    """

    def __init__(self, mesh: HeadMesh, identity: Identity) -> None:
        self.identity = identity
        moved = identity.shape @ mesh.identity_deltas + identity.traits @ mesh.trait_deltas
        moved += identity.resting @ mesh.expression_deltas
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
        self.texture = skin_texture(identity, mesh.landmark_uv)
        if identity.beard.length_cm:
            mask = beard_mask(identity, mesh.landmark_uv)
            texel = (mesh.uv_of_vertex.clip(0, 0.999) * TEXTURE_SIZE).astype(int)
            depth = mask[texel[:, 1], texel[:, 0]] * (mesh.is_face) * identity.beard.length_cm
            down = 0.5 + 0.5 * ((self.landmarks[57, 1] - self.rest[:, 1]) / 3).clip(-0.7, 1)
            self.rest += (depth * down)[:, None].astype(np.float32) * mesh.normals(self.rest)
        self.center = self.landmarks.mean(0)
        self.scale = 1 / np.abs(self.landmarks[:, :2] - self.center[:2]).max()
