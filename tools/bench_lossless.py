"""Lossless sizes and speeds beside every codec a user would pick, on the real scans.

    pip install -e ".[bench]"
    python -m tools.bench_lossless            # every scan; writes tools/results/lossless.{csv,json,png}
    python -m tools.bench_lossless s03 s07    # some of them, printed only
    python -m tools.bench_lossless --ours     # every scan; the other codecs stay as they are in the result files

Image codecs see slices: in each of three orientations, for 4-D scans also the (t, x) planes; JPEG XL also
mosaics of many slices in one image, which is kinder to it than slice by slice. The smallest of all that is a
codec's size, so the peers are better than any one setting a user would choose. gzip, blosc2 and pcodec see the
whole array. Sizes of inrstore are whole chunks (frames) as the converter cuts them. One thread for every codec;
seconds are those of the processor, so that other work on the machine does not count; of ours the least of three runs.
Run it with OPENBLAS_NUM_THREADS=1: threads that wait would count.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target
from inrstore.options import EncodeOptions
from inrstore.sources import read_source
from inrstore.store import layout
from inrstore.store.layout import Grid
from tools.environment import DATA, describe, sha256

RESULTS = Path(__file__).resolve().parent / "results"
MOSAIC_VALUES = 1 << 21
OURS, RUNS = "inrstore", 3

Array = npt.NDArray[Any]
Encode = Callable[[Array], bytes]
Decode = Callable[[bytes], Array]


def slices(image: Array) -> dict[str, Array]:
    """Return the planes of an image in each orientation, (planes, rows, columns)."""
    volumes = image.reshape(-1, *image.shape[-3:])  # (t, z, y, x)
    planes = {
        "z": volumes.reshape(-1, *volumes.shape[2:]),
        "y": volumes.transpose(0, 2, 1, 3).reshape(-1, volumes.shape[1], volumes.shape[3]),
        "x": volumes.transpose(0, 3, 1, 2).reshape(-1, volumes.shape[1], volumes.shape[2]),
    }
    if len(volumes) > 1:
        planes["tx"] = volumes.transpose(1, 2, 0, 3).reshape(-1, volumes.shape[0], volumes.shape[3])
    return {name: np.ascontiguousarray(found) for name, found in planes.items()}


def mosaics(planes: Array) -> Iterator[Array]:
    """Yield images of many planes below one another."""
    many = max(1, MOSAIC_VALUES // (planes.shape[1] * planes.shape[2]))
    for start in range(0, len(planes), many):
        yield planes[start : start + many].reshape(-1, planes.shape[2])


def image_codecs() -> dict[str, tuple[Encode, Decode]]:
    """Return the codecs that see one plane at a time."""
    import imagecodecs

    return {
        "JPEG-LS": (imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
        "JPEG 2000": (
            lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="J2K", reversible=True),
            imagecodecs.jpeg2k_decode,
        ),
        "JPEG XL 5": (
            lambda a: imagecodecs.jpegxl_encode(a, lossless=True, effort=5, numthreads=1),
            lambda b: imagecodecs.jpegxl_decode(b, numthreads=1),
        ),
        "JPEG XL 9": (
            lambda a: imagecodecs.jpegxl_encode(a, lossless=True, effort=9, numthreads=1),
            lambda b: imagecodecs.jpegxl_decode(b, numthreads=1),
        ),
    }


def array_codecs() -> dict[str, tuple[Encode, Decode]]:
    """Return the codecs that see the whole array."""
    import blosc2
    from pcodec import ChunkConfig, standalone

    def blosc(a: Array) -> bytes:
        options = {"codec": blosc2.Codec.ZSTD, "filters": [blosc2.Filter.BITSHUFFLE], "typesize": a.itemsize}
        return blosc2.compress2(a.tobytes(), clevel=9, nthreads=1, **options)

    return {
        "gzip -9": (lambda a: gzip.compress(a.tobytes(), 9), lambda b: np.frombuffer(gzip.decompress(b), np.uint8)),
        "blosc2 zstd": (blosc, lambda b: np.frombuffer(blosc2.decompress2(b, nthreads=1), np.uint8)),
        "pcodec": (
            lambda a: standalone.simple_compress(a.ravel(), ChunkConfig(compression_level=8)),
            lambda b: standalone.simple_decompress(b),
        ),
    }


def timed(parts: list[Array], encode: Encode, decode: Decode) -> tuple[int, float, float]:
    """Return bytes, seconds to encode and seconds to decode; what is decoded must be what was encoded."""
    start = time.process_time()
    coded = [encode(part) for part in parts]
    middle = time.process_time()
    decoded = [decode(data) for data in coded]
    end = time.process_time()
    for part, found in zip(parts, decoded, strict=True):
        if np.asarray(found).tobytes() != part.tobytes():
            raise SystemExit("a codec does not give back what it was given")
    return sum(map(len, coded)), middle - start, end - middle


def peers(image: Array) -> dict[str, tuple[int, float, float]]:
    """Return the best of each codec."""
    # These codecs know no negative values; no scan at hand has any, or they are moved up.
    plain = np.ascontiguousarray((image.astype(np.int64) - min(0, int(image.min()))).astype(np.uint16))
    out = {name: timed([plain], *codec) for name, codec in array_codecs().items()}
    planes = slices(plain)
    order = list(planes)
    for name, codec in image_codecs().items():
        found = [timed(list(planes[which]), *codec) for which in (order if name != "JPEG XL 9" else order[:2])]
        if name == "JPEG XL 5":
            order = [which for _, which in sorted(zip([f[0] for f in found], order, strict=True))]
        if name == "JPEG XL 9":
            found += [timed(list(mosaics(planes[which])), *codec) for which in order[:2]]
        out[name] = min(found)
    return out


def ours(image: Array) -> tuple[int, float, float, dict[str, int]]:
    """Return bytes, seconds to encode, seconds to decode, and how many chunks took which mode."""
    dims = layout.image_dims(image.ndim)
    grid = Grid(image.shape, layout.choose_chunks(image.shape, dims, layout.LOSSLESS_VALUES))
    chunks = [grid.cut(image, index) for index in grid]
    encode = decode = math.inf
    for _ in range(RUNS):
        start = time.process_time()
        frames = encode_chunks(chunks, Target(lossless=True), EncodeOptions(threads=1))
        middle = time.process_time()
        decoded = [decode_chunk(frame) for frame in frames]
        encode, decode = min(encode, middle - start), min(decode, time.process_time() - middle)
    if any(not np.array_equal(one, other) for one, other in zip(chunks, decoded, strict=True)):
        raise SystemExit("inrstore does not give back what it was given")
    modes: dict[str, int] = {}
    for frame in frames:
        mode = describe_chunk(frame).mode
        modes[mode] = modes.get(mode, 0) + 1
    return sum(map(len, frames)), encode, decode, modes


def measure(path: Path) -> dict[str, Any]:
    """Return the row of one scan."""
    image = read_source(path).voxels
    found = peers(image)
    size, encode, decode, modes = ours(image)
    megabytes = image.nbytes / 1e6
    best = min(found, key=lambda name: found[name][0])
    row: dict[str, Any] = {
        "scan": path.name.split("_")[0].removeprefix("sub-"),
        "sha256": sha256(path),
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "bytes": image.nbytes,
        "best_peer": best,
        "best_peer_bytes": found[best][0],
        "inrstore_bytes": size,
        "ratio": round(found[best][0] / size, 4),
        "modes": modes,
        "decode_mvoxel_per_s": round(image.size / 1e6 / decode, 2),
        "codecs": {},
    }
    for name, (nbytes, e, d) in {OURS: (size, encode, decode), **found}.items():
        rates = {"encode_mb_per_s": round(megabytes / e, 2), "decode_mb_per_s": round(megabytes / d, 2)}
        row["codecs"][name] = {"bytes": nbytes, **rates}
    return row


def again(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a scan with what is ours measured anew."""
    path = next(path for path in DATA.glob("sub-*/*/*.nii.gz") if path.name.startswith(f"sub-{row['scan']}_"))
    if sha256(path) != row["sha256"]:
        raise SystemExit(f"{path.name} is not the scan that the other codecs were measured on")
    image = read_source(path).voxels
    size, encode, decode, modes = ours(image)
    megabytes = image.nbytes / 1e6
    rates = {"encode_mb_per_s": round(megabytes / encode, 2), "decode_mb_per_s": round(megabytes / decode, 2)}
    return row | {
        "inrstore_bytes": size,
        "ratio": round(row["best_peer_bytes"] / size, 4),
        "modes": modes,
        "decode_mvoxel_per_s": round(image.size / 1e6 / decode, 2),
        "codecs": row["codecs"] | {OURS: {"bytes": size, **rates}},
    }


