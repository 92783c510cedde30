"""The integer network: table, gains, payload, and arithmetic against the formulas in unlimited integers."""

from __future__ import annotations

import math
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
from inrstore.chunk.entropy import weights as coder
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr import bitstream, layers, siren
from inrstore.chunk.inr.network import Coordinates, Evaluator, Network, Values, pack_gain, unpack_gain
from inrstore.errors import CorruptChunkError, LimitExceededError


def specification() -> str:
    return Path(ROOT / "specs" / "inrstore-1.md").read_text()


def test_the_sine_table_is_that_of_the_specification():
    table = layers.sine_table()
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
    assert (np.rint(1023 * np.sin(2 * np.pi * turn).astype(np.float32)) == layers.sine_table()).all()


def test_the_limits_are_those_of_the_specification():
    text = specification().split("## 9. Limits")[1].split("## 10")[0]
    assert "2^27 values" in text and limits.MAX_CHUNK_VALUES == 2**27
    assert f"{limits.MAX_DIMS} axes" in text and f"{limits.MAX_LAYERS} layers" in text
    assert f"width {limits.MAX_WIDTH}" in text and f"symbol {limits.MAX_SYMBOL}" in text
    assert "2^22 parameters" in text and limits.MAX_PARAMETERS == 2**22


@given(st.floats(0.51, 2**27 - 2**15))
@examples(300)
def test_gains_are_coded_to_twelve_bits(gain):
    code = pack_gain(gain)
    assert 0 <= code < 2**16
    back = int(unpack_gain(np.array([code]))[0])
    assert abs(back - gain) <= max(0.5, gain * 2.0**-12)
    assert pack_gain(back) == code or int(unpack_gain(np.array([pack_gain(back)]))[0]) == back


def test_every_gain_code_stands_for_what_the_specification_says():
    codes = np.arange(2**16)
    assert unpack_gain(codes).tolist() == [(g & 0xFFF) << (g >> 12) for g in range(2**16)]
    assert pack_gain(0.0) == 0


