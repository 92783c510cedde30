"""The vectors of numbers that stand for values (specification section 4.2), and of plain bytes (section 8, kind 3)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from inrstore.chunk import dtypes, modes
from inrstore.chunk import envelope as envelopes
from inrstore.chunk.byteplanes import encode as byteplanes
from inrstore.chunk.encode import seal
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.numbers import NARROW, PRODUCT, QUOTIENT, Linear, Narrow, Numbers, Table
from inrstore.chunk.predictor import encode as predictor

from .frames import Array, Net, ball, boxed, edit, like, patch, payload_of, repack, smooth, with_exceptions, with_mask
from .frames import siren as network

_PLAIN = b"\3\xff"


def numbers_frame(
    numbers: Numbers, given: Array, dtype: str, envelope: Envelope | None = None, shape: tuple[int, ...] | None = None
) -> bytes:
    """Return a frame in mode byteplanes: the numbers `given` of a box, for values of `dtype`."""
    shape = given.shape if shape is None else shape
    envelope = replace(envelope or envelopes.whole(shape), numbers=numbers)
    coded = byteplanes.encode(np.ascontiguousarray(given, numbers.dtype), None, envelope.mask)
    return seal(modes.BYTEPLANES, like(shape, dtype), envelopes.write(envelope, shape) + coded)


def table(entries: Array, differences: int = 0, kind: str = "u1") -> Table:
    """Return a table of values, differenced so many times."""
    pattern = dtypes.ordered(entries)
    for _ in range(differences):
        pattern = np.diff(pattern, prepend=pattern.dtype.type(0))
    planes = np.ascontiguousarray(pattern.reshape(-1, 1).view(np.uint8).T).tobytes()
    packed = zlib.compress(planes, 9)
    return Table(np.dtype(kind).newbyteorder("<"), entries, struct.pack("<BI", differences, len(packed)) + packed)


def plain_frame(values: Array) -> bytes:
    """Return a frame of bytes deflated as they lie."""
    payload = envelopes.write(envelopes.whole(values.shape), values.shape) + _PLAIN + zlib.compress(values.tobytes(), 9)
    return seal(modes.BYTEPLANES, values, payload)


def _kind(name: str) -> np.dtype[np.generic]:
    return np.dtype(name).newbyteorder("<")


def subset_numbers() -> Iterator[tuple[str, bytes]]:
    """Yield the vectors that encoders make every day."""
    given = smooth((6, 7, 8), "<i2", 700)
    yield "numbers-integers-f4", numbers_frame(Linear(_kind("i2"), PRODUCT, 1.0), given, "<f4")
    yield "numbers-integers-f8", numbers_frame(Linear(_kind("i2"), PRODUCT, 1.0), given, "<f8")
    yield "numbers-product-f8", numbers_frame(Linear(_kind("i2"), PRODUCT, 0.1, -102.4), given, "<f8")
    yield "numbers-product-f4", numbers_frame(Linear(_kind("i4"), PRODUCT, 704.172, 3.3), given, "<f4")
    yield "numbers-quotient-f8", numbers_frame(Linear(_kind("i2"), QUOTIENT, 7.0), given, "<f8")
    yield "numbers-quotient-f4", numbers_frame(Linear(_kind("i2"), QUOTIENT, 7.3, 0.5), given, "<f4")
    yield "numbers-narrow-f4-in-f8", numbers_frame(Narrow(_kind("f4")), smooth((5, 6, 7), "<f4", 701), "<f8")
    few = np.exp(np.arange(200) / 20)
    places = smooth((9, 10, 11), "u1", 702, 60.0)
    yield "numbers-table-f8", numbers_frame(table(few, 2), places % 200, "<f8")
    yield "numbers-table-f4", numbers_frame(table(few.astype("<f4"), 1, "u2"), places % 200, "<f4")
    shape = (8, 9, 10)
    around = with_exceptions(with_mask(envelopes.whole(shape), ball(shape), np.zeros((), "<f4")), "<f4", 703)
    given = smooth(shape, "u1", 704, 60.0)
    yield "numbers-integers-f4-mask-exceptions", numbers_frame(
        Linear(_kind("u1"), PRODUCT, 1.0), given, "<f4", around)  # fmt: skip
    given = smooth((16, 20, 24), "<i2", 705)
    line = Linear(_kind("i2"), QUOTIENT, 7.0)
    coded = predictor.encode(given) or b""
    around = replace(envelopes.whole(given.shape), numbers=line)
    yield "numbers-predictor-f8", seal(
        modes.PREDICTOR, like(given.shape, "<f8"), envelopes.write(around, given.shape) + coded)  # fmt: skip
    yield "planes-plain-f4", plain_frame(smooth((5, 6, 7), "<f4", 706))


def uncommon_numbers() -> Iterator[tuple[str, bytes]]:
    """Yield what is valid and seldom."""
    given = smooth((12, 13), "<i4", 710, 1e9)
    for name in ("u1", "i1", "u2", "i2", "u4", "i4"):
        some = given.astype(_kind(name))
        yield f"numbers-of-{name}", numbers_frame(Linear(_kind(name), PRODUCT, -0.37, 1e-300), some, "<f8")
    yield "numbers-overflow-f2", numbers_frame(Linear(_kind("i4"), PRODUCT, 3.0), given, "<f2")
    yield "numbers-overflow-f8", numbers_frame(Linear(_kind("i4"), QUOTIENT, 5e-324, -1.0), given, "<f8")
    yield "numbers-subnormal-f4", numbers_frame(Linear(_kind("i4"), PRODUCT, 1e-52), given, "<f4")
    yield "numbers-subnormal-f8", numbers_frame(Linear(_kind("i2"), QUOTIENT, 1.7e308), given % 1000, "<f8")
    zeros = np.arange(-8, 8).reshape(4, 4)
    yield "numbers-zeros-of-a-negative-factor", numbers_frame(Linear(_kind("i1"), PRODUCT, -2.0), zeros, "<f4")
    yield "numbers-offset-minus-zero", numbers_frame(Linear(_kind("i1"), PRODUCT, -2.0, -0.0), zeros, "<f4")
    yield "numbers-zero-and-an-offset", numbers_frame(Linear(_kind("i1"), PRODUCT, -2.0, 4.0), zeros, "<f4")
    # a fused multiplication and addition would give other bits in most of these
    fused = smooth((13, 14), "<i2", 711)
    yield "numbers-rounded-before-the-sum", numbers_frame(Linear(_kind("i2"), PRODUCT, 0.1, 1e-3 / 3), fused, "<f8")
    halves = np.arange(2048).reshape(32, 64)
    yield "numbers-f2", numbers_frame(Linear(_kind("u2"), QUOTIENT, 3.0, 0.1), halves, "<f2")
    odd = np.array([0, 1, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0x7C00, 0x8000, 0x8001, 0xFC00], "<u2").view("<f2")
    yield "numbers-narrow-f2-in-f4", numbers_frame(Narrow(_kind("f2")), odd, "<f4")
    yield "numbers-narrow-f2-in-f8", numbers_frame(Narrow(_kind("f2")), odd, "<f8")
    patterns = np.array([0x7FA00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0, 1], "<u4").view("<f4")
    yield "numbers-table-of-odd-values", numbers_frame(table(patterns), np.arange(35).reshape(5, 7) % 7, "<f4")
    yield "numbers-table-of-one", numbers_frame(table(np.array([np.pi])), np.zeros((3, 3)), "<f8")
    entries = np.arange(65536, dtype="<f4")
    yield "numbers-table-of-65536", numbers_frame(table(entries, 1, "u2"), np.arange(0, 65536, 771), "<f4")
    entries = np.log(np.arange(1, 70))
    for times in (0, 3, 4):
        yield f"numbers-table-differences-{times}", numbers_frame(table(entries, times), np.arange(69) * 5 % 69, "<f8")
    values = smooth((6, 7), "<i2", 712)
    around = boxed((1, 2), (5, 7), np.array(-0.0))
    yield "numbers-box", numbers_frame(
        Linear(_kind("i2"), PRODUCT, 0.5), values[around.box], "<f8", around, values.shape)  # fmt: skip
    yield "numbers-0d", numbers_frame(Linear(_kind("i2"), QUOTIENT, 3.0), np.array(5), "<f4")
    shape = (6, 7, 8)
    net = Net(seed=713, layers=2, width=8).build(shape)
    around = replace(envelopes.whole(shape), numbers=Linear(_kind("i2"), PRODUCT, 0.1))
    yield "numbers-siren", seal(modes.SIREN, like(shape, "<f4"), envelopes.write(around, shape) + network.write(net))
    around = replace(envelopes.whole((9, 8)), numbers=Narrow(_kind("f2")))
    coded = byteplanes.encode(smooth((9, 8), "<f2", 714), None)
    yield "numbers-big-endian-fortran", seal(
        modes.BYTEPLANES, like((9, 8), ">f4", "F"), envelopes.write(around, (9, 8)) + coded)  # fmt: skip
    for name in ("|b1", "<u2", "<f8", "<i8"):
        yield f"planes-plain-{name.strip('<|')}", plain_frame(smooth((6, 5), "<i4", 715).astype(name))


def faulty_numbers() -> Iterator[tuple[str, bytes, str, str]]:
    """Yield name, bytes, error and field."""
    corrupt, limit = "CorruptChunkError", "LimitExceededError"
    given = smooth((5, 6), "<i2", 720)
    product = numbers_frame(Linear(_kind("i2"), PRODUCT, 0.1, 3.0), given, "<f4")
    narrow = numbers_frame(Narrow(_kind("f2")), smooth((5, 6), "<f2", 721), "<f4")
    places = np.arange(30).reshape(5, 6)
    looked = numbers_frame(table(np.sqrt(np.arange(30)), 1), places, "<f8")
    integers = payload_of(product)[20:]
    yield "numbers-in-integers", edit(product, 6, b"\3"), corrupt, "envelope.flags"
    yield "numbers-in-bool", edit(product, 6, b"\x0c"), corrupt, "envelope.flags"
    yield "numbers-coding-4", patch(product, 1, b"\4"), corrupt, "numbers.coding"
    yield "numbers-coding-missing", repack(product, b"\x08"), corrupt, "numbers.coding"
    yield "numbers-type-missing", repack(product, b"\x08\1"), corrupt, "numbers.type"
    for code, name in ((0, "0"), (4, "i8"), (8, "u8"), (9, "f2"), (10, "f4"), (12, "bool"), (13, "13"),
                       (0x42, "fortran"), (0x82, "big-endian"), (0x8A, "big-endian-f4")):  # fmt: skip
        yield f"numbers-product-of-{name}", patch(product, 2, bytes([code])), corrupt, "numbers.type"
    yield "numbers-quotient-of-u8", patch(patch(product, 1, bytes([QUOTIENT])), 2, b"\x08"), corrupt, "numbers.type"
    for code, name in ((6, "u2"), (10, "f4"), (11, "f8"), (0x49, "fortran"), (0x89, "big-endian")):
        yield f"numbers-narrow-of-{name}", patch(narrow, 2, bytes([code])), corrupt, "numbers.type"
    for code, name in ((1, "i1"), (2, "i2"), (7, "u4"), (9, "f2")):
        yield f"numbers-table-of-{name}", patch(looked, 2, bytes([code])), corrupt, "numbers.type"
    for bad, name in ((0.0, "0"), (-0.0, "minus-0"), (np.inf, "infinite"), (np.nan, "nan")):
        yield f"numbers-factor-{name}", patch(product, 3, struct.pack("<d", bad)), corrupt, "numbers.factor"
    for bad, name in ((-np.inf, "infinite"), (np.nan, "nan")):
        yield f"numbers-offset-{name}", patch(product, 11, struct.pack("<d", bad)), corrupt, "numbers.offset"
    yield "numbers-factor-missing", repack(product, payload_of(product)[:18]), corrupt, "numbers.factor"
    nan = np.full((5, 6), np.nan, "<f2")
    coded = bytes([8, NARROW, 9]) + byteplanes.encode(nan, None)
    yield "numbers-narrow-nan", repack(narrow, coded), corrupt, "numbers.coding"
    hidden = Envelope((0, 0), (5, 6), b"", np.ones((5, 6), bool), np.ones((5, 6), "<f4"), numbers=Narrow(_kind("f2")))
    hidden_nan = envelopes.write(hidden, (5, 6)) + byteplanes.encode(nan, None)
    yield "numbers-narrow-nan-under-exceptions", repack(narrow, hidden_nan), corrupt, "numbers.coding"
    # tables
    at = 3
    yield "numbers-entries-0", patch(looked, at, struct.pack("<I", 0)), limit, "numbers.entries"
    yield "numbers-entries-257", patch(looked, at, struct.pack("<I", 257)), limit, "numbers.entries"
    yield "numbers-entries-2to32", patch(looked, at, struct.pack("<I", 2**32 - 1)), limit, "numbers.entries"
    yield (
        "numbers-entries-65537",
        patch(patch(looked, 2, b"\6"), at, struct.pack("<I", 65537)),
        limit,
        "numbers.entries",
    )
    yield "numbers-entries-too-few", patch(looked, at, struct.pack("<I", 29)), corrupt, "numbers.table"
    yield "numbers-entries-too-many", patch(looked, at, struct.pack("<I", 31)), corrupt, "numbers.table"
    yield "numbers-entries-missing", repack(looked, payload_of(looked)[:5]), corrupt, "numbers.entries"
    yield "numbers-differences-5", patch(looked, at + 4, b"\5"), corrupt, "numbers.differences"
    yield "numbers-differences-missing", repack(looked, payload_of(looked)[:7]), corrupt, "numbers.differences"
    yield "numbers-table-length", patch(looked, at + 5, struct.pack("<I", 2**32 - 1)), corrupt, "numbers.table"
    yield "numbers-table-missing", repack(looked, payload_of(looked)[:10]), corrupt, "numbers.table"
    bomb = zlib.compress(bytes(1 << 20))
    head = bytes([8, 3, 5]) + struct.pack("<IBI", 30, 0, len(bomb)) + bomb
    yield "numbers-table-bomb", repack(looked, head + integers), corrupt, "numbers.table"
    beyond = Linear(_kind("u1"), PRODUCT, 1.0)
    outside = bytes([8]) + table(np.arange(29.0)).write() + payload_of(numbers_frame(beyond, places, "<f8"))[19:]
    yield "numbers-place-beyond-the-table", repack(looked, outside), corrupt, "numbers.entries"
    yield "numbers-steps-of-another-type", repack(product, payload_of(product)[:19] + b"\2" + integers), (
        corrupt), "byteplanes.kind"  # fmt: skip
    # plain bytes
    plain = plain_frame(smooth((5, 6), "<f4", 722))
    yield "planes-plain-channel-axis", patch(plain, 2, b"\0"), corrupt, "byteplanes.channel_axis"
    yield "planes-plain-value-missing", repack(plain, b"\0" + _PLAIN + zlib.compress(bytes(119))), (
        corrupt), "byteplanes.data"  # fmt: skip
    yield "planes-plain-value-too-many", repack(plain, b"\0" + _PLAIN + zlib.compress(bytes(121))), (
        corrupt), "byteplanes.data"  # fmt: skip
    yield "planes-plain-bytes-after", repack(plain, payload_of(plain) + b"\0"), corrupt, "byteplanes.data"
    truth = plain_frame(np.eye(4, dtype=bool))
    yield "planes-plain-bool-2", repack(truth, b"\0" + _PLAIN + zlib.compress(b"\2" * 16)), corrupt, "payload"
