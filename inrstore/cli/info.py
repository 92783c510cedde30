"""`inrstore info`."""

from __future__ import annotations

from inrstore.cli import output
from inrstore.cli.options import Json, Target


def info(store: Target, as_json: Json = False) -> None:
    """Show size, quality and chunks of a store, or what an archive holds; nothing is decoded."""
    with output.errors(as_json):
        from inrstore import api

        result = api.info(store)
    output.show(result, as_json)
