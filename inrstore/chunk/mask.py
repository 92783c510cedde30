"""Masks: which values of a chunk are coded at all, as bitmaps in an interlaced binary code (specification section 4.1).

A bitmap is coded from coarse to fine: the bits of a lattice are known, those between them follow class by class, and
each class is decoded at once. The probability of a bit depends on a weighted vote of its neighbours that are
known by then.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy import rans
from inrstore.chunk.frame import Reader
from inrstore.errors import ConfigurationError, CorruptChunkError, LimitExceededError

_ALL = 16
"""Context of a bit whose known neighbours are all set; 0 is that of one none of whose neighbours is."""
_GROUP = 64
_GROUPS = ((0, _ALL + 1), (_ALL, _ALL + 2))
"""Contexts that hardly leave a doubt, and the tables that tell which groups of their bits are coded at all."""
_TABLES = _ALL + 3
_AT_ONCE = 1 << 16  # symbols whose counts are held at a time
_SYMBOLS_PER_LANE = 2048  # the writer's choice: about two bytes a lane against time
_BITS_PER_LANE, _MOST_LANES = 1 << 15, (1 << 16) - 1
_CLASSES = ((1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
"""Parities of the positions between those of the coarser lattice, in the order of coding."""
_WEIGHT_SHIFTS = (2, 1, 0)  # votes of neighbours beside, across an edge, across a corner: 4, 2, 1

Mask = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint8]


# ---- masks of a chunk --------------------------------------------------------------------------------------


def narrow(mask: npt.NDArray[Any], shape: tuple[int, ...]) -> Mask:
    """Return a mask with one axis for each of a chunk, of length 1 wherever it does not vary.

    Raises
    ------
    ConfigurationError
        The mask is not of bool, or does not broadcast to the shape.
    """
    mask = np.asarray(mask)
    wide = mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape)
    if mask.dtype.kind != "b" or wide.ndim != len(shape):
        raise ConfigurationError(
            f"a mask of {mask.dtype} and {mask.ndim} axes; bool and at most {len(shape)} are wanted"
        )
    if any(m not in (1, n) for m, n in zip(wide.shape, shape, strict=True)):
        raise ConfigurationError(f"a mask of shape {mask.shape} for a chunk of {shape}")
    for axis in range(wide.ndim):
        first = wide[(slice(None),) * axis + (slice(1),)]
        if wide.shape[axis] > 1 and (wide == first).all():
            wide = first
    return np.array(wide, order="C")


def part(mask: Mask, box: Sequence[slice]) -> Mask:
    """Return the part of a mask that belongs to a part of its chunk; axes of length 1 stay."""
    return mask[tuple(slice(None) if n == 1 else s for n, s in zip(mask.shape, box, strict=True))]


def spread(values: npt.NDArray[Any], inside: Mask, axes: Sequence[int]) -> npt.NDArray[Any]:
    """Fill what is outside with the last value inside before it along the first of the axes, or else the next one.

    Rows without any value inside are filled along the next axis, and so on.
    """
    known = inside
    for axis in axes:
        n = known.shape[axis]
        place = np.arange(n).reshape([n if a == axis else 1 for a in range(known.ndim)])
        before = np.maximum.accumulate(np.where(known, place, -1), axis)
        after = np.flip(np.minimum.accumulate(np.flip(np.where(known, place, n), axis), axis), axis)
        source = np.where(before >= 0, before, after)
        found = source < n
        values = np.take_along_axis(values, np.where(found, source, place), axis)
        known = found
    return values


# ---- the code ----------------------------------------------------------------------------------------------


def write(mask: Mask) -> bytes:
    """Return the coded bitmap of a mask of any number of axes."""
    bits = mask.reshape(_folded(mask.shape)).view(np.uint8)
    coded = [row for target, context in _passes(bits) for row in _symbols(target.reshape(-1), context)]
    ones, total = np.zeros(_TABLES, np.int64), np.zeros(_TABLES, np.int64)
    for table, symbols in coded:
        total += np.bincount(table, minlength=_TABLES)
        ones += np.bincount(table[symbols > 0], minlength=_TABLES)
    share = (2 * rans.TOTAL * ones + total) // np.maximum(1, 2 * total)
    mixed = np.clip(share, 1, rans.TOTAL - 1)
    counts = np.where((ones == 0) | (ones == total), rans.TOTAL * (ones > 0), mixed)
    lanes = min(max(_fewest_lanes(bits.size), -(-int(total.sum()) // _SYMBOLS_PER_LANE)), _MOST_LANES)

    def rows() -> Iterator[rans.Row]:
        for table, symbols in reversed(coded):
            for begin in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
                row = slice(begin, begin + lanes)
                count, one = counts[table[row]], symbols[row] > 0
                yield np.where(one, count, rans.TOTAL - count), np.where(one, 0, count), rans.PRECISION

    return struct.pack("<H", lanes) + counts.astype("<u2").tobytes() + rans.write(rows(), lanes)


def read(reader: Reader, shape: tuple[int, ...], field: str) -> Mask:
    """Decode a bitmap from the rest of the reader.

    Raises
    ------
    CorruptChunkError
        Naming `field` and the part of it that is wrong.
    """
    folded = _folded(shape)
    fewest, width = _fewest_lanes(math.prod(folded)), reader.number("H", f"{field}.lanes")
    if width < fewest:
        raise LimitExceededError(f"{field}.lanes", f"{width} for {math.prod(folded)} bits; the least is {fewest}")
    counts = reader.array("<u2", _TABLES, f"{field}.counts").astype(np.uint32)
    if (counts > rans.TOTAL).any():
        raise CorruptChunkError(f"{field}.counts", f"a count is above {rans.TOTAL}")
    lanes = rans.Stream(reader, width, field)
    bits = np.zeros(folded, np.uint8)
    for target, context in _passes(bits):
        coded = (context > 0) & (context < _ALL)
        for sure, table in _GROUPS:
            chosen = context == sure
            count = int(np.count_nonzero(chosen))
            mixed = _take(lanes, counts, np.full(-(-count // _GROUP), table, np.uint8))
            coded[chosen] = np.repeat(mixed, _GROUP)[:count]
        found = (context == _ALL).view(np.uint8)
        found[coded] = _take(lanes, counts, context[coded])
        target[...] = found.reshape(target.shape)
    lanes.finish()
    return bits.view(np.bool_).reshape(shape)


def _symbols(bits: Bits, context: Bits) -> Iterator[tuple[Bits, Bits]]:
    """Yield tables and symbols of a pass, in the order in which they are coded."""
    coded = (context > 0) & (context < _ALL)
    for sure, table in _GROUPS:
        chosen = context == sure
        odd = bits[chosen] != (sure > 0)
        mixed = np.zeros(-(-len(odd) // _GROUP), np.uint8)
        mixed[np.flatnonzero(odd) // _GROUP] = 1
        coded[chosen] = np.repeat(mixed, _GROUP)[: len(odd)]
        yield np.full(len(mixed), table, np.uint8), mixed
    yield context[coded], bits[coded]


def _take(lanes: rans.Stream, counts: npt.NDArray[np.uint32], table: Bits) -> Bits:
    """Return the next symbols, 0 or 1, one from each of the tables; each pass begins at the first lane."""
    symbols = np.empty(len(table), np.bool_)
    lanes.restart()
    for begin in range(0, len(table), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        symbols[part] = lanes.flags(counts[table[part]])
    return symbols.view(np.uint8)


def _fewest_lanes(size: int) -> int:
    """Return the least number of lanes: it bounds the steps in which a bitmap of that size is decoded."""
    return max(1, -(-size // _BITS_PER_LANE))


def _folded(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the three lengths that a bitmap is coded with: the first axes of many are taken as one."""
    *first, rows, columns = (1, 1, *shape)
    return int(np.prod(first, dtype=np.int64)), rows, columns


