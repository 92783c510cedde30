"""Images -> coarse images, by matrices along each axis: what encoders fit the network of the place to. numpy alone.

A coarse position lies in the middle of the fine ones that it stands for, and an image goes on beyond its end as its
last value does, up to a whole number of coarse positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Filter = Callable[[int, int], Doubles]

_LOBES = 3


def lanczos(length: int, scale: int) -> Doubles:
    """Return the matrix (coarse, fine) of Lanczos resampling with three lobes, stretched by the scale.

    Duchon, J. Appl. Meteor. 18 (1979); weights of positions that are not there are shared out to the others.
    """
    coarse = -(-length // scale)
    place = np.arange(length)
    middle = scale * np.arange(coarse)[:, None] + (scale - 1) / 2
    at = (place - middle) / scale
    weights = np.where(np.abs(at) < _LOBES, np.sinc(at) * np.sinc(at / _LOBES), 0.0)
    if scale == 1:
        return np.eye(length)
    normalised: Doubles = weights / weights.sum(1, keepdims=True)
    return normalised


def low_pass(length: int, scale: int) -> Doubles:
    """Return the matrix (coarse, fine) that keeps the lowest frequencies of an image mirrored at its ends.

    That is its cosine transform, cut off, and the inverse on the coarse grid; without the mirror the two ends of an
    image, which differ, would ring into each other.
    """
    coarse = -(-length // scale)
    whole = coarse * scale
    frequency = np.arange(coarse)[:, None]
    forward = np.cos(np.pi * frequency * (np.arange(whole) + 0.5) / whole) * np.where(frequency == 0, 1, 2) / whole
    matrix = np.cos(np.pi * frequency * (np.arange(coarse) + 0.5) / coarse).T @ forward
    matrix[:, length - 1] += matrix[:, length:].sum(1)
    cut: Doubles = matrix[:, :length]
    return cut


def reduced(image: npt.NDArray[Any], scales: Sequence[int], how: Filter) -> Doubles:
    """Return an image with a coarse grid along its axes.

    Parameters
    ----------
    image : ndarray
        Finite.
    scales : sequence of int
        Fine positions for a coarse one, of each axis.
    how : callable
        `lanczos` or `low_pass`.
    """
    out = image.astype(np.float64)
    for axis, scale in enumerate(scales):
        if scale > 1:
            out = np.moveaxis(np.tensordot(how(out.shape[axis], scale), out, (1, axis)), 0, axis)
    return np.ascontiguousarray(out)
