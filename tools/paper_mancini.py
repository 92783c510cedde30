"""Tables 1 and 2 of Mancini et al. 2022 in their own form, on real diffusion scans: relative errors by tissue.

Every row is one way to keep or to treat the same slices of a scan: SIREN-2D (3 layers, a network for each slice, in a
store), the default of this program, JPEG 2000 and PCA+SPERR; MP-PCA and smoothing, which no one calls a loss. Errors
are those of `inrstore evaluate`: tensor up to b = 1,500 s/mm², RISH and fODF of the highest shell, tissues of the
slices as they were scanned.

The published compression ratio of SIREN-2D, 9.0 with 3 layers of 256 units, is that of values to parameters: 140 x 140
pixels of 69 measurements or so to 150,000 weights, both of 32 bits. Read as the bytes of the scan's own file, of 16
bits a value, it would be 4.5. Two sizes are compared here: `siren`, the bytes of a store with networks of about a ninth
as many parameters as there are values, and `9`, a ninth of the bytes of the scan's integers, which is more. The default
has one error in all measurements, as it has where nobody asks for a quality.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from inrstore.evaluate import yardsticks
from inrstore.evaluate.dmri import Diffusion, Gradients
from inrstore.evaluate.findings import foreground
from inrstore.evaluate.plain import Plain
from inrstore.options import Network
from inrstore.sources import Source, read_source
from tools import paper_rows as tables
from tools.environment import sha256

RATIO = 9.0
NAME = "mancini"
SLICES: dict[str, tuple[tuple[tuple[int, int], ...], int, int]] = {
    "s02": (((0, 72), (0, 72), (16, 20)), 71, 2000),
    "s01": (((0, 128), (0, 128), (13, 15)), 164, 1000),
    "s04": (((0, 95), (0, 143), (0, 2)), 256, 400),
}
"""Cut (x, y, z), units of each of three layers, steps: values over parameters are 9.0 to 9.9; published steps 2,000."""
_TRIES, _CLOSE = 8, 0.01


class Study:
    """A cut of a scan, and what its candidates are compared with."""

    def __init__(self, name: str) -> None:
        self.cut = SLICES[name][0]
        self.path = tables.scan_path(name)
        self.source: Source = read_source(self.path)
        assert self.source.bval is not None and self.source.bvec is not None
        gradients = Gradients(self.source.bval, self.source.bvec)
        self._at = (slice(None), *(slice(*part) for part in reversed(self.cut)))
        self.whole = self.source.voxels
        mask = foreground(self.whole[gradients.plain].mean(axis=0, dtype=np.float64).astype(np.float32))
        self.mask = mask
        self.voxels = np.ascontiguousarray(self.whole[self._at])
        scale = {"slope": self.source.slope, "inter": self.source.inter}
        self.model = Diffusion(self.voxels, gradients, mask=mask[self._at[1:]], **scale)
        self.plain = Plain(self.voxels, 1, (0, 0))

    def part(self, whole: tables.Array) -> tables.Array:
        """Return the slices of a treated scan."""
        return np.ascontiguousarray(whole[self._at])

    def measure(self, decoded: tables.Array) -> dict[str, Any]:
        """Return every figure by "measure | region | statistic"; MSE of values from 0 to 1, as published."""
        found = [*self.plain.compare(decoded).findings, *self.model.compare(decoded).findings]
        figures = {
            f"{one.measure} | {one.region} | {one.statistic}": None if one.value is None else float(f"{one.value:.5g}")
            for one in found
        }
        level = figures["PSNR, by slices | image | value"]
        return {"figures": figures, "mse_unit": None if level is None else float(f"{10 ** (-level / 10):.4g}")}


def mancini(results: tables.Results, options: argparse.Namespace, folder: Path) -> None:
    """Seed 0's tables 1 and 2."""
    for name, (cut, units, steps) in SLICES.items():
        if options.scans and name not in options.scans:
            continue
        study = cache(lambda name=name: Study(name))

        def row(what: str, size: str, make: Callable[[Study], dict[str, Any]], *, name: str = name, cut: Any = cut,
                study: Any = study, **more: Any) -> dict[str, Any]:  # fmt: skip
            def measure() -> dict[str, Any]:
                return {**make(study()), "values": study().voxels.size, "raw_bytes": study().voxels.nbytes,
                        "sha256": sha256(study().path)}  # fmt: skip

            return results.row(NAME, {"scan": name, "cut": cut, "what": what, "size": size, **more}, measure)

        network = {"name": "siren2d", "layers": 3, "units": units, "steps": steps}
        siren = row("siren2d", "siren", lambda study, network=network: _network(study, folder, network, options),
                    network=network, device=options.device, seed=options.seed)  # fmt: skip
        row("MP-PCA", "", lambda study: study.measure(study.part(yardsticks.denoised(study.whole, study.mask))))
        row("smoothing", "", lambda study: study.measure(study.part(yardsticks.smoothed(study.whole))))
        for size, budget in (("siren", siren["bytes"]), ("9", int(siren["raw_bytes"] / RATIO))):
            row("default", size, lambda study, budget=budget: _default(study, folder, budget))
            for codec in yardsticks.Codecs.names():
                row(codec, size, lambda study, budget=budget, codec=codec: _coded(study, codec, budget))


