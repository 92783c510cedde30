"""Bytes -> values of chunk mode superres: header, coarse image, refinement (specification section 17)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr import bitstream, siren
from inrstore.chunk.inr.layers import Ints
from inrstore.chunk.inr.network import Coordinates, Network, pack_gain, unpack_gain
from inrstore.chunk.shared import NOTHING, Shared
from inrstore.chunk.superres.evaluate import Evaluator, Inputs
from inrstore.chunk.superres.network import Lengths, Refiner
from inrstore.chunk.superres.network import read as read_refiner
from inrstore.errors import CorruptChunkError, LimitExceededError

HERE, SHARED = 0, 1
MAX_SHIFT = 40
_NO_CHANNELS = 0xFF
_AXES = 3
_UNITS = np.dtype([("centre", "<i4"), ("gain", "<u2"), ("refinement", "<u2")])


@dataclass(frozen=True, eq=False)
class Payload:
    """What the payload of a chunk holds.

    Parameters
    ----------
    channel_axis : int or None
        Axis of the measurements; the others, one to three, are space.
    exponent : int
        A stored value is a number times 2^exponent.
    low, high : int
        Numbers are limited to this range, on the coarse grid and on the fine one.
    refiner : Refiner
    shared : bool
        The codec configuration brings the refiner: the payload only names it.
    input_shift, output_shift : int
        Of gains.
    centres, gains, refinements : ndarray of int64, shape (measurements,)
        What becomes 0 as an input of the refiner; inputs for a number, times 2^input_shift; numbers for a
        product-sum of its read-out, times 2^output_shift. Gains are what `pack_gain` can make.
    network : Network
        Of a place on the coarse grid.
    """

    channel_axis: int | None
    exponent: int
    low: int
    high: int
    refiner: Refiner
    shared: bool
    input_shift: int
    output_shift: int
    centres: Ints
    gains: Ints
    refinements: Ints
    network: Network

    def describe(self) -> dict[str, Any]:
        """Return what `info` says of it."""
        layers, refiner = self.network.layers, self.refiner
        return {"layers": len(layers), "width": max(len(a.biases) for a in layers), "channels": self.network.outputs,
                "parameters": self.network.parameters, "refiner": refiner.name,
                "scales": tuple(1 << e for e in refiner.scales), "refiner_parameters": refiner.parameters,
                "refiner_bytes": 0 if self.shared else len(refiner.data)}  # fmt: skip


def write(payload: Payload, refiner: bytes | None = None) -> bytes:
    """Return the payload after the envelope; `refiner` takes the place of the bytes of the refining network."""
    axis = _NO_CHANNELS if payload.channel_axis is None else payload.channel_axis
    head = struct.pack("<BbiiB", axis, payload.exponent, payload.low, payload.high, payload.shared)
    head += (payload.refiner.digest if payload.shared else payload.refiner.data) if refiner is None else refiner
    head += bytes([payload.input_shift, payload.output_shift])
    units = np.zeros(len(payload.centres), _UNITS)
    units["centre"] = payload.centres
    for name, gains in (("gain", payload.gains), ("refinement", payload.refinements)):
        units[name] = [pack_gain(float(g)) for g in gains]
    return head + units.tobytes() + bitstream.write(payload.network)


def read(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], shared: Shared = NOTHING) -> Payload:
    """Parse and check a payload.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    axis_byte = reader.number("B", "superres.channel_axis")
    if axis_byte != _NO_CHANNELS and axis_byte >= len(box):
        raise CorruptChunkError("superres.channel_axis", f"{axis_byte} of {len(box)} axes")
    axis = None if axis_byte == _NO_CHANNELS else axis_byte
    lengths = [n for a, n in enumerate(box) if a != axis]
    if not 1 <= len(lengths) <= _AXES:
        raise CorruptChunkError("superres.channel_axis", f"{len(lengths)} axes of space")
    exponent = reader.number("b", "superres.exponent")
    low, high = reader.number("i", "superres.low"), reader.number("i", "superres.high")
    dtypes.check_outputs(low, high, exponent, dtype, "superres")
    place = reader.number("B", "superres.place")
    if place == HERE:
        refiner = read_refiner(reader)
    elif place == SHARED:
        digest = bytes(reader.take(32, "superres.digest"))
        if digest not in shared:
            raise CorruptChunkError("superres.digest", f"the codec configuration has no network {digest.hex()[:16]}")
        refiner = check_shared(shared[digest])
    else:
        raise CorruptChunkError("superres.place", f"{place} is reserved")
    volume = volume_of(lengths)
    if any(refiner.scales[: _AXES - len(lengths)]):
        raise CorruptChunkError("superres.scales", f"{refiner.scales} for {len(lengths)} axes")
    refiner.check_cost(volume)
    input_shift, output_shift = (reader.number("B", f"superres.{n}_shift") for n in ("input", "output"))
    for name, shift in (("input", input_shift), ("output", output_shift)):
        if not 1 <= shift <= MAX_SHIFT:
            raise LimitExceededError(f"superres.{name}_shift", f"{shift} is not in 1..{MAX_SHIFT}")
    channels = 1 if axis is None else box[axis]
    units = reader.array(_UNITS, channels, "superres.units")
    centres = units["centre"].astype(np.int64)
    gains, refinements = (unpack_gain(units[n].astype(np.int64)) for n in ("gain", "refinement"))
    furthest = np.maximum(high - centres, centres - low)
    if any(f * g >= limits.EXACT_SUM for f, g in zip(furthest.tolist(), gains.tolist(), strict=True)):
        raise LimitExceededError("superres.units", "a difference from a centre leaves the range of exact float64")
    network = bitstream.read(reader)
    reader.finish("superres.network")
    places = [m for m in coarse_lengths(refiner, lengths) if m != 1]
    if network.inputs != Coordinates(len(places)):
        raise CorruptChunkError("superres.inputs", f"{network.inputs} for {len(places)} axes")
    if network.outputs != channels:
        raise CorruptChunkError("superres.outputs", f"{network.outputs} in a box of {box}")
    network.check_reach([m - 1 for m in places])
    return Payload(axis, exponent, low, high, refiner, place == SHARED, input_shift, output_shift, centres, gains,
                   refinements, network)  # fmt: skip


