"""The package's exceptions. Each carries one line: what was expected, what came, what to do."""


class GeaauError(Exception):
    """Base of every error that hf_geaau raises on purpose."""


class PhotoError(GeaauError, ValueError):
    """A photo cannot be read: missing, empty, truncated, no image, or too large."""


class VideoError(GeaauError, ValueError):
    """A video or camera cannot be read, or a video cannot be written."""


class TableError(GeaauError, ValueError):
    """A table of results cannot be read, written or gone on with."""


class FaceNotFoundError(GeaauError, ValueError):
    """No face was found, or its five points cannot be aligned."""


class FaceModelError(GeaauError, ValueError):
    """The face model for rendering is missing or incomplete."""


class CheckpointError(GeaauError, ValueError):
    """A checkpoint directory is missing, foreign or unsafe to load."""


class DeviceError(GeaauError, ValueError):
    """The device asked for is not there."""


class MissingExtraError(GeaauError, ImportError):
    """An optional dependency is not installed."""


class DatasetError(GeaauError, ValueError):
    """A dataset's files do not hold what its layout says, or an option does not fit it."""


class DatasetNotFoundError(GeaauError, FileNotFoundError):
    """A dataset, or a part of it, is not where it was looked for."""


class TrainingError(GeaauError, ValueError):
    """A recipe is wrong, or training cannot go on."""


class MetricError(GeaauError, ValueError):
    """Labels or predictions cannot be scored: a wrong shape, a foreign value, NaN, or nothing at all."""


class EvaluationError(GeaauError, ValueError):
    """A model and a dataset cannot be evaluated together."""


class LicenseError(GeaauError, PermissionError):
    """Something would publish data that its licence forbids to publish."""


class CardError(GeaauError, ValueError):
    """A model card lacks something, above all what only a human knows."""


class HubError(GeaauError, OSError):
    """The Hub is out of reach, or refuses."""


class DatasetWarning(UserWarning):
    """A dataset can be used, but its numbers may not be comparable with published ones."""
