"""Two quantisers: the walk of readers, the cheapest path of writers, and what it saves."""

from __future__ import annotations

import itertools
import re
from importlib.util import find_spec

import numpy as np
import pytest
from checks import ROOT, decoder

from inrstore.chunk import frame
from inrstore.chunk.boxes import Box
from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.kernels import choice
from inrstore.chunk.quality import Target
from inrstore.chunk.transform import trellis
from inrstore.chunk.transform.encode import Effort, encode
from inrstore.chunk.transform.trellis import NEXT, STATES, Walk, cheapest
from inrstore.options import EncodeOptions

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="loops are compiled by numba")


def walked(flags, state):
    """Return the quantisers along flags, and the last state, one at a time."""
    out = []
    for flag in flags:
        out.append(state >> 2)
        state = int(NEXT[state, int(flag)])
    return out, state


def cost_of(costs, flags, state):
    second, _ = walked(flags, state)
    return sum(int(row[2 * q + int(flag)]) for row, q, flag in zip(costs, second, flags, strict=True))


def test_the_specification_has_the_same_table():
    text = (ROOT / "specs" / "inrstore-1.md").read_text()
    for flag in (0, 1):
        (row,) = re.findall(rf"\| after flag {flag} \|([ \d|]+)\|", text)
        assert [int(n) for n in row.split("|")] == NEXT[:, flag].tolist()
    for s, flag in itertools.product(range(STATES), (0, 1)):
        x, p, y = s >> 2, s >> 1 & 1, s & 1
        assert NEXT[s, flag] == 4 * (x ^ p) + 2 * (y ^ flag) + x


@needs_numba
def test_the_compiled_loops_have_the_same_table():
    from inrstore.chunk.kernels import transform, transform_encode

    assert transform._NEXT.tolist() == NEXT.reshape(-1).tolist()
    ways = [[divmod(int(way), 2) for way in both] for both in transform_encode._BEFORE]
    assert ways == [[(s, f) for s in range(STATES) for f in (0, 1) if NEXT[s, f] == after] for after in range(STATES)]
    assert (transform_encode._UNIT, transform_encode._MOST_SQUARE, transform_encode._NEVER) == (
        trellis._UNIT, trellis.MOST_SQUARE, trellis._NEVER)  # fmt: skip


@pytest.mark.parametrize("state", range(STATES))
def test_a_walk_in_pieces_is_one_step_after_the_other(state):
    rng = np.random.default_rng(state)
    walk = Walk()
    walk.state = state
    for n in (1, 2, 3, 4, 5, 0, 7, 8, 300, 1):
        flags = rng.random((2, n)) < 0.4
        wanted, s = [], walk.state
        for first, second in flags.T:
            wanted.append(s >> 2)
            s = int(NEXT[s, int(second if s >> 2 else first)])
        assert walk.quantisers(flags[0], flags[1]).tolist() == wanted
        assert walk.state == s


@pytest.mark.parametrize("n", [1, 2, 3, 7, 11])
def test_no_path_is_cheaper(n):
    rng = np.random.default_rng(n)
    for state in range(STATES):
        costs = rng.integers(0, 50, (n, 4))
        flags, second, last = cheapest(costs, state)
        assert (second.tolist(), last) == walked(flags, state)
        least = min(cost_of(costs, path, state) for path in itertools.product((False, True), repeat=n))
        assert cost_of(costs, flags, state) == least


@needs_numba
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000, 5003])
def test_compiled_loops_find_the_same_path(n):
    """Few different costs, so that many paths cost the same."""
    from inrstore.chunk.kernels.transform_encode import _walk

    rng = np.random.default_rng(n)
    places, distances = rng.integers(0, 64, n).astype(np.uint8), rng.choice(np.float32([0, 0.25, 0.5, 1, 3, 4000]), n)
    widths, price = np.zeros(64, np.int64), 0.1
    priced, base = rng.choice([0.1, 0.2], 128), rng.choice([1.0, 2.0, 6.0], (128, 18))
    chosen, second = np.zeros(n, np.int32), np.zeros(n, np.uint8)
    last = _walk(n, places, distances, widths, priced, base, price, 3, np.zeros(n, np.uint8),
                 np.zeros((n, 2), np.int32), chosen, second)  # fmt: skip
    assert (second.tolist(), last) == walked(chosen > 0, 3)
    from inrstore.chunk.kernels.transform_encode import _branches

    costs = np.array([[_branches(float(d), 0.5 * q, 0, priced[p + 64 * q], base[p + 64 * q], price)[:2]
                       for q in (0, 1)] for p, d in zip(places.tolist(), distances, strict=True)],
                     np.int64).reshape(n, 4)  # fmt: skip
    flags, seconds, end = cheapest(costs, 3)
    assert (flags.tolist(), seconds.tolist(), end) == ((chosen > 0).tolist(), second.tolist(), last)


def noisy():
    """Return smooth values, with noise where they are bright."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[:12, :48, :48] / 12
    smooth = np.sin(3 * z + 2 * y) * np.cos(2 * x + y) * 300
    return np.rint(smooth + rng.normal(0, 20, smooth.shape) * (smooth > 0)).astype("<i2")


def payload(values, trellis):
    box = Box(values, lambda made: float(np.sqrt(np.mean((made - values.astype(float)) ** 2))), None, values.size)
    found = encode([box], None, np.ones(1), 5.0, Effort(trellis=trellis))
    assert found is not None
    return found.payloads[0]


def test_it_saves_bytes_at_the_same_error():
    """Where there are few, there is none: networks fit the noise of one path and not of the next."""
    values = noisy()
    plain, data = payload(values, False), payload(values, True)
    assert (plain[0], data[0]) == (0, 4)
    assert len(data) < 0.975 * len(plain)
    small = values[:2, :24, :24]
    assert payload(small, True) == payload(small, False)


@needs_numba
def test_compiled_loops_and_numpy_write_the_same_bytes():
    values = noisy()
    with choice.use(True):
        compiled = payload(values, True)
    with choice.use(False):
        assert payload(values, True) == compiled


def test_presets_but_fast_have_it_and_keep_their_promise():
    values = noisy()
    for preset, flags in (("fast", 0), ("balanced", 4), ("small", 4)):
        data = encode_chunks([values], Target(rmse=5.0), EncodeOptions(preset=preset, mode="transform"))[0]
        assert frame.unpack(data).payload[1] == flags
        decoded = decode_chunk(data)
        assert np.sqrt(np.mean((decoded - values.astype(float)) ** 2)) <= 5.0
        assert decoder().decode(data).tobytes() == decoded.tobytes()
