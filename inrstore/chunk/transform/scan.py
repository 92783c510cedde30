"""The order of coefficients: subbands, passes, and what is expected in each (specification sections 14.3 and 14.4).

A reader takes values from a stream, a writer chooses them; both scan the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.transform.contexts import (
    CLIP,
    PASSES,
    Known,
    Magnitudes,
    Neighbourhood,
    Singles,
    kind_of,
    selection,
)
from inrstore.chunk.transform.subbands import Subband, Triple

Words = npt.NDArray[np.int32]
Coefficients = dict[tuple[int, Triple], Words]


class Coder(Protocol):
    """Where the values of a pass come from."""

    def take(self, subband: int, where: Sequence[tuple[slice, ...]], expected: Singles) -> Words:
        """Return the values of a pass.

        Parameters
        ----------
        subband : int
            Which of the subbands.
        where : sequence of index
            The positions in (component, z, y, x), in order.
        expected : ndarray of float32, shape (n,)
            Expected magnitudes in units of 2^-12, in the same order.
        """


Watch = Callable[[int, int, list[Known | None], Words], None]


def scan(subbands: Sequence[Subband], active: Iterable[int], levels: Triple, weights: Ints, coder: Coder,
         watch: Watch | None = None, *, trellis: bool = False) -> Coefficients:  # fmt: skip
    """Return the quantised coefficients of each subband, shape (active components, z, y, x).

    Parameters
    ----------
    subbands : sequence of Subband
    active : iterable of int
        Components of each subband, asked for when its turn comes.
    levels : tuple of int
    weights : ndarray of int64, shape (kinds, passes, FEATURES + 1)
    coder : Coder
    watch : callable, optional
        Shown the kind of a subband, the number of a pass, what was known around its values, and their magnitudes.
    trellis : bool
        Whether coefficients are counted in half steps; magnitudes are not.
    """
    out: Coefficients = {}
    coded: dict[tuple[int, Triple], Magnitudes] = {}
    for number, (subband, components) in enumerate(zip(subbands, active, strict=True)):
        count = int(components)
        place = subband.level, subband.key
        coded = {key: value for key, value in coded.items() if key[0] <= subband.level + 1}
        values = np.zeros((count, *subband.shape), np.int32)
        out[place] = values
        coded[place] = np.zeros((0, *subband.shape), np.uint8)
        if not values.size:
            continue
        around = Neighbourhood(subband, count, levels, coded)
        for step, parities in enumerate(PASSES):
            present = [p for p in parities if values[selection(p)].size]
            if not present:
                continue
            parts = [around.expected(p, weights[kind_of(subband), step]) for p in present]
            where = [selection(p) for p in present]
            taken = coder.take(number, where, np.concatenate([part.reshape(-1) for part in parts]))
            begin = 0
            for parity, part, here in zip(present, parts, where, strict=True):
                mine = taken[begin : begin + part.size].reshape(part.shape)
                begin += part.size
                values[here] = mine
                magnitude = np.abs(mine)
                if trellis:
                    magnitude = (magnitude + 1) >> 1
                if watch is not None:
                    watch(kind_of(subband), step, around.features(parity), magnitude)
                around.put(parity, np.minimum(magnitude, CLIP))
        coded[place] = around.all()
    return out
