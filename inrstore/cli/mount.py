"""`inrstore mount` and `inrstore umount`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import Cache, Scratch, Target


def mount(
    store: Target,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="An empty folder.", show_default=False)],
    gz: Annotated[
        bool,
        typer.Option("--gz", help="Show images that were .nii.gz under that name (gzip that does not compress)."),
    ] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until it is unmounted.")] = False,
    allow_other: Annotated[bool, typer.Option("--allow-other", help="Let other users read, too.")] = False,
    cache: Cache = None,
    scratch: Scratch = None,
    log: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where a background process says why a read failed.", show_default=False),
    ] = None,
) -> None:
    """Show a store, or the tree that an archive was, as files in a folder (FUSE); nothing is written."""
    with output.errors(False):
        from inrstore.views import mount as view

        nbytes = None if cache is None else cache << 20
        view.mount(store, folder, gz=gz, foreground=foreground, allow_other=allow_other, cache=nbytes,
                   scratch=scratch, log=log)  # fmt: skip


def umount(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where it was mounted.", show_default=False)],
) -> None:
    """Take away what `inrstore mount` showed in a folder."""
    with output.errors(False):
        from inrstore.views import mount as view

        view.unmount(folder)
