"""The wavelet transform: its inverse in integers (specification section 14.7), and the forward one of encoders.

Cohen, Daubechies, Feauveau 9/7 (Comm. Pure Appl. Math. 45, 1992) in lifting steps (Daubechies, Sweldens,
J. Fourier Anal. Appl. 4, 1998). Arrays of the inverse are
float64 that hold integers: every product stays below 2^53, so the arithmetic is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, MutableMapping, Sequence

import numpy as np
import numpy.typing as npt

from inrstore.chunk.transform.subbands import Triple, keys_of
from inrstore.chunk.transform.window import Window
from inrstore.errors import LimitExceededError

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Split = Callable[[Singles, int], tuple[Singles, Singles]]
Join = Callable[[Doubles | None, Doubles | None, int, int], Doubles | None]

PRECISION = 14
LIFTS = (-25987, -868, 14466, 7266)
"""The four lifting factors times 2^14: predict, update, predict, update."""
UNIT = 1024
"""Internal units of one quantiser step where lifting keeps the norm."""
GAINS = (
    36, 41, 48, 55, 63, 72, 83, 96, 110, 126, 145, 167, 192, 221,
    254, 292, 336, 386, 444, 510, 586, 674, 775, 891, 1024, 1177, 1353, 1556,
)  # fmt: skip
"""Internal units of one quantiser step in a subband with e more high passes than low ones, from e = -24."""
MOST = float(1 << 35)
"""No value between two axes may be larger: the sums of one lifting then stay below 2^53."""
_BLOCK = 1 << 16  # values that are lifted together: they stay in the cache, and copies of them cost no memory


def gain_of(key: Triple, level: int, levels: Triple) -> int:
    """Return the internal units of one quantiser step in a subband; lifting alone does not keep norms."""
    exponent = 0
    for high, count in zip(key, levels, strict=True):
        if level < count:
            exponent += 1 - level if high else -(level + 1)
        else:
            exponent -= count
    return GAINS[min(max(exponent, -24), 3) + 24]


def join(low: Doubles | None, high: Doubles | None, axis: int, length: int) -> Doubles | None:
    """Undo the halving of one axis; None stands for zeros.

    Parameters
    ----------
    low, high : ndarray of float64, or None
    axis, length : int
        Which axis of the arrays, and how long it becomes.

    Raises
    ------
    LimitExceededError
        When values leave the range that is exact.
    """
    some = low if low is not None else high
    if some is None:
        return None
    shape = list(some.shape)
    shape[axis] = length
    out = np.empty(shape)
    for block in _blocks(shape, axis):
        evens, odds = (out[block][_part(axis, slice(first, None, 2))] for first in (0, 1))
        even = np.zeros(evens.shape) if low is None else low[block].copy()
        odd = np.zeros(odds.shape) if high is None else high[block].copy()
        if high is not None:
            _lift_even(even, odd, LIFTS[3], axis)
        _lift_odd(odd, even, LIFTS[2], axis)
        _lift_even(even, odd, LIFTS[1], axis)
        _lift_odd(odd, even, LIFTS[0], axis)
        for part in (even, odd):
            if max(part.max(initial=0.0), -part.min(initial=0.0)) >= MOST:
                raise LimitExceededError("transform.coefficients", "they make values that leave the exact range")
        evens[...], odds[...] = even, odd
    return out


def inverse(
    subbands: MutableMapping[tuple[int, Triple], Doubles], lengths: Triple, levels: Triple, window: Window | None = None
) -> Doubles | None:
    """Return the volumes of the subbands of some components; None if there are no subbands.

    Parameters
    ----------
    subbands : mapping of (level, key) to ndarray, shape (components, z, y, x)
        Internal units; a missing one is zero. They are taken out, so that each is let go of once it is used.
    lengths, levels : tuple of int
    window : Window, optional
        What is wanted of the volumes; the subbands are then the parts that it needs. Values beside it, which nobody
        gets, may leave the range, too.

    Raises
    ------
    LimitExceededError
        When values leave the range that is exact.
    """
    window, top = window or Window.of(lengths, levels), max(levels)
    low = subbands.pop((max(top - 1, 0), (0, 0, 0)), None)
    for level in range(top - 1, -1, -1):
        keys = keys_of(levels, level)
        parts: dict[Triple, Doubles | None] = {key: subbands.pop((level, key), None) for key in keys[1:]}
        parts[0, 0, 0], low = low, None
        low = joined(parts, level, window.made(level), levels, join)
        low = None if low is None else low[(slice(None), *window.kept(level))]
    return low


def joined(
    parts: dict[Triple, Doubles | None], level: int, whole: Triple, levels: Triple, join: Join
) -> Doubles | None:
    """Undo one level.

    Parameters
    ----------
    parts : dict of key to ndarray, shape (components, z, y, x), or None
        All subbands of the level, used up.
    level : int
    whole : tuple of int
        Slices, rows and columns of the result.
    levels : tuple of int
    join : callable
        `join`, or what gives the same.
    """
    keys = list(parts)
    for axis in (2, 1, 0):
        if level < levels[axis]:
            keys = [key for key in keys if not key[axis]]
            parts = {key: join(parts.pop(key), parts.pop(_raised(key, axis)), axis + 1, whole[axis]) for key in keys}
    return parts[0, 0, 0]


def _raised(key: Triple, axis: int) -> Triple:
    z, y, x = (1 if a == axis else k for a, k in enumerate(key))
    return z, y, x


def _blocks(shape: Sequence[int], axis: int) -> Iterator[tuple[slice, ...]]:
    """Yield the parts, across the longest other axis, that the lifting of an axis is made in."""
    across = max((a for a in range(len(shape)) if a != axis), key=lambda a: shape[a])
    size = max(1, _BLOCK * shape[across] // math.prod(shape))
    for begin in range(0, shape[across], size):
        yield _part(across, slice(begin, begin + size))


def _part(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)


def _lift_even(even: Doubles, odd: Doubles, factor: int, axis: int) -> None:
    """Add to each low pass value what its neighbours say; the first neighbour stands before itself, too."""
    sums = np.empty(even.shape)
    count, inner = odd.shape[axis], slice(1, odd.shape[axis])
    np.add(odd[_part(axis, slice(count - 1))], odd[_part(axis, inner)], out=sums[_part(axis, inner)])
    first = odd[_part(axis, slice(1))]
    np.add(first, first, out=sums[_part(axis, slice(1))])
    if even.shape[axis] > count:
        last = odd[_part(axis, slice(count - 1, None))]
        np.add(last, last, out=sums[_part(axis, slice(count, None))])
    _take_off(even, sums, factor)


def _lift_odd(odd: Doubles, even: Doubles, factor: int, axis: int) -> None:
    sums = np.empty(odd.shape)
    count = even.shape[axis] - 1
    np.add(even[_part(axis, slice(count))], even[_part(axis, slice(1, None))], out=sums[_part(axis, slice(count))])
    if odd.shape[axis] > count:
        last = even[_part(axis, slice(count, None))]
        np.add(last, last, out=sums[_part(axis, slice(count, None))])
    _take_off(odd, sums, factor)


def _take_off(target: Doubles, sums: Doubles, factor: int) -> None:
    """Subtract floor((factor sums + 2^13) / 2^14); a quotient with 14 binary places is exact."""
    sums *= factor * 2.0**-PRECISION
    sums += 0.5
    np.floor(sums, out=sums)
    target -= sums


# ---- forward, in float32 -----------------------------------------------------------------------------------


def forward(volumes: Singles, levels: Triple, halve: Split | None = None) -> dict[tuple[int, Triple], Singles]:
    """Return the subbands of volumes, shape (components, z, y, x), before any scaling.

    Parameters
    ----------
    volumes : ndarray of float32
    levels : tuple of int
    halve : callable, optional
        `split`, or what gives the same.

    Returns
    -------
    dict of (level, key) to ndarray
        As `subbands_of` lists them.
    """
    halve = halve or split
    out: dict[tuple[int, Triple], Singles] = {}
    low, top = volumes, max(levels)
    for level in range(top):
        parts: dict[Triple, Singles] = {(0, 0, 0): low}
        for axis in range(3):
            if level < levels[axis]:
                halves = {}
                for (z, y, x), part in parts.items():
                    key = [z, y, x]
                    halves[z, y, x], high = halve(part, axis + 1)
                    key[axis] = 1
                    halves[key[0], key[1], key[2]] = high
                parts = halves
        low = parts.pop((0, 0, 0))
        for key3 in keys_of(levels, level)[1:]:
            out[level, key3] = parts[key3]
    out[max(top - 1, 0), (0, 0, 0)] = low
    return out


def split(values: Singles, axis: int) -> tuple[Singles, Singles]:
    """Halve an axis: return the low and the high pass."""
    even, odd = (values[_part(axis, slice(first, None, 2))].copy() for first in (0, 1))
    m, n = even.shape[axis], odd.shape[axis]
    ends = np.arange(1, n + 1).clip(max=m - 1), np.arange(m).clip(max=n - 1), np.arange(-1, m - 1).clip(min=0)
    for i, lift in enumerate(LIFTS):
        factor = np.float32(lift / 2.0**PRECISION)
        if i % 2:
            sums = odd.take(ends[2], axis)
            sums += odd.take(ends[1], axis)
            sums *= factor
            even += sums
        else:
            sums = even.take(ends[0], axis)
            sums += even[_part(axis, slice(n))]
            sums *= factor
            odd += sums
    return even, odd
