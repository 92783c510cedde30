"""`inrstore export`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore import files
from inrstore.archive.record import is_archive
from inrstore.cli import output
from inrstore.cli.options import Include, Json, Target
from inrstore.cli.progress import progress
from inrstore.errors import ConfigurationError
from inrstore.store.container import is_zip


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
    spacing: Annotated[
        str,
        typer.Option(
            metavar="MM",
            help="A NIfTI with voxels of this size, 1 or 1,1,2, along the axes of the image.",
            show_default=False,
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Write the image of a store with the header of its source, or the tree or zip that an archive was."""
    with output.errors(as_json), progress(quiet=as_json) as step:
        from inrstore import api

        if spacing:
            from inrstore.views.field import field

            if include or (not is_zip(store) and is_archive(files.place(store))):
                raise ConfigurationError("--spacing: of a single store only")
            result: output.Report = field(store).export(out, _steps(spacing), progress=step)
        else:
            result = api.export(store, out, include=include or (), progress=step)
    output.show(result, as_json)


def _steps(text: str) -> float | list[float]:
    """Return the numbers of a spacing."""
    try:
        steps = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--spacing: {text!r} is neither one number nor three") from None
    return steps[0] if len(steps) == 1 else steps
