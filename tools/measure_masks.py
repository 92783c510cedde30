"""What a mask does to a store: bytes, and the error inside it, without and with one at the same promise.

    python -m tools.measure_masks [--scans s02,s03,s01]

The mask is the foreground that `inrstore evaluate` finds (Otsu's threshold of dipy on the unweighted mean). Results:
tools/results/masks.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import inrstore
from tools.bench_rate_data import read_rows, write_rows
from tools.environment import DATA, describe, sha256

RESULT = Path(__file__).parent / "results" / "masks.json"
PROMISES: tuple[dict[str, Any], ...] = ({"psnr": 40.0}, {"rmse": 8.0}, {"max_error": 16.0}, {"lossless": True}, {})


def measure(name: str) -> list[dict[str, Any]]:
    """Return a row for each promise, {} for none."""
    import nibabel as nib
    import zarr

    from inrstore.evaluate.findings import foreground
    from inrstore.sources import read_source

    (path,) = DATA.glob(f"sub-{name}*/*/*.nii.gz")
    image = read_source(path)
    assert image.bval is not None
    plain = image.voxels[image.bval <= max(50.0, float(image.bval.min()))]
    mask = foreground(plain.mean(axis=0, dtype=np.float64).astype(np.float32))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        nib.save(nib.Nifti1Image(mask.T.astype(np.uint8), image.affine), f"{folder}/mask.nii.gz")
        for asked in PROMISES:
            row: dict[str, Any] = {"scan": name, "asked": asked, "mask": round(float(mask.mean()), 4),
                                   "source_sha256": sha256(path)}  # fmt: skip
            for what, given in (("without", None), ("with", f"{folder}/mask.nii.gz")):
                report = inrstore.convert(path, f"{folder}/{len(rows)}-{what}.ozx", mask=given, device="cpu", **asked)
                decoded = zarr.open(f"zip::{report.store}", mode="r")["image"][...]
                error = (decoded.astype(np.float64) - image.voxels)[:, mask]
                row |= {
                    f"{what}_bytes": report.stored_bytes,
                    f"{what}_psnr": report.psnr,
                    f"{what}_promised": report.promised,
                    f"{what}_rmse_inside": round(float(np.sqrt(np.square(error).mean())), 4),
                }
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scans", default="s02,s03,s01")
    for name in parser.parse_args().scans.split(","):
        rows = [row for row in read_rows(RESULT) if row["scan"] != name] + measure(name)
        write_rows(RESULT, {"environment": describe("nibabel", "dipy")}, sorted(rows, key=lambda row: row["scan"]))


if __name__ == "__main__":
    main()
