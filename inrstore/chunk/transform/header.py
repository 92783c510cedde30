"""The numbers in front of the coefficients (specification section 14.1)."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.entropy.bits import Ints, read_matrix, write_matrix
from inrstore.chunk.frame import Reader
from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.inloop.correction import read as read_correction
from inrstore.chunk.shared import NOTHING, Shared
from inrstore.chunk.transform.contexts import CLIP as MOST_MAGNITUDE
from inrstore.chunk.transform.contexts import FEATURES, KINDS, MOST_OF, PASSES, USUAL
from inrstore.chunk.transform.subbands import MOST_LEVELS, Subband, Triple, halved, subbands_of
from inrstore.errors import CorruptChunkError, LimitExceededError

NO_CHANNELS = 0xFF
MOST_LANES = 4096
MOST_SHIFT, MOST_COLUMN_SHIFT, MOST_GAIN = 45, 15, 65535
_CORRECTED, _SHARED, _TRELLIS = 1, 2, 4
_HEAD = "<BBBBBHbbBBbii"
SHARED_KIND = 0x54
"""First byte of a shared parameter of this mode."""
NAME_BYTES = 8
"""Of the SHA-256 of a shared parameter, those that a chunk names it by."""


@dataclass(frozen=True)
class Header:
    """Everything of a payload but coefficients; section 14.1.

    Parameters
    ----------
    channel_axis : int or None
        Axis of the box that measurements run along.
    levels : tuple of int
        How often slices, rows and columns are halved.
    biases : tuple of int
        Added to a magnitude of 1, and to larger ones, in 1/128.
    shift, offset_shift, exponent, low, high : int
    gains, offsets : ndarray of int64, shape (T,)
    column_shifts : ndarray of int64, shape (K,)
    basis : ndarray of int64, shape (T, K)
    active : ndarray of int64, shape (subbands,)
        How many leading components each subband has.
    weights : ndarray of int64, shape (kinds, passes, FEATURES + 1)
    correction : Correction or None
        What is done to the components before the basis.
    trellis : bool
        Whether coefficients are of two quantisers, and counted in half steps.
    """

    channel_axis: int | None
    levels: Triple
    biases: tuple[int, int]
    shift: int
    offset_shift: int
    exponent: int
    low: int
    high: int
    gains: Ints
    offsets: Ints
    column_shifts: Ints
    basis: Ints
    active: Ints
    weights: Ints
    correction: Correction | None = None
    trellis: bool = False

    def write(self, name: bytes = b"") -> bytes:
        """Return the bytes of the header; with the name of a shared parameter all but `active` stands there."""
        first = bytes([_SHARED]) + name if name else self._common()
        return first + write_matrix(self.active[:, None])

    def parameter(self) -> bytes:
        """Return the bytes of a shared parameter (section 14.9): everything but `active`."""
        return struct.pack("<BH", SHARED_KIND, len(self.basis)) + self._common()

    def _common(self) -> bytes:
        axis = NO_CHANNELS if self.channel_axis is None else self.channel_axis
        flags = _CORRECTED * (self.correction is not None) + _TRELLIS * self.trellis
        out = struct.pack(_HEAD, flags, axis, *self.levels, self.basis.shape[1], *self.biases, self.shift,
                          self.offset_shift, self.exponent, self.low, self.high)  # fmt: skip
        out += write_matrix(np.stack([self.gains, self.offsets], 1))
        if len(self.basis) > 1:
            out += self.column_shifts.astype("u1").tobytes() + write_matrix(self.basis)
        out += write_matrix((self.weights - USUAL[: len(self.weights)]).reshape(-1, FEATURES + 1))
        return out if self.correction is None else out + self.correction.write()


def name_of(parameter: bytes) -> bytes:
    """Return what a chunk names a shared parameter by."""
    return hashlib.sha256(parameter).digest()[:NAME_BYTES]


def arrangement(box: tuple[int, ...], channel_axis: int | None) -> tuple[int, Triple]:
    """Return the number of measurements, and slices, rows and columns, of a box."""
    space = [n for a, n in enumerate(box) if a != channel_axis]
    space = [1] * (3 - len(space)) + space
    measurements = 1 if channel_axis is None else box[channel_axis]
    return measurements, (math.prod(space[:-2]), space[-2], space[-1])


def kinds_of(levels: Triple) -> int:
    """Return how many kinds of subbands there are."""
    return min(KINDS, 1 + sum(n > 0 for n in levels))


def shared_name(reader: Reader) -> bytes:
    """Return what the next header names a shared parameter by, nothing if it names none; the reader stays there."""
    head = bytes(reader.data[reader.position : reader.position + 1 + NAME_BYTES])
    return head[1:] if head[:1] == bytes([_SHARED]) else b""


def read_header(
    reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], shared: Shared = NOTHING
) -> tuple[Header, Triple, list[Subband]]:
    """Parse and check a header; return it with slices, rows and columns, and the subbands.

    Parameters
    ----------
    reader : Reader
    dtype : numpy.dtype
    box : tuple of int
    shared : mapping of bytes to bytes
        Parameters that the codec configuration brings, by digest.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    flags = reader.number("B", "transform.flags")
    if flags == _SHARED:
        name = bytes(reader.take(NAME_BYTES, "transform.digest"))
        found = [data for digest, data in shared.items() if digest[:NAME_BYTES] == name]
        if len(found) != 1:
            raise CorruptChunkError("transform.digest", f"{name.hex()} names {len(found)} shared parameters, not one")
        header = read_parameter(found[0])
        measurements = _check_axis(header.channel_axis, box)
        if measurements != len(header.basis):
            raise CorruptChunkError("transform.measurements", f"{len(header.basis)} for a box of {measurements}")
        _check_lengths(header.channel_axis, header.levels, header.basis.shape[1], box)
    else:
        header = _read_common(reader, flags, box)
    dtypes.check_outputs(header.low, header.high, header.exponent, dtype, "transform")
    lengths = arrangement(box, header.channel_axis)[1]
    subbands = subbands_of(lengths, header.levels)
    active = read_matrix(reader, len(subbands), 1, "transform.active")[:, 0]
    components = header.basis.shape[1]
    if (active < 0).any() or (active > components).any():
        raise CorruptChunkError("transform.active", f"a number is not in 0..{components}")
    return replace(header, active=active), lengths, subbands


