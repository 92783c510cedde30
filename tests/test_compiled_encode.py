"""Compiled loops of encoders: the bytes of the numpy path, from any values, in any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from checks import ROOT
from hypothesis import given
from hypothesis import strategies as st

from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.entropy import residual_encode, student
from inrstore.chunk.entropy.student import StudentTable
from inrstore.chunk.kernels import choice
from inrstore.chunk.quality import Target
from inrstore.chunk.transform import compiled_encode, wavelet
from inrstore.chunk.transform.contexts import USUAL
from inrstore.chunk.transform.rdoq import Chooser
from inrstore.chunk.transform.subbands import levels_of, subbands_of
from inrstore.chunk.transform.weights import Sampler
from inrstore.options import EncodeOptions

pytestmark = pytest.mark.skipif(find_spec("numba") is None, reason="loops are compiled by numba")
DATA = ROOT.parent / "shared" / "data"


def both(function, *arguments: Any) -> list[Any]:
    """Return what a function gives with compiled loops, and what with numpy."""
    out = []
    for compiled in (True, False):
        with choice.use(compiled):
            out.append(function(*arguments))
    return out


# ---- parts of the transform --------------------------------------------------------------------------------


def coded(lengths: tuple[int, int, int], components: int, levels: tuple[int, int, int], scale: float,
          seed: int) -> dict[str, Any]:  # fmt: skip
    """Return all that a scan of random coefficients gives."""
    rng = np.random.default_rng(seed)
    subbands = subbands_of(lengths, levels)
    active = rng.integers(0, components + 1, len(subbands))
    active[0] = components
    whole = {}
    for number, subband in enumerate(subbands):
        values = rng.laplace(size=(components, *subband.shape)) * scale / (1 + 3 * subband.level)
        values[rng.random(values.shape) < 0.1] *= 40
        values = np.where(rng.random(values.shape) < 0.1, np.rint(2 * values) / 2, values)  # ties
        whole[subband.level, subband.key] = values.astype(np.float32)[: active[number]].clip(-(2**22), 2**22)
    weights = USUAL.copy()
    weights[..., :-1] = rng.integers(0, 80, weights[..., :-1].shape) * (rng.random(weights[..., :-1].shape) < 0.8)
    chooser, sampler = Chooser(subbands, whole), Sampler()
    found = compiled_encode.scan(subbands, iter(active), levels, weights, chooser, sampler)
    return {
        "compiled": chooser.loops is not None,
        "coefficients": {place: values.tobytes() for place, values in found.items()},
        "samples": {place: [(r.tobytes(), v.tobytes(), n) for r, v, n in some] for place, some in sampler.seen.items()},
        "worth": {number: values.tobytes() for number, values in chooser.worth.items()},
        "left": chooser.left,
        "excess": chooser.excess.tobytes(),
        "counts": (chooser.coefficients, chooser.model.flags.tobytes(), chooser.model.sizes.tobytes()),
        "bytes": chooser.streams(found),
    }


SHAPES = [((9, 17, 23), 3, (2, 3, 3)), ((1, 40, 31), 1, (0, 3, 3)), ((6, 1, 70), 2, (1, 0, 4)),
          ((33, 2, 3), 5, (3, 0, 0)), ((4, 4, 4), 2, (2, 2, 2)), ((1, 1, 5), 1, (0, 0, 1)), ((5, 64, 66), 4, (0, 3, 2)),
          ((8, 8, 1), 3, (2, 2, 0)), ((3, 5, 9), 1, (0, 0, 0)), ((20, 90, 70), 1, (2, 4, 4))]  # fmt: skip


@pytest.mark.parametrize("scale", [0.05, 0.6, 4.0, 3000.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_is_chosen_and_written(shape, scale):
    ours, wanted = both(coded, *shape, scale, 3)
    assert ours.pop("compiled") and not wanted.pop("compiled")
    for name, value in wanted.items():
        assert ours[name] == value, name


def test_nothing_at_all_is_written_the_same():
    ours, wanted = both(coded, (4, 9, 9), 1, (0, 2, 2), 1e-9, 1)
    assert ours["bytes"] == wanted["bytes"]


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 20)] * 4))
def test_random_coefficients_are_chosen_the_same(seed, shape):
    lengths, components = shape[:3], shape[3]
    levels = levels_of(lengths, 3)
    ours, wanted = both(coded, lengths, components, levels, float(2.0 ** (seed % 9 - 3)), seed)
    assert ours.pop("compiled") and not wanted.pop("compiled")
    assert ours == wanted


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (3, 9, 33, 47), (2, 1, 64, 1030), (1, 130, 3, 5), (5, 3, 1, 2)])
def test_the_forward_wavelet_gives_the_same_bits(shape):
    values = np.random.default_rng(5).normal(size=shape).astype(np.float32) * 1000
    for levels in {levels_of(shape[1:], 3), (0, *levels_of(shape[1:], 3)[1:])}:
        ours, wanted = both(compiled_encode.forward, values, levels)
        assert list(ours) == list(wanted)
        for place, part in wanted.items():
            assert ours[place].tobytes() == part.tobytes() and ours[place].shape == part.shape
            assert ours[place].flags.c_contiguous and part.flags.c_contiguous
    assert np.abs(values - restored(values)).max() < 1e-2


def restored(values: np.ndarray) -> np.ndarray:
    """Return values halved along the last axis longer than 1, and joined again."""
    axis = max(a for a in range(4) if values.shape[a] > 1)
    low, high = wavelet.split(values * np.float32(2**12), axis)
    joined = wavelet.join(low.astype(np.float64), high.astype(np.float64), axis, values.shape[axis])
    assert joined is not None
    return joined / 2**12


# ---- residuals ---------------------------------------------------------------------------------------------


def residuals(size: int, scale: float, spread: float, seed: int, table: StudentTable | None = None) -> dict[str, Any]:
    """Return all that coding makes of random residuals."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 256, size).astype(np.uint8) if seed % 2 else np.full(size, 77, np.uint8)
    errors = np.rint(rng.standard_t(1.5, size) * scale * np.exp(spread * (places >> 2) / 64)).clip(-65535, 65535)
    known = rng.integers(0, 65536, size)
    found = residual_encode.coded(errors.astype(np.int32), places, known.astype(np.uint16), table)
    streams = [found.stream(lanes) for lanes in (0, 3, 6)]
    return {"tables": found.tables, "rest": found.rest, "bits": found.bits, "counts": found.counts.tobytes(),
            "starts": found.starts.tobytes(), "streams": streams}  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 2, 300, 60_000])
