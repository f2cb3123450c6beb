"""Commands that write data: render, prepare, example-data, download-fec."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._console import Environments, FaceModels, OptionList, dataset_options, one_line_warnings, parsed, progress, say


class Style(StrEnum):
    """Settings of the renderer."""

    standard = "standard"
    shifted = "shifted"


def render(
    face_model: FaceModels,
    count: Annotated[int, typer.Option(min=1, help="Number of images.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the JPEG files and labels.parquet go.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same images.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Side of the crops in pixels.")] = 128,
    first_identity: Annotated[
        int, typer.Option(min=0, help="Number of the first identity; disjoint ranges share nobody.")
    ] = 0,
    images_per_identity: Annotated[int, typer.Option(min=1, help="Images of each identity.")] = 10,
    environments: Environments = None,
    style: Annotated[
        Style, typer.Option(help="'shifted' is for tests: people, light and cameras that are never in 'standard'.")
    ] = Style.standard,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Render faces with known action units: JPEG files and labels.parquet.

    Started again with the same arguments, it resumes where it stopped.
    """
    from hf_geaau.synthetic import render_dataset

    with progress("images", count) as show_done:
        render_dataset(
            face_model,
            count,
            seed,
            output,
            size=size,
            images_per_identity=images_per_identity,
            first_identity=first_identity,
            workers=workers,
            style=style.value,
            environments=environments,
            progress=show_done,
        )
    say(f"{count} images in {output}")


def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="bp4d, bp4d_plus, disfa, fec, synthetic or folder.")],
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="What its owners sent you; for folder your table.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the crops go.")],
    size: Annotated[int, typer.Option(help="Side of the crops in pixels.")] = 224,
    faceless: Annotated[
        str, typer.Option(help="A frame without a face: cut like its 'neighbor' in the sequence, or 'drop' it.")
    ] = "neighbor",
    min_score: Annotated[float, typer.Option(help="Detections with a lower score count as no face.")] = 0.6,
    workers: Annotated[int, typer.Option(help="Processes.")] = os.cpu_count() or 1,
    option: OptionList = None,
) -> None:
    """Cut the face crops of a dataset once: parquet shards that datasets.load_dataset reads.

    Started again with the same arguments, it resumes where it stopped. The crops of licensed data are licensed too:
    do not publish them.
    """
    from hf_geaau.data import prepare as prepare_crops

    options = dataset_options(option, name)
    with one_line_warnings(), progress("images", 1) as show_done:
        report = prepare_crops(
            name,
            data_dir,
            output,
            size=size,
            faceless=faceless,
            min_score=min_score,
            workers=workers,
            progress=show_done,
            **options,
        )
    say(f"{report.rows} rows in {report.folder}")
    for action, count in report.problems.items():
        say(f"{count} {action}; see {report.path}")


def example_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="bp4d, bp4d_plus, disfa, fec, synthetic or folder.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    face_model: Annotated[Path | None, typer.Option(help="ICT-FaceKit, to render the faces. Default: drawn.")] = None,
    option: OptionList = None,
) -> None:
    """Write a small imitation of a dataset's official layout, with invented labels and faces, and show the layout."""
    from hf_geaau.data import dataset_class, write_example

    # After the imports, which take seconds: what another process began meanwhile is seen, its lock included.
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise typer.BadParameter(f"must be a new or empty folder, got '{folder}'.", param_hint="DIR")
    write_example(name, folder, **parsed(option) | ({"face_model": face_model} if face_model else {}))
    say(f"An imitation of {name}, all invented, in {folder}")
    layout = dataset_class(name).LAYOUT.strip("\n")
    say(f"The layout of {name}:\n{layout}")


def download_fec(
    data_dir: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with FEC's two csv files.")],
    workers: Annotated[int, typer.Option(help="Connections at a time.")] = 8,
    rate: Annotated[float, typer.Option(help="Requests per second to one host, at most.")] = 5.0,
    timeout: Annotated[float, typer.Option(help="Seconds that a server may take to answer.")] = 20.0,
    retries: Annotated[int, typer.Option(help="Repetitions after a temporary failure.")] = 3,
    retry_dead: Annotated[bool, typer.Option("--retry-dead", help="Request dead links again.")] = False,
) -> None:
    """Fetch the photos of FEC into DIR/images; dead links are listed in DIR/dead_links.csv.

    Started again, it resumes where it stopped. The photos belong to their owners: do not pass them on.
    """
    from hf_geaau.data.fec import download_fec as fetch

    with one_line_warnings(), progress("photos", 1) as show_done:
        report = fetch(
            data_dir,
            workers=workers,
            rate=rate,
            timeout=timeout,
            retries=retries,
            retry_dead=retry_dead,
            progress=show_done,
        )
    say(
        f"{report.fetched} photos fetched, {report.present} were present, {len(report.dead)} dead links; see"
        f" {report.path}"
    )
