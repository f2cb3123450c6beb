"""`hf-geaau predict`: the action units of every face of photos, folders, videos and cameras."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.table import Table

from ._console import complain, err, out, progress, quiet_libraries, say

if TYPE_CHECKING:
    from hf_geaau.faces import Face
    from hf_geaau.inference import FaceAnalyzer
    from hf_geaau.tables import Finishing
    from hf_geaau.video.run import Report, SourceReport, Tally
    from hf_geaau.video.sources import Source
    from hf_geaau.video.stream import AnalyzedFrame, Settings

FULL_TABLES = 5  # above this many photos, a line per photo instead of a table per face
SUFFIXES = (".csv", ".jsonl", ".parquet")  # those of hf_geaau.video.tables, which imports pandas
INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended

InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Photos, videos, folders, patterns, numbered frames (%04d.png), http(s) URLs, .txt lists, cameras (0).",
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option(help="Write one row per face and frame to this .csv, .jsonl or .parquet file.")
]
AnnotateOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write annotated photos, mask heat maps and videos there.")
]
BackendOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="torch, onnx or openvino. Default: onnx if the model has been exported."),
]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="Faces per forward pass. Default: what suits the backend.")
]
FpsOption = Annotated[
    float | None, typer.Option(help="Take this many frames per second of a video; of numbered files, their rate.")
]
DetectOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Search every K-th frame taken for faces, follow in between. Default: every one with --every or --fps, "
        "else three a second, and look again for known faces in every third frame.",
    ),
]
SmoothOption = Annotated[
    float, typer.Option(min=0, help="Smooth over time with this time constant, in seconds. 0: off.")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Threads that detect and analyze. Default: one per core.")
]
HeatMapOption = Annotated[
    str | None, typer.Option(metavar="AU", help="Show in annotated videos where the model looks for this AU.")
]
FormatOption = Annotated[
    str,
    typer.Option("--format", metavar="NAME", help="Columns of the table: geaau, or those of openface or pyfeat."),
]
FacesOption = Annotated[
    str,
    typer.Option(
        metavar="WHICH", help="all, longest (the face with most frames of each video), or largest (of each frame)."
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT", help='Subtract the resting face: "first 2 s" or median of each face, or the path of a photo.'
    ),
]
SidesOption = Annotated[
    bool, typer.Option("--sides", help="Add each AU on the person's left and right, if the model tells them apart.")
]
VisibilityOption = Annotated[
    bool, typer.Option("--visibility", help="Add whether each AU's region can be seen, if the model tells it.")
]
ChunkOption = Annotated[int, typer.Option("--chunk", min=1, help="Rows written at a time; a kill loses no more.")]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Share the work among Ray's workers: local (a worker for each core), auto (the running cluster) or "
        "HOST:PORT. --output becomes a folder.",
    ),
]
RayPhotosOption = Annotated[int, typer.Option(min=1, help="With --ray: photos that a worker takes at a time.")]


def predict(
    inputs: InputsArgument,
    model: Annotated[str | None, typer.Option(help="Hub id or checkpoint directory. Default: bundled weights.")] = None,
    output: OutputOption = None,
    annotate: AnnotateOption = None,
    backend: BackendOption = None,
    device: Annotated[str | None, typer.Option(help="Of torch, such as cuda:1. Default: its best.")] = None,
    aligned: Annotated[bool, typer.Option("--aligned", help="The inputs are already aligned face crops.")] = False,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Drop faces with a lower detector score.")] = 0.6,
    batch_size: BatchOption = None,
    every: Annotated[int, typer.Option(min=1, help="Take every N-th frame of a video.")] = 1,
    fps: FpsOption = None,
    start: Annotated[float, typer.Option(min=0, help="Leave out what comes before this time of a video, in s.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Stop at this time of a video, in seconds.")] = None,
    detect_every: DetectOption = None,
    smooth: SmoothOption = 0.0,
    workers: WorkersOption = None,
    table_format: FormatOption = "geaau",
    faces: FacesOption = "all",
    baseline: BaselineOption = None,
    sides: SidesOption = False,
    visibility: VisibilityOption = False,
    heat_map: HeatMapOption = None,
    blur: Annotated[bool, typer.Option("--blur", help="Make faces unrecognizable in what --annotate writes.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output file that exists.")] = False,
    chunk_rows: ChunkOption = 5000,
    ray: RayOption = None,
    ray_photos: RayPhotosOption = 256,
) -> None:
    """Print or write the action units of every face in photos and videos.

    An input that cannot be read, or shows no face, is named on stderr; the others continue, and the exit code is 1.
    Nothing leaves this machine. With --ray, many workers share the inputs.
    """
    _check_pictures(annotate, {"--blur": blur, "--heat-map": bool(heat_map)})
    _check_columns({"--sides": sides, "--visibility": visibility}, table_format)
    _check_output(output, is_finished=(table_format, faces, baseline) != ("geaau", "all", None))
    if ray is not None:
        plain = {"--annotate": annotate is None, "--format": table_format == "geaau", "--faces": faces == "all",
                 "--baseline": baseline is None}  # fmt: skip
        _check_alone(plain, output)
    quiet_libraries()
    from hf_geaau.tables import Finishing
    from hf_geaau.video.run import check_run, refuse_several_processes
    from hf_geaau.video.stream import Settings

    refuse_several_processes()
    # With blurring, no frame may be missed: a face that is only followed might be detected a few frames late.
    detect_every = 1 if blur else detect_every
    with bad_parameters():
        settings = Settings(every, fps, detect_every, smooth, batch_size, workers, annotate is not None, start, end)
        if ray is None:
            check_run(output, resume=resume, overwrite=overwrite)
        finishing = Finishing(table_format, faces, baseline)
    keep = ["masks"] * bool(annotate) + ["side_probabilities"] * sides + ["visibility"] * visibility
    loading = {"backend": backend, "device": device, "keep": keep, "aligned": aligned, "min_score": min_score}
    table: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
    if ray is not None and output is not None:
        _predict_on_ray(inputs, output, model, settings, {**table, "address": ray, "photos": ray_photos, **loading})
    else:
        table |= {"chunk_rows": chunk_rows}
        _predict_here(inputs, output, model, settings, finishing, table, loading, (annotate, heat_map, blur))


def _predict_here(
    inputs: list[str], output: Path | None, model: str | None, settings: "Settings", finishing: "Finishing",
    table: dict[str, Any], loading: dict[str, Any], pictures: tuple[Path | None, str | None, bool],
) -> None:  # fmt: skip
    """Run in this process; print results as they come, and what was wrong at the end."""
    from hf_geaau.backends import choose_backend, load_analyzer
    from hf_geaau.video.run import RunObserver, predict_to_table
    from hf_geaau.video.tables import unfinished

    with bad_parameters():
        loading["backend"] = choose_backend(model, loading["backend"], loading["device"])
    analyzer = load_analyzer(model, **loading)
    finishing = with_neutral_photo(finishing, analyzer)
    observers: list[RunObserver] = [_Printer()]
    annotate, heat_map, blur = pictures
    if annotate is not None:
        from hf_geaau.video.annotation import Annotator

        with bad_parameters():
            observers.append(Annotator(annotate, analyzer, heat_map, blur))
    try:
        report = predict_to_table(inputs, output, analyzer, settings, finishing=finishing, observers=observers, **table)
    except KeyboardInterrupt:
        _tell_where(output and unfinished(output))
    _conclude(report, analyzer.min_score)


def _check_pictures(annotate: Path | None, wanted: dict[str, bool]) -> None:
    for option, is_wanted in wanted.items():
        if is_wanted and annotate is None:
            raise typer.BadParameter("needs --annotate DIR.", param_hint=option)


def _check_columns(wanted: dict[str, bool], table_format: str) -> None:
    for option, is_wanted in wanted.items():
        if is_wanted and table_format != "geaau":
            message = f"needs --format geaau: {table_format} has no columns for that."
            raise typer.BadParameter(message, param_hint=option)


def _check_alone(plain: dict[str, bool], output: Path | None) -> None:
    """Refuse what workers cannot do together."""
    for option, is_plain in plain.items():
        if not is_plain:
            message = "does not go with --ray. Use `hf-geaau table` afterwards, or run without --ray."
            raise typer.BadParameter(message, param_hint=option)
    if output is None:
        raise typer.BadParameter("needs --output FOLDER.parquet.", param_hint="--ray")


def _predict_on_ray(
    inputs: list[str], output: Path, model: str | None, settings: "Settings", options: dict[str, Any]
) -> None:
    """Run on Ray's workers, and print what was wrong."""
    from hf_geaau.distributed import predict_on_ray

    shown: list[Callable[[int, int], None]] = []
    with ExitStack() as bar, bad_parameters():

        def show(done: int, total: int) -> None:
            if not shown:
                shown.append(bar.enter_context(progress("units", total)))
            shown[0](done, total)

        report = predict_on_ray(inputs, output, model, settings, progress=show, **options)
    say(f"{report.rows} rows of {report.sources} inputs in {report.path}")
    if report.skipped:
        say(f"note: files that are neither photo nor video were passed over: {report.skipped}.", err)
    for problem in report.problems:
        complain(problem)
    if report.failed:
        say(f"{report.failed} of {report.sources} inputs gave no result; all are in {report.errors}.", err)
        raise typer.Exit(1)


