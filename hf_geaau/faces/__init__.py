"""Photos and the faces in them: reading, detection, and the five points that align a crop."""

from .detector import FaceDetector
from .face import Face, can_be_aligned
from .photos import read_photo

__all__ = ["Face", "FaceDetector", "can_be_aligned", "read_photo"]