@pytest.mark.parametrize(
    "scale, spread", [(0.0, 0.0), (0.3, 2.0), (3.0, 0.0), (3.0, 6.0), (300.0, 3.0), (40_000.0, 0.0)]
)
def test_residuals_give_the_same_tables_and_streams(size, scale, spread):
    for seed in (1, 2):
        ours, wanted = both(residuals, size, scale, spread, seed)
        assert ours == wanted


@given(st.integers(1, 65535), st.integers(1, 500), st.integers(1, 2000), st.booleans(), st.integers(0, 4),
       st.integers(0, 2**32))  # fmt: skip
def test_costs_of_tables_are_the_same(scale, peak, escape, phased, tail, seed):
    """To the last bit, and those of the tables that are written."""
    rng = np.random.default_rng(seed)
    scales = np.array([scale, max(1, scale // 7), 1, 65535])
    seen = np.zeros((4, 2 * peak + 1 + 2 * int(rng.integers(0, 3))))
    seen[: 4 if phased else 1] = rng.integers(0, 50, seen[: 4 if phased else 1].shape)
    with choice.use(True):
        loops = choice.find("predictor_encode", 1)
    found, wanted = np.zeros(len(scales)), np.zeros(len(scales))
    loops.add_bits(scales, peak, escape, phased, tail, seen, residual_encode.LOGS, found)
    middle = seen.shape[1] // 2
    for phase in range(4 if phased else 1):
        logs = residual_encode.LOGS[student.counts(scales, peak, escape, phase if phased else -1, tail)[:, :-1]]
        wanted -= np.cumsum(logs * seen[phase, middle - peak : middle + peak + 1], 1)[:, -1]
    assert found.tobytes() == wanted.tobytes()


# ---- whole chunks ------------------------------------------------------------------------------------------


def image(shape: tuple[int, ...], dtype: str, noise: float, seed: int = 1) -> np.ndarray:
    """Return an image with structure and noise."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    wave = sum(np.sin((3 + i) * a) for i, a in enumerate(axes))
    values = 110 + 25 * wave + noise * rng.normal(size=shape)
    values = values.clip(0, 255) if dtype == "u1" else values * (1.0 if np.dtype(dtype).kind == "f" else 7.0)
    return values.astype(dtype)


CHUNKS = [((5, 9, 33, 47), "<i2", 5.0), ((40, 70, 90), "u1", 8.0), ((17, 3, 20, 31), ">u2", 20.0),
          ((3, 130, 5, 6), "<f4", 1.0), ((2, 1, 64, 64), "<i4", 9.0), ((300, 41), "<f8", 2.0), ((4000,), "<u2", 3.0),
          ((12, 30, 32), "<i2", 0.0)]  # fmt: skip


@pytest.mark.parametrize("shape, dtype, noise", CHUNKS)
def test_chunks_are_encoded_to_the_same_bytes(shape, dtype, noise):
    values = image(shape, dtype, noise)
    inside = np.linalg.norm(np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")), axis=0) < 1
    options = EncodeOptions(mode="transform", preset="fast", threads=1)
    for target in (*(Target(rmse=r) for r in (0.8, 4.0, 30.0)), Target(lossless=True), Target(max_error=3)):
        for mask in (None, inside):
            ours, wanted = both(encode_chunks, [values], target, options, None, [mask])
            assert ours == wanted
    turned = np.asfortranarray(values)
    ours, wanted = both(encode_chunks, [turned], Target(rmse=4.0), options)
    assert ours == wanted


def test_two_threads_encode_to_the_same_bytes():
    chunks = [image((4, 10, 40 + i, 50), "<i2", 4.0, i) for i in range(6)]
    options = EncodeOptions(mode="transform", preset="fast", threads=1)
    with choice.use(False):
        wanted = [encode_chunks([chunk], Target(rmse=4.0), options)[0] for chunk in chunks]
    with choice.use(True), ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda chunk: encode_chunks([chunk], Target(rmse=4.0), options)[0], chunks))
    assert found == wanted


@pytest.mark.real
@pytest.mark.parametrize("name", ["s02", "s07", "s09", "s12"])
def test_real_crops_are_encoded_to_the_same_bytes(name):
    from inrstore.sources import read_source

    if not DATA.exists():
        pytest.skip("no real scans here")
    values = np.asarray(read_source(next(DATA.glob(f"sub-{name}*/*/*.nii.gz"))).voxels)
    middle = tuple(slice(n // 2 - w, n // 2 + w) for n, w in zip(values.shape[-3:], (8, 25, 28), strict=True))
    values = np.ascontiguousarray(values[(..., *middle)])
    options = EncodeOptions(mode="transform", threads=1)
    for target in (Target(rmse=float(np.ptp(values)) / 100), Target(lossless=True)):
        ours, wanted = both(encode_chunks, [values], target, options)
        assert ours == wanted
