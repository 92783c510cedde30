"""Parts of chunks of mode transform: the slice of the whole, bit for bit, and little else is made."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
from checks import VECTORS, check_equal_bits, examples, index_of, vectors
from hypothesis import given
from hypothesis import strategies as st

from inrstore.chunk import frame
from inrstore.chunk.decode import decode_chunk, decode_region, describe_chunk
from inrstore.chunk.encode import encode_as, encode_together
from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.kernels import choice
from inrstore.chunk.mask import narrow
from inrstore.chunk.modes import BY_NUMBER, TRANSFORM
from inrstore.chunk.quality import Target
from inrstore.chunk.transform import decode as transform
from inrstore.chunk.transform import wavelet
from inrstore.chunk.transform.subbands import levels_of, subbands_of
from inrstore.chunk.transform.window import Window
from inrstore.errors import CorruptChunkError, LimitExceededError
from inrstore.options import EncodeOptions

COMPILED = [False, pytest.param(True, marks=pytest.mark.skipif(find_spec("numba") is None, reason="no compiler"))]
NAMES = [name for folder in ("subset", "uncommon") for name, entry in index_of(VECTORS / folder).items()
         if entry["mode"] == "transform"]  # fmt: skip
VALID = vectors("subset", "uncommon")


def balls(shape: tuple[int, ...]) -> np.ndarray:
    """Return balls in noise; along an axis in front of three they change their brightness."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[-3:]], indexing="ij")
    image = np.full(shape, 200.0)
    for _ in range(10):
        centre, radius = rng.uniform(-0.7, 0.7, 3), rng.uniform(0.15, 0.5)
        inside = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < radius * radius
        image += rng.uniform(100, 900, (*shape[:-3], 1, 1, 1)) * inside
    return image + rng.normal(0, 15, shape)


@cache
def made(name: str) -> bytes:
    """Return a chunk that is long along some axes, as its name says."""
    mask = None
    if name == "measurements last":
        values, target = np.moveaxis(balls((5, 12, 41, 30)), 0, -1), Target(rmse=20.0, channel_axis=3)
    elif name == "floats that are not all finite":
        values, target = balls((4, 9, 33, 40)).astype("<f4"), Target(rmse=20.0, channel_axis=0)
        values[1, 4, 5:9, 7] = np.nan
    elif name == "mask and box":
        values, target = balls((4, 14, 33, 40)), Target(rmse=20.0, channel_axis=0)
        mask = np.zeros(values.shape[1:], bool)
        mask[2:12, 3:30, 5:33] = balls((10, 27, 28)) > 260
        mask = narrow(mask, values.shape)
    elif name == "five axes":
        values, target = balls((3, 4, 7, 22, 25)), Target(rmse=20.0, channel_axis=0)
    else:
        values, target = balls((20, 40, 40) if name == "corrected" else (60, 70, 33)), Target(rmse=25.0)
    values = values if values.dtype.kind == "f" and values.dtype.itemsize == 4 else np.rint(values).astype("<i2")
    options = EncodeOptions(device="cpu", mode="auto" if name == "corrected" else "transform", threads=1)
    data = encode_as(TRANSFORM, np.ascontiguousarray(values), target, mask, options)
    assert data is not None
    return data


MADE = ["measurements last", "floats that are not all finite", "mask and box", "five axes", "corrected", "long"]


