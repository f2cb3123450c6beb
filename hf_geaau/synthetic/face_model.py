"""Load the ICT-FaceKit face model: a mesh, 100 identity components and 55 FACS-like expression shapes.

Two sources: a packed `.npz`, or a clone of https://github.com/ICT-VGL/ICT-FaceKit (MIT licence), whose OBJ files are
parsed once and then kept as `.npz` in the user's cache directory. The face model is never part of this package.
"""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FaceModelError
from ..files import whole_file
from .sampling import EXPRESSION_SHAPES, IDENTITY_SIZE

REPOSITORY = "https://github.com/ICT-VGL/ICT-FaceKit"
REQUIRED_MATERIALS = ("M_Face", "M_BackHead", "M_GumsTongue", "M_Teeth", "M_ScleraLeft", "M_IrisLeft", "M_ScleraRight",
                      "M_IrisRight", "M_EyeLashes")  # fmt: skip
_REMEDY = f"Clone {REPOSITORY} and pass the clone's folder, or pass a packed .npz."


@dataclass(frozen=True)
class FaceModel:
    """The face model: V vertices, U texture coordinates, T triangles; about centimetres, y up, z to the camera.

    Attributes:
        vertices: (V, 3) float32, neutral mesh.
        uv: (U, 2) float32; M_Face lies in 0–1, the other materials in tiles beside it.
        triangles, uv_triangles: (T, 3) int32, indices into vertices and uv.
        triangle_material: (T,) uint8, index into materials.
        materials: Names.
        expression_deltas: (55, V, 3) float16 or float32, offsets in the order of sampling.EXPRESSION_SHAPES.
        identity_deltas: (100, V, 3) float16 or float32, offsets per standard deviation.
        landmarks68: (68,) vertex indices in Multi-PIE order.
    """

    vertices: NDArray[np.float32]
    uv: NDArray[np.float32]
    triangles: NDArray[np.int32]
    uv_triangles: NDArray[np.int32]
    triangle_material: NDArray[np.uint8]
    materials: tuple[str, ...]
    expression_deltas: NDArray[np.floating]
    identity_deltas: NDArray[np.floating]
    landmarks68: NDArray[np.int64]

    def material(self, name: str) -> NDArray[np.bool_]:
        """Tell which triangles are of one material."""
        return self.triangle_material == self.materials.index(name)


