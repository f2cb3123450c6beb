"""Commands that share: push, models."""

from pathlib import Path
from typing import Annotated

import typer

from ._console import out, quiet_libraries, say


def push(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What `hf-geaau train` or save_pretrained wrote.")],
    repo_id: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub; made if missing.")],
    contact: Annotated[str, typer.Option(help="Who answers questions: a name with an address.")] = "",
    intended_use: Annotated[str, typer.Option(help="What you share the weights for.")] = "",
    license: Annotated[str, typer.Option(help="Of the weights, such as apache-2.0; where no data binds them.")] = "",
    data_agreement: Annotated[
        str, typer.Option(help="Which agreement on the data you hold, and what it says about weights.")
    ] = "",
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Default: private if the data is licensed.")
    ] = None,
    i_may_publish: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Why weights of licensed data may be public; goes into the card."),
    ] = None,
    trained_on: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A dataset, where the config does not say it. Repeatable.")
    ] = None,
    remote_code: Annotated[
        bool, typer.Option("--remote-code", help="Add the model's code, for machines without hf_geaau.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch. Default: main; folds get their own.")] = None,
) -> None:
    """Share a checkpoint, or the folds of a training, with a model card.

    Only weights, configs, the card and its numbers are pushed. Weights of licensed data go to a private repository.
    """
    quiet_libraries()
    from hf_geaau.hub import push as push_checkpoint
    from hf_geaau.model_card import Statements

    statements = Statements(contact=contact, intended_use=intended_use, license=license, data_agreement=data_agreement)
    pushed = push_checkpoint(
        directory,
        repo_id,
        statements,
        private=private,
        may_publish=i_may_publish,
        trained_on=trained_on or (),
        remote_code=remote_code,
        revision=revision,
    )
    for branch, files in pushed.files.items():
        say(f"{branch}: {', '.join(files)}")
    say(f"{'private' if pushed.private else 'public'} at {pushed.url}")


def models() -> None:
    """List the checkpoints of the zoo: those in the package, and those that a recipe makes."""
    from hf_geaau.model_card import zoo_row
    from hf_geaau.models.zoo import ZOO

    for entry in ZOO:
        row = zoo_row(entry)
        out.print(row.pop("checkpoint"), style="bold", highlight=False)
        # A line each, because the terms of a license do not fit a table's column.
        for name, value in row.items():
            say(f"  {name:10} {value}")
    out.print("A recipe makes its weights: hf-geaau train RECIPE --data-dir CROPS --output DIR", highlight=False)
