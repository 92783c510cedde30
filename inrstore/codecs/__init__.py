"""Thin adapters that let Zarr call the chunk codec; found through entry points, nothing to import by hand."""

from __future__ import annotations

from typing import Any

__all__ = ["InrCodec", "InrNumcodec"]


def __getattr__(name: str) -> Any:
    """Load an adapter when it is asked for, so that reading one format does not import the other."""
    if name == "InrCodec":
        from inrstore.codecs.zarr import InrCodec

        return InrCodec
    if name == "InrNumcodec":
        from inrstore.codecs.numcodecs import InrNumcodec

        return InrNumcodec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
