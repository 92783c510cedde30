"""Make frames in mode transform from random coefficients and fields, which need not make sense.

Everything is of fixed seeds and in integers. The valid vectors of the mode are in `transform_valid`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.decode import values_of
from inrstore.chunk.encode import seal
from inrstore.chunk.entropy.bits import pack_bits
from inrstore.chunk.entropy.contexts import contexts as context_of
from inrstore.chunk.entropy.rans import rows_of, write
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.frame import Frame
from inrstore.chunk.transform.adaptive import CONTEXTS, FLAG_BITS, SIZE_BITS, Model, low_bits
from inrstore.chunk.transform.contexts import Singles
from inrstore.chunk.transform.decode import ESCAPE, ORDER
from inrstore.chunk.transform.header import Header, arrangement, kinds_of, name_of
from inrstore.chunk.transform.scan import scan
from inrstore.chunk.transform.subbands import Subband, Triple, halved, subbands_of
from inrstore.chunk.transform.trellis import NEXT
from inrstore.errors import LimitExceededError

from .frames import Array, ball, boxed, with_exceptions, with_mask
from .inloop import Filter, any_filter, take_apart
from .matrices import size_of

Ints = npt.NDArray[np.int64]
Pieces = dict[str, bytes]
_WEIGHTS = (26, 26, 26, 26, 26, 5, 26, 5, 100)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Fields to order; None leaves one to the maker. The names are those of the specification, section 14.

    Parameters
    ----------
    seed : int
    axis : int, optional
    levels : tuple of int, optional
    components : int, optional
    biases : tuple of int
    shift, offset_shift, exponent, low, high : int
        `low` and `high` default to -2000 and 2000.
    gains, offsets : int or sequence of int
    column_shifts : sequence of int, optional
    basis : int
        Largest magnitude of its random numbers.
    active : int or sequence of int, optional
        Of each subband; all components by default.
    weights : sequence of int
        A row for all kinds and passes.
    lanes : int
    spread : float
        Of random coefficients.
    density : float
        How many of them are not 0.
    largest : int
        One coefficient of each subband has this magnitude; 0 for none.
    correction : Filter, optional
    trellis : bool
        Coefficients are magnitudes then, of whichever quantiser their place in the trellis says.
    """

    seed: int = 0
    axis: int | None = None
    levels: Triple | None = None
    components: int | None = None
    biases: tuple[int, int] = (-20, -5)
    shift: int = 10
    offset_shift: int = 2
    exponent: int = 0
    low: int = -2000
    high: int = 2000
    gains: int | Sequence[int] = 20
    offsets: int | Sequence[int] = 900
    column_shifts: Sequence[int] | None = None
    basis: int = 50
    active: int | Sequence[int] | None = None
    weights: Sequence[int] = _WEIGHTS
    lanes: int = 2
    spread: float = 2.0
    density: float = 0.5
    largest: int = 0
    correction: Filter | None = None
    trellis: bool = False

    def header(self, box: tuple[int, ...]) -> tuple[Header, list[Subband]]:
        """Return the header for a box, and the subbands."""
        rng = np.random.default_rng(self.seed)
        measurements, lengths = arrangement(box, self.axis)
        levels = _levels(lengths) if self.levels is None else self.levels
        subbands = subbands_of(lengths, levels)
        count = min(measurements, 4, math.prod(lengths)) if self.components is None else self.components
        one = np.ones((1, 1), np.int64)
        basis = rng.integers(-self.basis, self.basis + 1, (measurements, count)) if measurements > 1 else one
        shifts = np.zeros(count, np.int64) if self.column_shifts is None else np.array(self.column_shifts)
        active = np.resize(np.array(count if self.active is None else self.active), len(subbands))
        rows = np.tile(np.array(self.weights, np.int64), (kinds_of(levels), 4, 1))
        gains, offsets = (np.resize(np.array(v, np.int64), measurements) for v in (self.gains, self.offsets))
        header = Header(self.axis, levels, self.biases, self.shift, self.offset_shift, self.exponent, self.low,
                        self.high, gains, offsets, shifts, basis, active, rows,
                        None if self.correction is None else self.correction.build(count), self.trellis)  # fmt: skip
        return header, subbands

    def coefficients(self, header: Header, subbands: Sequence[Subband]) -> list[Ints]:
        """Return random ones, subband by subband."""
        rng = np.random.default_rng(self.seed + 1000)
        out = []
        for subband, count in zip(subbands, header.active, strict=True):
            shape = (int(count), *subband.shape)
            made = np.rint(rng.laplace(0, self.spread, shape)).astype(np.int64) * (rng.random(shape) < self.density)
            if self.largest and made.size:
                made.reshape(-1)[rng.integers(made.size)] = rng.choice([-self.largest, self.largest])
            out.append(made)
        return out


