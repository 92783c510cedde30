"""What a field costs, how well it agrees with the integers, and whether networks interpolate better than cubic splines.

    python -m tools.bench_field                    # all, some 15 minutes on a core; writes tools/results/field.json
    python -m tools.bench_field --only speed       # printed only
    python -m tools.bench_field --only left-out --preset balanced

speed      100,000 random points of a network of four layers of 64 sines with 33 outputs, the shape of sub-s01, on one
           core; and of the same scan coded by the transform, by splines
agreement  gradients against central differences; of every network that is fitted below: real values and the float32
           module against the decoded integers at the voxels
left-out   a network is fitted to every second slice, or every second voxel along x, of a patch of a scan, and gives the
           voxels left out; so does a cubic spline through the same voxels, and one through the network's. PSNR against
           the scan, of each measurement relative to its range in the patch
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from tools.environment import DATA, describe, sha256

RESULTS = Path(__file__).resolve().parent / "results"
POINTS = 100_000
REPEATS = 5
SEED = 0
WIDTH, LAYERS = 64, 4
DWI = "sub-s01/dwi/sub-s01_acq-philips32dir_dwi.nii.gz"
PATCHES = {
    "dMRI s01": (DWI, (slice(None), slice(0, 27), slice(48, 81), slice(48, 81))),
    "T1 s07": ("sub-s07/anat/sub-s07_T1w.nii.gz", (slice(110, 143), slice(110, 143), slice(24, 57))),
    "FLAIR s09": ("sub-s09/anat/sub-s09_desc-brats_FLAIR.nii.gz", (slice(60, 93), slice(100, 133), slice(100, 133))),
    "CT s10": ("sub-s10vhm/ct/sub-s10vhm_desc-visiblehumanmalehead_ct.nii.gz",
               (slice(24, 57), slice(100, 133), slice(60, 93))),
}  # fmt: skip
"""File, and the part of (t, z, y, x) or (z, y, x): odd lengths, so that all that is left out lies between."""
HELD = {"slices": "z", "voxels along x": "x"}
TARGETS = (30.0, 36.0)

Row = dict[str, Any]
Values = npt.NDArray[Any]


# ---- speed -------------------------------------------------------------------------------------------------


def network_store(folder: Path) -> Path:
    """Return a store of the shape of sub-s01 whose chunks are networks with random weights."""
    import nibabel as nib

    from inrstore.chunk.decode import decode_chunk
    from inrstore.sources import read_source
    from inrstore.store.conversion import Conversion
    from inrstore.store.options import Options
    from inrstore.store.quality import Quality
    from inrstore.store.reports import Clock
    from tools.vectors.frames import Net, siren_frame

    shape, affine = (33, 28, 128, 128), nib.load(DATA / DWI).affine
    frame = siren_frame(np.zeros((33, 14, 128, 128), "<i2"), Net(seed=SEED, layers=LAYERS, width=WIDTH, axis=0))
    image = np.concatenate([decode_chunk(frame)] * 2, 1)
    nib.save(nib.Nifti1Image(image.T, affine, dtype="int16"), folder / "n.nii")
    options = Options(quality=Quality(rmse=1.0), chunks=(14, 128, 128))
    conversion = Conversion(read_source(folder / "n.nii"), str(folder / "n.ozx"), options)
    assert conversion.grid.counts == (1, 2, 1, 1) and shape == image.shape
    conversion.frames = dict.fromkeys(conversion.grid, frame)
    conversion.finish(Clock(None, 1, 1))
    return folder / "n.ozx"


def best(action: Any) -> tuple[float, float]:
    """Return the shortest of some times by the clock, and of those of the processor, in seconds."""
    times = []
    for _ in range(REPEATS):
        start, used = time.perf_counter(), time.process_time()
        action()
        times.append((time.perf_counter() - start, time.process_time() - used))
    clock, processor = np.min(times, axis=0)
    return float(clock), float(processor)


def speed(folder: Path) -> list[Row]:
    """Measure points of networks and of splines."""
    import inrstore

    rows = []
    transform = folder / "t.ozx"
    inrstore.convert(DATA / DWI, transform, psnr=40, preset="fast")
    for name, store in (("network", network_store(folder)), ("spline", transform)):
        field = inrstore.field(store)
        points = np.random.default_rng(SEED).uniform(-0.5, np.array(field.shape) - 0.5, (POINTS, 3))
        world = points @ field.affine[:3, :3].T + field.affine[:3, 3]
        start = time.perf_counter()
        inrstore.field(store).sample(world[:1])
        first = time.perf_counter() - start
        for what, options in (("all measurements", {}), ("one measurement", {"measurements": 0}),
                              ("all, with gradients", {"gradient": True}),
                              ("one, with gradient", {"measurements": 0, "gradient": True})):  # fmt: skip
            seconds, used = best(partial(field.sample, world, **options))
            rows.append(
                {
                    "part": "speed",
                    "store": name,
                    "what": what,
                    "points": POINTS,
                    "seconds": round(seconds, 4),
                    "core_seconds": round(used, 4),
                }
            )
            print(f"{name:<8} {what:<20} {POINTS:,} points {seconds:.3f} s, {used:.3f} s of a core", flush=True)
        rows.append(
            {"part": "speed", "store": name, "what": "open and one point", "points": 1, "seconds": round(first, 4)}
        )
        print(f"{name:<8} open and one point {first:.3f} s", flush=True)
        rows.append(differences(name, field))
    return rows


def differences(name: str, field: Any) -> Row:
    """Compare gradients with central differences, relative to the largest gradient."""
    step = 1e-4
    voxels = np.random.default_rng(1).uniform(0.1, np.array(field.shape) - 1.1, (1000, 3))
    points = voxels @ field.affine[:3, :3].T + field.affine[:3, 3]
    found = field.sample(points, gradient=True).gradients
    moved = [(field.sample(points + move).values - field.sample(points - move).values) / (2 * step)
             for move in step * np.eye(3)]  # fmt: skip
    off = np.abs(np.stack(moved, -1) - found) / np.abs(found).max()
    print(
        f"{name:<8} gradients against differences: median {np.median(off):.1e}, 99 % below {np.quantile(off, 0.99):.1e}"
    )
    return {"part": "agreement", "store": name, "what": "gradients against central differences",
            "median": float(np.median(off)), "q99": float(np.quantile(off, 0.99))}  # fmt: skip


# ---- left out ----------------------------------------------------------------------------------------------


def patch(name: str) -> Values:
    """Return a patch as (t, z, y, x), as it is stored."""
    from inrstore.sources import read_source

    path, part = PATCHES[name]
    voxels = np.asarray(read_source(DATA / path).voxels[part])
    return voxels if voxels.ndim == 4 else voxels[None]


def fit(kept: Values, psnr: float, preset: str) -> Any:
    """Return the network of the format that keeps a PSNR on voxels (t, z, y, x), or None."""
    from inrstore.chunk import envelope
    from inrstore.chunk.fit_task import FitTask
    from inrstore.chunk.inr.fit.search import fit_networks
    from inrstore.chunk.inr.siren import Siren
    from inrstore.chunk.quality import Target
    from inrstore.options import EncodeOptions

    spans = np.ptp(kept.reshape(len(kept), -1).astype(np.float64), axis=1)
    scale = np.maximum(spans, 1.0)
    task = FitTask(index=0, core=np.ascontiguousarray(kept), envelope=envelope.whole(kept.shape), channel_axis=0,
                   scale=scale, target=Target(rmse=10 ** (-psnr / 20), scale=tuple(scale.tolist())),
                   budget=1 << 40)  # fmt: skip
    options = EncodeOptions(preset=preset, seed=SEED, threads=1)  # type: ignore[arg-type]
    ((_, found),) = fit_networks([task], options)
    return found if found is None or isinstance(found, Siren) else found.network


def left_out(name: str, held: str, psnr: float, preset: str) -> list[Row]:
    """Fit what is kept, and compare what is made of the rest."""
    from inrstore.chunk import envelope
    from inrstore.chunk.continuous import Continuous
    from inrstore.chunk.inr import siren
    from inrstore.chunk.inr.real import RealNetwork
    from inrstore.views import splines

    whole = patch(name)
    axis = "zyx".index(HELD[held])
    every = [slice(None)] * 4
    every[axis + 1] = slice(None, None, 2)
    kept = whole[tuple(every)]
    base = {"scan": name, "left_out": held, "asked": psnr, "preset": preset, "kept": list(kept.shape)}
    start = time.perf_counter()
    made = fit(kept, psnr, preset)
    seconds = time.perf_counter() - start
    if made is None:
        print(f"{name:<10} {held:<15} {psnr:g} dB was not reached, {seconds:.0f} s", flush=True)
        return [{"part": "left-out", **base, "reached": False, "fit_s": round(seconds, 1)}]
    dtype = np.dtype(kept.dtype.newbyteorder("<"))
    integers = siren.evaluate(made, dtype, kept.shape, [range(n) for n in kept.shape]).astype(np.float64)
    ready = Continuous(envelope.whole(kept.shape), made, RealNetwork.of(made.network), dtype, 3)
    lengths = np.array(whole.shape[1:])
    inside = [range(n) for n in lengths]
    inside[axis] = range(1, lengths[axis] - 1, 2)
    at = np.stack(np.meshgrid(*inside, indexing="ij")).reshape(3, -1)
    places = at.astype(np.float64)
    places[axis] /= 2
    nearest = np.clip(np.floor(places + 0.5).astype(np.int64), 0, np.array(kept.shape[1:])[:, None] - 1)
    truth = whole[(slice(None), *at)].astype(np.float64).T
    measured = np.arange(len(kept))[:, None]

    def spline(values: Values) -> Values:
        return splines.interpolate(lambda some, parts: values[(some, *parts)], kept.shape[1:], places, nearest,
                                   len(values), False)[0]  # fmt: skip

    spans = np.maximum(np.ptp(whole.reshape(len(whole), -1).astype(np.float64), axis=1), 1.0)

    def decibels(error: Values) -> float:
        return round(float(-10 * np.log10(np.mean((error / spans) ** 2))), 2)

    row = {
        "part": "left-out", **base, "reached": True, "fit_s": round(seconds, 1),
        "bytes": len(siren.write(made)), "layers": [len(layer.biases) for layer in made.network.layers],
        "kept_psnr": decibels((integers - kept).reshape(len(kept), -1).T),
        "network": decibels(ready(places, nearest, measured, False)[0] - truth),
        "spline": decibels(spline(kept) - truth),
        "spline_of_network": decibels(spline(integers) - truth),
    }  # fmt: skip
    print(f"{name:<10} {held:<15} {psnr:g} dB: network {row['network']}, spline {row['spline']}, spline through the "
          f"network's {row['spline_of_network']} ({row['bytes']:,} bytes, {seconds:.0f} s)", flush=True)  # fmt: skip
    return [row, agreement(base, ready, integers, kept)]


def agreement(base: Row, ready: Any, integers: Values, kept: Values) -> Row:
    """Compare the real function and the module with the integers at the voxels of a fitted network."""
    import torch

    places = np.stack(np.meshgrid(*(np.arange(n) for n in kept.shape[1:]), indexing="ij")).reshape(3, -1)
    decoded = integers.reshape(len(integers), -1).T
    real = ready(places.astype(np.float64), places, np.arange(len(kept))[:, None], False)[0]
    module, _ = ready.module([0] * 4, kept.shape)
    with torch.no_grad():
        float32 = module(torch.tensor(places[::-1].T.astype(np.float32))).numpy()
    rmse = float(np.sqrt(np.mean((decoded - kept.reshape(len(kept), -1).T) ** 2)))
    row: Row = {
        "part": "agreement",
        **base,
        "what": "against the integers, in output steps",
        "rmse_of_fit": round(rmse, 2),
    }
    for name, values in (("real", real), ("module", float32)):
        off = np.abs(values - decoded) / 2.0**ready.siren.exponent
        row[name] = {"rms": round(float(np.sqrt(np.mean(off**2))), 4), "max": round(float(off.max()), 3),
                     "within_one": round(float((off <= 1).mean()), 6)}  # fmt: skip
    print(
        f"           real and module against the integers: {row['real']}, {row['module']}, rmse of the fit {rmse:.1f}"
    )
    return row


# ---- all ---------------------------------------------------------------------------------------------------


def main(words: list[str] | None = None) -> int:
    """Measure and write."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=("speed", "left-out"), help="one part, printed only")
    parser.add_argument("--scans", default=",".join(PATCHES))
    parser.add_argument("--preset", default="fast", help="effort of the fits")
    parser.add_argument("--psnr", default=",".join(map(str, TARGETS)), help="dB of the voxels that are kept")
    parser.add_argument("--add", action="store_true", help="write the rows of one part, too")
    arguments = parser.parse_args(words)
    printed = arguments.only and not arguments.add
    keep = (lambda rows: None) if printed else write
    if arguments.only != "left-out":
        with tempfile.TemporaryDirectory() as folder:
            keep(speed(Path(folder)))
    for name in arguments.scans.split(",") if arguments.only != "speed" else ():
        for held in HELD:
            for psnr in map(float, arguments.psnr.split(",")):
                keep(left_out(name, held, psnr, arguments.preset))
    return 0


def write(rows: list[Row]) -> None:
    """Put rows into the result file, in the place of those of the same measurement."""
    path = RESULTS / "field.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    new = [_key(row) for row in rows]
    rows = [row for row in before if _key(row) not in new] + rows
    data = {"environment": describe("scipy", "nibabel"), "seed": SEED,
            "data": {part: sha256(DATA / part) for part, _ in PATCHES.values()}, "rows": rows}  # fmt: skip
    path.write_text(json.dumps(data, indent=1) + "\n")


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("part", "scan", "left_out", "asked", "preset", "store", "what"))


if __name__ == "__main__":
    sys.exit(main())
