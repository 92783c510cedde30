"""Convert real scans, verify them against their sources, time the decoder.

python -m tools.measure_convert [--psnr 36] [--preset balanced] [--only s01 ...]

Results go to tools/results/convert.json, merged by scan, PSNR and preset; `python -m tools.readme_tables` puts them
into the README.
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

import inrstore
from tools.environment import DATA, describe, sha256

RESULTS = Path(__file__).parent / "results"
DIFFUSION = ("s01", "s02", "s03", "s04", "s05phantom", "s06tiny")

_DECODE = """
import sys, time, zipfile
from inrstore.chunk.decode import decode_chunk
with zipfile.ZipFile(sys.argv[1]) as zipped:
    files = [zipped.read(name) for name in zipped.namelist() if name.startswith('image/c/')]
best = 1e9
for _ in range(3):
    begin = time.perf_counter(); values = sum(decode_chunk(f).size for f in files)
    best = min(best, time.perf_counter() - begin)
print(values / best / 1e6)
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--psnr", type=float, default=36)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--only", nargs="*", default=DIFFUSION)
    arguments = parser.parse_args()
    for name in arguments.only:
        source = next(DATA.glob(f"sub-{name}/*/*.nii.gz"))
        with tempfile.TemporaryDirectory() as folder:
            row = measure(source, Path(folder) / "out.ozx", arguments.psnr, arguments.preset)
        print(json.dumps(row), flush=True)
        save(row)


def measure(source: Path, store: Path, psnr: float, preset: str) -> dict[str, object]:
    """Return the figures of one scan."""
    begin = time.perf_counter()
    report = inrstore.convert(source, store, psnr=psnr, preset=preset, device="cpu")
    seconds = time.perf_counter() - begin
    inrstore.verify(store, against=source)
    one_core = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    decode = subprocess.run([sys.executable, "-c", _DECODE, str(store)], env=one_core, capture_output=True,
                            text=True, check=True).stdout  # fmt: skip
    images = inrstore.info(store).image_bytes
    return {
        "scan": source.name, "sha256": sha256(source), "preset": preset, "asked_psnr": psnr, "seed": 0, "device": "cpu",
        "psnr": report.psnr, "psnr_range": report.psnr_range, "rmse": report.rmse, "max_error": report.max_error,
        "source_bytes": report.source_bytes, "stored_bytes": report.stored_bytes, "image_bytes": images,
        "ratio": report.ratio, "modes": report.modes, "encode_seconds": seconds,
        "encode_mb_per_s": report.source_bytes / 1e6 / seconds, "decode_mvalues_per_s_one_core": float(decode),
        "verified": True, **describe("nibabel"),
    }  # fmt: skip


def save(row: dict[str, object]) -> None:
    """Merge a row into the result file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "convert.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    key = ("scan", "asked_psnr", "preset")
    rows = [r for r in rows if [r[k] for k in key] != [row[k] for k in key]] + [row]
    rows.sort(key=lambda r: [str(r[k]) for k in key])
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
