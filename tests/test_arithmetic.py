"""Chunks are coded with the same arithmetic whatever a caller, or another library, has set in the thread."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checks import DTYPES, random_values, vectors

from inrstore.chunk import arithmetic
from inrstore.chunk.decode import decode_chunk, decode_region
from inrstore.chunk.encode import encode_chunks, encode_together
from inrstore.chunk.quality import Target
from inrstore.errors import CorruptChunkError

# ---- numpy.seterr ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["subset", "uncommon", "faulty"])
def test_decoding_raises_no_error_of_floats_whatever_numpy_is_set_to(folder):
    for name, data in vectors(folder).items():
        with np.errstate(all="ignore"):
            usual = outcome(data)
        with np.errstate(all="raise"):
            assert outcome(data) == usual, name


def outcome(data):
    try:
        whole = decode_chunk(data)
        part = decode_region(data, tuple(slice(n // 2) for n in whole.shape))
        return whole.tobytes(), part.tobytes()
    except CorruptChunkError as error:
        return error.field


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("promise", [{"lossless": True}, {"max_error": 2e-5}, {"rmse": 1e-6}, {"rmse": 3.0}], ids=str)
def test_encoding_makes_the_same_bytes_whatever_numpy_is_set_to(dtype, promise):
    kind = np.dtype(dtype).kind
    chunks = [random_values((3, 8, 9), dtype, 1, "noise"), random_values((3, 8, 9), dtype, 2, "holes")]
    if kind == "f":
        chunks += [(c.astype("f8") * 1e-6).astype(dtype) for c in chunks if np.isfinite(c).all()]
        chunks.append(np.linspace(0, float(np.finfo(dtype).tiny), 60).astype(dtype).reshape(3, 4, 5))
    target = Target(**promise)
    with np.errstate(all="ignore"):
        usual = [encode_chunks([c], target)[0] for c in chunks]
    with np.errstate(all="raise"):
        assert [encode_chunks([c], target)[0] for c in chunks] == usual


# ---- subnormal numbers that are flushed --------------------------------------------------------------------

CONTROL = r"""
#include <xmmintrin.h>
void flush(unsigned bits) { _mm_setcsr((_mm_getcsr() & ~0x8040u) | bits); }
"""
BITS = pytest.mark.parametrize("bits", [0x0040, 0x8000, 0x8040], ids=["FTZ", "DAZ", "both"])


@pytest.fixture(scope="module")
def flush(tmp_path_factory):
    """A function that sets FTZ and DAZ of this thread, as libraries do that are built with -ffast-math."""
    if platform.machine() != "x86_64" or shutil.which("gcc") is None:
        pytest.skip("needs gcc on x86-64")
    made = tmp_path_factory.mktemp("control") / "control.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-xc", "-", "-o", made], input=CONTROL.encode(), check=True)
    return ctypes.CDLL(str(made)).flush


def tiny_chunks():
    rng = np.random.default_rng(5)
    smooth = np.add.outer(np.arange(12.0), np.arange(40.0).reshape(5, 8))
    for dtype, scales in (("<f4", (1e-36, 1e-38, 1e-40, 1e-44)), ("<f8", (1e-306, 1e-310, 1e-320)), (">f4", (1e-39,))):
        for scale in scales:
            with np.errstate(all="ignore"):
                yield (smooth * scale).astype(dtype), scale
                yield (rng.normal(size=(3, 5, 6, 7)) * scale).astype(dtype), scale
                yield np.full((4, 5), scale, dtype), scale


@BITS
def test_tiny_values_that_were_encoded_where_they_are_flushed_are_read_elsewhere(flush, bits):
    cases = [(values, Target(**promise)) for values, scale in tiny_chunks()
             for promise in ({"lossless": True}, {"max_error": scale / 8}, {"rmse": scale / 8})]  # fmt: skip
    flush(bits)
    try:
        assert arithmetic.flushes()
        frames = [encode_chunks([values], target)[0] for values, target in cases]
        together = [encode_together([values, values], t) if t.rmse else None for values, t in cases]
    finally:
        flush(0)
    assert not arithmetic.flushes()
    for (values, target), frame, both in zip(cases, frames, together, strict=True):
        for data in (frame, *(both.frames if both else ())):
            found = decode_chunk(data, values.shape, values.dtype)
            bound = target.max_error or 0.0
            if target.rmse is not None or not bound:
                assert found.tobytes() == values.tobytes()
            else:
                assert np.abs(found.astype("f8") - values.astype("f8")).max() <= bound


@BITS
def test_what_would_be_read_differently_where_numbers_are_flushed_is_refused(flush, bits):
    data = {name: d for name, d in vectors("subset", "uncommon").items() if "-f" in name}
    right = {name: outcome(d) for name, d in data.items()}
    flush(bits)
    try:
        found = {name: outcome(d) for name, d in data.items()}
    finally:
        flush(0)
    for name, values in found.items():
        assert values == right[name] or isinstance(values, str), name  # the field that is wrong


def test_a_part_of_a_chunk_is_checked_where_numbers_are_flushed(monkeypatch):
    data = vectors("uncommon")["siren-f2-subnormal"]
    whole = decode_chunk(data)
    damaged = bytearray(data)
    monkeypatch.setattr(arithmetic, "flushes", lambda: True)
    part = tuple(slice(1) for _ in whole.shape)
    assert decode_region(data, part).tobytes() == whole[part].tobytes()
    import google_crc32c

    at = 8 + 4 * whole.ndim
    damaged[at] ^= 1
    damaged[-4:] = int(google_crc32c.value(bytes(damaged[:-4]))).to_bytes(4, "little")
    with pytest.raises(CorruptChunkError, match="FTZ"):
        decode_region(bytes(damaged), part)


def test_larger_values_are_coded_as_ever_where_numbers_are_flushed(flush):
    values = (np.random.default_rng(0).normal(size=(4, 8, 9)) * 100).astype("<f4")
    usual = encode_chunks([values], Target(rmse=5.0))
    flush(0x8040)
    try:
        assert encode_chunks([values], Target(rmse=5.0)) == usual
    finally:
        flush(0)


@pytest.mark.parametrize("dtype, least", [("<f4", 2.0**-100), (">f8", 2.0**-900)])
def test_tiny_values_are_found_by_their_bits(dtype, least):
    for tiny in (least / 2, -least / 2, np.finfo(dtype).smallest_subnormal):
        assert arithmetic.has_tiny(np.array([0, 1, tiny], dtype))
    assert not arithmetic.has_tiny(np.array([0, -0.0, least, -least, 1, np.inf, np.nan], dtype))
    assert not arithmetic.has_tiny(np.ones(3, "f2")) and not arithmetic.has_tiny(np.ones(3, "i4"))


def test_a_process_without_such_a_library_flushes_nothing():
    code = "from inrstore.chunk.arithmetic import flushes; assert not flushes()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
