"""Let the API reference read `Example:` in docstrings as Google style's `Examples:`, so that it is set as code."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Rename the section of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
