"""What the app says of a photo, a video, or two faces. Page and API show the same answers; no Gradio here."""

import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau.backends import load_analyzer
from hf_geaau.errors import FaceNotFoundError, GeaauError, VideoError
from hf_geaau.faces import Face
from hf_geaau.faces.photos import load_photo
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.search import expression_distance
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import AnalyzedFrame, Settings, failure

if TYPE_CHECKING:
    import pandas as pd

    from hf_geaau.video.run import SourceReport, Tally

SHOWN_SIDE = 1280  # pixels of the longer side of a picture on the page; our choice
TABLE, OVERLAY, TIMELINE = "action_units.csv", "overlay.mp4", "over_time.png"
STRONGEST = 1  # faces shown for each AU of a video; our choice


class Cancelled(GeaauError):
    """The person at the page stopped the video."""


@dataclass(frozen=True)
class PhotoAnswer:
    """The faces of a photo.

    Attributes:
        image: The upright photo, RGB.
        faces: Largest first, with masks and embedding where the model has them.
        notes: What should be known of the photo, such as that it is the first frame of an animation.
    """

    image: Image.Image
    faces: list[Face]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return what the API answers: the photo's size, its notes, and its faces as the pipeline returns them."""
        faces = [_without_arrays(face) for face in self.faces]
        return {"width": self.image.width, "height": self.image.height, "notes": self.notes, "faces": faces}


@dataclass(frozen=True)
class UnitDifference:
    """One AU in two faces: probabilities, whether it is present, and intensities if the model predicts them."""

    action_unit: str
    probabilities: tuple[float, float]
    present: tuple[bool, bool]
    intensities: tuple[float, float] | None = None

    @property
    def differs(self) -> bool:
        """Whether it is present in one of the faces only."""
        return self.present[0] != self.present[1]


@dataclass(frozen=True)
class Comparison:
    """Two faces side by side.

    Attributes:
        units: All AUs: those that differ first, then by the difference of their probabilities.
        distance: Squared L2 distance of the expression embeddings, 0 to 4; None if the model has none.
    """

    units: list[UnitDifference]
    distance: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return what the API answers."""
        units = [
            {
                "action_unit": unit.action_unit,
                "differs": unit.differs,
                "probabilities": list(unit.probabilities),
                "present": list(unit.present),
                "intensities": None if unit.intensities is None else list(unit.intensities),
            }
            for unit in self.units
        ]
        return {"distance": self.distance, "action_units": units}


@dataclass(frozen=True)
class VideoAnswer:
    """What a video gave.

    Attributes:
        table: The .csv of `hf-geaau predict`, a row per face and frame.
        overlay: The .mp4 with boxes and present AUs.
        timeline: The AUs of the longest track over time; None if no face was seen in two frames.
        strongest: Crops of faces and captions, for each AU where it is likeliest.
        summary: A row per AU, from `hf_geaau.video.summary.summarize`.
        frames: Number of frames analyzed.
        frames_without_face: How many of them show no face.
        tracks: Number of identities.
        notes: What else should be known.
    """

    table: Path
    overlay: Path
    timeline: Path | None
    strongest: list[tuple[NDArray[np.uint8], str]]
    summary: list[dict[str, Any]]
    frames: int
    frames_without_face: int
    tracks: int
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what the API answers."""
        names = ("frames", "frames_without_face", "tracks", "notes", "summary")
        return {name: getattr(self, name) for name in names}


