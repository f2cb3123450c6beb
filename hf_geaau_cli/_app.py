"""`hf-geaau app`: the demo in the browser, and its folder for Hugging Face Spaces."""

from pathlib import Path
from typing import Annotated

import typer

from ._console import err, out, quiet_libraries, say
from ._predict import bad_parameters


def app(
    model: Annotated[str | None, typer.Option(help="Hub id or checkpoint directory. Default: bundled weights.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines of the network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="If it is taken, one of the next is used.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Make a public link; all then passes through Gradio's servers.")
    ] = False,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="torch, onnx or openvino. Default: the fastest the model has.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Of torch, such as cuda:1. Default: its best.")] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    max_seconds: Annotated[
        float | None, typer.Option(min=1, help="Analyze only the first seconds of a video. Default: all.")
    ] = None,
    export_space: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a folder for Hugging Face Spaces there, and start nothing."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the folder that exist.")] = False,
) -> None:
    """Show action units in the browser: photos, a webcam, videos, and two faces compared.

    Nothing leaves this machine unless --share is given. Ctrl-C ends the app and deletes what was uploaded.
    """
    if overwrite and export_space is None:
        raise typer.BadParameter("needs --export-space DIR.", param_hint="--overwrite")
    quiet_libraries()
    if export_space is not None:
        from hf_geaau.app.space import export_space as export

        made = export(export_space, model=model, overwrite=overwrite)
        say(f"A Space in {made.folder}: {', '.join(made.files)}")
        for note in made.notes:
            say(f"note: {note}", err)
        return
    from hf_geaau.app.server import serve
    from hf_geaau.backends import choose_backend

    with bad_parameters():
        backend = choose_backend(model, backend, device)
    serve(
        model,
        host=host,
        port=port,
        share=share,
        backend=backend,
        device=device,
        open_browser=open_browser,
        max_seconds=max_seconds,
        on_ready=_tell,
    )
    say("Stopped. Uploads and results are deleted.", err)


def _tell(address: str, public: str | None) -> None:
    out.print(f"The app is at {address} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
    if public is not None:
        out.print(f"Public link, through Gradio's servers: {public}", highlight=False, soft_wrap=True)
