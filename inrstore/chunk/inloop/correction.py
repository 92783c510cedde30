"""Decoded components -> corrected ones, by an integer network (specification section 16).

Video codecs call it an in-loop filter; here it is a sine network fitted to its chunk. It reads the leading components
at a position and how they differ from their neighbours, and gives what is to be added to the components there.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.frame import Reader
from inrstore.chunk.inloop import compiled
from inrstore.chunk.inr import bitstream
from inrstore.chunk.inr.network import Evaluator, Network, Values
from inrstore.chunk.kernels import choice
from inrstore.errors import CorruptChunkError, LimitExceededError

Ints = npt.NDArray[np.int64]
Volumes = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]

MOST_REACH, MOST_SHIFT, MOST_NEIGHBOURS = 2, 40, 124
_POINTS = 1 << 15  # positions worked on at a time
_ROOM = 1 << 22  # numbers read, or made, at all of them


@dataclass(frozen=True, eq=False)
class Correction:
    """A network and what it reads.

    Parameters
    ----------
    shifts : tuple of int
        Of each leading component that is read at the position itself, 0..40.
    difference_shifts : tuple of int
        Of each leading component whose neighbours are read; not more than `shifts`.
    offsets : ndarray of int64, shape (neighbours, 3)
        Slices, rows and columns from the position to each neighbour, within 2.
    network : Network
        Of `Values`; its outputs are added to the leading components.
    """

    shifts: tuple[int, ...]
    difference_shifts: tuple[int, ...]
    offsets: Ints
    network: Network

    @property
    def inputs(self) -> int:
        """How many numbers the network reads."""
        return len(self.shifts) + len(self.difference_shifts) * len(self.offsets)

    def write(self) -> bytes:
        """Return the bytes of section 16.1."""
        head = struct.pack("<BBB", len(self.shifts), len(self.difference_shifts), len(self.offsets))
        head += bytes([*self.shifts, *self.difference_shifts]) + self.offsets.astype("i1").tobytes()
        return head + bitstream.write(self.network)

    def describe(self) -> dict[str, Any]:
        """Return what `info` says of it."""
        layers = self.network.layers
        names = " ".join(f"{len(a.biases)} {a.activation.name}" for a in layers)
        return {"network": names, "parameters": self.network.parameters, "network_bytes": len(self.write())}

    @property
    def reach(self) -> tuple[int, int, int]:
        """How many slices, rows and columns away from a position it reads."""
        z, y, x = np.abs(self.offsets).max(0, initial=0).tolist()
        return z, y, x

    def apply(self, volumes: Volumes, box: Box | None = None) -> None:
        """Correct components in place.

        Parameters
        ----------
        volumes : ndarray of float64, shape (components, slices, rows, columns)
            Integers below 2^53.
        box : tuple of slice, optional
            Positions that are corrected; all of them without it.
        """
        network = self.network
        assert isinstance(network.inputs, Values)
        z, y, x = box or tuple(slice(0, n) for n in volumes.shape[1:])
        target = volumes[: network.outputs, z, y, x]
        known = all(layer.activation in compiled.ACTIVATIONS for layer in network.layers)
        loops = choice.find("network", target[0].size * len(network.layers)) if known else None
        if loops is not None:
            target += compiled.added(loops, volumes, self.shifts, self.difference_shifts, self.offsets, network,
                                     (z, y, x))  # fmt: skip
            return
        evaluator = Evaluator(network)
        corrected = np.empty((network.outputs, *volumes.shape[1:]))
        for rows, inputs in inputs_of(self, volumes, network.inputs.magnitude, network.outputs, (z, y, x)):
            corrected[rows] = evaluator(inputs).reshape(network.outputs, *corrected[rows].shape[1:])
        target += corrected[:, z, y, x]


def inputs_of(
    what: Correction, volumes: Volumes, magnitude: int, outputs: int = 0, inside: Box | None = None
) -> Iterator[tuple[Any, npt.NDArray[np.float32]]]:
    """Yield boxes of positions, each as an index into volumes, and the inputs there (section 16.2).

    Memory is bounded, and blocks are large, whatever the lengths of the axes are.

    Parameters
    ----------
    what : Correction
        Its network is not looked at.
    volumes : ndarray of float64, shape (components, slices, rows, columns)
    magnitude : int
    outputs : int
        Numbers that are made at each position: with many of them, fewer positions are worked on at a time.
    inside : tuple of slice, optional
        The positions; all of them without it.

    Yields
    ------
    index : tuple
    inputs : ndarray of float32, shape (inputs, positions)
        Integers of at most `magnitude`.
    """
    lengths = volumes.shape[1:]
    flat = volumes.reshape(len(volumes), -1)
    offsets = what.offsets * (np.array(lengths) > 1)  # no neighbours along an axis of one place
    reach = np.abs(offsets).max(0, initial=0)
    inside = inside or (slice(0, lengths[0]), slice(0, lengths[1]), slice(0, lengths[2]))
    most = max(1, min(_POINTS, _ROOM // max(what.inputs, outputs)))
    for part in _boxes(tuple(s.stop - s.start for s in inside), most):
        z, y, x = (slice(s.start + i.start, s.start + i.stop) for s, i in zip(inside, part, strict=True))
        box, index = (z, y, x), (slice(None), z, y, x)
        here = volumes[: len(what.shifts)][index]
        size = here.shape[1:]
        out = np.empty((what.inputs, *size), np.float32)
        for k, shift in enumerate(what.shifts):
            out[k] = _shifted(here[k], shift)
        places = _places_around(box, reach.tolist(), lengths)
        differences = out[len(what.shifts) :].reshape(len(what.difference_shifts), len(offsets), *size)
        for k, shift in enumerate(what.difference_shifts):
            around = flat[k].take(places)
            for j, begin in enumerate((offsets + reach).tolist()):
                there = around[tuple(slice(b, b + n) for b, n in zip(begin, size, strict=True))]
                differences[k, j] = _shifted(there - here[k], shift)
        np.clip(out, -magnitude, magnitude, out=out)
        yield index, out.reshape(what.inputs, -1)


def _boxes(lengths: tuple[int, ...], most: int) -> Iterator[Box]:
    """Yield boxes of at most so many positions that make up a volume, as long as they can be along the last axes."""
    sizes: list[int] = []
    for length in reversed(lengths):
        sizes.insert(0, min(length, most))
        most //= sizes[0]
        if sizes[0] < length:
            most = 1
    for start in itertools.product(*(range(0, n, size) for n, size in zip(lengths, sizes, strict=True))):
        z, y, x = (slice(s, min(s + size, n)) for s, size, n in zip(start, sizes, lengths, strict=True))
        yield z, y, x


def _places_around(box: Box, reach: Sequence[int], lengths: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return the flat places of a box and of what lies around it, those beyond an edge clamped to it."""
    slices, rows, columns = (
        np.clip(np.arange(s.start - r, s.stop + r), 0, n - 1) for s, r, n in zip(box, reach, lengths, strict=True)
    )
    places: npt.NDArray[np.int64] = (slices[:, None] * lengths[1] + rows)[:, :, None] * lengths[2] + columns
    return places


