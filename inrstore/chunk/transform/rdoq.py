"""Which integers stand for coefficients: the rate-distortion choice of a writer, and its stream.

The choice is that of Sullivan and Wiegand (IEEE Signal Processing Magazine 15(6), 1998): the least of squared error
plus lambda times bits, with the bits of the adaptive model at that moment; what a choice does to later
contexts is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints, pack_bits
from inrstore.chunk.entropy.contexts import contexts as context_of
from inrstore.chunk.entropy.rans import LOWER, rows_of, write
from inrstore.chunk.transform.adaptive import CONTEXTS, FLAG_BITS, SIZE_BITS, SIZES, Model, low_bits
from inrstore.chunk.transform.contexts import Singles
from inrstore.chunk.transform.decode import ESCAPE, ORDER
from inrstore.chunk.transform.header import MOST_LANES
from inrstore.chunk.transform.scan import Coefficients, Words
from inrstore.chunk.transform.subbands import Subband, Triple
from inrstore.chunk.transform.trellis import MOST_SQUARE, Bytes, cheapest, rounded

Doubles = npt.NDArray[np.float64]
Symbols = tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16], npt.NDArray[np.uint8]]
"""Counts, starts and precisions."""

LAMBDA = 0.1155
"""Squared steps that one bit is worth: the slope of a fine uniform quantiser, 2 ln 2 / 12."""
LAMBDA_OF_TWO = 0.75 * LAMBDA
"""The same of two quantisers."""
_BYTES_PER_LANE, _LEAST_PER_LANE, _MOST_PER_LANE = 128, 1500, 30_000
SHARE = 0.7
"""Of their bits, what components save that are left out: the counts of flags follow what is left."""


def _logs(count: int, share: float) -> Doubles:
    """Return logarithms to base 2 of whole numbers over another; that of 0 is not used."""
    return np.log2(np.maximum(np.arange(count + 1), 1) / share)


# Tables, so that the compiled choice has the same logarithms.
FLAG_LOGS = _logs(1 << FLAG_BITS, 2.0**FLAG_BITS)
"""Of shares of 2^16."""
SIZE_LOGS = np.stack([_logs(1 << SIZE_BITS, 1.0), _logs(1 << SIZE_BITS, 2.0**SIZE_BITS)])
"""Of counts of sizes, and of them as shares of 2^12."""


def lane_count(symbols: int, coefficients: int, size: float) -> int:
    """Return how many states are taken; each costs about a byte and saves time.

    Parameters
    ----------
    symbols, coefficients : int
    size : float
        Of the whole payload in bytes, about.
    """
    wanted = min(int(size / _BYTES_PER_LANE), symbols // _LEAST_PER_LANE)
    needed = -(-coefficients // _MOST_PER_LANE)
    return min(MOST_LANES, max(1, wanted, needed))


@dataclass(frozen=True)
class Pass:
    """What was coded in a pass, counted.

    Parameters
    ----------
    saved, logs, left : ndarray of float64, shape (components,)
        Squares that each component saves, the logarithms of the shares of what was coded for it, and the squares of
        the errors that are left.
    flags, flag_counts : ndarray of int64, shape (CONTEXTS, 2), or twice as many
        How often each flag was coded, and its share of 2^16.
    sizes, size_counts : ndarray of int64, shape (CONTEXTS, SIZES)
        The same of sizes, of 2^12.
    excess, excess_low : ndarray of int64 and float64, shape (2,)
        For magnitudes of 1 and above: how many, and by how much they are low.
    """

    saved: Doubles
    logs: Doubles
    left: Doubles
    flags: Ints
    flag_counts: Ints
    sizes: Ints
    size_counts: Ints
    excess: Ints
    excess_low: Doubles


class Chooser:
    """Takes the values of each pass for `scan`.

    Parameters
    ----------
    subbands : sequence of Subband
    coefficients : mapping of (level, key) to ndarray of float32, shape (components, z, y, x)
        In quantiser steps.
    trellis : bool
        Whether there are two quantisers: coefficients are chosen in half steps then.

    Attributes
    ----------
    loops : module or None
        `inrstore.chunk.kernels.transform_encode`, where it chooses; None where numpy does.
    compiled : list of tuple of ndarray
        What it chose in each subband, as its `write_subband` takes it.
    model : Model
    walk : ndarray of int64, shape (1,)
        State of the trellis.
    price : float
        Squared steps that one bit is worth.
    coefficients : int
        How many were coded.
    left : float
        Squared steps of error.
    worth : dict of int to ndarray of float64
        What each component of a subband saves, less its bits.
    excess : ndarray of float64, shape (2, 2)
        For magnitudes of 1 and above: how many, and by how much they are low.
    """

    def __init__(
        self, subbands: Sequence[Subband], coefficients: Mapping[tuple[int, Triple], Singles], *, trellis: bool = False
    ) -> None:
        self._subbands, self._coefficients = subbands, coefficients
        self.trellis, self.walk = trellis, np.zeros(1, np.int64)
        self.price = LAMBDA_OF_TWO if trellis else LAMBDA
        self.loops: ModuleType | None = None
        self.compiled: list[tuple[npt.NDArray[Any], ...]] = []
        self.model = Model(1 + trellis)
        self._symbols: list[Symbols] = []
        self._passes: list[Pass] = []
        self._numbers: list[Ints] = []
        self._widths: list[Ints] = []
        self.coefficients = 0
        self.left = 0.0
        self.worth: dict[int, Doubles] = {}
        self.excess = np.zeros((2, 2))

    def whole(self, subband: int) -> Singles:
        """Return the coefficients of a subband in quantiser steps."""
        return self._coefficients[self._subbands[subband].level, self._subbands[subband].key]

    def take(self, subband: int, where: Sequence[tuple[slice, ...]], expected: Singles) -> Words:
        """Return the chosen values of a pass, and keep their symbols."""
        whole = self.whole(subband)
        count = self._active(whole, where, expected)
        place = context_of(expected) >> 2
        values = np.concatenate([whole[:count][w].reshape(-1) for w in where])
        size = np.abs(values)
        ones, size_counts = self.model.flag_counts(), self.model.size_counts()
        if self.trellis:
            out, second = self._walked(size, place, ones, size_counts)
        else:
            out, second = np.zeros(len(values), np.int32), np.zeros(len(values), np.uint8)
            near = (size >= 0.5).nonzero()[0]
            if near.size:
                out[near] = self._choose(size[near], place[near], ones, size_counts)
        flags = out > 0
        live = flags.nonzero()[0]
        mine, magnitude = place[live], out[live].astype(np.int64)
        row = place + CONTEXTS * second
        flag_counts = np.stack([(1 << FLAG_BITS) - ones, ones], 1)
        some = np.bincount(row[live], minlength=len(ones))
        flags_seen = np.stack([np.bincount(row, minlength=len(ones)) - some, some], 1)
        short = np.minimum((magnitude - 1) >> low_bits(mine), ESCAPE)
        sizes_seen = np.bincount(mine * SIZES + short, minlength=CONTEXTS * SIZES).reshape(CONTEXTS, SIZES)
        self._symbols.append(_symbols(flag_counts[row, flags.view(np.uint8)], np.where(flags, 0, ones[row]), FLAG_BITS))
        if live.size:
            begins = np.cumsum(size_counts, 1) - size_counts
            self._symbols.append(_symbols(size_counts[mine, short], begins[mine, short], SIZE_BITS))
        self.model.add_flags(flags_seen)
        self.model.add_sizes(sizes_seen)
        self.add_fields(mine, magnitude)
        whole_of = np.where(flags, 2 * out - second, 0).astype(np.int32) if self.trellis else out
        over = (whole_of[live] > 1).astype(np.intp)
        low = size.astype(np.float64) - (out - 0.5 * second * flags)
        squares, left = np.square(size.astype(np.float64)), np.square(low)
        lengths = [whole[:1][w].size for w in where]
        component = np.concatenate([np.repeat(np.arange(count), n) for n in lengths])
        logs = FLAG_LOGS[(1 << FLAG_BITS) - ones][row]
        logs[live] = FLAG_LOGS[ones][row[live]] + SIZE_LOGS[1][size_counts][mine, short] - 1 - low_bits(mine)

        def sums(numbers: Doubles, of: Ints, most: int = count) -> Doubles:
            return np.bincount(of, numbers, most).astype(np.float64)

        self.account(subband, Pass(
            sums((squares - left)[live], component[live]), sums(logs, component), sums(left, component), flags_seen,
            flag_counts, sizes_seen, size_counts, np.bincount(over, minlength=2),
            sums(low[live], over, 2)))  # fmt: skip
        return np.where(values < 0, -whole_of, whole_of)

    def account(self, subband: int, made: Pass) -> None:
        """Add up what a pass was worth, and what it took."""
        self._passes.append(made)
        self.coefficients += int(made.flags.sum())
        self.left += float(made.left.sum())
        self.worth[subband] = self.worth.get(subband, 0) + made.saved + SHARE * self.price * made.logs
        self.excess[0] += made.excess
        self.excess[1] += made.excess_low

    @staticmethod
    def _active(whole: Singles, where: Sequence[tuple[slice, ...]], expected: Singles) -> int:
        """Return how many leading components the subband has, from the number of values that are asked for."""
        return len(expected) // sum(whole[:1][w].size for w in where)

    def _walked(self, size: Singles, place: Ints, ones: Ints, size_counts: Ints) -> tuple[Words, Bytes]:
        """Return the magnitudes along the cheapest path through the trellis, and the quantiser of each."""
        distance, width = size.astype(np.float64), low_bits(np.arange(CONTEXTS))
        length = SIZE_BITS - SIZE_LOGS[0][size_counts]
        costs, either = np.empty((len(size), 4), np.int64), np.empty((len(size), 2), np.int32)
        for q in range(2):
            row = place + CONTEXTS * q
            none = self.price * -FLAG_LOGS[(1 << FLAG_BITS) - ones][row]
            some = 1.0 - FLAG_LOGS[ones][row]
            costs[:, 2 * q] = rounded(np.minimum(np.square(distance), MOST_SQUARE) + none)
            magnitude, lowest = np.zeros(len(size), np.int64), np.full(len(size), np.inf)
            first = np.maximum((distance + 0.5 * q).astype(np.int64), 1)
            for candidate in (first, first + 1):
                short = (candidate - 1) >> width[place]
                bits = (some + width[place]) + length[place, np.minimum(short, ESCAPE)]
                beyond = short >= ESCAPE
                bits[beyond] += 2 * _zeros_of(short[beyond] - ESCAPE) + 1 + ORDER
                cost = np.square(distance - (candidate - 0.5 * q)) + self.price * bits
                better = (cost < lowest) & ((candidate == 1) | (distance + 0.5 * q >= 1))
                magnitude[better], lowest[better] = candidate[better], cost[better]
            costs[:, 2 * q + 1], either[:, q] = rounded(np.minimum(lowest, 2 * MOST_SQUARE)), magnitude
        flags, second, self.walk[0] = cheapest(costs, int(self.walk[0]))
        out: Words = np.where(flags, np.take_along_axis(either, second[:, None].astype(np.intp), 1)[:, 0], 0)
        return out.astype(np.int32), second

    def _choose(self, size: Singles, place: Ints, ones: Ints, size_counts: Ints) -> Words:
        none, some = -FLAG_LOGS[(1 << FLAG_BITS) - ones], 1 - FLAG_LOGS[ones]
        length = SIZE_BITS - SIZE_LOGS[0][size_counts]
        width = low_bits(np.arange(CONTEXTS))
        most = np.rint(size).astype(np.int64)
        best, lowest = np.zeros(len(size), np.int64), size.astype(np.float64) ** 2 + self.price * none[place]
        for candidate in (most - 1, most):
            ok = candidate > 0
            magnitude, here = candidate[ok] - 1, place[ok]
            short = magnitude >> width[here]
            bits = some[here] + width[here] + length[here, np.minimum(short, ESCAPE)]
            beyond = short >= ESCAPE
            if beyond.any():
                bits[beyond] += 2 * _zeros_of(short[beyond] - ESCAPE) + 1 + ORDER
            cost = (size[ok] - candidate[ok]) ** 2 + self.price * bits
            index = ok.nonzero()[0]
            better = cost < lowest[index]
            best[index[better]], lowest[index[better]] = candidate[ok][better], cost[better]
        out: Words = best.astype(np.int32)
        return out

    def add_fields(self, contexts: Ints, magnitudes: Ints) -> None:
        """Keep what the symbols of a pass do not say of magnitudes of at least 1."""
        width = low_bits(contexts)
        whole = (magnitudes - 1) >> width
        rest = whole[whole >= ESCAPE] - ESCAPE
        if rest.size:
            zeros = _zeros_of(rest)
            self._field(1 << zeros, zeros + 1)
            self._field(rest + (1 << ORDER) - (1 << (zeros + ORDER)), zeros + ORDER)
        if width.any():
            self._field((magnitudes - 1) & ((1 << width) - 1), width)

    def _field(self, numbers: Ints, widths: npt.NDArray[Any]) -> None:
        self._numbers.append(numbers)
        self._widths.append(np.asarray(widths, np.int64))

    def bits(self) -> float:
        """Return the bits of all that was coded."""
        if not self._passes:
            return 0.0
        flags, flag_counts, sizes, size_counts = (
            np.array(each)
            for each in zip(*((p.flags, p.flag_counts, p.sizes, p.size_counts) for p in self._passes), strict=True)
        )
        bits = int(sizes.sum()) + sum(int(widths.sum()) for widths in self._widths)  # signs and fields
        return bits - float((flags * FLAG_LOGS[flag_counts]).sum()) - float((sizes * SIZE_LOGS[1][size_counts]).sum())

    def streams(self, coefficients: Coefficients) -> bytes:
        """Return what follows the header: lanes, bits, signs, states and words."""
        negative = self._signs(coefficients)
        symbols = self.coefficients + len(negative)
        lanes = lane_count(symbols, self.coefficients, self.bits() / 8)
        first = np.zeros(16 * lanes, np.uint8)
        first[: min(len(first), len(negative))] = negative[: len(first)]
        signs = np.packbits(negative[len(first) :], bitorder="little").tobytes()
        numbers, widths = (np.concatenate(a) if a else np.zeros(0, np.int64) for a in (self._numbers, self._widths))
        packed = pack_bits(numbers, widths)
        words = self._written(symbols, lanes, first)
        return struct.pack("<HI", lanes, len(packed)) + packed + struct.pack("<I", len(signs)) + signs + words

    def _signs(self, coefficients: Coefficients) -> npt.NDArray[np.uint8]:
        """Return whether each coefficient that is not 0 is negative."""
        flat = [values.reshape(-1) for values in coefficients.values()]
        if self.loops is None:
            return np.concatenate([values[values != 0] < 0 for values in flat]).astype(np.uint8)
        out, count = np.empty(sum(np.count_nonzero(values) for values in flat) + 1, np.uint8), 0
        for values in flat:
            count = self.loops.signs(values, out, count)
        return out[:-1]

    def _written(self, symbols: int, lanes: int, first: npt.NDArray[np.uint8]) -> bytes:
        """Return states and words of so many symbols; `first` as for `rans.write`."""
        if self.loops is None:
            parts = [np.concatenate(part) for part in zip(*self._symbols, strict=True)] or [np.zeros(0, np.int64)] * 3
            counts, starts, precisions = parts
            return write(rows_of(counts, starts, lanes, precisions), lanes, first)
        states = np.packbits(first, bitorder="little").view("<u2").astype(np.uint32) + np.uint32(LOWER)
        words, end = np.empty(symbols, np.uint16), symbols
        for part in reversed(self.compiled):
            end = self.loops.write_subband(*part, symbols % lanes, states, words, end)
            symbols -= len(part[0]) + len(part[1])
        return states.astype("<u4").tobytes() + words[end:].astype("<u2").tobytes()


def _symbols(counts: Ints, starts: Ints, precision: int) -> Symbols:
    return counts.astype(np.uint16), starts.astype(np.uint16), np.full(len(counts), precision, np.uint8)


def _zeros_of(numbers: Ints) -> Ints:
    """Return the zeros in front of Exp-Golomb numbers."""
    out: Ints = np.frexp(((numbers >> ORDER) + 1).astype(np.float64))[1].astype(np.int64) - 1
    return out
