"""Decoded bits do not depend on the machine, its libraries, the number of threads, or how much is decoded at once."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
import zarr
from checks import (
    VECTORS,
    check_equal_bits,
    decoder,
    digest,
    examples,
    index_of,
    little_bytes,
    maker,
    modes,
    run_python,
    vectors,
)
from hypothesis import given
from hypothesis import strategies as st

from inrstore.chunk import decode as chunks
from inrstore.chunk import dtypes, frame
from inrstore.chunk import envelope as envelopes
from inrstore.chunk.byteplanes import quantiser
from inrstore.chunk.byteplanes.quantiser import Quantiser
from inrstore.chunk.decode import decode_chunk, decode_region
from inrstore.chunk.entropy import weights
from inrstore.chunk.frame import Reader
from inrstore.chunk.inr import network, siren
from inrstore.chunk.modes import BY_NUMBER
from inrstore.codecs import InrCodec, InrNumcodec

VALID = vectors("subset", "uncommon")
MODES = modes()
SIRENS = [name for name, mode in MODES.items() if mode == "siren"]
PREDICTORS = [name for name, mode in MODES.items() if mode == "predictor"]
TRANSFORMS = [name for name, mode in MODES.items() if mode == "transform"]
HASHES = {n: e["sha256"] for f in ("subset", "uncommon") for n, e in index_of(VECTORS / f).items()}


@cache
def large_frame() -> bytes:
    """Return the frame of a network whose products are large enough for BLAS to share out among threads."""
    tool = maker()
    return tool.siren_frame(tool.like((24, 10, 20, 24), "<i2"), tool.Net(seed=1, layers=4, width=64, axis=0, each=True))


# ---- kernels and threads -----------------------------------------------------------------------------------

_DECODE_ALL = """
import ctypes, glob, hashlib, os, sys
import numpy as np
from inrstore.chunk.decode import decode_chunk
total = hashlib.sha256()
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        values = decode_chunk(file.read())
    total.update(np.asarray(values, values.dtype.newbyteorder("<"), order="C").tobytes())
libraries = glob.glob(os.path.join(os.path.dirname(np.__file__), os.pardir, "numpy.libs", "*openblas*"))
kernel = b"?"
if libraries:
    ask = getattr(ctypes.CDLL(libraries[0]), "scipy_openblas_get_corename64_", None)
    if ask is not None:
        ask.restype = ctypes.c_char_p
        kernel = ask()
