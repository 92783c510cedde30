"""Linear algebra of floats whose bits do not depend on the number of threads.

OpenBLAS shares out all that is large enough, and sums up otherwise then. So everything goes to it in pieces that are
too small for that, which also keeps busy cores from waiting for each other.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.products import product_into

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]

_SMALL_PRODUCT = 1 << 18
_SMALL_MATRIX = 3500  # numbers of a matrix whose product with 64 columns is small
_ROWS = 64
_COLUMNS = 1 << 13  # of long rows, whose products are made together
_SMALL_SYSTEM = 64  # LAPACK works on larger ones with several threads
_BLOCK = 28
_SWEEPS = 40
_OFF = 1e-13


def product(matrix: Floats, rows: Floats) -> Floats:
    """Return matrix @ rows."""
    if len(matrix) == 1:  # a vector times a matrix is shared out whatever its size
        return product(np.concatenate([matrix, np.zeros_like(matrix)]), rows)[:1]
    out: Floats = np.empty((len(matrix), rows.shape[1]), np.result_type(matrix, rows))
    begin = 0
    for part in np.array_split(matrix, max(1, -(-matrix.size // _SMALL_MATRIX))):
        product_into(out[begin : begin + len(part)], part, rows)
        begin += len(part)
    return out


def products(one: Floats, other: Floats, weights: Floats | None = None) -> Doubles:
    """Return (one * weights) @ other.T of long rows; pieces of float32 are added up in float64."""
    if len(other) == 1:
        return products(one, np.concatenate([other, np.zeros_like(other)]), weights)[:, :1]
    if len(one) == 1:
        return products(other, one, weights).T
    if max(len(one), len(other)) <= _ROWS:
        return _long_products(one, other, weights)
    parts = [np.array_split(a, -(-len(a) // _ROWS)) for a in (one, other)]
    return np.block([[_long_products(a, b, weights) for b in parts[1]] for a in parts[0]])


def _long_products(one: Floats, other: Floats, weights: Floats | None) -> Doubles:
    size = _SMALL_PRODUCT // (len(one) * len(other))
    length, whole = one.shape[1], one.shape[1] // size * size
    total: Doubles = np.zeros((len(one), len(other)))
    # Some pieces at a time: weighted rows, and the products of all pieces, can be as large as the rows are.
    step = max(1, _COLUMNS // size) * size
    for begin in range(0, whole, step):
        end = min(begin + step, whole)
        left, right = _weighted(one, weights, begin, end), other[:, begin:end]
        left, right = (a.reshape(len(a), -1, size).transpose(1, 0, 2) for a in (left, right))
        total = np.concatenate([total[None], left @ right.transpose(0, 2, 1)]).sum(0)
    if whole < length:
        total += _weighted(one, weights, whole, length) @ other[:, whole:].T
    return total


def _weighted(rows: Floats, weights: Floats | None, begin: int, end: int) -> Floats:
    part = rows[:, begin:end]
    return part if weights is None else part * weights[begin:end]


def solved(matrix: Doubles, right: Doubles) -> Doubles:
    """Return the solution of matrix @ x = right, where `right` has one column or several.

    Raises
    ------
    numpy.linalg.LinAlgError
        The matrix is singular.
    """
    total = len(matrix)
    if total <= _SMALL_SYSTEM:
        return np.asarray(np.linalg.solve(matrix, right), np.float64)
    rows: Doubles = np.concatenate([matrix, right.reshape(total, -1)], 1)
    for i in range(total):
        pivot = i + int(np.abs(rows[i:, i]).argmax())
        if rows[pivot, i] == 0:
            raise np.linalg.LinAlgError("Singular matrix")
        rows[[i, pivot]] = rows[[pivot, i]]
        rows[i + 1 :, i:] -= (rows[i + 1 :, i] / rows[i, i])[:, None] * rows[i, i:]
    out = rows[:, total:]
    for i in reversed(range(total)):
        out[i] /= rows[i, i]
        out[:i] -= rows[:i, i, None] * out[i]
    return out.reshape(right.shape)


def eigh(matrix: Doubles) -> tuple[Doubles, Doubles]:
    """Return eigenvalues of a symmetric matrix, the least first, and eigenvectors as columns.

    A large one is turned by the eigenvectors of two blocks at a time until nothing is left beside the diagonal: the
    method of Jacobi with blocks for numbers.
    """
    if len(matrix) <= _SMALL_SYSTEM:
        found = np.linalg.eigh(matrix)
        return found.eigenvalues, found.eigenvectors
    left, across = matrix.copy(), np.eye(len(matrix))  # eigenvectors as rows
    most = _OFF * float(np.abs(matrix).max())
    blocks = np.array_split(np.arange(len(matrix)), -(-len(matrix) // _BLOCK))
    for _ in range(_SWEEPS):
        for pair in map(np.concatenate, itertools.combinations(blocks, 2)):
            both = left[np.ix_(pair, pair)]
            if np.abs(both - np.diag(np.diag(both))).max() <= most:
                continue
            values, vectors = np.linalg.eigh(both)
            left[pair] = product(vectors.T, left[pair])
            left[:, pair] = left[pair].T
            left[np.ix_(pair, pair)] = np.diag(values)
            across[pair] = product(vectors.T, across[pair])
        if np.abs(left - np.diag(np.diag(left))).max() <= most:
            break
    values = np.diag(left)
    order = np.argsort(values, kind="stable")
    return values[order], across[order].T
