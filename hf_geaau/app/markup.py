"""Answers as HTML: bars, comparisons, summaries and messages, for eyes, keyboards and screen readers."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hf_geaau.app.answers import Comparison, VideoAnswer
from hf_geaau.faces import Face
from hf_geaau.faces.quality import SMALLEST_FACE
from hf_geaau.facs import ACTION_UNITS

CAUTION = (
    "Action units say what moves in a face, not what somebody feels, thinks or intends. Do not use them to judge"
    " emotion, health, honesty or fitness for a job."
)
QUALITY = {
    "small": f"The face is less than {SMALLEST_FACE} pixels wide: its values are unreliable. Use a larger picture.",
    "cut": "A part of the face lies outside of the picture: its values are unreliable.",
    "squeezed": "The picture looks squeezed or stretched: its values are unreliable. Keep the proportions.",
}


@cache
def _templates() -> Environment:
    # Notes and file names come from whoever made the file, so everything is escaped.
    environment = Environment(
        loader=PackageLoader("hf_geaau.app"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["unit_name"] = unit_name
    return environment


def unit_name(label: str) -> str:
    """Return the FACS name of a label such as "AU12"; "" for one that FACS does not have.

    Example:
        >>> unit_name("AU12")
        'Lip corner puller'
    """
    unit = ACTION_UNITS.get(int(label[2:]))
    return unit.name if unit else ""


def header(model: str | None) -> str:
    """Return the head of the page: its title, what runs, and the caution."""
    return _render("header.html", caution=CAUTION, model=model)


def message(text: str, is_problem: bool = True) -> str:
    """Return a line in place of an answer; a problem is announced by screen readers at once.

    Example:
        >>> message("No <face>.")
        '<p class="geaau-message" role="alert"><strong>Problem:</strong> No &lt;face&gt;.</p>'
    """
    return _render("message.html", text=text, is_problem=is_problem)


def face_bars(face: Face, number: int = 1, count: int = 1, notes: tuple[str, ...] = ()) -> str:
    """Return a table with a bar for each AU: its name, probability, threshold, whether it is present, and intensity.

    Args:
        face: With probabilities.
        number: Which of the faces of its photo, from 1.
        count: How many faces the photo has.
        notes: Lines about the photo.
    """
    assert face.probabilities is not None and face.thresholds is not None
    intensities: Any = [None] * len(face.action_units) if face.intensities is None else face.intensities
    rows = [
        {
            "label": label, "probability": float(probability), "threshold": float(threshold),
            "is_present": label in face.present, "intensity": None if intensity is None else float(intensity),
        }
        for label, probability, threshold, intensity in zip(
            face.action_units, face.probabilities, face.thresholds, intensities, strict=True
        )
    ]  # fmt: skip
    lines = [*notes, *(QUALITY[note] for note in face.quality)]
    return _render("face.html", rows=rows, present=face.present, number=number, count=count, notes=lines)


def comparison(answer: Comparison) -> str:
    """Return which AUs differ between two faces, a table of all, and the distance of the expressions."""
    return _render("comparison.html", answer=answer)


def video_summary(answer: VideoAnswer) -> str:
    """Return a table of how often each AU is present in a video, and where it is strongest."""
    return _render("video.html", answer=answer)


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(**values).strip()
