"""The rANS stream of the mode: flags and sizes share its states (specification section 14.6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy import lanes
from inrstore.chunk.entropy.rans import LOWER
from inrstore.chunk.frame import Reader
from inrstore.chunk.transform.adaptive import FLAG_BITS, SIZE_BITS, SIZES
from inrstore.errors import CorruptChunkError

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]
Integers = npt.NDArray[np.integer[Any]]

MOST_LANES = 4096
_BYTES_PER_LANE, _LEAST_PER_LANE, _MOST_PER_LANE = 128, 1500, 30_000
_FLAG_MASK, _SIZE_MASK = np.uint32((1 << FLAG_BITS) - 1), np.uint32((1 << SIZE_BITS) - 1)


def lane_count(symbols: int, coefficients: int, size: float) -> int:
    """Return how many states an encoder takes; each costs about a byte and saves time.

    Parameters
    ----------
    symbols : int
    coefficients : int
        Those that flags of groups stand for, too.
    size : float
        Of the whole payload in bytes, about.
    """
    wanted = max(1, min(int(size / _BYTES_PER_LANE), symbols // _LEAST_PER_LANE))
    needed = -(-coefficients // _MOST_PER_LANE)
    return min(MOST_LANES, max(1 << (wanted.bit_length() - 1), 1 << (needed - 1).bit_length()))


class Stream(lanes.Stream):
    """Flags and sizes of a chunk.

    Parameters
    ----------
    reader : Reader
        Holds the stream and nothing else.
    count : int
        Number of states.
    """

    def __init__(self, reader: Reader, count: int) -> None:
        super().__init__(reader, count, "transform")

    def flags(self, ones: Ints) -> npt.NDArray[np.bool_]:
        """Return a flag for each count (of 2^16) of those that are set."""
        out, counts = np.empty(len(ones), np.bool_), ones.astype(np.uint32)
        rest = np.uint32(1 << FLAG_BITS) - counts
        i = 0
        while i < len(out):
            j = min(len(out), i + self._count - self._lane)
            x = self._states[self._lane : self._lane + j - i]
            slot, share, one = x & _FLAG_MASK, x >> np.uint32(FLAG_BITS), counts[i:j]
            out[i:j] = is_one = slot < one
            self._store(np.where(is_one, one * share + slot, rest[i:j] * share + slot - one))
            i = j
        return out

    def sizes(self, contexts: Ints, counts: Ints) -> Ints:
        """Return a size for each context; `counts` are those of `Model.size_counts`."""
        out = np.empty(len(contexts), np.int64)
        begins = (np.cumsum(counts, 1) - counts).astype(np.uint32)
        symbols = np.repeat(np.tile(np.arange(SIZES, dtype=np.int8), len(counts)), counts.reshape(-1))
        flat_counts, flat_begins, places = (
            counts.astype(np.uint32).reshape(-1),
            begins.reshape(-1),
            contexts << SIZE_BITS,
        )
        i = 0
        while i < len(out):
            j = min(len(out), i + self._count - self._lane)
            x = self._states[self._lane : self._lane + j - i]
            slot = x & _SIZE_MASK
            size = symbols.take(places[i:j] + slot).astype(np.int64)
            out[i:j] = size
            at = contexts[i:j] * SIZES + size
            self._store(flat_counts.take(at) * (x >> np.uint32(SIZE_BITS)) + slot - flat_begins.take(at))
            i = j
        return out

    def last_bits(self) -> npt.NDArray[np.uint8]:
        """Refuse words left over; return 16 bits of each lane: what it holds when all symbols are taken."""
        self.all_words_used()
        if (self._states >> np.uint32(16) != 1).any():
            raise CorruptChunkError("transform.states", "a lane does not end where its writer began")
        return np.unpackbits(self._states.astype("<u2").view(np.uint8), bitorder="little")


def write_stream(counts: Integers, starts: Integers, bits: Integers, first: npt.NDArray[np.uint8]) -> bytes:
    """Return states and words.

    Parameters
    ----------
    counts, starts, bits : ndarray of int, shape (symbols,)
        Each symbol has a share of 2^bits.
    first : ndarray of uint8, shape (16 lanes,)
        Bits that the lanes begin with, and a reader finds in the end.
    """
    state = LOWER + np.packbits(first, bitorder="little").view("<u2").astype(np.int64)
    count = len(state)
    words: list[npt.NDArray[np.int64]] = []
    for begin in range((len(counts) - 1) // count * count, -1, -count) if len(counts) else ():
        row = slice(begin, begin + count)
        f, c, b = (a[row].astype(np.int64) for a in (counts, starts, bits))
        x = state[: len(f)]
        full = x >= f << (32 - b)
        if full.any():
            words.append(x[full] & 0xFFFF)
            x[full] >>= 16
        state[: len(f)] = (x // f << b) + x % f + c
    stream = np.concatenate(words[::-1]) if words else np.zeros(0, np.int64)
    return state.astype("<u4").tobytes() + stream.astype("<u2").tobytes()
