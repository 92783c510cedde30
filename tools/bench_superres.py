"""Measure the systems with two networks on real scans: bytes in all, PSNR, times, beside one network and the default.

python -m tools.bench_superres --data DIR [--steps N] [--only TEXT]

DIR has sub-s01 and sub-s09 of the test data. s09 is the patch of 64 x 64 x 64 with the most voxels that are not 0, s01
a slab of all measurements. Each system is fitted for N steps with preset fast on one core; beside it stand one network
of the place with about the same bytes and as many steps, and the default at the same error. PSNR is that of section 11
of the specification. What is in the result file already is kept, so that a run can go on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target
from inrstore.errors import NotHeldError
from inrstore.options import EncodeOptions, Network

from .environment import describe

RESULTS = Path(__file__).parent / "results" / "bench_superres.json"
SYSTEMS = (
    Network(name="fourier-siren-srno", downsample=2, channels=4, units=48),
    Network(name="lanczos-siren-srdensenet", downsample=2, channels=4, units=48),
    Network(name="fourier-siren-srno", downsample=4, channels=8, units=48),
    Network(name="lanczos-siren-srdensenet", downsample=4, channels=8, units=48),
)
PATCH = 64
BYTES_PER_PARAMETER = 0.72
PUBLISHED = {
    "Sheibanifard and Yu 2023, Table 4 (Visible Human CT, 512 x 512 x 463 to 128 x 128 x 115, one slice shown)": [
        {"layers": 2, "psnr": 34.670}, {"layers": 3, "psnr": 34.865}, {"layers": 4, "psnr": 35.140},
    ],
    "the same, SIREN alone": [
        {"layers": 2, "psnr": 25.269}, {"layers": 3, "psnr": 28.800}, {"layers": 4, "psnr": 30.689},
    ],
    "Sheibanifard et al. 2025, Tables 4 to 6 (a FLAIR patch of 64 x 64 x 64, 5,000 epochs; parameters, not bytes)": [
        {"downsample": 2, "channels": 4, "units": 50, "parameters": 9688, "psnr": 35.211, "ssim": 0.915},
        {"downsample": 4, "channels": 4, "units": 50, "parameters": 15792, "psnr": 33.985, "ssim": 0.892},
        {"downsample": 2, "channels": 8, "units": 50, "parameters": 17164, "psnr": 36.009, "ssim": 0.922},
        {"downsample": 4, "channels": 8, "units": 50, "parameters": 29316, "psnr": 36.051, "ssim": 0.917},
        {"downsample": 8, "channels": 16, "units": 50, "parameters": 263308, "psnr": 48.750, "ssim": 0.996},
    ],
    "the same, Table 3, SIREN alone": [
        {"layers": 3, "units": 50, "parameters": 5351, "psnr": 32.205, "ssim": 0.804},
        {"layers": 4, "units": 50, "parameters": 7901, "psnr": 32.472, "ssim": 0.825},
        {"layers": 6, "units": 70, "parameters": 25201, "psnr": 39.529, "ssim": 0.974},
    ],
}  # fmt: skip


def images(data: Path) -> Iterator[tuple[str, npt.NDArray[Any], str]]:
    """Yield name, values (z, y, x) or (t, z, y, x), and where they were cut out."""
    whole = _voxels(next((data / "sub-s09" / "anat").glob("*FLAIR.nii.gz")))
    corner = densest(whole)
    yield "s09", whole[tuple(slice(a, a + PATCH) for a in corner)], f"patch at {corner}"
    whole = _voxels(next((data / "sub-s01" / "dwi").glob("*dwi.nii.gz")))
    yield "s01", whole[:, 12:16], "slices 12 to 15"


def densest(volume: npt.NDArray[Any], step: int = 8) -> tuple[int, int, int]:
    """Return the first corner, in steps, of the patch with the most voxels that are not 0."""
    total = np.pad((volume != 0).astype(np.int64), ((1, 0),) * 3).cumsum(0).cumsum(1).cumsum(2)
    best, corner = -1, (0, 0, 0)
    z, y, x = (range(0, max(1, n - PATCH + 1), step) for n in volume.shape)
    for a in z:
        for b in y:
            for c in x:
                cut = total[np.ix_(*((i, min(i + PATCH, n)) for i, n in zip((a, b, c), volume.shape, strict=True)))]
                count = int(np.diff(np.diff(np.diff(cut, axis=0), axis=1), axis=2).sum())
                if count > best:
                    best, corner = count, (a, b, c)
    return corner


def _voxels(path: Path) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = np.asanyarray(nib.load(path).dataobj.get_unscaled()).T  # type: ignore[attr-defined]
    return np.ascontiguousarray(values)


def measured(values: npt.NDArray[Any], target: Target, options: EncodeOptions) -> dict[str, Any]:
    """Return what a chunk takes, how near it is, and how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    [frame] = encode_chunks([values], target, options)
    encode = {"encode_seconds": time.perf_counter() - wall, "encode_cpu_seconds": time.process_time() - cpu}
    cpu = time.process_time()
    decoded = decode_chunk(frame)
    decode = time.process_time() - cpu
    told = describe_chunk(frame)
    scale = target.channel_scale(values.shape)
    error = (decoded.astype(np.float64) - values) / scale
    rmse = math.sqrt(float(np.mean(error * error)))
    peak = 1.0 if target.scale else float(np.ptp(values))
    return {
        "mode": told.mode, "bytes": len(frame), "bits_per_value": round(8 * len(frame) / values.size, 4),
        "psnr": round(20 * math.log10(peak / rmse), 3), "rmse": rmse, "decode_cpu_seconds": round(decode, 3),
        **{name: round(seconds, 1) for name, seconds in encode.items()}, "network": told.details,
    }  # fmt: skip


