"""Convert a clone of `c-frame/valid-avatars-glb` (MIT) into packed heads whose vertices correspond, and their skins.

The files are glTF 2.0 binaries with the extensions EXT_meshopt_compression, KHR_mesh_quantization and EXT_texture_webp.
"""

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import FaceModelError, MissingExtraError
from hf_geaau.files import parse_json, whole_file

PARTS = ("H_DDS_HighRes", "h_TeethUp", "h_TeethDown", "h_L_eye", "h_R_eye", "h_L_gland", "h_R_gland")
"""The meshes of a head; the first is the skin of the whole body."""

REACH_M = (0.2, 0.25)
"""How far beside and below the eyes the skin is kept."""

DELTA_UNIT = 1e-4
"""Unit of the packed movements, in meters."""

_SHAPE_NAME = re.compile(r"(?:h_expressions\.|h_teeth\.)?(?:t_)?(.*?)(?:_h)?")
"""Files name a shape by its group and part, as "h_teeth.t_MouthOpen_h" for the teeth's share of "MouthOpen"."""

_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def clone_files(clone: Path) -> list[Path]:
    """List the files of the people in casual clothes, sorted by name."""
    return sorted(clone.glob("avatars/*/*_Casual.glb"), key=lambda path: path.name)


def convert_clone(clone: Path, folder: Path) -> None:
    """Write `valid_heads.npz` and `textures/NAME_color.webp` of all people of a clone.

    Vertices of one place in the texture are one vertex, and those that all people have are kept, so that people can be
    blended.

    Args:
        clone: The clone's folder.
        folder: Where to write; the heads come last.

    Raises:
        FaceModelError: If a file cannot be read.
        MissingExtraError: If the package meshoptimizer, which has no wheels, is not installed.
    """
    heads = {}
    (folder / "textures").mkdir(parents=True, exist_ok=True)
    for file in clone_files(clone):
        name = file.stem.removesuffix("_Casual")
        try:
            scene = _Scene(file.read_bytes())
            heads[name] = _head(scene)
            with whole_file(folder / "textures" / f"{name}_color.webp") as part:
                part.write_bytes(scene.base_color())
        except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
            raise FaceModelError(f"Cannot read the avatar '{file}': {error}. Clone the repository again.") from error
    with whole_file(folder / "valid_heads.npz") as part, part.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **_corresponding(heads))


