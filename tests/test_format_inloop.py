"""Corrections inside mode transform: what they compute, what they cost, and what the encoder promises with them."""

from __future__ import annotations

import math
import os
import time
import tracemalloc
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from checks import (
    DECODE_ALL,
    ROOT,
    VECTORS,
    check_equal_bits,
    decoder,
    examples,
    frames_of,
    index_of,
    maker,
    run_python,
)
from hypothesis import given
from hypothesis import strategies as st

from inrstore import limits
from inrstore.chunk import decode as chunks
from inrstore.chunk import dtypes, encode, frame, quality
from inrstore.chunk import envelope as envelopes
from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.frame import Reader
from inrstore.chunk.inloop import correction as inloop
from inrstore.chunk.inloop import fit as fitting
from inrstore.chunk.inloop.correction import Correction, read
from inrstore.chunk.inr.network import Coordinates
from inrstore.chunk.mask import narrow
from inrstore.chunk.modes import TRANSFORM
from inrstore.chunk.quality import Target
from inrstore.chunk.transform import encode as transform_encode
from inrstore.chunk.transform.header import Header, read_header
from inrstore.errors import CorruptChunkError, LimitExceededError
from inrstore.options import EncodeOptions

AUTO, PLAIN = EncodeOptions(device="cpu"), EncodeOptions(device="cpu", mode="transform")
VALID = {name: data for folder in ("subset", "uncommon") for name, data in frames_of(VECTORS / folder).items()
         if name.startswith("transform") and "corrected" in name}  # fmt: skip


def header_of(data: bytes) -> Header:
    """Return the header of a frame in mode transform."""
    parsed = frame.unpack(data)
    kind, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
    return read_header(reader, kind, envelopes.read(reader, parsed.shape, kind).box_shape)[0]


# ---- a plain reference -------------------------------------------------------------------------------------


def shifted(value: int, shift: int) -> int:
    return (value + (1 << shift - 1)) >> shift if shift else value


def activated(name: str, z: int) -> int:
    """Return what a unit makes of its sum."""
    if name == "sine":
        return round(1023 * math.sin(2 * math.pi * ((z % 2**32 >> 20) + 0.5) / 4096))
    if name == "tanh":
        return round(1023 * math.tanh((min(max(z >> 20, -2048), 2047) + 0.5) / 512))
    return min(max((z + 2**23) >> 24, 0 if name == "relu" else -1023), 1023)


def outputs_at(what: Correction, u: list[Any], lengths: tuple[int, ...], p: tuple[int, ...]) -> list[int]:
    """Return what a correction adds at one position; `u` are nested lists of Python's integers."""

    def at(k: int, place: tuple[int, ...]) -> int:
        z, y, x = (min(max(i, 0), n - 1) for i, n in zip(place, lengths, strict=True))
        return u[k][z][y][x]

    network = what.network
    y = [shifted(at(k, p), a) for k, a in enumerate(what.shifts)]
    for k, b in enumerate(what.difference_shifts):
        for offset in what.offsets.tolist():
            q = tuple(i + o for i, o in zip(p, offset, strict=True))
            y.append(shifted(at(k, q) - at(k, p), b))
    y = [min(max(v, -network.inputs.magnitude), network.inputs.magnitude) for v in y]
    for layer in network.layers:
        y = [activated(layer.activation.name, sum(w * v for w, v in zip(row, y, strict=True)) * layer.multiplier
                       + bias * network.bias_multiplier)
             for row, bias in zip(layer.weights.tolist(), layer.biases.tolist(), strict=True)]  # fmt: skip
    gains, half = np.broadcast_to(network.gains, network.outputs).tolist(), 1 << network.shift - 1
    return [(sum(w * v for w, v in zip(row, y, strict=True)) * gain + (offset << network.shift - 4) + half)
            >> network.shift
            for row, gain, offset in zip(network.readout.tolist(), gains, network.offsets.tolist(),
                                         strict=True)]  # fmt: skip


def some(seed: int) -> tuple[Correction, np.ndarray]:
    """Return a random correction and volumes for it."""
    rng = np.random.default_rng(seed)
    components = int(rng.integers(1, 7))
    lengths = tuple(int(n) for n in rng.choice([1, 1, 2, 3, 5], 3))
    scale = 10.0 ** rng.uniform(0, 10)
    volumes = np.rint(np.clip(rng.normal(0, scale, (components, *lengths)), -(2**35) + 1, 2**35 - 1))
    return maker("inloop").any_filter(rng, components).build(components), volumes


