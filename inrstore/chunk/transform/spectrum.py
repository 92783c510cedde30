"""How large the coefficients of each component are, and so which are worth coding at any step.

A scan says what each component saves and costs, but at its own step only, and it takes time. Counts of magnitudes give
an estimate at every step; what the last scan found corrects it. So the components that are coded follow the step,
and bytes follow the target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.transform.rdoq import LAMBDA, SHARE
from inrstore.chunk.transform.subbands import Subband, Triple

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_PER_OCTAVE, _LEAST, _OCTAVES = 4, -3, 16
_BINS = _PER_OCTAVE * _OCTAVES
_SHIFT = 21  # of the bits of a float32, which leaves its exponent and a quarter of an octave
_SAMPLE, _TOGETHER = 1 << 15, 1 << 20
_ROUNDS = 2
_AROUND, _SLOPES = 1.03, (0.1, 1.0)


class Spectrum:
    """Magnitudes of all coefficients, counted.

    Parameters
    ----------
    subbands : sequence of Subband
    volumes : sequence of mapping of (level, key) to ndarray of float32, shape (components, z, y, x)
        Coefficients of each chunk.
    column_bits : float
        What a component costs besides its coefficients.
    """

    def __init__(self, subbands: Sequence[Subband], volumes: Sequence[Mapping[tuple[int, Triple], Singles]],
                 column_bits: float) -> None:  # fmt: skip
        self._column = LAMBDA * column_bits
        edges = np.ldexp(1.0, _LEAST) * np.array(
            [math.ldexp(1 + i % _PER_OCTAVE / _PER_OCTAVE, i // _PER_OCTAVE) for i in range(_BINS + 1)]
        )
        squares = ((edges[:-1] + edges[1:]) / 2) ** 2
        squares[0] = (edges[1] / 2) ** 2
        count = len(next(iter(volumes[0].values())))
        # Of each component of each subband: values, their squares, and both below each edge.
        self._number = np.zeros((len(subbands), count))
        self._energy = np.zeros((len(subbands), count))
        self._numbers_below = np.zeros((len(subbands), count, _BINS + 1), np.float32)
        self._squares_below = np.zeros((len(subbands), count, _BINS + 1), np.float32)
        self._found = np.zeros((len(subbands), count))
        for coefficients in volumes:
            for number, subband in enumerate(subbands):
                flat = coefficients[subband.level, subband.key].reshape(count, -1)
                if flat.size:
                    self._add(number, flat, squares)

    def _add(self, number: int, flat: Singles, squares: Doubles) -> None:
        """Count the magnitudes of a subband, shape (components, positions)."""
        every = -(-flat.shape[1] // _SAMPLE)
        some = len(range(0, flat.shape[1], every))
        share = flat.shape[1] / some
        self._number[number] += flat.shape[1]
        block = max(1, _TOGETHER // some)
        for begin in range(0, len(flat), block):
            part = np.ascontiguousarray(flat[begin : begin + block, ::every])
            rows = slice(begin, begin + len(part))
            self._energy[number, rows] += share * np.square(part).sum(1, dtype=np.float64)
            places = ((part.view(np.int32) & 0x7FFFFFFF) >> _SHIFT) - ((127 + _LEAST) * _PER_OCTAVE)
            np.clip(places, 0, _BINS - 1, out=places)
            places += (_BINS * np.arange(len(part), dtype=np.int32))[:, None]
            counts = share * np.bincount(places.reshape(-1), minlength=_BINS * len(part)).reshape(len(part), _BINS)
            self._numbers_below[number, rows, 1:] += np.cumsum(counts, 1)
            self._squares_below[number, rows, 1:] += np.cumsum(counts * squares, 1)

    def first_step(self, rmse: float) -> float:
        """Return about the step whose error is so large."""
        low, high = float(_LEAST), float(_LEAST + _OCTAVES)
        for _ in range(18):
            middle = (low + high) / 2
            saved, worth = self._estimates(2.0**middle)
            if self._rmse(2.0**middle, saved, self._best(worth)) > rmse:
                high = middle
            else:
                low = middle
        return float(2.0**low)

    def slope(self, step: float, most: Ints) -> float:
        """Return about by how much the logarithm of the error grows with that of the step."""
        errors = [self._rmse(at, self._estimates(at)[0], most) for at in (step / _AROUND, step * _AROUND)]
        found = math.log(max(errors[1], 1e-9) / max(errors[0], 1e-9)) / (2 * math.log(_AROUND))
        return min(max(found, _SLOPES[0]), _SLOPES[1])

    def _rmse(self, step: float, saved: Doubles, most: Ints) -> float:
        """Return the error of a step where so many leading components are coded."""
        taken = np.arange(saved.shape[1]) < most[:, None]
        left = float(self._energy.sum()) - step * step * float(saved[taken].sum())
        return math.sqrt(max(0.0, left) / float(self._number.sum()))

    def worthwhile(self, step: float) -> Ints:
        """Return how many leading components of each subband are worth coding."""
        return self._best(self._estimates(step)[1] + self._found)

    def learn(self, step: float, worth: Mapping[int, Doubles]) -> None:
        """Take in what a scan found each component of a subband to be worth, in squared steps."""
        estimates = self._estimates(step)[1]
        for number, found in worth.items():
            self._found[number, : len(found)] = found - estimates[number, : len(found)]

    def _best(self, worth: Doubles) -> Ints:
        """Return how many leading components of each subband are worth most together."""
        total = np.zeros((worth.shape[0], worth.shape[1] + 1))
        np.cumsum(worth, 1, out=total[:, 1:])
        best = np.maximum.accumulate(total, 1).sum(0) - self._column * np.arange(total.shape[1])
        out: Ints = total[:, : int(best.argmax()) + 1].argmax(1)
        return out

    def _estimates(self, step: float) -> tuple[Doubles, Doubles]:
        """Return what each component of each subband saves, in squared steps, and this less what its bits are worth."""
        number = np.maximum(self._number, 1)
        threshold = np.full(number.shape, 0.65)
        for _ in range(_ROUNDS):
            live = np.maximum(self._number - self._at(self._numbers_below, threshold * step), 0)
            share = (live + 0.5) / (number + 1)
            # A 1 is taken where it saves more than its flag, its sign and its size are worth.
            threshold = np.clip(0.5 + LAMBDA / 2 * (np.log2((1 - share) / share) + 1.5), 0.55, 2.0)
        live = np.maximum(self._number - self._at(self._numbers_below, threshold * step), 0)
        squares = np.maximum(self._energy - self._at(self._squares_below, threshold * step), 0) / (step * step)
        squares = np.where(live > 0, np.maximum(squares, live * threshold**2), 0)
        saved = np.maximum(squares - live / 12, 0)
        share = np.clip(live / number, 1e-9, 1 - 1e-9)
        flags = -number * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
        sizes = live * (1.5 + np.log2(np.maximum(squares / np.maximum(live, 1e-9), 1)) / 2)
        return saved, saved - SHARE * LAMBDA * (flags + sizes)

    @staticmethod
    def _at(below: Singles, thresholds: Doubles) -> Doubles:
        """Return what lies below a threshold for each component of each subband."""
        exact = np.ldexp(thresholds, -_LEAST)
        mantissa, exponent = np.frexp(exact)
        place = np.clip((exponent - 1 + 2 * mantissa - 1) * _PER_OCTAVE, 0, _BINS - 1e-6)
        whole = place.astype(np.int64)
        one, other = (np.take_along_axis(below, (whole + i)[..., None], 2)[..., 0].astype(np.float64) for i in (0, 1))
        out: Doubles = one + (place - whole) * (other - one)
        return out
