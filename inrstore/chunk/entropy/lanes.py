"""States and words of a rANS stream that is read in runs of any length (specification sections 6.2, 12.8, 14.6)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.rans import LOWER
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError

_SIXTEEN = np.uint32(16)


class Stream:
    """States and words; each symbol is of the lane after that of the one before.

    Parameters
    ----------
    reader : Reader
        Holds the stream and nothing else.
    count : int
        Number of states.
    field : str
        Errors name it.
    """

    def __init__(self, reader: Reader, count: int, field: str) -> None:
        self._field, self._count = field, count
        self._states = reader.array("<u4", count, f"{field}.states").astype(np.uint32)
        if (self._states < LOWER).any():
            raise CorruptChunkError(f"{field}.states", "a state below its lower bound")
        if reader.remaining % 2:
            raise CorruptChunkError(f"{field}.words", "an odd number of bytes")
        self._words = reader.array("<u2", reader.remaining // 2, f"{field}.words")
        self._position = self._lane = 0

    def _store(self, x: npt.NDArray[np.uint32]) -> None:
        low = (x < LOWER).nonzero()[0]
        if low.size:
            fresh = self._words[self._position : self._position + low.size]
            if fresh.size < low.size:
                raise CorruptChunkError(f"{self._field}.words", "the stream ends early")
            self._position += low.size
            x[low] = (x[low] << _SIXTEEN) | fresh
        end = self._lane + x.size
        self._states[self._lane : end] = x
        self._lane = end if end < self._count else 0

    def all_words_used(self) -> None:
        """Refuse words left over."""
        if self._position != len(self._words):
            raise CorruptChunkError(f"{self._field}.words", f"{len(self._words) - self._position} words too many")

    def finish(self) -> None:
        """Refuse words left over, or lanes that are not where their writer began."""
        self.all_words_used()
        if (self._states != LOWER).any():
            raise CorruptChunkError(f"{self._field}.states", "a lane does not end in its first state")
