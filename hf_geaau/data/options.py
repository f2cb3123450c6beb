"""Options by the annotations of the dataclass that holds them: names, types and limits."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np

from hf_geaau.errors import DatasetError
from hf_geaau.files import shortened

from .base import choose, require

_EXPECTED = {
    "float_type": "a number", "finite_number": "a finite number", "int_type": "an integer",
    "bool_type": "true or false", "string_type": "text",
    "list_type": "a list", "tuple_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
}  # fmt: skip
_LIMITS = {"greater_than": ("above", "gt"), "greater_than_equal": ("at least", "ge"), "less_than": ("below", "lt"),
           "less_than_equal": ("at most", "le")}  # fmt: skip


def expectation(entry: Mapping[str, Any]) -> str:
    """Say what was expected, from an entry of pydantic's `ValidationError.errors`."""
    code, context = entry["type"], entry.get("ctx", {})
    if code in _LIMITS:
        words, limit = _LIMITS[code]
        return f"{words} {context[limit]:g}"
    if code == "literal_error":
        return str(context["expected"])
    return _EXPECTED.get(code) or f"valid ({entry['msg']})"


def check_names(kind: type, options: Iterable[str], word: str = "option") -> None:
    """Check that a dataclass has fields of these names.

    Raises:
        DatasetError: If not; `word` says what they are.
    """
    known = [entry.name for entry in fields(kind)]
    for option in options:
        choose(word, option, known)


def checked_options(kind: type, options: Mapping[str, Any], word: str = "option") -> dict[str, Any]:
    """Check names, types and limits by the annotations of a dataclass; return the options, lists as tuples.

    Raises:
        DatasetError: If one does not fit.
        MissingExtraError: Without the extra "data".
    """
    check_names(kind, options, word)
    if not options:
        return {}
    pydantic = require("pydantic", "pydantic", "hf_geaau.data")
    annotations, result = get_type_hints(kind, include_extras=True), dict(options)
    for name, value in options.items():
        if isinstance(value, list | np.generic):  # JSON has no tuples, and an integer of numpy is no int
            result[name] = tuple(value) if isinstance(value, list) else value.item()
        expected = pydantic.TypeAdapter(annotations[name], config=pydantic.ConfigDict(allow_inf_nan=False))
        try:
            expected.validate_python(result[name], strict=True)
        except pydantic.ValidationError as error:
            said = expectation(error.errors(include_url=False)[0])
            raise DatasetError(f"`{name}` must be {said}, got {shortened(value)}.") from error
    return result
