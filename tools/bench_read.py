"""How fast chunks are read: numpy against compiled loops on every scan, and beside other readers.

    pip install -e ".[bench]"
    python -m tools.bench_read                # every scan; writes tools/results/read.{csv,json}
    python -m tools.bench_read s03 s07        # some of them, printed only
    python -m tools.bench_read --only latency # or dask, encode, chunks: see tools/bench_access.py; a key of read.json
    python -m tools.bench_read --only dask --dry

Each scan is coded losslessly as the converter cuts it, by the transform as one chunk at 36 and 40 dB, and at 40 dB with
a correcting network too, where one pays. All of it is decoded by one core, numpy and compiled loops in turn, the least
time of processor of a few runs each; the bits must be the same. Peers in the same run, one thread: nibabel reading the
.nii.gz, zarr reading blosc with zstd, JPEG XL (lossless, effort 5, slices) and SPERR (asked for 40 dB of the range).

`start` is another thing: wall seconds from the first import to the first decoded chunk of a fresh process, by numpy,
with loops in the cache, and as a user has it (`default`); and seconds to compile into an empty cache.
Run it with OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import encode_as, encode_chunks
from inrstore.chunk.kernels import choice
from inrstore.chunk.modes import TRANSFORM
from inrstore.chunk.quality import Target
from inrstore.options import EncodeOptions
from inrstore.store import layout
from inrstore.store.layout import Grid
from inrstore.store.quality import Quality
from tools.bench_rate_data import ORDER, Array, Volume, load, scan, write_rows
from tools.bench_rate_peers import sperr, unsperr
from tools.environment import describe, sha256

RESULTS = Path(__file__).resolve().parent / "results"
RUNS, START_RUNS = 4, 3
DECIBELS = (36.0, 40.0)
LOOPS = ("transform", "predictor", "network")
PEERS = ("nibabel .nii.gz", "zarr blosc-zstd", "JPEG XL 5 lossless", "SPERR 40 dB")

START = """
import time
begin = time.perf_counter()
import sys
from inrstore.chunk.decode import decode_chunk
decode_chunk(open(sys.argv[1], "rb").read())
print(time.perf_counter() - begin)
"""


def least(run: Callable[[], Any], runs: int = RUNS) -> float:
    """Return the least time of processor."""
    best = 1e9
    for _ in range(runs):
        begin = time.process_time()
        run()
        best = min(best, time.process_time() - begin)
    return best


def coded(volume: Volume) -> dict[str, list[bytes]]:
    """Return the frames of each way to store a volume."""
    image, dims = volume.image, layout.image_dims(volume.image.ndim)
    grid = Grid(image.shape, layout.choose_chunks(image.shape, dims, layout.LOSSLESS_VALUES))
    chunks = [grid.cut(image, index) for index in grid]
    out = {"lossless": encode_chunks(chunks, Target(lossless=True), EncodeOptions(threads=1))}
    whole = Grid(image.shape, image.shape)
    for decibels in DECIBELS:
        (target,) = Quality(psnr=decibels).chunk_targets(whole, volume.ranges, dims, lambda _: (image, None))
        for name, options in (("", EncodeOptions(mode="transform")), (" network", EncodeOptions())):
            if name and decibels != DECIBELS[-1]:
                continue
            frame = encode_as(TRANSFORM, image, target, options=options)
            if frame is not None and (not name or "network" in describe_chunk(frame).details):
                out[f"{decibels:.0f} dB{name}"] = [frame]
    return out


def compared(frames: list[bytes]) -> tuple[float, float, int]:
    """Return processor seconds of numpy and of compiled loops, and the number of values; the bits must be the same."""
    times, values = {False: 1e9, True: 1e9}, {}
    for _ in range(RUNS):
        for compiled in (False, True):
            with choice.use(compiled):
                times[compiled] = min(times[compiled], least(lambda: [decode_chunk(frame) for frame in frames], 1))
    for compiled in (False, True):
        with choice.use(compiled):
            values[compiled] = [decode_chunk(frame) for frame in frames]
    if any(one.tobytes() != other.tobytes() for one, other in zip(values[False], values[True], strict=True)):
        raise SystemExit("compiled loops give other bits")
    return times[False], times[True], sum(each.size for each in values[True])


def peers(volume: Volume) -> dict[str, float]:
    """Return processor seconds of other readers; those that are not installed are left out."""
    out: dict[str, float] = {}
    if importlib.util.find_spec("nibabel") is not None:
        import nibabel

        path = scan(volume.name)
        out[PEERS[0]] = least(lambda: np.asarray(nibabel.load(path).dataobj.get_unscaled()))
    out[PEERS[1]] = least(_zarr(volume.image))
    if importlib.util.find_spec("imagecodecs") is None:
        return out
    import imagecodecs

    planes = volume.image.reshape(-1, *volume.image.shape[-2:])
    planes = (planes.astype(np.int64) - min(0, int(planes.min()))).astype(np.uint16)
    images = [imagecodecs.jpegxl_encode(plane, lossless=True, effort=5, numthreads=1) for plane in planes]
    out[PEERS[2]] = least(lambda: [imagecodecs.jpegxl_decode(data, numthreads=1) for data in images], 2)
    stream = sperr(volume.unit.reshape(-1, *volume.unit.shape[-2:]), 40.0, "psnr")
    out[PEERS[3]] = least(lambda: unsperr(stream), 2)
    return out


def _zarr(image: Array) -> Callable[[], Any]:
    import zarr
    from zarr.codecs import BloscCodec

    codec = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
    stored = zarr.create_array(
        zarr.storage.MemoryStore(), shape=image.shape, chunks=image.shape, dtype=image.dtype, compressors=codec
    )
    stored[...] = image
    return lambda: stored[...]


def start(frame: bytes) -> dict[str, float]:
    """Return wall seconds of fresh processes."""
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame"
        path.write_bytes(frame)

        def seconds(setting: str, runs: int) -> float:
            environment = {**os.environ, choice.VARIABLE: setting, "NUMBA_CACHE_DIR": f"{folder}/cache"}
            command = [sys.executable, "-c", START, str(path)]
            done = [subprocess.run(command, env=environment, check=True, capture_output=True) for _ in range(runs)]
            return round(min(float(each.stdout) for each in done), 3)

        out["cold"] = seconds("1", 1)
        for name, setting in (("numpy", "0"), ("compiled", "1"), ("default", "")):
            out[name] = seconds(setting, START_RUNS)
    return out


def measure(name: str) -> tuple[list[dict[str, Any]], dict[str, list[bytes]]]:
    """Return the rows of a scan, and its frames."""
    volume = load(name, None, 0)
    size = volume.image.size / 1e6
    others = {peer: round(size / seconds, 1) for peer, seconds in peers(volume).items()}
    frames, rows = coded(volume), []
    for what, data in frames.items():
        plain, fast, values = compared(data)
        rows.append({
            "scan": name, "stored": what, "mode": describe_chunk(data[0]).mode, "sha256": sha256(scan(name)),
            "values": values, "bytes": sum(map(len, data)), "numpy_mvalue_per_s": round(values / plain / 1e6, 1),
            "compiled_mvalue_per_s": round(values / fast / 1e6, 1), "ratio": round(plain / fast, 2),
            "peers_mvalue_per_s": others,
        })  # fmt: skip
        print(text(rows[-1]), flush=True)
    print(f"{name:4} {'  '.join(f'{peer} {rate}' for peer, rate in others.items())}", flush=True)
    return rows, frames


def text(row: dict[str, Any]) -> str:
    """Return a row for people."""
    speeds = f"numpy {row['numpy_mvalue_per_s']:6.1f} compiled {row['compiled_mvalue_per_s']:6.1f} Mvalue/s"
    return f"{row['scan']:4} {row['stored']:13} {row['mode']:10} {speeds}  x{row['ratio']:.2f}"


def write(rows: list[dict[str, Any]], head: dict[str, Any]) -> None:
    """Write the result files."""
    write_rows(RESULTS / "read.json", {key: value for key, value in head.items() if key != "rows"}, rows)
    with (RESULTS / "read.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["scan", "stored", "reader", "mvalue_per_s"])
        for row in rows:
            for reader in ("numpy", "compiled"):
                out.writerow([row["scan"], row["stored"], reader, row[f"{reader}_mvalue_per_s"]])
        for name in dict.fromkeys(row["scan"] for row in rows):
            others = next(row["peers_mvalue_per_s"] for row in rows if row["scan"] == name)
            for peer, rate in others.items():
                out.writerow([name, "", peer, rate])


def kept() -> dict[str, Any]:
    """Return what the result file has so far, its rows apart."""
    path = RESULTS / "read.json"
    return json.loads(path.read_text()) if path.exists() else {"rows": []}


def other(name: str, dry: bool) -> None:
    """Measure what `bench_access` does, and put it beside what the result file has."""
    from tools.bench_access import MEASURES

    found = MEASURES[name]()
    for row in found:
        print(json.dumps({name: row}), flush=True)
    if not dry:
        head = {**kept(), name: {"environment": describe("numba", "nibabel", "dask", "numcodecs"), "rows": found}}
        rows = head.pop("rows")
        write_rows(RESULTS / "read.json", head, rows)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scans", nargs="*", help="s01 ... s12; all and result files if none is named")
    parser.add_argument("--only", choices=("latency", "dask", "encode", "chunks"), help="this, and nothing else")
    parser.add_argument("--dry", action="store_true", help="with --only: print, and write nothing")
    options = parser.parse_args()
    if options.only is not None:
        other(options.only, options.dry)
        return
    with choice.use(True):
        if any(choice.find(name, 1) is None for name in LOOPS):
            raise SystemExit("numba is needed: pip install numba")
    rows, starts = [], {}
    for name in options.scans or sorted(ORDER):
        found, frames = measure(name)
        rows += found
        if name in ("s03", "s07"):
            starts[name] = start(frames["40 dB"][0])
            print(json.dumps({"start": {name: starts[name]}}), flush=True)
    ratios = [row["ratio"] for row in rows]
    print(f"least {min(ratios)}, geometric mean {np.exp(np.mean(np.log(ratios))):.2f}")
    if not options.scans:
        environment = describe("numba", "nibabel", "imagecodecs", "numcodecs")
        head = {"environment": environment, "threads": 1, "least_ratio": min(ratios), "start_s": starts}
        write(rows, {**kept(), **head})


if __name__ == "__main__":
    main()
