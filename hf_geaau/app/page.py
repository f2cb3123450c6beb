"""The Gradio page: its tabs, and the endpoints of its API."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from hf_geaau.app import EXAMPLES, Answers, PhotoAnswer, VideoAnswer, markup, require_gradio
from hf_geaau.errors import GeaauError
from hf_geaau.files import reason_of

if TYPE_CHECKING:
    import gradio as gr

TITLE = "Facial action units"
NO_HEAT_MAP = "none"
KEPT_S = 3600  # an upload or result is deleted when it is older than this
CHECKED_S = 300  # how often that is looked after
STREAM_EVERY_S = 0.2
PROGRESS_EVERY_S = 0.3
PICTURE_HEIGHT = 320

_WAITING = "Choose a photo, take one with the webcam, or paste one. The first answer takes a moment."
_EXAMPLES = {"smile": "Smile", "raised_brows": "Raised brows", "lowered_brows": "Lowered brows",
             "two_people": "Two people"}  # fmt: skip
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
"""Events of the page are no part of the API. Files come as they were uploaded: Gradio has checked that they were, and
`hf_geaau.read_photo` reads more formats and says better what is wrong than Gradio's own decoding."""


def build_page(answers: Answers, model_name: str = "the bundled weights") -> "gr.Blocks":
    """Return the page, ready to be served by `hf_geaau.app.server.serve`.

    Args:
        answers: The loaded model.
        model_name: What the page calls it.

    Raises:
        MissingExtraError: If Gradio is not installed.
    """
    require_gradio()
    import gradio as gr

    page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CHECKED_S, KEPT_S))
    with page:
        _markup(markup.header(model_name))
        with gr.Tabs():
            with gr.Tab("Photo", id="photo"):
                _photo_tab(answers)
            with gr.Tab("Webcam", id="webcam"):
                _webcam_tab(answers)
            with gr.Tab("Video", id="video"):
                _video_tab(answers, page)
            with gr.Tab("Compare", id="compare"):
                _compare_tab(answers)
        _api(answers)
    return page.queue(default_concurrency_limit=2)


def _markup(value: str, **options: Any) -> "gr.HTML":
    import gradio as gr

    return gr.HTML(value, apply_default_css=False, padding=True, **options)


def _photo_input(label: str, elem_id: str) -> "gr.Image":
    import gradio as gr

    return gr.Image(
        label=label, sources=["upload", "webcam", "clipboard"], type="filepath", image_mode=None,
        height=PICTURE_HEIGHT, elem_id=elem_id, buttons=[],
    )  # fmt: skip


def _heat_map_choice(answers: Answers, label: str) -> "gr.Dropdown":
    import gradio as gr

    choices = [(f"{unit} {markup.unit_name(unit)}", unit) for unit in answers.heat_maps]
    return gr.Dropdown(
        [("None", NO_HEAT_MAP), *choices], value=NO_HEAT_MAP, label=label, visible=bool(choices), filterable=False
    )


def _photo_tab(answers: Answers) -> None:
    import gradio as gr

    with gr.Row():
        with gr.Column():
            photo = _photo_input("Photo", "photo-input")
            gr.Examples(
                [[str(EXAMPLES / f"{name}.jpg")] for name in _EXAMPLES], photo, label="Examples (rendered people)",
                example_labels=list(_EXAMPLES.values()), api_visibility="private",
            )  # fmt: skip
            heat_map = _heat_map_choice(answers, "Heat map: where the model looks for one action unit")
            drawn = gr.Image(
                label="Faces found", interactive=False, height=PICTURE_HEIGHT, format="jpeg", elem_id="photo-drawn",
                buttons=["download", "fullscreen"], alt_text="The photo with a box and the present action units",
            )  # fmt: skip
        with gr.Column():  # beside the photo, so that the bars are seen without scrolling
            face = gr.Dropdown([1], value=1, label="Face", visible=False, filterable=False)
            bars = _markup(markup.message(_WAITING, is_problem=False), elem_id="photo-bars")

    def show(photo: Any, unit: str, number: int | None = None) -> tuple[Any, Any, Any]:
        if photo is None:
            return None, markup.message(_WAITING, is_problem=False), gr.Dropdown(visible=False)
        try:
            answer = answers.photo(_upload(photo))
            number = min(number or 1, len(answer.faces))
            choices = list(range(1, len(answer.faces) + 1))
            choice = gr.Dropdown(choices=choices, value=number, visible=len(choices) > 1)
            return answers.picture(answer, unit), _bars(answer, number), choice
        except GeaauError as error:
            return None, markup.message(str(error)), gr.Dropdown(visible=False)

    outputs = [drawn, bars, face]
    photo.change(show, [photo, heat_map], outputs, trigger_mode="always_last", show_progress="minimal", **_PRIVATE)
    for choice in (heat_map, face):
        choice.input(
            show, [photo, heat_map, face], outputs, trigger_mode="always_last", show_progress="hidden", **_PRIVATE
        )


