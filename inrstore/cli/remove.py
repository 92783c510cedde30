"""`inrstore remove` and `inrstore prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import DryRun, Json

_Archive = Annotated[str, typer.Argument(metavar="ARCHIVE", help="Path or URL.", show_default=False)]


def remove(
    archive: _Archive,
    globs: Annotated[
        list[str], typer.Argument(metavar="GLOB...", help="Paths in the archive, as 'sub-01/*'.", show_default=False)
    ],
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", help="Also what was changed or is damaged.")] = False,
    as_json: Json = False,
) -> None:
    """Remove images and files from an archive for good; no update brings them back by itself."""
    with output.errors(as_json):
        from inrstore import api

        result = api.remove(archive, globs, dry_run=dry_run, force=force)
    output.show(result, as_json)


def prune(archive: _Archive, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Remove what the source has not any more, as the last convert or update found, and what is left over."""
    with output.errors(as_json):
        from inrstore import api

        result = api.prune(archive, dry_run=dry_run)
    output.show(result, as_json)