class Answers:
    """Answer the questions of the page and the API with one model. Safe to call from several threads.

    Args:
        model: Hub id or directory; None for the bundled checkpoint.
        backend, device: See `hf_geaau.backends.load_runner`.
        max_seconds: Only so much of a video is analyzed; None for all.

    Raises:
        CheckpointError: If the checkpoint does not load or predicts no AUs.
        DeviceError: If the backend cannot use the device.
        MissingExtraError: If the package of the backend is not installed.

    Example:
        >>> from hf_geaau.app import EXAMPLES
        >>> answer = Answers().photo(EXAMPLES / "smile.jpg")
        >>> answer.faces[0].present
        ['AU06', 'AU12', 'AU25']
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: str | None = None,
        device: str | None = None,
        max_seconds: float | None = None,
    ) -> None:
        self.analyzer = load_analyzer(model, backend=backend, device=device, keep=("embedding", "masks"))
        self.max_seconds = max_seconds

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the AUs, in the model's order."""
        return self.analyzer.runner.action_units

    @property
    def heat_maps(self) -> tuple[str, ...]:
        """Names of the AUs whose mask can be shown; () if the model has no masks."""
        return self.units if self.analyzer.runner.facts.has_masks else ()

    def photo(self, photo: Any) -> PhotoAnswer:
        """Find and analyze the faces of a photo.

        Args:
            photo: What `hf_geaau.read_photo` takes. Messages show a path's last part only.

        Raises:
            PhotoError: Whatever goes wrong.
            FaceNotFoundError: If it shows no face.
        """
        try:
            image, notes = load_photo(photo)
            faces = self.analyzer(np.asarray(image))
        except Exception as error:  # of a decoder, the detector or the network: one photo must not end the app
            problem = failure(Source("photo", photo), error)
            raise _named(problem, photo) if isinstance(photo, str | Path) else problem  # noqa: B904 it has its cause
        if not faces:
            raise FaceNotFoundError(
                "No face was found in the photo. Use one that shows a face from the front, in light, without a mask."
            )
        return PhotoAnswer(image, faces, notes)

    def picture(self, answer: PhotoAnswer, heat_map: str | None = None) -> Image.Image:
        """Draw boxes, numbers and present AUs, and the mask of an AU, at no more than 1280 pixels."""
        from hf_geaau.plots import annotate_photo
        from hf_geaau.video.annotation import described

        faces = [described(face, self.analyzer.runner) for face in answer.faces]
        if len(faces) > 1:
            faces = [{**face, "track_id": number} for number, face in enumerate(faces, 1)]
        index = self.units.index(heat_map) if heat_map in self.heat_maps else None
        picture = annotate_photo(answer.image, faces, index)
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        return picture

    def compare(self, first: Any, second: Any) -> Comparison:
        """Compare the largest faces of two photos.

        Raises:
            PhotoError: If a photo cannot be read.
            FaceNotFoundError: If one shows no face.
        """
        faces = []
        for photo, name in ((first, "first"), (second, "second")):
            try:
                faces.append(self.photo(photo).faces[0])
            except GeaauError as error:
                raise type(error)(f"The {name} photo: {error}") from error
        units = [
            UnitDifference(
                name,
                _pair(faces, "probabilities", index) or (0.0, 0.0),
                (name in faces[0].present, name in faces[1].present),
                _pair(faces, "intensities", index),
            )
            for index, name in enumerate(self.units)
        ]
        units.sort(key=lambda unit: (not unit.differs, -abs(unit.probabilities[0] - unit.probabilities[1])))
        embeddings = [face.embedding for face in faces if face.embedding is not None]
        distance = float(expression_distance(*embeddings)) if len(embeddings) == 2 else None
        return Comparison(units, distance)

    def video(
        self,
        video: Path,
        folder: Path,
        *,
        heat_map: str | None = None,
        blur: bool = False,
        on_frame: Callable[[int, int], None] = lambda done, total: None,
        cancelled: threading.Event | None = None,
    ) -> VideoAnswer:
        """Analyze a video in bounded memory: rows and the overlay are written as frames come.

        Args:
            video: Its path.
            folder: Where table, overlay and timeline go. It must exist and be empty; if the video fails, it is emptied.
            heat_map: AU whose mask is drawn over the faces.
            blur: Make faces unrecognizable in what is drawn.
            on_frame: Called with the number of frames done, and of all as the header says, 0 if unknown.
            cancelled: Set it to stop.

        Raises:
            VideoError: If the video cannot be read, or shows no face.
            Cancelled: If it was stopped.
            MissingExtraError: Without PyAV or matplotlib.
        """
        try:
            return self._video(video, folder, heat_map, blur, on_frame, cancelled or threading.Event())
        except Exception as error:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise _named(failure(Source("video", str(video)), error), video)  # noqa: B904 it has its cause

    def _video(
        self,
        video: Path,
        folder: Path,
        heat_map: str | None,
        blur: bool,
        on_frame: Callable[[int, int], None],
        cancelled: threading.Event,
    ) -> VideoAnswer:
        from hf_geaau.video.annotation import Annotator
        from hf_geaau.video.run import predict_to_table

        keep = ("masks",) if heat_map else ()
        analyzer = FaceAnalyzer(self.analyzer.runner.keeping(keep), self.analyzer.detector)
        drawn, table = folder / "drawn", folder / TABLE
        settings = Settings(end_s=self.max_seconds, keep_images=True, detect_every=1 if blur else None)
        report = predict_to_table(
            [Source("video", str(video))], table, analyzer, settings,
            observers=[_Watcher(_declared(video), on_frame, cancelled), Annotator(drawn, analyzer, heat_map, blur)],
        )  # fmt: skip
        (source,) = report.sources
        if source.problem is not None:
            raise VideoError(source.problem)
        overlay = next(drawn.glob("*.mp4"), None)
        if overlay is None:
            raise VideoError(f"Cannot draw the overlay: {'; '.join(source.notes)}.")
        overlay.replace(folder / OVERLAY)
        shutil.rmtree(drawn)
        return self._summed_up(video, folder, source, blur)

    def _summed_up(self, video: Path, folder: Path, source: "SourceReport", blur: bool) -> VideoAnswer:
        """Draw what the table says, and take the path of this machine out of it."""
        from hf_geaau.plots import save_time_series
        from hf_geaau.video import summary
        from hf_geaau.video.tables import read_table, write_table

        table, notes = folder / TABLE, list(source.notes)
        facts = self.analyzer.runner.facts
        rows, _ = read_table(table)
        thresholds = dict(zip(facts.action_units, facts.thresholds.tolist(), strict=True))
        lines = summary.summarize(rows, thresholds)
        timeline = None
        if tracks := summary.longest_tracks(rows):
            timeline = folder / TIMELINE
            save_time_series(tracks[0].rows, thresholds, timeline, tracks[0].title)
        strongest = _strongest(rows, list(thresholds), blur, notes)
        write_table(rows.assign(source=video.name), table, thresholds)
        if self.max_seconds is not None and rows["time_s"].max() > self.max_seconds - 1:
            notes.append(f"only the first {self.max_seconds:g} seconds were analyzed")
        shown = lines.drop(columns=["strongest_source"]).to_dict("records")
        counts = source.frames, source.frames_without_face, source.tracks
        return VideoAnswer(table, folder / OVERLAY, timeline, strongest, shown, *counts, notes)


