"""One slice of an image out of its store: only the chunks that it goes through are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.store.reader import Store

SliceIndex: TypeAlias = tuple[int | slice, ...]
"""For each axis of the store (t, z, y, x) a number, or slice(None) for the axes of the slice."""


def slice_through(dims: Sequence[str], at: Sequence[int]) -> SliceIndex:
    """Return the slice in x and y through a voxel.

    Parameters
    ----------
    dims : sequence of str
        Axes of the store, slowest first.
    at : sequence of int
        The voxel, in the same order.
    """
    return tuple(slice(None) if name in "xy" else number for name, number in zip(dims, at, strict=True))


def middle(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the voxel in the middle of an image."""
    return tuple(length // 2 for length in shape)


def decode_slice(store: Store, index: SliceIndex) -> npt.NDArray[Any]:
    """Decode the chunks that one slice goes through, and no others.

    Raises
    ------
    StoreError, CorruptChunkError
        Naming the chunk.
    """
    shape = [n for n, i in zip(store.grid.shape, index, strict=True) if isinstance(i, slice)]
    out = np.zeros(shape, store.dtype)
    for position in store.grid:
        region = store.grid.region(position)
        inner: list[int | slice] = []
        for part, wanted in zip(region, index, strict=True):
            if isinstance(wanted, slice):
                inner.append(slice(None))
            elif part.start <= wanted < part.stop:
                inner.append(wanted - part.start)
            else:
                break
        else:
            place = tuple(part for part, i in zip(region, index, strict=True) if isinstance(i, slice))
            out[place] = store.chunk(position)[tuple(inner)]
    return out
