"""The demo in the browser: photos, a webcam, videos, and two faces compared. `hf-geaau app` starts it.

`answers` knows what is said of an input, `markup` writes it as HTML, `page` lays out the Gradio page, `server` serves
it, and `space` writes a folder for Hugging Face Spaces. Importing this package imports no Gradio.
"""

from importlib.util import find_spec
from pathlib import Path

from hf_geaau.app.answers import Answers, Comparison, PhotoAnswer, VideoAnswer
from hf_geaau.errors import MissingExtraError

__all__ = ["EXAMPLES", "Answers", "Comparison", "PhotoAnswer", "VideoAnswer", "require_gradio"]

EXAMPLES = Path(__file__).parent / "examples"
"""Rendered photos and a clip, written by benchmarks/app_examples.py: these people do not exist."""


def require_gradio() -> None:
    """Raise `MissingExtraError` if Gradio is not installed."""
    if find_spec("gradio") is None:
        raise MissingExtraError('The app needs Gradio. Install it with `pip install "hf_geaau[app]"`.')