def _tell_where(folder: Path | None) -> NoReturn:
    """End a command that Ctrl-C interrupted, and say where its rows are."""
    if folder is not None:
        say(f"Interrupted. What was written is in '{folder}'; continue with --resume.", err)
    raise typer.Exit(INTERRUPTED) from None


def _check_output(output: Path | None, is_finished: bool) -> None:
    if output is not None and output.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"must end in {', '.join(SUFFIXES)}, got '{output}'.", param_hint="--output")
    if output is None and is_finished:
        raise typer.BadParameter("needs --output.", param_hint="--format, --faces or --baseline")


@contextmanager
def bad_parameters() -> Iterator[None]:
    """Turn what the library says about a value into the error of an option."""
    from hf_geaau.errors import TableError

    try:
        yield
    except TableError as error:
        if isinstance(error.__cause__, OSError):  # no wrong value, but what the system said
            raise
        raise typer.BadParameter(str(error), param_hint="--output") from error
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def with_neutral_photo(finishing: "Finishing", analyzer: "FaceAnalyzer") -> "Finishing":
    """Return the same with the face of the neutral photo, if `--baseline` names one."""
    from hf_geaau.video.run import neutral_photo

    if not finishing.needs_photo:
        return finishing
    return replace(finishing, baseline=neutral_photo(str(finishing.baseline), analyzer))


