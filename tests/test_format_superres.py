"""Mode superres gives the same integers in both readers and on any number of threads, and refuses what is damaged."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from checks import check_equal_bits, decoder, digest, examples, maker, run_python, vectors
from hypothesis import given
from hypothesis import strategies as st

from inrstore.chunk import modes
from inrstore.chunk.decode import decode_chunk, decode_region, describe_chunk
from inrstore.chunk.frame import Reader
from inrstore.chunk.modes import check_shared
from inrstore.chunk.shared import of
from inrstore.chunk.superres import evaluate
from inrstore.chunk.superres.network import Dense, Operator, Refiner, read
from inrstore.errors import ConfigurationError, CorruptChunkError, LimitExceededError


def vector_maker():
    return maker("superres")


def frames():
    return maker("frames")


def random_frame(shape: tuple[int, ...], dtype: str = "<i2", **fields) -> bytes:
    return vector_maker().superres_frame(frames().like(shape, dtype), vector_maker().Sharp(**fields))


@st.composite
def orders(draw) -> tuple[tuple[int, ...], dict]:
    """Return a shape, and a pair of networks for it."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 11]), min_size=3, max_size=3).map(tuple))
    small = st.integers(1, 4)
    if draw(st.booleans()):
        plan = Dense(*(draw(small) for _ in range(5)))
    else:
        heads = draw(st.integers(1, 3))
        plan = Operator(draw(small), draw(small), heads * draw(st.integers(1, 4)), heads, draw(st.integers(0, 2)))
    scales, reach = (tuple(draw(st.integers(0, most)) for _ in range(3)) for most in (2, 1))
    return shape, {"plan": plan, "scales": scales, "reach": reach, "seed": draw(st.integers(0, 2**20))}


@given(orders())
@examples(25)
def test_both_readers_make_the_same_of_any_plan(order):
    shape, fields = order
    data = random_frame(shape, **fields)
    check_equal_bits(decode_chunk(data, shape, "<i2"), decoder().decode(data))


@pytest.mark.parametrize("plan", [Dense(2, 2, 4, 6, 5), Operator(2, 4, 8, 2, 2)], ids=["dense", "operator"])
def test_how_a_reader_cuts_a_volume_into_parts_changes_no_bit(monkeypatch, plan):
    data = random_frame((6, 20, 22), plan=plan, reach=(0, 1, 1), scales=(1, 1, 2), seed=7)
    whole = decode_chunk(data)
    for name, size in (("_TILE", 37), ("_COLUMNS", 11), ("_TOGETHER", 1)):
        monkeypatch.setattr(evaluate, name, size)
    check_equal_bits(decode_chunk(data), whole)


def test_threads_change_no_bit():
    names = ("superres-dense-lanes", "superres-operator-i2-4d", "superres-operator-heads-of-16")
    data = vectors("subset", "uncommon")
    script = (
        "import sys, hashlib; from inrstore.chunk.decode import decode_chunk\n"
        "for text in sys.argv[1:]: print(hashlib.sha256(decode_chunk(bytes.fromhex(text)).tobytes()).hexdigest())"
    )
    wanted = [digest(decode_chunk(data[name])) for name in names]
    large = random_frame((4, 96, 96), plan=Dense(2, 3, 16, 16, 16), seed=9)
    wanted.append(digest(decode_chunk(large)))
    texts = [data[name].hex() for name in names] + [large.hex()]
    for threads in ("1", "4"):
        done = run_python(script, *texts, OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads)
        assert done.split() == wanted


def test_the_coarse_image_alone_is_linear_between_its_positions():
    """A refiner that adds nothing leaves the interpolation, which goes through the mean of a ramp."""
    ramp = np.arange(8.0).reshape(1, 1, 1, 8) * 16
    ups = [evaluate.Doubling(n, e) for n, e in ((1, 0), (1, 0), (32, 2))]
    fine = evaluate.doubled(ramp, ups, (slice(0, 1), slice(0, 1), slice(0, 32)))[0, 0, 0]
    assert np.array_equal(fine[2:30], np.arange(2, 30) * 4 - 6)
    assert np.array_equal(fine[:2], [0, 0]) and np.array_equal(fine[30:], [112, 112])


