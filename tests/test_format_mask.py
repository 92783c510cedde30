"""Masks: outside costs next to nothing and decodes to 0, inside every promise holds; bitmaps come back exactly."""

from __future__ import annotations

import struct
import time
import tracemalloc

import numpy as np
import pytest
from checks import DTYPES, KINDS, any_array, check_equal_bits, decoder, digest, examples, maker, random_values, vectors
from hypothesis import assume, given
from hypothesis import strategies as st

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import mask as masks
from inrstore.chunk import quality
from inrstore.chunk.decode import decode_chunk, decode_inside, decode_region, describe_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.frame import Reader
from inrstore.chunk.quality import Target
from inrstore.errors import ConfigurationError, CorruptChunkError, LimitExceededError

LOSSLESS = Target(lossless=True)


def ball(*shape: int, radius: float = 1.0) -> np.ndarray:
    """Return a mask that is True within an ellipsoid of a box."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return sum(a**2 for a in axes) <= radius**2


def any_mask(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return a mask of chance: noise or a slab, perhaps the same along some of the axes, perhaps with fewer axes."""
    rng = np.random.default_rng(seed)
    lengths = [1 if rng.random() < 0.3 else n for n in shape]
    lengths = lengths[int(rng.integers(0, len(shape) + 1)) :] if rng.random() < 0.3 else lengths
    mask = np.asarray(rng.random(lengths) < rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]))
    if rng.random() < 0.5:
        for axis, n in enumerate(lengths):
            low, high = sorted(rng.integers(0, n + 1, 2))
            mask = mask | ((np.arange(n) >= low) & (np.arange(n) < high)).reshape(
                [n if a == axis else 1 for a in range(len(lengths))]
            )
    return mask


def round_trip(mask: np.ndarray) -> np.ndarray:
    reader = Reader(memoryview(masks.write(mask)))
    decoded = masks.read(reader, mask.shape, "x")
    assert reader.remaining == 0
    return decoded


# ---- the bitmap --------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 20), max_size=5), st.integers(0, 2**32), st.floats(0, 1))
@examples(200)
def test_a_bitmap_of_any_shape_comes_back_by_both_readers(shape, seed, share):
    assume(np.prod(shape, dtype=np.int64) < 20_000)
    mask = np.asarray(np.random.default_rng(seed).random(shape) < share)
    check_equal_bits(round_trip(mask), mask)
    reader = decoder().Reader(masks.write(mask))
    assert (decoder().decode_mask(reader, shape).reshape(shape) == mask).all()
    assert len(reader.rest) == 0


@pytest.mark.parametrize("shape", [(200_000,), (1, 70_000), (70_000, 1, 1), (3, 1, 40_000), (41, 42, 43)])
def test_long_and_flat_bitmaps_come_back(shape):
    rng = np.random.default_rng(1)
    for mask in (rng.random(shape) < 0.5, rng.random(shape) < 1e-3, np.zeros(shape, bool), np.ones(shape, bool)):
        check_equal_bits(round_trip(mask), mask)


def test_a_smooth_outline_costs_little_and_noise_hardly_more_than_its_bits():
    mask = ball(30, 64, 64)
    surface = sum(int((np.diff(mask.astype(int), axis=a) != 0).sum()) for a in range(3))
    assert len(masks.write(mask)) * 8 < 0.5 * surface
    noise = np.random.default_rng(0).random((64, 64, 64)) < 0.5
    assert len(masks.write(noise)) * 8 < 1.05 * noise.size


def test_a_bitmap_is_decoded_in_bounded_time_and_memory():
    """A long axis would be the slowest of shapes, and noise the slowest of contents."""
    for mask in (np.arange(1 << 22) % 5 > 1, np.random.default_rng(0).random((128, 128, 128)) < 0.5):
        coded = masks.write(mask)
        tracemalloc.start()
        begin = time.process_time()
        masks.read(Reader(memoryview(coded)), mask.shape, "x")
        took, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert took < 5
        assert peak < 8 * max(mask.size, len(coded)) + (4 << 20)


