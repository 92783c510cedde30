"""Planes of a block as padded arrays (row, column, plane), and views of their neighbours (section 12.6)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Singles
from inrstore.chunk.predictor.regression import PAD

_SKEW_BELOW = 32
_SKEW_SIZE = 1 << 22
"""Planes, and numbers in memory, up to which an array is skewed."""


class Padded:
    """An array (row, column, plane) of float32 with `PAD` more rows and columns on each side; all is zeros at first.

    With few planes the addresses are skewed: positions with equal x + 2 y lie side by side.

    Parameters
    ----------
    rows, columns, planes : int
    memory : ndarray of float32, shape (room(rows, columns, planes),), optional
        Zeros.

    Attributes
    ----------
    memory : ndarray
        What the addresses are in.
    array : ndarray
        With pads.
    strides : tuple of int
        Bytes to the next row and to the next column.
    along : int
        Bytes to the next row and back two columns: the next position of a step.
    """

    def __init__(self, rows: int, columns: int, planes: int, memory: Singles | None = None) -> None:
        self.rows, self.columns = rows, columns
        ny, nx = rows + 2 * PAD, columns + 2 * PAD
        self.memory = np.zeros(room(rows, columns, planes), np.float32) if memory is None else memory
        if self.memory.size > ny * nx * planes:  # skewed
            apart = _apart(rows, columns)
            self.strides = (2 * apart + 1) * planes * 4, apart * planes * 4
        else:
            self.strides = nx * planes * 4, planes * 4
        self.array = np.ndarray((ny, nx, planes), np.float32, self.memory, 0, (*self.strides, 4))
        self.along = self.strides[0] - 2 * self.strides[1]

    @property
    def inside(self) -> Singles:
        """The array without its pads, shape (rows, columns, planes)."""
        return self.array[PAD : PAD + self.rows, PAD : PAD + self.columns]


def room(rows: int, columns: int, planes: int, below: int = _SKEW_BELOW) -> int:
    """Return how many numbers a padded array takes in memory, skewed if it has fewer planes than `below`."""
    ny, nx = rows + 2 * PAD, columns + 2 * PAD
    skewed = ((nx + 2 * ny) * _apart(rows, columns) + ny) * planes
    return skewed if planes < below and skewed <= _SKEW_SIZE else ny * nx * planes


def _apart(rows: int, columns: int) -> int:
    """Return how far apart in y positions of one step are at most: so steps that overlap in memory never share one."""
    return min(rows + 2 * PAD, (columns + 2 * PAD) // 2 + 2)


def padded(planes: npt.NDArray[np.generic]) -> Padded:
    """Return planes (plane, row, column) with their pads."""
    count, rows, columns = planes.shape
    out = Padded(rows, columns, count)
    out.inside[...] = planes.transpose(1, 2, 0)
    return out
