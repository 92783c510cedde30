"""Weights of the expected magnitudes, fitted to samples of what a scan met (specification section 14.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.least_squares import combined, solve_not_negative
from inrstore.chunk.transform.contexts import CLIP, FEATURES, KINDS, PASSES, Known
from inrstore.chunk.transform.header import reach

Ints = npt.NDArray[np.int64]

START: Ints = np.tile(np.array([26, 26, 26, 26, 26, 5, 26, 5, 100], np.int64), (KINDS, len(PASSES), 1))
"""Weights of the first scan: 1/256 of a magnitude, the last in units of 2^-12."""
_SAMPLE = 3000
_UNITS = np.array([256.0] * FEATURES + [4096.0])


class Sampler:
    """Collects what was known around values, and the values.

    Called by `scan` for each parity of each pass of each subband.

    Parameters
    ----------
    samplers : int
        How many share the sample: one for each chunk of an image.
    """

    def __init__(self, samplers: int = 1) -> None:
        self._most = max(1, _SAMPLE // samplers)
        self._rng = np.random.default_rng(0)
        # Features are sums of at most 42 magnitudes up to 255.
        self.seen: dict[tuple[int, int], list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8], float]]] = {}

    def __call__(self, kind: int, step: int, features: list[Known | None], values: npt.NDArray[np.int32]) -> None:
        """Keep a sample of the values of one parity."""
        picked = self.pick(values.size)
        place = np.unravel_index(picked, values.shape)
        rows = np.empty((FEATURES, picked.size), np.uint16)
        for row, feature in zip(rows, features, strict=True):
            row[:] = 0 if feature is None else feature[place]
        self.keep(kind, step, rows, np.minimum(np.abs(values[place]), CLIP).astype(np.uint8), values.size)

    def pick(self, size: int) -> Ints:
        """Return which of the values of a parity are kept."""
        return np.arange(size) if size <= self._most else self._rng.integers(0, size, self._most)

    def keep(self, kind: int, step: int, rows: npt.NDArray[np.uint16], values: npt.NDArray[np.uint8],
             size: int) -> None:  # fmt: skip
        """Keep what was known around some of so many values, and their clipped magnitudes."""
        self.seen.setdefault((kind, step), []).append((rows, values, size / values.size))


def fitted(samplers: Sequence[Sampler], kinds: int) -> Ints:
    """Return weights, shape (kinds, passes, FEATURES + 1), by least squares without negative ones.

    Errors are weighted by the inverse of about the expected variance, which grows with the expected magnitude.
    """
    out = START[:kinds].copy()
    seen: dict[tuple[int, int], list[Any]] = {}
    for sampler in samplers:
        for place, samples in sampler.seen.items():
            seen.setdefault(place, []).extend(samples)
    for (kind, step), samples in seen.items():
        values = np.concatenate([v for _, v, _ in samples]).astype(np.float64)
        rows = np.ones((FEATURES + 1, len(values)))
        np.concatenate([r for r, _, _ in samples], 1, out=rows[:-1])
        each = np.concatenate([np.full(len(v), n) for _, v, n in samples])
        if not values.any():
            continue
        weight = each / (rows[:-1].mean(0) + 0.01)
        for _ in range(2):
            found = solve_not_negative(rows, values, weight)
            weight = each / np.maximum(combined(found, rows), 0.01) ** 1.5
        whole = np.rint(found * _UNITS).astype(np.int64)
        whole[-1] = max(1, int(whole[-1]))
        if reach(whole[None])[0] < limits.EXACT_FLOAT32:
            out[kind, step] = whole
    return out
