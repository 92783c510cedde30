"""Weights of the expected magnitudes, fitted to samples of what a scan met (specification section 14.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.entropy.contexts import contexts as context_of
from inrstore.chunk.least_squares import combined, solve_not_negative
from inrstore.chunk.transform.adaptive import CONTEXTS, SIZES, low_bits
from inrstore.chunk.transform.contexts import CLIP, FEATURES, USUAL, Known
from inrstore.chunk.transform.header import reach

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

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
    out = USUAL[:kinds].copy()
    for (kind, step), (rows, values, each) in _seen(samplers).items():
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


def worthwhile(samplers: Sequence[Sampler], weights: Ints) -> Ints:
    """Return the rows of weights that save more bits than they take, and the usual ones elsewhere.

    Bits are those of the samples, with the shares of flags and sizes that they have in each context in the mean of
    both.
    """
    seen, kinds = _seen(samplers), len(weights)
    both = [{place: _symbols(rows, values, each, table[place]) for place, (rows, values, each) in seen.items()}
            for table in (USUAL[:kinds], weights)]  # fmt: skip
    counts = np.ones((CONTEXTS, SIZES + 1))
    for made in both:
        for context, symbol, _, each in made.values():
            counts += np.bincount(context * (SIZES + 1) + symbol, each, counts.size).reshape(counts.shape)
    lengths = np.log2(counts.sum(1, keepdims=True)) - np.log2(counts)
    out = weights.copy()
    for place in seen:
        usual, own = (
            float(((lengths[context, symbol] + width * (symbol > 0)) * each).sum())
            for context, symbol, width, each in (made[place] for made in both)
        )
        taken = 2 * np.ceil(np.log2(np.abs(weights[place] - USUAL[place]) + 1)).sum() + FEATURES + 1
        if usual - own < taken:
            out[place] = USUAL[place]
    return out


def _seen(samplers: Sequence[Sampler]) -> dict[tuple[int, int], tuple[Doubles, Doubles, Doubles]]:
    """Return for each kind and pass what was known around values (and 1), the values, and how many each stands for."""
    seen: dict[tuple[int, int], list[Any]] = {}
    for sampler in samplers:
        for place, samples in sampler.seen.items():
            seen.setdefault(place, []).extend(samples)
    out = {}
    for place, samples in seen.items():
        values = np.concatenate([v for _, v, _ in samples]).astype(np.float64)
        rows = np.ones((FEATURES + 1, len(values)))
        np.concatenate([r for r, _, _ in samples], 1, out=rows[:-1])
        out[place] = rows, values, np.concatenate([np.full(len(v), n) for _, v, n in samples])
    return out


def _symbols(rows: Doubles, values: Doubles, each: Doubles, weights: Ints) -> tuple[Ints, Ints, Ints, Doubles]:
    """Return contexts, symbols (0 for a zero, else 1 more than the size), widths of low bits, and how many each is."""
    expected = combined(weights * np.array([16.0] * FEATURES + [1.0]), rows)
    context = context_of(expected) >> 2
    width = low_bits(context)
    size = np.minimum((values.astype(np.int64) - 1) >> width, SIZES - 1)
    return context, np.where(values > 0, size + 1, 0), width, each