class _Watcher:
    """Reports frames, and ends a run that was stopped (a `RunObserver`)."""

    needs_whole_videos = False

    def __init__(self, total: int, on_frame: Callable[[int, int], None], cancelled: threading.Event) -> None:
        self.total, self.on_frame, self.cancelled = total, on_frame, cancelled
        self.done = 0

    def start(self, sources: Sequence[Source], done: int) -> None:
        self.on_frame(0, self.total)

    def frame(self, frame: AnalyzedFrame) -> None:
        if self.cancelled.is_set():
            raise Cancelled("Stopped. Nothing of the video is kept.")
        self.done += 1
        self.on_frame(self.done, max(self.total, self.done) if self.total else 0)

    def end(self, source: "SourceReport", tally: "Tally") -> None:
        pass

    def close(self) -> None:
        pass


def _declared(video: Path) -> int:
    """Return how many frames a video's header declares, 0 if it does not say; what is wrong with it comes later."""
    from hf_geaau.video.frames import open_video

    with suppress(GeaauError), closing(open_video(str(video))) as reader:
        return int(getattr(reader, "declared", 0))
    return 0


def _strongest(
    rows: "pd.DataFrame", units: Sequence[str], blur: bool, notes: list[str]
) -> list[tuple[NDArray[np.uint8], str]]:
    from hf_geaau.errors import TableError
    from hf_geaau.video.summary import contact_sheet

    try:
        sheet = contact_sheet(rows, units, STRONGEST, blur=blur, on_problem=notes.append)
    except TableError:  # no AU is present
        return []
    captions = [caption.replace("\n", " at ") for caption in sheet.captions]
    return list(zip(sheet.crops, captions, strict=True))


def _named(problem: GeaauError, path: str | Path) -> GeaauError:
    """Return the same error without the folder of an upload, which is of no use to the person at the page."""
    named = type(problem)(str(problem).replace(f"{Path(path).parent}{os.sep}", ""))
    named.__cause__ = problem
    return named


def _pair(faces: Sequence[Face], name: str, index: int) -> tuple[float, float] | None:
    first, second = (getattr(face, name) for face in faces)
    return None if first is None or second is None else (float(first[index]), float(second[index]))


def _without_arrays(face: Face) -> Mapping[str, Any]:
    return {name: value for name, value in face.to_dict().items() if name not in ("masks", "embedding")}
