"""Bytes and seconds of a network for a whole scan, here and in another checkout, side by side.

    python -m tools.bench_search --against PATH scan.nii.gz ..

Each encode is a process of its own with one thread, one after the other, ours and theirs in turn; seconds are those of
the processor from the first step on, so that other work on the machine counts little. Preset fast, mode siren (called
network before), one chunk, 32 dB over the range of each measurement. Writes tools/results/search.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

_ONE = """
import json, sys, time
import nibabel, numpy as np
from typing import get_args
from inrstore import options
from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target, rmse
import inrstore.chunk.inr.fit.search
scan = np.ascontiguousarray(np.asarray(nibabel.load(sys.argv[1]).dataobj.get_unscaled()).T)
scan = scan if scan.ndim == 4 else scan[None]
target = Target(rmse=10 ** (-float(sys.argv[2]) / 20), scale=tuple(float(np.ptp(one)) for one in scan), channel_axis=0)
mode = "siren" if "siren" in get_args(options.Mode) else "network"
begin, clock = time.process_time(), time.perf_counter()
(frame,) = encode_chunks([scan], target, options.EncodeOptions(preset="fast", mode=mode, device="cpu", threads=1))
seconds, wall = time.process_time() - begin, time.perf_counter() - clock
found = describe_chunk(frame)
print(json.dumps({"bytes": len(frame), "mode": found.mode, "units": found.details.get("width"),
                  "psnr": round(-20 * float(np.log10(rmse(scan, decode_chunk(frame), target))), 3),
                  "processor_s": round(seconds, 2), "wall_s": round(wall, 2), "raw_bytes": scan.nbytes}))
"""


def measured(checkout: Path, scan: Path, psnr: float) -> dict[str, Any]:
    """Return what a checkout makes of a scan."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "1"), "PYTHONPATH": str(checkout)}
    words = [sys.executable, "-c", _ONE, str(scan), str(psnr)]
    made = subprocess.run(words, env=environment, cwd=checkout, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return row


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--against", type=Path, required=True, help="another checkout")
    parser.add_argument("--psnr", type=float, default=32.0)
    arguments = parser.parse_args()
    from tools.environment import describe

    rows: list[dict[str, Any]] = []
    for scan in arguments.scans:
        before = measured(arguments.against.resolve(), scan.resolve(), arguments.psnr)
        after = measured(RESULTS.parent.parent, scan.resolve(), arguments.psnr)
        faster = round(before["processor_s"] / after["processor_s"], 2)
        rows.append(
            {"scan": scan.name, "asked_psnr": arguments.psnr, "before": before, "after": after, "faster": faster}
        )
        print(json.dumps(rows[-1]), flush=True)
        document = {"preset": "fast", "seed": 0, "environment": describe(), "rows": rows}
        (RESULTS / "search.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
