"""Make frames in mode av1 from the streams of `av1_streams`, and the valid vectors of the mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.av1.decode import Header
from inrstore.chunk.encode import seal
from inrstore.chunk.envelope import Envelope

from .av1_streams import delayed, stream, units_of
from .frames import Array, ball, boxed, like, with_exceptions, with_mask
from .inloop import ALL, CUBE, Filter

Vectors = Iterator[tuple[str, bytes]]


@dataclass(frozen=True, kw_only=True)
class Film:
    """A stream and its header to order; the names are those of the specification, section 15.1.

    Parameters
    ----------
    name : str
        Of a stream in `av1_streams`.
    rows, columns : int
        The last two axes by default.
    shift, exponent, low, high, gain, offset : int
        By default, samples of -412..612.
    correction : Filter, optional
        Of sixteenths of samples, as gain and offset are then.
    """

    name: str
    rows: int = -2
    columns: int = -1
    shift: int = 4
    exponent: int = 0
    low: int = -(2**31)
    high: int = 2**31 - 1
    gain: int = 16
    offset: int = -412 << 4
    correction: Filter | None = None

    def header(self, dtype: np.dtype[Any], ndim: int) -> Header:
        """Return the header; low and high are brought within the type."""
        low, high, unit = self.low, self.high, 2**self.exponent
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            low, high = max(low, -(-int(info.min) // unit)), min(high, int(info.max) // unit)
        elif dtype.itemsize == 2:
            low, high = max(low, int(-65504 / unit)), min(high, int(65504 / unit))
        correction = None if self.correction is None else self.correction.build(1)
        return Header(self.rows % ndim, self.columns % ndim, self.shift, self.exponent, low, high, self.gain,
                      self.offset, correction)  # fmt: skip


def av1_frame(values: Array, film: Film, envelope: Envelope | None = None, data: bytes | None = None) -> bytes:
    """Return a frame; `values` gives shape, dtype and layout, `data` a stream that is not one of those kept."""
    envelope = envelope or envelopes.whole(values.shape)
    payload = film.header(values.dtype, values.ndim).write() + (stream(film.name) if data is None else data)
    return seal(modes.AV1, values, envelopes.write(envelope, values.shape) + payload)


def _late(name: str, frames: int | None, *, level: int | None = None) -> bytes:
    """Return a stream with a display delay."""
    sequence, *others = units_of(stream(name))
    return b"".join([delayed(sequence, frames, level=level), *others])


def subset_av1() -> Vectors:
    """Yield the common ones."""
    three, odd = Film(name="three"), Film(name="odd")
    yield "av1-i2-2d", av1_frame(like((64, 64), "<i2"), Film(name="one"))
    yield "av1-u1-2d-short-sides", av1_frame(like((33, 21), "u1"), Film(name="fine", gain=4, offset=0))
    yield "av1-i1-3d", av1_frame(like((3, 20, 64), "i1"), Film(name="three", gain=3, offset=-1300))
    yield "av1-i2-3d", av1_frame(like((3, 64, 64), "<i2"), three)
    yield "av1-i2-3d-display-delay", av1_frame(like((3, 64, 64), "<i2"), three, data=_late("three", 6))
    yield "av1-i2-3d-odd-sides", av1_frame(like((2, 71, 67), "<i2"), odd)
    yield "av1-u2-3d-hidden-frames", av1_frame(like((12, 40, 30), "<u2"), Film(name="twelve", gain=700, offset=3))
    yield "av1-i2-3d-wide", av1_frame(like((2, 50, 130), "<i2"), Film(name="wide"))
    yield "av1-i4-3d-exponent", av1_frame(like((3, 40, 50), "<i4"), Film(name="three", exponent=9))
    yield "av1-f4-3d", av1_frame(like((3, 30, 40), "<f4"), Film(name="three", exponent=-7, gain=1000))
    yield "av1-f2-2d", av1_frame(like((45, 60), "<f2"), Film(name="fine", exponent=-3))
    yield "av1-f8-3d", av1_frame(like((2, 71, 67), "<f8"), Film(name="odd", exponent=-30, shift=11, gain=2**32 - 5))
    yield "av1-i2-4d-one-channel", av1_frame(like((1, 3, 40, 50), "<i2"), three)
    yield "av1-i2-4d-one-channel-last", av1_frame(like((3, 40, 50, 1), "<i2"), Film(name="three", rows=1, columns=2))
    for rows, columns in ((0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)):
        shape = [3, 3, 3]
        shape[rows], shape[columns] = 41, 34
        film = Film(name="three", rows=rows, columns=columns)
        yield f"av1-i2-3d-rows-{rows}-columns-{columns}", av1_frame(like(tuple(shape), "<i2"), film)
    yield "av1-i2-3d-clamped", av1_frame(like((3, 40, 50), "<i2"), Film(name="three", low=-200, high=150))
    box = boxed((1, 0, 2), (4, 41, 50), np.array(-7, "<i2"))
    yield "av1-i2-3d-box", av1_frame(like((6, 45, 50), "<i2"), three, box)
    mask = with_mask(envelopes.whole((3, 30, 32)), ball((3, 30, 32)), np.zeros((), "<i2"))
    yield "av1-i2-3d-mask", av1_frame(like((3, 30, 32), "<i2"), three, mask)
    mild = Filter(seed=500, offsets=CUBE, shifts=5, difference_shifts=3, amplitude=300.0, offset=100)
    yield "av1-i2-3d-corrected", av1_frame(like((3, 30, 40), "<i2"), Film(name="three", shift=8, correction=mild))
    values = like((3, 20, 22), "<f4")
    missing = with_exceptions(envelopes.whole(values.shape), "<f4", 50)
    yield "av1-f4-3d-exceptions", av1_frame(values, Film(name="three", exponent=-4), missing)


def uncommon_av1() -> Vectors:
    """Yield the uncommon ones: fields at their limits, gray sequences, odd shapes and orders."""
    small, wide = like((3, 12, 13), "<i2"), like((3, 12, 13), "<f4")

    def one(name: str, values: Array, film: str = "three", **fields: int) -> tuple[str, bytes]:
        return f"av1-{name}", av1_frame(values, Film(name=film, **fields))

    # streams of another encoder
    yield one("i2-gray", like((3, 64, 64), "<i2"), "gray")
    yield one("f4-gray", wide, "gray", exponent=-9)
    yield one("i2-screen-content", like((3, 64, 64), "<i2"), "screen")
    long = b"".join(u[:1] + bytes([u[1] | 128, 128, 128, 0]) + u[2:] for u in units_of(stream("three")))
    yield "av1-i2-unit-sizes-of-4-bytes", av1_frame(small, Film(name="three"), data=long)
    for name, late in (("flag-alone", _late("three", None)), ("10", _late("three", 10)),
                       ("10-tier", _late("three", 10, level=8)), ("gray", _late("gray", 1))):  # fmt: skip
        yield f"av1-i2-display-delay-{name}", av1_frame(like((3, 64, 64), "<i2"), Film(name="three"), data=late)
    # shapes and axes
    yield one("i2-one-value", like((1, 1), "<i2"), "one")
    yield one("i2-8d", like((1, 2, 9, 2, 1, 8, 3, 1), "<i2"), "twelve", rows=5, columns=2)
    yield one("i2-two-axes-of-frames", like((3, 10, 4, 11), "<i2"), "twelve", rows=1, columns=3)
    yield one("i2-frames-last", like((10, 11, 3, 2, 2), "<i2"), "twelve", rows=0, columns=1)
    yield one("i2-line", like((1, 1, 3, 40), "<i2"), "three", rows=0, columns=3)
    yield one("u1-columns-first", like((64, 64, 3), "u1"), rows=1, columns=0, gain=4, offset=0)
    yield one("i2-odd-sides-rows-last", like((67, 2, 71), "<i2"), "odd", rows=2, columns=0)
    # fields at their limits
    yield one("i2-shift-1", small, shift=1, gain=1, offset=-300)
    yield one("i2-shift-45", small, shift=45, gain=2**32 - 1, offset=2**44 - (300 << 32))
    yield one("i4-gain-2to32", like((3, 12, 13), "<i4"), shift=11, gain=2**32 - 1, offset=-(2**41))
    yield one("i2-gain-1", small, gain=1, offset=7)
    yield one("i8-offset-2to52", like((3, 12, 13), "<i8"), shift=22, gain=2**32 - 1, offset=2**52 - 1)
    yield one("i8-offset-minus-2to52", like((3, 12, 13), "<i8"), shift=22, gain=2**32 - 1, offset=1 - 2**52)
    yield one("i2-halves-rounded-up", small, shift=1, gain=3, offset=-1537)
    yield one("i2-low-is-high", small, low=12, high=12)
    yield one("i4-all-bits", like((3, 12, 13), "<i4"), shift=1, gain=2**23, offset=-(2**32))
    yield one("u4-exponent-4", like((3, 12, 13), "<u4"), exponent=4, gain=2**20, offset=0)
    yield one("i8-exponent-40", like((3, 12, 13), "<i8"), exponent=40, gain=2**17, offset=-(2**26))
    yield one("u8-2to63", like((3, 12, 13), "<u8"), exponent=33, low=0, shift=1, gain=2**22, offset=0)
    yield one("f4-exponent-minus-100", wide, exponent=-100)
    yield one("f4-exponent-97", wide, exponent=97, low=-(2**31) + 128, high=2**31 - 128, shift=1, gain=2**23,
              offset=-(2**32))  # fmt: skip
    yield one("f8-exponent-100", like((3, 12, 13), "<f8"), exponent=100)
    yield one("f2-subnormal", like((3, 12, 13), "<f2"), exponent=-26)
    yield one("f2-rounded", like((3, 12, 13), "<f2"), exponent=-3, gain=4099)

    # corrections
    def corrected(name: str, values: Array, film: str = "three", *, rows: int = -2, columns: int = -1,
                  **fields: Any) -> tuple[str, bytes]:  # fmt: skip
        what = Filter(**{"seed": len(name), "shifts": 5, "amplitude": 400.0, **fields})
        exponent = -9 if values.dtype.kind == "f" else 0
        made = Film(name=film, rows=rows, columns=columns, shift=8, exponent=exponent, correction=what)
        return f"av1-corrected-{name}", av1_frame(values, made)

    yield corrected("one-frame", like((33, 21), "<i2"), "one")
    yield corrected("two-axes-of-frames", like((3, 10, 4, 11), "<i2"), "twelve", rows=1, columns=3)
    yield corrected("columns-first", like((34, 41, 3), "<i2"), rows=1, columns=0)
    yield corrected("odd-sides", like((2, 71, 67), "<i2"), "odd", offsets=ALL, widths=(5,), spread=3)
    yield corrected("f4", wide, density=0.3, widths=(4, 3), activations="sine relu")
    yield corrected("beyond-the-samples", like((3, 20, 22), "<i2"), amplitude=60_000.0)
    yield corrected("differences-alone", small, shifts=40, difference_shifts=0)
    # layouts and envelopes
    yield one("i2-big-endian", like((3, 12, 13), ">i2"))
    yield one("f4-fortran-big-endian", like((3, 12, 13), ">f4", "F"), exponent=-3)
    odd = with_exceptions(boxed((0, 1, 2), (3, 12, 13), np.full((), np.nan, "<f4")), "<f4", 51)
    odd = with_mask(odd, ball((1, 11, 11)), np.full((), np.nan, "<f4"))
    yield "av1-f4-box-mask-exceptions", av1_frame(wide, Film(name="three", exponent=-2), odd)