def _saved(study: Study, folder: Path) -> Path:
    import nibabel as nib

    path = folder / f"{study.path.name.partition('.')[0]}-cut.nii"
    if not path.exists():
        nib.save(nib.Nifti1Image(study.voxels.T, np.eye(4)), path)
    return path


def _network(study: Study, folder: Path, network: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    found, decoded = tables.stored(
        _saved(study, folder), study.voxels, folder, network=Network(**network), preset="paper", chunks="auto",
        device=options.device, seed=options.seed,
    )  # fmt: skip
    return {**found, **study.measure(decoded)}


def _default(study: Study, folder: Path, budget: int) -> dict[str, Any]:
    """Return the default codec at the least rmse that is found whose chunks fit into some bytes."""
    path, known = _saved(study, folder), dict[float, int]()
    best: tuple[dict[str, Any], tables.Array] | None = None
    low, high, level = -60.0, 20.0, -9.0  # dB over an rmse of 1
    for number in range(_TRIES):
        rmse = float(f"{10 ** (-level / 20):.4g}")
        found, decoded = tables.stored(path, study.voxels, folder, rmse=rmse, device="cpu")
        known[level] = found["bytes"]
        if found["bytes"] <= budget:
            low, best = level, ({**found, "asked_rmse": rmse}, decoded)
            if found["bytes"] >= (1 - _CLOSE) * budget:
                break
        else:
            high = level
        level = round(_between(known, budget, low, high, number), 2)
    if best is None:
        return {"bytes": None, "figures": {}, "mse_unit": None}
    return {**best[0], **study.measure(best[1])}


def _between(known: dict[float, int], budget: int, low: float, high: float, number: int) -> float:
    """Return the level to try next: where a line of logarithms of bytes meets the budget, or the middle."""
    if low in known and high in known and number % 3 != 2:
        part = math.log(budget * (1 - _CLOSE / 2) / known[low]) / math.log(known[high] / known[low])
        return low + min(max(part, 0.05), 0.95) * (high - low)
    if low in known and high not in known:
        return min(low + 6.0, (low + high) / 2)
    if high in known and low not in known:
        return max(high - 6.0, (low + high) / 2)
    return (low + high) / 2


def _coded(study: Study, codec: str, budget: int) -> dict[str, Any]:
    coded = yardsticks.Codecs(study.voxels).code(codec, budget)
    if coded is None:
        return {"bytes": None, "figures": {}, "mse_unit": None}
    return {"bytes": coded.nbytes, "setting": coded.setting, "ratio": round(study.voxels.nbytes / coded.nbytes, 3),
            **study.measure(coded.voxels)}  # fmt: skip


def regions(figures: dict[str, float | None], measure: str, statistics: Sequence[str], region: str
            ) -> list[float | None]:  # fmt: skip
    """Return some statistics of a measure in a region."""
    return [figures.get(f"{measure} | {region} | {statistic}") for statistic in statistics]
