"""What is done with the table of `hf-geaau predict`: the formats of other tools, and the usual analyses.

Everything takes and returns a `pandas.DataFrame`, the table that `hf-geaau predict` writes or
`pandas.DataFrame(predict_video(...))`, and changes nothing in place.
"""

from .analysis import MAIN_SPEAKERS, join_events, main_speaker, summarize
from .baseline import subtract_baseline
from .finishing import FORMATS, Finishing
from .formats import to_openface, to_pyfeat
from .rows import action_units

__all__ = [
    "FORMATS",
    "MAIN_SPEAKERS",
    "Finishing",
    "action_units",
    "join_events",
    "main_speaker",
    "subtract_baseline",
    "summarize",
    "to_openface",
    "to_pyfeat",
]
