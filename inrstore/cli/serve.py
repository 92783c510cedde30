"""`inrstore serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import Cache, Scratch, Target


def serve(
    store: Target,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines read.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free, which is printed.")] = 8008,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="ORIGINAL",
            help="What it was made from, to compare with: the file of a store, the tree or zip of an archive.",
            show_default=False,
        ),
    ] = None,
    origin: Annotated[
        str,
        typer.Option(
            metavar="ORIGIN",
            help="Web pages that may read it: *, those of https://..., or none but its own.",
        ),
    ] = "*",
    cache: Cache = None,
    scratch: Scratch = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for each request.")] = False,
) -> None:
    """Serve a store, or the tree that an archive was, over HTTP until SIGINT or SIGTERM; nothing is written."""
    with output.errors(False):
        from inrstore.views import serve as view

        if not view.is_loopback(host):
            output.note(f"warning: all that is served can be read by whoever reaches {host}")
        view.serve(
            store, host=host, port=port, source=source, origin="" if origin == "none" else origin,
            cache=None if cache is None else cache << 20, scratch=scratch,
            log=output.note if verbose else None, tell=output.note, ready=output.address,
        )  # fmt: skip
