"""Bytes -> values: header, wavefront (specification sections 13.1 and 13.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.dtypes import unordered
from inrstore.chunk.entropy.bits import read_column, write_column
from inrstore.chunk.entropy.residual import Residuals
from inrstore.chunk.frame import Reader
from inrstore.chunk.neural.neighbourhood import CENTRE, ERRORS, NEAR, Volume, fold
from inrstore.chunk.neural.network import UNIT, Evaluator, Network, read_network
from inrstore.chunk.shared import NOTHING, Shared
from inrstore.errors import CorruptChunkError, LimitExceededError

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.int32]

MAX_ERROR = 4095
HERE, SHARED = 0, 1
_HALF, _QUARTER = UNIT // 2, 6
_MOST_INPUTS = 1 << 21
"""Inputs that are gathered at once."""


@dataclass(frozen=True)
class Header:
    """What a payload says before its streams, but for the network.

    Parameters
    ----------
    base, step, high : int
        A value is the ordered bit pattern base + step v, 0 <= v <= high.
    offset : int
        The centre of a network with fixed inputs.
    gain : int
        Differences times gain / 256 are inputs.
    """

    base: int
    step: int
    high: int
    offset: int
    gain: int

    def write(self, network: bytes, shared: bool) -> bytes:
        """Return the bytes of the header; `network` is the digest of a shared one."""
        head = struct.pack("<IIHHB", self.base, self.step, self.high, self.gain, shared)
        head += network if shared else struct.pack("<I", len(network)) + network
        return head + struct.pack("<H", self.offset)


@dataclass(frozen=True)
class Expectation:
    """How large an error to expect, in 1/1024.

    Parameters
    ----------
    near : ndarray of int64, shape (14,)
        Weights of the differences of near neighbours from the centre, and what is added.
    errors : ndarray of int64, shape (19,)
        Weights of their errors.
    """

    near: Ints
    errors: Ints

    def write(self) -> bytes:
        """Return the bytes of both matrices."""
        return write_column(self.near) + write_column(self.errors)

    def check(self) -> None:
        """Raise unless sums stay below 2^24."""
        most = MAX_ERROR * int(self.near[:-1].sum() + self.errors.sum()) + int(self.near[-1])
        if most >= limits.EXACT_FLOAT32:
            raise LimitExceededError("neural.error_weights", "sums leave the range of exact float32")


def read_header(reader: Reader, bits: int, shared: Shared) -> tuple[Header, Network]:
    """Parse and check the header and the network; `bits` is the width of the data type."""
    base, step = (reader.number("I", f"neural.{name}") for name in ("base", "step"))
    high, gain = (reader.number("H", f"neural.{name}") for name in ("high", "gain"))
    if not step:
        raise CorruptChunkError("neural.step", "0")
    if base + high * step >= 1 << bits:
        raise CorruptChunkError("neural.high", "values outside the data type")
    if not gain:
        raise CorruptChunkError("neural.gain", "0")
    place = reader.number("B", "neural.place")
    if place == HERE:
        network = read_network(reader.take(reader.number("I", "neural.network"), "neural.network"))
    elif place == SHARED:
        digest = bytes(reader.take(32, "neural.digest"))
        if digest not in shared:
            raise CorruptChunkError("neural.digest", f"the codec configuration has no network {digest.hex()[:16]}")
        network = check_shared(shared[digest])
    else:
        raise CorruptChunkError("neural.place", f"{place} is reserved")
    offset = reader.number("H", "neural.offset")
    if offset > (0 if network.local else high):
        raise CorruptChunkError("neural.offset", f"{offset} is too large")
    return Header(base, step, high, offset, gain), network


@lru_cache(maxsize=16)
def check_shared(data: bytes) -> Network:
    """Return the network of a shared parameter.

    Raises
    ------
    CorruptChunkError
        It is none.
    """
    return read_network(data)


def shared_network(data: bytes) -> Network | None:
    """Return the network of a shared parameter, or None: it may be one of another mode."""
    try:
        return check_shared(data)
    except CorruptChunkError:
        return None


def describe(reader: Reader, _dtype: np.dtype[Any], _box: tuple[int, ...]) -> dict[str, Any]:
    """Return what a payload says of its network."""
    reader.take(12, "neural.gain")
    if reader.number("B", "neural.place") == SHARED:
        return {"shared": bytes(reader.take(32, "neural.digest")).hex()}
    network = read_network(reader.take(reader.number("I", "neural.network"), "neural.network"))
    return {"radii": network.neighbourhood.radii, "widths": network.widths, "parameters": network.parameters}


def read_expectation(reader: Reader) -> Expectation:
    """Parse and check the weights of the expected error."""
    near = read_column(reader, len(NEAR) + 1, "neural.near_weights")
    errors = read_column(reader, len(ERRORS), "neural.error_weights")
    for name, weights in (("near", near), ("error", errors)):
        if (weights < 0).any():
            raise CorruptChunkError(f"neural.{name}_weights", "a weight below 0")
    out = Expectation(near, errors)
    out.check()
    return out


def decode(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], shared: Shared = NOTHING) -> npt.NDArray[Any]:
    """Return the box of a payload; `dtype` is little-endian, `shared` has networks by digest.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    if not dtypes.is_short(dtype):
        raise CorruptChunkError("neural.dtype", f"{dtype} is not coded in this mode")
    header, network = read_header(reader, 8 * dtype.itemsize, shared)
    volume = Volume(fold(box), network.neighbourhood)
    expectation = read_expectation(reader)
    streams = Residuals(reader, "neural", volume.values, 0, header.high)
    front = Wavefront(volume, network, header, expectation)
    at_once = max(1, _MOST_INPUTS // len(network.neighbourhood.offsets))
    for places in volume.waves():
        for begin in range(0, len(places), at_once):
            front.take(places[begin : begin + at_once], streams)
    streams.finish()
    return assemble(volume.inside(front.values), header, dtype, box)


def assemble(values: npt.NDArray[Any], header: Header, dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of decoded values in their own type."""
    bits = dtypes.bits_dtype(dtype.itemsize)
    pattern = values.astype(bits)  # modulo the width of the type: base + step v fits it
    pattern *= bits.type(header.step & ((1 << 8 * dtype.itemsize) - 1))
    pattern += bits.type(header.base)
    return unordered(pattern.reshape(box), dtype)


class Predictions:
    """What is known of values before they are decoded (section 13.4, points 1 to 3).

    Parameters
    ----------
    volume : Volume
    network : Network
    header : Header
    """

    def __init__(self, volume: Volume, network: Network, header: Header) -> None:
        self._evaluate = Evaluator(network, header.gain)
        self._shifts = volume.shifts(network.neighbourhood.offsets)[:, None]
        self._near = volume.shifts(NEAR)[:, None]
        self._local, self._offset = network.local, np.int32(header.offset)
        self._most = np.int64(UNIT * header.high)

    def near(self, values: npt.NDArray[np.uint16], places: Ints) -> tuple[Words, Words]:
        """Return the mean of the nearest neighbours, and the differences from it, (13, n)."""
        near = values.take(self._near + places).astype(np.int32)
        mean = near[-len(CENTRE) :].sum(0, dtype=np.int32) >> 2
        near -= mean
        return mean, np.minimum(np.abs(near, out=near), MAX_ERROR, out=near)

    def predict(self, values: npt.NDArray[np.uint16], places: Ints, mean: Words) -> Words:
        """Return p, in parts of 256."""
        centre = mean if self._local else np.full(len(places), self._offset, np.int32)
        p = self._evaluate(values.take(self._shifts + places), centre)
        return self.limited(p, centre)

    def limited(self, correction: Ints, centre: Words) -> Words:
        """Return the prediction that a correction of the centre makes."""
        correction += centre.astype(np.int64) * UNIT
        limited: Words = np.minimum(np.maximum(correction, 0), self._most).astype(np.int32)
        return limited


def rounded(p: Words) -> tuple[Words, Words]:
    """Return the prediction in whole numbers and its phase (point 5)."""
    moved = p + np.int32(_HALF)
    return moved >> 8, (moved >> _QUARTER) & 3


def error_of(values: Words, p: Words) -> Words:
    """Return E (point 6)."""
    error = (values << 8) - p
    np.abs(error, out=error)
    error >>= _QUARTER
    limited: Words = np.minimum(error, MAX_ERROR, out=error)
    return limited


class Wavefront:
    """The values of a chunk and their errors, and how the next of them are taken from the streams."""

    def __init__(self, volume: Volume, network: Network, header: Header, expectation: Expectation) -> None:
        self.values = np.zeros(volume.shape, np.uint16)
        self._flat = self.values.reshape(-1)
        self._errors = np.zeros(volume.shape, np.uint16).reshape(-1)
        self._error_shifts = volume.shifts(ERRORS)[:, None]
        self._predictions = Predictions(volume, network, header)
        self._high = np.int32(header.high)
        self._near_weights = np.zeros((2, len(NEAR)), np.float32)
        self._near_weights[0] = expectation.near[:-1]
        self._added = np.int32(expectation.near[-1])
        self._error_weights = np.zeros((2, len(ERRORS)), np.float32)
        self._error_weights[0] = expectation.errors

    def take(self, places: Ints, streams: Residuals) -> None:
        """Decode the values at these places."""
        mean, near = self._predictions.near(self._flat, places)
        p = self._predictions.predict(self._flat, places, mean)
        expected = (self._near_weights @ near.astype(np.float32))[0].astype(np.int32)
        around = self._errors.take(self._error_shifts + places).astype(np.float32)
        expected += (self._error_weights @ around)[0].astype(np.int32)
        expected += self._added
        prediction, phase = rounded(p)
        difference, escapes = streams.take(expected, phase)
        prediction += difference
        np.maximum(prediction, np.int32(0), out=prediction)
        np.minimum(prediction, self._high, out=prediction)
        if escapes.size:
            prediction[escapes] = streams.next_escapes(escapes.size)
        self._flat[places] = prediction
        self._errors[places] = error_of(prediction, p)
