"""Build hooks of the site: the reference of the command line comes from the commands themselves."""

import re
import subprocess
import sys
from typing import Any

REPOSITORY = "https://github.com/geaau/hf_geaau/blob/main/"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the command reference, and point links that leave docs/ to the repository."""
    if "<!-- cli -->" in markdown:
        markdown = markdown.replace("<!-- cli -->", command_reference())
    return re.sub(r"\]\(\.\./((?!images)[^)]+)\)", rf"]({REPOSITORY}\1)", markdown)


def command_reference() -> str:
    """Return the help of every command as Markdown, by typer's own documentation generator."""
    command = [sys.executable, "-m", "typer", "hf_geaau_cli", "utils", "docs", "--name", "hf-geaau"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return text.partition("\n")[2]  # the page has a title of its own
