"""What `tools.bench_read --only` measures: parts of a stored image, dask, encoders, what chunks cost.

- `latency`: wall milliseconds until one axial slice, or the course of one voxel, of all measurements is there, of a
  scan resized to the shape of UK Biobank's: `cold` when nothing of the file has been decoded (it is in the memory of
  the system), `second` when the same is asked for a second time, `warm` later.
- `dask`: wall seconds of the mean over that image by threads, and by processes that have started already; decoded
  chunks are not kept.
- `encode`: wall seconds of conversions by numpy and by compiled loops, on the cores there are (two for what is
  committed).
- `chunks`: bytes of stores with chunks as the converter cuts them, over those with chunks as large as can be.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array
import nibabel
import numpy as np
import zarr
from dask.distributed import Client, LocalCluster
from zarr.codecs import BloscCodec

import inrstore
from inrstore.chunk.kernels import choice
from tools.bench_fit import UK_BIOBANK, resized
from tools.bench_rate_data import load, scan

RUNS = 4
LARGE = ("s01", "s07", "s09", "s10", "s12")
"""Scans of more than 2^22 values."""
ENCODED = ("s07", "s01", "s12")
Read = Callable[[], Any]


def latency() -> list[dict[str, Any]]:
    """Return the rows of `latency`."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        paths = _written(Path(name))
        for reader, opener in (
            ("inrstore .ozx", lambda: _opened(paths["ozx"])),
            ("zarr blosc-zstd", lambda: zarr.open_array(paths["zarr"], mode="r")),
            ("nibabel .nii.gz", lambda: _Nifti(paths["nifti"])),
        ):
            rows += [{"reader": reader, "wanted": wanted, **times} for wanted, times in _timed(opener).items()]
    return rows


def dask_mean() -> list[dict[str, Any]]:
    """Return the rows of `dask`."""
    rows: list[dict[str, Any]] = []
    before = inrstore.cache(0)
    try:
        with tempfile.TemporaryDirectory() as name, choice.use(True):
            os.environ[choice.VARIABLE] = "1"  # for processes
            lazy = dask.array.from_zarr(_opened(_written(Path(name))["ozx"]))
            for workers in (1, 2):

                def run(workers: int = workers) -> Any:
                    return lazy.mean().compute(scheduler="threads", num_workers=workers)

                rows.append({"scheduler": "threads", "workers": workers, "seconds": _least(run)})
            for workers in (1, 2):  # that have started already
                with (LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
                      Client(cluster) as client):  # fmt: skip
                    client.run(inrstore.cache, 0)
                    rows.append({"scheduler": "processes", "workers": workers,
                                 "seconds": _least(lambda: lazy.mean().compute())})  # fmt: skip
            for row in rows:
                alone = next(r for r in rows if r["scheduler"] == row["scheduler"])
                row["ratio"] = round(alone["seconds"] / row["seconds"], 2)
    finally:
        inrstore.cache(before)
        os.environ.pop(choice.VARIABLE, None)
    return rows


def _least(run: Read) -> float:
    """Return the least seconds of a few runs, after one that is not counted."""
    run()
    return round(min(_seconds(run) for _ in range(RUNS)), 3)


def encode(names: tuple[str, ...] = ENCODED) -> list[dict[str, Any]]:
    """Return the rows of `encode`."""
    rows = []
    for name in names:
        seconds, stored = {}, {}
        for compiled in (False, True):
            with choice.use(compiled):
                stored[compiled], seconds[compiled] = _converted(name, psnr=40.0, mode="transform")
        if stored[False] != stored[True]:
            raise SystemExit("compiled loops make other bytes")
        rows.append({"scan": name, "cores": len(os.sched_getaffinity(0)), "bytes": stored[True],
                     "numpy_s": round(seconds[False], 2), "compiled_s": round(seconds[True], 2),
                     "ratio": round(seconds[False] / seconds[True], 2)})  # fmt: skip
    return rows


def chunks(names: tuple[str, ...] = LARGE) -> list[dict[str, Any]]:
    """Return the rows of `chunks`."""
    rows = []
    for name in names:
        for psnr in (36.0, 40.0):
            cut, whole = (_converted(name, psnr=psnr, chunks=shape)[0] for shape in ("auto", "whole"))
            rows.append({"scan": name, "psnr": psnr, "bytes": cut, "whole_bytes": whole,
                         "ratio": round(cut / whole, 4)})  # fmt: skip
    return rows


MEASURES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "latency": latency, "dask": dask_mean, "encode": encode, "chunks": chunks
}  # fmt: skip


# ---- files -------------------------------------------------------------------------------------------------


def _written(folder: Path) -> dict[str, Path]:
    """Write the resized scan in each way."""
    image = resized(load("s01", None, 0).image, UK_BIOBANK)
    paths = {"nifti": folder / "a.nii.gz", "ozx": folder / "a.ozx", "zarr": folder / "a.zarr"}
    nibabel.Nifti1Image(image.T, np.eye(4)).to_filename(paths["nifti"])
    inrstore.convert(paths["nifti"], paths["ozx"], psnr=40.0)
    codec = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
    made = zarr.create_array(
        paths["zarr"], shape=image.shape, chunks=_opened(paths["ozx"]).chunks, dtype=image.dtype, compressors=codec
    )
    made[...] = image
    return paths


def _opened(path: Path) -> Any:
    return zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")["image"]


class _Nifti:
    """An image of nibabel, indexed as the others are."""

    def __init__(self, path: Path) -> None:
        self._values = nibabel.load(path).dataobj

    def __getitem__(self, index: tuple[Any, ...]) -> Any:
        return np.asarray(self._values[(*index[::-1],)])


def _timed(opener: Callable[[], Any]) -> dict[str, dict[str, float]]:
    z, y, x = (n // 2 for n in UK_BIOBANK[1:])
    whole = slice(None)
    wanted = {"slice": (whole, z, whole, whole), "voxel": (whole, z, y, x)}
    out = {}
    with choice.use(True):
        opener()[(whole, 0, 0, 0)]  # loops are loaded
        for name, index in wanted.items():
            times: dict[str, list[float]] = {"cold": [], "second": [], "warm": []}
            for _ in range(RUNS):
                _forget(opener)
                image = opener()
                for when in times:
                    times[when].append(_seconds(lambda image=image, index=index: image[index]))
            out[name] = {f"{when}_ms": round(1e3 * min(each), 2) for when, each in times.items()}
    return out


def _forget(opener: Callable[[], Any]) -> None:
    """Have no decoded chunks kept, and nobody reading slice by slice: two chunks are asked for once."""
    inrstore.cache(inrstore.cache(0))
    image = opener()
    image[slice(None), 0, 0, 0], image[slice(None), -1, 0, 0]


def _converted(name: str, **options: Any) -> tuple[int, float]:
    """Return bytes and wall seconds of a conversion."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        report = inrstore.convert(scan(name), Path(folder) / "a.ozx", **options)
        return report.stored_bytes, time.perf_counter() - begin


def _seconds(run: Read) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
