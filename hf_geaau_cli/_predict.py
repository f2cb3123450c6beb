"""`hf-geaau predict`: the action units of every face of photos, folders, videos and cameras."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ._console import complain, err, out, progress, quiet_libraries

if TYPE_CHECKING:
    from hf_geaau.pipeline import FacialActionUnitPipeline
    from hf_geaau.video.sources import FoundSources
    from hf_geaau.video.stream import SeenFrame, Settings, SourceEnd
    from hf_geaau.video.tables import TableWriter

    from ._annotate import Annotator

TABLE_FORMATS = (".csv", ".jsonl", ".parquet")
FULL_TABLES = 5  # above this many photos, a line per photo instead of a table per face
INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Photos, videos, folders, patterns, http(s) URLs, .txt lists of these, or a camera's number.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help="Hub id or checkpoint directory. Default: bundled weights.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write one row per face and frame to this .csv, .jsonl or .parquet file.")
    ] = None,
    annotate: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write annotated photos, mask heat maps and videos there.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu, cuda or cuda:1. Default: what is there.")] = None,
    aligned: Annotated[bool, typer.Option("--aligned", help="The inputs are face crops, aligned already.")] = False,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Drop faces with a lower detector score.")] = 0.6,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Faces per forward pass. Default: 16, or 256 on a GPU.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every N-th frame of a video.")] = 1,
    fps: Annotated[float | None, typer.Option(help="Take so many frames a second of a video.")] = None,
    detect_every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Detect in every K-th frame taken, follow in between. Default: 3; 1 with --every, --fps."
        ),
    ] = None,
    smooth: Annotated[float, typer.Option(min=0, help="Smooth over time: time constant in seconds. 0: not.")] = 0.0,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that compute. Default: one per core.")] = None,
    heat_map: Annotated[
        str | None, typer.Option(metavar="AU", help="Lay where the model looks for this AU over annotated videos.")
    ] = None,
    blur: Annotated[bool, typer.Option("--blur", help="Make faces unrecognisable in what --annotate writes.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run's table.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output file that exists.")] = False,
    chunk_rows: Annotated[
        int, typer.Option("--chunk", min=1, help="Rows that are written at a time; a kill loses no more.")
    ] = 5000,
) -> None:
    """Print or write the action units of every face in photos and videos.

    An input that cannot be read, or has no face, is named on stderr; the others go on, and the exit code is 1. Nothing
    leaves this machine. Started by `accelerate launch` or `torchrun`, the processes share the inputs.
    """
    rank, count = _process()
    if resume and count > 1 and output is not None and (output / f"_index-{rank:05d}.json").is_file():
        return  # started again after a stop, this process had finished its part
    _check_output(output, overwrite, resume, count)
    if (blur or heat_map) and annotate is None:
        raise typer.BadParameter("needs --annotate DIR.", param_hint="--blur" if blur else "--heat-map")
    quiet_libraries()
    from hf_geaau.pipeline import load_pipeline
    from hf_geaau.video.sources import find_sources
    from hf_geaau.video.stream import Settings, cores

    device = _device(device, count)
    batch_size = batch_size or (256 if device and device.startswith("cuda") else 16)
    workers = workers or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", count)))
    # Blurring must miss no frame: what is followed only might be found a few frames late.
    detect_every = 1 if blur or aligned else detect_every
    try:
        settings = Settings(every, fps, detect_every, smooth, batch_size, workers, keep_images=annotate is not None)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    found = find_sources(inputs)
    arguments: dict[str, Any] = {} if device is None else {"device": device}
    if device and device.startswith("cuda"):
        arguments["dtype"] = "bfloat16"
    pipe = load_pipeline(model, aligned=aligned, min_score=min_score, **arguments)
    run = _Run(pipe, found, settings, rank, count, output)
    if annotate is not None:
        from ._annotate import Annotator

        run.annotator = Annotator(annotate, pipe, heat_map, blur, aligned, len(found.sources))
    if output is not None:
        shown = {"model": model, "aligned": aligned, "min_score": min_score}
        run.open_table(shown, resume=resume, overwrite=overwrite, chunk_rows=chunk_rows)
    run.go()
    run.conclude(min_score)


def _process() -> tuple[int, int]:
    """Which process this is, and of how many, as torchrun, accelerate and MPI tell it."""
    names = (("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"), ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    rank, count = (next((int(os.environ[name]) for name in given if name in os.environ), None) for given in names)
    return rank or 0, count or 1


def _device(device: str | None, count: int) -> str | None:
    """Give every process of a machine its own GPU."""
    if device is not None:
        return device
    import torch

    if not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}" if count > 1 else "cuda"


def _check_output(output: Path | None, overwrite: bool, resume: bool, count: int) -> None:
    if output is None:
        if resume:
            raise typer.BadParameter("needs --output FILE.", param_hint="--resume")
        if count > 1:
            raise typer.BadParameter("is needed with several processes, and ends in .parquet.", param_hint="--output")
        return
    if output.suffix.lower() not in TABLE_FORMATS:
        raise typer.BadParameter(f"must end in {', '.join(TABLE_FORMATS)}, got '{output}'.", param_hint="--output")
    if count > 1 and output.suffix.lower() != ".parquet":
        raise typer.BadParameter(f"must end in .parquet with several processes, got '{output}'.")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"its folder must exist, got '{output}'.", param_hint="--output")
    part = output if count == 1 else output / f"part-{_process()[0]:05d}-of-{count:05d}.parquet"
    begun = part.with_name(f"_{part.name}.unfinished")
    is_merged = count > 1 and (output / "_index.json").exists()
    if (part.exists() or is_merged or (count > 1 and output.is_file())) and not (
        overwrite or (resume and begun.exists())
    ):
        raise typer.BadParameter(f"'{part}' exists; pass --overwrite to replace it.", param_hint="--output")
    if begun.exists() and not (resume or overwrite):
        raise typer.BadParameter(
            f"an interrupted run left '{begun}'; go on with --resume, or start anew with --overwrite.",
            param_hint="--output",
        )


@dataclass
class _Tally:
    """What one source gave."""

    frames: int = 0
    faceless: int = 0
    rows: int = 0
    last_s: float = 0.0
    tracks: dict[int, list[Any]] = field(default_factory=dict)  # frames, and how often each AU was present


class _Run:
    """One run over sources: rows to the table, pictures to the annotator, lines to the console."""

    def __init__(
        self,
        pipe: "FacialActionUnitPipeline",
        found: "FoundSources",
        settings: "Settings",
        rank: int,
        count: int,
        output: Path | None,
    ) -> None:
        from hf_geaau.video.sources import share

        self.pipe, self.settings, self.rank, self.count, self.output = pipe, settings, rank, count, output
        self.sources = share(found.sources, rank, count)
        self.unusable = list(found.problems) if rank == 0 else []  # inputs that gave no source
        self.problems: list[str] = []
        self.passed_over = found.passed_over if rank == 0 else {}
        self.writer: TableWriter | None = None
        self.annotator: Annotator | None = None
        self.entries: list[dict[str, Any]] = []
        self.failed = len(self.unusable)
        self.in_full = len(self.sources) <= FULL_TABLES and count == 1

    def open_table(self, choices: dict[str, Any], *, resume: bool, overwrite: bool, chunk_rows: int) -> None:
        from hf_geaau.video.tables import TableWriter, clear_folder, columns, foreign_parts, part_path

        assert self.output is not None
        path = self.output
        if self.count > 1:
            path.mkdir(exist_ok=True)
            if overwrite and not resume:
                clear_folder(path, self.rank, self.count)
            elif foreign := foreign_parts(path, self.count):
                raise typer.BadParameter(
                    f"must have been begun by as many processes, got '{foreign[0]}'; pass --overwrite to replace all"
                    " parts.",
                    param_hint="--output",
                )
            path = part_path(path, self.rank, self.count)
        config = self.pipe.model.config
        labels = list(config.id2label.values())
        if resume and any(source.kind == "webcam" for source in self.sources):
            raise typer.BadParameter("cannot go on with a camera.", param_hint="--resume")
        settings = self.settings
        run = {
            **choices,
            **{name: getattr(settings, name) for name in ("every", "fps", "stride", "smooth_s")},
            "inputs": [source.name for source in self.sources],
        }
        self.writer = TableWriter(
            path,
            columns(labels, bool(getattr(config, "predict_intensity", False))),
            run,
            thresholds=dict(zip(labels, config.thresholds, strict=True)),
            resume=resume,
            overwrite=overwrite,
            chunk_rows=chunk_rows,
        )

    def go(self) -> None:
        """Go through the sources; on Ctrl-C what is done is kept."""
        from hf_geaau.video.stream import SourceEnd

        done, checkpoint = 0, None
        if self.writer is not None:
            done, checkpoint = self.writer.progress["done"], self.writer.progress["checkpoint"]
            self.entries = list(self.writer.progress.get("entries", []))
            for entry in self.entries:
                self._count_failure(entry)
        if self.annotator is not None:
            checkpoint = None  # its unfinished video begins anew, and known rows are left out below
        known = (self.writer.progress["checkpoint"] or {}).get("frame", 0) if self.writer else 0
        tally = _Tally(**self._tally_before())
        stream = self.pipe.stream(
            self.sources, self.settings, return_masks=self.annotator is not None, done=done, checkpoint=checkpoint
        )
        try:
            with progress("inputs", len(self.sources), shown=len(self.sources) > 1) as show_done:
                for item in stream:
                    if isinstance(item, SourceEnd):
                        self._end(item, tally)
                        tally, known = _Tally(), 0
                        show_done(item.place + 1)
                    elif item.number >= known:
                        self._take(item, tally)
                    elif self.annotator is not None:
                        self.annotator.add(item, [self.pipe.describe(seen, return_masks=True) for seen in item.faces])
        except KeyboardInterrupt:
            stream.close()  # type: ignore[attr-defined]
            self._interrupted(tally)
        finally:
            if self.annotator is not None:
                self.annotator.drop()

    def _tally_before(self) -> dict[str, Any]:
        before = dict(self.writer.progress.get("tally", {})) if self.writer else {}
        if before:
            before["tracks"] = {int(track): counts for track, counts in before["tracks"].items()}
        return before

    def _take(self, item: "SeenFrame", tally: _Tally) -> None:
        from hf_geaau.video.tables import row_of

        faces = [self.pipe.describe(seen, return_masks=self.annotator is not None) for seen in item.faces]
        rows = [
            row_of(item, index, seen.track, face)
            for index, (seen, face) in enumerate(zip(item.faces, faces, strict=True))
        ]
        tally.frames += 1
        tally.rows += len(rows)
        tally.faceless += not rows
        tally.last_s = item.time_s or 0.0
        for seen, face in zip(item.faces, faces, strict=True):
            if seen.track is not None:
                counts = tally.tracks.setdefault(seen.track, [0, {}])
                counts[0] += 1
                for label in face["present"]:
                    counts[1][label] = counts[1].get(label, 0) + 1
        if item.source.kind == "photo" and rows and self.count == 1:
            _show(item.source.shown, faces, self.in_full)
        if self.annotator is not None:
            self.annotator.add(item, faces)
        if self.writer is not None:
            self.writer.add(rows)
            if self.writer.is_due and item.checkpoint is not None:
                self._commit(item.place, item.checkpoint(), tally)

    def _commit(self, done: int, checkpoint: dict[str, Any] | None, tally: _Tally) -> None:
        assert self.writer is not None
        self.writer.commit({"done": done, "checkpoint": checkpoint, "tally": vars(tally), "entries": self.entries})

    def _end(self, end: "SourceEnd", tally: _Tally) -> None:
        from hf_geaau.video.tables import part_path

        entry: dict[str, Any] = {
            "source": end.source.name,
            "kind": end.source.kind,
            "rows": tally.rows,
            "frames": tally.frames,
            "frames_without_face": tally.faceless,
            "frames_decoded": end.decoded,
            "tracks": len(tally.tracks),
            "error": None if end.error is None else str(end.error),
            "notes": end.notes,
        }
        if self.count > 1 and self.output is not None:
            entry["part"] = part_path(self.output, self.rank, self.count).name
        self.entries.append(entry)
        self._count_failure(entry)
        if self.annotator is not None:
            self.annotator.end()
        if end.source.kind != "photo" and end.error is None and self.count == 1:
            _show_video(end, tally)
        if self.writer is not None and self.writer.is_due:
            self._commit(end.place + 1, None, _Tally())

    def _count_failure(self, entry: dict[str, Any]) -> None:
        name = entry["source"] if entry["source"].isprintable() else repr(entry["source"])
        if entry["error"] is not None:
            self.problems.append(entry["error"])
        elif not entry["rows"] and entry["kind"] == "photo":
            self.problems.append(f"A photo must show a face, got none in '{name}'.")
        elif not entry["rows"]:
            self.problems.append(f"A video must show a face, got none in {entry['frames']} frames of '{name}'.")
        self.failed += entry["error"] is not None or not entry["rows"]
        if entry["notes"]:
            err.print(f"note: '{name}': {'; '.join(entry['notes'])}.", markup=False, highlight=False, soft_wrap=True)

    def _interrupted(self, tally: _Tally) -> None:
        """Keep what is done: a camera's table is finished then, all others can be gone on with."""
        is_camera = any(source.kind == "webcam" for source in self.sources)
        if self.writer is not None and is_camera:
            self._commit(len(self.sources), None, tally)
            self.writer.finish()
        elif self.writer is not None:
            err.print(
                f"Interrupted. What was written is in '{self.writer.folder}'; go on with --resume.",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        if self.annotator is not None and is_camera:
            self.annotator.end()
        raise typer.Exit(0 if is_camera else INTERRUPTED)

    def conclude(self, min_score: float) -> None:
        """Finish the table and the index, and name what gave nothing."""
        if self.writer is not None:
            self._commit(len(self.sources), None, _Tally())
            self.writer.finish()
        if self.count > 1 and self.output is not None:
            from hf_geaau.video.tables import write_index

            if write_index(self.output, self.rank, self.count, self.entries):
                out.print(f"{self.count} parts and _index.json in {self.output}", markup=False, highlight=False)
        if self.passed_over:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.passed_over.items()))
            err.print(
                f"note: files that are neither photo nor video were passed over: {kinds}.",
                highlight=False,
                soft_wrap=True,
            )
        problems = [*self.problems, *self.unusable]
        for problem in problems:
            hint = f" Lower --min-score ({min_score:g} now), or pass --aligned if it is a face crop."
            complain(problem + (hint if "must show a face" in problem else ""))
        if problems:
            total = len(self.sources) + len(self.unusable)
            kind = "photos" if all(source.kind == "photo" for source in self.sources) else "inputs"
            err.print(f"{self.failed} of {total} {kind} gave no result.", highlight=False)
            raise typer.Exit(1)


