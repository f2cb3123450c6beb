"""The package's exceptions. Each message is one line: what is wrong, why, and what to do."""

import re

# An address within a text: scheme, user and password, host and path, query and fragment. A password may hold "@" or,
# against the rules, "/". A quote ends the address if no further text follows it directly.
_ADDRESS = re.compile(
    r"""(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*://)
    (?:[^\s/?#]*@|[^\s/?#@:]*:(?!\d*/)[^\s@]*@)?
    ([^\s?#'"<>]*)
    (?:[?#](?:[^\s'"<>]|['"](?![\s.,:;!?)\]}>'"]|$))*)?""",
    re.IGNORECASE | re.VERBOSE,
)


def hide_secrets(text: str) -> str:
    """Return a text in which every URL is reduced to scheme, host and path.

    User, password, query and fragment are removed, because they may hold a password or a token. Use it for whatever
    reaches a message, a table or a card.

    Example:
        >>> hide_secrets("Cannot open 'rtsp://ada:secret@camera:554/live?token=1': no answer.")
        "Cannot open 'rtsp://camera:554/live': no answer."
    """
    return _ADDRESS.sub(r"\1\2", text)


class GeaauError(Exception):
    """Base class of all errors that hf_geaau raises on purpose."""


class PhotoError(GeaauError, ValueError):
    """A photo cannot be read: it is missing, empty, truncated, too large, or not an image."""


class VideoError(GeaauError, ValueError):
    """A video or camera cannot be read, or a video cannot be written."""


class TableError(GeaauError, ValueError):
    """A table of results cannot be read, written or resumed."""


class FaceNotFoundError(GeaauError, ValueError):
    """No face was found, or too few for what was asked."""


class FaceModelError(GeaauError, ValueError):
    """The face model for rendering is missing or incomplete."""


class CheckpointError(GeaauError, ValueError):
    """A checkpoint is missing, not of this package, damaged, or unsafe to load."""


class DeviceError(GeaauError, ValueError):
    """The requested device is not available."""


class MissingExtraError(GeaauError, ImportError):
    """An optional dependency is not installed."""


class DatasetError(GeaauError, ValueError):
    """A dataset's files do not match its layout, or an option does not fit it."""


class DatasetNotFoundError(GeaauError, FileNotFoundError):
    """A dataset, or a part of it, does not exist at its path."""


class TrainingError(GeaauError, ValueError):
    """A recipe is wrong, or training cannot continue."""


class MetricError(GeaauError, ValueError):
    """Labels or predictions cannot be scored: their shape or values are wrong, or there are none."""


class EvaluationError(GeaauError, ValueError):
    """A model and a dataset cannot be evaluated together."""


class LicenseError(GeaauError, PermissionError):
    """An operation would publish data, or weights trained on it, against its license."""


class CardError(GeaauError, ValueError):
    """A model card is incomplete, above all where only a human knows the answer."""


class HubError(GeaauError, OSError):
    """The Hub cannot be reached, or refuses a request."""


class ProcessError(GeaauError, ValueError):
    """The environment says wrongly which of several processes this one is."""


class DatasetWarning(UserWarning):
    """A dataset can be used, but results on it may not be comparable with published ones."""


class PhotoWarning(UserWarning):
    """A photo was read, but something of it was left out or guessed."""
