"""Threads, processes, and machines without torch: encoding in batches, reading anywhere."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import zarr
from checks import check_equal_bits, random_values, run_python

from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target
from inrstore.codecs import InrCodec, InrNumcodec, batching
from inrstore.errors import ConfigurationError
from inrstore.options import EncodeOptions

NETWORKS = EncodeOptions(mode="siren")

# ---- several threads at once -------------------------------------------------------------------------------


def test_threads_that_wait_for_a_fit_are_taken_along_in_one_batch(monkeypatch):
    sizes, ready = [], threading.Event()

    def slow(chunks, targets, options, **_):
        sizes.append(len(chunks))
        if len(sizes) == 1:
            ready.wait(10)
        return [bytes([int(c[0]), int(t.rmse)]) for c, t in zip(chunks, targets, strict=True)]

    monkeypatch.setattr(batching, "encode_chunks", slow)
    with ThreadPoolExecutor(9) as pool:
        futures = [pool.submit(batching.encode_batch, [np.full(3, i)], Target(rmse=i + 1), NETWORKS) for i in range(9)]
        while len(batching._waiting) < 8:
            time.sleep(0.001)
        ready.set()
        results = [f.result(10) for f in futures]
    assert results == [[bytes([i, i + 1])] for i in range(9)]
    assert sizes == [1, 8]
    assert batching._waiting == []


def test_one_bad_chunk_fails_its_own_thread_alone(monkeypatch):
    def picky(chunks, targets, options, **_):
        if any(c[0] == 3 for c in chunks):
            raise ConfigurationError("three")
        return [bytes([int(c[0])]) for c in chunks]

    monkeypatch.setattr(batching, "encode_chunks", picky)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(batching.encode_batch, [np.full(3, i)], Target(rmse=1), NETWORKS) for i in range(8)]
        for i, future in enumerate(futures):
            if i == 3:
                with pytest.raises(ConfigurationError, match="three"):
                    future.result(10)
            else:
                assert future.result(10) == [bytes([i])]


def test_different_options_do_not_share_a_batch(monkeypatch):
    seen, hold = [], threading.Event()

    def record(chunks, targets, options, **_):
        if not seen:
            hold.wait(10)
        seen.append((options.preset, len(chunks)))
        return [b""] * len(chunks)

    monkeypatch.setattr(batching, "encode_chunks", record)
    presets = ["balanced", "fast", "small", "fast", "balanced", "small"]
    with ThreadPoolExecutor(6) as pool:
        futures = [
            pool.submit(batching.encode_batch, [np.zeros(2)], Target(rmse=1), replace(NETWORKS, preset=p))
            for p in presets
        ]
        while len(batching._waiting) < 5:
            time.sleep(0.001)
        hold.set()
        assert [f.result(10) for f in futures] == [[b""]] * 6
    assert sum(n for _, n in seen) == 6
    assert len(seen) <= 4  # the first alone, then one batch for each preset


@pytest.mark.parametrize("codec", [InrNumcodec(lossless=True), InrNumcodec(max_error=3)])
def test_many_threads_encode_and_decode_with_one_codec(codec):
    arrays = [random_values((6, 7, 8), "<i2", i, "smooth") + i for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(codec.encode, arrays))
        decoded = list(pool.map(codec.decode, frames))
    assert frames == [codec.encode(a) for a in arrays]
    for array, got in zip(arrays, decoded, strict=True):
        assert np.abs(got.astype(int) - array).max() <= 3


def test_decode_fills_the_buffer_it_is_given():
    codec, values = InrNumcodec(lossless=True), random_values((6, 7), "<f4", 1, "holes")
    out = np.empty((6, 7), "<f4")
    assert codec.decode(codec.encode(values), out=out) is out
    check_equal_bits(out, values)


@pytest.mark.parametrize("batch", [1, 64])
def test_zarr_hands_over_whole_batches(tmp_path, monkeypatch, batch):
    sizes = []

    def count(chunks, target, options, shared):
        sizes.append(len(chunks))
        return encode_chunks(chunks, target, options)

    monkeypatch.setattr("inrstore.codecs.zarr.encode_batch", count)
    values = random_values((16, 16), "<i2", 1, "noise")
    with zarr.config.set({"codec_pipeline.batch_size": batch}):
        array = zarr.create_array(
            tmp_path / "a",
            shape=values.shape,
            dtype="<i2",
            chunks=(4, 4),
            serializer=InrCodec(lossless=True),
            compressors=None,
        )
        array[...] = values
    assert sorted(sizes) == ([1] * 16 if batch == 1 else [16])
    check_equal_bits(array[...], values)


@pytest.mark.fit
def test_threads_that_fit_at_once_all_keep_their_promise():
    pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    chunks = [
        (50 * np.sin(np.arange(12) / 3)[:, None, None] + rng.normal(0, 9, (12, 12, 10))).astype("<i2") for _ in range(3)
    ]
    codec = InrNumcodec(rmse=12.0, preset="fast", device="cpu")
    with ThreadPoolExecutor(3) as pool:
        frames = list(pool.map(codec.encode, chunks))
    for chunk, data in zip(chunks, frames, strict=True):
        error = decode_chunk(data).astype(float) - chunk
        assert np.sqrt(np.mean(error**2)) <= 12


# ---- other processes ---------------------------------------------------------------------------------------


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    """Return the path of an array, and its values."""
    values = random_values((6, 16, 18), "<i2", 5, "noise")
    how = (
        {"serializer": InrCodec(lossless=True), "compressors": None}
        if request.param == 3
        else {"compressors": InrNumcodec(lossless=True)}
    )
    zarr.create_array(tmp_path / "a", data=values, chunks=(6, 8, 8), zarr_format=request.param, **how)
    return str(tmp_path / "a"), values


def test_dask_threads_read_it(store):
    dask_array = pytest.importorskip("dask.array")
    path, values = store
    lazy = dask_array.from_zarr(path)
    check_equal_bits(lazy.compute(scheduler="threads", num_workers=4), values)
    check_equal_bits(lazy[2, 3:12, ::5].compute(scheduler="threads"), values[2, 3:12, ::5])


def test_a_fresh_process_reads_it_without_importing_the_package(store):
    path, values = store
    code = """
