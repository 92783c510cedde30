"""Mode siren: a network of the place -> the voxels of a box (specification section 5).

SIREN: Sitzmann et al., arXiv:2006.09661. One network maps a spatial coordinate to every measurement at that
place. The network is a value of `network`; this is what the mode adds: the axis of its outputs, and their range.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr import bitstream
from inrstore.chunk.inr.network import Coordinates, Evaluator, Network, points_at_once
from inrstore.errors import CorruptChunkError

_NO_CHANNELS = 0xFF


@dataclass(frozen=True, eq=False)
class Siren:
    """What the payload of a chunk holds.

    Parameters
    ----------
    channel_axis : int or None
        Axis of the chunk that the outputs run along; the others that are longer than 1 are coordinates.
    network : Network
    exponent : int
        A stored value is the output times 2^exponent.
    low, high : int
        Outputs are limited to this range.
    """

    channel_axis: int | None
    network: Network
    exponent: int
    low: int
    high: int

    def describe(self) -> dict[str, Any]:
        """Return what `info` says of it."""
        layers = self.network.layers
        names = [a.activation.name for a in layers]
        return {"layers": len(layers), "width": max(len(a.biases) for a in layers), "channels": self.network.outputs,
                "activations": names[0] if len({*names}) == 1 else " ".join(names),
                "parameters": self.network.parameters}  # fmt: skip


def space_axes(box_shape: Sequence[int], channel_axis: int | None) -> list[int]:
    """Return the axes of a box along which its network has a coordinate: the others have but one place."""
    return [axis for axis, n in enumerate(box_shape) if axis != channel_axis and n != 1]


def write(siren: Siren) -> bytes:
    """Return the payload after the envelope."""
    axis = _NO_CHANNELS if siren.channel_axis is None else siren.channel_axis
    return struct.pack("<Bbii", axis, siren.exponent, siren.low, siren.high) + bitstream.write(siren.network)


def read(reader: Reader, dtype: np.dtype[Any], box_shape: tuple[int, ...]) -> Siren:
    """Parse and check a payload.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    axis_byte = reader.number("B", "siren.channel_axis")
    if axis_byte != _NO_CHANNELS and axis_byte >= len(box_shape):
        raise CorruptChunkError("siren.channel_axis", f"{axis_byte} of {len(box_shape)} axes")
    axis = None if axis_byte == _NO_CHANNELS else axis_byte
    exponent = reader.number("b", "siren.exponent")
    low, high = reader.number("i", "siren.low"), reader.number("i", "siren.high")
    dtypes.check_outputs(low, high, exponent, dtype, "siren")
    network = bitstream.read(reader)
    reader.finish("siren.network")
    lengths = [box_shape[a] for a in space_axes(box_shape, axis)]
    if network.inputs != Coordinates(len(lengths)):
        raise CorruptChunkError("siren.inputs", f"{network.inputs} for {len(lengths)} axes")
    if network.outputs != (1 if axis is None else box_shape[axis]):
        raise CorruptChunkError("siren.outputs", f"{network.outputs} in a box of {box_shape}")
    network.check_reach([n - 1 for n in lengths])
    return Siren(axis, network, exponent, low, high)


# ---- evaluation --------------------------------------------------------------------------------------------


def evaluate(
    siren: Siren,
    dtype: np.dtype[Any],
    box_shape: tuple[int, ...],
    indices: Sequence[range | npt.NDArray[np.int64]],
) -> npt.NDArray[Any]:
    """Evaluate the network on the grid spanned by one index vector for each axis of the box.

    Parameters
    ----------
    siren : Siren
    dtype : numpy.dtype
        Little-endian dtype of the result.
    box_shape : tuple of int
        Shape of the whole box; coordinates are centred on it.
    indices : sequence of range or ndarray of int64
        Positions wanted along each axis, the channel axis included.

    Returns
    -------
    ndarray
        Shape is the length of each index vector.
    """
    axis = siren.channel_axis
    others = [a for a in range(len(box_shape)) if a != axis]
    space = space_axes(box_shape, axis)
    channels = range(1) if axis is None else indices[axis]
    evaluator = Evaluator(siren.network, slice_of(channels) if isinstance(channels, range) else channels)
    # A place may be wanted several times along an axis of length 1 too; these repeat what the others give.
    repeats = math.prod(len(indices[a]) for a in others if a not in space)
    extents = [len(indices[a]) for a in space]
    inner = extents[-1] if extents else 1
    outer = int(np.prod(extents[:-1], dtype=np.int64))
    out = np.empty((len(channels), outer, inner), dtype)
    # A sum of the first layer is one term for each axis: the terms are made once and added on the grid.
    steps, bias = evaluator.first_sums()
    block = points_at_once(siren.network, len(channels))
    rows_at_once = max(1, block // max(1, inner))
    for col in range(0, inner, block):
        stop = min(col + block, inner)
        last = np.zeros((len(bias), 1), bias.dtype)
        if space:
            last = steps[:, -1:] * _coordinate(indices[space[-1]], np.arange(col, stop), box_shape[space[-1]], bias)
        for row in range(0, outer, rows_at_once):
            rows = np.arange(row, min(row + rows_at_once, outer))
            base = np.broadcast_to(bias[:, None], (len(bias), len(rows))).copy()
            places = np.unravel_index(rows, extents[:-1] or (1,))
            for column, (a, place) in enumerate(zip(space[:-1], places, strict=False)):
                base += steps[:, column, None] * _coordinate(indices[a], place, box_shape[a], bias)
            z = (base[:, :, None] + last[:, None, :]).reshape(len(base), -1)
            hidden = evaluator.hidden(z)
            for part in evaluator.parts():
                values = _stored(siren, evaluator.read_out(hidden, part), dtype)
                out[part, rows[0] : rows[-1] + 1, col:stop] = values.reshape(-1, len(rows), stop - col)
    lengths = [len(indices[a]) if a in space else 1 for a in others]
    result = out.reshape(len(channels), *lengths)
    if repeats != 1:
        whole = [len(indices[a]) for a in others]
        result = np.ascontiguousarray(np.broadcast_to(result, (len(channels), *whole)))
        lengths = whole
    return result.reshape(lengths) if axis is None else np.moveaxis(result, 0, axis)


def slice_of(positions: range) -> slice:
    """Return the slice that takes these positions, all of them at least 0, along an axis."""
    return slice(positions.start, positions.stop if positions.stop >= 0 else None, positions.step)


def _stored(siren: Siren, outputs: npt.NDArray[np.int64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return stored values of the network's outputs, which are overwritten."""
    np.clip(outputs, siren.low, siren.high, out=outputs)
    if dtype.kind == "f":
        return np.ldexp(outputs.astype(np.float64), siren.exponent).astype(dtype)
    outputs <<= siren.exponent
    return outputs.astype(dtype)


def _coordinate(
    positions: range | npt.NDArray[np.int64], places: npt.NDArray[np.intp], extent: int, like: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return the centred coordinates of some of the positions along an axis, in the type of the sums."""
    if isinstance(positions, range):  # a long axis is never spelled out
        chosen = positions.start + positions.step * places
    else:
        chosen = positions[places]
    return (2 * chosen - (extent - 1)).astype(np.int64).astype(like.dtype)