@given(st.integers(0, 2**32))
@examples(120)
def test_a_correction_is_what_a_plain_reference_makes(seed):
    what, volumes = some(seed)
    u, lengths, wanted = volumes.astype(int).tolist(), volumes.shape[1:], volumes.astype(int)
    for p in np.ndindex(*lengths):
        wanted[: what.network.outputs, *p] += outputs_at(what, u, lengths, p)
    what.apply(volumes)
    assert np.array_equal(volumes.astype(int), wanted)


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 7, 30]))
@examples(40)
def test_it_does_not_depend_on_how_many_positions_are_worked_on_at_once(seed, points):
    what, volumes = some(seed)
    at_once = volumes.copy()
    what.apply(at_once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inloop, "_POINTS", points)
        what.apply(volumes)
    check_equal_bits(volumes, at_once)


@pytest.mark.parametrize("lengths", [(1, 1, 1), (1, 1, 50), (50, 1, 1), (3, 4, 5), (2, 9, 4), (7, 1, 9), (1, 60, 2)])
@pytest.mark.parametrize("most", [1, 2, 4, 9, 1000])
def test_boxes_hold_every_position_once(lengths, most):
    found = np.zeros(lengths, int)
    for box in inloop._boxes(lengths, most):
        found[box] += 1
        assert found[box].size <= most
    assert (found == 1).all()


def test_the_vectors_hold_what_they_are_named_for():
    made = {name.removeprefix("transform-corrected-"): header_of(data) for name, data in VALID.items()}
    nets = {name: (h.correction, h.basis.shape[1]) for name, h in made.items() if h.correction is not None}
    assert len(nets) == len(VALID) >= 40 and max(map(len, VALID.values())) < 3000
    assert {w.network.outputs == len(w.shifts) for w, _ in nets.values()} == {True, False}
    assert any(w.network.outputs < len(w.shifts) for w, _ in nets.values())
    assert any(w.network.outputs > len(w.shifts) for w, _ in nets.values())
    assert any(w.network.outputs == k > 1 for w, k in nets.values())
    assert {0, 6, 32, 124} <= {len(w.offsets) for w, _ in nets.values()}
    assert {0, 40} <= {s for w, _ in nets.values() for s in w.shifts} & {s for w, _ in nets.values()
                                                                          for s in w.difference_shifts}  # fmt: skip
    assert any(not w.difference_shifts for w, _ in nets.values())
    assert {layer.activation.name for w, _ in nets.values() for layer in w.network.layers} == {"sine", "relu", "linear"}
    assert {1, 2, 16} <= {len(w.network.layers) for w, _ in nets.values()}
    assert max(w.network.parameters for w, _ in nets.values()) == limits.MAX_CORRECTION_PARAMETERS
    plain = np.random.default_rng(0).normal(0, 2000, (4, 3, 7, 6)).round()
    clamping = nets["inputs-that-clamp"][0]
    for _, inputs in inloop.inputs_of(clamping, plain, clamping.network.inputs.magnitude):
        assert 0.2 < (np.abs(inputs) == 20).mean() < 0.95
    beyond = decode_chunk(VALID["transform-corrected-outputs-beyond-the-range"])
    assert {made["outputs-beyond-the-range"].low, made["outputs-beyond-the-range"].high} <= {*np.unique(beyond)}


# ---- bytes and limits --------------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
@examples(80)
def test_what_is_written_is_what_is_read(seed):
    what, volumes = some(seed)
    data = what.write()
    reader = Reader(data + b"more")
    found = read(reader, len(volumes))
    assert bytes(reader.take(reader.remaining, "rest")) == b"more"
    assert found.write() == data
    assert (found.shifts, found.difference_shifts) == (what.shifts, what.difference_shifts)
    assert np.array_equal(found.offsets, what.offsets) and found.inputs == what.inputs
    again = volumes.copy()
    what.apply(volumes)
    found.apply(again)
    check_equal_bits(volumes, again)


def test_every_byte_cut_off_is_missed():
    data = maker("inloop").Filter(widths=(3,)).build(4).write()
    for size in range(len(data)):
        with pytest.raises(CorruptChunkError):
            read(Reader(data[:size]), 4)


