"""What a fitter is asked: the part of a chunk that a network may code, and how well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.normalize import Envelope
from inrstore.chunk.target import Target


@dataclass(frozen=True, kw_only=True)
class FitProblem:
    """One chunk for the fitter.

    Parameters
    ----------
    index : int
        Place of the chunk in the caller's list.
    chunk : ndarray
        The whole chunk, little-endian, C order; zeros outside its mask.
    like : ndarray
        The caller's array, for its byte order and memory layout.
    core : ndarray
        The box that the network codes, finite; outside the mask, some value from inside.
    envelope : Envelope
        The rest; its mask says which values of the core are to be fitted.
    channel_axis : int or None
        Axis that the outputs run along.
    scale : ndarray of float64, shape (channels,)
        Errors are divided by this.
    target : Target
        With `rmse` set.
    budget : int
        Bytes of the frame to beat, less those of the mask.
    """

    index: int
    chunk: npt.NDArray[Any]
    like: npt.NDArray[Any]
    core: npt.NDArray[Any]
    envelope: Envelope
    channel_axis: int | None
    scale: npt.NDArray[np.float64]
    target: Target
    budget: int
