"""Rows of the papers' tables: where they lie, what they are measured on, and a store as a row has it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import inrstore
from inrstore.evaluate.similarity import WINDOW, ssim
from inrstore.files import durable
from tools.environment import DATA, describe

Array = npt.NDArray[Any]
SCANS = {"s01": "dwi", "s02": "dwi", "s04": "dwi", "s07": "anat", "s09": "anat", "s10": "ct", "s11": "ct"}


class Results:
    """The result file: tables of rows, each found again by its settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}

    def row(self, table: str, settings: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the row of these settings; one that is not there is measured and written."""
        own = self.tables.setdefault(table, {"environment": {}, "rows": []})
        wanted = json.loads(json.dumps(settings))
        for row in own["rows"]:
            if row["settings"] == wanted:
                return dict(row)
        began = time.perf_counter()
        row = {"settings": wanted, **measure(), "seconds_in_all": round(time.perf_counter() - began, 1)}
        own["environment"] = describe("nibabel", "imagecodecs", "dipy")
        own["rows"].append(row)
        self.write()
        print(table, json.dumps(row), flush=True)
        return row

    def write(self) -> None:
        """Write the file, whole or not at all."""
        parts = []
        for name, own in self.tables.items():
            rows = ",\n    ".join(json.dumps(row) for row in own["rows"])
            parts.append(f'"{name}": {{"environment": {json.dumps(own["environment"])},\n  "rows": [\n    {rows}]}}')
        durable.write_file(self.path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


# ---- scans -------------------------------------------------------------------------------------------------


def scan_path(name: str) -> Path:
    """Return the file of a scan."""
    return next((DATA).glob(f"sub-{name}*/{SCANS[name]}/*.nii.gz"))


def cut_of(name: str, cut: Sequence[Sequence[int]], folder: Path) -> tuple[Path, Array]:
    """Write a cut (x, y, z) of a scan as a NIfTI file; return it, and its values (t, z, y, x) or (z, y, x)."""
    import nibabel as nib

    image = nib.load(scan_path(name))
    values = np.asarray(image.dataobj.get_unscaled())[tuple(slice(*part) for part in cut)]
    out = folder / f"{name}-{'-'.join(f'{a}.{b}' for a, b in cut)}.nii"
    if not out.exists():
        nib.save(nib.Nifti1Image(values, np.eye(4)), out)
    return out, np.ascontiguousarray(values.T)


def similarity(original: Array, decoded: Array) -> float:
    """Return the mean SSIM: of each slice of each measurement of a 4-D cut, of its own range; of the cut otherwise."""
    if original.ndim == 3 and min(original.shape) >= WINDOW:
        return ssim(original, decoded)
    pairs = zip(original.reshape(-1, *original.shape[-2:]), decoded.reshape(-1, *original.shape[-2:]), strict=True)
    return float(np.mean([ssim(a, b) for a, b in pairs]))


def converted(path: Path, values: Array, folder: Path, **asked: Any) -> dict[str, Any]:
    """Convert a cut; return bytes of its chunks, measures and times."""
    return stored(path, values, folder, **asked)[0]


def stored(path: Path, values: Array, folder: Path, **asked: Any) -> tuple[dict[str, Any], Array]:
    """Convert a cut; return what `converted` does, and what a reader decodes."""
    import zarr

    store = folder / "made.zarr"
    shutil.rmtree(store, ignore_errors=True)
    report = inrstore.convert(path, store, **{"chunks": "whole", **asked})
    info = inrstore.info(store)
    began = time.perf_counter()
    decoded = zarr.open(str(store), mode="r")["image"][...]
    seconds = time.perf_counter() - began
    found = {
        "bytes": info.image_bytes, "bits_per_value": round(8 * info.image_bytes / values.size, 5),
        "psnr": None if report.psnr is None else round(report.psnr, 3), "ssim": round(similarity(values, decoded), 4),
        "ratio": round(values.nbytes / info.image_bytes, 3), "modes": report.modes,
        "encode_seconds": round(report.seconds, 2), "decode_seconds": round(seconds, 3),
    }  # fmt: skip
    if all("parameters" in chunk for chunk in info.chunk_list):
        found["parameters"] = sum(chunk["parameters"] + chunk.get("refiner_parameters", 0) for chunk in info.chunk_list)
    shutil.rmtree(store)
    return found, decoded
