"""What the weights of a stage say of a value (specification section 12.6, points 2 to 6).

All sums are made in float32 by BLAS: they are sums of integers below 2^24, so they are exact in any order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inrstore.chunk.entropy.bits import Ints, Singles, Words
from inrstore.chunk.predictor.regions import Run
from inrstore.chunk.predictor.regression import Neighbourhood, Stage
from inrstore.chunk.products import product, product_into, two_rows

_MOST_ACTIVE = np.float32(1 << 20)
_CLASS_EDGES = (154 * np.arange(-15, 16)).astype(np.float32)
_SIXTEENTH = np.float32(1 / 16)


class Kernel:
    """The weights of a stage, ready for many values at once.

    Parameters
    ----------
    stage : Stage
    neighbourhood : Neighbourhood
    span : int
        high - low of the layout: no regressor can be larger.
    """

    def __init__(self, stage: Stage, neighbourhood: Neighbourhood, span: int) -> None:
        self.fraction = np.int32(stage.fraction)
        self._later, self._values, self._regressors = (
            neighbourhood.later,
            neighbourhood.values,
            neighbourhood.regressors,
        )
        self._clip = np.float32(stage.clip) if stage.clip < span else None
        self._weights, self._activity = stage.weights.astype(np.float32), two_rows(stage.activity)
        self._thresholds = stage.thresholds.astype(np.float32)
        self._scale, self._errors = np.int32(stage.scale), two_rows(stage.errors)
        self._flags = None if stage.flags is None else two_rows(stage.flags[:-1])
        self._flag_offset = np.float32(0 if stage.flags is None else stage.flags[-1])
        self._near = np.zeros((2, neighbourhood.values), np.float32)
        self._near[0, neighbourhood.near] = 1
        self._share = np.float32(len(neighbourhood.near))

    def classes(self, flags: Singles) -> Ints:
        """Return the class of each flag; `flags` are those of the neighbours, shape (J, n)."""
        assert self._flags is not None
        sums = product(self._flags, flags)[0]
        sums += self._flag_offset
        found: Ints = _CLASS_EDGES.searchsorted(sums)
        return found

    def centre(self, rows: Singles, flags: Singles | None) -> Singles:
        """Centre and limit the regressors in place (points 2 and 3); return c.

        Parameters
        ----------
        rows : ndarray of float32, shape (K + 1, n)
            The list r of each value; the last row is 1.
        flags : ndarray of float32, shape (J, n), optional
        """
        values = rows[: self._values]
        centre: Singles
        if self._later:
            middle = self._values + 4
            centre = rows[middle].copy()
            rows[self._values : self._regressors] -= centre
            np.multiply(centre, _SIXTEENTH, out=rows[middle])
            np.floor(rows[middle], out=rows[middle])
        else:
            # A quotient of integers this small is never rounded to the integer above it.
            centre = product(self._near, values)[0]
            centre /= self._share if flags is None else np.maximum(product(self._near, flags)[0], np.float32(1))
            np.floor(centre, out=centre)
            values -= centre
            if flags is not None:
                values *= flags
        if self._clip is not None:
            inside = rows[: self._regressors]
            np.clip(inside, -self._clip, self._clip, out=inside)
        return centre

    def sums(self, rows: Singles, runs: Sequence[Run]) -> Singles:
        """Return the sum of every set, shape (sets, n)."""
        out: Singles = product(self._weights, rows)
        return out

    def predict(self, rows: Singles, centre: Singles, iota: Ints, runs: Sequence[Run] = ()) -> tuple[Words, Singles]:
        """Return p and t (point 5); `rows` is used up.

        Parameters
        ----------
        rows : ndarray of float32, shape (K + 1, n)
            As `centre` left it.
        centre : ndarray of float32, shape (n,)
        iota : ndarray of int, shape (n,)
            0, 1, 2, ..
        runs : sequence of Run
            Where weights differ by place: region, first column and last column (excluded) of `rows`.
        """
        sums = self.sums(rows, runs)
        np.abs(rows, out=rows)
        active: Singles = product(self._activity, rows)[0]
        if len(self._thresholds):
            place = self._thresholds.searchsorted(active)
            place *= len(iota)
            place += iota
            chosen = sums.take(place)
        else:
            chosen = sums[0]
        out = centre.astype(np.int32)
        out <<= self.fraction
        out += chosen.astype(np.int32)
        return out, active

    def expected(self, active: Singles, errors: Singles) -> Words:
        """Return the expected error (point 6); `active` is used up.

        Parameters
        ----------
        active : ndarray of float32, shape (n,)
            t of point 5.
        errors : ndarray of float32, shape (M, n)
        """
        out = self.scaled(active)
        out += product(self._errors, errors)[0].astype(np.int32)
        return out

    def scaled(self, active: Singles) -> Words:
        """Return the part of the expected error that the activity makes; `active` is used up."""
        out = np.minimum(active, _MOST_ACTIVE, out=active).astype(np.int32)
        out *= self._scale
        out >>= 6
        return out


class RegionalKernel(Kernel):
    """The same where weights differ by place."""

    def __init__(self, stage: Stage, neighbourhood: Neighbourhood, span: int) -> None:
        assert stage.differences is not None
        super().__init__(stage, neighbourhood, span)
        self._regional = stage.differences.weights(stage.weights).astype(np.float32)

    def sums(self, rows: Singles, runs: Sequence[Run]) -> Singles:
        """Return the sum of every set with the weights of its region, shape (sets, n)."""
        regional = self._regional
        out = np.empty((regional.shape[1], rows.shape[1]), np.float32)
        for region, begin, end in runs:
            product_into(out[:, begin:end], regional[region], rows[:, begin:end])
        return out


def kernel_of(stage: Stage, neighbourhood: Neighbourhood, span: int) -> Kernel:
    """Return the kernel of a stage."""
    return (Kernel if stage.differences is None else RegionalKernel)(stage, neighbourhood, span)
