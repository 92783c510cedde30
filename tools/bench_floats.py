"""Measure lossless floating-point chunks beside gzip, Zstandard and xz of the same bytes.

python -m tools.bench_floats DATA [--only NAME ...] [--out FILE]

DATA is a folder of NIfTI images as they come from scanners. Each is taken through what programs do to images: other
types, scale factors, divisions, functions of the values; a few fields without an image stand beside them. Every frame
is decoded and compared bit for bit.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from numcodecs.zstd import Zstd

from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.frame import unpack
from inrstore.chunk.modes import find
from inrstore.chunk.quality import Target
from tools.environment import describe

Array = npt.NDArray[Any]


def stored(folder: Path, name: str, crop: tuple[slice, ...]) -> Array:
    """Return integers of an image as they are stored, axes in the order of a store."""
    (path,) = folder.rglob(f"{name}.nii.gz")
    values = np.asarray(nibabel.load(path).dataobj.get_unscaled()).T  # type: ignore[attr-defined]
    return np.ascontiguousarray(values[crop])


def anisotropy(dwi: Array) -> Array:
    """Return a map like one of fractional anisotropy: in 0..1, and 0 in the air; float32."""
    mean, spread = dwi.astype(np.float64).mean(0), dwi.astype(np.float64).std(0)
    ratio = np.clip(spread / np.maximum(mean, 1), 0, 1) * np.sqrt(np.float64(0.73))
    return np.where(mean > np.percentile(mean, 60), ratio, 0).astype("<f4")


def standardised(values: Array) -> Array:
    """Return values less their mean over their deviation; float64."""
    wide = values.astype(np.float64)
    return np.asarray((wide - wide.mean()) / wide.std())


def smooth(shape: tuple[int, ...], kind: str) -> Array:
    """Return a field without noise."""
    axes = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    return np.asarray(sum(np.sin(a * (1 + i)) for i, a in enumerate(axes)) * 100).astype(kind)


def cases(folder: Path) -> Iterator[tuple[str, Callable[[], Array]]]:
    """Yield names and what they stand for."""
    some = slice(32, 64)

    def t1() -> Array:
        return stored(folder, "sub-s07_T1w", (some,))

    def flair() -> Array:
        return stored(folder, "sub-s08_FLAIR", ())

    def brats() -> Array:
        return stored(folder, "sub-s09_desc-brats_FLAIR", (slice(60, 90),))

    def ct() -> Array:
        return stored(folder, "sub-s11_desc-chest_ct", ())

    def dwi() -> Array:
        return stored(folder, "sub-s02_acq-prismab2000_dwi", ())

    def philips() -> Array:
        return stored(folder, "sub-s01_acq-philips32dir_dwi", (slice(0, 8),))

    rng = np.random.default_rng(1)
    yield "T1 / 7, float64", lambda: t1() / 7.0
    yield "T1 / 7.3, float32", lambda: (t1() / 7.3).astype("<f4")
    yield "T1 int32 / float32, float64 of float32", lambda: (t1() * np.float32(0.137)).astype("<f8")
    yield "T1 standardised, float64", lambda: standardised(t1())
    yield "T1 standardised, float32", lambda: standardised(t1()).astype("<f4")
    yield "T1 to 0..1, float32", lambda: (t1() / t1().max()).astype("<f4")
    yield "exp(T1 / 100), float32", lambda: np.exp(t1() / 100).astype("<f4")
    yield "exp(T1 / 100), float64", lambda: np.exp(t1() / 100)
    yield "FLAIR, integers in float32", lambda: flair().astype("<f4")
    yield "FLAIR, integers in float64", lambda: flair().astype("<f8")
    yield "BraTS FLAIR, integers in float32, NaN outside", lambda: np.where(brats() > 0, brats(), np.nan).astype("<f4")
    yield "CT in HU, float32", lambda: (ct() * 1.0 - 1024.0).astype("<f4")
    yield "CT 0.1 x - 102.4, float64", lambda: ct() * 0.1 - 102.4
    yield "dMRI x 704.172, float64", lambda: philips() * float(np.float32(704.172))
    yield "dMRI x 704.172, float32", lambda: (philips() * float(np.float32(704.172))).astype("<f4")
    yield "dMRI, integers in float32", lambda: dwi().astype("<f4")
    yield "anisotropy, float32", lambda: anisotropy(dwi())
    yield "anisotropy, float64", lambda: anisotropy(dwi()).astype("<f8") ** 0.5
    yield "T1 smoothed, float32", lambda: (t1()[1:].astype("<f4") + t1()[:-1] * np.float32(0.3)) / np.float32(1.3)
    yield "labels, float32", lambda: (t1() // 50).astype("<f4") * np.float32(1.1)
    yield "smooth field, float32", lambda: smooth((48, 96, 96), "<f4")
    yield "smooth field, float64", lambda: smooth((48, 96, 96), "<f8")
    yield "noise, float32", lambda: rng.normal(size=(40, 100, 100)).astype("<f4")
    yield "noise, float64", lambda: rng.normal(size=(40, 100, 100))
    yield "uniform noise, float32", lambda: rng.random((40, 100, 100), np.float32)


def measured(values: Array, others: bool) -> dict[str, Any]:
    """Return the bytes that a chunk takes."""
    raw = values.tobytes()
    began = time.perf_counter()
    (frame,) = encode_chunks([values], Target(lossless=True))
    encoded = time.perf_counter()
    back = decode_chunk(frame)
    decoded = time.perf_counter()
    if back.tobytes() != raw or back.dtype != values.dtype:
        raise SystemExit("a chunk did not come back")
    parsed = unpack(frame)
    sizes = {
        "sha256": hashlib.sha256(raw).hexdigest()[:16],
        "raw": len(raw),
        "ours": len(frame),
        "gzip9": len(gzip.compress(raw, 9, mtime=0)),
    }
    if others:
        sizes |= {"zstd19": len(Zstd(level=19).encode(raw)), "xz": len(lzma.compress(raw, preset=6))}
    return sizes | {"mode": find(parsed.mode).name, "envelope": parsed.payload[0],
                    "encode_s": round(encoded - began, 2), "decode_s": round(decoded - encoded, 2)}  # fmt: skip


def main() -> None:
    """Print a line for each case, and write all to a file."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_floats", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of names of cases")
    parser.add_argument("--others", action="store_true", help="Zstandard and xz, too")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    found = {}
    for name, make in cases(options.data):
        if any(part in name for part in options.only):
            found[name] = row = measured(np.ascontiguousarray(make()), options.others)
            print(f"{name:48}", *(f"{key} {value}" for key, value in row.items()), flush=True)
    if options.out:
        options.out.write_text(json.dumps({**describe("numcodecs"), "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
