"""The scores of this package, each with its title and meaning, and the tables that show them.

Model cards, result pages, the command line and the benchmarks take titles, order and number formats from here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_geaau.errors import hide_secrets
from hf_geaau.facs import ACTION_UNITS


@dataclass(frozen=True)
class Score:
    """What a score is.

    Attributes:
        title: Heading of its column.
        meaning: One sentence for readers of a table.
        better: Which direction is better; None where neither is.
        low, high: Smallest and largest value.
    """

    title: str
    meaning: str
    better: Literal["higher", "lower"] | None = "higher"
    low: float = 0.0
    high: float = 1.0


SCORES: dict[str, Score] = {
    "base_rate": Score("base rate", "Share of labeled frames in which the unit is present.", None),
    "always_on_f1": Score("always-on F1", "F1 of predicting the unit in every frame: a baseline.", None),
    "f1": Score("F1", "Harmonic mean of precision and recall at the threshold."),
    "precision": Score("precision", "Share of the frames predicted as present that are present."),
    "recall": Score("recall", "Share of the frames where the unit is present that are predicted as present."),
    "auc": Score("AUC", "Probability that a frame with the unit scores higher than one without (area under the ROC)."),
    "accuracy": Score("accuracy", "Share of labeled frames decided correctly; flattering for rare units."),
    "icc": Score("ICC", "Agreement of predicted and coded intensity, ICC(3,1).", low=-1.0),
    "mae": Score("MAE", "Mean absolute error of the intensity, in levels of the scale 0-5.", "lower", high=5.0),
    "side_auc": Score("side AUC", "AUC over the left and the right sides of all faces."),
    "side_choice": Score(
        "side choice", "Share of one-sided faces in which the side that shows the unit scores higher; .5 is chance."
    ),
    "visibility_auc": Score(
        "visibility AUC", "AUC of telling frames where the unit can be seen from those that hide it."
    ),
    "expected_calibration_error": Score(
        "ECE", "Expected calibration error: mean distance of predicted probability and observed frequency.", "lower"
    ),
    "threshold": Score("threshold", "Probability from which the unit counts as present.", None),
}
"""Every score by its key in reports, in the order of columns."""

TABLE_SCORES = tuple(key for key in SCORES if key not in ("accuracy", "expected_calibration_error"))
"""The columns of a table of scores, unless others are chosen."""

MEAN = "mean"  # the row that follows those of the AUs

# A link stays as it is; what Markdown or HTML would read as markup, in the text or at its start, does not.
_LINK = re.compile(r"(https?://[\w.~:/@%+,=-]+)")
_MARKUP = re.compile(
    r"[\\`*\[\]<>&|$]|~~|(?<![^\W_])_|_(?![^\W_])|^#(?=#*(?:\s|$))|^[-+](?=[\s+-]|$)|^=(?==*$)|(?<=^\d)[.)](?=\s|$)"
)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: Titles of the columns.
        rows: A list of cells for each row.
        align: One letter per column, "l" or "r".
    """

    header: list[str]
    rows: list[list[str]]
    align: str

    def to_markdown(self) -> str:
        """Return the table as Markdown, without a line break at the end."""
        rule = "".join("--:|" if letter == "r" else "---|" for letter in self.align)
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        return "\n".join([f"| {' | '.join(self.header)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in rows)])


def format_cell(value: Any, undefined: str = "–") -> str:
    """Return the text of a cell: fractions with three decimals, `undefined` for None and NaN.

    Example:
        >>> format_cell(0.5), format_cell(None), format_cell(12)
        ('0.500', '–', '12')
    """
    if value is None or value != value:
        return undefined
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def one_line(text: str) -> str:
    """Return a text on one line, without secrets in URLs, control characters and marks of writing direction."""
    return "".join(character for character in " ".join(hide_secrets(text).split()) if character.isprintable())


def plain_markdown(text: str) -> str:
    """Return a text from a user or a file so that a Markdown page shows it as it is, on one line; links stay links.

    Markup becomes character references, which are no markup in CommonMark wherever they stand.

    Example:
        >>> plain_markdown("# <b>Ada</b>, https://example.org/ada_l")
        '&#35; &#60;b&#62;Ada&#60;/b&#62;, https://example.org/ada_l'
    """

    def reference(match: re.Match[str]) -> str:
        return "".join(f"&#{ord(character)};" for character in match[0])

    parts = _LINK.split(one_line(text))
    return "".join(part if place % 2 else _MARKUP.sub(reference, part) for place, part in enumerate(parts))


def text_table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], align: str | None = None, undefined: str = "–"
) -> Table:
    """Return a table of any values, formatted by `format_cell`.

    Args:
        header: Titles of the columns.
        rows: Values of each row.
        align: One letter per column, "l" or "r"; None for a left column of names and right-aligned numbers.
        undefined: Text for None and NaN.
    """
    cells = [[format_cell(value, undefined) for value in row] for row in rows]
    return Table(list(header), cells, align or "l" + "r" * (len(header) - 1))


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], align: str | None = None, undefined: str = "–"
) -> str:
    """Return a table of any values as Markdown; see `text_table`.

    Example:
        >>> print(markdown_table(["AU", "F1"], [["AU12", 0.75], ["AU15", None]]))
        | AU | F1 |
        |---|--:|
        | AU12 | 0.750 |
        | AU15 | – |
    """
    return text_table(header, rows, align, undefined).to_markdown()


