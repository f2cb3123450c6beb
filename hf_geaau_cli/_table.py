"""`hf-geaau table`: a table that `hf-geaau predict` wrote, in other formats, with baselines, summaries and events."""

from pathlib import Path
from typing import Annotated

import typer

from ._console import check_file, quiet_libraries, say
from ._predict import SUFFIXES, BaselineOption, FacesOption, FormatOption, with_neutral_photo

EventsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Add the events of this .csv or .tsv: onset, offset or duration, label."),
]
ToleranceOption = Annotated[
    float, typer.Option(min=0, help="Seconds before and after an event that belong to it. Default: half a frame.")
]


def table(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="The .csv, .jsonl or .parquet of `predict`.")],
    output: Annotated[Path | None, typer.Option(help="Write the table to this .csv, .jsonl or .parquet file.")] = None,
    table_format: FormatOption = "geaau",
    faces: FacesOption = "all",
    baseline: BaselineOption = None,
    events: EventsOption = None,
    tolerance: ToleranceOption = 0.02,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row per clip, face and AU to this .csv file.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model of the table, for a neutral photo.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")] = False,
) -> None:
    """Convert, select and summarize a table that `predict` wrote, and add events to it by time.

    The options act in this order: --faces, --baseline, then --summary, --events and --format.
    """
    if output is None and summary is None:
        raise typer.BadParameter("needs --output or --summary.", param_hint="table")
    check_file(output, SUFFIXES, "--output", overwrite=overwrite)
    check_file(summary, (".csv",), "--summary", overwrite=overwrite)
    if output is not None and summary is not None and output.absolute() == summary.absolute():
        raise typer.BadParameter(f"must be another file than --output, got '{summary}'.", param_hint="--summary")
    if events is not None and table_format != "geaau":
        raise typer.BadParameter("has no columns for events; leave out --format or --events.", param_hint="--format")
    quiet_libraries()
    from hf_geaau.tables import Finishing, join_events, summarize
    from hf_geaau.video.tables import read_events, read_table, write_table

    try:
        finishing = Finishing(table_format, faces, baseline)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    rows, thresholds = read_table(table)
    if finishing.needs_photo:
        from hf_geaau.backends import load_analyzer

        has_sides = any(name.endswith("_asymmetry") for name in rows)
        finishing = with_neutral_photo(finishing, load_analyzer(model, keep=["side_probabilities"] * has_sides))
    selected = finishing.select(rows, thresholds)
    if summary is not None:
        write_table(summarize(selected), summary, {})
        say(f"Summary in {summary}")
    if output is not None:
        shown = selected if events is None else join_events(selected, read_events(events), tolerance)
        write_table(finishing.convert(shown, rows), output, thresholds)
        say(f"Table in {output}")