def _show(name: str, faces: list[dict[str, Any]], in_full: bool) -> None:
    if not in_full:
        texts = [" ".join(face["present"]) or "none" for face in faces]
        out.print(f"{name}: {' | '.join(texts)}", markup=False, highlight=False, soft_wrap=True)
        return
    from hf_geaau.facs import ACTION_UNITS

    for index, face in enumerate(faces):
        box = face["box"]
        size = f"{box['xmax'] - box['xmin']:.0f}×{box['ymax'] - box['ymin']:.0f} px"
        title = f"{name} · face {index + 1} of {len(faces)} · {size} · score {face['score']:.2f}"
        out.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
        table = Table()
        length = 8 if "intensities" in face else 20  # 80 columns in all
        for heading in ("AU", "name"):
            table.add_column(heading)
        table.add_column("probability", justify="right")
        table.add_column("", min_width=length)
        table.add_column("present")
        if "intensities" in face:
            table.add_column("intensity", justify="right")
        for label, probability in face["action_units"].items():
            unit = ACTION_UNITS.get(int(label[2:]))
            bar = "█" * round(probability * length)
            is_present = label in face["present"]
            style = "bold" if is_present else "dim"
            cells = [label, unit.name if unit else "", f"{probability:.2f}", bar, "present" if is_present else ""]
            if "intensities" in face:
                cells.append(f"{face['intensities'][label]:.1f}")
            table.add_row(*cells, style=style)
        out.print(table)


def _show_video(end: "SourceEnd", tally: _Tally) -> None:
    """Say what a video gave: a line, and a line for each face that stays longest."""
    text = f"{end.source.shown}: {tally.frames} of {end.decoded} frames, {tally.last_s:.1f} s, "
    text += f"faces followed: {len(tally.tracks)}, frames without a face: {tally.faceless}"
    out.print(text, markup=False, highlight=False, soft_wrap=True)
    longest = sorted(tally.tracks.items(), key=lambda item: -item[1][0])
    for track, (frames, present) in longest[:FULL_TABLES]:
        shares = sorted(present.items(), key=lambda item: -item[1])
        units = ", ".join(f"{label} {100 * count / frames:.0f}%" for label, count in shares[:8] if count) or "no AU"
        out.print(f"  face {track}: {frames} frames; {units}", markup=False, highlight=False, soft_wrap=True)