def score_rows(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the scores of a report by AU, with those of intensity, sides and visibility, and their "mean" at the end.

    Args:
        report: As `hf_geaau.evaluation.score` and `mean_of_folds` return it.
    """
    further = [report.get(name) or {} for name in ("intensity", "sides", "visibility")]
    units = {**report["action_units"], MEAN: report["mean"]}
    return {
        name: scores | {key: value for part in further for key, value in part.get(name, {}).items()}
        for name, scores in units.items()
    }


def score_table(
    rows: Mapping[str, Mapping[str, Any]],
    scores: Sequence[str] = TABLE_SCORES,
    *,
    names: bool = False,
    undefined: str = "–",
) -> Table:
    """Return a table with a row for each AU and a column for each score.

    Args:
        rows: Scores by AU, such as `score_rows` returns them; further rows, such as "mean", keep their name.
        scores: Keys of `SCORES`, in any order; a score that no row has is left out.
        names: Whether a second column holds the AU's name.
        undefined: Text for a score that a row has not.

    Example:
        >>> print(score_table({"AU12": {"f1": 0.75, "auc": None}, "mean": {"f1": 0.75}}, names=True).to_markdown())
        | AU | name | F1 | AUC |
        |---|---|--:|--:|
        | AU12 | Lip corner puller | 0.750 | – |
        | mean |  | 0.750 | – |
    """
    shown = [key for key in SCORES if key in scores and any(key in row for row in rows.values())]
    header = ["AU", *(["name"] if names else []), *(SCORES[key].title for key in shown)]
    cells = [
        [label, *([_name_of(label)] if names else []), *(row.get(key) for key in shown)] for label, row in rows.items()
    ]
    return text_table(header, cells, ("ll" if names else "l") + "r" * len(shown), undefined)


def triplet_table(report: Mapping[str, Any]) -> Table:
    """Return the table of a report of triplets: all of them, then each type.

    Args:
        report: As `hf_geaau.evaluation.score_triplets` returns it.
    """
    header = ["triplets", "number", "both sides (chance .333)", "from the anchor (chance .5)"]
    entries = {"all": report, **report["types"]}
    keys = ("triplets", "accuracy", "anchor_accuracy")
    return text_table(header, [[name.replace("_", "-"), *map(entry.get, keys)] for name, entry in entries.items()])


def _name_of(label: str) -> str:
    """Return the FACS name of an AU; "" for "mean"."""
    unit = ACTION_UNITS.get(int(label[2:])) if label[2:].isdigit() else None
    return unit.name if unit else ""
