"""One run over photos, videos and cameras: a table of all faces, and a report on every source."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hf_geaau.backends import load_analyzer
from hf_geaau.environ import process_count
from hf_geaau.errors import CheckpointError, ProcessError, TableError
from hf_geaau.files import Spool
from hf_geaau.inference import FaceAnalyzer
from hf_geaau.tables import Finishing
from hf_geaau.video.sources import Source, find_sources, source_spool
from hf_geaau.video.stream import AnalyzedFrame, FaceStream, Settings, SourceEnd
from hf_geaau.video.tables import (
    CHUNK_ROWS,
    TableWriter,
    check_output,
    columns,
    face_row,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class TrackTally:
    """In how many frames a face was seen, and in how many of them each AU was present."""

    frames: int = 0
    present: dict[str, int] = field(default_factory=dict)


@dataclass
class Tally:
    """What a source gave so far: frames and faces as in `SourceReport`, the last frame's time, and each identity."""

    frames: int = 0
    frames_without_face: int = 0
    rows: int = 0
    last_s: float = 0.0
    tracks: dict[int, TrackTally] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Tally":
        """Restore what `dataclasses.asdict` and JSON made of a tally."""
        return cls(
            **{**values, "tracks": {int(track): TrackTally(**tally) for track, tally in values["tracks"].items()}}
        )

    def add(self, frame: AnalyzedFrame) -> None:
        """Count a frame."""
        self.frames += 1
        self.frames_without_face += not frame.faces
        self.rows += len(frame.faces)
        self.last_s = frame.time_s or 0.0
        for face in frame.faces:
            if face.track_id is not None:
                track = self.tracks.setdefault(face.track_id, TrackTally())
                track.frames += 1
                for name in face.present:
                    track.present[name] = track.present.get(name, 0) + 1


