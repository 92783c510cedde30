"""The command `inrstore`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import (
    convert,
    evaluate,
    export,
    info,
    ls,
    merge,
    mount,
    remove,
    serve,
    tradeoff,
    train,
    update,
    verify,
    view,
)

app = typer.Typer(
    help="Archives of medical images as Zarr stores of wavelets, predictors and small networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from inrstore import __version__

        typer.echo(f"inrstore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (
    convert.convert, info.info, verify.verify, export.export, update.update, remove.remove, remove.prune,
    merge.merge, ls.ls, mount.mount, mount.umount, serve.serve, view.view, view.compare, train.train,
    tradeoff.tradeoff, evaluate.evaluate,
):  # fmt: skip
    app.command()(command)
