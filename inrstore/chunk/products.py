"""Products of small matrices and long rows, in pieces that OpenBLAS leaves on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints, Singles

SMALL_PRODUCT = 1 << 18
"""Multiplications up to which OpenBLAS stays on one thread."""


def product(matrix: npt.NDArray[Any], rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the product of matrices in pieces so small that OpenBLAS does not share them out among threads.

    A step has better uses for its time than waiting for other threads, the more so where all cores are busy.
    """
    size = max(64, SMALL_PRODUCT // matrix.size)
    if rows.shape[1] <= size:
        whole: npt.NDArray[Any] = matrix @ rows
        return whole
    return product_into(np.empty((len(matrix), rows.shape[1]), matrix.dtype), matrix, rows)


def product_into(out: npt.NDArray[Any], matrix: npt.NDArray[Any], rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Fill `out` with the product, likewise."""
    size = max(64, SMALL_PRODUCT // matrix.size)
    for i in range(0, rows.shape[1], size):
        np.matmul(matrix, rows[:, i : i + size], out=out[:, i : i + size])
    return out


def two_rows(weights: Ints) -> Singles:
    """Return a row of weights and one of zeros: a vector times a matrix is shared out whatever its size."""
    out = np.zeros((2, len(weights)), np.float32)
    out[0] = weights
    return out
