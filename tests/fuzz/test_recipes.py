"""Damaged recipes and settings of any value: a recipe, or one line that says what is wrong with it."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic", reason="pydantic is not installed")

from hf_geaau.errors import TrainingError
from hf_geaau.training import list_recipes, load_recipe
from hf_geaau.training.recipe import RECIPES
from tests.fuzz.mutate import FIGURES, ROUNDS, is_one_line, mutant, watched

EXAMPLES, LIMIT_S, LONGEST = 60, 10.0, 1300
WHOLE = {name: load_recipe(name).to_dict() for name in list_recipes()}
KEYS = sorted({key for values in WHOLE.values() for key in values})
INNER = [
    *("model.backbone", "model.action_units", "model.image_size", "model.thresholds", "model.backbone_kwargs.a.b"),
    *("augmentation.mirror", "augmentation.grey", "options.camera", "renders.train", "expression.epochs"),
]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from([2**70, -(2**70), "x" * 5000, "a\nb", "\udcff", "\0", "resnet18", "bp4d", "1e-3", "../..", b"x"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.text(max_size=8), scalars.filter(
        lambda key: key is None or isinstance(key, int | float | str)
    )), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(INNER), st.text(max_size=12))


def outcome(story: str, source: Any, overrides: Any = ()) -> None:
    """Load a recipe; fail if it is anything but one or one line."""
    with watched(f"recipe {story}", LIMIT_S):
        try:
            load_recipe(source, overrides)
        except TrainingError as error:
            assert is_one_line(str(error), longest=LONGEST), f"{story}: {error}"
            FIGURES["recipes"]["refused"] += 1
        else:
            FIGURES["recipes"]["read"] += 1


@settings(max_examples=EXAMPLES * ROUNDS)
@given(st.sampled_from(sorted(WHOLE)), st.dictionaries(keys, values, min_size=1, max_size=3))
def test_values_of_any_kind(name, changes):
    outcome("values", WHOLE[name], changes)
    outcome("values as they are", {**WHOLE[name], **changes})


@settings(max_examples=EXAMPLES * ROUNDS)
@given(keys, st.one_of(st.text(max_size=30), st.sampled_from(
    ["[" * 600, "{a: " * 300, "2026-99-99", "0o9", "1:99", "!!python/object:os.system x", "&a [*a]", "*a", "? [a]", "%"]
)))  # fmt: skip
@example("", "=")
@example("x", "{" + ", ".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]) + "}")
def test_settings_of_any_text(key, text):
    outcome("setting", "bp4d", [f"{key}={text}"])


@settings(max_examples=EXAMPLES * ROUNDS)
@given(st.one_of(st.text(max_size=300), st.integers(0, 50).map(lambda n: "name" * n)))
def test_names_of_any_text(name):
    outcome("name", name)


def test_damaged_files():
    intact = {path.stem: path.read_bytes() for path in sorted(RECIPES.glob("*.yaml"))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        for number in range(EXAMPLES * ROUNDS):
            story, content = mutant(intact, number)
            path.write_bytes(content)
            outcome(story, path)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize("text", [
    "", "a", "- a", "a: [" * 3000, "\0", "1: 2", "? [a]\n: b", "&a [*a]", "stage: &a [*a]", "a: &a {b: *a}",
    "d: 2026-99-99", "stage: action_units\n" * 2, BOMB, BOMB + "stage: *a39", BOMB + "stage: action_units\nmodel: *a39",
], ids=range(15))  # fmt: skip
def test_hostile_files(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    outcome(repr(text[:40]), tmp_path / "recipe.yaml")
