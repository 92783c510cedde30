"""Weights by place: regions of a plane, and their differences from the weights of all (sections 12.5 and 12.6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inrstore import limits
from inrstore.chunk.entropy.bits import Ints, read_matrix, write_matrix
from inrstore.chunk.frame import Reader
from inrstore.errors import LimitExceededError

NO_REGIONS = 255
"""The shift of a stage that has the same weights everywhere."""
_MOST_SHIFT = 12
_VALUES_PER_REGION = 2048
_SMALLEST_SIDE = 16

Run = tuple[int, int, int]
"""Region, first row and last row (excluded) of a piece of a step."""


@dataclass(frozen=True)
class RegionGrid:
    """Regions of a plane of `shape`, each of `rows` x `columns` but for the last ones.

    Parameters
    ----------
    rows, columns : int
    shape : tuple of int
        Rows and columns of a plane.
    """

    rows: int
    columns: int
    shape: tuple[int, int]

    @property
    def across(self) -> int:
        """Regions side by side."""
        return -(-self.shape[1] // self.columns)

    @property
    def count(self) -> int:
        """All regions."""
        return -(-self.shape[0] // self.rows) * self.across

    def check(self) -> None:
        """Raise unless a reader accepts these lengths; small regions would make many small products."""
        for name, side, length in zip(("rows", "columns"), (self.rows, self.columns), self.shape, strict=True):
            if not min(length, _SMALLEST_SIDE) <= side <= length:
                raise LimitExceededError(f"predictor.region_{name}", f"{side} of {length}")

    def fits(self, values: int) -> bool:
        """Return whether a stage of so many values may have weights for each region."""
        return self.count * _VALUES_PER_REGION <= values

    def numbers(self) -> tuple[Ints, Ints]:
        """Return what a row and what a column add to the number of a region."""
        return np.arange(self.shape[0]) // self.rows * self.across, np.arange(self.shape[1]) // self.columns

    def runs(self, numbers: tuple[Ints, Ints], row: int, rows: int, step: int) -> list[Run]:
        """Return the pieces of consecutive rows of a step that lie in one region; rows count from `row`."""
        first = step - 2 * row
        stop = first - 2 * rows
        found = numbers[0][row : row + rows] + numbers[1][first : stop if stop >= 0 else None : -2]
        ends = (np.flatnonzero(found[1:] != found[:-1]) + 1).tolist()
        begins = [0, *ends]
        return list(zip(found[begins].tolist(), begins, [*ends, rows], strict=True))


@dataclass(frozen=True)
class Differences:
    """Differences of the weights of regions from those of all.

    Parameters
    ----------
    shift : int
        They are multiples of 2^shift.
    matrix : ndarray of int64, shape (regions sets, K + 1)
        All sets of one region, then those of the next.
    """

    shift: int
    matrix: Ints

    def weights(self, common: Ints) -> Ints:
        """Return the weights of every region, shape (regions, sets, K + 1)."""
        return common + (self.matrix << self.shift).reshape(-1, *common.shape)


def write_differences(found: Differences | None) -> bytes:
    """Return the bytes of differences, or of there being none."""
    return bytes([NO_REGIONS]) if found is None else bytes([found.shift]) + write_matrix(found.matrix)


def read_differences(reader: Reader, grid: RegionGrid, values: int, common: Ints) -> Differences | None:
    """Parse the differences in a stage of so many values; sums of their weights are not checked here."""
    shift = reader.number("B", "predictor.region_shift")
    if shift == NO_REGIONS:
        return None
    if shift > _MOST_SHIFT:
        raise LimitExceededError("predictor.region_shift", f"{shift}")
    if not grid.fits(values):
        raise LimitExceededError("predictor.region_shift", f"{grid.count} regions in a stage of {values} values")
    sets, columns = common.shape
    matrix = read_matrix(reader, grid.count * sets, columns, "predictor.region_weights")
    # Larger ones break the limit on sums anyway, and could leave int64 on the way there.
    if (np.abs(matrix) >= limits.EXACT_FLOAT32 << 1 >> shift).any():
        raise LimitExceededError("predictor.region_weights", "weights leave the range of exact float32")
    return Differences(shift, matrix)
