"""The integer network: bytes, limits, evaluation (specification sections 13.2 and 13.3).

All sums are products of integers that stay below 2^24, so float32 matrix products give them exactly in any order.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.entropy import weights as coder
from inrstore.chunk.entropy.weights import Table
from inrstore.chunk.frame import Reader
from inrstore.chunk.neural.neighbourhood import Neighbourhood, read_neighbourhood
from inrstore.errors import CorruptChunkError, LimitExceededError

Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

AMPLITUDE = 1023
UNIT = 256
"""A gain of 1, and how many parts of an input's unit the output counts."""
FIXED, LOCAL = 0, 1
MAX_CLIP, MAX_LEAK, MAX_SHIFT = 16383, 15, 24
_LARGE_MATRIX = 1 << 15
"""Weights from which a product is worth several threads."""
_SMALL_PRODUCT = 1 << 18
"""Multiplications up to which OpenBLAS stays on one thread."""


@dataclass(frozen=True, eq=False)
class Network:
    """A neighbourhood and the integers that make a prediction of it.

    Parameters
    ----------
    neighbourhood : Neighbourhood
    local : bool
        Inputs are differences from the mean of near neighbours, rather than from a fixed value.
    leak : int
        Below 0 a unit gives its input >> leak.
    clip : int
        Largest magnitude of an input.
    shifts : tuple of int
        Of each layer, the output included.
    weights : tuple of ndarray of int64
        (outputs, inputs) of each layer; the last has one output.
    biases : tuple of ndarray of int64
        (outputs,) of each layer.
    """

    neighbourhood: Neighbourhood
    local: bool
    leak: int
    clip: int
    shifts: tuple[int, ...]
    weights: tuple[Ints, ...]
    biases: tuple[Ints, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of the hidden layers."""
        return tuple(len(w) for w in self.weights[:-1])

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(w.size + b.size for w, b in zip(self.weights, self.biases, strict=True))

    @cached_property
    def data(self) -> bytes:
        """The bytes of the network."""
        symbols = [w.reshape(-1) for w in self.weights]
        tables = [coder.fit_table(s) for s in symbols]
        return self.write(tables)

    def write(self, tables: list[Table]) -> bytes:
        """Return the bytes of the network, its weights coded with these tables."""
        widths = self.widths
        head = self.neighbourhood.write() + struct.pack("<BBHB", self.local, self.leak, self.clip, len(widths))
        head += struct.pack(f"<{len(widths)}H", *widths) + bytes(self.shifts)
        head += b"".join(struct.pack("<IIH", t.slope, t.bend, t.peak) for t in tables)
        head += b"".join(b.astype("<i4").tobytes() for b in self.biases)
        symbols = np.concatenate([w.reshape(-1) for w in self.weights])
        which = np.arange(len(tables)).repeat([w.size for w in self.weights])
        return head + coder.encode(symbols, which, tables)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the bytes, by which chunks name a shared network."""
        return hashlib.sha256(self.data).digest()

    def check(self) -> None:
        """Raise `LimitExceededError` unless all sums stay exact in float32."""
        for number, (weights, biases) in enumerate(zip(self.weights, self.biases, strict=True)):
            most = AMPLITUDE if number else self.clip
            reach = np.abs(weights).sum(1) * most + np.abs(biases)
            if (reach >= limits.EXACT_FLOAT32).any():
                raise LimitExceededError("neural.weights", f"sums of layer {number} leave the range of exact float32")


def read_network(data: bytes | memoryview) -> Network:
    """Parse and check the bytes of a network.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    reader = Reader(memoryview(data))
    neighbourhood = read_neighbourhood(reader)
    kind = reader.number("B", "neural.inputs")
    if kind not in (FIXED, LOCAL):
        raise CorruptChunkError("neural.inputs", f"{kind} is reserved")
    leak = reader.number("B", "neural.leak")
    if leak > MAX_LEAK:
        raise LimitExceededError("neural.leak", f"{leak}")
    clip = reader.number("H", "neural.clip")
    if not 1 <= clip <= MAX_CLIP:
        raise LimitExceededError("neural.clip", f"{clip}")
    layers = reader.number("B", "neural.layers")
    if layers > limits.MAX_NEURAL_LAYERS:
        raise LimitExceededError("neural.layers", f"{layers}")
    widths = [reader.number("H", "neural.widths") for _ in range(layers)]
    if not all(1 <= w <= limits.MAX_NEURAL_WIDTH for w in widths):
        raise LimitExceededError("neural.widths", f"{widths}")
    shapes = [(b, a) for a, b in itertools.pairwise([len(neighbourhood.offsets), *widths, 1])]
    sizes = [rows * columns for rows, columns in shapes]
    if sum(sizes) > min(limits.MAX_PARAMETERS, limits.MAX_PARAMETERS_PER_BYTE * len(data)):
        raise LimitExceededError("neural.widths", f"{sum(sizes)} weights in {len(data)} bytes")
    shifts = tuple(reader.take(layers + 1, "neural.shifts"))
    if max(shifts) > MAX_SHIFT:
        raise LimitExceededError("neural.shifts", f"{max(shifts)}")
    tables = []
    for _ in shapes:
        slope, bend, peak = (reader.number(k, "neural.tables") for k in "IIH")
        if peak > limits.MAX_SYMBOL:
            raise LimitExceededError("neural.tables", f"a peak of {peak}")
        tables.append(Table(slope, bend, peak))
    biases = tuple(reader.array("<i4", rows, "neural.biases").astype(np.int64) for rows, _ in shapes)
    symbols = coder.decode(reader, np.arange(layers + 1).repeat(sizes), tables).astype(np.int64)
    parts = np.split(symbols, np.cumsum(sizes)[:-1])
    weights = tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
    network = Network(neighbourhood, kind == LOCAL, leak, clip, shifts, weights, biases)
    network.__dict__["data"] = bytes(data)  # other tables may have coded the same weights
    network.check()
    return network


class Evaluator:
    """A network ready for many values at once.

    Parameters
    ----------
    network : Network
    gain : int
        Differences of values times gain / 256 are inputs.
    """

    def __init__(self, network: Network, gain: int) -> None:
        self._weights = [w.astype(np.float32) for w in network.weights[:-1]]
        # A vector times a matrix is shared out among threads whatever its size, two rows are not.
        last = np.zeros((2, network.weights[-1].shape[1]), np.float32)
        last[0] = network.weights[-1][0]
        self._weights.append(last)
        self._biases = [b.astype(np.float32)[:, None] for b in network.biases]
        self._scales = [np.float32(2.0**-s) for s in network.shifts]
        self._leak = np.float32(2.0**-network.leak)
        self._clip = np.float32(network.clip)
        self._gain = gain
        # Beyond it the product would only be clipped, and below it the product is exact.
        self._most = np.float32((network.clip + 1) * UNIT // gain + 1)

    def __call__(self, values: npt.NDArray[Any], centre: npt.NDArray[np.int32]) -> Ints:
        """Return the correction of the centre in parts of 256 (section 13.3).

        Parameters
        ----------
        values : ndarray of uint16, shape (K, n)
            The neighbours.
        centre : ndarray of int32, shape (n,)
        """
        x = values.astype(np.float32)
        x -= centre.astype(np.float32)
        if self._gain != UNIT:
            np.clip(x, -self._most, self._most, out=x)
            x *= np.float32(self._gain)
            x *= np.float32(1 / UNIT)
            np.floor(x, out=x)
        np.clip(x, -self._clip, self._clip, out=x)
        for number, (weights, biases, scale) in enumerate(zip(self._weights, self._biases, self._scales, strict=True)):
            x = _product(weights, x)
            x += biases
            x *= scale
            np.floor(x, out=x)
            if number + 1 < len(self._weights):
                low = x * self._leak
                np.maximum(x, np.floor(low, out=low), out=x)
                np.clip(x, -AMPLITUDE, AMPLITUDE, out=x)
        out: Ints = x[0].astype(np.int64)
        if self._gain != UNIT:
            out *= UNIT
            out //= self._gain
        return out


def _product(weights: Singles, x: Singles) -> Singles:
    """Return the product; a small matrix is not worth several threads, so it is taken in pieces."""
    size = max(64, _SMALL_PRODUCT // weights.size)
    if weights.size >= _LARGE_MATRIX or x.shape[1] <= size:
        return weights @ x
    out = np.empty((len(weights), x.shape[1]), np.float32)
    for i in range(0, x.shape[1], size):
        np.matmul(weights, x[:, i : i + size], out=out[:, i : i + size])
    return out
