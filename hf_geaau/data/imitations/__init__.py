"""Small imitations of official layouts, with invented labels and faces: to look at, to test with, to try commands on.

One module per dataset, with a dataclass `Quirks` of what an imitation can be asked for, and a function
`write(folder, quirks)`. Nothing is derived from licensed files: labels are random, faces are drawn or rendered.
"""

import os
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from hf_geaau.errors import DatasetError
from hf_geaau.files import FolderLock

from ..base import choose, require
from ..loading import DATASETS
from ..options import checked_options


def write_example(name: str, folder: str | os.PathLike[str], /, **quirks: Any) -> Path:
    """Write a small imitation of a dataset's official layout, with invented labels and faces.

    Args:
        name: One of `list_datasets()`.
        folder: Where; created if it is missing.
        **quirks: See the class `Quirks` of the module of that name in this package.

    Returns:
        The folder, ready for `load(name, folder)`.

    Raises:
        DatasetError: For an unknown name or quirk, or if another process writes to the folder.
        FaceModelError: If the face model cannot be loaded.

    Example:
        >>> import tempfile
        >>> folder = write_example("bp4d", tempfile.mkdtemp(), subjects_per_part=1, frames=1, faces=False)
        >>> sorted(path.name for path in folder.iterdir())
        ['AUCoding', 'F001', 'F003', 'F004']
    """
    choose("name", name, DATASETS)
    require("pydantic", "pydantic", "hf_geaau.data.write_example")
    module = import_module(f"{__name__}.{name}")
    wanted = module.Quirks(**checked_options(module.Quirks, quirks, "quirk"))
    root = Path(folder)
    is_rendered = wanted.face_model is not None
    if is_rendered:
        from hf_geaau.synthetic import load_face_model

        load_face_model(wanted.face_model)  # says what is wrong with it before anything is written
        root.mkdir(parents=True, exist_ok=True)
    # Renders claim their folder themselves.
    with nullcontext() if is_rendered else FolderLock(root, content="an imitation", error=DatasetError):
        module.write(root, wanted)
    return root
