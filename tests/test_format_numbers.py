"""Floating-point values that come from numbers of a simpler type are coded as these, bit for bit."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from checks import any_array, check_equal_bits, decoder, examples, maker, vectors
from hypothesis import assume, given
from hypothesis import strategies as st

from inrstore.chunk import envelope as envelopes
from inrstore.chunk.decode import decode_chunk, decode_region, mode_of
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.frame import Reader, unpack
from inrstore.chunk.modes import find
from inrstore.chunk.numbers import PRODUCT, QUOTIENT, Linear, Narrow, Table
from inrstore.chunk.numbers_encode import numbered
from inrstore.chunk.quality import Target
from inrstore.errors import CorruptChunkError

FLOATS = ("<f2", "<f4", "<f8")
FRAME = 60
"""Bytes of a frame's header, checksums and envelope; gzip has about 18 of its own."""


def image(shape: tuple[int, ...] = (12, 32, 36), seed: int = 1, peak: float = 900.0) -> np.ndarray:
    """Return integers like those of a scan: smooth, with noise, and zeros outside."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(a**2 for a in axes) < 0.9
    values = peak * (0.4 + 0.3 * np.sin(3 * axes[0] + 4 * axes[-1])) + rng.normal(0, peak / 60, shape)
    return np.where(inside, np.rint(values), 0).astype("<i4")


def frame_of(values: np.ndarray, **how: object) -> bytes:
    (frame,) = encode_chunks([values], Target(lossless=True), **how)  # type: ignore[arg-type]
    check_equal_bits(decode_chunk(frame), values)
    check_equal_bits(decoder().decode(frame), values)
    return frame


def envelope_of(frame: bytes) -> envelopes.Envelope:
    parsed = unpack(frame)
    return find(parsed.mode).envelope(Reader(parsed.payload), parsed.shape, parsed.dtype)


SCALINGS = {
    "integers": lambda v: v,
    "factor of a header": lambda v: v * float(np.float32(704.172)),
    "small factor": lambda v: v * 1e-9,
    "any factor": lambda v: v * 0.13718281828459045,
    "negative factor": lambda v: v * -0.25,
    "factor and offset of a header": lambda v: v * float(np.float32(0.1)) + float(np.float32(-102.4)),
    "units of a scanner": lambda v: v * 1.0 - 1024.0,
    "division": lambda v: v / 7,
    "division by no integer": lambda v: v / 7.3,
    "share of the largest": lambda v: v / v.max(),
}
CURVES = {
    "mean 0 and deviation 1": lambda v: (v - v.mean()) / v.std(),
    "exponential": lambda v: np.exp(v / 100),
    "logarithm": lambda v: np.log1p(v),
    "square root": lambda v: np.sqrt(v),
    "rounded to float32 on the way": lambda v: v.astype("<f4") * np.float32(0.137) + np.float32(3.3),
}


@pytest.mark.parametrize("dtype", ("<f4", "<f8"))
@pytest.mark.parametrize("name", SCALINGS)
def test_scaled_integers_cost_what_integers_cost(name, dtype):
    values = image()
    plain, scaled = frame_of(values), frame_of(SCALINGS[name](values.astype("<f8")).astype(dtype))
    numbers = envelope_of(scaled).numbers
    assert isinstance(numbers, Linear)
    assert len(scaled) <= len(plain) * 1.02 + 40


@pytest.mark.parametrize("dtype", ("<f4", "<f8"))
@pytest.mark.parametrize("name", CURVES)
def test_a_function_of_integers_costs_these_and_a_table(name, dtype):
    values = image()
    plain, curved = frame_of(values), frame_of(CURVES[name](values.astype("<f8")).astype(dtype))
    numbers = envelope_of(curved).numbers
    assert isinstance(numbers, Table)
    assert len(curved) <= len(plain) * 1.02 + len(numbers.write())
    assert len(curved) < 0.75 * len(gzip.compress(CURVES[name](values.astype("<f8")).astype(dtype).tobytes(), 9))


def test_more_integers_than_a_table_holds_are_integers():
    rng = np.random.default_rng(3)
    values = np.cumsum(rng.integers(-900, 1000, (60, 60, 60)), axis=2) * 1000 + rng.integers(0, 999, (60, 60, 60))
    for dtype in ("<f8", "<f4"):
        numbers = envelope_of(frame_of((values if dtype == "<f8" else values // 8).astype(dtype))).numbers
        assert numbers is not None
        assert numbers.dtype.kind in "iu"


def test_values_that_float32_holds_are_coded_as_float32():
    values = np.random.default_rng(4).normal(size=(40, 50, 60)).astype("<f4")
    wide, narrow = frame_of(values.astype("<f8")), frame_of(values)
    assert envelope_of(wide).numbers == Narrow(np.dtype("<f4"))
    assert len(wide) <= len(narrow) + 8


@pytest.mark.parametrize("dtype", ("<f4", "<f8"))
def test_odd_values_are_exceptions_and_all_others_still_numbers(dtype):
    kind = np.dtype(dtype)
    values = (image() / 7).astype(kind)
    bits = values.reshape(-1).view(f"<u{kind.itemsize}")
    top = 1 << (8 * kind.itemsize - 1)
    infinite = int(np.array(np.inf, kind).view(bits.dtype))
    bits[[5, 700, 701, 702, 7000, 9001]] = [top, infinite, top | infinite, infinite | 1, top | infinite | 12345, top]
    around = envelope_of(frame_of(values))
    assert isinstance(around.numbers, Linear)
    assert around.values is not None and around.values.size == 6


def test_nan_outside_a_head_costs_little():
    values = image()
    empty = np.where(values > 0, values, np.nan).astype("<f4")
    assert len(frame_of(empty)) < 1.2 * len(frame_of(values))


@pytest.mark.parametrize("dtype", ("<f2", "<f4", "<f8"))
def test_subnormal_values_come_back(dtype):
    values = (image(peak=500).astype(f"<u{np.dtype(dtype).itemsize}")).view(dtype)
    frame = frame_of(values)
    assert dtype == "<f2" or envelope_of(frame).numbers is not None


def test_numbers_live_inside_a_mask():
    values, rng = image(), np.random.default_rng(5)
    mask = values > 0
    garbage = np.where(mask, values / 7, rng.normal(size=values.shape))
    (frame,) = encode_chunks([garbage], Target(lossless=True), masks=[mask])
    check_equal_bits(decode_chunk(frame), np.where(mask, garbage, 0.0))
    assert isinstance(envelope_of(frame).numbers, Linear)


def test_a_part_of_a_chunk_is_made_of_a_part_of_its_numbers():
    frame = vectors("uncommon")["numbers-siren"]
    mode = mode_of(frame)
    assert mode is not None and mode.decode_part is not None
    whole = decode_chunk(frame)
    for part in ((2, slice(None), slice(1, 7, 2)), (slice(0, 3), slice(4, 5), 3)):
        check_equal_bits(np.asarray(decode_region(frame, part)), np.asarray(whole[part]))


# ---- any values --------------------------------------------------------------------------------------------


@given(any_array(FLOATS))
@examples(300)
def test_numbers_of_any_values_give_every_bit_back(values):
    values = np.ascontiguousarray(values).reshape(values.shape)
    assume(values.size and values.ndim)
    core, around = numbered(values, envelopes.whole(values.shape))
    made = around.values_of(core.copy(), values.dtype)
    check_equal_bits(envelopes.join(made, around, values.shape), values)
    written = envelopes.write(around, values.shape)
    reader = Reader(memoryview(written))
    again = envelopes.read(reader, values.shape, values.dtype)
    assert reader.remaining == 0 and again.coded(values.dtype) == core.dtype
    check_equal_bits(envelopes.join(again.values_of(core.copy(), values.dtype), again, values.shape), values)


@given(
    st.sampled_from(FLOATS),
    st.sampled_from((PRODUCT, QUOTIENT)),
    st.floats(1e-30, 1e30),
    st.floats(-1e6, 1e6),
    st.integers(0, 2**32),
    st.sampled_from((3, 200, 40_000)),
)
@examples(200)
def test_any_line_of_integers_gives_every_bit_back(dtype, coding, factor, offset, seed, peak):
    given_numbers = np.random.default_rng(seed).integers(-peak, peak + 1, 3000)
    with np.errstate(over="ignore", under="ignore"):
        values = Linear(np.dtype("<i4"), coding, factor, offset).values(given_numbers.astype("<i4"), np.dtype(dtype))
    core, around = numbered(values, envelopes.whole(values.shape))
    check_equal_bits(envelopes.join(around.values_of(core.copy(), values.dtype), around, values.shape), values)


@given(st.integers(-(2**31), 2**31 - 1), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.sampled_from((0, 1)))
@examples(400)
def test_a_product_or_quotient_is_rounded_before_the_sum(number, factor, offset, quotient):
    assume(factor != 0)
    exact = Fraction(number) / Fraction(factor) if quotient else Fraction(number) * Fraction(factor)
    assume(abs(exact) < 1e300)
    rounded = float(exact)  # Python rounds fractions once, to nearest even
    wanted = float(Fraction(rounded) + Fraction(offset))
    line = Linear(np.dtype("<i4"), (PRODUCT, QUOTIENT)[quotient], factor, offset)
    (found,) = line.values(np.array([number], "<i4"), np.dtype("<f8"))
    assert found == wanted


# ---- never larger than gzip --------------------------------------------------------------------------------


def fields() -> dict[str, np.ndarray]:
    """Return floating-point chunks of many kinds."""
    rng, values = np.random.default_rng(6), image()
    x = np.linspace(0, 3, 24)
    smooth = np.sin(x)[:, None, None] + np.sin(2 * x)[:, None] * np.cos(x)
    share = np.where(values > 0, rng.random(values.shape) ** 2, 0)
    repeated = np.tile(rng.normal(size=(1, 24, 24)), (16, 1, 1))
    return {
        "noise": rng.normal(size=(20, 24, 24)), "uniform noise": rng.random((20, 24, 24)), "smooth": smooth,
        "smooth on a plain": smooth + 1e4, "share with zeros": share, "repeated slices": repeated,
        "few values": rng.choice(rng.normal(size=5), (20, 24, 24)), "labels": values // 200 * 1.1,
        "noise of a head": np.where(values > 0, values + rng.normal(size=values.shape), 0),
        "small": rng.normal(size=(3, 4)), "mostly zero": np.where(rng.random((16, 24, 24)) < 0.02, 1.5, 0.0),
        "text of digits": np.round(rng.normal(size=(20, 24, 24)), 3),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", fields())
def test_no_chunk_of_floats_is_larger_than_gzip_makes_it(name, dtype):
    values = fields()[name].astype(dtype)
    assert len(frame_of(values)) <= len(gzip.compress(values.tobytes(), 9)) + FRAME


# ---- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", (2**16 + 1, 2**31, 2**32 - 1))
def test_a_table_of_more_entries_than_numbers_reach_is_refused_before_it_is_made(count):
    bad = maker("frames").patch(vectors("subset")["numbers-table-f4"], 3, struct.pack("<I", count))
    tracemalloc.start()
    with pytest.raises(CorruptChunkError) as caught:
        decode_chunk(bad)
    assert caught.value.field == "numbers.entries"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@given(st.binary(max_size=60), st.sampled_from(FLOATS))
@examples(300)
def test_any_bytes_are_numbers_or_refused_by_field(data, dtype):
    whole = b"\x08" + data
    try:
        around = envelopes.read(Reader(memoryview(whole)), (3, 4), np.dtype(dtype))
    except CorruptChunkError as error:
        assert error.field.startswith("numbers.")
    else:
        assert around.numbers is not None
