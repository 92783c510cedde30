"""Bytes against what compression does to the science: FA, MD, tSNR, Dice, HU at 28 to 62 dB, and yardsticks.

    python -m tools.evaluate_curves                         # what is not there yet; all of it takes half an hour
    python -m tools.evaluate_curves --scans s03 --again     # one scan anew; the others stay

Whole scans by `convert`, preset balanced, one store for each PSNR, up to where the measures of a kind are kept, one for
an rmse of half the noise and one of all of it, a lossless one, and the one that is made if no quality is asked for;
measured by `evaluate` as a user would. Of three
diffusion scans also the yardsticks at 40 dB: two halves, MP-PCA, smoothing, JPEG 2000 and PCA+SPERR at equal bytes. Of
s01 FA and MD are compared with those of MRtrix3, where it is installed. Results: tools/results/evaluate.json; a row
that is there is not measured again.
tools.evaluate_plot draws them.
"""

from __future__ import annotations

import argparse
import math
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
_LOW = (28.0, 32.0, 36.0, 40.0, 44.0)
SCANS = {
    "s12": (*_LOW, 48.0, 52.0, 56.0, 60.0), "s02": (*_LOW, 48.0, 52.0, 56.0, 60.0),
    "s03": (*_LOW, 48.0, 52.0, 56.0, 60.0), "s04": (40.0, 48.0, 56.0),
    "s01": (*_LOW, 50.0, 56.0), "s11": (40.0, 46.0, 52.0, 58.0), "s08": (40.0, 46.0, 52.0, 58.0),
    "s10": (*_LOW, 52.0), "s07": _LOW,
}  # fmt: skip
"""Scan -> what PSNRs are asked, dB; soonest done first."""
PARTS = (0.5, 1.0)
"""Errors over the noise that are asked, too."""
DIFFUSION = ("s01", "s02", "s03")
BESIDE = 40.0
"""The store that yardsticks are measured beside."""

Row = dict[str, Any]


def figures(candidate: Any) -> dict[str, float | None]:
    """Return the figures of a candidate by "measure | region | statistic"."""
    return {
        f"{one.measure} | {one.region} | {one.statistic}": None if one.value is None else float(f"{one.value:.5g}")
        for one in candidate.findings
    }


Asked = tuple[str, float]
"""What a row is of ("store", "noise", "default"), and the PSNR or the error over the noise."""


def measure(name: str, wanted: list[Asked], *, kept: bool, yardsticks: bool) -> list[Row]:
    """Convert a scan at each quality and evaluate the stores side by side.

    Parameters
    ----------
    name : str
        s01 to s12.
    wanted : list of Asked
    kept : bool
        Whether a lossless store is made, too.
    yardsticks : bool
        Whether they, and MRtrix3, are measured, too; 40 is among the PSNRs then.
    """
    from inrstore import api
    from tools.environment import DATA, sha256

    (source,) = DATA.glob(f"sub-{name}*/*/*.nii.gz")
    with tempfile.TemporaryDirectory() as folder:
        stores, times = [], []
        noise, made = noise_of(source), []
        for what, number in wanted:
            begin = time.process_time()
            stores.append(Path(folder) / f"{what}-{number:g}.ozx")
            asked = {"store": {"psnr": number}, "noise": {"rmse": number * noise["noise"]}, "default": {}}[what]
            made.append(api.convert(source, stores[-1], device="cpu", **asked))
            times.append(time.process_time() - begin)
        begin = time.process_time()
        report = api.evaluate(source, stores)
        seconds = (time.process_time() - begin) / len(stores)
        base = {"scan": name, "kind": report.kind, "source_sha256": sha256(source)}
        rows = []
        for (what, number), one, own, spent in zip(wanted, report.candidates, made, times, strict=True):
            row = {"candidate": what, "asked_psnr": number}
            if what != "store":
                row = {"candidate": what, "times": own.default.get("times", number), "promised": own.promised}
            rows.append({**base, **row, "bytes": one.nbytes, "ratio": one.ratio, "bits_per_voxel":
                         one.bits_per_voxel, "convert_cpu_s": round(spent, 2), "evaluate_cpu_s":
                         round(seconds, 2), "figures": figures(one)})  # fmt: skip
        rows.append({**base, "candidate": "source", "figures": figures_of_source(report), **noise})
        if kept:
            begin = time.process_time()
            made = api.convert(source, Path(folder) / "kept.ozx", lossless=True)
            rows.append({**base, "candidate": "lossless", "bytes": made.stored_bytes, "ratio": made.ratio,
                         "bits_per_voxel": 8 * made.stored_bytes / math.prod(report.shape),
                         "convert_cpu_s": round(time.process_time() - begin, 2)})  # fmt: skip
        if yardsticks:
            report = api.evaluate(source, stores[wanted.index(("store", BESIDE))], yardsticks=True)
            for one in report.candidates[1:]:
                label = re.sub(r"store-\d+\.ozx", f"the store of {BESIDE:.0f} dB", one.name)
                rows.append(
                    {**base, "candidate": label, "note": one.note, "bytes": one.nbytes, "figures": figures(one)}
                )
    if name == "s01" and yardsticks and which("dwi2tensor"):
        rows.append({**base, "candidate": "MRtrix3", "figures": beside_mrtrix(source)})
    return rows