def selections(shape: tuple[int, ...], rng: random.Random) -> Iterator[tuple[int | slice, ...]]:
    """Yield selections of integers and slices, steps of either sign."""
    for _ in range(12):
        out: list[int | slice] = []
        for n in shape:
            kind, a, b = rng.randrange(5), rng.randrange(n), rng.randrange(n)
            step = rng.choice((1, 1, 2, 3, n))
            out.append((a - rng.choice((0, n)), slice(None), slice(min(a, b), max(a, b) + 1, step),
                        slice(max(a, b), min(a, b) - 1 if min(a, b) else None, -step),
                        slice(a, a + 3))[kind])  # fmt: skip
        yield tuple(out)
    middle = [n // 2 for n in shape]
    yield tuple(middle)
    for axis in range(len(shape)):
        yield tuple(middle[a] if a == axis else slice(None) for a in range(len(shape)))
        yield tuple(slice(None) if a == axis else middle[a] for a in range(len(shape)))


def check(data: bytes, rng: random.Random) -> None:
    whole = decode_chunk(data)
    for selection in selections(whole.shape, rng):
        check_equal_bits(decode_region(data, selection), np.asarray(whole[selection]))


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("name", NAMES)
def test_parts_of_vectors_are_slices_of_them(name, compiled):
    with choice.use(compiled):
        check(VALID[name], random.Random(name))


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("name", MADE)
def test_parts_of_chunks_are_slices_of_them(name, compiled):
    data = made(name)
    assert ("network" in describe_chunk(data).details) == (name == "corrected")
    with choice.use(compiled):
        check(data, random.Random(name))


def test_a_part_of_a_chunk_with_a_shared_header_is_the_slice_of_it():
    image = np.rint(balls((12, 24, 24, 24))).astype("<i2")
    images = [np.ascontiguousarray(part) for part in np.split(image, 6, 1)]
    made = encode_together(images, Target(rmse=30.0), EncodeOptions(mode="transform", preset="fast", threads=1))
    assert len(made.parameters) == 1
    shared = {hashlib.sha256(data).digest(): data for data in made.parameters}
    whole = decode_chunk(made.frames[1], shared=shared)
    part = decode_region(made.frames[1], (slice(None), 3, 5, slice(7)), shared=shared)
    check_equal_bits(part, whole[:, 3, 5, :7])


@given(st.integers(0, 2**32))
@examples(60)
def test_a_window_gives_what_the_whole_transform_does(seed):
    rng = np.random.default_rng(seed)
    z, y, x = (int(n) for n in rng.integers(1, 40, 3))
    top = levels_of((z, y, x), 2)
    levels = tuple(int(rng.integers(0, n + 1)) for n in top)
    subbands = {(b.level, b.key): rng.integers(-(2**20), 2**20, (2, *b.shape)).astype(float)
                for b in subbands_of((z, y, x), levels)}  # fmt: skip
    box = []
    for n in (z, y, x):
        begin = int(rng.integers(n))
        box.append((begin, int(rng.integers(begin + 1, n + 1))))
    window = Window.of((z, y, x), levels, box)
    parts = {place: values[(slice(None), *window.part(*place))] for place, values in subbands.items()}
    found = wavelet.inverse(parts, (z, y, x), levels, window)
    whole = wavelet.inverse(subbands, (z, y, x), levels)
    check_equal_bits(found, whole[(slice(None), *(slice(a, b) for a, b in box))])


@pytest.mark.parametrize("compiled", COMPILED)
def test_the_network_is_evaluated_at_the_wanted_positions_alone(monkeypatch, compiled):
    sizes, apply = [], Correction.apply

    def counted(self, volumes, box=None):
        sizes.append((volumes.shape[1:], box))
        apply(self, volumes, box)

    monkeypatch.setattr(Correction, "apply", counted)
    data = made("corrected")
    with choice.use(compiled):
        decode_region(data, (10, slice(None), 20))
    ((lengths, box),) = sizes
    assert lengths == (5, 40, 5) and box == (slice(2, 3), slice(0, 40), slice(2, 3))


@pytest.mark.parametrize("compiled", COMPILED)
def test_where_a_limit_is_passed_beside_a_part_all_values_decide(monkeypatch, compiled):
    data, asked = made("long"), transform.components_of

    def too_large(*arguments):
        if len(arguments) > 5 and arguments[5] is not None:
            raise LimitExceededError("transform.coefficients", "beside what is wanted")
        return asked(*arguments)

    whole = decode_chunk(data)
    monkeypatch.setattr(transform, "components_of", too_large)
    with choice.use(compiled):
        check_equal_bits(decode_region(data, (slice(30, 9, -4), 5, slice(3))), whole[30:9:-4, 5, :3])


@pytest.mark.parametrize("compiled", COMPILED)
def test_a_part_of_a_faulty_frame_is_refused_unless_only_values_elsewhere_are_wrong(compiled):
    elsewhere = {"transform.coefficients", "transform.outputs", "decoded_crc"}
    for name, data in vectors("faulty").items():
        if BY_NUMBER.get(frame.mode_of(data)) is not TRANSFORM:
            continue
        with choice.use(compiled):
            with pytest.raises(CorruptChunkError) as error:
                decode_chunk(data)
            try:
                shape = frame.unpack(data).shape
                decode_region(data, tuple(n // 2 for n in shape))
            except CorruptChunkError as found:
                assert found.field == error.value.field, name
            else:
                assert error.value.field in elsewhere, name


def test_parts_are_equal_from_many_threads_at_once():
    data = made("corrected")
    whole = decode_chunk(data)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda z: decode_region(data, (z, slice(None), slice(None))), range(20)))
    check_equal_bits(np.stack(parts), whole)
