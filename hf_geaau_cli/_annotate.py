"""What `hf-geaau predict --annotate` writes: annotated photos and mask sheets, and videos with overlays."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hf_geaau.faces import Face
    from hf_geaau.inference import FaceAnalyzer
    from hf_geaau.video.overlay import OverlayWriter
    from hf_geaau.video.run import SourceReport, Tally
    from hf_geaau.video.sources import Source
    from hf_geaau.video.stream import AnalyzedFrame


class Annotator:
    """Draws frames into a folder: NUMBER_NAME.jpg and mask sheets for photos, NUMBER_NAME.mp4 for videos.

    A `RunObserver`.

    Args:
        folder: Created if it is missing.
        analyzer: The run's analyzer, for its crops and names.
        heat_map: Action unit whose mask is drawn over faces of videos, such as "AU12".
        blur: Make faces unrecognizable.
    """

    needs_whole_videos = True  # a video cannot be appended to

    def __init__(self, folder: Path, analyzer: "FaceAnalyzer", heat_map: str | None, blur: bool) -> None:
        from hf_geaau.plots import require_matplotlib

        require_matplotlib()
        units = analyzer.runner.action_units
        if heat_map is not None and heat_map not in units:
            raise typer.BadParameter(
                f"must be an AU of this model ({', '.join(units)}), got '{heat_map}'.", param_hint="--heat-map"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.analyzer, self.blur = folder, analyzer, blur
        self.heat_map = None if heat_map is None else units.index(heat_map)
        self._digits = 1
        self._video: OverlayWriter | None = None
        self._target = folder

    def start(self, sources: "Sequence[Source]", done: int) -> None:
        """Number the files with as many digits as their count has."""
        self._digits = len(str(len(sources)))

    def frame(self, frame: "AnalyzedFrame") -> None:
        """Draw one frame or photo.

        Raises:
            VideoError: If the disk is full or gone.
        """
        from hf_geaau.errors import VideoError

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
        try:
            self._draw_photo(picture, frame.faces, target)
        except OSError as error:
            raise VideoError(
                f"Cannot write pictures to '{self.folder}': {error.strerror or error}. Free space or repair the disk."
            ) from error

    def end(self, source: "SourceReport", tally: "Tally") -> None:
        """Finish a video and give it its name."""
        if self._video is not None:
            self._video.close()
            Path(self._video.path).replace(self._target)
            self._video = None

    def close(self) -> None:
        """Remove a video that is not finished."""
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
            crop = runner.image_processor(picture, points=points, aligned=True, do_rescale=False, do_normalize=False)
            path = target.with_name(f"{target.name}_face{index + 1}_masks.png")
            save_mask_sheet(crop.pixel_values[0], face.to_dict(), path)

    def _draw_frame(self, frame: "AnalyzedFrame", picture: Image.Image, target: Path) -> None:
        from hf_geaau.plots import annotate_photo
        from hf_geaau.video.overlay import OverlayWriter

        if self._video is None:
            self._video = OverlayWriter(target.with_name(f".{target.name}.partial"))
            self._target = target
        has_masks = all(face.masks is not None for face in frame.faces)
        faces = [self._described(face) for face in frame.faces]
        self._video.add(annotate_photo(picture, faces, self.heat_map if has_masks else None), frame.time_s or 0.0)

    def _described(self, face: "Face") -> dict[str, Any]:
        """Return what `annotate_photo` takes, with the matrix to the unit square of the crop."""
        processor = self.analyzer.runner.image_processor
        size = np.array([[processor.size["width"]], [processor.size["height"]]])
        to_crop = processor.crop_matrices(face.points) / size
        return {**face.to_dict(), "track_id": face.track_id, "to_crop": to_crop}


def _stem(location: str) -> str:
    """Return a file name for a path or URL."""
    stem = Path(location.split("?")[0]).stem
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)[:100] or "photo"
