"""The codec for Zarr version 3: an array-to-bytes codec named `inrstore`, batched, with partial decoding."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.core.common import parse_named_configuration

from inrstore.chunk import dtypes
from inrstore.chunk.modes import check_shared
from inrstore.chunk.quality import Target
from inrstore.chunk.shared import Shared, parse, texts_of
from inrstore.codecs import decoded
from inrstore.codecs.batching import encode_batch
from inrstore.errors import ConfigurationError
from inrstore.options import Device, EncodeOptions, Mode, Preset

CODEC_NAME = "inrstore"


@dataclass(frozen=True, kw_only=True)
class InrCodec(ArrayBytesCodecPartialDecodeMixin, ArrayBytesCodec):
    """Chunks as wavelets, predictors or networks, as a Zarr serializer.

    Parameters
    ----------
    rmse, max_error, lossless, scale, channel_axis
        The promised quality in stored units; see `inrstore.chunk.quality.Target`. Exactly one of the first
        three.
    shared : sequence of (str, bytes or Network), optional
        Parameters that chunks may name, as a network that predicts lossless ones; stored with the array, so that
        plain zarr decodes them.
    preset, mode, device
        Effort and place of fitting; see `inrstore.options.EncodeOptions`. Not stored.

    Examples
    --------
    >>> zarr.create_array(path, data=a, chunks=c, serializer=InrCodec(rmse=12.0), compressors=None)
    """

    rmse: float | None = None
    max_error: float | None = None
    lossless: bool = False
    scale: tuple[float, ...] | None = None
    channel_axis: int | None = None
    shared: tuple[str, ...] = ()
    preset: Preset = "balanced"
    mode: Mode = "auto"
    device: Device = "auto"

    is_fixed_size = False

    def __post_init__(self) -> None:
        checked = self.target
        for name in ("rmse", "max_error", "scale"):
            object.__setattr__(self, name, getattr(checked, name))
        object.__setattr__(self, "shared", texts_of(self.shared))
        check_shared(self._parameters)
        EncodeOptions(preset=self.preset, mode=self.mode, device=self.device)

    @property
    def target(self) -> Target:
        """The promise as one value."""
        return Target(rmse=self.rmse, max_error=self.max_error, lossless=self.lossless, scale=self.scale,
                      channel_axis=self.channel_axis)  # fmt: skip

    @property
    def _parameters(self) -> Shared:
        return parse(self.shared)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> InrCodec:
        """Build from the codec's entry in zarr.json; unknown options are refused by name."""
        _, configuration = parse_named_configuration(data, CODEC_NAME, require_configuration=False)
        options: dict[str, Any] = dict(configuration or {})
        shared = options.pop("shared", ())
        target = Target.from_dict(options)
        return cls(rmse=target.rmse, max_error=target.max_error, lossless=target.lossless, scale=target.scale,
                   channel_axis=target.channel_axis, shared=shared)  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's entry for zarr.json: the promise, not the effort."""
        shared = {"shared": list(self.shared)} if self.shared else {}
        return {"name": CODEC_NAME, "configuration": {**self.target.to_dict(), **shared}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse dtypes and options that no chunk of this array could be encoded with."""
        try:
            dtypes.code_of(dtype.to_native_dtype())
        except ConfigurationError as error:
            raise ConfigurationError(f"{CODEC_NAME}: {error}") from None
        self.target.resolve_channel_axis(len(shape))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Refuse: encoded sizes are not known in advance."""
        raise NotImplementedError

    # Whole batches -------------------------------------------------------------------------------------------

    async def encode(self, chunks_and_specs: Iterable[tuple[Any, Any]]) -> Iterable[Any]:
        """Encode a batch; absent chunks pass through."""
        return await asyncio.to_thread(self._encode_many, list(chunks_and_specs))

    async def decode(self, chunks_and_specs: Iterable[tuple[Any, Any]]) -> Iterable[Any]:
        """Decode a batch; absent chunks pass through."""
        return await asyncio.to_thread(self._decode_many, list(chunks_and_specs))

    async def _encode_single(self, chunk_array: Any, chunk_spec: Any) -> Any:
        return (await asyncio.to_thread(self._encode_many, [(chunk_array, chunk_spec)]))[0]

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return (await asyncio.to_thread(self._decode_many, [(chunk_bytes, chunk_spec)]))[0]

    async def _decode_partial_single(self, byte_getter: Any, selection: Any, chunk_spec: Any) -> Any:
        buffer = await byte_getter.get(prototype=chunk_spec.prototype)
        if buffer is None:
            return None
        return await asyncio.to_thread(self._decode_selection, buffer, selection, chunk_spec)

    # For pipelines without an event loop (zarr's SupportsSyncCodec) ------------------------------------------

    def _encode_sync(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return self._encode_many([(chunk_data, chunk_spec)])[0]

    def _decode_sync(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return self._decode_many([(chunk_data, chunk_spec)])[0]

    def _decode_partial_sync(self, byte_getter: Any, selection: Any, chunk_spec: Any) -> Any:
        buffer = byte_getter.get_sync(prototype=chunk_spec.prototype)
        return None if buffer is None else self._decode_selection(buffer, selection, chunk_spec)

    # In a worker thread --------------------------------------------------------------------------------------

    def _encode_many(self, items: list[tuple[Any, Any]]) -> list[Any]:
        present = [(i, np.asarray(array.as_numpy_array())) for i, (array, _) in enumerate(items) if array is not None]
        options = EncodeOptions(preset=self.preset, mode=self.mode, device=self.device)
        native = [np.ascontiguousarray(a, a.dtype.newbyteorder("=")).reshape(a.shape) for _, a in present]
        out: list[Any] = [None] * len(items)
        if present:
            for (i, _), data in zip(present, self._encode(native, options), strict=True):
                out[i] = items[i][1].prototype.buffer.from_bytes(data)
        return out

    def _encode(self, chunks: list[Any], options: EncodeOptions) -> list[bytes]:
        return encode_batch(chunks, self.target, options, self._parameters)

    def _decode_many(self, items: list[tuple[Any, Any]]) -> list[Any]:
        shared = self._parameters
        return [None if data is None else self._wrap(
                    decoded.chunk(data.to_bytes(), spec.shape, spec.dtype.to_native_dtype(), shared), spec)
                for data, spec in items]  # fmt: skip

    def _decode_selection(self, buffer: Any, selection: Any, spec: Any) -> Any:
        data, dtype, shared = buffer.to_bytes(), spec.dtype.to_native_dtype(), self._parameters
        basic = isinstance(selection, tuple) and all(isinstance(s, int | np.integer | slice) for s in selection)
        if basic and len(selection) == len(spec.shape):
            plain = tuple(s if isinstance(s, slice) else int(s) for s in selection)
            return self._wrap(decoded.region(data, plain, spec.shape, dtype, shared), spec)
        return self._wrap(decoded.chunk(data, spec.shape, dtype, shared)[selection], spec)

    @staticmethod
    def _wrap(values: Any, spec: Any) -> Any:
        native = np.asarray(values).astype(spec.dtype.to_native_dtype(), copy=False)
        return spec.prototype.nd_buffer.from_numpy_array(native)
