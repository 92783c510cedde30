"""Options and arguments that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from inrstore.errors import ConfigurationError
from inrstore.options import Network


class PresetName(StrEnum):
    """Time to spend."""

    fast = "fast"
    balanced = "balanced"
    small = "small"
    paper = "paper"


class ModeName(StrEnum):
    """What lossy chunks may be."""

    auto = "auto"
    siren = "siren"
    transform = "transform"
    av1 = "av1"


class NetworkChoice(StrEnum):
    """Which network holds chunks."""

    siren3d = "siren3d"
    siren2d = "siren2d"
    siren2d_relu = "siren2d-relu"
    mlp_relu = "mlp-relu"
    mlp_tanh = "mlp-tanh"
    mlp_siren = "mlp-siren"
    lanczos = "lanczos-siren-srdensenet"
    fourier = "fourier-siren-srno"


class SineName(StrEnum):
    """Which layer of mlp-siren is a sine."""

    first = "first"
    last = "last"


class DeviceName(StrEnum):
    """Where networks are fitted."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class StoreName(StrEnum):
    """What stores are."""

    ozx = "ozx"
    zarr = "zarr"


class FormatName(StrEnum):
    """Format of the store."""

    v3 = "3"
    v2 = "2"


Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Target = Annotated[
    str, typer.Argument(metavar="STORE", help="Path or URL of a store or an archive.", show_default=False)
]
Unmatched = Annotated[
    bool,
    typer.Option("--allow-unmatched", help="Go on though no image fits a rule, or no file an --include."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Only files that fit it; can be given several times.", show_default=False),
]
Cache = Annotated[
    int | None,
    typer.Option(
        metavar="MIB", help="Decoded chunks to keep; a quarter of the memory, at most 1024.", show_default=False
    ),
]
Scratch = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER", help="For decoded voxels that exceed the cache; that of the system.", show_default=False
    ),
]


def described(network: StrEnum | None, mode: ModeName, preset: PresetName, **given: Any) -> Network | None:
    """Return the network that options describe; its name follows from the mode and the preset if it is not given."""
    size = {name: value for name, value in given.items() if value and value != SineName.first}
    if network is not None:
        return Network.of({"name": network.value, **size})
    if not size:
        return None
    if preset is PresetName.paper:
        return Network(name="siren2d", **size)
    if mode is ModeName.siren:
        return Network(**size)
    raise ConfigurationError(f"{next(iter(size))} goes with --network, --mode siren or --preset paper")
