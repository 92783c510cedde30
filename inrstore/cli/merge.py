"""`inrstore merge`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import Json


def merge(
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Archive to take in; only read.", show_default=False)],
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Archive that grows.", show_default=False)],
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Paths that are not taken.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Take everything of another archive into an archive; nothing of either is replaced."""
    with output.errors(as_json):
        from inrstore import api

        result = api.merge(other, archive, exclude=exclude or ())
    output.show(result, as_json)