def test_limits_are_named():
    order = maker("inloop").Filter
    what = order(components=2, differences=1).build(3)
    network = what.network
    assert read(Reader(what.write()), 3).inputs == 8

    def refused(made: Correction, error: type[CorruptChunkError], field: str, components: int = 3) -> None:
        with pytest.raises(CorruptChunkError) as caught:
            read(Reader(made.write()), components)
        assert (type(caught.value), caught.value.field) == (error, field)

    refused(what, CorruptChunkError, "inloop.components", 1)
    refused(replace(what, shifts=()), CorruptChunkError, "inloop.components")
    refused(replace(what, difference_shifts=(1, 1, 1)), CorruptChunkError, "inloop.differences")
    refused(replace(what, offsets=np.ones((125, 3), np.int64)), LimitExceededError, "inloop.neighbours")
    refused(replace(what, shifts=(41, 0)), LimitExceededError, "inloop.shifts")
    refused(replace(what, difference_shifts=(41,)), LimitExceededError, "inloop.shifts")
    for far in (3, -3):
        offsets = what.offsets.copy()
        offsets[2, 1] = far
        refused(replace(what, offsets=offsets), LimitExceededError, "inloop.offsets")
    refused(replace(what, offsets=what.offsets[1:]), CorruptChunkError, "inloop.inputs")
    other = replace(network, inputs=Coordinates(8))
    refused(replace(what, network=other), CorruptChunkError, "inloop.inputs")
    refused(order(components=2, differences=1, outputs=4).build(3), CorruptChunkError, "inloop.outputs")
    large = order(components=2, differences=1, offsets=maker("inloop").ALL, widths=(128,), spread=3)
    assert read(Reader(replace(large, outputs=1).build(2).write()), 2).network.parameters == 1 << 14
    refused(replace(large, outputs=2).build(2), LimitExceededError, "inloop.network")


# ---- exactness and cost ------------------------------------------------------------------------------------


def test_bits_are_equal_with_any_number_of_threads(tmp_path):
    tool, order = maker("transform"), maker("inloop")
    wide = order.Filter(seed=1, widths=(100,), components=12, differences=3, spread=5)
    plan = tool.Plan(seed=1, axis=0, components=14, levels=(0, 1, 1), shift=14, lanes=16, density=0.4, correction=wide)
    large = tool.transform_frame(np.zeros((16, 5, 24, 28), "<i2"), plan)
    check_equal_bits(decode_chunk(large), decoder().decode(large))
    files = []
    for name, data in (VALID | {"large": large}).items():
        (tmp_path / name).write_bytes(data)
        files.append(str(tmp_path / name))
    hashes = {run_python(DECODE_ALL, *files, OPENBLAS_NUM_THREADS=n, OMP_NUM_THREADS=n, OPENBLAS_CORETYPE=kernel)
              for n, kernel in (("1", "Haswell"), ("4", "Haswell"), ("4", "Sandybridge"))}  # fmt: skip
    assert len(hashes) == 1


