"""Pairs of arrays -> PSNR, rmse and largest error, accumulated block by block.

A measurement is one volume of a 4-D image (one index of its axes beyond space), or the whole of a smaller
image. The PSNR of this project takes every error relative to the range of its own measurement, so that
weak and strong measurements count alike; `psnr_range` is the usual one, relative to the range of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 20
"""Values compared at once; bounds the memory of the float64 differences."""

_FEW = 64
"""Values of a measurement below which many measurements are looked at together."""


@dataclass(frozen=True)
class Ranges:
    """Largest minus smallest finite value of an image.

    Parameters
    ----------
    each : ndarray
        Of each measurement, in the shape of the leading axes; 1 where all values are equal.
    whole : float
        Of the whole image; 1 if all values are equal.
    """

    each: npt.NDArray[np.float64]
    whole: float

    @classmethod
    def of(cls, image: npt.NDArray[Any], leading: int, inside: npt.NDArray[np.bool_] | None = None) -> Ranges:
        """Measure an image whose first `leading` axes count measurements.

        Parameters
        ----------
        image : ndarray
        leading : int
        inside : ndarray of bool, optional
            Which values count; broadcasts to the image.
        """
        where = None if inside is None else np.broadcast_to(inside, image.shape)
        shape = image.shape[:leading]
        low = np.full(shape, np.inf, np.float64)
        high = np.full(shape, -np.inf, np.float64)
        spread = np.ones(shape, np.float64)
        few = leading > 0 and math.prod(image.shape[leading:]) < _FEW
        if few:
            for part in _parts(image.shape, leading):
                inside_part = None if where is None else where[part]
                low[part], high[part], spread[part] = _extremes(image[part], leading, inside_part)
        for index in () if few else np.ndindex(shape):
            values = _finite(image[index] if where is None else image[index][where[index]])
            if values.size:
                smallest, largest = values.min().item(), values.max().item()
                low[index], high[index] = smallest, largest
                spread[index] = float(largest - smallest) or 1.0
        if not np.isfinite(high).any():
            return cls(spread, 1.0)
        return cls(spread, float(high.max()) - float(low.min()) or 1.0)


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The error of a decoded image, in stored units.

    Parameters
    ----------
    psnr : float or None
        In dB, each measurement relative to its own range; None when nothing differs.
    psnr_range : float or None
        In dB, relative to the range of the whole image; None when nothing differs.
    rmse : float
        Root mean square error over the finite values.
    max_error : float
        Largest absolute error of a finite value.
    lossless : bool
        Whether every bit is the same.
    """

    psnr: float | None
    psnr_range: float | None
    rmse: float
    max_error: float
    lossless: bool

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


