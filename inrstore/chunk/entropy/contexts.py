"""Contexts by how large a number is expected to be (specification section 12.6, point 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints

CONTEXTS = 64
PHASES = 4
_FIRST = (127 + 5) << 2
_PLACES = np.minimum(np.maximum(np.arange(1 << 10) - _FIRST, 0), CONTEXTS - 1).astype(np.int64) * PHASES


def contexts(expected: npt.NDArray[Any]) -> Ints:
    """Return four times the context of expected magnitudes (not negative, below 2^26).

    The context is made of the exponent and the first two fraction bits of the number: in its float32 they stand
    side by side, and rounding moves no number below 2^24 (all above share the last context).
    """
    return _PLACES.take(expected.astype(np.float32).view(np.int32) >> 21)
