"""Small regressions of encoders: weighted least squares, weights of one sign, logistic."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.linear import product, products, solved

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

_ROUNDS = 4


def combined(weights: Doubles, rows: Floats) -> Floats:
    """Return weights @ rows."""
    found: Floats = product(weights[None].astype(rows.dtype), rows)[0]
    return found


def solve(rows: Floats, wanted: Floats, weights: Floats, ridge: float = 1e-6) -> Doubles:
    """Return the weighted least-squares coefficients of `rows` (K, n) for `wanted` (n,)."""
    each = weights.astype(rows.dtype)
    gram = products(rows, rows, each)
    diagonal = np.diag_indices(len(gram))
    gram[diagonal] += gram[diagonal] * ridge + (1e-4 * float(weights.sum()) + 1e-6)
    right = products(rows, wanted[None].astype(rows.dtype), each)[:, 0]
    return solved(gram, right)


def solve_not_negative(rows: Floats, wanted: Floats, weights: Floats) -> Doubles:
    """Return weighted least-squares coefficients, none below 0, by an active set.

    What is below 0 is left out and the rest solved again; what would help then comes back, a few times at most.
    """
    each = weights.astype(rows.dtype)
    gram, right = products(rows, rows, each), products(rows, wanted[None].astype(rows.dtype), each)[:, 0]
    diagonal = np.diag_indices(len(gram))
    gram[diagonal] = gram[diagonal] * (1 + 1e-6) + 1e-9  # where above and below are one slice, two rows are equal
    out, used = np.zeros(len(right)), np.ones(len(right), np.bool_)
    for _ in range(_ROUNDS):
        while used.any():
            found = solved(gram[np.ix_(used, used)], right[used])
            if found.min() >= 0:
                break
            used[used] = found > 0
        out[:] = 0
        if used.any():
            out[used] = found
        slope = right - products(gram, out[None])[:, 0]
        back = ~used & (slope > 1e-6 * np.abs(right).max(initial=0))
        if not back.any():
            break
        used |= back
    return out


def logistic(rows: Doubles, wanted: npt.NDArray[np.bool_], rounds: int = 10) -> Doubles:
    """Return the coefficients of the logit of `wanted`."""
    out = np.zeros(len(rows))
    for _ in range(rounds):
        share = 1 / (1 + np.exp(-np.clip(combined(out, rows), -12, 12)))
        curvature = products(rows * (share * (1 - share) + 1e-6), rows) + np.eye(len(rows)) * 0.5
        out = out + solved(curvature, products(rows, (wanted - share)[None])[:, 0] - 0.5 * out)
    return np.clip(out, -30, 30)


def explaining_order(values: npt.NDArray[Any], most: int = 300) -> Ints:
    """Return an order of measurements (T, ..) in which each explains most of what is left of all."""
    total = len(values)
    if not 2 < total <= most:
        return np.arange(total)
    flat = values.reshape(total, -1)
    sample = flat[:, :: max(1, flat.shape[1] // 20000)].astype(np.float64)
    sample -= sample.mean(1, keepdims=True)
    left = products(sample, sample)
    left[np.diag_indices(total)] += left.trace() / total * 1e-4 + 1e-9
    rest, out = list(range(total)), []
    while rest:
        gain = (left[np.ix_(rest, rest)] ** 2).sum(1) / np.diag(left)[rest]
        best = rest.pop(int(gain.argmax()))
        out.append(best)
        left = left - np.outer(left[:, best], left[best]) / left[best, best]
    return np.array(out)