def volume_of(lengths: list[int]) -> Lengths:
    """Return slices, rows and columns of one to three axes of space."""
    z, y, x = [1] * (_AXES - len(lengths)) + lengths
    return z, y, x


def coarse_lengths(refiner: Refiner, lengths: list[int]) -> list[int]:
    """Return the lengths of the coarse grid along axes of space."""
    return list(refiner.coarse(volume_of(lengths))[_AXES - len(lengths) :])


@lru_cache(maxsize=16)
def check_shared(data: bytes) -> Refiner:
    """Return the refining network of a shared parameter.

    Raises
    ------
    CorruptChunkError
        It is none.
    """
    reader = Reader(memoryview(data))
    refiner = read_refiner(reader)
    reader.finish("superres.words")
    refiner.__dict__["data"] = bytes(data)  # other tables may have coded the same weights
    return refiner


def shared_refiner(shared: Shared) -> Refiner | None:
    """Return the first shared parameter that is a refining network."""
    for data in shared.values():
        try:
            return check_shared(data)
        except CorruptChunkError:
            continue
    return None


def describe(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], shared: Shared = NOTHING) -> dict[str, Any]:
    """Return what a payload says of its networks; of one that names a network that is not there, the digest."""
    start = reader.position
    reader.take(10, "superres.high")
    if reader.number("B", "superres.place") == SHARED:
        digest = bytes(reader.take(32, "superres.digest"))
        if digest not in shared:
            return {"shared": digest.hex()}
    reader.position = start
    return read(reader, dtype, box, shared).describe()


def decode(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...], shared: Shared = NOTHING) -> npt.NDArray[Any]:
    """Return the box of a payload; `dtype` is little-endian, `shared` has refining networks by digest.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    return evaluate(read(reader, dtype, box, shared), dtype, box)


def evaluate(payload: Payload, dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box that the networks of a payload make."""
    axis = payload.channel_axis
    lengths = [n for a, n in enumerate(box) if a != axis]
    volume = volume_of(lengths)
    image = coarse_image(payload, lengths)
    out = np.empty((len(image), *volume), dtype)
    refine = Evaluator(payload.refiner, volume)
    half = 1 << (payload.output_shift - 1)
    for number, (measurement, coarse) in enumerate(zip(out, image, strict=True)):
        inputs = Inputs(int(payload.centres[number]), int(payload.gains[number]), payload.input_shift)
        for part, fine, sums in refine(coarse, inputs):
            sums *= payload.refinements[number]
            sums += half
            sums >>= payload.output_shift
            fine += sums
            np.clip(fine, payload.low, payload.high, out=fine)
            if dtype.kind == "f":
                measurement[part] = np.ldexp(fine.astype(np.float64), payload.exponent)
            else:
                measurement[part] = fine << payload.exponent
    result = out.reshape(len(out), *lengths)
    return result.reshape(lengths) if axis is None else np.moveaxis(result, 0, axis)


def coarse_image(payload: Payload, lengths: list[int]) -> Ints:
    """Return the numbers of all measurements on the coarse grid, (measurements, slices, rows, columns)."""
    coarse = coarse_lengths(payload.refiner, lengths)
    made = siren.Siren(0, payload.network, 0, payload.low, payload.high)
    box = (payload.network.outputs, *coarse)
    image: Ints = siren.evaluate(made, np.dtype("<i8"), box, [range(n) for n in box])
    return image.reshape(-1, *volume_of(coarse))
