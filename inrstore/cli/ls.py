"""`inrstore ls`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inrstore.cli import output
from inrstore.cli.options import Json


def ls(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Path or URL.", show_default=False)],
    glob: Annotated[
        str, typer.Argument(metavar="[GLOB]", help="Paths in the archive, as 'sub-01/*'.", show_default=False)
    ] = "",
    subject: Annotated[str | None, typer.Option(metavar="ID", help="Of this subject.", show_default=False)] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Of this session.", show_default=False)] = None,
    suffix: Annotated[str | None, typer.Option(metavar="NAME", help="dwi, T1w, bold.", show_default=False)] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any other entity or field: task=rest.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the images of an archive, from its record; nothing is opened."""
    with output.errors(as_json):
        from inrstore.errors import ConfigurationError
        from inrstore.views.archive import open_archive

        wanted: dict[str, Any] = {"subject": subject, "session": session, "suffix": suffix}
        for pair in where or ():
            name, equals, value = pair.partition("=")
            if not equals:
                raise ConfigurationError(f"{pair}: give a name and a value, as task=rest")
            wanted[name] = value
        found = open_archive(archive).select(
            glob, **{name: value for name, value in wanted.items() if value is not None}
        )
    output.show_images(found.records(), as_json)