class _Printer:
    """Shows progress, and prints a table or a line for each photo and each video (a `RunObserver`)."""

    needs_whole_videos = False

    def __init__(self) -> None:
        self._in_full = False
        self._ended = 0
        self._bar = ExitStack()

    def start(self, sources: "Sequence[Source]", done: int) -> None:
        self._in_full, self._ended = len(sources) <= FULL_TABLES, done
        self._show_done = self._bar.enter_context(progress("inputs", len(sources), shown=len(sources) > 1))

    def frame(self, frame: "AnalyzedFrame") -> None:
        if frame.source.kind == "photo" and frame.faces:
            _print_photo(frame.source.shown, frame.faces, self._in_full)

    def end(self, source: "SourceReport", tally: "Tally") -> None:
        if source.kind != "photo" and source.error is None:
            _print_video(source, tally)
        self._ended += 1
        self._show_done(self._ended)

    def close(self) -> None:
        self._bar.close()


def _print_photo(name: str, faces: "list[Face]", in_full: bool) -> None:
    if not in_full:
        say(f"{name}: {' | '.join(' '.join(face.present) or 'none' for face in faces)}")
        return
    for index, face in enumerate(faces):
        left, top, right, bottom = face.box
        title = f"{name} · face {index + 1} of {len(faces)} · {right - left:.0f}×{bottom - top:.0f} px"
        out.print(f"{title} · score {face.score:.2f}", style="bold", markup=False, highlight=False, soft_wrap=True)
        out.print(_face_table(face))


def _face_table(face: "Face") -> Table:
    from hf_geaau.facs import ACTION_UNITS

    assert face.probabilities is not None
    table = Table("AU", "name")
    sides = face.sides
    table.add_column("prob." if sides else "probability", justify="right")
    length = 0 if sides else 20 if face.intensities is None else 8  # 80 columns in all
    if length:
        table.add_column("", min_width=length)
    table.add_column("present")
    for title in ["intensity"] * (face.intensities is not None) + ["left", "right"] * bool(sides):
        table.add_column(title, justify="right")
    for index, (label, probability) in enumerate(zip(face.action_units, face.probabilities, strict=True)):
        unit, is_present = ACTION_UNITS.get(int(label[2:])), label in face.present
        bar = "█" * round(float(probability) * length)
        cells = [label, unit.name if unit else "", f"{probability:.2f}", *[bar] * bool(length)]
        cells.append("hidden" if label in face.hidden else "present" if is_present else "")
        if face.intensities is not None:
            cells.append(f"{face.intensities[index]:.1f}")
        cells += [f"{value:.2f}" for value in sides.get(label, ())]
        table.add_row(*cells, style="bold" if is_present else "dim")
    return table


def _print_video(source: "SourceReport", tally: "Tally") -> None:
    """Print a line for a video, and one for each face that stays longest."""
    say(
        f"{source.shown}: {tally.frames} of {source.frames_decoded} frames, {tally.last_s:.1f} s, faces followed:"
        f" {len(tally.tracks)}, frames without a face: {tally.frames_without_face}"
    )
    longest = sorted(tally.tracks.items(), key=lambda item: -item[1].frames)
    for track_id, track in longest[:FULL_TABLES]:
        most = sorted(track.present.items(), key=lambda item: -item[1])[:8]
        units = ", ".join(f"{label} {100 * frames / track.frames:.0f}%" for label, frames in most) or "no AU"
        say(f"  face {track_id}: {track.frames} frames; {units}")


def _conclude(report: "Report", min_score: float) -> None:
    """Print what was wrong, and exit with 1 if an input gave no result. A million sources pass one by one."""
    if report.is_interrupted and report.path is not None:
        say(f"Interrupted. The table is in '{report.path}'.", err)
    if report.skipped:
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(report.skipped.items()))
        say(f"note: files that are neither photo nor video were passed over: {kinds}.", err)
    failed, kind = len(report.unusable), "photos"
    for source in report.sources:
        if source.kind != "photo":
            kind = "inputs"
        if source.notes:
            say(f"note: '{source.shown}': {'; '.join(source.notes)}.", err)
        if (problem := source.problem) is not None:
            hint = f" Lower --min-score ({min_score:g} now), or pass --aligned if it is a face crop."
            complain(problem + (hint if source.has_no_face else ""))
            failed += 1
    for problem in report.unusable:
        complain(problem)
    if failed:
        say(f"{failed} of {len(report.sources) + len(report.unusable)} {kind} gave no result.", err)
        raise typer.Exit(1)
