"""The integer network: table, gains, payload, and arithmetic against the formulas in unlimited integers."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from checks import ROOT, examples, maker
from hypothesis import given
from hypothesis import strategies as st

from inrstore import limits
from inrstore.chunk.dtypes import check_outputs
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr import exact, siren
from inrstore.errors import CorruptChunkError, LimitExceededError


def specification() -> str:
    return Path(ROOT / "specs" / "inrstore-1.md").read_text()


def test_the_sine_table_is_that_of_the_specification():
    table = exact.sine_table()
    found = re.search(r"CRC32C of the table as i16 is `([0-9A-F]{8})`", specification())
    assert found is not None
    assert google_crc32c.value(table.astype("<i2").tobytes()) == int(found[1], 16)
    assert table.max() == 1023 and table.min() == -1023
    assert (table[:2048] == -table[2048:]).all()


def test_no_entry_of_the_sine_table_is_near_a_tie():
    """A sine good to six digits gives the same integers, so no libm can change the format."""
    turn = (np.arange(4096) + 0.5) / 4096
    value = 1023 * np.sin(2 * np.pi * turn)
    assert np.abs(np.abs(value - np.floor(value)) - 0.5).min() > 1e-4
    assert (np.rint(1023 * np.sin(2 * np.pi * turn).astype(np.float32)) == exact.sine_table()).all()


def test_the_limits_are_those_of_the_specification():
    text = specification().split("## 9. Limits")[1].split("## 10")[0]
    assert "2^27 values" in text and limits.MAX_CHUNK_VALUES == 2**27
    assert f"{limits.MAX_DIMS} axes" in text and f"{limits.MAX_LAYERS} layers" in text
    assert f"width {limits.MAX_WIDTH}" in text and f"symbol {limits.MAX_SYMBOL}" in text
    assert "2^22 parameters" in text and limits.MAX_PARAMETERS == 2**22


@given(st.floats(0.51, 2**27 - 2**15))
@examples(300)
def test_gains_are_coded_to_twelve_bits(gain):
    code = siren.pack_gain(gain)
    assert 0 <= code < 2**16
    back = int(siren.unpack_gain(np.array([code]))[0])
    assert abs(back - gain) <= max(0.5, gain * 2.0**-12)
    assert siren.pack_gain(back) == code or int(siren.unpack_gain(np.array([siren.pack_gain(back)]))[0]) == back


def test_every_gain_code_stands_for_what_the_specification_says():
    codes = np.arange(2**16)
    assert siren.unpack_gain(codes).tolist() == [(g & 0xFFF) << (g >> 12) for g in range(2**16)]
    assert siren.pack_gain(0.0) == 0


def in_unlimited_integers(net: siren.Network, box: tuple[int, ...], position: tuple[int, ...]) -> int:
    """Return the output at one position by the formulas of section 7, value by value."""
    table = [int(v) for v in exact.sine_table()]
    space = [a for a in range(len(box)) if a != net.channel_axis]
    channel = 0 if net.channel_axis is None else position[net.channel_axis]
    c = [2 * position[a] - (box[a] - 1) for a in space]
    turn = 2**32
    s: list[int] = []
    for layer, weights in enumerate(net.weights):
        source = c if layer == 0 else s
        sums = [sum(int(w) * v for w, v in zip(row, source, strict=True)) for row in weights]
        bias = [int(b) * net.multipliers[-1] for b in net.biases[layer]]
        s = [table[((x * net.multipliers[layer] + b) % turn) >> 20] for x, b in zip(sums, bias, strict=True)]
    gain = int(net.gains[channel if len(net.gains) > 1 else 0])
    total = sum(int(v) * x for v, x in zip(net.readout[channel], s, strict=True))
    k = (total * gain + int(net.offsets[channel]) * 2 ** (net.shift - 4) + 2 ** (net.shift - 1)) >> net.shift
    return min(max(k, net.low), net.high)


@pytest.mark.parametrize(
    "box, axis",
    [((5,), None), ((4, 3), 0), ((4, 3), 1), ((3, 4, 5), None), ((3, 2, 4, 3), 0), ((2, 3, 2, 3), 2), ((), None)],
)
def test_evaluation_follows_the_formulas(box, axis):
    tool = maker()
    rng = np.random.default_rng(len(box))
    for seed in range(3):
        net = tool.Net(seed=seed, layers=1 + seed, width=4 + seed, axis=axis, each=bool(seed % 2)).build(box)
        net = replace(net, multipliers=[int(m) for m in rng.integers(0, 2**32, len(net.multipliers))])
        if seed == 2:  # the largest numbers that fit
            net = replace(net, shift=34, gains=siren.unpack_gain(np.array([0xFFFF])), low=-(2**31), high=2**31 - 1,
                          offsets=np.full(len(net.offsets), -(2**31)))  # fmt: skip
        got = siren.evaluate(net, np.dtype("<i8"), box, [range(n) for n in box])
        assert got.shape == box
        for position in np.ndindex(*box):
            assert int(got[position]) == in_unlimited_integers(net, box, position)


def test_positions_may_be_any_ranges_or_arrays():
    tool, box = maker(), (4, 6, 5, 7)
    net = tool.Net(seed=3, layers=2, width=6, axis=0).build(box)
    whole = siren.evaluate(net, np.dtype("<i2"), box, [range(n) for n in box])
    some = [range(3, -1, -2), range(1, 6, 2), range(4, 5), range(6, 0, -1)]
    got = siren.evaluate(net, np.dtype("<i2"), box, some)
    assert (got == whole[np.ix_(*some)]).all()
    assert (siren.evaluate(net, np.dtype("<i2"), box, [np.array(r) for r in some]) == got).all()
    odd = [np.array([0, 0, 3]), np.array([5]), np.array([2, 1]), np.arange(7)]
    assert (siren.evaluate(net, np.dtype("<i2"), box, odd) == whole[np.ix_(*odd)]).all()


@given(st.integers(0, 2**32))
@examples(60)
def test_a_network_written_is_the_network_read(seed):
    rng, tool = np.random.default_rng(seed), maker()
    box = tuple(int(n) for n in rng.integers(1, 7, rng.integers(1, 5)))
    axis = int(rng.integers(0, len(box))) if rng.random() < 0.6 else None
    net = tool.Net(
        seed=seed, layers=int(rng.integers(1, 6)), width=int(rng.integers(1, 40)), axis=axis,
        each=bool(rng.random() < 0.5), spread=int(rng.integers(1, 100)), exponent=int(rng.integers(0, 4)),
    ).build(box)  # fmt: skip
    reader = Reader(memoryview(siren.write(net)))
    again = siren.read(reader, np.dtype("<i4"), box)
    assert reader.remaining == 0
    for name in ("channel_axis", "multipliers", "shift", "exponent", "low", "high"):
        assert getattr(again, name) == getattr(net, name)
    for one, other in zip(
        [*net.weights, net.biases, net.readout, net.gains, net.offsets],
        [*again.weights, again.biases, again.readout, again.gains, again.offsets], strict=True,
    ):  # fmt: skip
        assert one.tolist() == other.tolist()


def test_a_payload_is_laid_out_as_specified():
    net = maker().Net(seed=1, layers=2, width=3, axis=0, exponent=2, low=-7, high=9).build((2, 4))
    data = siren.write(net)
    assert struct.unpack_from("<BBHbBii", data) == (0, 2, 3, 2, net.shift, -7, 9)
    assert list(struct.unpack_from("<3I", data, 14)) == net.multipliers
    peaks = [struct.unpack_from("<IIH", data, 26 + 10 * i)[2] for i in range(4)]
    assert peaks == [int(np.abs(g).max()) for g in (*net.weights, net.biases, net.readout)]
    assert data[66] == 0
    assert siren.unpack_gain(np.array(struct.unpack_from("<H", data, 67))).tolist() == net.gains.tolist()
    assert list(struct.unpack_from("<2i", data, 69)) == net.offsets.tolist()
    assert len(data) % 2 == (77 + 4) % 2  # one state, then words


def test_rows_that_could_leave_exact_arithmetic_are_refused():
    field = "siren.weights"
    most = (2**24 - 1) // 1023
    exact.check_row_bound(np.array([[most, 0], [0, -most]]), field)
    for row in ([most + 1, 0], [-most, 1], [10000, -10000]):
        with pytest.raises(LimitExceededError, match=field):
            exact.check_row_bound(np.array([[0, 0], row]), field)
    exact.check_row_bound(np.full((3, 16), 1000, np.int16), field)  # narrow types do not overflow
    with pytest.raises(LimitExceededError):
        exact.check_row_bound(np.full((3, 40), 1000, np.int16), field)


def test_float32_sums_are_exact_up_to_the_bound():
    rng = np.random.default_rng(0)
    weights = rng.integers(-60, 61, (50, 250))
    weights[0] = np.resize([66, -65], 250)  # close to the bound
    exact.check_row_bound(weights, "x")
    state = exact.sine_table()[rng.integers(0, 4096, (250, 300))]
    state[:, 0] = np.sign(weights[0]) * 1023
    product = weights.astype(np.float32) @ state
    assert (product.astype(np.int64) == weights @ state.astype(np.int64)).all()


@pytest.mark.parametrize(
    "dtype, exponent, low, high, good",
    [
        ("<i2", 0, -(2**15), 2**15 - 1, True),
        ("<i2", 0, -(2**15), 2**15, False),
        ("<i2", 3, -(2**12), 2**12 - 1, True),
        ("<i2", 3, -(2**12), 2**12, False),
        ("<u2", 0, 0, 2**16 - 1, True),
        ("<u2", 0, -1, 3, False),
        ("<i8", 40, -(2**23), 2**23 - 1, True),
        ("<i8", 40, -(2**23) - 1, 0, False),
        ("<i8", 41, 0, 1, False),
        ("<u8", 33, 0, 2**31 - 1, True),
        ("<u8", 34, 0, 2**31 - 1, False),
        ("<i4", -1, 0, 1, False),
        ("<f2", 0, -65504, 65504, True),
        ("<f2", 0, 0, 65505, False),
        ("<f2", 5, 0, 2047, True),
        ("<f2", 5, 0, 2048, False),
        ("<f4", 97, -(2**31) + 128, 2**31 - 128, True),
        ("<f4", 97, 0, 2**31 - 1, False),
        ("<f4", 100, 0, 2**28 - 16, True),
        ("<f4", 100, 0, 2**28, False),
        ("<f8", 100, -(2**31), 2**31 - 1, True),
        ("<f8", 101, 0, 0, False),
        ("<f8", -100, -(2**31), 2**31 - 1, True),
        ("<f8", -101, 0, 0, False),
        ("|b1", 0, 0, 1, False),
        ("<i2", 0, 1, 0, False),
    ],
)
def test_the_range_of_a_network_lies_in_its_type(dtype, exponent, low, high, good):
    if good:
        check_outputs(low, high, exponent, np.dtype(dtype), "siren")
    else:
        with pytest.raises(CorruptChunkError):
            check_outputs(low, high, exponent, np.dtype(dtype), "siren")
