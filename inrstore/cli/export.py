"""`inrstore export`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import Include, Json, Target
from inrstore.cli.progress import progress


def export(
    store: Target,
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="What to make, must not exist: a file with the ending of the source; a folder or .zip of an archive.",
            show_default=False,
        ),
    ],
    include: Include = None,
    as_json: Json = False,
) -> None:
    """Write the image of a store with the header of its source, or the tree or zip that an archive was."""
    with output.errors(as_json), progress(quiet=as_json) as step:
        from inrstore import api

        result = api.export(store, out, include=include or (), progress=step)
    output.show(result, as_json)
