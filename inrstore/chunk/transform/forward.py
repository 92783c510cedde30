"""The forward wavelet transform, in float32: the mirror of `inrstore.chunk.transform.wavelet`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inrstore.chunk.transform.bands import Triple, keys_of
from inrstore.chunk.transform.wavelet import LIFTS, PRECISION

Singles = npt.NDArray[np.float32]


def forward(volumes: Singles, levels: Triple) -> dict[tuple[int, Triple], Singles]:
    """Return the bands of volumes, shape (components, z, y, x), before any scaling.

    Returns
    -------
    dict of (level, key) to ndarray
        As `bands_of` lists them.
    """
    out: dict[tuple[int, Triple], Singles] = {}
    low, top = volumes, max(levels)
    for level in range(top):
        parts: dict[Triple, Singles] = {(0, 0, 0): low}
        for axis in range(3):
            if level < levels[axis]:
                halves = {}
                for (z, y, x), part in parts.items():
                    key = [z, y, x]
                    halves[z, y, x], high = _split(part, axis + 1)
                    key[axis] = 1
                    halves[key[0], key[1], key[2]] = high
                parts = halves
        low = parts.pop((0, 0, 0))
        for key3 in keys_of(levels, level)[1:]:
            out[level, key3] = parts[key3]
    out[max(top - 1, 0), (0, 0, 0)] = low
    return out


def _split(values: Singles, axis: int) -> tuple[Singles, Singles]:
    along = np.moveaxis(values, axis, 0)
    even, odd = along[0::2].copy(), along[1::2].copy()
    for i, lift in enumerate(LIFTS):
        factor = np.float32(lift / 2.0**PRECISION)
        if i % 2:
            before = np.concatenate([odd[:1], odd])[: len(even)]
            after = np.concatenate([odd, odd[-1:]])[: len(even)]
            even += factor * (before + after)
        else:
            after = even[1:] if len(even) > len(odd) else np.concatenate([even[1:], even[-1:]])
            odd += factor * (even[: len(odd)] + after)
    return np.moveaxis(even, 0, axis), np.moveaxis(odd, 0, axis)
