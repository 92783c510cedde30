"""Options and arguments that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class PresetName(StrEnum):
    """Time to spend."""

    fast = "fast"
    balanced = "balanced"
    small = "small"


class ModeName(StrEnum):
    """What lossy chunks may be."""

    auto = "auto"
    network = "network"
    transform = "transform"
    av1 = "av1"


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