def function_of(name: str, z: int) -> int:
    """Return f(z) of section 7.4."""
    if name == "sine":
        return int(layers.sine_table()[z % 2**32 // 2**20])
    if name == "tanh":
        return round(1023 * math.tanh((min(max(z // 2**20, -2048), 2047) + 0.5) / 512))
    return min(max((z + 2**23) // 2**24, {"linear": -1023, "relu": 0}[name]), 1023)


def outputs_in_unlimited_integers(net: Network, x: list[int]) -> list[int]:
    """Return the outputs K at one point by the formulas of section 7.3, value by value."""
    y = x
    for layer in net.layers:
        sums = [sum(int(w) * v for w, v in zip(row, y, strict=True)) for row in layer.weights]
        z = [s * layer.multiplier + int(b) * net.bias_multiplier for s, b in zip(sums, layer.biases, strict=True)]
        y = [function_of(layer.activation.name, v) for v in z]
    out = []
    for c, row in enumerate(net.readout):
        total = sum(int(v) * x for v, x in zip(row, y, strict=True)) * int(net.gains[c if len(net.gains) > 1 else 0])
        out.append((total + int(net.offsets[c]) * 2 ** (net.shift - 4) + 2 ** (net.shift - 1)) >> net.shift)
        assert abs(total) + abs(int(net.offsets[c])) * 2 ** (net.shift - 4) < 2**53
    return out


def in_unlimited_integers(made: siren.Siren, box: tuple[int, ...], position: tuple[int, ...]) -> int:
    """Return the output at one position by the formulas of sections 5 and 7."""
    space = [a for a in range(len(box)) if a != made.channel_axis and box[a] != 1]
    channel = 0 if made.channel_axis is None else position[made.channel_axis]
    outputs = outputs_in_unlimited_integers(made.network, [2 * position[a] - (box[a] - 1) for a in space])
    return min(max(outputs[channel], made.low), made.high)


@pytest.mark.parametrize(
    "box, axis",
    [
        ((5,), None),
        ((4, 3), 0),
        ((4, 3), 1),
        ((3, 4, 5), None),
        ((3, 2, 4, 3), 0),
        ((2, 3, 2, 3), 2),
        ((3, 1, 4, 1), 0),
        ((1, 1), 1),
        ((), None),
    ],
)
@pytest.mark.parametrize(
    "activations", ["sine", "relu", "linear", "relu sine linear", "sine relu", "tanh", "sine tanh"]
)
def test_evaluation_follows_the_formulas(box, axis, activations):
    tool = maker()
    rng = np.random.default_rng(len(box))
    for seed in range(3):
        net = tool.Net(seed=seed, layers=1 + seed, width=4 + seed, axis=axis, each=bool(seed % 2),
                       activations=activations).build(box)  # fmt: skip
        most = [2**32 if layer.activation.wraps else 2**22 for layer in net.network.layers]
        net = tool.altered(net, multipliers=[int(rng.integers(0, m)) for m in (*most, 2**32)])
        if seed == 2:  # the largest numbers that fit
            net = tool.altered(net, shift=34, gains=unpack_gain(np.array([0xFFFF])), low=-(2**31), high=2**31 - 1,
                               offsets=np.full(len(net.network.offsets), 1 - 2**22))  # fmt: skip
        got = siren.evaluate(net, np.dtype("<i8"), box, [range(n) for n in box])
        assert got.shape == box
        for position in np.ndindex(*box):
            assert int(got[position]) == in_unlimited_integers(net, box, position)


@pytest.mark.parametrize("activations", ["sine", "relu", "sine linear relu", "tanh"])
@pytest.mark.parametrize("inputs", [Coordinates(3), Values(3, 255), Values(3, 32767)])
def test_a_network_takes_any_integers(activations, inputs):
    net = maker().Net(seed=4, layers=2, width=7, axis=0, activations=activations, each=True).build((5, 2, 2, 2)).network
    net = replace(net, inputs=inputs, layers=tuple(
        replace(layer, weights=np.clip(layer.weights, -80, 80), multiplier=min(layer.multiplier, 2**26))
        for layer in net.layers))  # fmt: skip
    net.check()
    most = inputs.magnitude if isinstance(inputs, Values) else 10**6
    rng = np.random.default_rng(1)
    x = rng.integers(-most, most + 1, (3, 40))
    x[:, 0], x[:, 1] = most, -most
    net.check_reach([most] * 3)
    for kind in (np.int64, np.int32, np.float32 if most < 10**6 else np.int32):
        got = Evaluator(net)(x.astype(kind))
        assert got.shape == (5, 40)
        for point in range(40):
            assert got[:, point].tolist() == outputs_in_unlimited_integers(net, x[:, point].tolist())
    chosen = np.array([3, 0])
    assert (Evaluator(net, chosen)(x) == got[chosen]).all()
    assert Evaluator(net)(x[:, :0]).shape == (5, 0)


def test_evaluation_does_not_depend_on_how_many_points_there_are():
    net = maker().Net(seed=6, layers=3, width=9, widths=(9, 30, 4), axis=0, activations="sine relu").build((3, 2, 2))
    x = np.random.default_rng(2).integers(-50, 51, (2, 10_000))
    whole = Evaluator(net.network)(x)
    ready = Evaluator(net.network)
    for part in (slice(0, 1), slice(5, 4200), slice(4200, 10_000), slice(7, 9)):
        assert (ready(x[:, part]) == whole[:, part]).all()


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
        activations=str(rng.choice(["sine", "relu", "sine linear", "relu sine", "tanh"])),
    ).build(box)  # fmt: skip
    reader = Reader(memoryview(siren.write(net)))
    again = siren.read(reader, np.dtype("<i4"), box)
    assert reader.remaining == 0
    for name in ("channel_axis", "exponent", "low", "high"):
        assert getattr(again, name) == getattr(net, name)
    check_same(again.network, net.network)


def check_same(one: Network, other: Network) -> None:
    assert (one.inputs, one.bias_multiplier, one.shift) == (other.inputs, other.bias_multiplier, other.shift)
    for first, second in zip(one.layers, other.layers, strict=True):
        assert (first.activation, first.multiplier) == (second.activation, second.multiplier)
        assert first.weights.tolist() == second.weights.tolist() and first.biases.tolist() == second.biases.tolist()
    for name in ("readout", "gains", "offsets"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


@pytest.mark.parametrize("inputs", [Coordinates(2), Values(2, 32767), Values(2, 1)])
def test_networks_follow_each_other_and_end_where_they_say(inputs):
    tool = maker()
    nets = [replace(tool.Net(seed=s, layers=2, width=4 + s, axis=0, activations="relu sine").build((3, 2, 2)).network,
                    inputs=inputs) for s in range(3)]  # fmt: skip
    parts = [bitstream.write(n) for n in nets]
    reader = Reader(memoryview(b"".join(parts) + b"what follows"))
    for net, part in zip(nets, parts, strict=True):
        before = reader.remaining
        again = bitstream.read(reader)
        assert before - reader.remaining == len(part)
        check_same(again, net)
        assert bitstream.write(again) == part
    assert bytes(reader.take(reader.remaining, "rest")) == b"what follows"


def test_a_payload_is_laid_out_as_specified():
    made = maker().Net(seed=1, layers=2, width=3, axis=0, exponent=2, low=-7, high=9, activations="sine relu",
                       widths=(3, 4)).build((2, 4))  # fmt: skip
    net, data = made.network, siren.write(made)
    assert struct.unpack_from("<Bbii", data) == (0, 2, -7, 9)
    assert struct.unpack_from("<7BI", data, 10) == (0, 1, 2, 1, 2, 2, 3, 2)
    assert list(struct.unpack_from("<3I", data, 21)) == [*(a.multiplier for a in net.layers), net.bias_multiplier]
    tables = [struct.unpack_from("<HHH", data, 33 + 6 * i) for i in range(4)]
    biases = np.concatenate([a.biases for a in net.layers])
    groups = [*(a.weights for a in net.layers), biases, net.readout]
    assert [peak for _, _, peak in tables] == [int(np.abs(g).max()) for g in groups]
    assert struct.unpack_from("<BB", data, 57) == (net.shift, 0)
    assert unpack_gain(np.array(struct.unpack_from("<H", data, 59))).tolist() == net.gains.tolist()
    assert data[61] == 2
    assert list(struct.unpack_from("<2h", data, 62)) == net.offsets.tolist()
    (words,) = struct.unpack_from("<I", data, 66)
    assert len(data) == 70 + 4 + 2 * words  # one state, then words


def test_tables_lose_next_to_nothing_by_their_short_numbers():
    rng = np.random.default_rng(3)
    for spread in (0.2, 1, 5, 60, 250):
        symbols = np.clip(np.rint(rng.normal(0, spread, 4096)), -1023, 1023).astype(np.int64)
        table = coder.fit_table(symbols)
        short = bitstream.short_table(table)
        assert bitstream.short_table(short) == short
        assert coder.code_length(symbols, short) < coder.code_length(symbols, table) * 1.001 + 1


def test_rows_that_could_leave_exact_arithmetic_are_refused():
    field = "network.weights"
    most = (2**24 - 1) // 1023
    layers.check_products(np.array([[most, 0], [0, -most]]), 1023, field)
    for row in ([most + 1, 0], [-most, 1], [10000, -10000]):
        with pytest.raises(LimitExceededError, match=field):
            layers.check_products(np.array([[0, 0], row]), 1023, field)
    layers.check_products(np.full((3, 16), 1000, np.int16), 1023, field)  # narrow types do not overflow
    with pytest.raises(LimitExceededError):
        layers.check_products(np.full((3, 40), 1000, np.int16), 1023, field)


def test_float32_sums_are_exact_up_to_the_bound():
    rng = np.random.default_rng(0)
    weights = rng.integers(-60, 61, (50, 250))
    weights[0] = np.resize([66, -65], 250)  # close to the bound
    layers.check_products(weights, 1023, "x")
    state = layers.sine_table()[rng.integers(0, 4096, (250, 300))]
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
