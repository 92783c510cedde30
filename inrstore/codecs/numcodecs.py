"""The codec for Zarr version 2, found by numcodecs under the id `inrstore`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ensure_ndarray, ensure_ndarray_like, ndarray_copy

from inrstore import limits
from inrstore.chunk import dtypes, frame
from inrstore.chunk.modes import check_shared
from inrstore.chunk.quality import Target
from inrstore.chunk.shared import parse, texts_of
from inrstore.codecs import decoded, inherited
from inrstore.codecs.batching import encode_batch
from inrstore.codecs.stored import check_stored
from inrstore.errors import ConfigurationError, LimitExceededError
from inrstore.options import Device, EncodeOptions, Mode, Network, Preset

UNSTATED_BYTES = 1 << 28
"""Bytes of a decoded chunk of which nobody said how large it is: a frame of some thirty bytes may ask for them."""

_OTHER = "another array takes a codec of its own"
_OWN = ("id", "shared", "chunk_shape", "dtype")


class InrNumcodec(Codec):  # type: ignore[misc]  # numcodecs ships no types
    """Chunks as wavelets, predictors or networks, as a numcodecs compressor.

    Parameters
    ----------
    rmse, max_error, lossless, scale, channel_axis
        The promised quality in stored units; see `inrstore.chunk.quality.Target`.
    chunk_shape : sequence of int, optional
        Shape of the chunks of the array. Zarr 2 tells a compressor neither shape nor dtype: those that are stated here
        are stored, and a chunk with others is refused, when it is written and when it is read. Without a shape a
        chunk may have 2^28 bytes, and one that belongs to another array is read as numbers that mean nothing.
    dtype : str or numpy.dtype, optional
        Likewise. Byte order is not compared.
    shared : sequence of (str, bytes or Network), optional
        Parameters that chunks may name, as a network that predicts lossless ones; stored with the array.
    preset, mode, network, device
        Effort and place of fitting; see `inrstore.options.EncodeOptions`. Not stored.

    Warns
    -----
    UserWarning
        When a lossy codec that came from stored metadata and has decoded chunks is to encode some: as zarr and
        xarray hand it on to copies of the array, what was decoded would lose quality twice.

    Examples
    --------
    >>> zarr.create_array(path, data=a, chunks=c, zarr_format=2,
    ...                   compressors=InrNumcodec(rmse=12.0, chunk_shape=c, dtype=a.dtype))
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
        chunk_shape: Any = None,
        dtype: npt.DTypeLike | None = None,
        shared: Any = (),
        preset: Preset = "balanced",
        mode: Mode = "auto",
        network: Network | str | None = None,
        device: Device = "auto",
        **unknown: Any,
    ) -> None:
        given = {"rmse": rmse, "max_error": max_error, "lossless": lossless, "scale": scale,
                 "channel_axis": channel_axis}  # fmt: skip
        self._target = Target.from_dict({**given, **unknown})
        self._shape = None if chunk_shape is None else _shape_of(chunk_shape)
        self._dtype = None if dtype is None else _dtype_of(dtype)
        self._shared = texts_of(shared)
        check_shared(parse(self._shared))
        self._options = EncodeOptions(preset=preset, mode=mode, network=Network.of(network), device=device)
        self._opened: inherited.Opened | None = None

    def encode(self, buf: Any) -> bytes:
        """Return the frame of a chunk.

        Parameters
        ----------
        buf : ndarray or bytes-like
            Bytes are coded as uint8. Dates are coded as int64, if losslessly.

        Raises
        ------
        TypeError
            For objects.
        ConfigurationError
            For other dtypes that the format does not hold, and for a chunk that is not what the array is said to
            have, or larger than a reader allows.
        """
        values = ensure_ndarray(buf)
        if values.dtype == object:
            raise TypeError("object arrays are not supported")
        if values.dtype.kind in "Mm" and self._target.lossless:
            values = values.view(np.dtype("i8").newbyteorder(values.dtype.byteorder))
        if self._dtype is not None and dtypes.little(values.dtype) != dtypes.little(self._dtype):
            raise ConfigurationError(f"a chunk of {values.dtype} where the codec says {self._dtype}: {_OTHER}")
        if self._shape is not None and values.size == math.prod(self._shape):
            values = values.reshape(self._shape)  # filters may have made it flat
        if self._shape is not None and values.shape != self._shape:
            raise ConfigurationError(f"a chunk of shape {values.shape} where the codec says {self._shape}: {_OTHER}")
        if self._shape is None and values.nbytes > UNSTATED_BYTES:
            most = f"the most is {UNSTATED_BYTES} without chunk_shape"
            raise ConfigurationError(f"a chunk of {values.nbytes} bytes; {most}")
        if self._opened is not None:
            self._opened.check(self._target)
        return encode_batch([values], self._target, self._options, parse(self._shared))[0]

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the chunk of a frame, with the shape, dtype and byte order it was encoded from.

        Parameters
        ----------
        buf : bytes-like
            The frame.
        out : ndarray or writable buffer, optional
            Takes the values. An array of the chunk's shape may have any memory layout; anything else gets them in
            the order in memory that the chunk was encoded from.

        Raises
        ------
        CorruptChunkError
            Naming the field that is wrong.
        TypeError, ValueError
            If `out` holds objects, or another number of bytes.
        """
        data = ensure_bytes(buf)
        target = None if out is None else ensure_ndarray_like(out)
        if target is not None and target.dtype == object:
            raise TypeError("object arrays are not supported")
        if self._opened is not None:
            self._opened.decoded = True
        stated = frame.unpack(data, self._shape, self._dtype)
        nbytes = math.prod(stated.shape) * stated.dtype.itemsize
        if target is not None and target.nbytes != nbytes:
            raise ValueError(f"out has {target.nbytes} bytes; the chunk has {nbytes}")
        if target is None and self._shape is None and nbytes > UNSTATED_BYTES:
            raise LimitExceededError("shape", f"{nbytes} bytes; the most is {UNSTATED_BYTES} without chunk_shape")
        made = decoded.chunk(data, stated.shape, stated.dtype, shared=parse(self._shared))
        if target is None:
            return made.copy(order="K")
        if target.shape == made.shape and dtypes.little(target.dtype) == dtypes.little(made.dtype):
            np.copyto(target, made)
            return out
        return ndarray_copy(made, out)

    def get_config(self) -> dict[str, Any]:
        """Return the stored configuration: the promise, not the effort."""
        if self._opened is not None:
            self._opened.saved = True
        return self._config()

    def _config(self) -> dict[str, Any]:
        shape = {} if self._shape is None else {"chunk_shape": list(self._shape)}
        dtype = {} if self._dtype is None else {"dtype": self._dtype.str}
        shared = {"shared": list(self._shared)} if self._shared else {}
        return {"id": self.codec_id, **self._target.to_dict(), **shape, **dtype, **shared}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InrNumcodec) and self._config() == other._config()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InrNumcodec:
        """Build from a stored configuration; unknown options are refused by name."""
        check_stored({k: v for k, v in config.items() if k != "chunk_shape"})  # of a scalar it is empty
        target = Target.from_dict({k: v for k, v in config.items() if k not in _OWN})
        made = cls(**target.to_dict(), **{k: config[k] for k in _OWN[1:] if k in config})
        made._opened = inherited.opened()
        return made

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={v!r}" for k, v in self._config().items() if k not in ("id", "shared"))
        return f"{type(self).__name__}({inner})"


def _shape_of(given: Any) -> tuple[int, ...]:
    lengths = [given] if isinstance(given, int) else given
    if isinstance(lengths, str | bytes) or not isinstance(lengths, Sequence) or len(lengths) > limits.MAX_DIMS:
        raise ConfigurationError(f"chunk_shape must be a list of at most {limits.MAX_DIMS} lengths")
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0 for n in lengths):
        raise ConfigurationError(f"chunk_shape must hold lengths, not {str(given)[:80]}")
    if math.prod(max(1, int(n)) for n in lengths) > limits.MAX_CHUNK_VALUES:
        raise ConfigurationError(f"chunk_shape {lengths}: the most is {limits.MAX_CHUNK_VALUES} values")
    return tuple(int(n) for n in lengths)


def _dtype_of(given: Any) -> np.dtype[Any]:
    try:
        kind: np.dtype[Any] = np.dtype(given)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ConfigurationError(f"dtype {str(given)[:80]!r}: {error}") from None
    dtypes.code_of(kind)
    return kind
