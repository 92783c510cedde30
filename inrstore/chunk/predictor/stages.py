"""The planes of a stage and what is known around them (specification sections 12.2, 12.4 and 12.6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints, Singles
from inrstore.chunk.predictor import layout as layouts
from inrstore.chunk.predictor import regression
from inrstore.chunk.predictor.layout import Layout
from inrstore.chunk.predictor.planes import Padded, padded


def base_of(values: npt.NDArray[Any], group: range, weights: tuple[int, Ints], layout: Layout) -> npt.NDArray[Any]:
    """Return P of a group, shape (G, z, part, row, column); `values` are all of the chunk."""
    earlier = values[: min(group.start, regression.MOST_EARLIER)]
    shift, matrix = weights
    base = regression.base_of(earlier.reshape(len(earlier), -1), matrix, shift, layout.low, layout.high)
    return base.reshape(len(group), *values.shape[1:])


class StageView:
    """The planes of a stage and their neighbours, as padded arrays of any run of planes.

    Parameters
    ----------
    layout : Layout
    group : range
        Measurements.
    slices : ndarray of int
    distance : int
    values : ndarray, shape (T, z, part, row, column)
        All values of the chunk, in the order of measurements.
    errors : ndarray, shape (G, z, part, row, column)
    base : ndarray or None
        P of the group.
    mean : ndarray or None, shape (z, part, row, column)
        Mean of the errors of earlier measurements.
    """

    def __init__(self, layout: Layout, group: range, slices: Ints, distance: int, values: npt.NDArray[Any],
                 errors: npt.NDArray[Any], base: npt.NDArray[Any] | None,
                 mean: npt.NDArray[Any] | None) -> None:  # fmt: skip
        self.values, self.errors = values[group.start : group.stop], errors
        self._base, self._mean = base, mean
        self._zeros, self._slices = layout.zeros, slices
        self._beside = layouts.beside(slices, distance, layout.lengths[1]) if distance else None
        self._parts = layout.parts
        self.planes = len(group) * len(slices) * layout.parts

    def index(self, first: int, last: int, slices: Ints | None = None) -> tuple[Ints, Ints, Ints]:
        """Return measurement of the group, slice and part of planes; `slices` replaces those of the stage."""
        rest, part = np.divmod(np.arange(first, last), self._parts)
        measurement, place = np.divmod(rest, len(self._slices))
        return measurement, (self._slices if slices is None else slices)[place], part

    def residuals(self, at: tuple[Ints, Ints, Ints]) -> npt.NDArray[Any]:
        """Return D of planes."""
        values = self.values[at].astype(np.float32)
        if self._base is not None:
            values -= self._base[at]
        return values

    def neighbours(
        self, first: int, last: int, pad: Callable[[npt.NDArray[Any]], Padded] = padded
    ) -> tuple[dict[str, Padded], dict[str, Padded]]:
        """Return the arrays of planes other than their own values and errors, and the flags among them.

        `pad` makes an array of planes (plane, row, column).
        """
        arrays: dict[str, Padded] = {}
        flags: dict[str, Padded] = {}
        if self._beside is not None:
            names = ((regression.BELOW, regression.ERROR_BELOW), (regression.ABOVE, regression.ERROR_ABOVE))
            for (name, error), slices in zip(names, self._beside, strict=True):
                at = self.index(first, last, slices)
                arrays[name], arrays[error] = pad(self.residuals(at)), pad(self.errors[at])
                if self._zeros:
                    flags[name] = pad(self.values[at] != 0)
        if self._base is not None and self._mean is not None:
            at = self.index(first, last)
            arrays[regression.BASE] = pad(self._base[at])
            arrays[regression.ERROR_MEAN] = pad(self._mean[at[1:]])
        return arrays, flags

    def store(self, first: int, last: int, residuals: Singles, errors: Singles) -> None:
        """Keep decoded planes (row, column, plane)."""
        at = self.index(first, last)
        values = residuals.transpose(2, 0, 1)
        self.values[at] = values if self._base is None else values + self._base[at]
        self.errors[at] = errors.transpose(2, 0, 1)
