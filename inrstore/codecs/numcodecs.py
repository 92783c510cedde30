"""The codec for Zarr version 2, found by numcodecs under the id `inrstore`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ndarray_copy

from inrstore.codecs.batching import encode_batch
from inrstore.format.chunk import decode_chunk
from inrstore.format.target import Target
from inrstore.options import Device, EncodeOptions, Preset


class InrNumcodec(Codec):  # type: ignore[misc]  # numcodecs ships no types
    """Chunks as quantised sinusoidal networks, as a numcodecs compressor.

    Parameters
    ----------
    rmse, max_error, lossless, scale, channel_axis
        The promised quality in stored units; see `inrstore.format.target.Target`.
    preset, device
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
        preset: Preset = "balanced",
        device: Device = "auto",
        **unknown: Any,
    ) -> None:
        given = {"rmse": rmse, "max_error": max_error, "lossless": lossless, "scale": scale,
                 "channel_axis": channel_axis}  # fmt: skip
        self._target = Target.from_dict({**given, **unknown})
        self._options = EncodeOptions(preset=preset, device=device)

    def encode(self, buf: Any) -> bytes:
        """Return the frame of a chunk."""
        return encode_batch([np.asarray(buf)], self._target, self._options)[0]

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the chunk of a frame, with the shape, dtype and byte order it was encoded from."""
        return ndarray_copy(decode_chunk(ensure_bytes(buf)), out)

    def get_config(self) -> dict[str, Any]:
        """Return the stored configuration: the promise, not the effort."""
        return {"id": self.codec_id, **self._target.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InrNumcodec:
        """Build from a stored configuration; unknown options are refused by name."""
        target = Target.from_dict({k: v for k, v in config.items() if k != "id"})
        return cls(**target.to_dict())

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={v!r}" for k, v in self._target.to_dict().items())
        return f"{type(self).__name__}({inner})"
