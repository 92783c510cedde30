"""Every system of the papers as a store, beside the default: quality, bytes on the disk, times and memory.

python -m tools.bench_systems --data DIR [--steps N] [--only NAME ...]

DIR has sub-s01 and sub-s09 of the test data. s09 is the patch of 64 x 64 x 64 with the most voxels that are not 0, s01
a slab of four slices with all measurements; each is written as a NIfTI and converted by the command line in a process
of its own, on one core, with preset fast and N steps. The store is opened by plain zarr in another process, in which
torch cannot be imported, and verified against the file. PSNR is that of section 11 of the specification; SSIM is of
slices, in windows of 7 x 7, and the mean of all. Beside it stands the default at the PSNR that was reached. What is in
the result file already is kept, so that a run can go on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from inrstore.evaluate.similarity import ssim

from .bench_superres import images
from .environment import describe

RESULTS = Path(__file__).parent / "results" / "systems.json"
SHAPE = ("--layers", "4", "--units", "64")
SECOND = ("--layers", "4", "--units", "48", "--downsample", "2", "--channels", "4")
SLICES = ("--layers", "3", "--units", "24")  # a network for each slice
SYSTEMS: dict[str, tuple[str, ...]] = {
    "siren2d": SLICES,
    "siren2d-relu": SLICES,
    "siren3d": SHAPE,
    "mlp-relu": SHAPE,
    "mlp-tanh": SHAPE,
    "mlp-siren": SHAPE,
    "lanczos-siren-srdensenet": SECOND,
    "fourier-siren-srno": SECOND,
}
"""Options of the command line behind the name of each network."""
READ = """
import sys, time
sys.modules["torch"] = None
import numpy, zarr
start = time.process_time()
values = zarr.open_group(sys.argv[1], mode="r")["image"][...]
print(time.process_time() - start)
numpy.save(sys.argv[2], values)
"""


def run(command: list[str], errors: Path) -> tuple[str, float, float, int]:
    """Run a command on one core; return its output, wall and processor seconds, and its largest memory in bytes."""
    one = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    start = time.perf_counter()
    with errors.open("w") as lines:
        process = subprocess.Popen(
            ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command], stdout=subprocess.PIPE, stderr=lines,
            text=True, env=os.environ | one,
        )  # fmt: skip
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{said}{errors.read_text()}")
    return said, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def stored(source: Path, folder: Path, options: list[str]) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Convert, read with plain zarr and verify; return what was measured and the values that a reader has."""
    store, values, errors = folder / "store.zarr", folder / "values.npy", folder / "errors"
    convert = [sys.executable, "-m", "inrstore.cli", "convert", str(source), str(store), "--json", *options]
    said, wall, cpu, memory = run(convert, errors)
    report = json.loads(said)
    read, _, _, reading = run([sys.executable, "-c", READ, str(store), str(values)], errors)
    run([sys.executable, "-m", "inrstore.cli", "verify", str(store), "--against", str(source), "--json"], errors)
    row = {
        "psnr": round(report["psnr"], 3), "bytes": report["stored_bytes"], "modes": report["modes"],
        "chunk_bytes": sum(p.stat().st_size for p in (store / "image").rglob("*") if p.name != "zarr.json"),
        "fit_seconds": round(wall, 1), "fit_cpu_seconds": round(cpu, 1), "fit_memory": memory,
        "decode_cpu_seconds": round(float(read), 3), "read_memory": reading,
    }  # fmt: skip
    return row, np.load(values)


def of_slices(original: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any]) -> float:
    """Return the mean structural similarity of slices, each in its own range."""
    pairs = zip(original.reshape(-1, *original.shape[-2:]), decoded.reshape(-1, *decoded.shape[-2:]), strict=True)
    return float(np.mean([ssim(a, b) for a, b in pairs]))


def measure(name: str, options: tuple[str, ...], steps: int, source: Path) -> dict[str, Any]:
    """Return a row: a system, and the default at its PSNR."""
    original = np.asanyarray(nib.load(source).dataobj).T  # type: ignore[attr-defined]
    asked = ["--network", name, *options, "--steps", str(steps), "--preset", "fast", "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        row, values = stored(source, Path(folder), asked)
        row["ssim"] = round(of_slices(original, values), 4)
    with tempfile.TemporaryDirectory() as folder:
        default, values = stored(source, Path(folder), ["--psnr", f"{row['psnr']:.3f}", "--device", "cpu"])
        default["ssim"] = round(of_slices(original, values), 4)
    return {"network": name, "options": " ".join(options), "steps": steps, **row, "default": default}


def main(arguments: list[str] | None = None) -> int:
    """Measure what the result file does not have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", nargs="*", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    document = json.loads(asked.out.read_text()) if asked.out.exists() else {"rows": []}
    document |= {"environment": describe("nibabel"), "device": "cpu, one core", "seed": 0}
    with tempfile.TemporaryDirectory() as folder:
        for scan, values, where in images(asked.data):
            source = Path(folder, f"{scan}.nii")
            nib.save(nib.Nifti1Image(values.T, np.eye(4)), source)  # type: ignore[attr-defined]
            for name in asked.only:
                if any((r["scan"], r["network"]) == (scan, name) for r in document["rows"]):
                    continue
                row = {"scan": scan, "cut": where, "values": values.size,
                       **measure(name, SYSTEMS[name], asked.steps, source)}  # fmt: skip
                document["rows"].append(row)
                asked.out.write_text(json.dumps(document, indent=1) + "\n")
                print(f"{scan} {name}: {row['psnr']} dB, {row['bytes']} bytes, {row['fit_seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
