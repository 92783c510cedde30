"""Noise of scans by several estimators, and how soon `preserve` finds its quality on a scan it was not tuned on.

    python -m tools.bench_preserve                      # about half an hour of one core
    python -m tools.bench_preserve --scans s03 --parts search

Three parts. `noise`: estimators beside each other, with what repeated measurements differ by where there are some.
`curves`: the loss of each measure at multiples of the noise, preset fast. `search`: for each scan it begins with the
curve of the OTHER scans (their geometric mean; of bold, which one scan alone has, that of a series of pure noise); what
it finds is measured again by `evaluate`. Results: tools/results/preserve.json.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results" / "preserve.json"
SCANS = {"s03": ("fa", "md"), "s02": ("fa", "md"), "s12": ("bold",), "s01": ("fa", "md"), "s08": ("volume",),
         "s07": ("volume",), "s11": ("hu",), "s10": ("hu",)}  # fmt: skip
NOISY = ("s01", "s02", "s03", "s04", "s05", "s06", "s12")
MULTIPLES = (0.35, 0.5, 0.7, 1.0, 1.4)
PARTS = ("noise", "curves", "search")

Row = dict[str, Any]


def path_of(name: str) -> Path:
    """Return the file of a scan, s01 to s12."""
    from tools.environment import DATA

    (source,) = DATA.glob(f"sub-{name}*/*/*.nii.gz")
    return source


def noise(name: str) -> list[Row]:
    """Return the noise of a scan by each estimator, median over its measurements."""
    from inrstore.evaluate import noise as ours
    from inrstore.evaluate.findings import foreground
    from inrstore.sources import read_source

    image = read_source(path_of(name))
    voxels = image.voxels
    mask = foreground(voxels.mean(axis=0, dtype=np.float64).astype(np.float32))
    rows = []

    def add(estimator: str, make: Any) -> None:
        began = time.perf_counter()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = make()
        rows.append({"part": "noise", "scan": name, "estimator": estimator, "sigma": float(f"{float(found):.4g}"),
                     "seconds": round(time.perf_counter() - began, 2)})  # fmt: skip

    add(ours.REGRESSION, lambda: np.median(ours.Noise.of(voxels, 1).sigma))
    add(ours.DIFFERENCES, lambda: np.median(ours.deviation(voxels, mask)))
    if voxels.shape[1] > 4:  # patches have five slices
        add("MP-PCA (dipy)", lambda: _mppca(voxels, mask))
    add("PIESNO (dipy)", lambda: _piesno(voxels))
    alike = _repeated(image)
    if alike is not None:
        add("repeated measurements", lambda: _differences(voxels[alike], mask))
    return rows


def _mppca(voxels: Any, mask: Any) -> float:
    from dipy.denoise.localpca import mppca

    data = np.ascontiguousarray(voxels.T, np.float32)
    _, sigma = mppca(data, mask=mask.T, patch_radius=2, return_sigma=True)
    inside = sigma[mask.T]
    return float(np.median(inside[inside > 0]))


def _piesno(voxels: Any) -> float:
    from dipy.denoise.noise_estimate import piesno

    return float(np.median(piesno(np.ascontiguousarray(voxels.T, np.float32), N=4, return_mask=False)))


def _repeated(image: Any) -> Any:
    """Return measurements of one scan that should be the same; None where there are fewer than four."""
    if image.bval is None:
        return np.arange(len(image.voxels))
    alike = np.flatnonzero(image.bval < 10)
    return alike if len(alike) >= 4 else None


def _differences(voxels: Any, mask: Any) -> float:
    series = voxels[:, mask].astype(np.float64)
    second = series[1:-1] - 0.5 * (series[:-2] + series[2:])
    return float(np.median(np.abs(second - np.median(second, axis=1, keepdims=True))) / 0.6745 / math.sqrt(1.5))


def curves(name: str) -> list[Row]:
    """Return the losses of the measures of a scan at multiples of its noise."""
    from inrstore import api
    from inrstore.sources import read_source
    from inrstore.store import preserve
    from inrstore.store.measures import Preserve
    from inrstore.store.options import Options
    from inrstore.store.quality import Quality

    source = read_source(path_of(name))
    models = {one: preserve.prepare(source, Options(quality=Quality(preserve=Preserve.of(one)))) for one in SCANS[name]}
    rows = []
    for multiple in MULTIPLES:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "a.ozx"
            report: Any = api.convert(path_of(name), store, noise=multiple, preset="fast", device="cpu")
            decoded = np.asarray(api_image(store))
        for one, (measure, model) in models.items():
            figure = preserve.figure_of(measure, model, source, decoded, one)
            rows.append({"part": "curves", "scan": name, "measure": one, "multiple": multiple, "figure": figure,
                         "loss": float(f"{measure.loss(figure):.4g}"), "bytes": report.stored_bytes})  # fmt: skip
    return rows


def api_image(store: Path) -> Any:
    """Return the image of a store."""
    import inrstore

    return inrstore.open(store).image


def curve_of_others(rows: list[Row], name: str, measure: str) -> list[tuple[float, float]] | None:
    """Return the geometric mean of the losses of all other scans; None if there are none."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row["part"] == "curves" and row["measure"] == measure and row["scan"] != name:
            found.setdefault(row["multiple"], []).append(row["loss"])
    mean = [(multiple, math.exp(float(np.mean(np.log(each))))) for multiple, each in sorted(found.items())]
    return mean or None