import sys, zarr
array = zarr.open_array(sys.argv[1], mode="r")
part = array[2:4, 3, ::7]
print(part.tolist())
assert "inrstore" in sys.modules
for name in ("torch", "nibabel", "xarray", "dask", "matplotlib", "inrstore.chunk.inr.fit", "inrstore.store"):
    assert name not in sys.modules, name
"""
    assert run_python(code, path) == str(values[2:4, 3, ::7].tolist())


def test_distributed_workers_read_it_without_importing_the_package(store):
    distributed = pytest.importorskip("distributed")
    dask_array = pytest.importorskip("dask.array")
    path, values = store

    def read(path, row):
        import os
        import sys

        before = "inrstore" in sys.modules
        import zarr

        return before, zarr.open_array(path, mode="r")[row].tolist(), "inrstore" in sys.modules, os.getpid()

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        names = list(client.scheduler_info()["workers"])
        answers = [client.submit(read, path, i, workers=[names[i]], pure=False).result(60) for i in range(2)]
        for row, (before, part, after, _) in enumerate(answers):
            assert not before and after
            assert part == values[row].tolist()
        assert answers[0][3] != answers[1][3]
        check_equal_bits(dask_array.from_zarr(path).compute(), values)


# ---- without torch -----------------------------------------------------------------------------------------

_NO_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import numpy as np, zarr
from inrstore.codecs import InrCodec, InrNumcodec
from inrstore.errors import MissingDependencyError
values = np.arange(4096, dtype="i2").reshape(16, 16, 16) ** 2 % 977
def check(action):
    try:
        action()
    except MissingDependencyError as error:
        assert "inrstore[fit]" in str(error) and "torch" in str(error), error
        assert isinstance(error, ImportError)
    else:
        raise SystemExit("not refused")
check(lambda: InrNumcodec(rmse=3.0, mode="siren").encode(values))
def create(name, **promise):
    return zarr.create_array(sys.argv[1] + "/" + name, data=values, chunks=(8, 8, 8),
                             serializer=InrCodec(**promise), compressors=None)
check(lambda: create("network", rmse=3.0, mode="siren"))
for promise in ({"lossless": True}, {"max_error": 5}):
    array = create("-".join(promise), **promise)
    assert abs(array[...].astype(int) - values).max() <= 5
error = create("rmse", rmse=3.0)[...].astype(float) - values
assert (error ** 2).mean() <= 9.0 * 1.001, "wavelets need no torch"
print("as promised")
"""


def test_encoding_without_torch_names_the_extra_to_install(tmp_path):
    assert run_python(_NO_TORCH, str(tmp_path)) == "as promised"


_IMPORT = """
import sys, time
{before}
begin = time.process_time()
{imports}
print(time.process_time() - begin)
for name in ("torch", "nibabel", "xarray", "dask", "pandas", "matplotlib", "typer", "inrstore.chunk.inr.fit",
             "inrstore.store"):
    assert name not in sys.modules, name
"""


@pytest.mark.parametrize(
    "before, imports",
    [
        ("", "import inrstore.chunk.decode"),
        ("", "import inrstore"),
        ("import zarr", "import inrstore.codecs.zarr"),
        ("import zarr", "import inrstore.codecs.numcodecs"),
        ("", "import inrstore.codecs"),
    ],
)
def test_the_read_path_is_imported_in_half_a_second_and_without_what_only_a_converter_needs(before, imports):
    code = _IMPORT.format(before=before, imports=imports)
    assert min(float(run_python(code)) for _ in range(3)) < 0.5