def noise_of(source: Path) -> dict[str, float]:
    """Return the noise of a scan in stored units, and the PSNR at which the error of a middling measurement is that."""
    from inrstore.sources import read_source
    from inrstore.store.quality import noise_of as measured

    image = read_source(source)
    voxels = image.voxels
    found = float(np.median(measured(image, voxels.ndim - 3).sigma))
    ranges = np.ptp(voxels.reshape(-1, math.prod(voxels.shape[-3:])).astype(np.float64), axis=1)
    return {"noise": float(f"{found:.5g}"), "noise_psnr": round(20 * math.log10(float(np.median(ranges)) / found), 2)}


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
    parser.add_argument("--scans", default=",".join(SCANS), help=",".join(SCANS))
    parser.add_argument("--again", action="store_true", help="measure the rows of these scans anew")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(words)
    for name in arguments.scans.split(","):
        rows = read_rows(arguments.out)
        own = [] if arguments.again else [row for row in rows if row["scan"] == name]
        candidates = {row["candidate"] for row in own}
        kept, yardsticks = "lossless" not in candidates, name in DIFFUSION and "MP-PCA" not in candidates
        every: list[Asked] = [*(("store", psnr) for psnr in SCANS[name]), *(("noise", part) for part in PARTS)]
        there = {("store", row["asked_psnr"]) for row in own if "asked_psnr" in row}
        there |= {("noise", row["times"]) for row in own if row["candidate"] == "noise"}
        there -= {("store", BESIDE)} if yardsticks else set()
        wanted = [one for one in every if one not in there]
        wanted += [] if any(_is_of_now(row) for row in own) else [("default", 0.0)]
        if not wanted and not kept:
            continue
        found = measure(name, wanted or [("store", BESIDE)], kept=kept, yardsticks=yardsticks)
        made = {_key(row): row for row in own} | {_key(row): row for row in found}
        rows = [row for row in rows if row["scan"] != name] + [made[key] for key in sorted(made)]
        packages = ("nibabel", "av", "dipy", "scikit-image", "scipy", "imagecodecs")
        write_rows(arguments.out, {"environment": describe(*packages)}, sorted(rows, key=lambda r: r["scan"]))
        print(f"{name}: {len(found)} rows", flush=True)
    return 0


def _is_of_now(row: Row) -> bool:
    """Return whether a row is that of the default as it is."""
    from inrstore.store.defaults import TIMES

    return row["candidate"] == "default" and row["times"] in (0.0, TIMES.get(row["kind"]))


_ORDER = ("store", "noise", "default", "lossless", "source", "two", "MP-PCA", "smoothing", "JPEG", "PCA+SPERR",
          "MRtrix3")  # fmt: skip


def _key(row: Row) -> tuple[int, float]:
    """Return where a row stands among those of its scan; there is one default."""
    number = {"store": "asked_psnr", "noise": "times"}.get(row["candidate"])
    return _ORDER.index(re.split("[ ,]", row["candidate"])[0]), row[number] if number else 0.0


if __name__ == "__main__":
    sys.exit(main())
