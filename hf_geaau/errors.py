"""The package's exceptions. Each message is one line: what is wrong, why, and what to do."""


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
