"""`inrstore info`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import Json


def info(
    store: Annotated[
        str | None, typer.Argument(metavar="STORE", help="Path or URL of a store or an archive.", show_default=False)
    ] = None,
    as_json: Json = False,
    versions: Annotated[
        bool, typer.Option("--versions", help="Print versions, and whether compiled loops serve; without STORE.")
    ] = False,
) -> None:
    """Show size, quality and chunks of a store, or what an archive holds; nothing is decoded."""
    if versions == (store is not None):
        raise typer.BadParameter("either a store or --versions", param_hint="STORE")
    if store is None:
        from inrstore.cli import versions as installed

        found = installed.versions()
        typer.echo(json.dumps(found) if as_json else installed.text(found))
        return
    with output.errors(as_json):
        from inrstore import api

        result = api.info(store)
    output.show(result, as_json)
