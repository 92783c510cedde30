"""The codec for Zarr version 3: an array-to-bytes codec named `inrstore`, batched, with partial decoding."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.core.common import parse_named_configuration

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.modes import check_shared
from inrstore.chunk.quality import Target
from inrstore.chunk.shared import Shared, parse, texts_of
from inrstore.codecs import decoded, inherited
from inrstore.codecs.batching import encode_batch
from inrstore.codecs.inherited import Opened
from inrstore.codecs.stored import check_stored
from inrstore.errors import ConfigurationError
from inrstore.options import Device, EncodeOptions, Mode, Network, Preset

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
    preset, mode, network, device
        Effort and place of fitting; see `inrstore.options.EncodeOptions`. Not stored, and not compared.
    opened
        Kept by codecs that come from stored metadata; see `inrstore.codecs.inherited`.

    Warns
    -----
    UserWarning
        When a lossy codec that came from stored metadata and has decoded chunks is to encode some: as zarr and
        xarray hand it on to copies of the array, what was decoded would lose quality twice.

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
    preset: Preset = field(default="balanced", compare=False)
    mode: Mode = field(default="auto", compare=False)
    network: Network | str | None = field(default=None, compare=False)
    device: Device = field(default="auto", compare=False)
    opened: Opened | None = field(default=None, compare=False, repr=False)

    is_fixed_size = False

    def __post_init__(self) -> None:
        checked = self.target
        for name in ("rmse", "max_error", "scale"):
            object.__setattr__(self, name, getattr(checked, name))
        object.__setattr__(self, "shared", texts_of(self.shared))
        check_shared(self._parameters)
        EncodeOptions(preset=self.preset, mode=self.mode, network=Network.of(self.network), device=self.device)

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
        check_stored(options)
        shared = options.pop("shared", ())
        target = Target.from_dict(options)
        return cls(rmse=target.rmse, max_error=target.max_error, lossless=target.lossless, scale=target.scale,
                   channel_axis=target.channel_axis, shared=shared, opened=inherited.opened())  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's entry for zarr.json: the promise, not the effort."""
        if self.opened is not None:
            self.opened.saved = True
        shared = {"shared": list(self.shared)} if self.shared else {}
        return {"name": CODEC_NAME, "configuration": {**self.target.to_dict(), **shared}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse dtypes, chunks and options with which no chunk of this array could be encoded.

        Codecs before this one may permute the axes of a chunk, of which zarr says nothing here: a scale is refused if
        it fits no axis.
        """
        try:
            dtypes.code_of(dtype.to_native_dtype())
        except ConfigurationError as error:
            raise ConfigurationError(f"{CODEC_NAME}: {error}") from None
        if len(shape) > limits.MAX_DIMS:
            raise ConfigurationError(f"{CODEC_NAME}: an array of {len(shape)} axes; the most is {limits.MAX_DIMS}")
        lengths = getattr(chunk_grid, "chunk_shape", None)  # a grid of chunks of several shapes has none
        chunk = tuple(lengths) if lengths is not None else None
        if chunk is not None and math.prod(max(1, n) for n in chunk) > limits.MAX_CHUNK_VALUES:
            most = f"the most is {limits.MAX_CHUNK_VALUES} values"
            raise ConfigurationError(f"{CODEC_NAME}: chunks of shape {chunk}; {most}")
        axis = self.target.resolve_channel_axis(len(shape))
        count = len(self.scale or (1.0,))
        if count > 1 and axis is None:
            raise ConfigurationError(
                f"{CODEC_NAME}: scale has {count} entries, but chunks of {len(shape)} axes have no channel axis"
            )
        if self.scale is not None and axis is not None and chunk is not None and count not in chunk:
            raise ConfigurationError(f"{CODEC_NAME}: scale has {count} entries, which fit no axis of chunks {chunk}")

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
        present = [(i, self._fitting(np.asarray(array.as_numpy_array()), spec))
                   for i, (array, spec) in enumerate(items) if array is not None]  # fmt: skip
        if self.opened is not None and present:
            self.opened.check(self.target)
        options = EncodeOptions(
            preset=self.preset, mode=self.mode, network=Network.of(self.network), device=self.device
        )
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
        if any(data is not None for data, _ in items):
            self._note_decoding()
        return [None if data is None else self._wrap(
                    decoded.chunk(data.to_bytes(), spec.shape, spec.dtype.to_native_dtype(), shared), spec)
                for data, spec in items]  # fmt: skip

    def _decode_selection(self, buffer: Any, selection: Any, spec: Any) -> Any:
        self._note_decoding()
        data, dtype, shared = buffer.to_bytes(), spec.dtype.to_native_dtype(), self._parameters
        basic = isinstance(selection, tuple) and all(isinstance(s, int | np.integer | slice) for s in selection)
        if basic and len(selection) == len(spec.shape):
            plain = tuple(s if isinstance(s, slice) else int(s) for s in selection)
            return self._wrap(decoded.region(data, plain, spec.shape, dtype, shared), spec)
        return self._wrap(decoded.chunk(data, spec.shape, dtype, shared)[selection], spec)

    def _fitting(self, values: Any, spec: Any) -> Any:
        """Return a chunk as readers expect it: filters of numcodecs give it flat, or its bits as another type.

        Raises
        ------
        ConfigurationError
            If a filter made of it what it does not say it makes, so that no reader would take the chunk.
        """
        promised = spec.dtype.to_native_dtype()
        if values.dtype.newbyteorder("=") != promised.newbyteorder("="):
            if not self.lossless or values.nbytes != math.prod(spec.shape) * promised.itemsize:
                text = f"a chunk of {values.dtype} comes from filters that promise {promised}"
                raise ConfigurationError(f"{CODEC_NAME}: {text}")
            values = np.ascontiguousarray(values).reshape(-1).view(promised)  # the bits are all there is to keep
        if values.size != math.prod(spec.shape):
            text = f"a chunk of shape {values.shape} comes from filters that promise {tuple(spec.shape)}"
            raise ConfigurationError(f"{CODEC_NAME}: {text}")
        return values.reshape(spec.shape)

    def _note_decoding(self) -> None:
        if self.opened is not None:
            self.opened.decoded = True

    @staticmethod
    def _wrap(values: Any, spec: Any) -> Any:
        native = np.asarray(values).astype(spec.dtype.to_native_dtype(), copy=False)
        return spec.prototype.nd_buffer.from_numpy_array(native)
