"""The commands convert, info, verify and export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from inrstore.cli import output

app = typer.Typer(
    help="Archives of medical images as Zarr stores of quantised sinusoidal networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class PresetName(StrEnum):
    """Time to spend."""

    fast = "fast"
    balanced = "balanced"
    small = "small"


class DeviceName(StrEnum):
    """Where networks are fitted."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class FormatName(StrEnum):
    """Format of the store."""

    v3 = "3"
    v2 = "2"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Directory of the store.", show_default=False)]


def _version(wanted: bool) -> None:
    if wanted:
        from inrstore import __version__

        typer.echo(f"inrstore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC.nii[.gz]", help="The image.", show_default=False)],
    destination: Annotated[
        Path,
        typer.Argument(metavar="DST.zarr", help="The store to make; must not exist.", show_default=False),
    ],
    psnr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            help="Quality in dB, each volume over its own range. 40 if none is given.",
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
    lossless: Annotated[bool, typer.Option("--lossless", help="Keep every bit.")] = False,
    preset: Annotated[PresetName, typer.Option(help="Time to spend.")] = PresetName.balanced,
    device: Annotated[DeviceName, typer.Option(help="Where networks are fitted.")] = DeviceName.auto,
    zarr_format: Annotated[FormatName, typer.Option(help="Zarr format of the store.")] = FormatName.v3,
    as_json: Json = False,
) -> None:
    """Convert a NIfTI image to a store."""
    with output.errors(as_json), output.progress(quiet=as_json) as report:
        from inrstore.archive.convert import convert as run

        result = run(
            source,
            destination,
            psnr=psnr,
            rmse=rmse,
            max_error=max_error,
            lossless=lossless,
            preset=preset.value,
            device=device.value,
            zarr_format=3 if zarr_format is FormatName.v3 else 2,
            progress=report,
        )
    output.show(result, as_json, output.convert_text)


@app.command()
def info(store: StorePath, as_json: Json = False) -> None:
    """Show size, quality and chunks of a store; nothing is decoded."""
    with output.errors(as_json):
        from inrstore.archive.verify import info as run

        result = run(store)
    output.show(result, as_json, output.info_text)


@app.command()
def verify(
    store: StorePath,
    against: Annotated[
        Path | None, typer.Option(metavar="SRC", help="Compare with the source too.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Decode everything in a store and check it."""
    with output.errors(as_json), output.progress(quiet=as_json) as report:
        from inrstore.archive.verify import verify as run

        result = run(store, against, progress=report)
    output.show(result, as_json, output.verify_text)


@app.command()
def export(
    store: StorePath,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT.nii[.gz]", help="The file to make; must not exist.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Write the image of a store as NIfTI, with the header of its source."""
    with output.errors(as_json), output.progress(quiet=as_json) as report:
        from inrstore.archive.export import export as run

        result = run(store, out, progress=report)
    output.show(result, as_json, output.export_text)
