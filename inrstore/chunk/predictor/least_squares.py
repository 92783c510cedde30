"""Small regressions for the predictor: weighted least squares, weights of one sign, logistic, frequency tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.rans import TOTAL
from inrstore.chunk.linear import product, products, solved
from inrstore.chunk.predictor.tables import MAX_ESCAPE, MAX_PEAK, MAX_SCALE, PHASES, TAILS, Bell, counts

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

_ROUNDS = 4
_ESCAPE_BITS = 16


def combined(weights: Doubles, rows: Floats) -> Floats:
    """Return weights @ rows."""
    found: Floats = product(weights[None].astype(rows.dtype), rows)[0]
    return found


def solve(rows: Floats, wanted: Floats, weights: Floats, ridge: float = 1e-6) -> Doubles:
    """Return the weighted least-squares coefficients of `rows` (K, n) for `wanted` (n,)."""
    weighted = rows * weights.astype(rows.dtype)
    gram = products(weighted, rows)
    diagonal = np.diag_indices(len(gram))
    gram[diagonal] += gram[diagonal] * ridge + (1e-4 * float(weights.sum()) + 1e-6)
    right = products(weighted, wanted[None].astype(rows.dtype))[:, 0]
    return solved(gram, right)


def solve_not_negative(rows: Floats, wanted: Floats, weights: Floats) -> Doubles:
    """Return weighted least-squares coefficients, none below 0, by an active set.

    What is below 0 is left out and the rest solved again; what would help then comes back, a few times at most.
    """
    weighted = rows * weights.astype(rows.dtype)
    gram, right = products(weighted, rows), products(weighted, wanted[None].astype(rows.dtype))[:, 0]
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


def geometric(low: float, high: float, number: int) -> Doubles:
    """Return numbers from `low` to `high` of equal ratios; ten times as fast as that of numpy."""
    out: Doubles = low * (high / low) ** (np.arange(number) / (number - 1))
    return out


def fit_bell(errors: Ints, phases: Ints) -> Bell:
    """Return the tables that code the differences of one context in about the fewest bits."""
    mean = float(np.abs(errors).mean())
    shift = max(0, int(np.floor(np.log2(max(mean, 1) / 10))))
    phased = mean < 5
    rounded = (errors + ((1 << shift) >> 1)) >> shift
    size, most = np.abs(rounded), min(MAX_PEAK, 65535 >> shift)
    tail = np.bincount(np.minimum(size, most + 1), minlength=2)[::-1].cumsum()[::-1]  # how many are at least i
    which = phases if phased else np.zeros_like(phases)
    inside = size <= most
    place = which[inside] * (2 * most + 1) + rounded[inside] + most
    whole = np.bincount(place, minlength=PHASES * (2 * most + 1)).reshape(PHASES, -1).astype(np.float64)

    def peak_at(share: float) -> int:
        return min(most, max(1, int(np.searchsorted(-tail, -share * len(size), "left")) - 1))

    def escape_of(peak: int) -> tuple[int, int]:
        beyond = int(tail[peak + 1]) if peak + 1 < len(tail) else 0
        return beyond, min(MAX_ESCAPE, max(1, round(TOTAL * beyond / len(size))))

    def bits(scales: Ints, degrees: int, peak: int) -> Doubles:
        beyond, escape = escape_of(peak)
        out = np.full(len(scales), beyond * (_ESCAPE_BITS + np.log2(TOTAL / escape)))
        for phase in range(PHASES if phased else 1):
            seen = whole[phase, most - peak : most + peak + 1]
            if seen.any():
                logs = np.log2(counts(scales, degrees, peak, escape, phase if phased else -1)[:, :-1])
                out -= products(logs, seen[None])[:, 0]
        return out

    def grid(low: float, high: float, number: int) -> Ints:
        scaled = max(mean / (1 << shift), 0.05) * 64 * geometric(low, high, number)
        return np.clip(np.rint(scaled), 1, MAX_SCALE).astype(np.int64)

    peak, best = peak_at(1 / 3000), (np.inf, 0, 0)
    for tail_code, degrees in enumerate(TAILS):
        scales, low, high, before = grid(0.3, 2.0, 6), 0.3, 2.0, best[0]
        for _ in range(2):
            cost = bits(scales, degrees, peak)
            i = int(cost.argmin())
            if cost[i] < best[0]:
                best = (float(cost[i]), int(scales[i]), tail_code)
            factors = geometric(low, high, 6)
            low, high = float(factors[max(0, i - 1)]), float(factors[min(5, i + 1)])
            scales = grid(low, high, 6)
        if best[0] == before:
            break  # thinner tails get worse and worse
    _, scale, tail_code = best
    tries = sorted({peak, *(peak_at(x) for x in (3e-3, 1e-3, 1e-4, 3e-5, 0))})
    peak = min(tries, key=lambda p: float(bits(np.array([scale]), TAILS[tail_code], p)[0]))
    return Bell(shift, phased, tail_code, scale, peak, escape_of(peak)[1])
