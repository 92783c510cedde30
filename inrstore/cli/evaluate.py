"""`inrstore evaluate`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import Json
from inrstore.cli.progress import progress


class KindName(StrEnum):
    """What an image is."""

    dmri = "dmri"
    fmri = "fmri"
    structural = "structural"
    ct = "ct"
    image = "image"


def evaluate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Path or URL of the image.", show_default=False)],
    stores: Annotated[
        list[str],
        typer.Argument(metavar="STORE...", help="Stores made of it, compared side by side.", show_default=False),
    ],
    report: Annotated[
        str | None, typer.Option(metavar="HTML", help="Write a page with pictures and curves.", show_default=False)
    ] = None,
    csv: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a table, a line for each figure.", show_default=False)
    ] = None,
    mask: Annotated[
        str | None, typer.Option(metavar="FILE", help="The brain; found if not given.", show_default=False)
    ] = None,
    kind: Annotated[
        KindName | None, typer.Option(help="What the image is, if not what it looks like.", show_default=False)
    ] = None,
    yardsticks: Annotated[
        bool,
        typer.Option("--yardsticks", help="Beside it denoising, smoothing, other codecs, two halves of the scan."),
    ] = False,
    seed: Annotated[
        str | None,
        typer.Option(metavar="X,Y,Z", help="fMRI: voxel whose connectivity is measured.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what compression did to an image and to what is computed from it: FA, MD, tSNR, tissues, HU."""
    with output.errors(as_json), progress(quiet=as_json) as step:
        from inrstore import api
        from inrstore.errors import ConfigurationError

        place = None
        if seed is not None:
            try:
                place = [int(part) for part in seed.split(",")]
            except ValueError:
                raise ConfigurationError(f"--seed {seed}: give x, y and z of a voxel, as 40,22,17") from None
        result = api.evaluate(
            source, stores, kind=None if kind is None else kind.value, mask=mask, yardsticks=yardsticks, seed=place,
            report=report, table=csv, progress=step,
        )  # fmt: skip
    output.show(result, as_json)
