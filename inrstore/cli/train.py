"""`inrstore train`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.options import DeviceName, Json
from inrstore.cli.progress import progress


class ArchitectureName(StrEnum):
    """Which neighbours a predictor sees."""

    cube = "cube"
    pyramid = "pyramid"


class RecipeName(StrEnum):
    """How it is trained."""

    usual = "usual"
    paper = "paper"


def train(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Paths or URLs of images to learn from.", show_default=False),
    ],
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="The file to write; must not exist.", show_default=False)
    ],
    architecture: Annotated[ArchitectureName, typer.Option(help="The neighbours it sees.")] = ArchitectureName.cube,
    radius: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of the cube: 2 if none is given; 5 is 11 x 11 x 11.", show_default=False),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(metavar="N", help="Hidden layers: 2 if none is given.", show_default=False)
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]", help="Units of each layer, or of all: 32 if none is given.", show_default=False
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Of the optimiser: 6000 if none is given.", show_default=False)
    ] = None,
    preset: Annotated[
        RecipeName, typer.Option(help="paper: layers, inputs, loss, batch and rate as published; slow without a GPU.")
    ] = RecipeName.usual,
    device: Annotated[DeviceName, typer.Option(help="Where it is trained.")] = DeviceName.auto,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same file.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a network that predicts voxels from their neighbours, for `convert --lossless --shared FILE`."""
    with output.errors(as_json), progress(quiet=as_json) as step:
        from inrstore import api

        result = api.train(
            images, out, architecture=architecture.value, radius=radius, layers=layers, units=units, steps=steps,
            recipe=preset.value, device=device.value, seed=seed, progress=step,
        )  # fmt: skip
    output.show(result, as_json)
