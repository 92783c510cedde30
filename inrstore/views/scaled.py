"""Real values of an image, lazily: what is not asked for is not decoded, as for stored ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from inrstore.store import layout
from inrstore.store.sealed import SealedStore


class Scaled:
    """The image of a store times slope plus intercept, as dask takes it for an array.

    Parameters
    ----------
    store : SealedStore
    slope, inter : float
        Finite.
    """

    def __init__(self, store: SealedStore, slope: float, inter: float) -> None:
        self._made = store, slope, inter
        self._stored: Any = zarr.open_array(store, path=layout.IMAGE, mode="r")
        self.shape, self.ndim = self._stored.shape, self._stored.ndim
        self.dtype = dtype_of(self._stored.dtype, slope, inter)

    def __reduce__(self) -> tuple[type[Scaled], tuple[SealedStore, float, float]]:
        return type(self), self._made

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        store, slope, inter = self._made
        return type(self).__name__, *store.__dask_tokenize__(), slope, inter

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Return real values of a selection that zarr knows."""
        _, slope, inter = self._made
        return real(self._stored[key], slope, inter, self.dtype)


def real(stored: npt.ArrayLike, slope: float, inter: float, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return stored values x slope + inter, computed in float64 and rounded once."""
    with np.errstate(all="ignore"):  # what is not finite stays so
        return np.asarray(np.asarray(stored, np.float64) * slope + inter, dtype)


def dtype_of(stored: np.dtype[Any], slope: float, inter: float) -> np.dtype[Any]:
    """Return float32 where it holds the real values but for one rounding, else float64.

    Parameters
    ----------
    stored : numpy.dtype
        Integers or floats.
    slope, inter : float
    """
    single = np.finfo(np.float32)
    if stored.kind == "f":
        if stored.itemsize == 4 and (slope, inter) == (1.0, 0.0):
            return np.dtype(np.float32)
        info = np.finfo(stored)
        least, most = float(info.smallest_subnormal), float(info.max)
    else:
        least, most = 1.0, float(max(abs(np.iinfo(stored).min), np.iinfo(stored).max))
    fits = abs(slope) * most + abs(inter) <= float(single.max) and abs(slope) * least >= float(single.tiny)
    return np.dtype(np.float32 if stored.itemsize <= 2 and fits else np.float64)