# ---- order and contexts ------------------------------------------------------------------------------------


def _neighbours(place: int) -> list[tuple[tuple[int, ...], int]]:
    """Return offset and shift of the vote of each neighbour that is known when a class comes to be coded."""
    known = {(0, 0, 0), *_CLASSES[:place]}
    out = []
    for offset in itertools.product((-1, 0, 1), repeat=3):
        there = tuple(p ^ abs(o) for p, o in zip(_CLASSES[place], offset, strict=True))
        if any(offset) and there in known:
            out.append((offset, _WEIGHT_SHIFTS[sum(map(abs, offset)) - 1]))
    return out


_KNOWN = [_neighbours(place) for place in range(len(_CLASSES))]


def _passes(bits: Bits) -> Iterator[tuple[Bits, Bits]]:
    """Yield a view of the bits of each pass and their contexts, flat; a pass reads only the bits of those before."""
    yield bits[:1, :1, :1], np.zeros(1, np.uint8)
    for level in reversed(range((max(bits.shape) - 1).bit_length())):
        step = 1 << level
        lattice = bits[::step, ::step, ::step]
        for parity, known in zip(_CLASSES, _KNOWN, strict=True):
            target = lattice[tuple(slice(p, None, 2) for p in parity)]
            if target.size:
                yield target, _contexts(lattice, target.shape, parity, known)


def _contexts(
    lattice: Bits, shape: tuple[int, ...], parity: tuple[int, ...], known: list[tuple[tuple[int, ...], int]]
) -> Bits:
    """Return the contexts of the bits of one parity: the vote of their known neighbours, in sixteenths."""
    votes = np.zeros(shape, np.uint8)
    for offset, shift in known:
        pairs = [_overlap(p, o, n) for p, o, n in zip(parity, offset, lattice.shape, strict=True)]
        votes[tuple(to for to, _ in pairs)] += lattice[tuple(of for _, of in pairs)] << np.uint8(shift)
    total = sum(1 << shift for _, shift in known)  # neighbours beyond the edge are there, and 0
    share = (np.arange(total + 1) * _ALL // total).astype(np.uint8)
    return share[votes].reshape(-1)


def _overlap(parity: int, offset: int, n: int) -> tuple[slice, slice]:
    """Return which positions of a parity have a neighbour at an offset along an axis of n, and those neighbours."""
    first = int(parity + offset < 0)
    of = parity + offset + 2 * first
    count = len(range(of, n, 2))
    most = len(range(parity, n, 2)) - first
    count = min(count, most)
    return slice(first, first + count), slice(of, of + 2 * count, 2)
