"""Read a clone of ICT-FaceKit: one OBJ file for the neutral mesh and for each of its shapes."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import FaceModelError
from hf_geaau.files import parse_json
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES, IDENTITY_SIZE

REPOSITORY = "https://github.com/ICT-VGL/ICT-FaceKit"
REMEDY = f"Clone {REPOSITORY} and pass the clone's folder, or pass a packed .npz."
"""Ends every message about a missing or incomplete face model."""


def clone_files(path: Path) -> list[Path]:
    """List the files to read: neutral mesh, landmark indices, expression shapes, identity components, in this order.

    Args:
        path: The clone's folder, or its subfolder `FaceXModel`.

    Raises:
        FaceModelError: If one is missing.
    """
    folder = path / "FaceXModel" if (path / "FaceXModel").is_dir() else path
    names = ["generic_neutral_mesh.obj", "vertex_indices.json"]
    names += [f"{name}.obj" for name in EXPRESSION_SHAPES]
    names += [f"identity{number:03d}.obj" for number in range(IDENTITY_SIZE)]
    if missing := [name for name in names if not (folder / name).is_file()]:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise FaceModelError(
            f"Cannot read the face model '{folder}': it lacks {shown}, which a clone of ICT-FaceKit has. {REMEDY}"
        )
    return [folder / name for name in names]


def read_clone(files: list[Path]) -> dict[str, NDArray]:
    """Read the files of `clone_files` into the arrays of a packed face model.

    Raises:
        FaceModelError: If a file cannot be read.
    """
    neutral, indices, *shapes = files
    arrays = parse_obj(neutral)
    try:
        landmarks = np.array(parse_json(indices.read_text(encoding="utf-8"))["idx_to_landmark_verts"], np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise FaceModelError(
            f"Cannot read the landmarks in '{indices}': {error!r}. It should hold 'idx_to_landmark_verts', a list of 68"
            f" vertex indices. {REMEDY}"
        ) from error
    vertices = arrays["vertices"]
    deltas = np.empty((len(shapes), len(vertices), 3), np.float16)
    for index, shape in enumerate(shapes):
        moved = _parse_rows(shape.read_text(encoding="utf-8").splitlines(), "v ", 3, shape)
        if moved.shape != vertices.shape:
            raise FaceModelError(
                f"'{shape}' must have {len(vertices)} vertices, as {neutral.name} has, got {len(moved)}. {REMEDY}"
            )
        deltas[index] = moved - vertices
    count = len(EXPRESSION_SHAPES)
    return {
        **arrays,
        "expression_deltas": deltas[:count],
        "expression_names": np.array(EXPRESSION_SHAPES),
        "identity_deltas": deltas[count:],
        "landmarks68": landmarks,
    }


def parse_obj(path: Path, part: str = "usemtl") -> dict[str, NDArray]:
    """Parse vertices, texture coordinates and faces of a Wavefront OBJ file. Polygons become triangle fans.

    Args:
        path: The file.
        part: What starts the lines whose name the following triangles get: "usemtl" (material) or "g" (group).

    Returns:
        vertices (V, 3), uv (U, 2), triangles (T, 3), uv_triangles (T, 3), triangle_material (T,), materials (M,).

    Raises:
        FaceModelError: If a line cannot be read.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    corners, materials, material = [], [], ""
    try:
        for line in lines:
            if line.startswith(f"{part} "):
                material = line.split()[1]
            elif line.startswith("f "):
                polygon = [[int(part) - 1 for part in vertex.split("/")[:2]] for vertex in line.split()[1:]]
                for corner in range(1, len(polygon) - 1):
                    corners.append((polygon[0], polygon[corner], polygon[corner + 1]))
                    materials.append(material)
        triangles = np.array(corners, np.int32).reshape(-1, 3, 2)
    except (ValueError, IndexError) as error:
        raise FaceModelError(
            f"Cannot read the faces in '{path}': {error}. They should look like 'f 1/1 2/2 3/3'. {REMEDY}"
        ) from error
    names, indices = np.unique(np.array(materials, dtype=str), return_inverse=True)
    return {
        "vertices": _parse_rows(lines, "v ", 3, path),
        "uv": _parse_rows(lines, "vt ", 2, path),
        "triangles": triangles[..., 0],
        "uv_triangles": triangles[..., 1],
        "triangle_material": indices.astype(np.uint8).reshape(-1),
        "materials": names,
    }


def _parse_rows(lines: list[str], prefix: str, columns: int, path: Path) -> NDArray[np.float32]:
    rows = [line[len(prefix) :].split()[:columns] for line in lines if line.startswith(prefix)]
    try:
        return np.array(rows, np.float32).reshape(-1, columns)
    except ValueError as error:
        raise FaceModelError(
            f"Cannot read '{path}': {error}. Each line '{prefix.strip()} …' should have {columns} numbers. {REMEDY}"
        ) from error
