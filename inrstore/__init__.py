"""Archives of medical images as Zarr stores of wavelets, predictors and small networks.

The public names are loaded when they are first used, so that `import inrstore` stays fast and a reader
never imports what only a converter needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inrstore.api import convert, export, info, merge, prune, remove, tradeoff, train, update, verify
    from inrstore.codecs.decoded import cache
    from inrstore.views.archive import open_archive
    from inrstore.views.backend import open
    from inrstore.views.field import field
    from inrstore.views.image import load

    __version__: str

__all__ = [
    "__version__",
    "cache",
    "convert",
    "export",
    "field",
    "info",
    "load",
    "merge",
    "open",
    "open_archive",
    "prune",
    "remove",
    "tradeoff",
    "train",
    "update",
    "verify",
]

_HOMES = {
    "cache": "inrstore.codecs.decoded",
    "convert": "inrstore.api",
    "export": "inrstore.api",
    "field": "inrstore.views.field",
    "info": "inrstore.api",
    "load": "inrstore.views.image",
    "merge": "inrstore.api",
    "open": "inrstore.views.backend",
    "open_archive": "inrstore.views.archive",
    "prune": "inrstore.api",
    "remove": "inrstore.api",
    "tradeoff": "inrstore.api",
    "train": "inrstore.api",
    "update": "inrstore.api",
    "verify": "inrstore.api",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("inrstore")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'inrstore' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