def _levels(lengths: Triple) -> Triple:
    """Return the levels of vectors that do not say: those that leave 6 to 11 of a long axis."""
    z, y, x = (next(times for times in range(9) if halved(n, times) < 12) for n in lengths)
    return z, y, x


class Writer:
    """Takes given values for `scan`, and keeps their symbols."""

    def __init__(self, coefficients: Sequence[Ints], *, trellis: bool = False) -> None:
        self._coefficients, self._model = coefficients, Model(1 + trellis)
        self._trellis, self._state = trellis, 0
        self._symbols: list[tuple[Ints, Ints, int]] = []
        self._fields: list[tuple[Ints, Ints]] = []

    def take(self, subband: int, where: Sequence[tuple[slice, ...]], expected: Singles) -> npt.NDArray[np.int32]:
        """Return the values of a pass."""
        whole = self._coefficients[subband]
        values = np.concatenate([whole[w].reshape(-1) for w in where])
        place, flags = context_of(expected) >> 2, values != 0
        second = self._second(flags) if self._trellis else np.zeros(len(flags), np.int64)
        ones = self._model.flag_counts()[place + CONTEXTS * second]
        rest = (1 << FLAG_BITS) - ones
        self._symbols.append((np.where(flags, ones, rest), np.where(flags, 0, ones), FLAG_BITS))
        self._model.count_flags(place + CONTEXTS * second, flags)
        if flags.any():
            self._sizes(place[flags], np.abs(values[flags]))
        if self._trellis:
            values = np.sign(values) * (2 * np.abs(values) - second)
        return values.astype(np.int32)

    def _second(self, flags: npt.NDArray[np.bool_]) -> Ints:
        """Return 1 for values of the second quantiser."""
        out = []
        for flag in flags.tolist():
            out.append(self._state >> 2)
            self._state = int(NEXT[self._state, int(flag)])
        return np.array(out, np.int64)

    def _sizes(self, place: Ints, magnitude: Ints) -> None:
        counts, width = self._model.size_counts(), low_bits(place)
        whole = (magnitude - 1) >> width
        short = np.minimum(whole, ESCAPE)
        begins = np.cumsum(counts, 1) - counts
        self._symbols.append((counts[place, short], begins[place, short], SIZE_BITS))
        self._model.count_sizes(place, short)
        rest = whole[short == ESCAPE] - ESCAPE
        zeros = np.array([int((r >> ORDER) + 1).bit_length() - 1 for r in rest], np.int64)
        self._fields.append((1 << zeros, zeros + 1))
        self._fields.append((rest + (1 << ORDER) - (1 << (zeros + ORDER)), zeros + ORDER))
        self._fields.append(((magnitude - 1) & ((1 << width) - 1), width))

    def streams(self, lanes: int) -> bytes:
        """Return what follows the header."""
        flat = np.concatenate([values.reshape(-1) for values in self._coefficients])
        negative = (flat[flat != 0] < 0).astype(np.uint8)
        first = np.zeros(16 * lanes, np.uint8)
        first[: len(negative)] = negative[: len(first)]
        signs = np.packbits(negative[len(first) :], bitorder="little").tobytes()
        none = np.zeros(0, np.int64)
        numbers, widths = (np.concatenate([none, *(f[i] for f in self._fields)]) for i in (0, 1))
        packed = pack_bits(numbers, widths)
        counts, starts = (np.concatenate([none, *(s[i] for s in self._symbols)]) for i in (0, 1))
        bits = np.concatenate([none, *(np.full(len(c), b) for c, _, b in self._symbols)])
        words = write(rows_of(counts, starts, lanes, bits), lanes, first)
        return struct.pack("<HI", lanes, len(packed)) + packed + struct.pack("<I", len(signs)) + signs + words


