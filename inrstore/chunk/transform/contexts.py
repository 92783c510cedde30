"""How large a coefficient is expected to be, from those decoded before it (specification section 14.4).

All numbers are integers below 2^24 in float32, so sums are exact in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.transform.subbands import Subband, Triple

Singles = npt.NDArray[np.float32]

Magnitudes = npt.NDArray[np.uint8]
Known = Singles | Magnitudes

CLIP = 255
"""Magnitudes count up to here."""
PASSES: tuple[tuple[Triple, Triple], ...] = (
    ((0, 0, 0), (1, 1, 1)), ((1, 1, 0), (0, 0, 1)), ((1, 0, 1), (0, 1, 0)), ((0, 1, 1), (1, 0, 0)),
)  # fmt: skip
"""Parities of the positions of each pass along z, y, x."""
KINDS = 4
FEATURES = 8
"""Numbers that weights belong to; one more weight stands alone."""
MOST_OF = (6, 6, 12, 8, 1, 6, 7, 42)
"""How many magnitudes are in each number at most."""
USUAL: npt.NDArray[np.int64] = np.array([
    (0, 0, 0, 0, 0, 0, 0, 0, 51017),
    (0, 136, 42, 0, 0, 0, 0, 0, 580),
    (0, 72, 33, 0, 0, 0, 0, 0, 34),
    (0, 26, 18, 0, 0, 0, 0, 0, 530),
    (0, 0, 0, 0, 3, 5, 13, 7, 17),
    (63, 54, 26, 0, 1, 1, 6, 2, 1),
    (34, 50, 10, 0, 0, 0, 5, 1, 1),
    (27, 37, 4, 0, 0, 0, 1, 0, 1),
    (0, 0, 0, 0, 2, 0, 16, 2, 1),
    (53, 22, 21, 0, 0, 0, 9, 0, 1),
    (35, 45, 6, 0, 0, 0, 7, 0, 1),
    (32, 33, 3, 0, 0, 0, 3, 0, 1),
    (0, 0, 0, 0, 0, 0, 8, 1, 1),
    (40, 0, 15, 0, 0, 0, 6, 0, 1),
    (32, 0, 5, 0, 0, 0, 5, 0, 1),
    (28, 0, 1, 0, 0, 0, 4, 0, 1),
], np.int64).reshape(KINDS, len(PASSES), FEATURES + 1)  # fmt: skip
"""Weights that chunks bring differences to: of each kind and pass, 1/256 of a magnitude, the last 2^-12. Fitted to
three scans of diffusion at 32, 36 and 40 dB as `tools.bench_shared --usual` does, whose coefficients were chosen with
other weights; with these it gives nearly the same."""
USUAL.flags.writeable = False  # what is read depends on it
_STEP_OF = {parity: i for i, pair in enumerate(PASSES) for parity in pair}
_AROUND = [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) != (0, 0, 0)]
_FACES = [v for v in _AROUND if sum(map(abs, v)) == 1]


def kind_of(subband: Subband) -> int:
    """Return which weights a subband has: by the number of its high passes."""
    return sum(subband.key)


@lru_cache(maxsize=8)
def known(parity: Triple) -> tuple[Triple, ...]:
    """Return the neighbours of positions of a parity that are decoded in an earlier pass or before them in theirs."""
    step = _STEP_OF[parity]
    out = []
    for offset in _AROUND:
        z, y, x = ((p + o) & 1 for p, o in zip(parity, offset, strict=True))
        if _STEP_OF[z, y, x] < step:
            out.append(offset)
    return tuple(out)


def selection(parity: Triple) -> tuple[slice, ...]:
    """Return the index of the positions of a parity in (component, z, y, x)."""
    return (slice(None), *(slice(p, None, 2) for p in parity))


class Neighbourhood:
    """What is known around the coefficients of one subband while it is coded.

    Parameters
    ----------
    subband : Subband
    components : int
        Leading components that the subband has.
    levels : tuple of int
    coded : mapping of (level, key) to ndarray of uint8, shape (components, z, y, x)
        Clipped magnitudes of the subbands before.
    """

    def __init__(
        self, subband: Subband, components: int, levels: Triple, coded: Mapping[tuple[int, Triple], Magnitudes]
    ) -> None:
        self._subband, self._count = subband, components
        shape = (components, *subband.shape)
        self._inside: Singles = np.zeros((components, *(n + 2 for n in subband.shape)), np.float32)
        high = any(subband.key)
        parent = coded.get((subband.level + 1, subband.key)) if high else None
        siblings = [a for (level, key), a in coded.items() if level == subband.level and any(key)] if high else []
        self._still: list[Known | None] = [None] * 4
        if parent is not None and len(parent):
            self._still[:2] = _with_faces(_doubled(parent[:components], shape, subband.level + 1, levels))
        if any(len(s) for s in siblings):
            total = np.zeros(shape, np.float32)
            for sibling in siblings:
                part = fitted(sibling[:components], subband.shape)
                total[: len(part)] += part
            self._still[2:] = _with_faces(total)

    def features(self, parity: Triple) -> list[Known | None]:
        """Return the sums of known magnitudes around the positions of a parity; None stands for zeros."""
        inside, key = self._inside, self._subband.key
        lengths = [len(range(p, n, 2)) for p, n in zip(parity, self._subband.shape, strict=True)]
        out: list[Known | None] = [None] * 4
        for offset in known(parity):
            z, y, x = (
                slice(1 + p + o, 1 + p + o + 2 * n - 1, 2) for p, o, n in zip(parity, offset, lengths, strict=True)
            )
            kind = sum(map(abs, offset))
            if kind == 1 and key[[abs(o) for o in offset].index(1)]:
                kind = 0  # along an axis where the subband is a high pass
            values = inside[:, z, y, x]
            former = out[kind]
            out[kind] = values if former is None else former + values
        where = selection(parity)
        return [*out, *(None if still is None else still[where] for still in self._still)]

    def expected(self, parity: Triple, weights: npt.NDArray[np.int64]) -> Singles:
        """Return the expected magnitudes of all positions of a parity, in units of 2^-12.

        Parameters
        ----------
        parity : tuple of int
        weights : ndarray of int64, shape (FEATURES + 1,)
        """
        lengths = [len(range(p, n, 2)) for p, n in zip(parity, self._subband.shape, strict=True)]
        out = np.full((self._count, *lengths), float(weights[-1]), np.float32)
        for feature, weight in zip(self.features(parity), weights[:-1], strict=True):
            if feature is not None and weight:
                out += feature * np.float32(16 * weight)
        return out

    def put(self, parity: Triple, magnitudes: npt.NDArray[Any]) -> None:
        """Keep the clipped magnitudes of the positions of a parity."""
        z, y, x = (slice(1 + p, 1 + n, 2) for p, n in zip(parity, self._subband.shape, strict=True))
        self._inside[:, z, y, x] = magnitudes

    def all(self) -> Magnitudes:
        """Return the clipped magnitudes of the subband, shape (components, z, y, x)."""
        return self._inside[:, 1:-1, 1:-1, 1:-1].astype(np.uint8)


def _with_faces(values: Known) -> tuple[Known, Singles]:
    """Return the values, and for each position the sum over its six nearest neighbours."""
    around = np.zeros((len(values), *(n + 2 for n in values.shape[1:])), np.float32)
    around[:, 1:-1, 1:-1, 1:-1] = values
    total = np.zeros(values.shape, np.float32)
    for offset in _FACES:
        z, y, x = (slice(1 + o, 1 + o + n) for o, n in zip(offset, values.shape[1:], strict=True))
        total += around[:, z, y, x]
    return values, total


def _doubled(parent: Magnitudes, shape: tuple[int, ...], level: int, levels: Triple) -> Magnitudes:
    """Return for each position of a subband the magnitude of its parent, which belongs to `level`."""
    out = parent
    for axis, count in enumerate(levels, 1):
        if level < count:
            places = np.minimum(np.arange(shape[axis]) // 2, parent.shape[axis] - 1)
            out = out.take(places, axis)
    if len(out) < shape[0]:
        out = np.concatenate([out, np.zeros((shape[0] - len(out), *out.shape[1:]), np.uint8)])
    return out


def fitted(values: Magnitudes, shape: Triple) -> Magnitudes:
    """Cut what is longer than a shape; repeat the last plane of what is shorter."""
    for axis, length in enumerate(shape, 1):
        if values.shape[axis] != length:
            values = values.take(np.minimum(np.arange(length), values.shape[axis] - 1), axis)
    return values
