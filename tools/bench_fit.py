"""Times fits in one batch against fits one after the other, and whole encodes; `python -m tools.bench_fit`.

Needs numpy and torch alone, so that it runs where a GPU is: scans come as .npy files (slowest axis first, as stored).
Writes tools/results/fit-<device>.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inrstore.chunk import encode as encoder
from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.inr.fit.data import Batch, prepare
from inrstore.chunk.inr.fit.networks import initialise, uniform
from inrstore.chunk.inr.fit.recipe import OMEGA_0
from inrstore.chunk.inr.fit.trainer import Schedule, Trainer
from inrstore.chunk.quality import Target, rmse
from inrstore.chunk.siren.encode import fit_task
from inrstore.chunk.task import Task
from inrstore.options import EncodeOptions

SEED = 0
SIZE = uniform(("sine",) * 3, 64)
SAMPLES, STEPS = 4096, 200
UK_BIOBANK = (105, 72, 104, 104)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scan", required=True, help="4-D scan, .npy or .npz, (t, z, y, x)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--chunks", type=int, default=128, help="networks in a batch")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"))
    parser.add_argument("--no-encode", action="store_true", help="batches only")
    options = parser.parse_args()
    loaded = np.load(options.scan)
    scan = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
    device = torch.device(options.device)
    named = {"name": Path(options.scan).stem, "shape": list(scan.shape)}
    result: dict[str, Any] = {"environment": environment(device),
                              "scan": {**named, "sha256": hashlib.sha256(scan.tobytes()).hexdigest()}}  # fmt: skip
    result["batch"] = batched_against_sequential(scan, device, options.chunks)
    print(json.dumps(result["batch"]), flush=True)
    if not options.no_encode:
        result["encode"] = [encode("scan", scan, psnr) for psnr in (32.0, 36.0, 40.0)]
        result["encode"].append(encode("resized to 104 x 104 x 72 x 105", resized(scan, UK_BIOBANK), 36.0))
    path = Path(options.out) / f"fit-{device.type}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


def environment(device: torch.device) -> dict[str, Any]:
    """Return device, versions, seed."""
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), "torch": torch.__version__,
        "numpy": np.__version__, "seed": SEED,
    }  # fmt: skip


def batched_against_sequential(scan: npt.NDArray[Any], device: torch.device, count: int) -> dict[str, Any]:
    """Fit 3 x 64 networks to blocks of the scan's first measurement: all at once, and one after the other."""
    volume = scan[0].astype(np.float32)
    rng = np.random.default_rng(SEED)
    side = min(16, *volume.shape)
    blocks = []
    while len(blocks) < count:
        z, y, x = (int(rng.integers(0, n - side + 1)) for n in volume.shape)
        block = volume[z : z + side, y : y + side, x : x + side]
        if block.std() > 0.05 * volume.std():
            blocks.append(np.ascontiguousarray(block))
    target = Target(rmse=0.01 * float(np.ptp(volume)))
    items = []
    for i, block in enumerate(blocks):
        problem = fit_task(i, Task(block, None, target), 1 << 20)
        assert problem is not None
        items.append(prepare(problem))
    together, distortion = _run(items, device)
    few = items[: max(2, count // 8)]
    alone, singles = 0.0, []
    for item in few:
        seconds, own = _run([item], device)
        alone += seconds
        singles += own
    alone *= count / len(few)
    largest = max(abs(a - b) / b for a, b in zip(distortion, singles, strict=False))
    return {"networks": count, "size": "3 x 64", "block": side, "samples": SAMPLES, "steps": STEPS,
            "batched_s": together, "sequential_s": alone, "sequential_measured_on": len(few),
            "ratio": alone / together, "largest_relative_difference_of_distortion": largest}  # fmt: skip


def _run(items: list[Any], device: torch.device) -> tuple[float, list[float]]:
    """Return seconds of `STEPS` steps, after as many to warm up, and the distortions reached."""
    for last in (False, True):
        batch = Batch(items, device)
        nets = initialise(SIZE, 3, 1, OMEGA_0, [item.seed for item in items], device)
        schedule = Schedule(steps=STEPS, samples=SAMPLES, rate=1e-2, check_every=STEPS)
        trainer = Trainer(batch, nets, schedule, OMEGA_0)
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        trainer.run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        if last:
            return seconds, [float(v) for v in trainer.distortion()]
    raise AssertionError


def resized(scan: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a scan of another shape by linear interpolation along each axis: the same anatomy, the same contrasts."""
    out = scan.astype(np.float32)
    for axis, length in enumerate(shape):
        place = np.linspace(0, out.shape[axis] - 1, length)
        low = np.minimum(place.astype(int), out.shape[axis] - 2)
        weight = (place - low).astype(np.float32).reshape(-1, *[1] * (out.ndim - axis - 1))
        out = out.take(low, axis) * (1 - weight) + out.take(low + 1, axis) * weight
    return np.rint(out).astype(scan.dtype)


def encode(name: str, scan: npt.NDArray[Any], psnr: float) -> dict[str, Any]:
    """Encode a scan with preset balanced in chunks of about 2^24 values; return seconds, bytes and quality."""
    flat = scan.reshape(len(scan), -1)
    ranges = (flat.max(1).astype(float) - flat.min(1)).tolist()
    target = Target(rmse=10 ** (-psnr / 20), scale=tuple(ranges), channel_axis=0)
    parts = [np.ascontiguousarray(p) for p in np.array_split(scan, -(-scan.size // (1 << 24)), axis=1)]
    begin = time.perf_counter()
    frames = encoder.encode_chunks(parts, target, EncodeOptions())
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    decoded = np.concatenate([decode_chunk(f) for f in frames], 1)
    decode_s = time.perf_counter() - begin
    found = rmse(scan, decoded, target)
    out = {"name": name, "shape": list(scan.shape), "asked_psnr": psnr, "psnr": -20 * np.log10(found),
           "chunks": len(parts), "modes": [describe_chunk(f).mode for f in frames], "bytes": sum(map(len, frames)),
           "ratio": scan.nbytes / sum(map(len, frames)), "encode_s": seconds, "decode_s": decode_s,
           "decode_mvalue_per_s": scan.size / 1e6 / decode_s}  # fmt: skip
    print(json.dumps(out), flush=True)
    return out


if __name__ == "__main__":
    main()