def test_few_lanes_for_a_large_bitmap_are_refused_before_it_is_allocated():
    coded = bytearray(masks.write(np.zeros((8, 8), bool)))
    tracemalloc.start()
    with pytest.raises(LimitExceededError) as caught:
        masks.read(Reader(memoryview(coded)), (1 << 13, 1 << 13), "x")
    struct.pack_into("<H", coded, 0, 2048)
    with pytest.raises(CorruptChunkError, match="states"):
        masks.read(Reader(memoryview(coded)), (1 << 13, 1 << 13), "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.field == "x.lanes"
    assert peak < 1 << 20


@given(st.binary(max_size=120), st.sampled_from([(), (9,), (5, 6), (3, 4, 5)]))
@examples(200)
def test_any_bytes_are_a_bitmap_or_refused_by_field(data, shape):
    try:
        assert masks.read(Reader(memoryview(b"\1\0" + data)), shape, "x").shape == shape
    except CorruptChunkError as error:
        assert error.field.startswith("x.")


# ---- chunks ------------------------------------------------------------------------------------------------


def check_masked(values: np.ndarray, mask: np.ndarray, target: Target) -> None:
    """Encode with a mask; check what is inside, what is outside, the marks, and that both readers agree."""
    data = encode_chunks([values], target, masks=[mask])[0]
    decoded = decode_chunk(data, values.shape, values.dtype)
    inside = np.broadcast_to(mask, values.shape)
    little = values.dtype.newbyteorder("<")
    wanted, found = np.asarray(values, little), np.asarray(decoded, little)
    assert decoded.dtype == values.dtype
    assert not found[~inside].tobytes().strip(b"\0")
    if target.lossless:
        check_equal_bits(found[inside], wanted[inside])
    elif target.max_error is not None:
        assert quality.meets(wanted[inside], found[inside], target)
    elif inside.any():
        _, envelope = envelopes.split(np.where(inside, wanted, little.type(0)), masks.narrow(mask, values.shape))
        box = envelope.box if not inside.all() else None
        if not inside.all():
            assert quality.meets(wanted[box], found[box], target, None, inside[box])
    marks = decode_inside(data, values.shape, values.dtype)
    assert marks.dtype == bool and marks.shape == values.shape
    assert (marks == inside).all()
    assert digest(decoder().decode(data)) == digest(decoded)


@given(any_array(), st.integers(0, 2**32))
@examples(250)
def test_lossless_keeps_every_bit_inside_a_mask_of_any_kind(values, seed):
    check_masked(values, any_mask(values.shape, seed), LOSSLESS)


@given(any_array(), st.integers(0, 2**32), st.sampled_from([0.5, 3, 1000.0]))
@examples(150)
def test_a_bound_holds_inside_a_mask_of_any_kind(values, seed, bound):
    check_masked(values, any_mask(values.shape, seed), Target(max_error=bound))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_keeps_its_mask(dtype):
    for seed, kind in enumerate(KINDS):
        values = random_values((3, 5, 6, 4), dtype, seed, kind)
        for target in (LOSSLESS, Target(max_error=2)):
            check_masked(values, ball(5, 6, 4), target)
            check_masked(np.asfortranarray(values), ball(3, 5, 6, 4), target)


def test_a_mask_without_anything_outside_changes_no_byte():
    values = random_values((5, 6, 7), "<i2", 1, "smooth")
    for target in (LOSSLESS, Target(max_error=3)):
        plain = encode_chunks([values], target)
        assert encode_chunks([values], target, masks=[None]) == plain
        assert encode_chunks([values], target, masks=[np.ones((7,), bool)]) == plain


def test_a_chunk_outside_its_mask_costs_a_few_bytes_and_says_that_it_is_outside():
    values = random_values((9, 20, 20), "<f4", 1, "noise")
    data = encode_chunks([values], Target(max_error=1), masks=[np.zeros((1,), bool)])[0]
    assert len(data) < 48 and describe_chunk(data).mode == "constant"
    assert not decode_inside(data).any() and not decode_chunk(data).any()
    zeros = encode_chunks([np.zeros_like(values)], LOSSLESS)[0]
    assert decode_inside(zeros).all()


def test_values_outside_are_not_looked_at():
    values = random_values((4, 9, 10), "<f4", 3, "smooth")
    mask = ball(9, 10)
    for target in (LOSSLESS, Target(max_error=0.5)):
        plain = encode_chunks([values], target, masks=[mask])
        for other in (np.nan, np.inf, 1e38, -7.0):
            assert encode_chunks([np.where(mask, values, np.float32(other))], target, masks=[mask]) == plain
    assert values.all()


@pytest.mark.parametrize("dtype", ["<i2", "<f4", "|u1"])
@pytest.mark.parametrize("target", [LOSSLESS, Target(max_error=2)], ids=["lossless", "max_error"])
def test_a_sphere_costs_less_than_half_of_its_noisy_volume(dtype, target):
    rng = np.random.default_rng(5)
    values = rng.normal(100, 20, (40, 40, 40)).clip(0, 255).astype(dtype)
    full = encode_chunks([values], target)[0]
    masked = encode_chunks([values], target, masks=[ball(40, 40, 40, radius=0.9)])[0]
    assert describe_chunk(masked).mode in ("byteplanes", "predictor")
    assert len(masked) < len(full) / 2


def test_what_lies_outside_costs_little_along_every_axis():
    """Noise that is the same along an axis: differences along it must not be spoilt by the mask."""
    rng = np.random.default_rng(6)
    mask = ball(24, 24, 24)
    for axis in range(3):
        shape = [24, 24, 24]
        shape[axis] = 1
        values = np.broadcast_to(rng.integers(0, 200, shape), (24, 24, 24)).astype("u1")
        full = encode_chunks([values], LOSSLESS)[0]
        masked = encode_chunks([values], LOSSLESS, masks=[mask])[0]
        assert len(masked) < len(full) + len(masks.write(mask)) + 1500


@pytest.mark.parametrize("name", [n for n in vectors("subset", "uncommon") if "mask" in n or "outside" in n])
def test_a_part_of_a_masked_chunk_is_the_slice_of_the_whole(name):
    data = vectors("subset", "uncommon")[name]
    whole, inside = decode_chunk(data), decode_inside(data)
    assert inside.shape == whole.shape
    rng = np.random.default_rng(7)
    for _ in range(20):
        part = tuple(
            int(rng.integers(-n, n)) if rng.random() < 0.3
            else slice(*sorted(rng.integers(-1, n + 1, 2).tolist()), int(rng.choice([1, 2, 3])))
            if rng.random() < 0.6 else slice(None, None, int(rng.choice([-1, -2])))
            for n in whole.shape
        )  # fmt: skip
        check_equal_bits(np.asarray(decode_region(data, part)), np.asarray(whole[part]))


def test_what_is_outside_is_the_fill_value_whatever_is_coded_there():
    data = vectors("subset")["siren-i2-4d-mask-box"]
    inside, values = decode_inside(data), decode_chunk(data)
    assert 0 < inside.mean() < 0.6
    assert not values[~inside].any() and np.abs(values[inside]).max() > 100


def test_masks_that_do_not_fit_are_refused():
    values = random_values((3, 4, 5), "<i2", 1, "noise")
    for wrong in (np.ones((4, 4), bool), np.ones((2, 3, 4, 5), bool), np.ones((4, 5), "u1"), np.ones((0,), bool)):
        with pytest.raises(ConfigurationError, match="mask"):
            encode_chunks([values], LOSSLESS, masks=[wrong])
    with pytest.raises(ConfigurationError, match="2 masks for 1 chunks"):
        encode_chunks([values], LOSSLESS, masks=[None, None])


def test_damage_to_a_mask_is_found():
    data = vectors("subset")["planes-exact-i2-mask"]
    tool = maker()
    payload = bytearray(tool.payload_of(data))
    missed = []
    for at in range(3, 8 + struct.unpack_from("<I", payload, 4)[0]):
        for bit in range(8):
            payload[at] ^= 1 << bit
            try:
                decode_chunk(tool.repack(data, bytes(payload)))
                missed.append((at, bit))
            except CorruptChunkError:
                pass
            payload[at] ^= 1 << bit
    # A table that is never used, or a few slots more for a symbol that does not come, decode to the same values.
    assert len(missed) < 8 * 2 * 19 / 2, missed


# ---- networks ----------------------------------------------------------------------------------------------


@pytest.mark.fit
@pytest.mark.parametrize("varies", [False, True], ids=["of space", "of every measurement"])
def test_a_network_is_fitted_to_what_is_inside(varies):
    pytest.importorskip("torch")
    from inrstore.options import EncodeOptions

    options = EncodeOptions(preset="fast", mode="siren", device="cpu", threads=1)
    rng = np.random.default_rng(0)
    space = ball(10, 30, 32)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in space.shape), indexing="ij")
    image = 400 * np.exp(-sum(a**2 for a in axes)) + 60 * np.sin(4 * axes[0] + 3 * axes[-1])
    chunk = np.stack([image * (0.4 + 0.6 * np.cos(c + axes[1]) ** 2) for c in range(6)]) + 100
    chunk = chunk + rng.normal(0, 2, chunk.shape)
    chunk = np.where(space, chunk, rng.uniform(0, 4000, chunk.shape)).astype("<i2")
    mask = space[None] & (np.ones((6, 1, 1, 1), bool) if not varies else np.ones(chunk.shape, bool))
    if varies:
        mask[3, 4] = False
    target = Target(rmse=8.0)
    (data,) = encode_chunks([chunk], target, options, masks=[mask])
    decoded, inside = decode_chunk(data), decode_inside(data)
    assert describe_chunk(data).mode == "siren"
    assert (inside == mask).all()
    assert not decoded[~inside].any()
    error = (decoded.astype(float) - chunk)[inside]
    assert np.sqrt((error**2).mean()) <= 8.0
    part = (slice(1, 4), 5, slice(None, None, 3), slice(2, 20))
    check_equal_bits(decode_region(data, part), decoded[part])
    assert digest(decoder().decode(data)) == digest(decoded)
    assert chunk.nbytes / len(data) > 15
