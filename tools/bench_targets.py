"""How close to its target a frame of mode av1 comes: 40 targets on four scans.

    python -m tools.bench_targets

Writes tools/results/targets.json: for each scan and PSNR asked, the rmse of what the reader decodes over the rmse that
was asked for (over the box of the chunk), bytes and seconds.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent / "results" / "targets.json"
SCANS = ("s11", "s08", "s10", "s07")
PSNR = tuple(33.0 + 2 * i for i in range(10))


def measure(name: str, psnr: float) -> dict[str, Any]:
    """Encode a whole scan as one chunk and measure what comes back."""
    from inrstore.chunk import quality
    from inrstore.chunk.decode import decode_chunk, describe_chunk
    from inrstore.chunk.encode import encode_chunks
    from inrstore.chunk.envelope import split
    from inrstore.options import EncodeOptions
    from tools.bench_rate_data import load

    image = load(name, None, 0).image
    span = float(image.max()) - float(image.min())
    target = quality.Target(rmse=span / 10 ** (psnr / 20))
    begin = time.perf_counter()
    (frame,) = encode_chunks([image], target, EncodeOptions(threads=2))
    seconds = time.perf_counter() - begin
    around = split(image)[1]
    found = quality.rmse(image, decode_chunk(frame), target, around.box, around.mask)
    assert target.rmse is not None
    return {"scan": name, "asked_psnr": psnr, "mode": describe_chunk(frame).mode, "bytes": len(frame),
            "rmse_over_target": found / target.rmse, "seconds": seconds,
            "mb_per_s": image.nbytes / 1e6 / seconds}  # fmt: skip


def main() -> int:
    """Measure, write, print."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tools.bench_rate_data import write_rows
    from tools.environment import describe

    rows = []
    for name in SCANS:
        for psnr in PSNR:
            rows.append(measure(name, psnr))
            print(rows[-1], flush=True)
    ratios = [row["rmse_over_target"] for row in rows if row["mode"] == "av1"]
    top = {"environment": describe("av"), "preset": "balanced", "frames_of_av1": len(ratios),
           "least": min(ratios), "most": max(ratios),
           "within_half_a_percent": sum(r >= 0.995 for r in ratios)}  # fmt: skip
    write_rows(RESULT, top, rows)
    print(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