print(total.hexdigest(), kernel.decode())
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Return files of all vectors whose mode has products of matrices, and of a larger network."""
    large = tmp_path_factory.mktemp("frames") / "large.chunk"
    large.write_bytes(large_frame())
    known = [
        VECTORS / folder / f"{name}.chunk" for folder in ("subset", "uncommon") for name in index_of(VECTORS / folder)
    ]
    return [str(p) for p in known if p.stem in {*SIRENS, *PREDICTORS, *TRANSFORMS}] + [str(large)]


def test_bits_are_equal_for_every_kernel_and_number_of_threads(files):
    hashes, kernels = set(), set()
    for kernel, threads in itertools.product(("Haswell", "Zen", "SkylakeX", "Sandybridge"), "12"):
        answer = run_python(
            _DECODE_ALL, *files, OPENBLAS_CORETYPE=kernel, OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads
        )
        bits, ran = answer.split(" ", 1)
        hashes.add(bits)
        kernels.add(ran)
    assert len(hashes) == 1
    assert len(kernels) >= 3 or kernels == {"?"}, kernels  # the variable took effect, where OpenBLAS can be asked


def test_bits_are_equal_without_vector_instructions(files):
    from numpy._core import _multiarray_umath as core

    present = [f for f in core.__cpu_dispatch__ if core.__cpu_features__.get(f)]
    plain = run_python(_DECODE_ALL, *files)
    assert run_python(_DECODE_ALL, *files, NPY_DISABLE_CPU_FEATURES=" ".join(present)) == plain


def test_bits_are_equal_from_many_threads_at_once():
    names = SIRENS * 4 + PREDICTORS + TRANSFORMS
    with ThreadPoolExecutor(8) as pool:
        for name, values in zip(names, pool.map(lambda n: decode_chunk(VALID[n]), names), strict=True):
            assert digest(values) == HASHES[name]


# ---- another machine's arithmetic --------------------------------------------------------------------------


def _with_torch(data: bytes, device: str) -> np.ndarray:
    """Decode a network with torch: float32 products, int64 for the rest."""
    import torch

    parsed = frame.unpack(data)
    dtype, reader = dtypes.little(parsed.dtype), Reader(parsed.payload)
    envelope = envelopes.read(reader, parsed.shape, dtype)
    box, kind = envelope.box_shape, envelope.coded(dtype)
    made = siren.read(reader, kind, box)
    net = made.network

    def whole(values: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(device)

    table = whole(np.rint(1023 * np.sin(2 * np.pi * (np.arange(4096) + 0.5) / 4096)))
    bent = whole(np.rint(1023 * np.tanh((np.arange(4096) - 2048 + 0.5) / 512)))
    functions = {
        "sine": lambda z: table[(z & 0xFFFFFFFF) >> 20],
        "linear": lambda z: ((z + (1 << 23)) >> 24).clamp(-1023, 1023),
        "relu": lambda z: ((z + (1 << 23)) >> 24).clamp(0, 1023),
        "tanh": lambda z: bent[(z >> 20).clamp(-2048, 2047) + 2048],
    }
    space = [n for a, n in enumerate(box) if a != made.channel_axis and n != 1]
    axes = [2 * torch.arange(n, device=device) - (n - 1) for n in space]
    state = (
        torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(len(space), -1) if axes else whole(np.zeros((0, 1)))
    )
    for number, layer in enumerate(net.layers):
        if number:
            product = (whole(layer.weights).float() @ state.float()).long()
        else:
            product = (whole(layer.weights)[:, :, None] * state).sum(1)
        biases = whole(layer.biases)[:, None] * net.bias_multiplier
        state = functions[layer.activation.name](product * layer.multiplier + biases)
    result = (whole(net.readout).float() @ state.float()).long() * whole(net.gains)[:, None]
    result += (whole(net.offsets) << (net.shift - 4))[:, None] + (1 << (net.shift - 1))
    result = (result >> net.shift).clamp(made.low, made.high)
    if kind.kind == "f":
        values = (result.double() * 2.0**made.exponent).cpu().numpy().astype(kind)
    else:
        values = (result << made.exponent).cpu().numpy().astype(kind)
    core = values.reshape(-1, *(n for a, n in enumerate(box) if a != made.channel_axis))
    core = core.reshape(box) if made.channel_axis is None else np.moveaxis(core, 0, made.channel_axis).copy()
    return envelopes.join(envelope.values_of(core, dtype), envelope, parsed.shape)


@pytest.mark.fit
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch_evaluates_networks_to_the_same_bits(device):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for name in SIRENS:
        assert digest(_with_torch(VALID[name], device)) == HASHES[name], name
    assert little_bytes(_with_torch(large_frame(), device)) == little_bytes(decode_chunk(large_frame()))


def _random_frame(seed: int) -> bytes:
    """Return a valid frame of a random mode, shape, dtype and envelope."""
    tool, rng = maker(), np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 7, rng.integers(0, 5)))
    dtype = np.dtype(rng.choice(["i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"]))
    like = np.zeros(shape, dtype, order=rng.choice(["C", "F"]))
    stop = tuple(int(rng.integers(1, n + 1)) for n in shape)
    start = tuple(int(rng.integers(0, n)) for n in stop)
    envelope = envelopes.whole(shape)
    if rng.random() < 0.4:
        envelope = tool.boxed(start, stop, rng.integers(0, 100, ()).astype(dtype))
    if dtype.kind == "f" and rng.random() < 0.4:
        envelope = tool.with_exceptions(envelope, dtype.str, seed)
    box = envelope.box_shape
    if box and rng.random() < 0.25:
        values = rng.integers(0, 90, box).astype(dtype) if rng.random() < 0.5 else np.full(box, 7, dtype)
        axis = int(rng.integers(0, len(box))) if box and rng.random() < 0.5 else None
        steps = rng.integers(1, 30, 1 if axis is None else box[axis]).astype(float)
        grid = None if rng.random() < 0.4 else Quantiser.over(values, steps, axis)
        return tool.planes_frame(like, grid, envelope, core=values)
    net = tool.Net(
        seed=seed, layers=int(rng.integers(1, 5)), width=int(rng.integers(1, 24)), spread=int(rng.integers(1, 60)),
        axis=int(rng.integers(0, len(box))) if box and rng.random() < 0.6 else None, each=bool(rng.random() < 0.5),
        density=float(rng.choice([1.0, 0.2])), shift=int(rng.integers(4, 35)), frequency=float(rng.random() * 3),
        activations=" ".join(rng.choice(["sine", "sine", "relu", "linear", "tanh"], 3)),
        widths=None if rng.random() < 0.5 else tuple(int(w) for w in rng.integers(1, 24, rng.integers(1, 5))),
    )  # fmt: skip
    whole = net.build(box)
    if dtype.kind == "f":
        exponent = int(rng.integers(-30, 30)) if dtype.itemsize > 2 else int(rng.integers(-14, 5))
        low, high = (int(v) for v in np.sort(rng.integers(-1900, 1900, 2)))
    else:
        info = np.iinfo(dtype)
        low, high = (int(v) for v in np.sort(rng.integers(max(info.min, -(2**31)), min(info.max, 2**31 - 1), 2)))
        room = [e for e in range(41) if info.min <= low << e and high << e <= info.max]
        exponent = int(rng.choice(room))
    # Where z wraps any multiplier will do, elsewhere sums have a limit.
    most = [2**32 if layer.activation.wraps else 2**20 for layer in whole.network.layers]
    turns = [int(rng.integers(0, m)) for m in [*most, 2**32]]
    made = tool.altered(whole, low=low, high=high, exponent=exponent, multipliers=turns)
    return tool.siren_frame(like, made, envelope)


def test_the_independent_reader_agrees_on_a_thousand_generated_chunks(monkeypatch):
    source = np.random.default_rng(5)

    def any_table(symbols: Any) -> weights.Table:
        peak = int(np.abs(symbols).max(initial=0))
        return weights.Table(
            int(source.integers(0, 2**32)), int(source.integers(0, 2**32)), peak + int(source.integers(0, 3))
        )

    monkeypatch.setattr(weights, "fit_table", any_table)
    seen = set()
    for seed in range(1000):
        data = _random_frame(seed)
        ours, theirs = decode_chunk(data), decoder().decode(data)
        assert ours.dtype == theirs.dtype and ours.flags.f_contiguous == theirs.flags.f_contiguous
        check_equal_bits(ours, theirs)
        seen.add((BY_NUMBER[data[5]].name, ours.dtype.str, ours.ndim))
    assert len(seen) > 60


def _random_predictor(seed: int) -> bytes:
    """Return a valid frame in mode predictor of random values, shape, dtype, envelope and fields."""
    rooms = [maker(room) for room in ("frames", "predictor")]
    tool, rng = rooms[0], np.random.default_rng(seed)

    def one(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    shape = tuple(int(n) for n in rng.integers(1, 9, rng.integers(0, 6)))
    if seed % 6 == 0:  # large enough for weights of regions
        shape = tuple(int(n) for n in rng.integers((2, 33, 32), (6, 50, 50)))
    dtype = np.dtype(one("i1", "u1", "<i2", "<u2", "<i4", "<u4", "<f2", "<f4"))
    if rng.random() < 0.3:  # any pattern of a narrow type, as many of a wide one
        least, zeros = int(rng.integers(0, 256 ** min(4, dtype.itemsize) - 2 ** min(16, 8 * dtype.itemsize) + 1)), False
        v = rng.integers(0, 2 ** min(16, 8 * dtype.itemsize), shape)
    else:
        zeros = bool(rng.random() < 0.4 and np.prod(shape[:-3], dtype=int) == 1)
        least, v = 20, np.clip(tool.smooth(shape, "<i4", seed, 30.0) + rng.integers(-2, 3, shape), 0, 100)
        v = np.where(rng.random(shape) < 0.5 * zeros, 0, v)
    pattern = (v + least).astype(f"<u{dtype.itemsize}")
    top = pattern.dtype.type(1 << (8 * dtype.itemsize - 1))
    if dtype.kind == "f":
        pattern = np.where(pattern & top, pattern ^ top, ~pattern)
    elif dtype.kind == "i":
        pattern = pattern ^ top
    values = np.array(pattern).view(dtype)
    envelope = None
    if rng.random() < 0.2:
        envelope = tool.with_mask(envelopes.whole(shape), tool.ball(shape), np.zeros((), dtype))
    if dtype.kind == "f" and rng.random() < 0.3:
        envelope = tool.with_exceptions(envelope or envelopes.whole(shape), dtype.str, seed)
    *first, rows, columns = 1, 1, *shape
    measurements = int(np.prod(first[:-1], dtype=int))
    exchanged = bool(rng.random() < 0.5)
    if exchanged:
        rows, columns = columns, rows
    region = None
    if measurements == 1 and rng.random() < 0.5:
        region = tuple(int(rng.integers(min(n, 16), n + 1)) for n in (rows, columns))
    whole = [range(1, min(n, 1 if region else 9) + 1) for n in (rows, columns)]
    parts = [int(rng.choice([a for a in some if (a - 1) * -(-n // a) < n]))
             for n, some in zip((rows, columns), whole, strict=True)]  # fmt: skip
    plan = rooms[1].Plan(
        seed=seed, exchanged=exchanged, zeros=zeros, base=least if zeros else one(None, least),
        low=None if one(0, 1) else min(0, int(v.min(initial=0))), top=one(1, 2, 4, 8), row_parts=parts[0],
        column_parts=parts[1], order=tuple(rng.permutation(measurements).tolist()), group_shift=one(0, 3, 12, 14),
        group_spread=one(0, 5, 2**30), fraction=int(rng.integers(4, 13)), sets=int(rng.integers(1, 17)),
        clip=one(1, 40, 2000, 65535), noise=one(0, 8, 200), activity_scale=one(0, 64, 1023), peak=one(1, 9, 90, 500),
        error_weight=one(0, 9, 150), shift=one(None, None, 0, 3),
        region=region, region_shift=one(0, 1, 4), lanes=one(0, 2, 3, 7),
        escape=one(None, 1, 2000), phased=one(None, False, True), overshoot=one(False, False, True),
    )  # fmt: skip
    return rooms[1].predictor_frame(np.asarray(values, order=one("C", "F")), plan, envelope)


def test_the_independent_reader_agrees_on_generated_predictors():
    seen = set()
    for seed in range(60):
        data = _random_predictor(seed)
        ours, theirs = decode_chunk(data), decoder().decode(data)
        assert ours.flags.f_contiguous == theirs.flags.f_contiguous
        check_equal_bits(ours, theirs)
        seen.add((ours.dtype.str, ours.ndim))
    assert len(seen) > 20


# ---- parts and blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block, room", [(1, 1), (7, 50), (777, 1 << 19), (1 << 20, 1 << 30)])
def test_bits_do_not_depend_on_how_many_values_are_evaluated_at_once(monkeypatch, block, room):
    monkeypatch.setattr(network, "_BLOCK", block)
    monkeypatch.setattr(network, "_ROOM", room)
    monkeypatch.setattr(quantiser, "_BLOCK", block)
    for name, data in VALID.items():
        assert digest(decode_chunk(data)) == HASHES[name], name


@st.composite
def selections(draw: Any, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """Return one integer or slice for each axis."""
    out: list[int | slice] = []
    for n in shape:
        ends = st.none() | st.integers(-n - 2, n + 2)
        step = st.none() | st.integers(-n - 1, n + 1).filter(bool)
        choices = st.builds(slice, ends, ends, step)
        out.append(draw(choices | st.integers(-n, n - 1) if n else choices))
    return tuple(out)


@given(st.data())
@examples(600)
def test_a_part_is_the_slice_of_the_whole(data):
    name = data.draw(st.sampled_from(sorted(VALID)))
    whole = decode_chunk(VALID[name])
    selection = data.draw(selections(whole.shape))
    check_equal_bits(np.asarray(decode_region(VALID[name], selection)), np.asarray(whole[selection]))


def test_a_part_has_the_byte_order_of_the_whole():
    for name in ("siren-i2-big-endian", "raw-i2-big-endian", "siren-f4-big-endian-exceptions"):
        whole = decode_chunk(VALID[name])
        assert decode_region(VALID[name], (slice(1, 2),) * whole.ndim).dtype == whole.dtype


def test_reading_the_whole_as_a_part_tests_the_checksum_of_the_values():
    tool, data = maker(), VALID["siren-i2-3d"]
    forged = tool.edit(data, frame.header_size(3) - 8, b"\0\0\0\0")
    decode_region(forged, (slice(0, 2), 0, slice(None)))
    with pytest.raises(chunks.CorruptChunkError, match="decoded_crc"):
        decode_region(forged, (slice(None), slice(0, 7), slice(0, 99, 1)))


# ---- two versions of Zarr, one payload ---------------------------------------------------------------------


def _stored(tmp_path: Any, values: np.ndarray, zarr_format: int, **promise: Any) -> bytes:
    path = tmp_path / str(zarr_format)
    if zarr_format == 3:
        how = {"serializer": InrCodec(**promise), "compressors": None}
    else:
        how = {"compressors": InrNumcodec(**promise)}
    zarr.create_array(path, data=values, chunks=values.shape, zarr_format=zarr_format, **how)
    key = ("c/" + "/".join("0" * values.ndim)) if zarr_format == 3 else ".".join("0" * values.ndim)
    return (path / key).read_bytes()


@pytest.mark.parametrize(
    "dtype, promise",
    [
        ("<i2", {"lossless": True}),
        ("<f4", {"lossless": True}),
        ("|u1", {"lossless": True}),
        ("<i2", {"max_error": 4.5}),
        ("<f8", {"max_error": 3e-2}),
        ("<u2", {"max_error": 40, "channel_axis": 1}),
    ],
)
def test_both_versions_of_zarr_store_the_same_payload(tmp_path, dtype, promise):
    values = maker().smooth((6, 7, 8, 3), dtype, 4, 60)
    one, other = (_stored(tmp_path, values, v, **promise) for v in (2, 3))
    assert one == other


@pytest.mark.fit
def test_both_versions_of_zarr_store_the_same_lossy_chunk(tmp_path):
    pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, 12)] * 3, indexing="ij")
    fields = np.array([np.exp(-(x * x + y * y + z * z)), np.sin(2 * x + y) * z])
    mixed = 900 * np.tensordot(rng.uniform(0.2, 1, (12, 2)), fields, 1)
    values = np.rint(mixed + rng.normal(0, 60, mixed.shape)).astype("<i2")
    promise = {"rmse": 80.0, "preset": "fast", "device": "cpu"}
    one, other = (_stored(tmp_path, values, v, **promise) for v in (2, 3))
    assert one == other
    assert chunks.describe_chunk(one).mode in ("siren", "transform")
