"""The subbands of a wavelet transform: which there are, in which order, how large (specification section 14.2)."""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[int, int, int]

MOST_LEVELS = 8
LEAST_LENGTH = 5
"""Axes shorter than this are not halved by the encoder; a reader takes any."""


@dataclass(frozen=True)
class Subband:
    """Coefficients of one level and orientation.

    Parameters
    ----------
    level : int
        0 is the finest.
    key : tuple of int
        For each axis 1 where the subband is a high pass, else 0.
    shape : tuple of int
    """

    level: int
    key: Triple
    shape: Triple


def levels_of(lengths: Triple, least: int = LEAST_LENGTH) -> Triple:
    """Return how often an encoder halves each axis: while it is at least so long."""
    out = []
    for length in lengths:
        count = 0
        while length >= least and count < MOST_LEVELS:
            length, count = (length + 1) // 2, count + 1
        out.append(count)
    return out[0], out[1], out[2]


def halved(length: int, times: int) -> int:
    """Return the length of the low pass after so many levels."""
    for _ in range(times):
        length = (length + 1) // 2
    return length


def low_shape(lengths: Triple, levels: Triple, level: int) -> Triple:
    """Return the shape of the low pass in front of a level: what the inverse of `level` gives."""
    z, y, x = (halved(n, min(level, m)) for n, m in zip(lengths, levels, strict=True))
    return z, y, x


def keys_of(levels: Triple, level: int) -> list[Triple]:
    """Return the keys of a level, the low pass of all axes first."""
    sides = [(0, 1) if level < n else (0,) for n in levels]
    return [(z, y, x) for z in sides[0] for y in sides[1] for x in sides[2]]


def subbands_of(lengths: Triple, levels: Triple) -> list[Subband]:
    """Return all subbands in the order of coding: the coarsest low pass first, then level by level to the finest."""
    top = max(levels)
    out = [Subband(max(top - 1, 0), (0, 0, 0), low_shape(lengths, levels, top))]
    for level in range(top - 1, -1, -1):
        whole = low_shape(lengths, levels, level)
        for key in keys_of(levels, level)[1:]:
            z, y, x = (
                n if level >= m else (n // 2 if high else (n + 1) // 2)
                for n, m, high in zip(whole, levels, key, strict=True)
            )
            out.append(Subband(level, key, (z, y, x)))
    return out