class ErrorStatistics:
    """Accumulates the errors of an image from pairs of blocks.

    Parameters
    ----------
    ranges : Ranges
        Of the original image.
    """

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self.count = 0
        self.largest = 0.0
        self.changed = False
        self.not_finite_changed = 0
        self._squares = np.zeros(ranges.each.shape, np.float64)

    def add(
        self,
        original: npt.NDArray[Any],
        decoded: npt.NDArray[Any],
        where: tuple[slice, ...] | None = None,
        inside: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Take in a block.

        Parameters
        ----------
        original, decoded : ndarray
            The same part of both images, of one dtype but for the byte order.
        where : tuple of slice, optional
            The part; only the entries of the leading axes matter. None for the whole image.
        inside : ndarray of bool, optional
            Which values of the block count; broadcasts to it. Others are not looked at.
        """
        leading = self.ranges.each.ndim
        native = original.dtype.newbyteorder("=")
        if original.shape != decoded.shape or native != decoded.dtype.newbyteorder("="):
            kinds = f"{decoded.dtype}{decoded.shape} with {original.dtype}{original.shape}"
            raise ValueError(f"cannot compare {kinds}")
        squares = self._squares
        if where is not None and leading:
            squares = squares[where[:leading]]
        counts = None if inside is None else np.broadcast_to(inside, original.shape)
        if leading and math.prod(original.shape[leading:]) < _FEW:
            for part in _parts(original.shape, leading):
                inside_part = None if counts is None else counts[part]
                squares[part] += self._compare_many(original[part], decoded[part], inside_part)
            return
        for index in np.ndindex(squares.shape):
            for a, b in _blocks(original[index], decoded[index], None if counts is None else counts[index]):
                squares[index] += self._compare(a, b)

    def _compare_many(
        self, a: npt.NDArray[Any], b: npt.NDArray[Any], counts: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.float64]:
        """Compare a block of measurements of few values each; return the sum of squared errors of each."""
        leading = self.ranges.each.ndim
        squared = np.zeros(a.shape, np.float64)
        where = np.ones(a.shape, np.bool_) if counts is None else counts
        one, other = np.ascontiguousarray(a[where]), np.ascontiguousarray(b[where])
        native = one.dtype.newbyteorder("=")
        error, counted = self._errors(one.astype(native, copy=False), other.astype(native, copy=False))
        every = np.zeros(one.shape, np.float64)
        every[counted] = error
        with np.errstate(over="ignore"):
            squared[where] = np.square(every)
            return np.asarray(squared.sum(axis=tuple(range(leading, a.ndim))))

    def _compare(self, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
        """Compare two flat native blocks; return the sum of squared errors."""
        error, _ = self._errors(a, b)
        with np.errstate(over="ignore"):
            return float(np.square(error).sum())

    def _errors(
        self, a: npt.NDArray[Any], b: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | slice]:
        """Take in two flat native blocks; return the error of each value that counts, and which these are."""
        bits = f"u{a.dtype.itemsize}"
        differ = a.view(bits) != b.view(bits)
        counted: npt.NDArray[np.bool_] | slice = slice(None)
        if a.dtype.kind == "f":
            counted = finite = np.isfinite(a)
            self.not_finite_changed += int(np.count_nonzero(differ & ~finite))
            self.count += int(np.count_nonzero(finite))
            self.changed = self.changed or bool(differ.any())
            # A finite value decoded to NaN or infinity is an infinite error, never one that is left out.
            error = np.abs(a[finite].astype(np.float64) - b[finite].astype(np.float64))
            error[~np.isfinite(error)] = np.inf
        else:
            self.count += a.size
            if not differ.any():
                return np.zeros(a.shape, np.float64), counted
            self.changed = True
            error = _integer_distance(a, b)
        self.largest = max(self.largest, float(error.max(initial=0.0)))
        return error, counted

    def result(self) -> Measures:
        """Return the measures of all blocks so far."""
        rmse = math.sqrt(float(self._squares.sum()) / max(1, self.count))
        relative = float((self._squares / np.square(self.ranges.each)).sum()) / max(1, self.count)
        return Measures(
            psnr=-10 * math.log10(relative) if 0 < relative < math.inf else _extreme(relative),
            psnr_range=20 * math.log10(self.ranges.whole / rmse) if 0 < rmse < math.inf else _extreme(rmse),
            rmse=rmse,
            max_error=self.largest,
            lossless=not self.changed,
        )


def compare(original: npt.NDArray[Any], decoded: npt.NDArray[Any], leading: int | None = None) -> Measures:
    """Measure the error of a decoded image that is held in memory.

    Parameters
    ----------
    original, decoded : ndarray
        (..., t, z, y, x), equal in shape and dtype.
    leading : int, optional
        Axes that count measurements; by default all but the last three.
    """
    leading = max(0, original.ndim - 3) if leading is None else leading
    statistics = ErrorStatistics(Ranges.of(original, leading))
    statistics.add(original, decoded)
    return statistics.result()


def _parts(shape: tuple[int, ...], leading: int) -> Iterator[tuple[slice, ...]]:
    """Yield parts of an array along its first `leading` axes, of about `_BLOCK` values."""
    rows = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        part = slice(start, start + rows)
        deeper = _parts(shape[1:], leading - 1) if rows == 1 and leading > 1 else ((),)
        yield from ((part, *rest) for rest in deeper)


def _extremes(
    image: npt.NDArray[Any], leading: int, where: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the smallest and largest finite value of each measurement, and their distance; 1 where that is 0."""
    values, space = image, tuple(range(leading, image.ndim))
    counts = np.ones(image.shape, np.bool_) if where is None else where
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        counts = counts & np.isfinite(values)
        least, most = -np.inf, np.inf
    else:
        values = values.astype(np.uint8) if values.dtype.kind == "b" else values
        least, most = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
    low = np.min(values, axis=space, where=counts, initial=most)
    high = np.max(values, axis=space, where=counts, initial=least)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            spread = high - low
    else:  # the distance of integers is exact modulo 2^64
        spread = (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)
    none = ~counts.any(axis=space)
    lowest, highest = np.where(none, np.inf, low), np.where(none, -np.inf, high)
    return lowest, highest, np.where(none | (spread == 0), 1.0, spread)


def _extreme(error: float) -> float | None:
    return None if error == 0 else -math.inf


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    mask = np.isfinite(values)
    return values if mask.all() else values[mask]


def _blocks(
    a: npt.NDArray[Any], b: npt.NDArray[Any], inside: npt.NDArray[np.bool_] | None
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Yield matching flat pieces of what is inside, in native byte order."""
    native = a.dtype.newbyteorder("=")
    rows = max(1, _BLOCK // max(1, math.prod(a.shape[1:])))
    if a.ndim == 0:
        a, b, inside = a.reshape(1), b.reshape(1), None if inside is None else inside.reshape(1)
    for start in range(0, a.shape[0], rows):
        part = slice(start, start + rows)
        first, second = (v[part] if inside is None else v[part][inside[part]] for v in (a, b))
        yield np.ascontiguousarray(first, native).reshape(-1), np.ascontiguousarray(second, native).reshape(-1)


def _integer_distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return |a - b|; 64-bit values are subtracted as integers, where float64 would round them first."""
    if a.dtype.itemsize < 8:
        distance = np.abs(a.astype(np.int64) - b.astype(np.int64))
    else:
        distance = np.maximum(a, b).view(np.uint64) - np.minimum(a, b).view(np.uint64)
    return np.asarray(distance, np.float64)
