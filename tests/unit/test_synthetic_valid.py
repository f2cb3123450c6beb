"""The second face model, VALID: its files are made up here, two people with the layout of the real ones."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from hf_geaau.errors import FaceModelError
from hf_geaau.synthetic import load_face_model
from hf_geaau.synthetic.action_units import ACTION_UNITS
from hf_geaau.synthetic.expressions import expression
from hf_geaau.synthetic.face_model import FaceModel
from hf_geaau.synthetic.people import IDENTITIES_PER_PART, sample_identity
from hf_geaau.synthetic.scenes import sample_scene
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES
from hf_geaau.synthetic.valid_clone import PARTS, convert_clone

SIDED = ["lipUp", "lipDown", "lipSide", "lipCorner", "smileClose", "mouthSad", "disgust", "blow", "nostril"]
SIDED += ["eyeClose", "eyeOpen", "squint", "lowLid", "pityful", "browUp", "browDown", "RbrowUp", "RbrowDown"]
SHAPES = [side + name.replace("Rbrow", side + "brow") for name in SIDED for side in "RL"]
SHAPES += [
    "MPB_Up",
    "MPB_Down",
    "JawCompress",
    "Rjaw",
    "Ljaw",
    "JawFront",
    "MouthOpen",
    "Shout",
    "SH_CH",
    "Kiss",
    "Chin",
]
NAMES = ("Asian_F_1", "White_M_1")


class Glb:
    """Collects arrays and writes a glTF binary file with quantized positions, as the real ones have."""

    def __init__(self):
        self.binary, self.views, self.accessors = b"", [], []

    def view(self, data):
        self.views.append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data + bytes(-len(data) % 4)
        return len(self.views) - 1

    def accessor(self, values, kind, normalized=False):
        codes = {"i2": 5122, "u1": 5121, "u2": 5123, "f4": 5126}
        self.accessors.append(
            {"bufferView": self.view(values.tobytes()), "componentType": codes[values.dtype.str[1:]], "type": kind}
            | {"count": len(values), "normalized": normalized}
        )
        return len(self.accessors) - 1

    def content(self, rest):
        fields = {"asset": {"version": "2.0"}, "buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(fields | {"bufferViews": self.views, "accessors": self.accessors} | rest).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(self.binary), 0x004E4942) + self.binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def grid(u, v):
    """Return texture coordinates (n, 2) and triangles of a grid."""
    uv = np.stack(np.meshgrid(u, v), -1).reshape(-1, 2)
    corner = (np.arange(len(v) - 1)[:, None] * len(u) + np.arange(len(u) - 1)).reshape(-1, 1)
    triangles = np.concatenate([corner + np.array(corners) for corners in ([0, len(u), 1], [1, len(u), len(u) + 1])])
    return uv, triangles


def meshes(width):
    """Return texture coordinates, positions in meters and triangles of each part of a face of a given width."""
    made = {}
    uv, triangles = grid(np.linspace(0.13, 0.52, 61), np.linspace(0.05, 0.52, 81))
    x, y = 0.5 * width * (uv[:, 0] - 0.3255), 1.6 - 0.48 * (uv[:, 1] - 0.215)
    made["H_DDS_HighRes"] = uv, np.column_stack([x, y, 0.125 - 8 * x**2 - 2 * (y - 1.58) ** 2]), triangles
    places = {"h_TeethUp": (0, 1.545), "h_TeethDown": (0, 1.535), "h_L_eye": (0.031, 1.6), "h_R_eye": (-0.031, 1.6)}
    places |= {"h_L_gland": (0.018, 1.6), "h_R_gland": (-0.018, 1.6)}
    for number, (name, (middle, height)) in enumerate(places.items()):
        uv, triangles = grid(np.linspace(0.6, 0.7, 9), np.linspace(0.1 * number, 0.1 * number + 0.08, 9))
        across, up = 0.14 * (uv[:, 0] - 0.65), 0.14 * (uv[:, 1] - 0.1 * number - 0.04)
        depth = np.sqrt(np.maximum(0.0156**2 - across**2 - up**2, 0)) if "eye" in name else 0 * up - 0.01
        made[name] = uv, np.column_stack([middle + across, height + up, 0.1 + depth]), triangles
    return made


def movement(shape, part, place):
    """Return the movement (n, 3) in meters of one shape: the jaw falls below the mouth, the rest are bumps."""
    moved = np.zeros_like(place)
    if shape in ("MouthOpen", "Shout"):
        moved[:, 1] = -0.018 * (place[:, 1] < 1.531) * (part in (PARTS[0], PARTS[2]))
        return moved
    side = {"L": 1, "R": -1}.get(shape[0] if shape[0] in "LR" else "", 0)
    height = 1.6 if "eye" in shape or "Lid" in shape or "squint" in shape else 1.62 if "brow" in shape else 1.53
    away = np.linalg.norm(place[:, :2] - [0.03 * side, height], axis=1) / 0.01
    moved[:, 1] = 0.004 * np.exp(-(away**2)) * (part == PARTS[0])
    return moved


def write_avatar(path, width, color):
    glb, nodes, skins, mesh_list = Glb(), [{"name": "root", "scale": [0.01] * 3}], [], []
    for part, (uv, place, triangles) in meshes(width).items():
        # positions as fractions of 2 m; the joint's inverse bind matrix scales them to centimeters, the joint to meters
        stored = np.round(place / 2 * 32767).astype("<i2")
        inverse = np.diag([200.0, 200, 200, 1]).astype("<f4").reshape(1, 16)
        primitive = {
            "attributes": {
                "POSITION": glb.accessor(stored, "VEC3", normalized=True),
                "TEXCOORD_0": glb.accessor(np.round(uv * 65535).astype("<u2"), "VEC2", normalized=True),
                "JOINTS_0": glb.accessor(np.zeros((len(uv), 4), "u1"), "VEC4"),
                "WEIGHTS_0": glb.accessor(
                    np.tile(np.array([255, 0, 0, 0], "u1"), (len(uv), 1)), "VEC4", normalized=True
                ),
            },
            "indices": glb.accessor(triangles.astype("<u2").reshape(-1, 1), "SCALAR"),
            "material": 0,
        }
        names = []
        for shape in SHAPES if part in ("H_DDS_HighRes", "h_TeethDown") else []:
            moved = np.round(movement(shape, part, place) / 2 * 32767).astype("<i2")
            primitive.setdefault("targets", []).append({"POSITION": glb.accessor(moved, "VEC3", normalized=True)})
            names.append(f"h_teeth.t_{shape}_h" if part == "h_TeethDown" else shape)
        skins.append({"joints": [0], "inverseBindMatrices": glb.accessor(inverse, "MAT4")})
        mesh_list.append({"name": part, "primitives": [primitive], "extras": {"targetNames": names}})
        nodes.append({"name": part, "mesh": len(mesh_list) - 1, "skin": len(skins) - 1})
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(picture, "WEBP", lossless=True)
    image = {"mimeType": "image/webp", "bufferView": glb.view(picture.getvalue())}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        glb.content(
            {
                "nodes": nodes, "skins": skins, "meshes": mesh_list, "images": [image],
                "scenes": [{"nodes": list(range(len(nodes)))}],
                "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
                "textures": [{"extensions": {"EXT_texture_webp": {"source": 0}}}],
            }
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid-avatars-glb")
    write_avatar(folder / "avatars" / "Asian" / "Asian_F_1_Casual.glb", 0.95, (230, 180, 150))
    write_avatar(folder / "avatars" / "White" / "White_M_1_Casual.glb", 1.05, (120, 80, 60))
    return folder


@pytest.fixture(scope="module")
def model(clone, tmp_path_factory) -> FaceModel:
    return load_face_model(clone, tmp_path_factory.mktemp("cache"))


def test_a_clone_becomes_vertices_that_correspond(clone, tmp_path):
    convert_clone(clone, tmp_path)
    heads = np.load(tmp_path / "valid_heads.npz")
    assert heads["names"].tolist() == list(NAMES)
    assert sorted(heads["expression_names"]) == sorted(SHAPES)  # those of the teeth under the same names
    narrow, wide = heads["vertices"][:, heads["part"] == 0]
    assert np.abs(narrow[:, 0]).max() / np.abs(wide[:, 0]).max() == pytest.approx(0.95 / 1.05, abs=1e-3)
    expected = meshes(0.95)["H_DDS_HighRes"][1]
    nearest = np.linalg.norm(narrow[:, None] - expected, axis=-1).min(1)
    assert nearest.max() < 1e-4  # the quantization
    jaw = heads["expression_deltas"][0, heads["expression_names"].tolist().index("MouthOpen")] * heads["delta_unit"]
    assert jaw[:, 1].min() == pytest.approx(-0.018, abs=2e-4)
    assert (jaw[heads["part"] == 2, 1] < 0).any()  # the lower teeth fall with it
    assert heads["triangles"].max() < len(heads["uv"])


def test_the_converted_heads_are_kept(clone, tmp_path, monkeypatch):
    first = load_face_model(clone, tmp_path)
    monkeypatch.setattr("hf_geaau.synthetic.valid_clone.convert_clone", lambda *_: pytest.fail("converted again"))
    assert np.array_equal(load_face_model(clone, tmp_path).vertices, first.vertices)
    monkeypatch.undo()
    (packed,) = tmp_path.glob("*/valid_heads.npz")
    packed.write_bytes(packed.read_bytes()[:1000])
    assert np.array_equal(load_face_model(clone, tmp_path).vertices, first.vertices)  # converted again


def test_shapes_have_our_names_and_eyes_lie_where_those_of_ict_facekit_do(model):
    eyes = model.vertices[model.landmarks68[36:48]].mean(0)
    assert np.allclose(eyes[:2], [0, 3.5], atol=0.4)
    assert model.expression_deltas.shape == (len(EXPRESSION_SHAPES), len(model.vertices), 3)
    falls = model.expression_deltas[EXPRESSION_SHAPES.index("jawOpen"), :, 1]
    assert falls[model.landmarks68[8]] < -1 and falls[model.landmarks68[51]] == 0
    left, right = (EXPRESSION_SHAPES.index(f"mouthSmile_{side}") for side in "LR")
    lifted = np.abs(model.expression_deltas[[left, right], :, 1].astype(float))
    assert (lifted * model.vertices[:, 0]).sum(1) @ [1, -1] > 0  # the person's left is at positive x
    out = model.expression_deltas[EXPRESSION_SHAPES.index("eyeLookOut_L")].astype(float)
    front = model.vertices[:, 2].argsort()[::-1]
    ball = [v for v in front if np.abs(out[v]).sum() > 0][:5]
    assert (out[ball, 0] > 0).all()  # outward is toward the left


def test_gaps_are_measured_and_label_parted_lips(model):
    gaps = model.scans.people.gaps
    assert gaps.lips["jawOpen"] > 1 and gaps.lips["mouthClose"] < -1 and abs(gaps.lips["mouthSmile"]) < 0.2
    wanted = np.zeros(len(ACTION_UNITS))
    wanted[ACTION_UNITS.index(26)] = 4
    shown = expression(wanted, np.random.default_rng(0), nuisances=False, gaps=gaps)
    assert shown.intensities[ACTION_UNITS.index(25)] >= 1


def test_people_are_blends_and_sets_share_nobody(model):
    people = model.scans.people
    shape = sample_identity(0, 3, people).shape
    assert shape.sum() == pytest.approx(1) and (shape >= 0).all()
    assert np.allclose(sample_identity(0, 3, people).skin.tone, shape @ people.tones)
    assert np.array_equal(sample_scene(0, 1, 3, people=people).identity.shape, shape)


def test_real_sets_share_nobody():
    from hf_geaau.synthetic.people import People
    from hf_geaau.synthetic.valid import parts_of

    groups = ("AIAN", "Asian", "Black", "White")
    names = tuple(f"{group}_{sex}_{number}" for group in groups for sex in "FM" for number in (1, 2, 3))
    people = People(names, np.ones((len(names), 3), np.float32), None, parts_of(names))
    rng = np.random.default_rng(0)
    shares = [sum(people.blend(rng, part * IDENTITIES_PER_PART + number) for number in range(200)) for part in range(6)]
    used = [{names[person] for person in np.flatnonzero(share)} for share in shares]
    assert used[2] == used[3] and used[0] == used[4] == used[5] and min(map(len, used)) >= 4
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


@pytest.mark.parametrize("damage", ["text", "cut", "no eye"])
def test_damaged_files_end_in_one_line(tmp_path, damage):
    file = tmp_path / "avatars" / "Asian" / "Asian_F_1_Casual.glb"
    write_avatar(file, 1.0, (200, 150, 130))
    content = file.read_bytes()
    damaged = {
        "text": b"version https://git-lfs",
        "cut": content[:2000],
        "no eye": content.replace(b"h_L_eye", b"h_X_eye"),
    }
    file.write_bytes(damaged[damage])
    with pytest.raises(FaceModelError, match=r"Cannot read the avatar '.*Asian_F_1_Casual.glb': .*Clone") as caught:
        load_face_model(tmp_path, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_compressed_views_are_decoded():
    meshoptimizer = pytest.importorskip("meshoptimizer", reason="needs the PyPI package meshoptimizer")
    from hf_geaau.synthetic.valid_clone import decompressed

    values = np.arange(48, dtype="<u2").reshape(6, 8)
    packed = meshoptimizer.encode_vertex_buffer(values, 6, 16)
    assert decompressed({"count": 6, "byteStride": 16, "mode": "ATTRIBUTES"}, packed) == values.tobytes()
    triangles = np.array([0, 1, 2, 2, 1, 3], np.uint32)
    packed = meshoptimizer.encode_index_buffer(triangles, 6, 4)
    decoded = np.frombuffer(decompressed({"count": 6, "byteStride": 2, "mode": "TRIANGLES"}, packed), "<u2")
    assert sorted(map(sorted, decoded.reshape(-1, 3).tolist())) == [[0, 1, 2], [1, 2, 3]]
