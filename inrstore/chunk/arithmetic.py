"""The arithmetic of the thread that codes a chunk: what a caller, or another library, may have set differently.

numpy's treatment of floating-point errors is that of a new process while a chunk is coded. Whether the processor
flushes subnormal numbers to zero (FTZ, DAZ: libraries built with -ffast-math do that to the whole thread) cannot be
set from here, but it can be seen, and what would depend on it is done otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_TINY = {4: 127 - 100, 8: 1023 - 900}  # biased exponents
_MANTISSA = {4: 23, 8: 52}
_PROBES = [(np.array([1 << (bits - 1)], f"u{size}").view(f"f{size}"), np.ones(1, f"f{size}"))
           for size, bits in _MANTISSA.items()]  # fmt: skip
"""Half the smallest normal number, made of bits, and one."""


def usual() -> np.errstate:
    """Return the context, or decorator, of numpy's own settings of floating-point errors."""
    return np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")


def flushes() -> bool:
    """Return whether subnormal numbers are zero in this thread."""
    with np.errstate(all="ignore"):
        return any(not (small * one)[0] > 0 for small, one in _PROBES)


def has_tiny(values: npt.NDArray[Any]) -> bool:
    """Return whether sums or differences of an array's values could be subnormal, without arithmetic of floats.

    Those of other values than these, which are below 2^-100 (float32) or 2^-900 (float64), are multiples of normal
    numbers. float16 is computed in float32.
    """
    size = values.dtype.itemsize
    if values.dtype.kind != "f" or size not in _TINY:
        return False
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    magnitude = native.view(f"u{size}") << np.array(1, f"u{size}")  # without the sign
    limit = np.array(_TINY[size] << (_MANTISSA[size] + 1), f"u{size}")
    return bool(((magnitude != 0) & (magnitude < limit)).any())
