"""What `inrstore info --versions` says: versions, and whether compiled loops serve."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from inrstore.chunk.frame import VERSION
from inrstore.chunk.kernels import choice
from inrstore.store.layout import LAYOUT_VERSION

PACKAGES = ("numpy", "zarr", "numcodecs", "numba", "torch", "av")


def versions() -> dict[str, Any]:
    """Return versions of this package, its formats and what it stands on, and why compiled loops serve or do not.

    Loops that no cache holds are compiled, which takes some ten seconds.
    """
    reason = choice.hindrance()
    return {
        "inrstore": version("inrstore"),
        "chunk_format": VERSION,
        "store_layout": LAYOUT_VERSION,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "compiled_loops": {"serve": reason is None, "reason": reason, choice.VARIABLE: os.environ.get(choice.VARIABLE)},
    }


def text(found: dict[str, Any]) -> str:
    """Return the same for people."""
    loops = found["compiled_loops"]
    setting = loops[choice.VARIABLE]
    rows = {
        "inrstore": found["inrstore"],
        "formats": f"chunks {found['chunk_format']}, stores {found['store_layout']}",
        "python": found["python"],
        **{name: number or "not installed" for name, number in found["packages"].items()},
        "loops": f"compiled ({choice.VARIABLE} {'is not set' if setting is None else '= ' + setting})"
        if loops["serve"]
        else f"numpy: {loops['reason']}",
    }
    return "\n".join(f"{name:<10}{value}" for name, value in rows.items())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