def compared(values: npt.NDArray[Any], system: Network, steps: int, log: Any) -> dict[str, Any]:
    """Return a system, one network of about its bytes, and the default at its error."""
    scale = None
    if values.ndim == 4:
        scale = tuple(float(np.ptp(one)) or 1.0 for one in values)
    far = Target(rmse=1.0 if scale else float(np.ptp(values)), scale=scale)
    asked = Network(**system.to_dict() | {"steps": steps})
    row: dict[str, Any] = {"asked": asked.to_dict()}
    row["system"] = measured(values, far, EncodeOptions(preset="fast", threads=1, network=asked, found=True))
    log(row["system"])
    units = _units(row["system"]["bytes"] / BYTES_PER_PARAMETER, 3, 1 if scale is None else len(values))
    alone = Network(name="siren3d", layers=4, units=units, steps=steps)
    try:
        row["siren alone"] = measured(values, far, EncodeOptions(preset="fast", threads=1, network=alone, found=True))
    except NotHeldError as error:
        row["siren alone"] = {"failed": str(error), "network": alone.to_dict()}
    log(row["siren alone"])
    near = Target(rmse=row["system"]["rmse"], scale=scale)
    row["default"] = measured(values, near, EncodeOptions(threads=1))
    log(row["default"])
    return row


def _units(parameters: float, inputs: int, outputs: int) -> int:
    """Return the width of a network of four layers with about so many parameters."""
    count = [(abs(3 * w * w + (inputs + outputs + 4) * w + outputs - parameters), w) for w in range(4, 257)]
    return min(count)[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the result file after each row."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_superres", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    rows: dict[str, Any] = json.loads(options.out.read_text())["rows"] if options.out.exists() else {}
    for name, values, where in images(options.data):
        for system in SYSTEMS:
            key = f"{name} {system.name} 1/{system.downsample} channels {system.channels}"
            if options.only not in key or key in rows:
                continue
            print(key, values.shape, flush=True)
            row = compared(values, system, options.steps, lambda made: print("  ", made, flush=True))
            rows[key] = {"cut": where, "shape": list(values.shape), "bytes_raw": values.nbytes, **row}
            whole = {"environment": describe("torch", "numpy"), "published": PUBLISHED, "rows": rows}
            options.out.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