class _Scene:
    """A glTF binary file."""

    def __init__(self, content: bytes) -> None:
        magic, _, _, length, kind = struct.unpack_from("<4sIIII", content)
        if magic != b"glTF" or kind != 0x4E4F534A:
            raise ValueError("it is no glTF binary file")
        self.json = parse_json(content[20 : 20 + length])
        self._binary = content[28 + length :]
        self._views: dict[int, bytes] = {}

    def base_color(self) -> bytes:
        """Return the file of the picture that colors the body."""
        material = self.json["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
        source = self.json["textures"][material]["extensions"]["EXT_texture_webp"]["source"]
        return self._view(self.json["images"][source]["bufferView"])

    def array(self, index: int) -> NDArray[Any]:
        """Return the values of an accessor, (count, width); normalized integers as floats."""
        accessor = self.json["accessors"][index]
        dtype, width = np.dtype(_DTYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        view = self.json["bufferViews"][accessor["bufferView"]]
        layout = view.get("extensions", {}).get("EXT_meshopt_compression", view)
        stride = layout.get("byteStride", dtype.itemsize * width)
        data, start = self._view(accessor["bufferView"]), accessor.get("byteOffset", 0)
        rows = np.lib.stride_tricks.as_strided(
            np.frombuffer(data, np.uint8, offset=start),
            (accessor["count"], dtype.itemsize * width), (stride, 1), writeable=False,
        )  # fmt: skip
        values = np.ascontiguousarray(rows).view(dtype).reshape(-1, width)
        if accessor.get("normalized"):
            return np.maximum(values / float(2 ** (8 * dtype.itemsize - (dtype.kind == "i")) - 1), -1)
        return values

    def _view(self, index: int) -> bytes:
        if index not in self._views:
            view = self.json["bufferViews"][index]
            packed = view.get("extensions", {}).get("EXT_meshopt_compression")
            start = (packed or view).get("byteOffset", 0)
            data = self._binary[start : start + (packed or view)["byteLength"]]
            self._views[index] = decompressed(packed, data) if packed else data
        return self._views[index]

    def node(self, name: str) -> dict[str, Any]:
        """Return the node of a mesh by its name."""
        for node in self.json["nodes"]:
            if node.get("name") == name and "mesh" in node:
                return dict(node)
        raise ValueError(f"it has no mesh '{name}'")

    def placed(self, node: dict[str, Any]) -> NDArray[np.float64]:
        """Return the matrices (V, 3, 4) that pose a skinned mesh's vertices, from its quantized space to meters."""
        skin = self.json["skins"][node["skin"]]
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)
        world = self._world()
        joints = np.stack([world[joint] for joint in skin["joints"]]) @ inverse
        attributes = self.json["meshes"][node["mesh"]]["primitives"][0]["attributes"]
        weights = self.array(attributes["WEIGHTS_0"]).astype(np.float64)
        weights /= weights.sum(1, keepdims=True)
        return np.einsum("vj,vjab->vab", weights, joints[self.array(attributes["JOINTS_0"])])[:, :3]

    def _world(self) -> dict[int, NDArray[np.float64]]:
        nodes = self.json["nodes"]
        world: dict[int, NDArray[np.float64]] = {}
        waiting = [(index, np.eye(4)) for scene in self.json["scenes"] for index in scene["nodes"]]
        while waiting:
            index, parent = waiting.pop()
            world[index] = parent @ _local(nodes[index])
            waiting += [(child, world[index]) for child in nodes[index].get("children", [])]
        return world


def _local(node: dict[str, Any]) -> NDArray[np.float64]:
    """Return the matrix of a node from its translation, rotation (a quaternion) and scale."""
    matrix = np.eye(4)
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= node.get("scale", (1, 1, 1))
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def decompressed(packed: dict[str, Any], data: bytes) -> bytes:
    """Decode a buffer view of EXT_meshopt_compression."""
    try:
        import meshoptimizer
    except ImportError as error:
        raise MissingExtraError(
            "Unpacking VALID's meshes needs 'meshoptimizer', which is compiled on installation. Install a C++ compiler"
            " and `pip install meshoptimizer`."
        ) from error
    count, stride = packed["count"], packed["byteStride"]
    if packed["mode"] == "ATTRIBUTES":  # filters touch normals only, which are not read
        return meshoptimizer.decode_vertex_buffer(count, stride, data, dtype=np.dtype(f"V{stride}")).tobytes()
    decode = meshoptimizer.decode_index_buffer if packed["mode"] == "TRIANGLES" else meshoptimizer.decode_index_sequence
    return decode(count, 4, data).astype(f"<u{stride}").tobytes()


def _head(scene: _Scene) -> dict[str, Any]:
    """Return vertices (V, 3), keys (V,), triangles and movements by name of one person's head, in meters."""
    vertices, keys, triangles, count = [], [], [], 0
    deltas: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for part, name in enumerate(PARTS):
        node = scene.node(name)
        mesh = scene.json["meshes"][node["mesh"]]
        (primitive,) = mesh["primitives"]
        attributes, matrices = primitive["attributes"], scene.placed(node)
        positions = scene.array(attributes["POSITION"])
        vertices.append(np.einsum("vab,vb->va", matrices, np.column_stack([positions, np.ones(len(positions))])))
        uv = np.round(scene.array(attributes["TEXCOORD_0"]) * 65535).astype(np.int64)  # stored as normalized 16 bits
        keys.append((part << 32) + (uv[:, 0] << 16) + uv[:, 1])
        triangles.append(scene.array(primitive["indices"]).reshape(-1, 3).astype(np.int64) + count)
        targets = mesh.get("extras", {}).get("targetNames", [])
        for shape, target in zip(targets, primitive.get("targets", []), strict=True):
            moved = np.einsum("vab,vb->va", matrices[:, :, :3], scene.array(target["POSITION"]))
            deltas.setdefault(_shape_name(shape), []).append((count, moved))
        count += len(positions)
    return {"vertices": np.concatenate(vertices), "keys": np.concatenate(keys), "triangles": np.concatenate(triangles),
            "deltas": deltas}  # fmt: skip


def _shape_name(name: str) -> str:
    found = _SHAPE_NAME.fullmatch(name)
    return found[1] if found else name


def _corresponding(heads: dict[str, dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Bring the heads of all people to the same vertices."""
    names = sorted(heads)
    first = heads[names[0]]
    shared = np.unique(first["keys"])
    for name in names[1:]:
        shared = np.intersect1d(shared, heads[name]["keys"])
    part = (shared >> 32).astype(np.uint8)
    eyes = np.isin(part, [PARTS.index("h_L_eye"), PARTS.index("h_R_eye")])
    rows = {name: _rows_of(heads[name]["keys"], shared) for name in names}
    vertices = np.stack([heads[name]["vertices"][rows[name]] for name in names])
    centers = vertices[:, eyes].mean(1)
    away = vertices.mean(0) - centers.mean(0)
    kept = (np.abs(away[:, 0]) < REACH_M[0]) & (away[:, 1] > -REACH_M[1])
    shapes = list(dict.fromkeys(shape for name in names for shape in heads[name]["deltas"]))
    deltas = np.zeros((len(names), len(shapes), int(kept.sum()), 3), np.int16)
    for person, name in enumerate(names):
        for index, shape in enumerate(shapes):
            whole = np.zeros_like(heads[name]["vertices"])
            for start, moved in heads[name]["deltas"].get(shape, []):
                whole[start : start + len(moved)] = moved
            deltas[person, index] = np.round(whole[rows[name]][kept] / DELTA_UNIT)
    return {
        "names": np.array(names),
        "vertices": vertices[:, kept].astype(np.float32),
        "uv": np.column_stack([(shared >> 16) & 0xFFFF, shared & 0xFFFF])[kept].astype(np.float32) / 65535,
        "triangles": _kept_triangles(first, shared, kept),
        "part": part[kept],
        "parts": np.array(PARTS),
        "expression_names": np.array(shapes),
        "expression_deltas": deltas,
        "delta_unit": np.float32(DELTA_UNIT),
        "eye_center": centers.astype(np.float32),
    }


def _rows_of(keys: NDArray[np.int64], shared: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first row of each shared key."""
    unique, first = np.unique(keys, return_index=True)
    return first[np.searchsorted(unique, shared)]


def _kept_triangles(head: dict[str, Any], shared: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    number = np.full(len(shared), -1)
    number[kept] = np.arange(int(kept.sum()))
    corner_keys = head["keys"][head["triangles"]]
    place = np.searchsorted(shared, corner_keys).clip(0, len(shared) - 1)
    corners = np.where(shared[place] == corner_keys, number[place], -1)
    whole = (corners >= 0).all(1) & (np.diff(np.sort(corners, 1), axis=1) > 0).all(1)
    return corners[whole].astype(np.int32)
