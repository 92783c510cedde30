"""The values of chunks that are coded, and how far decoded ones are from them: what lossy modes search with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Error = Callable[[npt.NDArray[Any]], float]


@dataclass(frozen=True)
class Box:
    """The values of one chunk that are coded.

    Parameters
    ----------
    core : ndarray
        Finite values.
    error : callable
        Returns the root mean square error of decoded values, shape of `core`, in the units of the target.
    inside : ndarray of bool, optional
        Values elsewhere are free; broadcasts to the core.
    count : int
        Values that the error is a mean over.
    """

    core: npt.NDArray[Any]
    error: Error
    inside: npt.NDArray[np.bool_] | None = None
    count: int = 1


NO_BUDGET = 1 << 62
"""Size of a frame to beat where a network holds the chunk whatever it costs."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a mode that is fitted makes of a chunk.

    Parameters
    ----------
    index : int
        Place of the chunk in the list of tasks.
    payload : bytes or None
        Envelope included; None if no network keeps the target.
    decibels : float or None
        How far the best network tried is over the target, negative below; None if there was none.
    reason : str
        Why there was none.
    """

    index: int
    payload: bytes | None
    decibels: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Offer:
    """What a mode makes of some chunks.

    Parameters
    ----------
    payloads : list of bytes
        One for each.
    parameter : bytes
        What they share, for the codec configuration; empty if they need nothing.
    """

    payloads: list[bytes]
    parameter: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of all, with those that a parameter takes in metadata: as base64 text, and in a second copy."""
        return sum(map(len, self.payloads)) + round(COPIES * len(self.parameter))


COPIES = 2.7
"""Bytes in metadata for each byte of a shared parameter."""


def extremes(boxes: Sequence[Box]) -> npt.NDArray[Any]:
    """Return the smallest and the largest value of each box."""
    return np.stack([extreme for box in boxes for extreme in (box.core.min(), box.core.max())])


def together(boxes: Sequence[Box], errors: Sequence[float]) -> float:
    """Return the root mean square error over all boxes, from that of each."""
    if len(errors) == 1:
        return errors[0]
    squares = math.fsum(error * error * box.count for error, box in zip(errors, boxes, strict=True))
    return math.sqrt(squares / sum(box.count for box in boxes))
