"""Section 14.7 of `inrstore-1.md`: from the coefficients of a transform to its components."""

from typing import Any

import numpy as np
from decoder_parts import check

GAINS = [36, 41, 48, 55, 63, 72, 83, 96, 110, 126, 145, 167, 192, 221, 254, 292, 336, 386, 444, 510, 586, 674, 775,
         891, 1024, 1177, 1353, 1556]  # fmt: skip


def unrounded(head: Any, band: Any, q: np.ndarray) -> np.ndarray:
    """Return what the coefficients of a band stand for."""
    a = sum(
        -count if count <= band.level else 1 - band.level if digit else -(band.level + 1)
        for count, digit in zip(head.levels, band.key, strict=True)
    )
    size, unit = np.abs(q), 64 if head.trellis else 128
    bias = np.where(size == 1, head.biases[0], head.biases[1])
    return np.sign(q) * (((unit * size + bias) * GAINS[24 + a] + 64) >> 7)


def join(low: np.ndarray, high: np.ndarray, axis: int) -> np.ndarray:
    """Undo one halving."""
    low, high = np.moveaxis(low, axis, 0), np.moveaxis(high, axis, 0)
    v = np.empty((len(low) + len(high), *low.shape[1:]), np.int64)
    v[0::2], v[1::2] = low, high
    last = len(v) - 1
    for first, factor in ((0, 7266), (1, 14466), (0, -868), (1, -25987)):
        i = np.arange(first, len(v), 2)
        before, after = np.abs(i - 1), np.where(i == last, last - 1, i + 1)
        v[i] -= (factor * (v[before] + v[after]) + 2**13) >> 14
    check(np.all(np.abs(v) < 2**35), "coefficients", "a value of 2^35 or more")
    return np.moveaxis(v, 0, axis)


def volumes_of(head: Any, values: dict) -> np.ndarray:
    """Return u: components, z, y, x. `values` has all components of all bands."""
    top = max(head.levels)
    low = values[max(top - 1, 0), (0, 0, 0)]
    for j in reversed(range(top)):
        arrays = {key: array for (level, key), array in values.items() if level == j and any(key)}
        arrays[0, 0, 0] = low
        for axis in (2, 1, 0):
            if j < head.levels[axis]:
                pairs = {key: tuple(1 if a == axis else digit for a, digit in enumerate(key))
                         for key in arrays if not key[axis]}  # fmt: skip
                arrays = {key: join(arrays[key], arrays[other], axis + 1) for key, other in pairs.items()}
        low = arrays[0, 0, 0]
    return low