def _webcam_tab(answers: Answers) -> None:
    import gradio as gr

    with gr.Row():
        with gr.Column():
            camera = gr.Image(
                label="Webcam", sources=["webcam"], streaming=True, type="filepath", image_mode=None,
                height=PICTURE_HEIGHT, elem_id="webcam-input",
                webcam_options=gr.WebcamOptions(mirror=True, constraints={"video": {"width": 640, "height": 480}}),
            )  # fmt: skip
            _markup("<p>Pictures go to the app and are forgotten once they are answered.</p>")
        waiting = markup.message("Start the webcam, and move your face.", is_problem=False)
        bars = _markup(waiting, elem_id="webcam-bars")

    def show(picture: Any) -> str:
        if picture is None:
            return waiting
        try:
            return _bars(answers.photo(_upload(picture)), 1)
        except GeaauError as error:
            return markup.message(str(error), is_problem=False)  # an alert five times a second would be a torment

    camera.stream(  # with trigger_mode="once", only the first picture would be sent
        show, camera, bars, stream_every=STREAM_EVERY_S, show_progress="hidden", **_PRIVATE
    )


def _video_tab(answers: Answers, page: "gr.Blocks") -> None:
    import gradio as gr

    runs = _Runs()
    limit = "" if answers.max_seconds is None else f" The first {answers.max_seconds:g} seconds are analyzed."
    with gr.Row():
        with gr.Column():
            video = gr.Video(label="Video", sources=["upload", "webcam"], elem_id="video-input")
            clip = str(EXAMPLES / "clip.mp4")
            gr.Examples(
                [[clip]], video, label="Example (a rendered person)", example_labels=["Smile, then raised brows"],
                api_visibility="private",
            )  # fmt: skip
            heat_map = _heat_map_choice(answers, "Heat map in the overlay")
            blur = gr.Checkbox(label="Make faces unrecognizable in what is drawn")
            with gr.Row():
                start = gr.Button("Analyze the video", variant="primary")
                stop = gr.Button("Stop")
            waiting = markup.message(f"Choose a video, then analyze it.{limit}", is_problem=False)
            summary = _markup(waiting, elem_id="video-summary")
        with gr.Column():
            overlay = gr.Video(label="Overlay", interactive=False, elem_id="video-overlay")
            table_file = gr.DownloadButton("Download the table (.csv)", interactive=False)
            overlay_file = gr.DownloadButton("Download the overlay (.mp4)", interactive=False)
            strongest = gr.Gallery(
                label="Strongest frames", columns=4, height="auto", interactive=False, format="jpeg",
                elem_id="video-strongest",
            )  # fmt: skip
    timeline = gr.Image(
        label="Over time: the face seen longest", interactive=False, elem_id="video-timeline", format="png",
        buttons=["download", "fullscreen"], alt_text="A curve of the probability of each action unit over time",
    )  # fmt: skip
    outputs = [summary, overlay, table_file, overlay_file, timeline, strongest]

    def analyze(
        video: Any,
        unit: str,
        blur: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        empty = [None, *[gr.DownloadButton(value=None, interactive=False)] * 2, None, None]
        if video is None:
            return [markup.message("There is no video yet. Choose one first."), *empty]
        cancelled = runs.start(request.session_hash)
        try:
            answer = _analyzed(answers, _upload(video), unit, blur, progress, cancelled)
        except GeaauError as error:
            return [markup.message(str(error)), *empty]
        downloads = [gr.DownloadButton(value=path, interactive=True) for path in (answer.table, answer.overlay)]
        pictures = [None if answer.timeline is None else str(answer.timeline), answer.strongest]
        return [markup.video_summary(answer), str(answer.overlay), *downloads, *pictures]

    def cancel(request: gr.Request) -> None:
        runs.stop(request.session_hash)

    start.click(
        analyze, [video, heat_map, blur], outputs, concurrency_limit=1, concurrency_id="video",
        show_progress_on=overlay, trigger_mode="once", **_PRIVATE,
    )  # fmt: skip
    stop.click(cancel, None, None, queue=False, **_PRIVATE)
    page.unload(cancel)


def _compare_tab(answers: Answers) -> None:
    import gradio as gr

    with gr.Row():
        photos = [_photo_input(f"{name} face", f"compare-{name.lower()}") for name in ("First", "Second")]
    pairs = {"One person at rest and smiling": ("rest", "smile"), "Two people": ("raised_brows", "lowered_brows")}
    gr.Examples(
        [[str(EXAMPLES / f"{name}.jpg") for name in pair] for pair in pairs.values()], photos,
        label="Examples (rendered people)", example_labels=list(pairs), api_visibility="private",
    )  # fmt: skip
    waiting = markup.message("Choose two photos. The largest face of each is compared.", is_problem=False)
    result = _markup(waiting, elem_id="compare-result")

    def show(first: Any, second: Any) -> str:
        if first is None or second is None:
            return waiting
        try:
            return markup.comparison(answers.compare(_upload(first), _upload(second)))
        except GeaauError as error:
            return markup.message(str(error))

    for photo in photos:
        photo.change(show, photos, result, trigger_mode="always_last", show_progress="minimal", **_PRIVATE)


def _api(answers: Answers) -> None:
    """Add the endpoints `/photo`, `/compare` and `/video`. Gradio makes endpoints of components, which stay unseen."""
    import gradio as gr

    def photo(photo: str) -> dict[str, Any]:
        """Find the faces of a photo, and say which action units each shows."""
        with _api_errors():
            return answers.photo(photo).to_dict()

    def compare(first: str, second: str) -> dict[str, Any]:
        """Say which action units differ between the largest faces of two photos."""
        with _api_errors():
            return answers.compare(first, second).to_dict()

    def video(video: str, heat_map: str, blur: bool) -> tuple[dict[str, Any], str, str]:
        """Analyze a video: a summary, the table (.csv) with a row per face and frame, and the overlay (.mp4)."""
        with _api_errors():
            answer = _analyzed(answers, Path(video), heat_map, blur)
        if answer.timeline is not None:
            answer.timeline.unlink()  # Gradio deletes in time what is answered
        return answer.to_dict(), str(answer.table), str(answer.overlay)

    with gr.Column(visible=False):
        first, second, clip = (gr.File(label=label) for label in ("Photo", "Second photo", "Video"))
        heat_map = gr.Textbox(NO_HEAT_MAP, label="Heat map: an action unit such as AU12, or none")
        blur = gr.Checkbox(label="Make faces unrecognizable")
        answer = gr.JSON(label="Answer")
        table, overlay = gr.File(label="Table"), gr.File(label="Overlay")
        button = gr.Button()
    button.click(photo, first, answer, api_name="photo")
    button.click(compare, [first, second], answer, api_name="compare")
    button.click(
        video, [clip, heat_map, blur], [answer, table, overlay], api_name="video",
        concurrency_limit=1, concurrency_id="video",
    )  # fmt: skip


@contextmanager
def _api_errors() -> Iterator[None]:
    """Turn the package's errors into those that Gradio sends to clients, without a traceback on the terminal."""
    import gradio as gr

    try:
        yield
    except GeaauError as error:
        raise gr.Error(str(error), print_exception=False) from error


class _Runs:
    """The videos that are being analyzed, by browser session, so that each can be stopped."""

    def __init__(self) -> None:
        self._cancelled: dict[str | None, threading.Event] = {}

    def start(self, session: str | None) -> threading.Event:
        """Return the event that `stop` sets."""
        return self._cancelled.setdefault(session, threading.Event())

    def stop(self, session: str | None) -> None:
        """Stop the session's video, if there is one."""
        if (event := self._cancelled.pop(session, None)) is not None:
            event.set()


def _analyzed(
    answers: Answers,
    video: str | Path,
    unit: str,
    blur: bool,
    progress: Any = None,
    cancelled: threading.Event | None = None,
) -> VideoAnswer:
    """Analyze a video into Gradio's folder of temporary files, which deletes them in time."""
    from gradio.utils import get_upload_folder

    shown_at = 0.0

    def on_frame(done: int, total: int) -> None:
        nonlocal shown_at
        if progress is not None and monotonic() - shown_at > PROGRESS_EVERY_S:
            shown_at = monotonic()
            progress((done, total or None), desc="Analyzing", unit="frames")

    if unit != NO_HEAT_MAP and unit not in answers.heat_maps:
        raise GeaauError(f"`heat_map` must be {NO_HEAT_MAP} or one of {', '.join(answers.heat_maps)}, got '{unit}'.")
    try:
        upload_folder = Path(get_upload_folder())
        upload_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=upload_folder) as held:
            results = Path(tempfile.mkdtemp(dir=upload_folder))
            mask = None if unit == NO_HEAT_MAP else unit
            return answers.video(
                _held(Path(video), Path(held)),
                results,
                heat_map=mask,
                blur=blur,
                on_frame=on_frame,
                cancelled=cancelled,
            )
    except FileNotFoundError as error:
        raise GeaauError(f"'{Path(video).name}' has been deleted since it was uploaded. Upload it again.") from error
    except OSError as error:
        if isinstance(error, GeaauError):
            raise
        raise GeaauError(f"Cannot write the results: {reason_of(error)}. Free space on the disk.") from error


def _held(upload: Path, folder: Path) -> Path:
    """Return another name of an upload, which stays if the analysis takes longer than uploads are kept."""
    held = folder / upload.name
    try:
        os.link(upload, held)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(upload, held)
    return held


def _bars(answer: PhotoAnswer, number: int) -> str:
    notes = tuple(f"{note}." for note in answer.notes)
    return markup.face_bars(answer.faces[number - 1], number, len(answer.faces), notes)


def _upload(file: dict[str, Any]) -> str | Path:
    """Return the path of an upload, or the data URI of a webcam's frame."""
    url = file.get("url") or ""
    return url if url.startswith("data:") else Path(file["path"])
