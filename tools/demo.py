"""A first look: convert a real scan, open it in three ways, print what came of it, draw a picture.

python -m tools.demo OUTPUT_FOLDER
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dask.array
import nibabel
import numpy as np
import zarr

import inrstore
from inrstore.store.reports import JobProgress
from inrstore.views.picture import draw_comparison


def main(folder: Path) -> None:
    """Run the demonstration; `folder` is emptied first."""
    source = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store = folder / "example4d.ozx"
    print(f"inrstore {inrstore.__version__}: {source.name} -> {store}; chunks are being coded")
    begin = time.perf_counter()
    report = inrstore.convert(source, store, psnr=40, progress=_line())
    print(f"{_CLEAR}  converted in {time.perf_counter() - begin:.1f} s")
    print(f"  voxels {report.source_bytes:,} bytes -> store {report.stored_bytes:,} bytes, all files counted")
    print(f"  ratio {report.ratio:.1f}   PSNR {report.psnr:.2f} dB   rmse {report.rmse:.2f}   modes {report.modes}")

    begin = time.perf_counter()
    image = zarr.open(f"zip::{store}", mode="r")["image"]
    print(f"\nzarr    {image.shape} {image.dtype}, opened in {1e3 * (time.perf_counter() - begin):.0f} ms")
    begin = time.perf_counter()
    voxel = image[:, 12, 48, 64]
    print(f"        one voxel, all measurements: {voxel}, {1e3 * (time.perf_counter() - begin):.0f} ms")
    data = inrstore.open(store)
    print(f"xarray  {dict(data['image'].sizes)}, coordinates {', '.join(map(str, data.coords))}")
    lazy = dask.array.from_zarr(image)
    print(f"dask    mean over space of each measurement: {np.round(lazy.mean(axis=(1, 2, 3)).compute(), 1)}")

    picture = folder / "example4d.png"
    draw_comparison(store, source, picture)
    print(f"\npicture original | decoded | error: {picture}")


_CLEAR = f"\r{'':60}\r" if sys.stdout.isatty() else ""


def _line() -> Callable[[JobProgress], None] | None:
    def show(job: JobProgress) -> None:
        print(f"\r  {job.stage:<20} {100 * job.fraction:5.1f} %", end="", flush=True)

    return show if sys.stdout.isatty() else None


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output"))
