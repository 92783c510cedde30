"""Bytes and seconds of a network for a whole scan against the transform: `python -m tools.bench_networks scan.npz ..`.

Needs numpy and torch alone, so that it runs where a GPU is. Writes tools/results/networks-<device>.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inrstore.chunk import encode as encoder
from inrstore.chunk import modes, quality
from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.encode import seal
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.fit.search import fit_networks
from inrstore.chunk.quality import Target
from inrstore.chunk.siren.encode import fit_task
from inrstore.chunk.task import Task
from inrstore.options import EncodeOptions

_BUDGET = 80_000


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="+", help="4-D scans, .npz, (t, z, y, x)")
    parser.add_argument("--psnr", type=float, nargs="+", default=[32.0, 36.0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"))
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    rows: list[dict[str, Any]] = []
    for path in map(Path, options.scans):
        loaded = np.load(path)
        for psnr in options.psnr:
            rows.append({"scan": path.stem, **measure(loaded[loaded.files[0]], psnr, options.device)})
            print(json.dumps(rows[-1]), flush=True)
            document = {"device": name, "torch": torch.__version__, "seed": 0, "rows": rows}
            (Path(options.out) / f"networks-{options.device}.json").write_text(json.dumps(document, indent=1) + "\n")


def measure(scan: np.ndarray, psnr: float, device: str) -> dict[str, Any]:
    """Return bytes and seconds of both for one scan."""
    flat = scan.reshape(len(scan), -1)
    ranges = (flat.max(1).astype(float) - flat.min(1)).tolist()
    target = Target(rmse=10 ** (-psnr / 20), scale=tuple(ranges), channel_axis=0)
    begin = time.perf_counter()
    (transformed,) = encoder.encode_chunks([scan], target, EncodeOptions())
    transform_s = time.perf_counter() - begin
    task = Task(scan, None, target)
    problem = fit_task(0, task, _BUDGET)
    assert problem is not None
    options = EncodeOptions(mode="siren", device="cuda" if device == "cuda" else "cpu")
    coded, size = None, None
    begin = time.perf_counter()
    for found, (network, _) in ((p, (f.network, f.decibels)) for p, f in fit_networks([problem], options)):
        payload = None if network is None else task.sealed(siren.write(network), split=True)
        coded = None if payload is None else seal(modes.SIREN, scan, payload)
        if coded is not None:
            decoded = decode_chunk(coded)
            assert quality.rmse(scan, decoded, target, found.envelope.box, found.envelope.mask) <= target.rmse
        size = None if network is None else [network.describe()[key] for key in ("layers", "width")]
    return {"psnr": psnr, "preset": "balanced", "network_bytes": None if coded is None else len(coded), "size": size,
            "seconds": time.perf_counter() - begin, "transform_bytes": len(transformed),
            "transform_seconds": transform_s}  # fmt: skip


if __name__ == "__main__":
    main()
