"""`inrstore verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import Json, Target
from inrstore.cli.progress import progress


def verify(
    store: Target,
    against: Annotated[
        str | None, typer.Option(metavar="SRC", help="Compare with the source too.", show_default=False)
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Compare sizes and digests; decode nothing.")] = False,
    subset: Annotated[
        str | None, typer.Option(metavar="N/T", help="Check the n-th of t parts only.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Decode everything in a store or an archive and check it."""
    with output.errors(as_json), progress(quiet=as_json) as step:
        from inrstore import api

        result = api.verify(store, against, fast=fast, subset=subset, progress=step)
    output.show(result, as_json)
