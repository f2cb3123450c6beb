"""Build hooks of the site: the reference of the command line, from the commands themselves, and the live page."""

import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.nav import Link

REPOSITORY = "https://github.com/geaau/hf_geaau/blob/main/"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the command reference, and point links that leave docs/ to the repository."""
    if "<!-- cli -->" in markdown:
        markdown = markdown.replace("<!-- cli -->", command_reference())
    return re.sub(r"\]\(\.\./((?!images)[^)]+)\)", rf"]({REPOSITORY}\1)", markdown)


def on_nav(nav: Any, config: Any, **_: Any) -> None:
    """Build the live page into the site and add it to the navigation; leave it out where it cannot be built."""
    sys.path.insert(0, config.docs_dir)
    from live_page import NoNpmError, build

    from hf_geaau.errors import MissingExtraError

    try:
        build(Path(config.site_dir, "live"))
    except (NoNpmError, MissingExtraError) as error:
        logging.getLogger("mkdocs.hooks").info(f"The live page is left out: {error}.")
    else:
        nav.items.insert(2, Link("Live", "live/"))


def command_reference() -> str:
    """Return the help of every command as Markdown, by typer's own documentation generator."""
    command = [sys.executable, "-m", "typer", "hf_geaau_cli", "utils", "docs", "--name", "hf-geaau"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return text.partition("\n")[2]  # the page has a title of its own
