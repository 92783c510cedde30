"""The envelope: a chunk is taken apart into box, border and non-finite values, and put together bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from checks import any_array, check_equal_bits, examples
from hypothesis import assume, given
from hypothesis import strategies as st

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import mask as masks
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError

LITTLE = tuple("|i1 |u1 <i2 <u2 <i4 <u4 <i8 <u8 <f2 <f4 <f8".split())


@given(any_array(LITTLE))
@examples(400)
def test_taking_apart_and_putting_together_gives_every_bit_back(values):
    values = np.ascontiguousarray(values).reshape(values.shape)
    assume(values.size)
    core, envelope = envelopes.split(values)
    assert core.shape == envelope.box_shape
    assert core.dtype.kind != "f" or np.isfinite(core).all()
    written = envelopes.write(envelope, values.shape)
    reader = Reader(memoryview(written))
    again = envelopes.read(reader, values.shape, values.dtype)
    assert reader.remaining == 0
    assert (again.start, again.stop) == (envelope.start, envelope.stop)
    check_equal_bits(envelopes.join(core.copy(), again, values.shape), values)


def test_nan_payloads_minus_zero_and_infinities_are_kept():
    patterns = np.array([0x7FA00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0, 1, 0x3F800000], "<u4")
    values = np.resize(patterns, (5, 7)).view("<f4")
    core, envelope = envelopes.split(values)
    assert envelope.exceptions is not None and envelope.exceptions.sum() == (~np.isfinite(values)).sum()
    check_equal_bits(envelopes.join(core, envelope, values.shape), values)


def test_a_constant_border_is_left_out_of_the_box():
    values = np.full((6, 7, 8), -3, "<i2")
    values[2:5, 0:4, 6] = np.arange(12).reshape(3, 4)
    core, envelope = envelopes.split(values)
    assert (envelope.start, envelope.stop) == ((2, 0, 6), (5, 4, 7))
    assert core.shape == (3, 4, 1)
    assert np.frombuffer(envelope.fill, "<i2")[0] == -3


def test_a_border_of_nan_is_a_border():
    values = np.full((6, 7), np.nan, "<f4")
    values[1:4, 2:5] = 1.5
    values[2, 3] = np.nan
    core, envelope = envelopes.split(values)
    assert core.shape == (3, 3)
    assert envelope.exceptions is not None and envelope.exceptions.sum() == 1
    assert core[1, 1] == 1.5  # what stands in for it is ordinary


def test_huge_values_beside_non_finite_ones_do_not_overflow():
    values = np.array([1.7e308, 1.6e308, np.nan, 1.7e308, -np.inf, 1.0])
    core, envelope = envelopes.split(values)
    assert np.isfinite(core).all()
    check_equal_bits(envelopes.join(core, envelope, values.shape), values)


def test_a_chunk_without_finite_values_is_put_together():
    values = np.array([[np.nan, np.inf], [-np.inf, np.nan]], "<f2")
    core, envelope = envelopes.split(values)
    assert np.isfinite(core).all()
    check_equal_bits(envelopes.join(core, envelope, values.shape), values)


@given(st.binary(max_size=80), st.sampled_from(["<i2", "<f4", "<f8"]), st.sampled_from([(3, 4), (5,), (2, 2, 2), ()]))
@examples(300)
def test_any_bytes_are_an_envelope_or_refused_by_field(data, dtype, shape):
    try:
        envelope = envelopes.read(Reader(memoryview(data)), shape, np.dtype(dtype))
    except CorruptChunkError as error:
        assert error.field.startswith(("envelope.", "numbers."))
    else:
        assert all(0 <= a < b <= n for a, b, n in zip(envelope.start, envelope.stop, shape, strict=True))


@given(any_array(LITTLE), st.integers(0, 2**32), st.sampled_from([0.02, 0.5, 0.98]))
@examples(200)
def test_under_a_mask_every_bit_inside_comes_back_and_all_else_is_0(values, seed, share):
    values = np.ascontiguousarray(values).reshape(values.shape)
    mask = np.asarray(np.random.default_rng(seed).random(values.shape) < share)
    assume(mask.any() and not mask.all())
    wanted = np.where(mask, values, values.dtype.type(0))
    core, envelope = envelopes.split(wanted, masks.narrow(mask, values.shape))
    assert core.dtype.kind != "f" or np.isfinite(core).all()
    places = np.nonzero(mask)
    assert envelope.start == tuple(int(p.min()) for p in places)
    assert envelope.stop == tuple(int(p.max()) + 1 for p in places)
    reader = Reader(memoryview(envelopes.write(envelope, values.shape)))
    again = envelopes.read(reader, values.shape, values.dtype)
    assert reader.remaining == 0
    core = core.copy()
    core[~np.broadcast_to(again.mask, core.shape)] = 1  # whatever a model makes of it
    check_equal_bits(envelopes.join(core, again, values.shape), wanted)


def test_only_finite_values_inside_count_as_coded():
    values = np.zeros((4, 6, 5), "<f4")
    values[1:3, 2:5] = np.arange(30).reshape(2, 3, 5)
    values[1, 2, 0] = np.nan
    mask = np.zeros((4, 6, 1), bool)
    mask[1, 1:4] = True
    assert envelopes.coded_values(values) == 29
    assert envelopes.coded_values(values, mask) == 14
    assert envelopes.coded_values(values, np.ones((1, 1, 1), bool)) == 29
    assert envelopes.coded_values(values, ~mask.any() & mask) == 0
    constant = np.zeros((4, 6, 1), bool)
    constant[0] = True
    assert envelopes.coded_values(values, constant) == 0


def test_inflating_stops_at_the_size_that_was_asked_for():
    import zlib

    packed = zlib.compress(b"abc" * 100)
    assert envelopes.inflate(packed, 300, "x") == b"abc" * 100
    assert envelopes.inflate(zlib.compress(b""), 0, "x") == b""
    for size in (0, 1, 299, 301, 10**9):
        with pytest.raises(CorruptChunkError) as caught:
            envelopes.inflate(packed, size, "x")
        assert caught.value.field == "x"
