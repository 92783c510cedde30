"""Which integers stand for coefficients: the rate-distortion choice of a writer, and its stream.

The choice is that of Sullivan and Wiegand (IEEE Signal Processing Magazine 15(6), 1998): the least of squared error
plus lambda times bits, with the bits of the adaptive model at that moment; what a choice does to later
contexts is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints, pack_bits
from inrstore.chunk.entropy.contexts import contexts as context_of
from inrstore.chunk.entropy.rans import rows_of, write
from inrstore.chunk.quality import sum_of_squares
from inrstore.chunk.transform.adaptive import CONTEXTS, FLAG_BITS, SIZE_BITS, Model, low_bits
from inrstore.chunk.transform.contexts import Singles
from inrstore.chunk.transform.decode import ESCAPE, ORDER
from inrstore.chunk.transform.header import MOST_LANES
from inrstore.chunk.transform.scan import Coefficients, Words
from inrstore.chunk.transform.subbands import Subband, Triple

LAMBDA = 0.1155
"""Squared steps that one bit is worth: the slope of a fine uniform quantiser, 2 ln 2 / 12."""
_BYTES_PER_LANE, _LEAST_PER_LANE, _MOST_PER_LANE = 128, 1500, 30_000
SHARE = 0.7
"""Of their bits, what components save that are left out: the counts of flags follow what is left."""


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


class Chooser:
    """Takes the values of each pass for `scan`.

    Parameters
    ----------
    subbands : sequence of Subband
    coefficients : mapping of (level, key) to ndarray of float32, shape (components, z, y, x)
        In quantiser steps.
    factor : float
        Multiplies `LAMBDA`.
    """

    def __init__(
        self, subbands: Sequence[Subband], coefficients: Mapping[tuple[int, Triple], Singles], factor: float = 1.0
    ) -> None:
        self._subbands, self._coefficients = subbands, coefficients
        self._price = LAMBDA * factor
        self._model = Model()
        self._counts: list[npt.NDArray[np.uint16]] = []
        self._starts: list[npt.NDArray[np.uint16]] = []
        self._precisions: list[npt.NDArray[np.uint8]] = []
        self._numbers: list[Ints] = []
        self._widths: list[Ints] = []
        self.bits = 0.0
        self.coefficients = 0
        self.left = 0.0  # squared steps of error
        self.worth: dict[int, npt.NDArray[np.float64]] = {}  # what each component of a subband saves, less its bits
        self.excess = np.zeros((2, 2))  # for magnitudes of 1 and above: how many, and by how much they are low

    def take(self, subband: int, where: Sequence[tuple[slice, ...]], expected: Singles) -> Words:
        """Return the chosen values of a pass, and keep their symbols."""
        whole = self._coefficients[self._subbands[subband].level, self._subbands[subband].key]
        place = context_of(expected) >> 2
        values = np.concatenate([whole[: self._active(whole, w, where, expected)][w].reshape(-1) for w in where])
        size = np.abs(values)
        flag_counts, size_counts = self._model.flag_counts(), self._model.size_counts()
        near = (size >= 0.5).nonzero()[0]
        out = np.zeros(len(values), np.int32)
        if near.size:
            out[near] = self._choose(size[near], place[near], flag_counts, size_counts)
        flags = out > 0
        live = flags.nonzero()[0]
        mine, magnitude = place[live], out[live].astype(np.int64)
        self.coefficients += len(place)
        self._record_flags(place, flags, flag_counts)
        if live.size:
            self._record_sizes(mine, magnitude, size_counts)
        over = (magnitude > 1).astype(np.intp)
        saved = np.square(size[live].astype(np.float64)) - np.square(size[live] - magnitude)
        self.left += sum_of_squares(values) - float(saved.sum())
        lengths = [whole[:1][w].size for w in where]
        count = len(values) // sum(lengths)
        component = np.concatenate([np.repeat(np.arange(count), n) for n in lengths])
        share = flag_counts / 2.0**FLAG_BITS
        bits = np.log2(1 - share)[place]
        bits[live] = np.log2(share[mine]) + np.log2(size_counts / 2.0**SIZE_BITS)[
            mine, np.minimum((magnitude - 1) >> low_bits(mine), ESCAPE)] - 1 - low_bits(mine)  # fmt: skip
        worth = np.bincount(component[live], saved, count) + SHARE * self._price * np.bincount(component, bits, count)
        self.worth[subband] = self.worth.get(subband, 0) + worth
        self.excess[0] += np.bincount(over, minlength=2)
        self.excess[1] += np.bincount(over, size[live] - magnitude, minlength=2)
        return np.where(values < 0, -out, out)

    @staticmethod
    def _active(whole: Singles, place: tuple[slice, ...], where: Sequence[tuple[slice, ...]], expected: Singles) -> int:
        """Return how many leading components the subband has, from the number of values that are asked for."""
        each = sum(whole[:1][w].size for w in where)
        return len(expected) // each

    def _choose(self, size: Singles, place: Ints, flag_counts: Ints, size_counts: Ints) -> Words:
        share = flag_counts / 2.0**FLAG_BITS
        none, some = -np.log2(1 - share), 1 - np.log2(share)
        length = SIZE_BITS - np.log2(size_counts)
        width = low_bits(np.arange(CONTEXTS))
        most = np.rint(size).astype(np.int64)
        best, lowest = np.zeros(len(size), np.int64), size.astype(np.float64) ** 2 + self._price * none[place]
        for candidate in (most - 1, most):
            ok = candidate > 0
            magnitude, here = candidate[ok] - 1, place[ok]
            short = magnitude >> width[here]
            bits = some[here] + width[here] + length[here, np.minimum(short, ESCAPE)]
            beyond = short >= ESCAPE
            if beyond.any():
                bits[beyond] += 2 * _zeros_of(short[beyond] - ESCAPE) + 1 + ORDER
            cost = (size[ok] - candidate[ok]) ** 2 + self._price * bits
            index = ok.nonzero()[0]
            better = cost < lowest[index]
            best[index[better]], lowest[index[better]] = candidate[ok][better], cost[better]
        out: Words = best.astype(np.int32)
        return out

    def _record_flags(self, place: Ints, flags: npt.NDArray[np.bool_], share: Ints) -> None:
        ones = share[place]
        self._keep(np.where(flags, ones, (1 << FLAG_BITS) - ones), np.where(flags, 0, ones), FLAG_BITS)
        self._model.count_flags(place, flags)

    def _record_sizes(self, mine: Ints, magnitude: Ints, counts: Ints) -> None:
        width = low_bits(mine)
        whole = (magnitude - 1) >> width
        short = np.minimum(whole, ESCAPE)
        begins = np.cumsum(counts, 1) - counts
        self._keep(counts[mine, short], begins[mine, short], SIZE_BITS)
        self._model.count_sizes(mine, short)
        self.bits += len(mine)  # signs
        rest = whole[short == ESCAPE] - ESCAPE
        if rest.size:
            zeros = _zeros_of(rest)
            self._field(1 << zeros, zeros + 1)
            self._field(rest + (1 << ORDER) - (1 << (zeros + ORDER)), zeros + ORDER)
        if width.any():
            self._field((magnitude - 1) & ((1 << width) - 1), width)

    def _keep(self, counts: Ints, starts: Ints, precision: int) -> None:
        self._counts.append(counts.astype(np.uint16))
        self._starts.append(starts.astype(np.uint16))
        self._precisions.append(np.full(len(counts), precision, np.uint8))
        self.bits += float(precision * len(counts) - np.log2(counts).sum())

    def _field(self, numbers: Ints, widths: npt.NDArray[Any]) -> None:
        self._numbers.append(numbers)
        self._widths.append(np.asarray(widths, np.int64))
        self.bits += float(np.sum(widths))

    def streams(self, coefficients: Coefficients) -> bytes:
        """Return what follows the header: lanes, bits, signs, states and words."""
        flat = [values.reshape(-1) for values in coefficients.values()]
        negative = np.concatenate([values[values != 0] < 0 for values in flat]).astype(np.uint8)
        lanes = lane_count(sum(len(c) for c in self._counts), self.coefficients, self.bits / 8)
        first = np.zeros(16 * lanes, np.uint8)
        first[: min(len(first), len(negative))] = negative[: len(first)]
        signs = np.packbits(negative[len(first) :], bitorder="little").tobytes()
        numbers, widths = (np.concatenate(a) if a else np.zeros(0, np.int64) for a in (self._numbers, self._widths))
        packed = pack_bits(numbers, widths)
        symbols = (_joined(part) for part in (self._counts, self._starts, self._precisions))
        counts, starts, precisions = symbols
        words = write(rows_of(counts, starts, lanes, precisions), lanes, first)
        return struct.pack("<HI", lanes, len(packed)) + packed + struct.pack("<I", len(signs)) + signs + words


def _zeros_of(numbers: Ints) -> Ints:
    """Return the zeros in front of Exp-Golomb numbers."""
    out: Ints = np.frexp(((numbers >> ORDER) + 1).astype(np.float64))[1].astype(np.int64) - 1
    return out


def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