@dataclass(frozen=True)
class SourceReport:
    """What a source gave.

    Attributes:
        source: Its name.
        kind: "photo", "video" or "webcam".
        rows: Number of rows, one per face and frame.
        frames: Number of frames analyzed.
        frames_without_face: How many of them show no face.
        frames_decoded: Number of frames in it.
        tracks: Number of identities.
        error: Why it gave nothing, or nothing further.
        notes: What else was wrong with it.
        part: Name of the file with its rows, if several workers share the run, see `hf_geaau.distributed`.
    """

    source: str
    kind: str
    rows: int = 0
    frames: int = 0
    frames_without_face: int = 0
    frames_decoded: int = 0
    tracks: int = 0
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    part: str | None = None

    @property
    def shown(self) -> str:
        """The name on one line, for messages."""
        return self.source if self.source.isprintable() else repr(self.source)[1:-1]

    @property
    def has_no_face(self) -> bool:
        """Whether it could be read and shows no face."""
        return self.error is None and not self.rows and not self.has_no_frame

    @property
    def has_no_frame(self) -> bool:
        """Whether it is a video without a frame between `Settings.start_s` and `Settings.end_s`."""
        return self.error is None and self.kind == "video" and not self.frames

    @property
    def problem(self) -> str | None:
        """Why there are no rows, or not all, on one line; None if there is nothing to say."""
        if self.has_no_face:
            frames = "" if self.kind == "photo" else f"the {self.frames} frames of "
            return f"No face was found in {frames}'{self.shown}'."
        if self.has_no_frame:
            return f"None of the {self.frames_decoded} frames of '{self.shown}' lies in the time that was asked for."
        return self.error

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the index."""
        values = dict(vars(self))
        if self.part is None:
            del values["part"]
        return values


def _report_spool() -> Spool[SourceReport]:
    return Spool(SourceReport.to_dict, lambda values: SourceReport(**values))


@dataclass
class Report:
    """What a run gave.

    Attributes:
        sources: One report per source, in their order, including those that a resumed run had finished before. A
            million of them take little memory, unless they are copied to a list.
        unusable: A line for each input that gave no source.
        skipped: Number of files in folders that are neither photo nor video, by suffix.
        path: The table; None if none was asked for.
        is_interrupted: Whether Ctrl-C ended a camera's run.
    """

    sources: Spool[SourceReport] = field(default_factory=_report_spool)
    unusable: Spool[str] = field(default_factory=lambda: Spool(str, str))
    skipped: Counter[str] = field(default_factory=Counter)
    path: Path | None = None
    is_interrupted: bool = False

    @property
    def failed(self) -> int:
        """Number of inputs that gave no result, or not all."""
        return len(self.unusable) + sum(source.problem is not None for source in self.sources)


class RunObserver(Protocol):
    """Hooks into a run, for progress, printing or drawing; each does nothing by default.

    Attributes:
        needs_whole_videos: Whether a resumed run must show the observer an unfinished video from its first frame.
    """

    needs_whole_videos: bool = False

    def start(self, sources: Sequence[Source], done: int) -> None:
        """Take the sources, of which a resumed run had finished `done` before."""

    def frame(self, frame: AnalyzedFrame) -> None:
        """Take the next frame or photo."""

    def end(self, source: SourceReport, tally: Tally) -> None:
        """Take the report on a source, after its frames. What is appended to its `notes` is kept."""

    def close(self) -> None:
        """Release what is held; the run is over or failed."""


class HasAnalyzer(Protocol):
    """The pipeline."""

    def analyzer(self) -> FaceAnalyzer:
        """Return its detector and model."""


def predict_to_table(
    inputs: Iterable[str | os.PathLike[str] | Source],
    output: str | os.PathLike[str] | None = None,
    model: FaceAnalyzer | HasAnalyzer | str | Path | None = None,
    settings: Settings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    finishing: Finishing | None = None,
    observers: Sequence[RunObserver] = (),
) -> Report:
    """Write the action units of all faces in photos, videos and cameras to a table, one row per face and frame.

    An input that cannot be read is reported, and the others continue. Rows are committed in chunks: after a kill or
    Ctrl-C, `resume=True` continues where the last chunk ends. Ctrl-C during a camera's run finishes the table.

    Args:
        inputs: What `hf_geaau.video.sources.find_sources` takes, or sources.
        output: A .csv, .jsonl or .parquet file. None for no table, only the report and the observers.
        model: Hub id or directory, an analyzer or a pipeline; None for the bundled checkpoint. One that keeps sides
            or visibility, such as `load_pipeline(return_sides=True)`, adds their columns.
        settings: How to process the inputs; None for `Settings()`.
        resume: Continue an interrupted run with the same inputs, model, settings and `chunk_rows`.
        overwrite: Replace an existing table, and drop what an interrupted run left.
        chunk_rows: Approximate number of rows per chunk.
        finishing: Which faces the table shows, less which baseline, in whose format; None for all faces as they are.
        observers: Hooks for frames and ends.

    Returns:
        A report on every source.

    Raises:
        TableError: If the output cannot be written, exists, or belongs to a run with other settings, or if another
            process writes to it.
        ProcessError: If torchrun or accelerate started several processes.
        CheckpointError: If the checkpoint does not load or predicts no action units.
        KeyboardInterrupt: On Ctrl-C, unless a camera is among the inputs.

    Example:
        >>> report = predict_to_table(["interview.mp4"], "interview.csv")  # doctest: +SKIP
        >>> report.sources[0].rows  # doctest: +SKIP
        1500
    """
    refuse_several_processes()
    path = None if output is None else Path(output)
    check_run(path, resume=resume, overwrite=overwrite)
    run = _Run(inputs, _analyzer(model), settings or Settings(), observers)
    try:
        if path is not None:
            run.open_table(path, finishing or Finishing(), resume=resume, overwrite=overwrite, chunk_rows=chunk_rows)
        run.go()
    finally:
        run.close()
    return run.report


def refuse_several_processes() -> None:
    """Refuse to run beside others that torchrun or accelerate started: each of them would do everything.

    Raises:
        ProcessError: If there are several, or the environment says wrongly how many.
    """
    if (count := process_count()) > 1:
        raise ProcessError(
            f"Prediction runs in one process, got {count}. Start it without torchrun or accelerate launch, and share"
            " the work by --ray local."
        )


def check_run(path: Path | None, *, resume: bool = False, overwrite: bool = False) -> None:
    """Check a run's output before anything is loaded for it.

    Raises:
        TableError: If there is nothing to resume, or `check_output` refuses the output.
    """
    if path is not None:
        check_output(path, resume=resume, overwrite=overwrite)
    elif resume:
        raise TableError("Only a run with an output can be resumed. Pass --output.")


_RECORDED = ("every", "fps", "stride", "smooth_s", "start_s", "end_s")  # of `Settings`: what decides the rows


def _analyzer(model: FaceAnalyzer | HasAnalyzer | str | Path | None) -> FaceAnalyzer:
    if isinstance(model, str | Path) or model is None:
        return load_analyzer(model)
    analyzer = model if isinstance(model, FaceAnalyzer) else model.analyzer()
    if not analyzer.runner.action_units:
        raise CheckpointError("A table needs a model that predicts action units, got an expression encoder.")
    return analyzer


class _Run:
    """The state of one run: the writer's progress, the current source's tally, and the report."""

    def __init__(
        self,
        inputs: Iterable[str | os.PathLike[str] | Source],
        analyzer: FaceAnalyzer,
        settings: Settings,
        observers: Sequence[RunObserver],
    ) -> None:
        self.analyzer, self.observers = analyzer, observers
        self.stream = FaceStream(analyzer, settings)
        self.report, self.tally = Report(), Tally()
        self.writer: TableWriter | None = None
        given = list(inputs)
        found = find_sources(each for each in given if not isinstance(each, Source))
        sources: Sequence[Source] = found.sources
        if direct := [each for each in given if isinstance(each, Source)]:
            sources = source_spool(chain(direct, found.sources))
        self.sources = sources
        self.report.unusable, self.report.skipped = found.problems, found.skipped

    def open_table(self, path: Path, finishing: Finishing, *, resume: bool, overwrite: bool, chunk_rows: int) -> None:
        """Claim the table, and restore what an interrupted run had done."""
        analyzer = self.analyzer
        if resume and any(source.kind == "webcam" for source in self.sources):
            raise TableError("A run with a camera cannot be resumed. Start over with --overwrite.")
        facts = analyzer.runner.facts
        has_sides = facts.has_sides and "side_probabilities" in analyzer.runner.keep
        has_visibility = facts.has_visibility and "visibility" in analyzer.runner.keep
        must_be_same = {
            "model": facts.name,
            "aligned": analyzer.aligned,
            "min_score": analyzer.min_score,
            **{name: getattr(self.stream.settings, name) for name in _RECORDED},
            "format": finishing.format,  # decides whether frames without a face have rows
            "inputs": _digest(self.sources),
            **({"sides": True} if has_sides else {}),
            **({"visibility": True} if has_visibility else {}),
        }
        self.writer = TableWriter(
            path,
            columns(facts.action_units, facts.predicts_intensities, has_sides, has_visibility),
            must_be_same,
            thresholds=dict(zip(facts.action_units, facts.thresholds.tolist(), strict=True)),
            resume=resume,
            overwrite=overwrite,
            chunk_rows=chunk_rows,
            finishing=finishing,
        )
        self.report.path = self.writer.path
        self.report.sources.extend(SourceReport(**entry) for entry in self.writer.entries())
        if progress := self.writer.progress:
            self.tally = Tally.from_dict(progress["tally"])

    def go(self) -> None:
        """Process the sources and finish the table; on Ctrl-C what is committed stays."""
        progress = self.writer.progress if self.writer else {}
        done, checkpoint = progress.get("done", 0), progress.get("checkpoint")
        known = (checkpoint or {}).get("frame", 0)  # rows of earlier frames are in the table
        if any(observer.needs_whole_videos for observer in self.observers):
            checkpoint = None
        for observer in self.observers:
            observer.start(self.sources, done)
        try:
            with closing(self.stream.run(self.sources, done, checkpoint)) as items:
                for item in items:
                    if isinstance(item, SourceEnd):
                        self._end(item)
                        known = 0
                    else:
                        self._take(item, is_new=item.number >= known)
        except KeyboardInterrupt:  # the only end that a camera has; anything else can be resumed
            if not any(source.kind == "webcam" for source in self.sources):
                raise
            self.report.is_interrupted = True
            index = len(self.report.sources)
            if index < len(self.sources) and self.tally.frames:
                self._end(SourceEnd(index, self.sources[index], decoded=self.tally.frames))
        if self.writer is not None:
            self._commit(self.writer, len(self.sources))
            self.writer.finish()

    def _take(self, frame: AnalyzedFrame, is_new: bool) -> None:
        for observer in self.observers:
            observer.frame(frame)
        if not is_new:
            return
        self.tally.add(frame)
        if self.writer is not None:
            self.writer.add([face_row(frame, index, face) for index, face in enumerate(frame.faces)])
            if not frame.faces and _keeps_empty(self.writer.finishing.format, frame.source.kind):
                self.writer.add([{"source": frame.source.name, "frame": frame.number, "time_s": frame.time_s}])
            if self.writer.is_due and frame.checkpoint is not None:
                self._commit(self.writer, frame.source_index, frame.checkpoint())

    def _end(self, end: SourceEnd) -> None:
        tally, self.tally = self.tally, Tally()
        report = SourceReport(
            end.source.name,
            end.source.kind,
            tally.rows,
            tally.frames,
            tally.frames_without_face,
            end.decoded,
            len(tally.tracks),
            None if end.error is None else str(end.error),
            list(end.notes),
        )
        for observer in self.observers:
            observer.end(report, tally)
        self.report.sources.append(report)
        if self.writer is not None:
            self.writer.add_entry(report.to_dict())
            if self.writer.is_due:
                self._commit(self.writer, end.source_index + 1)

    def _commit(self, writer: TableWriter, done: int, checkpoint: dict[str, Any] | None = None) -> None:
        writer.commit({"done": done, "checkpoint": checkpoint, "tally": asdict(self.tally)})

    def close(self) -> None:
        """Close the observers, and let others resume the table."""
        for observer in self.observers:
            observer.close()
        if self.writer is not None:
            self.writer.close()


def _keeps_empty(table_format: str, kind: str) -> bool:
    """Return whether a frame without a face has a row: in py-feat's tables, and in OpenFace's but for photos."""
    return table_format == "pyfeat" or (table_format == "openface" and kind != "photo")


def neutral_photo(photo: str | os.PathLike[str], model: FaceAnalyzer | HasAnalyzer) -> "pd.DataFrame":
    """Return the table of a photo of one person's resting face, for `Finishing.baseline`.

    Raises:
        PhotoError: If the photo cannot be read.
        TableError: If it does not show exactly one face.
    """
    import pandas as pd

    analyzer = model if isinstance(model, FaceAnalyzer) else model.analyzer()
    rows: list[dict[str, Any]] = []
    for item in FaceStream(analyzer, Settings()).run([Source("photo", os.fspath(photo))]):
        if isinstance(item, AnalyzedFrame):
            rows += [face_row(item, index, face) for index, face in enumerate(item.faces)]
        elif item.error is not None:
            raise item.error
    if len(rows) != 1:
        raise TableError(f"A neutral photo must show one face, got {len(rows)} in '{os.fspath(photo)}'.")
    return pd.DataFrame(rows)


def _digest(sources: Sequence[Source]) -> str:
    """Return what tells these inputs from others, as short text: a million names would be written with every run."""
    digest = hashlib.sha256()
    for source in sources:
        is_named = isinstance(source.location, str | os.PathLike)
        digest.update(b"%b\0%b\0" % (source.kind.encode(), os.fsencode(source.location if is_named else source.name)))
    return f"{len(sources):,} sources, SHA-256 {digest.hexdigest()[:32]}"