def load_face_model(path: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None) -> FaceModel:
    """Load ICT-FaceKit from a packed .npz or from a clone of its repository.

    Args:
        path: The .npz, the clone's folder, or its subfolder `FaceXModel`.
        cache_dir: Where a parsed clone is kept; default `$XDG_CACHE_HOME/hf_geaau` or `~/.cache/hf_geaau`.

    Raises:
        FaceModelError: If there is nothing at `path`, or a part is missing or has the wrong shape.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _read_packed(path)
    if not path.is_dir():
        raise FaceModelError(
            f"A face model must be an .npz file or a folder, got {str(path)!r}, which is not there. {_REMEDY}"
        )
    folder = path / "FaceXModel" if (path / "FaceXModel").is_dir() else path
    sources = _clone_files(folder)
    stamp = "|".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in sources)
    digest = hashlib.sha256(f"{folder.resolve()}|{stamp}".encode()).hexdigest()[:16]
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hf_geaau"
    cached = Path(cache_dir or default) / f"face_model_{digest}.npz"
    if cached.is_file():
        try:
            return _read_packed(cached)
        except FaceModelError:
            cached.unlink(missing_ok=True)  # an old or damaged cache: parse again
    arrays = _parse_clone(folder, sources)
    _write_atomically(cached, arrays)
    return _from_arrays(arrays, folder)


def _read_packed(path: Path) -> FaceModel:
    try:
        with np.load(path, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FaceModelError(
            f"{str(path)!r} must be a packed face model (.npz), but cannot be read: {error}. {_REMEDY}"
        ) from error
    return _from_arrays(arrays, path)


def _from_arrays(arrays: dict[str, NDArray], source: Path) -> FaceModel:
    """Check names and shapes, and put the expression shapes in our order."""
    needed = {field.name for field in fields(FaceModel)} | {"expression_names"}
    if missing := sorted(needed - arrays.keys()):
        raise FaceModelError(
            f"The face model {str(source)!r} must hold {sorted(needed)}, but lacks {missing}. {_REMEDY}"
        )
    names = [str(name) for name in arrays["expression_names"]]
    if missing := [name for name in EXPRESSION_SHAPES if name not in names]:
        raise FaceModelError(f"The face model {str(source)!r} lacks the expression shapes {missing}. {_REMEDY}")
    materials = tuple(str(name) for name in arrays["materials"])
    if missing := [name for name in REQUIRED_MATERIALS if name not in materials]:
        raise FaceModelError(f"The face model {str(source)!r} lacks the materials {missing}. {_REMEDY}")
    count = len(arrays["vertices"])
    expected = {
        "vertices": (count, 3),
        "expression_deltas": (len(names), count, 3),
        "identity_deltas": (IDENTITY_SIZE, count, 3),
        "landmarks68": (68,),
        "uv_triangles": arrays["triangles"].shape,
        "triangle_material": arrays["triangles"].shape[:1],
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise FaceModelError(
                f"{name} of the face model {str(source)!r} must have shape {shape}, got {arrays[name].shape}. {_REMEDY}"
            )
    if arrays["triangles"].size and (
        arrays["triangles"].max() >= count or arrays["uv_triangles"].max() >= len(arrays["uv"])
    ):
        raise FaceModelError(f"Triangles of the face model {str(source)!r} point past its {count} vertices. {_REMEDY}")
    if arrays["landmarks68"].max() >= count:
        raise FaceModelError(
            f"landmarks68 of the face model {str(source)!r} point past its {count} vertices. {_REMEDY}"
        )
    order = [names.index(name) for name in EXPRESSION_SHAPES]
    return FaceModel(
        vertices=arrays["vertices"].astype(np.float32),
        uv=arrays["uv"].astype(np.float32),
        triangles=arrays["triangles"].astype(np.int32),
        uv_triangles=arrays["uv_triangles"].astype(np.int32),
        triangle_material=arrays["triangle_material"].astype(np.uint8),
        materials=materials,
        expression_deltas=arrays["expression_deltas"][order],
        identity_deltas=arrays["identity_deltas"],
        landmarks68=arrays["landmarks68"].astype(np.int64),
    )


def _clone_files(folder: Path) -> list[Path]:
    """List the files of a clone that are read: neutral mesh, indices, expressions, identities, in this order."""
    names = ["generic_neutral_mesh.obj", "vertex_indices.json"]
    names += [f"{name}.obj" for name in EXPRESSION_SHAPES]
    names += [f"identity{number:03d}.obj" for number in range(IDENTITY_SIZE)]
    if missing := [name for name in names if not (folder / name).is_file()]:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise FaceModelError(
            f"A clone of ICT-FaceKit must hold FaceXModel/*.obj and vertex_indices.json, "
            f"but {str(folder)!r} lacks {shown}. {_REMEDY}"
        )
    return [folder / name for name in names]


def _parse_clone(folder: Path, sources: list[Path]) -> dict[str, NDArray]:
    neutral, indices, *shapes = sources
    arrays = parse_obj(neutral)
    try:
        landmarks = np.array(json.loads(indices.read_text(encoding="utf-8"))["idx_to_landmark_verts"], np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise FaceModelError(
            f"{str(indices)!r} must hold 'idx_to_landmark_verts', a list of 68 vertex indices: {error!r}."
        ) from error
    vertices = arrays["vertices"]
    deltas = np.empty((len(shapes), len(vertices), 3), np.float16)
    for place, shape in enumerate(shapes):
        moved = _parse_rows(shape.read_text(encoding="utf-8").splitlines(), "v ", 3, shape)
        if moved.shape != vertices.shape:
            raise FaceModelError(
                f"{str(shape)!r} must have {len(vertices)} vertices like {neutral.name}, got {len(moved)}. {_REMEDY}"
            )
        deltas[place] = moved - vertices
    count = len(EXPRESSION_SHAPES)
    return {
        **arrays,
        "expression_deltas": deltas[:count],
        "expression_names": np.array(EXPRESSION_SHAPES),
        "identity_deltas": deltas[count:],
        "landmarks68": landmarks,
    }


def parse_obj(path: Path) -> dict[str, NDArray]:
    """Parse vertices, texture coordinates and faces of a Wavefront OBJ file; polygons become triangle fans.

    Returns:
        vertices (V, 3), uv (U, 2), triangles (T, 3), uv_triangles (T, 3), triangle_material (T,), materials (M,).

    Raises:
        FaceModelError: If a line cannot be read.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    corners, materials, material = [], [], ""
    try:
        for line in lines:
            if line.startswith("usemtl"):
                material = line.split()[1]
            elif line.startswith("f "):
                polygon = [[int(part) - 1 for part in corner.split("/")[:2]] for corner in line.split()[1:]]
                for place in range(1, len(polygon) - 1):
                    corners.append((polygon[0], polygon[place], polygon[place + 1]))
                    materials.append(material)
        triangles = np.array(corners, np.int32).reshape(-1, 3, 2)
    except (ValueError, IndexError) as error:
        raise FaceModelError(
            f"{str(path)!r} must have faces such as 'f 1/1 2/2 3/3', but one cannot be read: {error}."
        ) from error
    names, number = np.unique(np.array(materials, dtype=str), return_inverse=True)
    return {
        "vertices": _parse_rows(lines, "v ", 3, path),
        "uv": _parse_rows(lines, "vt ", 2, path),
        "triangles": triangles[..., 0],
        "uv_triangles": triangles[..., 1],
        "triangle_material": number.astype(np.uint8).reshape(-1),
        "materials": names,
    }


def _parse_rows(lines: list[str], prefix: str, columns: int, path: Path) -> NDArray[np.float32]:
    rows = [line[len(prefix) :].split()[:columns] for line in lines if line.startswith(prefix)]
    try:
        return np.array(rows, np.float32).reshape(-1, columns)
    except ValueError as error:
        raise FaceModelError(
            f"{str(path)!r} must have {columns} numbers after each '{prefix.strip()}', but has not: {error}."
        ) from error


def _write_atomically(path: Path, arrays: dict[str, NDArray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