def search(name: str, known: list[Row], measures: tuple[str, ...]) -> list[Row]:
    """Return what a search finds on a scan whose own curve it does not know, for some of its measures."""
    from inrstore import api
    from inrstore.store import convert, preserve
    from inrstore.store.measures import MEASURES

    rows = []
    for one in (one for one in SCANS[name] if one in measures):
        curve, kept = curve_of_others(known, name, one), {}
        usual = preserve.search

        def blind(*given: Any, curve: Any = curve, kept: dict[str, Any] = kept, usual: Any = usual) -> Any:
            kept["found"] = usual(*given, curve=curve)
            return kept["found"]

        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "a.ozx"
            began = time.process_time()
            convert.preserve.search = blind  # type: ignore[assignment]
            try:
                report: Any = api.convert(path_of(name), store, preserve=one, device="cpu")
            finally:
                convert.preserve.search = usual
            seconds = time.process_time() - began
            api.verify(store, path_of(name))
            measure, _, statistic = MEASURES[one].figure
            found = [
                f.value
                for f in api.evaluate(path_of(name), store).candidates[0].findings
                if f.measure == measure and f.statistic == statistic and MEASURES[one].figure[1] in ("", f.region)
            ]
        attempts = kept["found"].attempts
        again = min(v for v in found if v is not None) if MEASURES[one].best else max(v for v in found if v is not None)
        rows.append({
            "part": "search", "scan": name, "measure": one, "bound": report.preserve["bound"],
            "first": {**attempts[0].quality.to_dict(), "figure": float(f"{attempts[0].figure:.4g}")},
            "found": {**report.promised, "figure": float(f"{again:.5g}")}, "trials": len(attempts),
            "kept": bool(MEASURES[one].loss(again) <= MEASURES[one].loss(report.preserve["bound"])),
            "bytes": report.stored_bytes, "psnr": report.psnr, "ratio": round(report.ratio, 2),
            "cpu_s": round(seconds, 1), "sigma": (report.noise or {}).get("sigma"),
        })  # fmt: skip
    return rows


def main(words: list[str] | None = None) -> int:
    """Measure and write, a scan at a time."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tools.bench_rate_data import read_rows, write_rows
    from tools.environment import describe

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scans", default=",".join(dict.fromkeys((*SCANS, *NOISY))))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--measures", default="fa,md,bold,volume,hu", help="of the part search")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(words)
    asked = tuple(arguments.measures.split(","))
    for part in arguments.parts.split(","):
        for name in arguments.scans.split(","):
            if name not in (NOISY if part == "noise" else SCANS):
                continue
            before = read_rows(arguments.out)
            found = (
                noise(name) if part == "noise" else curves(name) if part == "curves" else search(name, before, asked)
            )
            own = [(row["part"], row["scan"], row.get("measure")) for row in found]
            rows = [row for row in before if (row["part"], row["scan"], row.get("measure")) not in own] + found
            about = {"environment": describe("nibabel", "dipy", "scipy", "av")}
            write_rows(arguments.out, about, sorted(rows, key=lambda row: (row["part"], row["scan"])))
            print(part, name, *found, sep="\n  ", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