HOSTILE: dict[str, tuple[tuple[int, ...], dict[str, Any], dict[str, Any]]] = {
    "columns": ((1 << 17,), {"levels": (0, 0, 8)}, {"offsets": None, "widths": (1,)}),
    "rows": ((1 << 17, 1), {"levels": (0, 8, 0)}, {"offsets": None, "widths": (1,)}),
    "slices": ((1 << 17, 1, 1), {"levels": (8, 0, 0)}, {"offsets": None, "widths": (1,)}),
    "slices of 4": ((1 << 15, 2, 2), {"levels": (8, 0, 0)}, {}),
    "components": ((64, 1 << 13), {"axis": 0, "components": 64},
                   {"components": 64, "differences": 32, "offsets": None, "widths": (1,)}),
    "outputs": ((255, 1 << 11), {"axis": 0, "components": 255}, {"components": 1, "outputs": 255, "widths": (60,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_small_frames_cost_time_and_memory_in_proportion(name):
    tool, order = maker("transform"), maker("inloop")
    shape, fields, network = HOSTILE[name]
    if network.get("offsets", ()) is None:
        network = network | {"offsets": order.ALL}
    what = order.Filter(density=0.0, **network)
    plan = tool.Plan(**{"levels": (0, 0, 0), "active": 0, "low": 0, "high": 200, "basis": 1, **fields,
                        "correction": what})  # fmt: skip
    payload = envelopes.write(envelopes.whole(shape), shape) + tool.payload_for(plan, shape)
    data = frame.pack(TRANSFORM.number, np.zeros(shape, "u1"), 0, payload)
    assert len(data) < 20_000
    begin = time.process_time()
    tracemalloc.start()
    try:
        assert chunks.values_of(frame.unpack(data)).shape == shape
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 72 * np.prod(shape) + (64 << 20), peak >> 20
    assert time.process_time() - begin < 10


# ---- the encoder -------------------------------------------------------------------------------------------


@cache
def scan(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return balls of one brightness each in noise; along the first axis of four they change it."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape[-3:]], indexing="ij")
    image: Any = 200
    for _ in range(10):
        centre, radius = rng.uniform(-0.7, 0.7, 3), rng.uniform(0.15, 0.5)
        inside = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < radius * radius
        image = image + rng.uniform(100, 900, (shape[0], 1, 1, 1) if len(shape) == 4 else ()) * inside
    return np.rint(image + rng.normal(0, 15, shape)).astype("<i2")


def coded(values: np.ndarray, target: Target, options: EncodeOptions = AUTO, mask: Any = None) -> bytes:
    """Return the frame of the mode, checked with both readers and against its promise."""
    data = encode.encode_as(TRANSFORM, values, target, mask, options)
    assert data is not None
    decoded = decode_chunk(data)
    check_equal_bits(decoded, decoder().decode(data))
    envelope = envelopes.split(values, mask)[1]
    assert quality.rmse(values, decoded, target, envelope.box, envelope.mask) <= target.rmse
    return data


@pytest.mark.parametrize("shape, rmse", [((6, 12, 28, 28), 25.0), ((20, 40, 40), 25.0)])
def test_a_corrected_chunk_keeps_its_promise_and_is_smaller(shape, rmse):
    values, target = scan(shape), Target(rmse=rmse, channel_axis=0 if len(shape) == 4 else None)
    data, plain = coded(values, target), coded(values, target, PLAIN)
    assert header_of(data).correction is not None and header_of(plain).correction is None
    assert len(data) < 0.97 * len(plain)
    fast = coded(values, target, EncodeOptions(device="cpu", preset="fast"))
    assert header_of(fast).correction is None
    decoded = decode_chunk(data).astype(float)
    assert np.sqrt(((decoded - values) ** 2).mean()) > 0.97 * rmse  # nothing is given away


@pytest.mark.parametrize(
    "shape, axis, rmse",
    [((6, 12, 28, 28), 0, 9.0), ((6, 1, 60, 60), 0, 25.0), ((90, 80), None, 25.0), ((6000,), None, 9.0),
     ((12, 28, 28, 6), 3, 25.0), ((1, 16, 30, 30), 0, 25.0), ((30, 40, 1), None, 25.0), ((2, 2, 40, 50), 0, 25.0)],
)  # fmt: skip
def test_it_is_never_larger_than_without_whatever_the_axes_are(shape, axis, rmse):
    if axis == 3:
        values = np.moveaxis(scan((6, 12, 28, 28)), 0, 3)
    elif len(shape) == 4:
        values = scan(shape)
    elif len(shape) == 3:
        values = scan((1, 30, 40)).reshape(shape)
    else:
        values = scan((1, math.prod(shape) // 80, 80)).reshape(shape)
    target = Target(rmse=rmse, channel_axis=axis)
    assert len(coded(values, target)) <= len(coded(values, target, PLAIN))


def test_a_chunk_too_small_has_none():
    values, target = scan((4, 4, 9, 9)), Target(rmse=25.0)
    data = coded(values, target)
    assert header_of(data).correction is None and data == coded(values, target, PLAIN)


def test_values_outside_a_mask_do_not_matter():
    values = scan((6, 12, 28, 28))
    ball = sum(a * a for a in np.meshgrid(*[np.linspace(-1, 1, n) for n in (12, 28, 28)], indexing="ij")) < 0.9
    mask = narrow(np.broadcast_to(ball, values.shape), values.shape)
    made = set()
    for outside in (0, 7, None):
        noise = np.random.default_rng(1).integers(-9000, 9000, values.shape) if outside is None else outside
        given_, narrowed = encode._masked(np.where(mask, values, noise).astype("<i2"), mask)
        made.add(coded(given_, Target(rmse=25.0, channel_axis=0), AUTO, narrowed))
    (only,) = made
    assert header_of(only).correction is not None
    assert not decode_chunk(only)[np.broadcast_to(~mask, values.shape)].any()


def test_positions_outside_are_not_fitted_to():
    rng = np.random.default_rng(3)
    volumes = rng.normal(0, 3000, (4, 6, 20, 20)).round()
    wanted, inside = volumes * 0.9, rng.random((6, 20, 20)) < 0.5
    plan = fitting.Plan(3, 1, 4, 60, 256)
    other = np.where(inside, wanted, 10**6)
    found = [fitting.fit([fitting.View(volumes, each, inside)], plan).write() for each in (wanted, other)]
    assert found[0] == found[1]


def test_measurements_that_are_nowhere_known_together_have_none():
    values, mask = scan((2, 20, 40, 40)).copy(), np.zeros((2, 20, 40, 40), bool)
    mask[0, :10] = mask[1, 10:] = True
    values[~mask] = 0
    data = coded(values, Target(rmse=9.0, channel_axis=0), AUTO, narrow(mask, values.shape))
    assert header_of(data).correction is None


def test_a_network_beyond_the_limits_of_readers_is_not_taken(monkeypatch):
    made = fitting.fit

    def beyond(*arguments: Any) -> Correction:
        found = made(*arguments)
        network = replace(found.network, readout=np.full_like(found.network.readout, 1023 * 1023))
        return replace(found, network=network)

    monkeypatch.setattr(transform_encode, "fit", beyond)
    values, target = scan((20, 40, 40)), Target(rmse=25.0)
    assert coded(values, target) == coded(values, target, PLAIN)


def test_a_fit_brings_volumes_nearer_to_what_is_wanted():
    rng = np.random.default_rng(4)
    smooth = rng.normal(0, 1, (3, 8, 24, 24)).cumsum(2).cumsum(3) * 300
    volumes = (smooth + rng.normal(0, 800, smooth.shape)).round()
    found = fitting.fit([fitting.View(volumes, smooth)], fitting.Plan(2, 2, 8, 300, 512))
    found.network.check()
    assert read(Reader(found.write()), 3).inputs == found.inputs == 2 + 2 * 6
    before = np.abs(volumes - smooth).mean((1, 2, 3))
    found.apply(volumes)
    after = np.abs(volumes - smooth).mean((1, 2, 3))
    assert (after[:2] < 0.8 * before[:2]).all() and after[2] == before[2]


@pytest.mark.parametrize("shape, faces, wide, flat", [((5, 6, 7), 6, 32, 24), ((1, 6, 7), 4, 12, 12),
                                                     ((1, 1, 7), 2, 4, 4), ((1, 1, 1), 0, 0, 0)])  # fmt: skip
def test_no_neighbours_are_read_along_an_axis_of_one(shape, faces, wide, flat):
    for offsets, count in ((fitting.FACES, faces), (fitting.WIDE, wide), (fitting.FLAT, flat)):
        plan = fitting.Plan(9, 5, 4, offsets=offsets).within(2, shape)
        assert len(plan.offsets) == count and (plan.leading, plan.near) == (2, 2)
        assert np.abs(np.array(plan.offsets)).max(initial=0) <= 2


_FIT = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from test_format_inloop import AUTO, TRANSFORM, Target, encode, header_of, scan
for shape, axis in (((6, 12, 28, 28), 0), ((20, 40, 40), None)):
    data = encode.encode_as(TRANSFORM, scan(shape), Target(rmse=25.0, channel_axis=axis), None, AUTO)
    assert header_of(data).correction is not None
    print(len(data), hashlib.sha256(data).hexdigest())
"""


def test_a_fit_has_the_same_bytes_with_any_number_of_threads():
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    made = set()
    for threads in "14":
        forced = {name: threads for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        made.add(run_python(_FIT, str(ROOT / "tests"), PYTHONPATH=path, **forced))
    assert len(made) == 1


def test_faulty_vectors_name_every_field():
    fields = {entry["field"] for entry in index_of(VECTORS / "faulty").values()}
    assert {f"inloop.{name}" for name in ("components", "differences", "neighbours", "shifts", "offsets", "inputs",
                                          "outputs", "network")} <= fields  # fmt: skip


@pytest.mark.parametrize("psnr", range(29, 37))
def test_a_network_that_pays_is_found_at_every_target(psnr):
    values = scan((6, 12, 28, 28))
    scale = tuple(float(v.max() - v.min()) for v in values)
    target = Target(rmse=10 ** (-psnr / 20), scale=scale)
    alone, corrected = (
        encode.encode_chunks([values], target, EncodeOptions(mode=mode))[0] for mode in ("transform", "auto")
    )
    assert len(corrected) < 0.9 * len(alone)
