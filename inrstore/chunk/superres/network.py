"""Refining networks: a plan that is data, integer layers, and their bytes (specification section 17.2).

A plan is `Dense` (SRDenseNet: Tong et al., ICCV 2017) or `Operator` (SRNO: Wei and Zhang, CVPR 2023); it says which
convolutions there are. Each is a `Layer` of section 7 whose inputs are maps at neighbouring positions.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np

from inrstore import limits
from inrstore.chunk.entropy import weights as coder
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr.bitstream import read_table, short_table, write_table
from inrstore.chunk.inr.layers import AMPLITUDE, LINEAR, RELU, Activation, Ints, Layer, check_products, check_sums
from inrstore.errors import CorruptChunkError, LimitExceededError

Lengths: TypeAlias = tuple[int, int, int]

MAX_SCALE = 3
"""Binary logarithm of the largest scale, 8."""
MAX_HEAD = 16
"""Units of a head: products of two outputs of layers, summed over so many, are exact in float32."""
COORDINATES = 4
"""Inputs at each position that are no features: the coarse image, and the place in its cell."""


@dataclass(frozen=True)
class Convolution:
    """The shape of one layer.

    Parameters
    ----------
    outputs, inputs : int
        Maps.
    wide : bool
        It sees neighbours, too; otherwise the position alone.
    activation : Activation or None
        None for the read-out, which has no biases either.
    doublings : int or None
        How often the coarse grid has been doubled where it is evaluated; None is the fine grid.
    """

    outputs: int
    inputs: int
    wide: bool
    activation: Activation | None
    doublings: int | None = 0


@dataclass(frozen=True)
class Dense:
    """SRDenseNet: dense blocks on the coarse grid, a bottleneck, convolutions that double the grid, a read-out.

    Parameters
    ----------
    blocks, layers : int
        Dense blocks, and convolutions in each.
    growth : int
        Maps that each of these adds.
    first, bottleneck : int
        Maps of the first convolution, and of those after the blocks.
    """

    blocks: int
    layers: int
    growth: int
    first: int
    bottleneck: int

    code: ClassVar[int] = 68
    attentions: ClassVar[int] = 0

    @property
    def maps(self) -> int:
        """Maps before the bottleneck."""
        return self.first + self.blocks * self.layers * self.growth

    def check(self) -> None:
        """Raise unless the numbers make a network."""
        for field in fields(self):
            if not getattr(self, field.name):
                raise LimitExceededError(f"superres.{field.name}", "0")
        if self.maps > limits.MAX_REFINER_MAPS:
            raise LimitExceededError("superres.growth", f"{self.maps} maps are above {limits.MAX_REFINER_MAPS}")

    def convolutions(self, doublings: int) -> Iterator[Convolution]:
        """Yield the layers in order, for a grid that is doubled so often."""
        yield Convolution(self.first, 1, True, RELU)
        for block in range(self.blocks):
            yield Convolution(self.growth, self.first + block * self.layers * self.growth, True, RELU)
            for layer in range(1, self.layers):
                yield Convolution(self.growth, layer * self.growth, True, RELU)
        yield Convolution(self.bottleneck, self.maps, False, RELU)
        for number in range(doublings):
            yield Convolution(self.bottleneck, self.bottleneck, True, RELU, number + 1)
        yield Convolution(1, self.bottleneck, True, None, doublings)


@dataclass(frozen=True)
class Operator:
    """SRNO: convolutions on the coarse grid, then layers at each position of the fine one, with Galerkin attention.

    Parameters
    ----------
    layers, channels : int
        Convolutions, and maps of each.
    width : int
        Units of the layers at a position.
    heads : int
        Parts of these that attention keeps apart.
    attentions : int
    """

    layers: int
    channels: int
    width: int
    heads: int
    attentions: int

    code: ClassVar[int] = 79

    def check(self) -> None:
        """Raise unless the numbers make a network."""
        for field in ("layers", "channels", "width", "heads"):
            if not getattr(self, field):
                raise LimitExceededError(f"superres.{field}", "0")
        if self.width % self.heads or self.width // self.heads > MAX_HEAD:
            raise LimitExceededError("superres.heads", f"{self.heads} for a width of {self.width}")
        if self.attentions > limits.MAX_REFINER_ATTENTIONS:
            raise LimitExceededError("superres.attentions", f"{self.attentions}")

    def convolutions(self, doublings: int) -> Iterator[Convolution]:
        """Yield the layers in order; those of a fine grid do not depend on how often it is doubled."""
        for number in range(self.layers):
            last = number + 1 == self.layers
            yield Convolution(self.channels, self.channels if number else 1, True, LINEAR if last else RELU)
        yield Convolution(self.width, self.channels + COORDINATES, False, LINEAR, None)
        for _ in range(self.attentions):
            yield Convolution(3 * self.width, self.width, False, LINEAR, None)
            yield Convolution(self.width, self.width, False, RELU, None)
            yield Convolution(self.width, self.width, False, LINEAR, None)
        yield Convolution(self.width, self.width, False, RELU, None)
        yield Convolution(1, self.width, False, None, None)


Plan: TypeAlias = Dense | Operator
PLANS: dict[int, type[Dense] | type[Operator]] = {plan.code: plan for plan in (Dense, Operator)}
"""By the first byte of a refining network."""


@dataclass(frozen=True, eq=False)
class Refiner:
    """The integers of a refining network.

    Parameters
    ----------
    plan : Dense or Operator
    reach : tuple of {0, 1}
        Along which of slices, rows and columns wide layers see a neighbour on either side.
    scales : tuple of int
        Binary logarithm of fine positions for one coarse position, along these.
    layers : tuple of Layer
        Weights are (outputs, inputs at all neighbours): neighbours in C order, for each of them all input maps.
    bias_multiplier : int
    readout : ndarray of int, shape (1, inputs at all neighbours)
    """

    plan: Plan
    reach: Lengths
    scales: Lengths
    layers: tuple[Layer, ...]
    bias_multiplier: int
    readout: Ints

    @property
    def convolutions(self) -> list[Convolution]:
        """The shapes of the layers and the read-out."""
        return list(self.plan.convolutions(max(self.scales)))

    @property
    def parameters(self) -> int:
        """Coded weights and biases."""
        return sum(a.weights.size + a.biases.size for a in self.layers) + self.readout.size

    @property
    def name(self) -> str:
        """What people call it."""
        return "srdensenet" if isinstance(self.plan, Dense) else "srno"

    @cached_property
    def data(self) -> bytes:
        """The bytes of the network."""
        plan = self.plan
        head = bytes([plan.code, sum(r << a for a, r in enumerate(self.reach)), *self.scales])
        head += bytes(getattr(plan, field.name) for field in fields(plan))
        multipliers = [*(a.multiplier for a in self.layers), self.bias_multiplier]
        groups = [*(a.weights.reshape(-1) for a in self.layers), np.concatenate([a.biases for a in self.layers]),
                  self.readout.reshape(-1)]  # fmt: skip
        tables = [short_table(coder.fit_table(g)) for g in groups]
        symbols = np.concatenate(groups).astype(np.int64)
        stream = coder.encode(symbols, np.repeat(np.arange(len(groups)), [g.size for g in groups]), tables)
        words = (len(stream) - 4 * coder.lane_count(len(symbols))) // 2
        head += np.array(multipliers, "<u4").tobytes() + b"".join(write_table(t) for t in tables)
        return head + struct.pack("<I", words) + stream

    @property
    def digest(self) -> bytes:
        """SHA-256 of the bytes, by which chunks name a shared network."""
        return hashlib.sha256(self.data).digest()

    def coarse(self, lengths: Lengths) -> Lengths:
        """Return the lengths of the coarse grid of a volume."""
        z, y, x = (-(-n >> e) for n, e in zip(lengths, self.scales, strict=True))
        return z, y, x

    def check(self) -> None:
        """Raise `LimitExceededError` unless all sums stay exact, whatever the image."""
        for layer in self.layers:
            check_products(layer.weights, AMPLITUDE, "superres.weights")
            check_sums(layer, self.bias_multiplier, AMPLITUDE, "superres.weights")
        check_products(self.readout, AMPLITUDE, "superres.weights")

    def check_cost(self, lengths: Lengths) -> None:
        """Raise `LimitExceededError` when a volume of these lengths takes too many products, or too much memory."""
        products, most, coarse = 0, 0, self.coarse(lengths)
        held = self.plan.maps if isinstance(self.plan, Dense) else self.plan.channels
        for one in self.convolutions:
            at = lengths
            if one.doublings is not None:
                z, y, x = (
                    (m << min(one.doublings, e)) + 2 * r
                    for m, e, r in zip(coarse, self.scales, self.reach, strict=True)
                )
                at = z, y, x
                part = math.prod(at) if self.reach[0] else y * x
                most = max(most, part * (one.outputs if one.doublings else held))
            products += one.outputs * one.inputs * taps(one, self.reach) * math.prod(at)
        if most > limits.MAX_REFINER_VALUES:
            raise LimitExceededError("superres.scales", f"{most} values of maps for a volume of {lengths}")
        if products > limits.MAX_REFINER_PRODUCTS * math.prod(lengths):
            raise LimitExceededError("superres.scales", f"{products} products for a volume of {lengths}")


def taps(one: Convolution, reach: Lengths) -> int:
    """Return the positions that a layer sees."""
    return 3 ** sum(reach) if one.wide else 1


def read(reader: Reader) -> Refiner:
    """Parse and check the bytes of a refining network; what follows them is left to the reader.

    Raises
    ------
    CorruptChunkError, LimitExceededError
        Naming the field.
    """
    earned = reader.remaining * limits.MAX_PARAMETERS_PER_BYTE
    code = reader.number("B", "superres.kind")
    if code not in PLANS:
        raise CorruptChunkError("superres.kind", f"{code} is reserved")
    bits = reader.number("B", "superres.reach")
    if bits > 7:
        raise CorruptChunkError("superres.reach", f"{bits} has reserved bits")
    reach = (bits & 1, bits >> 1 & 1, bits >> 2)
    z, y, x = (reader.number("B", "superres.scales") for _ in range(3))
    if max(z, y, x) > MAX_SCALE:
        raise LimitExceededError("superres.scales", f"{z, y, x} are above {MAX_SCALE}")
    kind = PLANS[code]
    plan = kind(*(reader.number("B", f"superres.{field.name}") for field in fields(kind)))
    plan.check()
    convolutions = list(plan.convolutions(max(z, y, x)))
    sizes = [one.outputs * one.inputs * taps(one, reach) for one in convolutions]
    outputs = [one.outputs for one in convolutions[:-1]]
    sizes.insert(len(outputs), sum(outputs))
    if sum(sizes) > min(limits.MAX_PARAMETERS, earned):
        raise LimitExceededError(f"superres.{fields(kind)[-1].name}", f"{sum(sizes)} parameters in so few bytes")
    *multipliers, last = (int(m) for m in reader.array("<u4", len(outputs) + 1, "superres.multipliers"))
    tables = [read_table(reader, "superres") for _ in sizes]
    words = reader.number("I", "superres.words")
    stream = Reader(reader.take(4 * coder.lane_count(sum(sizes)) + 2 * words, "superres.words"))
    symbols = coder.decode(stream, np.repeat(np.arange(len(sizes), dtype=np.uint16), sizes), tables)
    *matrices, biases, readout = np.split(symbols, np.cumsum(sizes)[:-1])
    layers = tuple(
        Layer(one.activation, matrix.reshape(one.outputs, -1), bias, multiplier)
        for one, matrix, bias, multiplier in zip(
            convolutions, matrices, np.split(biases, list(itertools.accumulate(outputs))[:-1]), multipliers,
            strict=False,
        )
        if one.activation is not None
    )  # fmt: skip
    refiner = Refiner(plan, reach, (z, y, x), layers, last, readout.reshape(1, -1))
    refiner.check()
    return refiner
