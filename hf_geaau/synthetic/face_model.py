"""Load a face model: a mesh with identity components and FACS-like expression shapes. It is never part of this package.

A face model comes from a clone of ICT-FaceKit (MIT license), see `ict_facekit`, from a clone of VALID's avatars (MIT
license), see `valid`, or from either in packed form. A clone is parsed once, and then kept in packed form in the user's
cache directory. To add another face model, write a module that reads it into a `FaceModel`, and call it in
`load_face_model`.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_geaau.errors import FaceModelError
from hf_geaau.files import whole_file
from hf_geaau.synthetic import valid_clone
from hf_geaau.synthetic.ict_facekit import REMEDY, clone_files, read_clone
from hf_geaau.synthetic.people import People
from hf_geaau.synthetic.shapes import EXPRESSION_SHAPES, IDENTITY_SIZE
from hf_geaau.synthetic.valid import PACKED_FILE, measured_gaps, parts_of, read_packed_valid, read_skins, skin_tones

REQUIRED_MATERIALS = (
    "M_Face", "M_BackHead", "M_GumsTongue", "M_Teeth", "M_ScleraLeft", "M_IrisLeft", "M_ScleraRight", "M_IrisRight",
    "M_EyeLashes",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scans:
    """What is known of P scanned people; `FaceModel.identity_deltas` (P, V, 3) lead from the mean to each of them."""

    people: People
    chart: NDArray[np.float32]  # (V, 2) where wrinkles, beards and make-up are drawn, as on the `uv` of ICT-FaceKit
    expressions: NDArray[np.floating]  # (P, 55, V, 3) what each person adds to `expression_deltas`
    skins: NDArray[np.uint8]  # (P, side, side, 3) sRGB photographs of their skin, in the space of `uv`


@dataclass(frozen=True)
class FaceModel:
    """A face model of V vertices, U texture coordinates and T triangles; about centimeters, y up, z to the camera."""

    name: str  # "ICT-FaceKit" or "VALID"
    vertices: NDArray[np.float32]  # (V, 3) float32, neutral mesh
    uv: NDArray[np.float32]  # (U, 2) float32. M_Face lies in 0-1, the other materials in tiles beside it.
    # triangles, uv_triangles: (T, 3) int32, indices into `vertices` and `uv`
    triangles: NDArray[np.int32]
    uv_triangles: NDArray[np.int32]
    triangle_material: NDArray[np.uint8]  # (T,) uint8, indices into `materials`
    materials: tuple[str, ...]
    expression_deltas: NDArray[np.floating]  # (55, V, 3) float16 or float32, offsets in the order of EXPRESSION_SHAPES
    identity_deltas: NDArray[np.floating]  # (100, V, 3) float16 or float32, offsets per standard deviation
    landmarks68: NDArray[np.int64]  # (68,) vertex indices in Multi-PIE order
    scans: "Scans | None" = None  # of a model made of scanned people

    def material(self, name: str) -> NDArray[np.bool_]:
        """Tell which triangles are of one material."""
        return self.triangle_material == self.materials.index(name)


def load_face_model(path: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None) -> FaceModel:
    """Load a face model from a clone of ICT-FaceKit or of VALID's avatars, or from its packed form.

    Args:
        path: The clone's folder or, of ICT-FaceKit, its subfolder `FaceXModel`; or a packed .npz, or packed folder.
        cache_dir: Where a parsed clone is kept; default `$XDG_CACHE_HOME/hf_geaau` or `~/.cache/hf_geaau`.

    Raises:
        FaceModelError: If there is nothing at `path`, or a part is missing or has the wrong shape.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _read_packed(path)
    if not path.is_dir():
        raise FaceModelError(f"Cannot read the face model '{path}': no such file or folder. {REMEDY}")
    if (path / PACKED_FILE).is_file():
        return _valid_model(path)
    if files := valid_clone.clone_files(path):
        folder = _cache_file(files, cache_dir).with_suffix("")
        if (folder / PACKED_FILE).is_file():
            with suppress(FaceModelError):  # Convert an old or damaged folder again.
                return _valid_model(folder)
        valid_clone.convert_clone(path, folder)
        return _valid_model(folder)
    files = clone_files(path)
    cached = _cache_file(files, cache_dir)
    if cached.is_file():
        try:
            return _read_packed(cached)
        except FaceModelError:
            cached.unlink(missing_ok=True)  # Parse an old or damaged file again.
    arrays = read_clone(files)
    cached.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(cached) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return _from_arrays(arrays, path)


