"""`inrstore tradeoff`."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from inrstore.cli import output
from inrstore.cli.log import LogFile, logged
from inrstore.cli.options import DeviceName, Json
from inrstore.cli.progress import progress
from inrstore.evaluate.tradeoff import BETA
from inrstore.options import NetworkName


def tradeoff(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Path or URL of an image.", show_default=False)],
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", metavar="DIR", help="Folder; IMAGE.tradeoff otherwise.", show_default=False),
    ] = None,
    network: Annotated[str, typer.Option(metavar="NAME", help="System of networks.")] = "fourier-siren-srno",
    downsample: Annotated[
        str | None, typer.Option(metavar="N[,N...]", help="Scales 1/N: 2,4,8 if none are given.", show_default=False)
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(metavar="N[,N...]", help="Of the second network: 4,8,16 if none are given.", show_default=False),
    ] = None,
    neurons: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]", help="Of a layer of the first: 30,50,... 230 if none are given.", show_default=False
        ),
    ] = None,
    layers: Annotated[int, typer.Option(metavar="N", help="Hidden layers of the first network.")] = 3,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Of the optimiser: 5000 if none are given.", show_default=False)
    ] = None,
    size: Annotated[int, typer.Option(metavar="N", help="Edge of the patch.")] = 64,
    patch: Annotated[
        str, typer.Option(metavar="auto|Z,Y,X", help="Its first voxel; auto: most voxels that are not 0.")
    ] = "auto",
    volume: Annotated[int, typer.Option(metavar="N", help="Which volume of an image with several.")] = 0,
    beta: Annotated[float, typer.Option(metavar="B", help="Penalty of the constraints; 0 for none.")] = BETA,
    device: Annotated[DeviceName, typer.Option(help="Where networks are fitted.")] = DeviceName.auto,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same results.")] = 0,
    threads: Annotated[int, typer.Option(metavar="N", help="Cells fitted at a time on a CPU; 0: all cores.")] = 0,
    log: LogFile = None,
    as_json: Json = False,
) -> None:
    """Measure a grid of networks on a patch and find the trade-off point; the same command again goes on.

    The folder gets a table (CSV), a drawing of each marginal (SVG) and a summary. Exit code 1 says that a network
    could not be fitted.
    """
    with output.errors(as_json), logged(log), progress(quiet=as_json) as step:
        from inrstore import api

        result = api.tradeoff(
            image, out, network=cast(NetworkName, network),
            downsample=downsample, channels=channels, neurons=neurons, layers=layers,
            steps=steps, size=size, patch=patch, volume=volume, beta=beta, device=device.value, seed=seed,
            threads=threads, progress=step,
        )  # fmt: skip
    output.show(result, as_json)
    output.exit_of(result)
