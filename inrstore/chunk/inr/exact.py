"""Integer linear algebra on floating-point BLAS, and the sine table (specification section 7).

A float32 product-sum of integers is exact in any order, on any number of threads and on any device, as long as
every partial sum stays below 2^24. The table is made of integers that do not depend on the last bits of a libm:
no entry is closer than 1e-4 to a rounding tie.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.errors import LimitExceededError

AMPLITUDE = 1023
PHASE_BITS = 12


@lru_cache(maxsize=1)
def sine_table() -> npt.NDArray[np.float32]:
    """Return round(1023 sin(2 pi (p + 1/2) / 4096)) for p = 0..4095, as integers held in float32.

    The half centres each entry on the phases that are cut off to its index.
    """
    turn = (np.arange(1 << PHASE_BITS) + 0.5) / (1 << PHASE_BITS)
    table: npt.NDArray[np.float32] = np.rint(AMPLITUDE * np.sin(2 * np.pi * turn)).astype(np.float32)
    table.setflags(write=False)
    return table


def check_row_bound(weights: npt.NDArray[np.signedinteger[Any]], field: str) -> None:
    """Refuse a matrix (out, in) whose products with activations could leave the exact range."""
    if weights.size and int(np.abs(weights).sum(axis=1, dtype=np.int64).max()) * AMPLITUDE >= limits.EXACT_FLOAT32:
        raise LimitExceededError(field, "the sum of a row's magnitudes leaves the range of exact float32")
