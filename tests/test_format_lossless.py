"""What an encode promises: lossless to the bit, within the bound at every voxel, never much larger than raw."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from checks import DTYPES, KINDS, any_array, check_equal_bits, examples, random_values
from hypothesis import given
from hypothesis import strategies as st

from inrstore.chunk import frame
from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target
from inrstore.errors import ConfigurationError

LOSSLESS = Target(lossless=True)


def check_small(data: bytes, values: np.ndarray) -> None:
    """Check that a frame is never larger than promised."""
    assert len(data) <= values.nbytes + 64
    assert len(data) <= frame.max_encoded_size(values.shape, values.dtype)


def check_lossless(values: np.ndarray) -> None:
    data = encode_chunks([values], LOSSLESS)[0]
    decoded = decode_chunk(data, values.shape, values.dtype)
    assert decoded.dtype == values.dtype
    check_equal_bits(decoded, values)
    if values.ndim > 1 and values.size > 1:
        assert decoded.flags.f_contiguous == values.flags.f_contiguous
        assert decoded.flags.c_contiguous == values.flags.c_contiguous
    check_small(data, values)


@given(any_array())
@examples(400)
def test_lossless_keeps_every_bit(values):
    check_lossless(values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lossless_keeps_every_bit_of_every_dtype(dtype):
    shapes = ((), (1,), (0,), (300,), (1, 1, 1), (7, 1, 9), (5, 0, 3), (12, 15), (6, 7, 8), (3, 4, 5, 6), (2,) * 8)
    for seed, kind in enumerate(KINDS):
        for shape in shapes:
            check_lossless(random_values(shape, dtype, seed, kind))


def test_lossless_shrinks_what_is_smooth():
    values = random_values((32, 32, 16), "<i2", 1, "smooth")
    assert len(encode_chunks([values], LOSSLESS)[0]) < values.nbytes / 5


def test_strided_and_read_only_arrays_are_encoded_and_left_alone():
    base = random_values((12, 14, 10), "<f4", 3, "holes")
    view = base[::2, ::-3, 1:9]
    view.setflags(write=False)
    before = view.tobytes()
    for target in (LOSSLESS, Target(max_error=0.5)):
        decoded = decode_chunk(encode_chunks([view], target)[0])
        assert decoded.shape == view.shape
        assert (np.isnan(decoded) == np.isnan(view)).all()
    assert view.tobytes() == before


def exact_gap(one: np.ndarray, other: np.ndarray) -> Fraction:
    """Return the largest distance of two arrays, in exact arithmetic."""
    number = int if one.dtype.kind in "iu" else lambda v: Fraction(float(v))
    pairs = zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
    return max((Fraction(abs(number(a) - number(b))) for a, b in pairs), default=Fraction(0))


@given(any_array(), st.floats(1e-3, 1e5) | st.integers(1, 10**6))
@examples(400)
def test_max_error_holds_at_every_voxel_exactly(values, bound):
    data = encode_chunks([values], Target(max_error=bound))[0]
    decoded = decode_chunk(data, values.shape, values.dtype)
    check_small(data, values)
    if values.dtype.kind == "b":
        check_equal_bits(decoded, values)
        return
    finite = np.isfinite(values)
    check_equal_bits(decoded[~finite], values[~finite])  # NaN payloads and signs of infinity too
    assert exact_gap(values[finite], decoded[finite]) <= Fraction(bound)


@pytest.mark.parametrize("dtype", ["<i8", "<u8", "<f8", "<f2", "|i1"])
@pytest.mark.parametrize("bound", [0.3, 1, 2.5, 1000, 2.0**52 + 1, 2.0**53 + 2, 1e18, 2.0**63, 1e30])
def test_max_error_holds_at_the_extremes_of_a_type(dtype, bound):
    values = random_values((4, 5, 6), dtype, 8, "holes")
    if dtype == "<f8":
        values[0, 0, :4] = [1.7e308, -1.7e308, 5e-324, 2.0**53]
    decoded = decode_chunk(encode_chunks([values], Target(max_error=bound))[0])
    finite = np.isfinite(values)
    assert exact_gap(values[finite], decoded[finite]) <= Fraction(bound)


@pytest.mark.parametrize("dtype", ["<i2", "<u2", "<f4", "<f8", "|u1"])
def test_a_coarser_bound_takes_fewer_bytes(dtype):
    rng = np.random.default_rng(4)
    values = (rng.normal(100, 25, (12, 13, 14))).clip(0, 255).astype(dtype)
    sizes = [len(encode_chunks([values], Target(max_error=e))[0]) for e in (1, 4, 16)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < values.nbytes / 2


def test_non_finite_values_do_not_make_a_lossy_chunk_lossless():
    rng = np.random.default_rng(4)
    values = rng.normal(100, 25, (12, 13, 14)).astype("<f4")
    plain = len(encode_chunks([values], Target(max_error=8))[0])
    values[::5, ::4, ::3] = np.nan
    values[0, 0, 1], values[-1, -1, -1] = np.inf, -np.inf
    data = encode_chunks([values], Target(max_error=8))[0]
    assert len(data) < plain + values.size / 4 + 200
    finite = np.isfinite(values)
    decoded = decode_chunk(data)
    check_equal_bits(decoded[~finite], values[~finite])
    assert np.abs(decoded[finite] - values[finite]).max() <= 8


def test_the_bound_is_over_the_box_but_borders_are_exact():
    values = np.full((9, 9, 9), 12345, "<i2")
    values[2:6, 2:7, 1:5] = np.random.default_rng(0).integers(-3000, 3000, (4, 5, 4))
    decoded = decode_chunk(encode_chunks([values], Target(max_error=50))[0])
    outside = np.ones(values.shape, bool)
    outside[2:6, 2:7, 1:5] = False
    assert (decoded[outside] == 12345).all()


def test_many_chunks_at_once_are_encoded_as_one_by_one():
    chunks = [random_values((5, 6, 7), d, i, k) for i, (d, k) in enumerate(zip(DTYPES, KINDS * 4, strict=False))]
    targets = [LOSSLESS if i % 2 else Target(max_error=3) for i in range(len(chunks))]
    together = encode_chunks(chunks, targets)
    assert together == [encode_chunks([c], t)[0] for c, t in zip(chunks, targets, strict=True)]
    with pytest.raises(ConfigurationError, match="targets"):
        encode_chunks(chunks, targets[:-1])


def test_a_bound_below_one_keeps_integers_exactly():
    values = random_values((6, 7, 8), "<i2", 1, "smooth")
    check_equal_bits(decode_chunk(encode_chunks([values], Target(max_error=0.999))[0]), values)
    assert math.floor(0.999) == 0