def test_normalised_units_have_no_mean_and_a_deviation_of_256():
    units = np.random.default_rng(3).integers(-1023, 1024, (2, 16, 500)).astype(np.float32)
    units[:, :, 0] = 7
    out = evaluate.normalised(units)
    assert np.array_equal(out[:, :, 0], np.zeros((2, 16)))
    assert np.abs(out).max() < 1023
    assert np.abs(out[:, :, 1:].mean(1)).max() < 1 and np.abs(out[:, :, 1:].std(1) - 256).max() < 1
    lone = np.zeros((1, 16, 1), np.float32)
    lone[0, 3] = 1  # the farthest that a unit can be from the others
    assert 985 < evaluate.normalised(lone).max() < 1023


def test_a_part_of_a_chunk_is_that_of_the_whole():
    data = vectors("subset")["superres-operator-i2-4d"]
    whole = decode_chunk(data)
    cut = (slice(1, 3), slice(0, 2), slice(3, 8), slice(2, 3))
    check_equal_bits(decode_region(data, cut), whole[cut])


def test_a_refiner_comes_back_from_its_bytes_and_serves_many_chunks():
    sharp = vector_maker().Sharp(seed=5, plan=Operator(2, 3, 6, 2, 1), reach=(1, 1, 1), scales=(1, 1, 1))
    refiner = sharp.refiner()
    again = read(Reader(memoryview(refiner.data)))
    assert again.plan == refiner.plan and again.data == refiner.data and again.digest == refiner.digest
    check_shared(of(refiner.data))
    for shape in ((4, 6, 8), (3, 3, 3)):
        made = sharp.build(shape, shared=True)
        data = vector_maker().superres_frame(frames().like(shape, "<i2"), made)
        whole = vector_maker().superres_frame(frames().like(shape, "<i2"), replace(made, shared=False))
        check_equal_bits(decode_chunk(data, shared=of(refiner.data)), decode_chunk(whole))
        assert describe_chunk(data).details == {"shared": refiner.digest.hex()}
        details = describe_chunk(data, of(refiner.data)).details
        assert (details["refiner"], details["scales"], details["refiner_bytes"]) == ("srno", (2, 2, 2), 0)
    with pytest.raises(ConfigurationError, match="superres"):
        check_shared(of(refiner.data + b"\0"))


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["superres-dense-i2-3d", "superres-operator-i2-4d"])
def test_damaged_bytes_give_one_error_and_no_other(name):
    source, data = random.Random(11), vectors("subset")[name]
    payload = bytearray(frames().payload_of(data))
    refused = 0
    for _ in range(400):
        bad = bytearray(payload)
        for _ in range(source.randint(1, 3)):
            at = source.randrange(min(len(bad), 120)) if source.random() < 0.7 else source.randrange(len(bad))
            bad[at] = source.choice([0, 1, 255, source.randrange(256)])
        if source.random() < 0.2:
            bad = bad[: source.randrange(len(bad))]
        try:
            decode_chunk(frames().repack(data, bytes(bad)))
        except CorruptChunkError:
            refused += 1
    assert refused > 300


def test_a_few_bytes_take_no_more_memory_than_the_limits_say():
    """A chunk of 2^24 values whose refiner says that it holds 2048 maps is refused before any map is made."""
    plan = Dense(1, 1, 1, 255, 1)
    sharp = vector_maker().Sharp(plan=plan, reach=(0, 0, 0), scales=(0, 0, 0), seed=1)
    made = sharp.build((1, 1, 1))
    tracemalloc.start()
    with pytest.raises(LimitExceededError, match="values of maps"):
        made.refiner.check_cost((1, 4096, 4096))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    with pytest.raises(LimitExceededError, match="products"):
        vector_maker().Sharp(plan=Dense(1, 1, 1, 1, 255), scales=(0, 3, 3)).refiner().check_cost((1, 1, 1))


def test_the_largest_network_of_the_literature_fits_the_limits():
    plan = Dense(8, 8, 16, 128, 255)
    plan.check()
    empty = np.zeros(0, np.int64)
    Refiner(plan, (0, 1, 1), (0, 2, 2), (), 1, empty).check_cost((463, 512, 512))
    big = Operator(4, 16, 64, 4, 2)
    Refiner(big, (1, 1, 1), (3, 3, 3), (), 1, empty).check_cost((64, 64, 64))


def test_the_mode_takes_no_bool_and_stands_in_the_list():
    assert modes.find(8) is modes.SUPERRES
    data = frames().edit(vectors("subset")["superres-dense-i2-3d"], 6, b"\x0c")
    with pytest.raises(CorruptChunkError, match="mode"):
        decode_chunk(data)
