"""Draw a run into a folder: annotated photos and mask sheets, and videos with overlays."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hf_geaau.faces import Face
    from hf_geaau.files import FolderLock
    from hf_geaau.inference import FaceAnalyzer, Runner
    from hf_geaau.video.overlay import OverlayWriter
    from hf_geaau.video.run import SourceReport, Tally
    from hf_geaau.video.sources import Source
    from hf_geaau.video.stream import AnalyzedFrame


class Annotator:
    """Draws frames into a folder: NUMBER_NAME.jpg and mask sheets for photos, NUMBER_NAME.mp4 for videos.

    A `RunObserver`. What cannot be drawn becomes a note of its source; an error of the disk ends the run. The folder is
    locked until `close`.

    Args:
        folder: Created if it is missing.
        analyzer: The run's analyzer, for its crops and names.
        heat_map: Action unit whose mask is drawn over faces of videos, such as "AU12".
        blur: Make faces unrecognizable.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        ValueError: If the model does not predict the action unit.
    """

    needs_whole_videos = True  # a video cannot be appended to

    def __init__(self, folder: Path, analyzer: "FaceAnalyzer", heat_map: str | None, blur: bool) -> None:
        from hf_geaau.plots import require_matplotlib

        require_matplotlib()
        units = analyzer.runner.action_units
        if heat_map is not None and heat_map not in units:
            raise ValueError(f"`heat_map` must be an AU of this model ({', '.join(units)}), got '{heat_map}'.")
        self.folder, self.analyzer, self.blur = folder, analyzer, blur
        self.heat_map = None if heat_map is None else units.index(heat_map)
        self._digits = 1
        self._video: OverlayWriter | None = None
        self._target = folder
        self._problem = ""
        self._lock: FolderLock | None = None

    def start(self, sources: "Sequence[Source]", done: int) -> None:
        """Lock the folder, and number the files with as many digits as their count has.

        Raises:
            VideoError: If another process draws there, or the folder cannot be written.
        """
        from hf_geaau.errors import VideoError
        from hf_geaau.files import FolderLock

        self._lock = FolderLock(self.folder, content="pictures", error=VideoError)
        self._digits = len(str(len(sources)))

    def frame(self, frame: "AnalyzedFrame") -> None:
        """Draw one frame or photo.

        Raises:
            VideoError: If the disk is full or gone.
        """
        if not self._problem:  # of an earlier frame: half a video would be taken for a whole one
            with self._noting_problems():
                self._draw(frame)

    @contextmanager
    def _noting_problems(self) -> "Iterator[None]":
        from hf_geaau.errors import GeaauError, VideoError
        from hf_geaau.files import reason_of

        try:
            yield
        except GeaauError:
            raise
        except Exception as error:  # a foreign picture can make a drawing library raise anything
            if isinstance(error, OSError) and error.errno:
                raise VideoError(
                    f"Cannot write pictures to '{self.folder}': {reason_of(error)}. Free space or repair the disk."
                ) from error
            self._problem = f"it could not be annotated ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            self._abandon()

    def _draw(self, frame: "AnalyzedFrame") -> None:
        assert frame.image is not None
        picture = Image.fromarray(frame.image)
        if self.blur:
            from hf_geaau.plots import blur_faces

            picture = blur_faces(
                picture, [box.tolist() for box in (*(face.box for face in frame.faces), *frame.missing)]
            )
        target = self.folder / f"{frame.source_index + 1:0{self._digits}d}_{_stem(frame.source.name)}"
        if frame.source.kind != "photo":
            self._draw_frame(frame, picture, target.with_name(f"{target.name}.mp4"))
            return
        self._draw_photo(picture, frame.faces, target)

    def end(self, source: "SourceReport", tally: "Tally") -> None:
        """Finish a video and give it its name; say what could not be drawn."""
        from hf_geaau.files import replace_file

        with self._noting_problems():
            if self._video is not None:
                self._video.close()
                replace_file(Path(self._video.path), self._target)
                self._video = None
        if self._problem:
            source.notes.append(self._problem)
            self._problem = ""

    def close(self) -> None:
        """Remove a video that is not finished, and release the folder."""
        self._abandon()
        if self._lock is not None:
            self._lock.release()

    def _abandon(self) -> None:
        if self._video is not None:
            self._video.abandon()
            Path(self._video.path).unlink(missing_ok=True)
            self._video = None

    def _draw_photo(self, picture: Image.Image, faces: "list[Face]", target: Path) -> None:
        from hf_geaau.files import whole_file
        from hf_geaau.plots import annotate_photo, save_mask_sheet

        runner, is_aligned = self.analyzer.runner, self.analyzer.aligned
        if faces and not is_aligned:
            with whole_file(target.with_name(f"{target.name}.jpg")) as part:
                annotate_photo(picture, [face.to_dict() for face in faces]).save(part, "JPEG", quality=92)
        for index, face in enumerate(faces):
            if face.masks is None:
                continue
            points = None if is_aligned else face.points
            (crop,) = runner.crop(picture, points)
            path = target.with_name(f"{target.name}_face{index + 1}_masks.png")
            save_mask_sheet(np.moveaxis(crop, -1, 0), face.to_dict(), path)

    def _draw_frame(self, frame: "AnalyzedFrame", picture: Image.Image, target: Path) -> None:
        from hf_geaau.plots import annotate_photo
        from hf_geaau.video.overlay import OverlayWriter

        if self._video is None:
            self._video = OverlayWriter(target.with_name(f".{target.name}.partial"))
            self._target = target
        has_masks = all(face.masks is not None for face in frame.faces)
        faces = [described(face, self.analyzer.runner) for face in frame.faces]
        self._video.add(annotate_photo(picture, faces, self.heat_map if has_masks else None), frame.time_s or 0.0)


def described(face: "Face", runner: "Runner") -> dict[str, Any]:
    """Return what `hf_geaau.plots.annotate_photo` takes, with the matrix to the unit square of the crop."""
    return {**face.to_dict(), "track_id": face.track_id, "to_crop": runner.crop_matrices(face.points)}


def _stem(location: str) -> str:
    """Return a file name for a path or URL."""
    stem = Path(location.split("?")[0]).stem
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)
    return name.encode("utf-8", "replace")[:100].decode("utf-8", "ignore") or "photo"  # file systems limit bytes
