"""Bytes against what compression does to the science: FA, MD, tSNR, Dice, HU at 28 to 44 dB, and yardsticks.

    python -m tools.evaluate_curves                 # about ten minutes of one core
    python -m tools.evaluate_curves --scans s03     # one scan anew; the others stay

Whole scans by `convert`, preset balanced, one store for each PSNR; measured by `evaluate` as a user would. Of the
diffusion scans also the yardsticks at 40 dB: two halves, MP-PCA, smoothing, JPEG 2000 and PCA+SPERR at equal bytes.
Of s01 FA and MD are compared with those of MRtrix3, where it is installed. Results: tools/results/evaluate.json.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results" / "evaluate.json"
SCANS = ("s03", "s02", "s12", "s10", "s07", "s01")
DIFFUSION = ("s01", "s02", "s03")
PSNRS = (28.0, 32.0, 36.0, 40.0, 44.0)
BESIDE = 40.0
"""The store that yardsticks are measured beside."""

Row = dict[str, Any]


def figures(candidate: Any) -> dict[str, float | None]:
    """Return the figures of a candidate by "measure | region | statistic"."""
    return {
        f"{one.measure} | {one.region} | {one.statistic}": None if one.value is None else float(f"{one.value:.5g}")
        for one in candidate.findings
    }


def measure(name: str, psnrs: tuple[float, ...] = PSNRS) -> list[Row]:
    """Convert a scan at each PSNR and evaluate the stores side by side.

    Parameters
    ----------
    name : str
        s01 to s12.
    psnrs : tuple of float
        In dB; yardsticks are measured if 40 is among them.
    """
    from inrstore import api
    from tools.environment import DATA, sha256

    (source,) = DATA.glob(f"sub-{name}*/*/*.nii.gz")
    with tempfile.TemporaryDirectory() as folder:
        stores, times = [], []
        for psnr in psnrs:
            begin = time.process_time()
            api.convert(source, Path(folder) / f"{psnr:.0f}.ozx", psnr=psnr, device="cpu")
            times.append(time.process_time() - begin)
            stores.append(Path(folder) / f"{psnr:.0f}.ozx")
        begin = time.process_time()
        report = api.evaluate(source, stores)
        seconds = (time.process_time() - begin) / len(stores)
        base = {"scan": name, "kind": report.kind, "source_sha256": sha256(source)}
        rows = [{**base, "candidate": "store", "asked_psnr": psnr, "bytes": one.nbytes, "ratio": one.ratio,
                 "bits_per_voxel": one.bits_per_voxel, "convert_cpu_s": round(spent, 2), "evaluate_cpu_s":
                 round(seconds, 2), "figures": figures(one)}
                for psnr, one, spent in zip(psnrs, report.candidates, times, strict=True)]  # fmt: skip
        rows.append({**base, "candidate": "source", "figures": figures_of_source(report)})
        if name in DIFFUSION and BESIDE in psnrs:
            report = api.evaluate(source, stores[psnrs.index(BESIDE)], yardsticks=True)
            for one in report.candidates[1:]:
                label = re.sub(r"\d+\.ozx", f"the store of {BESIDE:.0f} dB", one.name)
                rows.append(
                    {**base, "candidate": label, "note": one.note, "bytes": one.nbytes, "figures": figures(one)}
                )
    if name == "s01" and which("dwi2tensor"):
        rows.append({**base, "candidate": "MRtrix3", "figures": beside_mrtrix(source)})
    return rows


def figures_of_source(report: Any) -> dict[str, float | None]:
    """Return what the source is like."""
    return {f"{one.measure} | {one.region}": one.value for one in report.source_findings}


def beside_mrtrix(source: Path) -> dict[str, float]:
    """Return how far FA and MD are from those of `dwi2tensor` and `tensor2metric`, in the same mask."""
    import nibabel as nib

    from inrstore.evaluate import dmri
    from inrstore.sources import read_source

    image = read_source(source)
    assert image.bval is not None and image.bvec is not None
    study = dmri.Diffusion(image.voxels, dmri.Gradients(image.bval, image.bvec), slope=image.slope, inter=image.inter)
    base = str(source).removesuffix(".nii.gz")
    with tempfile.TemporaryDirectory() as folder:
        nib.save(nib.Nifti1Image(study.mask.T.astype(np.uint8), image.affine), Path(folder) / "mask.nii")
        for command in (
            f"dwi2tensor {source} dt.nii -fslgrad {base}.bvec {base}.bval -mask mask.nii -quiet",
            "tensor2metric dt.nii -fa fa.nii -adc md.nii -mask mask.nii -quiet",
        ):
            subprocess.run(command.split(), cwd=folder, check=True)
        fa, md = (nib.load(Path(folder) / f"{name}.nii").get_fdata().T[study.mask] for name in ("fa", "md"))
    told = subprocess.run(["dwi2tensor", "-version"], capture_output=True, text=True).stdout
    version = re.search(r"\d+\.\d+\.\d+", told)
    return {
        "version": version.group() if version else "",  # type: ignore[dict-item]
        "voxels": int(np.count_nonzero(study.mask)),
        "FA, largest difference": float(np.abs(fa - study.maps.fa).max()),
        "MD, largest difference, µm²/ms": float(1000 * np.abs(md - study.maps.md).max()),
    }


def main(words: list[str] | None = None) -> int:
    """Measure and write, a scan at a time."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tools.bench_rate_data import read_rows, write_rows
    from tools.environment import describe

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scans", default=",".join(SCANS), help="s01,s02,s03,s07,s10,s12")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(words)
    for name in arguments.scans.split(","):
        rows = [row for row in read_rows(arguments.out) if row["scan"] != name]
        found = measure(name)
        packages = ("nibabel", "av", "dipy", "scikit-image", "scipy", "imagecodecs")
        write_rows(arguments.out, {"environment": describe(*packages)}, sorted(rows + found, key=lambda r: r["scan"]))
        print(f"{name}: {len(found)} rows", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
