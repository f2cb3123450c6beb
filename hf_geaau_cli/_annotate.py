"""What `hf-geaau predict --annotate` writes: pictures of photos, and videos with overlays."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from PIL import Image

if TYPE_CHECKING:
    from hf_geaau.pipeline import FacialActionUnitPipeline
    from hf_geaau.video.stream import SeenFrame


class Annotator:
    """Draws frames into a folder: NUMBER_NAME.jpg and mask sheets for photos, NUMBER_NAME.mp4 for videos.

    Args:
        folder: Made if it is not there.
        pipe: The pipeline, for its crops and names.
        heat_map: Action unit whose mask is laid over faces of videos, such as "AU12".
        blur: Make faces unrecognisable.
        aligned: The inputs are crops.
        count: How many inputs there are.
    """

    def __init__(
        self,
        folder: Path,
        pipe: "FacialActionUnitPipeline",
        heat_map: str | None,
        blur: bool,
        aligned: bool,
        count: int,
    ) -> None:
        from hf_geaau.plots import require_matplotlib

        require_matplotlib()
        labels = list(pipe.model.config.id2label.values())
        if heat_map is not None and heat_map not in labels:
            raise typer.BadParameter(
                f"must be an AU of this model ({', '.join(labels)}), got '{heat_map}'.", param_hint="--heat-map"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.pipe, self.blur, self.aligned, self.count = folder, pipe, blur, aligned, count
        self.heat_map = None if heat_map is None else labels.index(heat_map)
        self._video: Any = None
        self._part: Path | None = None
        self._target: Path | None = None

    def add(self, item: "SeenFrame", faces: list[dict[str, Any]]) -> None:
        """Draw one frame or photo.

        Raises:
            VideoError: If the disk is full or gone.
        """
        from hf_geaau.errors import VideoError

        assert item.image is not None
        picture = Image.fromarray(item.image)
        if self.blur:
            from hf_geaau.plots import blur_faces

            boxes = [seen.face.box for seen in item.faces] + item.missing
            picture = blur_faces(picture, boxes)
        target = self.folder / f"{item.place + 1:0{len(str(self.count))}d}_{_stem(item.source.location)}"
        if item.source.kind == "photo":
            try:
                self._draw_photo(picture, faces, target)
            except OSError as error:
                raise VideoError(
                    f"Pictures must be writable, got {error.strerror or error} in '{self.folder}'. Free space or mend"
                    " the disk."
                ) from error
        else:
            self._draw_frame(item, picture, faces, target.with_name(f"{target.name}.mp4"))

    def end(self) -> None:
        """Finish a video: now it takes its name."""
        if self._video is None:
            return
        self._video.close()
        assert self._part is not None
        assert self._target is not None
        self._part.replace(self._target)
        self._video = None

    def drop(self) -> None:
        """Leave no half video behind."""
        if self._video is not None:
            self._video.drop()
            assert self._part is not None
            self._part.unlink(missing_ok=True)
            self._video = None

    def _draw_photo(self, picture: Image.Image, faces: list[dict[str, Any]], target: Path) -> None:
        from hf_geaau.files import whole_file
        from hf_geaau.plots import annotate_photo, save_mask_sheet

        if faces and not self.aligned:
            with whole_file(target.with_name(f"{target.name}.jpg")) as part:
                annotate_photo(picture, faces).save(part, "JPEG", quality=92)
        for index, face in enumerate(faces):
            if "masks" not in face:
                continue
            points = None if self.aligned else face["points"]
            crop = self.pipe.image_processor(picture, points=points, do_rescale=False, do_normalize=False)
            path = target.with_name(f"{target.name}_face{index + 1}_masks.png")
            save_mask_sheet(crop.pixel_values[0], face, path)

    def _draw_frame(self, item: "SeenFrame", picture: Image.Image, faces: list[dict[str, Any]], target: Path) -> None:
        from hf_geaau.plots import annotate_photo
        from hf_geaau.video.overlay import OverlayWriter

        if self._video is None:
            self._target, self._part = target, target.with_name(f".{target.name}.partial")
            self._video = OverlayWriter(self._part)
        size = self.pipe.image_processor.size
        for seen, face in zip(item.faces, faces, strict=True):
            face["track_id"] = seen.track
            matrix = self.pipe.image_processor.crop_matrices(face["points"])
            face["to_crop"] = matrix / np.array([[size["width"]], [size["height"]]])
        has_masks = all("masks" in face for face in faces)
        drawn = annotate_photo(picture, faces, self.heat_map if has_masks else None)
        self._video.add(drawn, item.time_s or 0.0)


def _stem(location: str) -> str:
    """Make a file name of a path or URL."""
    stem = Path(location.split("?")[0]).stem
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)[:100] or "photo"
