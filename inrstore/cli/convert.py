"""`inrstore convert`."""

from __future__ import annotations

from typing import Annotated

import typer

from inrstore.cli import output
from inrstore.cli.log import LogFile, logged
from inrstore.cli.options import (
    DeviceName,
    DryRun,
    FormatName,
    Include,
    Json,
    ModeName,
    NetworkChoice,
    PresetName,
    SineName,
    StoreName,
    Unmatched,
    described,
)
from inrstore.cli.progress import progress

_MANY = "Many images"
_NETWORKS = "Networks"


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="Path or URL: an image, a zip, or any folder.", show_default=False),
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DST",
            help="The store (.ozx or .zarr) of an image; the archive of a folder or zip.",
            show_default=False,
        ),
    ],
    psnr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            help="Quality in dB, each volume over its own range. If none is given: by kind and noise.",
            show_default=False,
        ),
    ] = None,
    rmse: Annotated[
        float | None,
        typer.Option(metavar="R", help="Root mean square error, in stored units.", show_default=False),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Largest error of any voxel, in stored units.", show_default=False),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(metavar="K", help="RMSE of each volume, in standard deviations of its noise.", show_default=False),
    ] = None,
    preserve: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE[=BOUND]",
            help="The fewest bytes that keep fa, md, bold, volume or hu within a bound.",
            show_default=False,
        ),
    ] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Keep every bit.")] = False,
    preset: Annotated[PresetName, typer.Option(help="Time to spend.")] = PresetName.balanced,
    mode: Annotated[
        ModeName,
        NetworkChoice,
        typer.Option(help="What chunks may be: the smallest; only networks; wavelets or AV1 where they hold one."),
    ] = ModeName.auto,
    network: Annotated[
        NetworkChoice | None,
        typer.Option(help="Only networks, of this kind.", show_default=False, rich_help_panel=_NETWORKS),
    ] = None,
    layers: Annotated[int, typer.Option(metavar="N", help="Its hidden layers.", rich_help_panel=_NETWORKS)] = 0,
    units: Annotated[
        int, typer.Option(metavar="N", help="Units of a layer; searched if 0.", rich_help_panel=_NETWORKS)
    ] = 0,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of a fit.", rich_help_panel=_NETWORKS)] = 0,
    omega_0: Annotated[
        float, typer.Option(metavar="W", help="Frequencies of its first sines.", rich_help_panel=_NETWORKS)
    ] = 0.0,
    rate: Annotated[float, typer.Option(metavar="R", help="Learning rate.", rich_help_panel=_NETWORKS)] = 0.0,
    sine: Annotated[
        SineName, typer.Option(help="Which layer of mlp-siren is a sine.", rich_help_panel=_NETWORKS)
    ] = SineName.first,
    downsample: Annotated[
        int, typer.Option(metavar="2|4|8", help="Coarser grid of its first part.", rich_help_panel=_NETWORKS)
    ] = 0,
    channels: Annotated[
        int, typer.Option(metavar="N", help="Width of its second part.", rich_help_panel=_NETWORKS)
    ] = 0,
    device: Annotated[DeviceName, typer.Option(help="Where networks are fitted.")] = DeviceName.auto,
    store: Annotated[
        StoreName | None,
        typer.Option(
            help="Stores of an archive: a file each (the default), or a folder.",
            show_default=False,
            rich_help_panel=_MANY,
        ),
    ] = None,
    zarr_format: Annotated[FormatName, typer.Option(help="Zarr format of the store.")] = FormatName.v3,
    chunks: Annotated[
        str, typer.Option(metavar="auto|whole|Z,Y,X", help="Shape of chunks; small ones are read faster.")
    ] = "auto",
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where it is 0 nothing is kept. A path, or a name beside each image.",
            show_default=False,
        ),
    ] = None,
    shared: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A network of `inrstore train` that lossless chunks may name; can be given several times.",
            show_default=False,
        ),
    ] = None,
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave out free text of headers, extensions and tags; say what it was.")
    ] = False,
    include: Include = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="No files that fit it; can be given several times.", show_default=False),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="TOML: quality by kind of image.", show_default=False, rich_help_panel=_MANY),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="HTML page to write: every image with a picture.",
            show_default=False,
            rich_help_panel=_MANY,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Work on the workers of this dask scheduler.",
            show_default=False,
            rich_help_panel=_MANY,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Work on N processes of this machine, one thread each.",
            show_default=False,
            rich_help_panel=_MANY,
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", help="Images that are fitted together on a GPU.", rich_help_panel=_MANY)
    ] = 1,
    log_fit: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="CSV of loss and PSNR of each chunk against steps; a .png beside it.",
            show_default=False,
            rich_help_panel=_NETWORKS,
        ),
    ] = None,
    allow_unmatched: Unmatched = False,
    dry_run: DryRun = False,
    log: LogFile = None,
    as_json: Json = False,
) -> None:
    """Convert an image to a store, or a folder or zip to an archive, which the same command again resumes.

    Exit code 1 says that something failed, or that the archive has what the source has not any more.
    """
    with output.errors(as_json), logged(log), progress(quiet=as_json) as step:
        from inrstore import api

        result = api.convert(
            source,
            destination,
            psnr=psnr,
            rmse=rmse,
            max_error=max_error,
            noise=noise,
            preserve=preserve,
            lossless=lossless,
            preset=preset.value,
            mode=mode.value,
            network=described(
                network,
                mode,
                preset,
                layers=layers,
                units=units,
                steps=steps,
                omega_0=omega_0,
                rate=rate,
                sine=sine.value,
                downsample=downsample,
                channels=channels,
            ),
            device=device.value,
            store=None if store is None else store.value,
            zarr_format=3 if zarr_format is FormatName.v3 else 2,
            chunks=chunks,
            mask=mask,
            strip=strip,
            shared=shared or (),
            include=include or (),
            exclude=exclude or (),
            rules=rules,
            report=report,
            scheduler=scheduler,
            workers=workers,
            batch=batch,
            allow_unmatched=allow_unmatched,
            log_fit=log_fit,
            dry_run=dry_run,
            progress=step,
        )
    output.show(result, as_json)
    output.exit_of(result)
