"""What a correcting network gives back: bytes and time of the transform alone, and with the network of a preset.

    python -m tools.bench_inloop [--preset balanced | --no-trellis]

Whole scans as one chunk, every byte counted, at the PSNR asked for; seconds of processor, one thread. With `--preset
small` its sizes and steps of correcting networks (not the networks that would be a chunk alone, which take hours on
a CPU), and two images of a single channel, too, where the network stands behind AV1. With `--no-trellis` balanced with
one quantiser, with and without a network. Results go to tools/results/inloop.json, inloop-small.json or
inloop-no-trellis.json. Run it with OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from inrstore.chunk.av1 import encode as av1
from inrstore.chunk.transform import encode as transform
from inrstore.options import EncodeOptions, Preset
from inrstore.store.quality import Quality
from tools.bench_rate_data import Volume, load
from tools.bench_rate_ours import measure
from tools.environment import describe

RESULTS = {"balanced": "inloop.json", "small": "inloop-small.json", "no trellis": "inloop-no-trellis.json"}
SCANS = {name: (32.0, 36.0, 40.0, 44.0) for name in ("s01", "s02", "s03", "s04", "s05", "s06")}
SCANS["s12"] = (35.0, 40.0, 45.0)
SINGLE = {"s11": (35.0, 40.0, 45.0), "s08": (35.0, 40.0, 45.0)}


def _measured(volume: Volume, psnr: float, preset: Preset, *, networks: bool, trellis: bool) -> dict[str, Any]:
    """Return what the default makes of an image, with the effort of a preset."""
    efforts = [(mode, mode.EFFORTS[preset]) for mode in (transform, av1)]
    if not trellis:
        efforts[0] = transform, replace(transform.EFFORTS[preset], trellis=False)
    with ExitStack() as stack:
        for mode, effort in efforts:
            made = effort if networks else replace(effort, networks=0)
            stack.enter_context(mock.patch.dict(mode.EFFORTS, {"balanced": made}))
        return measure(volume, Quality(psnr=psnr), EncodeOptions())


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_inloop", description=(__doc__ or "").splitlines()[0])
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--preset", default="balanced", choices=("balanced", "small"))
    some.add_argument("--no-trellis", action="store_true", help="balanced, with one quantiser")
    arguments = parser.parse_args()
    preset, trellis = arguments.preset, not arguments.no_trellis
    rows: list[dict[str, Any]] = []
    for name, asked in (SCANS | (SINGLE if preset == "small" else {})).items():
        volume = load(name, None, 0)
        for psnr in asked:
            alone, both = (_measured(volume, psnr, preset, networks=n, trellis=trellis) for n in (False, True))
            row = {"scan": name, "psnr": psnr, "alone": alone["bytes"], "with_network": both["bytes"],
                   "saved": round(1 - both["bytes"] / alone["bytes"], 4), "alone_cpu_s": alone["encode_cpu_s"],
                   "with_network_cpu_s": both["encode_cpu_s"], "alone_decode_s": alone["decode_s"],
                   "with_network_decode_s": both["decode_s"]}  # fmt: skip
            rows.append(row)
            print(row, flush=True)
    times = [math.log(r["with_network_cpu_s"] / r["alone_cpu_s"]) for r in rows]
    brains = [r["saved"] for r in rows if r["scan"] in ("s01", "s02", "s03", "s04", "s05") and r["psnr"] < 44]
    means = {"saved_s01_to_s05_at_32_36_40": round(sum(brains) / len(brains), 4),
             "times_the_encoding": round(math.exp(sum(times) / len(times)), 2)}  # fmt: skip
    print(means)
    result = {"environment": describe("numba"), "preset": preset, "means": means, "rows": rows}
    path = Path(__file__).resolve().parent / "results" / RESULTS[preset if trellis else "no trellis"]
    path.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