def _valid_model(folder: Path) -> FaceModel:
    arrays = read_packed_valid(folder)
    names, materials = (tuple(arrays.pop(name).tolist()) for name in ("people", "materials"))
    skins = read_skins(folder, names)
    tones = skin_tones(skins, arrays["uv"], arrays["landmarks68"])
    gaps = measured_gaps(arrays["vertices"], arrays["expression_deltas"], arrays["landmarks68"])
    scans = Scans(
        People(names, tones, gaps, parts_of(names)), arrays.pop("chart"), arrays.pop("person_expressions"), skins
    )
    return FaceModel("VALID", **arrays, materials=materials, scans=scans)


def _cache_file(files: list[Path], cache_dir: str | os.PathLike[str] | None) -> Path:
    """Return where the arrays of these files are cached. The name depends on the files' sizes and dates."""
    stamp = "|".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)
    digest = hashlib.sha256(f"{files[0].parent.resolve()}|{stamp}".encode()).hexdigest()[:16]
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hf_geaau"
    return Path(cache_dir or default) / f"face_model_{digest}.npz"


def _read_packed(path: Path) -> FaceModel:
    try:
        with np.load(path, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FaceModelError(f"Cannot read the face model '{path}': {error}. {REMEDY}") from error
    return _from_arrays(arrays, path)


def _from_arrays(arrays: Mapping[str, NDArray], source: Path) -> FaceModel:
    """Check the arrays, and put the expression shapes in our order."""
    _check_names(arrays, source)
    _check_shapes(arrays, source)
    names = arrays["expression_names"].tolist()
    return FaceModel(
        name="ICT-FaceKit",
        vertices=arrays["vertices"].astype(np.float32),
        uv=arrays["uv"].astype(np.float32),
        triangles=arrays["triangles"].astype(np.int32),
        uv_triangles=arrays["uv_triangles"].astype(np.int32),
        triangle_material=arrays["triangle_material"].astype(np.uint8),
        materials=tuple(arrays["materials"].tolist()),
        expression_deltas=arrays["expression_deltas"][[names.index(name) for name in EXPRESSION_SHAPES]],
        identity_deltas=arrays["identity_deltas"],
        landmarks68=arrays["landmarks68"].astype(np.int64),
    )


def _check_names(arrays: Mapping[str, NDArray], source: Path) -> None:
    needed = {field.name for field in fields(FaceModel)} - {"name", "scans"} | {"expression_names"}
    if missing := sorted(needed - set(arrays)):
        raise FaceModelError(f"The face model '{source}' lacks the arrays {missing}. {REMEDY}")
    for part, array, names in (
        ("expression shapes", "expression_names", EXPRESSION_SHAPES),
        ("materials", "materials", REQUIRED_MATERIALS),
    ):
        present = set(arrays[array].tolist())
        if missing := [name for name in names if name not in present]:
            raise FaceModelError(f"The face model '{source}' lacks the {part} {missing}. {REMEDY}")


def _check_shapes(arrays: Mapping[str, NDArray], source: Path) -> None:
    vertices, triangles = len(arrays["vertices"]), arrays["triangles"]
    expected = {
        "vertices": (vertices, 3),
        "expression_deltas": (len(arrays["expression_names"]), vertices, 3),
        "identity_deltas": (IDENTITY_SIZE, vertices, 3),
        "landmarks68": (68,),
        "uv_triangles": triangles.shape,
        "triangle_material": triangles.shape[:1],
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise FaceModelError(
                f"`{name}` of the face model '{source}' must have shape {shape}, got {arrays[name].shape}. {REMEDY}"
            )
    for name, count in (("triangles", vertices), ("uv_triangles", len(arrays["uv"])), ("landmarks68", vertices)):
        if arrays[name].max(initial=0) >= count:
            raise FaceModelError(
                f"`{name}` of the face model '{source}' must be below {count}, got {arrays[name].max()}. {REMEDY}"
            )