def text(row: dict[str, Any]) -> str:
    """Return a row for people."""
    own = row["codecs"][OURS]
    sizes = f"{row['best_peer']:11} {row['best_peer_bytes']:>10,} {row['inrstore_bytes']:>10,} {row['ratio']:.3f}"
    speeds = f"{own['encode_mb_per_s']:.2f} MB/s {row['decode_mvoxel_per_s']:.2f} Mvoxel/s"
    return f"{row['scan']:12} {sizes}  {speeds}  {row['modes']}"


def geometric_mean(rows: list[dict[str, Any]]) -> float:
    """Return the geometric mean of the ratios."""
    return math.exp(sum(math.log(row["ratio"]) for row in rows) / len(rows))


def write(rows: list[dict[str, Any]], environment: dict[str, Any]) -> None:
    """Write the result files."""
    mean = geometric_mean(rows)
    head = {"environment": environment, "threads": 1}
    document = {**head, "geometric_mean": round(mean, 4), "smallest": min(r["ratio"] for r in rows), "rows": rows}
    (RESULTS / "lossless.json").write_text(json.dumps(document, indent=1) + "\n")
    with (RESULTS / "lossless.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["scan", "codec", "bytes", "bits_per_voxel", "encode_mb_per_s", "decode_mb_per_s"])
        for row in rows:
            voxels = math.prod(row["shape"])
            for name, cell in row["codecs"].items():
                rate = [cell["encode_mb_per_s"], cell["decode_mb_per_s"]]
                out.writerow([row["scan"], name, cell["bytes"], round(cell["bytes"] * 8 / voxels, 4), *rate])
    draw(rows, RESULTS / "lossless.png")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the size of every codec relative to inrstore, a group of bars for each scan."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in rows[0]["codecs"] if name != OURS]
    figure = Figure(figsize=(12, 4.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        heights = [row["codecs"][name]["bytes"] / row["inrstore_bytes"] for row in rows]
        panel.bar(np.arange(len(rows)) + (number - len(names) / 2 + 0.5) * width, heights, width * 0.92, label=name)
    panel.axhline(1, color="black", linewidth=1)
    panel.set_xticks(range(len(rows)), [row["scan"] for row in rows])
    panel.set_ylim(0.9, None)
    panel.set_ylabel("bytes / bytes of inrstore")
    panel.set_title("Lossless: how much larger than inrstore")
    panel.legend(ncols=len(names), fontsize=8, frameon=False, loc="upper center")
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scans", nargs="*", help="s01 ... s12; all and result files if none is named")
    parser.add_argument("--ours", action="store_true", help="measure inrstore alone, of every scan in the result file")
    options = parser.parse_args()
    environment = describe("imagecodecs", "blosc2", "pcodec", "nibabel")
    if options.ours:
        old = json.loads((RESULTS / "lossless.json").read_text())
        own = {name: environment["versions"][name] for name in ("inrstore", "numpy", "zarr", "torch", "nibabel")}
        same = {**old["environment"], "versions": old["environment"]["versions"] | own}
        if same != old["environment"] or any(environment[k] != old["environment"][k] for k in ("processor", "cores")):
            raise SystemExit("another machine or other versions: measure the other codecs too")
        rows = []
        for row in old["rows"]:
            rows.append(again(row))
            print(text(rows[-1]), flush=True)
        print(f"geometric mean {geometric_mean(rows):.4f}, smallest {min(r['ratio'] for r in rows):.4f}")
        return write(rows, old["environment"])
    wanted = options.scans
    paths = sorted(DATA.glob("sub-*/*/*.nii.gz"))
    if wanted:
        paths = [path for path in paths if any(path.name.startswith(f"sub-{name}") for name in wanted)]
    rows = []
    for path in paths:
        rows.append(measure(path))
        print(text(rows[-1]), flush=True)
    print(f"geometric mean {geometric_mean(rows):.4f}, smallest {min(r['ratio'] for r in rows):.4f}")
    if not wanted:
        write(rows, environment)


if __name__ == "__main__":
    main()