def _shifted(values: Volumes, shift: int) -> Volumes:
    """Return integers over 2^shift, halves rounded up."""
    out: Volumes = np.floor(values * 2.0**-shift + 0.5) if shift else values
    return out


def read(reader: Reader, components: int) -> Correction:
    """Parse and check a correction of a chunk with so many components.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    count, near, neighbours = (
        reader.number("B", f"inloop.{name}") for name in ("components", "differences", "neighbours")
    )
    if not 1 <= count <= components:
        raise CorruptChunkError("inloop.components", f"{count} of {components}")
    if near > count:
        raise CorruptChunkError("inloop.differences", f"{near} of {count} components")
    if neighbours > MOST_NEIGHBOURS:
        raise LimitExceededError("inloop.neighbours", f"{neighbours} is above {MOST_NEIGHBOURS}")
    shifts = reader.array("u1", count + near, "inloop.shifts").tolist()
    if max(shifts) > MOST_SHIFT:
        raise LimitExceededError("inloop.shifts", f"{max(shifts)} is above {MOST_SHIFT}")
    offsets = reader.array("i1", 3 * neighbours, "inloop.offsets").reshape(-1, 3).astype(np.int64)
    if np.abs(offsets).max(initial=0) > MOST_REACH:
        raise LimitExceededError("inloop.offsets", f"one is beyond {MOST_REACH}")
    network = bitstream.read(reader)
    found = Correction(tuple(shifts[:count]), tuple(shifts[count:]), offsets, network)
    if not isinstance(network.inputs, Values) or network.inputs.count != found.inputs:
        raise CorruptChunkError("inloop.inputs", f"{network.inputs} where {found.inputs} values are read")
    if network.outputs > components:
        raise CorruptChunkError("inloop.outputs", f"{network.outputs} of {components} components")
    if network.parameters > limits.MAX_CORRECTION_PARAMETERS:
        raise LimitExceededError("inloop.network", f"{network.parameters} parameters")
    return found