def payload_for(plan: Plan, box: tuple[int, ...], given: Sequence[Ints] | None = None, *, name: bytes = b"") -> bytes:
    """Return the payload behind the envelope; `given` are the coefficients, if not random ones.

    With the name of a shared parameter it has no common fields.
    """
    header, subbands = plan.header(box)
    coefficients = plan.coefficients(header, subbands) if given is None else given
    writer = Writer(coefficients, trellis=plan.trellis)
    scan(subbands, header.active, header.levels, header.weights, writer, trellis=plan.trellis)
    return header.write(name) + writer.streams(plan.lanes)


def transform_frame(like: Array, plan: Plan, envelope: Envelope | None = None,
                    given: Sequence[Ints] | None = None) -> bytes:  # fmt: skip
    """Return a frame; `like` gives shape, dtype and layout."""
    if like.dtype.kind in "iu":  # within the type
        info = np.iinfo(like.dtype)
        low, high = (bound // 2**plan.exponent for bound in (info.min + 2**plan.exponent - 1, info.max))
        plan = replace(plan, low=max(plan.low, int(low)), high=min(plan.high, int(high)))
    envelope = envelope or envelopes.whole(like.shape)
    payload = envelopes.write(envelope, like.shape) + payload_for(plan, envelope.box_shape, given)
    return seal(modes.TRANSFORM, like, payload)


def shared_frame(like: Array, plan: Plan, envelope: Envelope | None = None) -> tuple[bytes, bytes]:
    """Return a frame whose header is a shared parameter, and that parameter."""
    envelope = envelope or envelopes.whole(like.shape)
    parameter = plan.header(envelope.box_shape)[0].parameter()
    around = envelopes.write(envelope, like.shape)
    decoded = values_of(Frame(4, like.dtype, like.shape, 0, memoryview(around + payload_for(plan, envelope.box_shape))))
    named = around + payload_for(plan, envelope.box_shape, name=name_of(parameter))
    return seal(modes.TRANSFORM, like, named, decoded), parameter


def pieces_of(payload: bytes, box: tuple[int, ...]) -> Pieces:
    """Take a payload behind the envelope apart by field."""
    out: Pieces = {}
    at = 0

    def take(name: str, size: int) -> bytes:
        nonlocal at
        out[name] = payload[at : at + size]
        at += size
        return out[name]

    def matrix(name: str, rows: int, columns: int) -> None:
        take(name, size_of(payload[at:], rows, columns))

    corrected = take("flags", 1)[0] & 1
    axis = take("channel_axis", 1)[0]
    measurements, lengths = arrangement(box, None if axis == 255 else axis)
    z, y, x = take("levels", 3)
    components = struct.unpack("<H", take("components", 2))[0]
    for name, size in (("bias", 2), ("shift", 1), ("offset_shift", 1), ("exponent", 1), ("low", 4), ("high", 4)):
        take(name, size)
    matrix("gains", measurements, 2)
    if measurements > 1:
        take("column_shifts", components)
        matrix("basis", measurements, components)
    matrix("weights", 4 * kinds_of((z, y, x)), 9)
    if corrected:
        take_apart(take)
    matrix("active", len(subbands_of(lengths, (z, y, x))), 1)
    lanes = struct.unpack("<H", take("lanes", 2))[0]
    for name in ("bits", "signs"):
        take(f"{name[:-1]}_bytes", struct.unpack("<I", take(name, 4))[0])
    take("states", 4 * lanes)
    take("words", len(payload) - at)
    return out


def joined(pieces: Pieces) -> bytes:
    """Return the payload of fields; a length of None is put right."""
    return b"".join(pieces.values())


def any_frame(seed: int) -> bytes:
    """Return a valid frame of random values, shape, dtype, envelope and fields."""
    rng = np.random.default_rng(seed)

    def one(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    def number(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    shape = tuple(int(n) for n in rng.integers(1, one(4, 9, 20), number(0, 5)))
    while math.prod(shape) > 1500:
        shape = shape[1:]
    values = np.zeros(shape, one(*_DTYPES), order=one("C", "F"))
    kind = values.dtype
    envelope = envelopes.whole(shape)
    if rng.random() < 0.2:
        stop = tuple(number(1, n) for n in shape)
        envelope = boxed(tuple(number(0, n - 1) for n in stop), stop, np.zeros((), kind.newbyteorder("<")))
    if rng.random() < 0.2:
        envelope = with_mask(envelope, ball(envelope.box_shape), np.zeros((), kind.newbyteorder("<")))
    if kind.kind == "f" and rng.random() < 0.3:
        envelope = with_exceptions(envelope, kind.newbyteorder("<").str, seed)
    box = envelope.box_shape
    axis = number(0, len(box) - 1) if box and rng.random() < 0.6 else None
    measurements, lengths = arrangement(box, axis)
    z, y, x = (number(0, (n - 1).bit_length()) for n in lengths)
    components = number(1, min(measurements, math.prod(lengths), 1024))
    spread = one(0.3, 1.0, 3.0, 40.0, 3000.0)
    if kind.kind == "f":
        exponent, low, high = number(-14, 4) if kind.itemsize == 2 else number(-100, 90), -2000, 2000
    else:
        exponent = number(0, 8 * kind.itemsize - 8 if kind.itemsize < 8 else 40)
        low, high = one((-(2**31), 2**31 - 1), (-100, 100), (0, 90))
    shift, basis, offset_shift = number(1, 45), one(1, 50), number(0, 8)
    gains, offsets = rng.integers(1, 65536, measurements), rng.integers(-(2**20), 2**20, measurements)
    if rng.random() < 0.8:  # outputs that are not all beyond the range
        shift = number(max(offset_shift, 6 + basis.bit_length()), 26)
        most = min(65535, 1 << max(0, shift - 8 - basis.bit_length() // 2))
        gains, offsets = rng.integers(1, most + 1, measurements), offsets % 90 << (shift - offset_shift)
    plan = Plan(
        seed=seed, axis=axis, levels=(z, y, x), components=components, biases=(number(-128, 127), number(-128, 127)),
        shift=shift, offset_shift=offset_shift, exponent=exponent, low=low, high=high,
        gains=gains, offsets=offsets, column_shifts=rng.integers(0, one(1, 8), components),
        basis=basis, active=rng.integers(0, components + 1, 57) if rng.random() < 0.5 else None,
        weights=[*(number(0, one(1, 30, 45)) // one(1, 1, 4) for _ in range(8)), one(1, 100, 5000, 400_000)],
        lanes=one(1, 1, 2, 5, 64), spread=spread, density=one(0.02, 0.3, 1.0),
        largest=one(0, 0, 300, 70_000),
    )  # fmt: skip
    if rng.random() < 0.4:
        plan = replace(plan, correction=any_filter(rng, components))
    plan = replace(plan, trellis=rng.random() < 0.5)
    try:
        return transform_frame(values, plan, envelope)
    except LimitExceededError:  # large values times large gains: sums of outputs above 2^53
        return transform_frame(values, replace(plan, gains=1), envelope)


_DTYPES = ("i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", ">i2", ">f4")
