"""What a fitter is asked: the part of a chunk that a network may code, and how well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.envelope import Envelope
from inrstore.chunk.quality import Target


@dataclass(frozen=True, kw_only=True)
class FitTask:
    """One chunk for the fitter.

    Parameters
    ----------
    index : int
        Place of the chunk in the caller's list.
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
    core: npt.NDArray[Any]
    envelope: Envelope
    channel_axis: int | None
    scale: npt.NDArray[np.float64]
    target: Target
    budget: int