@lru_cache(maxsize=8)
def read_parameter(data: bytes) -> Header:
    """Return the header in a shared parameter, without `active`.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    reader = Reader(memoryview(data))
    kind = reader.number("B", "transform.kind")
    if kind != SHARED_KIND:
        raise CorruptChunkError("transform.kind", f"{kind:#x} is not that of a transform")
    measurements = reader.number("H", "transform.measurements")
    if not 1 <= measurements <= limits.MAX_TRANSFORM_MEASUREMENTS:
        raise LimitExceededError("transform.measurements", f"{measurements} measurements")
    header = _read_common(reader, reader.number("B", "transform.flags"), None, measurements)
    if reader.remaining:
        raise CorruptChunkError("transform.weights", f"{reader.remaining} bytes after a shared parameter")
    return header


def _check_axis(axis: int | None, box: tuple[int, ...]) -> int:
    """Return how many measurements a box has along an axis."""
    if axis is not None and axis >= len(box):
        raise CorruptChunkError("transform.channel_axis", f"{axis} of {len(box)} axes")
    measurements = 1 if axis is None else box[axis]
    if math.prod(box) > limits.MAX_TRANSFORM_VALUES:
        raise LimitExceededError("transform.channel_axis", f"a box of {math.prod(box)} values")
    if measurements > limits.MAX_TRANSFORM_MEASUREMENTS:
        raise LimitExceededError("transform.channel_axis", f"{measurements} measurements")
    return measurements


def _check_lengths(axis: int | None, levels: Triple, components: int, box: tuple[int, ...]) -> None:
    """Refuse levels and components that a box is too small for."""
    lengths = arrangement(box, axis)[1]
    for length, level in zip(lengths, levels, strict=True):
        if level and halved(length, level - 1) < 2:
            raise LimitExceededError("transform.levels", f"an axis of {length} cannot be halved {level} times")
    if components > math.prod(lengths):  # so that the basis has no more numbers than the box
        raise LimitExceededError("transform.components", f"{components} of {lengths} positions")


def _read_common(reader: Reader, flags: int, box: tuple[int, ...] | None, measurements: int = 1) -> Header:
    """Parse what is the same for all chunks of an image, after its flags; without a box for any box."""
    if flags & ~(_CORRECTED | _TRELLIS):
        raise CorruptChunkError("transform.flags", f"reserved bits are set in {flags:#x}")
    axis = reader.number("B", "transform.channel_axis")
    channel_axis = None if axis == NO_CHANNELS else axis
    if box is not None:
        measurements = _check_axis(channel_axis, box)
    if channel_axis is None and measurements != 1:
        raise CorruptChunkError("transform.measurements", f"{measurements} without an axis of measurements")
    levels = (reader.number("B", "transform.levels"), reader.number("B", "transform.levels"),
              reader.number("B", "transform.levels"))  # fmt: skip
    if max(levels) > MOST_LEVELS:
        raise LimitExceededError("transform.levels", f"{max(levels)} is above {MOST_LEVELS}")
    components = reader.number("H", "transform.components")
    if not 1 <= components <= min(measurements, limits.MAX_TRANSFORM_COMPONENTS):
        raise LimitExceededError("transform.components", f"{components} of {measurements} measurements")
    if box is not None:
        _check_lengths(channel_axis, levels, components, box)
    biases = reader.number("b", "transform.bias"), reader.number("b", "transform.bias")
    shift, offset_shift = reader.number("B", "transform.shift"), reader.number("B", "transform.offset_shift")
    if not 1 <= shift <= MOST_SHIFT:
        raise LimitExceededError("transform.shift", f"{shift} is not in 1..{MOST_SHIFT}")
    if offset_shift > MOST_SHIFT:
        raise LimitExceededError("transform.offset_shift", f"{offset_shift} is above {MOST_SHIFT}")
    exponent = reader.number("b", "transform.exponent")
    low, high = reader.number("i", "transform.low"), reader.number("i", "transform.high")
    pairs = read_matrix(reader, measurements, 2, "transform.gains")
    gains, offsets = pairs[:, 0], pairs[:, 1]
    if (gains < 1).any() or (gains > MOST_GAIN).any():
        raise LimitExceededError("transform.gains", f"a gain is not in 1..{MOST_GAIN}")
    column_shifts, basis = np.zeros(1, np.int64), np.ones((1, 1), np.int64)
    if measurements > 1:
        column_shifts = reader.array("u1", components, "transform.column_shifts").astype(np.int64)
        if (column_shifts > MOST_COLUMN_SHIFT).any():
            raise LimitExceededError("transform.column_shifts", f"one is above {MOST_COLUMN_SHIFT}")
        basis = read_matrix(reader, measurements, components, "transform.basis")
    kinds = kinds_of(levels)
    weights = read_matrix(reader, kinds * len(PASSES), FEATURES + 1, "transform.weights")
    weights += USUAL[:kinds].reshape(weights.shape)
    if (weights < 0).any():
        raise CorruptChunkError("transform.weights", "a weight below 0")
    if (reach(weights) >= limits.EXACT_FLOAT32).any():
        raise LimitExceededError("transform.weights", "sums leave the range of exact float32")
    correction = read_correction(reader, components) if flags & _CORRECTED else None
    return Header(channel_axis, levels, biases, shift, offset_shift, exponent, low, high, gains, offsets,
                  column_shifts, basis, np.zeros(0, np.int64), weights.reshape(-1, len(PASSES), FEATURES + 1),
                  correction, bool(flags & _TRELLIS))  # fmt: skip


def read_lanes(reader: Reader, coefficients: int) -> int:
    """Parse the number of states, which bounds the time that so many coefficients take."""
    lanes = reader.number("H", "transform.lanes")
    if not 1 <= lanes <= MOST_LANES:
        raise LimitExceededError("transform.lanes", f"{lanes} is not in 1..{MOST_LANES}")
    if coefficients > lanes * limits.MAX_TRANSFORM_PER_LANE:
        raise LimitExceededError("transform.lanes", f"{lanes} for {coefficients} coefficients")
    return lanes


def reach(weights: Ints) -> npt.NDArray[np.float64]:
    """Return the most that each row of weights, shape (rows, FEATURES + 1), can make of magnitudes."""
    most = 16.0 * MOST_MAGNITUDE * np.array(MOST_OF, np.float64)
    out: npt.NDArray[np.float64] = weights[:, :-1].astype(np.float64) @ most + weights[:, -1]
    return out
