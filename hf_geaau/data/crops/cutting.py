"""Find the face of a frame, align it and encode the crop."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau.errors import DatasetError, GeaauError
from hf_geaau.faces.face import box_iou

from ..base import require
from ..rows import Recording
from .storage import CropSettings, Problem

# Around the box that FEC gives: room for the detector, as a share of the box's longer side. Our choice.
BOX_MARGIN = 0.6

Points = NDArray[np.float32]  # (5, 2), in photo pixels


class Cropper:
    """Finds and cuts faces; one for each process. Calls `on_image` after each image."""

    def __init__(self, settings: CropSettings, on_image: Callable[[], None]) -> None:
        from hf_geaau.faces import FaceDetector
        from hf_geaau.models.geaau.image_processing_geaau import GeaauImageProcessorPil

        self.settings, self.on_image = settings, on_image
        self.detector = FaceDetector(min_score=settings.min_score)
        self.processor = GeaauImageProcessorPil(
            size={"height": settings.size, "width": settings.size}, do_rescale=False, do_normalize=False
        )

    def recording(self, recording: Recording) -> tuple[list[bytes | None], list[Problem]]:
        """Cut the frames of a recording.

        Returns:
            The encoded crops, None for frames to drop; and a problem for each frame that is not simply cut.
        """
        crops: list[bytes | None] = [None] * len(recording)
        points: list[Points | None] = [None] * len(recording)
        problems: list[Problem] = []
        faceless = []
        for index, path in enumerate(recording.images):
            try:
                crops[index], points[index] = self._largest_face(read_image(path))
                if crops[index] is None:
                    faceless.append(index)
            except GeaauError as error:
                problems.append(_problem(recording, index, str(error), "dropped"))
            self.on_image()
        for index in faceless:
            crops[index], problem = self._faceless(recording, index, points)
            problems.append(problem)
        return crops, problems

    def _largest_face(self, photo: Image.Image) -> tuple[bytes | None, Points | None]:
        """Return the crop and the points of a frame's largest face, None if there is no face."""
        if self.settings.is_aligned:
            return self._encode(photo, None), None
        faces = self.detector(photo)
        return (self._encode(photo, faces[0].points), faces[0].points) if faces else (None, None)

    def _faceless(self, recording: Recording, index: int, points: list[Points | None]) -> tuple[bytes | None, Problem]:
        """Cut a frame in which no face was found like its nearest neighbor, if the settings say so and it has one."""
        from hf_geaau.faces import can_be_aligned

        if self.settings.faceless == "drop":
            return None, _problem(recording, index, "no face found", "dropped")
        donors = [(other, found) for other, found in enumerate(points) if found is not None]
        if not donors:
            return None, _problem(recording, index, "no face found in the whole sequence", "dropped")
        frames = recording.frames.tolist()
        donor, donated = min(donors, key=lambda entry: (abs(frames[entry[0]] - frames[index]), entry[0]))
        # The photo is read again, because a long faceless stretch of large photos would fill the memory.
        photo = read_image(recording.images[index])
        if not can_be_aligned(donated, photo.size):  # it has another size than its neighbor
            return None, _problem(recording, index, "no face found", "dropped")
        action = f"aligned like frame {frames[donor]}"
        return self._encode(photo, donated), _problem(recording, index, "no face found", action)

    def face_in_box(self, path: str, box: NDArray[np.float32]) -> tuple[bytes | None, Problem | None]:
        """Cut the face that lies in a box.

        Args:
            box: Left, top, right, bottom as fractions of the photo.

        Returns:
            The encoded crop, or None and the problem.
        """
        crop, failure = None, "no face found in the box"
        try:
            photo = read_image(path)
            crop = self._encode(photo, None) if self.settings.is_aligned else self._best_in_box(photo, box)
        except GeaauError as error:
            failure = str(error)
        self.on_image()
        return crop, None if crop is not None else Problem("", "", -1, path, failure, "dropped photo")

    def _best_in_box(self, photo: Image.Image, box: NDArray[np.float32]) -> bytes | None:
        corner, patch, inner = _with_margin(photo, box)
        faces = [(box_iou(face.box, inner), face) for face in self.detector(patch)]
        overlap, best = max(faces, key=lambda entry: entry[0], default=(0.0, None))
        return self._encode(photo, best.points + corner) if best is not None and overlap > 0 else None

    def _encode(self, photo: Image.Image, points: NDArray[Any] | None) -> bytes:
        """Align by five points, or take the photo as a crop, and encode."""
        size = self.settings.size
        crop = photo
        if points is not None or photo.size != (size, size):
            pixels = np.asarray(self.processor(photo, points=points, aligned=points is None).pixel_values[0])
            crop = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1).astype(np.uint8)))
        content = io.BytesIO()
        crop.save(content, "JPEG", quality=self.settings.quality)
        return content.getvalue()


def _problem(recording: Recording, index: int, problem: str, action: str) -> Problem:
    frame = int(recording.frames[index])
    return Problem(recording.subject_id, recording.sequence_id, frame, recording.images[index], problem, action)


def read_image(path: str) -> Image.Image:
    """Read a photo from a file, or by a URL of fsspec out of a zip or video.

    Raises:
        GeaauError: If it cannot be read.
    """
    from hf_geaau.faces.photos import read_photo

    if "://" not in path:
        return read_photo(path)
    import fsspec

    if path.startswith("videoframe://"):
        require("av", "hf_geaau.data.video_frames", "hf_geaau.data.prepare")  # registers itself with fsspec
    try:
        with fsspec.open(path, "rb") as file:
            content = file.read()
    except GeaauError:
        raise
    except Exception as error:  # whatever a damaged container leads its reader to
        raise DatasetError(f"Cannot read {path!r}: {error}. Copy the file that holds it again.") from error
    return read_photo(content)


def _with_margin(
    photo: Image.Image, box: NDArray[np.float32]
) -> tuple[NDArray[np.int64], Image.Image, NDArray[np.float64]]:
    """Cut out a box with a margin; return the patch's corner in the photo, the patch, and the box in the patch."""
    sides = np.array([photo.width, photo.height] * 2)
    inner = box * sides
    margin = BOX_MARGIN * max(inner[2] - inner[0], inner[3] - inner[1])
    outer = np.clip(np.round(inner + np.array([-margin, -margin, margin, margin])), 0, sides).astype(int)
    outer[2:] = np.maximum(outer[2:], outer[:2] + 1)
    left, top, right, bottom = outer.tolist()
    return outer[:2], photo.crop((left, top, right, bottom)), inner - np.tile(outer[:2], 2)
