"""The codec for Zarr version 2, found by numcodecs under the id `inrstore`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ndarray_copy

from inrstore.chunk.modes import check_shared
from inrstore.chunk.quality import Target
from inrstore.chunk.shared import parse, texts_of
from inrstore.codecs import decoded
from inrstore.codecs.batching import encode_batch
from inrstore.options import Device, EncodeOptions, Mode, Preset


class InrNumcodec(Codec):  # type: ignore[misc]  # numcodecs ships no types
    """Chunks as wavelets, predictors or networks, as a numcodecs compressor.

    Parameters
    ----------
    rmse, max_error, lossless, scale, channel_axis
        The promised quality in stored units; see `inrstore.chunk.quality.Target`.
    shared : sequence of (str, bytes or Network), optional
        Parameters that chunks may name, as a network that predicts lossless ones; stored with the array.
    preset, mode, device
        Effort and place of fitting; see `inrstore.options.EncodeOptions`. Not stored.

    Examples
    --------
    >>> zarr.create_array(path, data=a, chunks=c, zarr_format=2, compressors=InrNumcodec(rmse=12.0))
    """

    codec_id = "inrstore"

    def __init__(
        self,
        *,
        rmse: float | None = None,
        max_error: float | None = None,
        lossless: bool = False,
        scale: Any = None,
        channel_axis: int | None = None,
        shared: Any = (),
        preset: Preset = "balanced",
        mode: Mode = "auto",
        device: Device = "auto",
        **unknown: Any,
    ) -> None:
        given = {"rmse": rmse, "max_error": max_error, "lossless": lossless, "scale": scale,
                 "channel_axis": channel_axis}  # fmt: skip
        self._target = Target.from_dict({**given, **unknown})
        self._shared = texts_of(shared)
        check_shared(parse(self._shared))
        self._options = EncodeOptions(preset=preset, mode=mode, device=device)

    def encode(self, buf: Any) -> bytes:
        """Return the frame of a chunk."""
        return encode_batch([np.asarray(buf)], self._target, self._options, parse(self._shared))[0]

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the chunk of a frame, with the shape, dtype and byte order it was encoded from."""
        made = decoded.chunk(ensure_bytes(buf), shared=parse(self._shared))
        return made.copy(order="K") if out is None else ndarray_copy(made, out)

    def get_config(self) -> dict[str, Any]:
        """Return the stored configuration: the promise, not the effort."""
        shared = {"shared": list(self._shared)} if self._shared else {}
        return {"id": self.codec_id, **self._target.to_dict(), **shared}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InrNumcodec:
        """Build from a stored configuration; unknown options are refused by name."""
        target = Target.from_dict({k: v for k, v in config.items() if k not in ("id", "shared")})
        return cls(**target.to_dict(), shared=config.get("shared", ()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={v!r}" for k, v in self._target.to_dict().items())
        return f"{type(self).__name__}({inner})"
