"""The order in which values are decoded: groups, stages, parts, blocks (specification sections 12.1 and 12.2)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.frame import Reader
from inrstore.chunk.predictor.regions import RegionGrid
from inrstore.errors import CorruptChunkError, LimitExceededError

_SWAP, _ZEROS, _REGIONS = 1, 2, 4
_TOPS = (1, 2, 4, 8)
_MOST_IN_GROUP = 16

Lengths = tuple[int, int, int, int]


@dataclass(frozen=True)
class Layout:
    """The header of the mode, and what follows from it.

    Parameters
    ----------
    lengths : tuple of int
        Measurements, slices, rows, columns; the last two exchanged when `swap` is set.
    swap, zeros : bool
        Rows and columns are exchanged; zeros have flags of their own.
    base, step, low, high : int
        A value is the ordered bit pattern base + step v, low <= v <= high.
    top : int
        Distance of the slices that are decoded first.
    row_parts, column_parts : int
        Parts that a slice is cut into; they are decoded side by side.
    order : ndarray of int
        Order of the measurements.
    region : tuple of int, optional
        Rows and columns of a region, where weights may differ by place.
    """

    lengths: Lengths
    swap: bool
    zeros: bool
    base: int
    step: int
    low: int
    high: int
    top: int
    row_parts: int
    column_parts: int
    order: Ints = field(repr=False)
    region: tuple[int, int] | None = None

    @property
    def part_shape(self) -> tuple[int, int]:
        """Rows and columns of a part."""
        return -(-self.lengths[2] // self.row_parts), -(-self.lengths[3] // self.column_parts)

    @property
    def padded(self) -> int:
        """Values of a part with those that a reader keeps around it."""
        rows, columns = self.part_shape
        return (rows + 8) * (columns + 8)

    @property
    def parts(self) -> int:
        """Parts of a slice."""
        return self.row_parts * self.column_parts

    @property
    def tiled_shape(self) -> tuple[int, int, int, int, int]:
        """Measurements, slices, parts, rows, columns."""
        rows, columns = self.part_shape
        return self.lengths[0], self.lengths[1], self.parts, rows, columns

    @property
    def values(self) -> int:
        """All decoded values, those beyond the edges included."""
        return math.prod(self.tiled_shape)

    @property
    def grid(self) -> RegionGrid | None:
        """Regions of a plane."""
        return None if self.region is None else RegionGrid(*self.region, self.part_shape)

    @property
    def has_regions(self) -> bool:
        """Whether a plane has more regions than one."""
        return self.grid is not None and self.grid.count > 1

    @property
    def block(self) -> int:
        """Planes that are decoded side by side."""
        return max(1, limits.MAX_PREDICTOR_BLOCK // self.padded)

    def blocks(self, planes: int) -> Iterator[tuple[int, int]]:
        """Yield first and last (excluded) plane of each block of a stage."""
        for begin in range(0, planes, self.block):
            yield begin, min(begin + self.block, planes)

    def steps(self) -> int:
        """Return the number of decoding steps."""
        rows, columns = self.part_shape
        blocks = sum(
            -(-len(group) * len(slices) * self.parts // self.block)
            for group in groups(self.lengths[0])
            for slices, _ in stages(self.lengths[1], self.top)
        )
        return blocks * (columns + 2 * (rows - 1))

    def check(self) -> None:
        """Raise unless a reader accepts these numbers (but for ranges of the data type)."""
        measurements, _, rows, columns = self.lengths
        if self.zeros and measurements > 1:
            raise CorruptChunkError("predictor.flags", "zeros with more than one measurement")
        if self.step < 1:
            raise CorruptChunkError("predictor.step", "0")
        if not -limits.MAX_PREDICTOR_RANGE <= self.low <= 0 <= self.high <= self.low + limits.MAX_PREDICTOR_RANGE:
            raise LimitExceededError("predictor.high", f"the range {self.low}..{self.high}")
        if self.top not in _TOPS:
            raise CorruptChunkError("predictor.top", f"{self.top}")
        for name, count, length in (("row", self.row_parts, rows), ("column", self.column_parts, columns)):
            if count < 1 or (count - 1) * -(-length // count) >= length:
                raise CorruptChunkError(f"predictor.{name}_parts", f"{count} of a length of {length}")
        if self.padded > limits.MAX_PREDICTOR_BLOCK:
            raise LimitExceededError("predictor.column_parts", f"a part has {self.part_shape} values")
        if self.grid is not None:
            self.grid.check()
        if measurements > limits.MAX_PREDICTOR_MEASUREMENTS:
            raise LimitExceededError("predictor.order", f"{measurements} measurements")
        if self.steps() > limits.predictor_steps(self.values):
            raise LimitExceededError("predictor.steps", f"{self.steps()} steps for {self.values} values")

    def write(self) -> bytes:
        """Return the bytes of the header."""
        flags = _SWAP * self.swap | _ZEROS * self.zeros | _REGIONS * (self.region is not None)
        head = struct.pack("<BIIiiBHH", flags, self.base, self.step, self.low, self.high, self.top,
                           self.row_parts, self.column_parts)  # fmt: skip
        head += b"" if self.region is None else struct.pack("<HH", *self.region)
        return head + (self.order.astype("<u2").tobytes() if len(self.order) > 1 else b"")


def read_layout(reader: Reader, box: tuple[int, ...], bits: int) -> Layout:
    """Parse and check the header; `bits` is the width of the data type."""
    flags = reader.number("B", "predictor.flags")
    if flags & ~(_SWAP | _ZEROS | _REGIONS):
        raise CorruptChunkError("predictor.flags", f"reserved bits are set in {flags:#x}")
    base, step = (reader.number("I", f"predictor.{name}") for name in ("base", "step"))
    low, high = (reader.number("i", f"predictor.{name}") for name in ("low", "high"))
    top = reader.number("B", "predictor.top")
    row_parts, column_parts = (reader.number("H", f"predictor.{name}") for name in ("row_parts", "column_parts"))
    lengths = fold(box, bool(flags & _SWAP))
    region = None
    if flags & _REGIONS and lengths[0] == 1:
        region = reader.number("H", "predictor.region_rows"), reader.number("H", "predictor.region_columns")
    elif flags & _REGIONS:
        raise CorruptChunkError("predictor.flags", "regions with more than one measurement")
    layout = Layout(lengths, bool(flags & _SWAP), bool(flags & _ZEROS), base, step, low, high,
                    top, row_parts, column_parts, np.zeros(1, np.int64), region)  # fmt: skip
    layout.check()
    if base + low * step < 0 or base + high * step >= 1 << bits:
        raise CorruptChunkError("predictor.base", "values outside the data type")
    if lengths[0] == 1:
        return layout
    order = reader.array("<u2", lengths[0], "predictor.order").astype(np.int64)
    if (np.sort(order) != np.arange(lengths[0])).any():
        raise CorruptChunkError("predictor.order", "it is not a permutation")
    return replace(layout, order=order)


def fold(box: tuple[int, ...], swap: bool) -> Lengths:
    """Return the four lengths of a box."""
    whole = (1, 1, 1, 1, *box)
    first, (slices, rows, columns) = whole[:-3], whole[-3:]
    measurements = math.prod(first)
    return (measurements, slices, columns, rows) if swap else (measurements, slices, rows, columns)


def groups(measurements: int) -> list[range]:
    """Return the groups of measurements that are decoded together."""
    out, begin = [], 0
    while begin < measurements:
        size = min(max(1, begin), _MOST_IN_GROUP, measurements - begin)
        out.append(range(begin, begin + size))
        begin += size
    return out


def stages(slices: int, top: int) -> list[tuple[Ints, int]]:
    """Return the slices of each stage and the distance of their neighbours (0: they have none)."""
    out = [(np.arange(0, slices, top), 0)]
    distance = top // 2
    while distance:
        if distance < slices:
            out.append((np.arange(distance, slices, 2 * distance), distance))
        distance //= 2
    return out


def beside(slices: Ints, distance: int, length: int) -> tuple[Ints, Ints]:
    """Return the slices below and above."""
    below, above = slices - distance, slices + distance
    return below, np.where(above < length, above, below)


def cut(values: npt.NDArray[np.integer], layout: Layout) -> npt.NDArray[np.integer]:
    """Cut (t, z, y, x) into parts (t, z, part, row, column); what is beyond the edges repeats them."""
    t, z, y, x = values.shape
    h, w = layout.part_shape
    pads = layout.row_parts * h - y, layout.column_parts * w - x
    wide = np.pad(values, ((0, 0), (0, 0), (0, pads[0]), (0, pads[1])), mode="edge") if any(pads) else values
    tiles = wide.reshape(t, z, layout.row_parts, h, layout.column_parts, w).transpose(0, 1, 2, 4, 3, 5)
    return np.ascontiguousarray(tiles).reshape(layout.tiled_shape)


def join(tiles: npt.NDArray[np.integer], layout: Layout) -> npt.NDArray[np.integer]:
    """Return (t, z, y, x) of parts; the inverse of `cut`."""
    t, z, y, x = layout.lengths
    h, w = layout.part_shape
    wide = tiles.reshape(t, z, layout.row_parts, layout.column_parts, h, w).transpose(0, 1, 2, 4, 3, 5)
    return wide.reshape(t, z, layout.row_parts * h, layout.column_parts * w)[:, :, :y, :x]
