"""Probabilities that follow what has been decoded (specification section 14.5); integers alone.

After each pass the counts of what it held are added; where they exceed a limit they are halved, so that the coarse
subbands are forgotten in time.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

CONTEXTS = 64
SIZES = 18
"""Symbols of a magnitude: 0..16, and one for all above."""
FLAG_BITS, SIZE_BITS = 16, 12
INCREMENT = 64
MOST_COUNTS = INCREMENT << 11
_MANTISSAS = (17867, 21247, 25268, 30048)  # 2^14 times 2^(1/8), 2^(3/8), 2^(5/8), 2^(7/8)
_FIRST_FLAGS, _FIRST_SIZES = 24 * INCREMENT, 64 * INCREMENT


def low_bits(context: Ints) -> Ints:
    """Return how many low bits of a magnitude are stored as they are."""
    out: Ints = np.maximum((context >> 2) - 10, 0)
    return out


@cache
def _first_counts(quantisers: int) -> tuple[Ints, Ints]:
    """Return the counts that every chunk begins with; not to be written to."""
    flags, sizes = [], []
    for context in range(CONTEXTS):
        # The middle of the context, in units of 2^-21 of a magnitude.
        middle = _MANTISSAS[context & 3] << (context >> 2)
        ones = _FIRST_FLAGS * middle // (middle + (1 << 21))
        flags.append([_FIRST_FLAGS - ones, max(1, ones)])
        middle >>= max((context >> 2) - 10, 0)
        ratio = (middle << 16) // (middle + (1 << 21))
        weights = [1 << 16]
        for _ in range(SIZES - 1):
            weights.append(weights[-1] * ratio >> 16)
        sizes.append([2 + w * _FIRST_SIZES // sum(weights) for w in weights])
    if quantisers == 2:  # the values of the second are nearer to zero
        more = [min(2 * some, _FIRST_FLAGS - _FIRST_FLAGS // 32) for _, some in flags]
        flags += [[_FIRST_FLAGS - some, some] for some in more]
    found = np.array(flags, np.int64), np.array(sizes, np.int64)
    for counts in found:
        counts.flags.writeable = False
    return found


class Model:
    """Counts of each context, and the probabilities they stand for.

    Attributes
    ----------
    flags : ndarray of int64, shape (CONTEXTS, 2) or (2 CONTEXTS, 2)
        Zero, not zero; with a trellis those of the second quantiser follow.
    sizes : ndarray of int64, shape (CONTEXTS, SIZES)
    """

    def __init__(self, quantisers: int = 1) -> None:
        flags, sizes = _first_counts(quantisers)
        self.flags, self.sizes = flags.copy(), sizes.copy()

    def flag_counts(self) -> Ints:
        """Return the share of values that are not zero, of 2^16, for each context."""
        share: Ints = (self.flags[:, 1] << FLAG_BITS) // self.flags.sum(1)
        return np.clip(share, 1, (1 << FLAG_BITS) - 1)

    def size_counts(self) -> Ints:
        """Return the share of each size, of 2^12, for each context; shape (CONTEXTS, SIZES)."""
        total, spare = self.sizes.sum(1, keepdims=True), (1 << SIZE_BITS) - SIZES
        out: Ints = 1 + self.sizes * spare // total
        rows = np.arange(CONTEXTS)
        out[rows, self.sizes.argmax(1)] += (1 << SIZE_BITS) - out.sum(1)
        return out

    def count_flags(self, contexts: Ints, flags: npt.NDArray[np.bool_]) -> None:
        """Count the flags of a pass."""
        every = np.bincount(contexts, minlength=len(self.flags))
        some = np.bincount(contexts[flags], minlength=len(self.flags))
        self.add_flags(np.stack([every - some, some], 1))

    def count_sizes(self, contexts: Ints, sizes: Ints) -> None:
        """Count the sizes of a pass."""
        seen = np.bincount(contexts * SIZES + sizes, minlength=CONTEXTS * SIZES)
        self.add_sizes(seen.reshape(CONTEXTS, SIZES))

    def add_flags(self, seen: Ints) -> None:
        """Add how often each flag of each context was in a pass."""
        self.flags += INCREMENT * seen
        _forget(self.flags)

    def add_sizes(self, seen: Ints) -> None:
        """Add how often each size of each context was in a pass."""
        self.sizes += INCREMENT * seen
        _forget(self.sizes)


def _forget(counts: Ints) -> None:
    while (over := counts.sum(1) > MOST_COUNTS).any():
        counts[over] = (counts[over] + 1) >> 1
