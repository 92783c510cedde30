"""The volumes of the rate-distortion benchmark, and what every codec is measured by.

A peer sees each measurement moved to start at 0 and divided by its range, so that an error of the same size counts
the same in each: the project's PSNR (specification, section 11) favours nobody. What it decodes is scaled back,
rounded, and cut to the measurement's own range before it is measured.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.evaluate.metrics import ErrorStatistics, Measures, Ranges
from tools.environment import DATA

DIFFUSION = ("s01", "s02", "s03", "s04", "s05", "s06")
SCALAR = ("s07", "s08", "s09", "s10", "s11", "s12")
"""T1, FLAIR twice, CT twice; and s12, fMRI, which is 4-D but measured at the same quality."""
PSNR = {**dict.fromkeys(DIFFUSION, (32.0, 36.0, 40.0, 44.0)), **dict.fromkeys(SCALAR, (35.0, 40.0, 45.0))}
MAX_ERROR = (1.0, 4.0, 16.0)
ORDER = ("s06", "s03", "s02", "s05", "s12", "s08", "s11", "s04", "s09", "s10", "s07", "s01")
"""Soonest done first."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Volume:
    """An image as the benchmark codes it.

    Parameters
    ----------
    name : str
        s01 to s12.
    image : ndarray
        Stored integers, (t, z, y, x) or (z, y, x).
    cut : str
        Which slices of z these are.
    """

    name: str
    image: Array
    cut: str

    @property
    def leading(self) -> int:
        """Axes that count measurements."""
        return self.image.ndim - 3

    @cached_property
    def sha256(self) -> str:
        """Hash of the values, little-endian and in C order, with their type and shape."""
        little = np.ascontiguousarray(self.image, self.image.dtype.newbyteorder("<"))
        return hashlib.sha256(f"{little.dtype.str}{little.shape}".encode() + little.tobytes()).hexdigest()

    @cached_property
    def ranges(self) -> Ranges:
        """Largest minus smallest value of each measurement."""
        return Ranges.of(self.image, self.leading)

    @cached_property
    def stacked(self) -> Array:
        """The image as (t, z, y, x), t = 1 for a 3-D one."""
        return self.image.reshape(-1, *self.image.shape[-3:])

    @cached_property
    def _low(self) -> Array:
        return np.asarray(self.stacked.min(axis=(1, 2, 3), keepdims=True), np.float64)

    @cached_property
    def _spread(self) -> Array:
        return np.asarray(self.ranges.each.reshape(-1, 1, 1, 1))

    @cached_property
    def unit(self) -> npt.NDArray[np.float32]:
        """The measurements scaled to [0, 1], (t, z, y, x), float32."""
        return np.ascontiguousarray((self.stacked - self._low) / self._spread, np.float32)

    @cached_property
    def unit16(self) -> npt.NDArray[np.uint16]:
        """The same in 16-bit integers for the image codecs, 1 is 65,535."""
        return np.round((self.stacked - self._low) / self._spread * 65535).astype(np.uint16)

    @property
    def scaling_bytes(self) -> int:
        """Bytes that a reader of scaled measurements needs: their ranges, and their least values unless all are 0."""
        return len(self._low) * self.image.itemsize * (2 if self._low.any() else 1)

    def stored(self, unit: Array) -> Array:
        """Return what a decoder of scaled measurements gives as stored integers, in the shape of the image."""
        values = np.empty(self.stacked.shape, self.image.dtype)
        for t, plane in enumerate(unit.reshape(self.stacked.shape)):
            low, spread = float(self._low[t, 0, 0, 0]), float(self._spread[t, 0, 0, 0])
            values[t] = np.clip(np.round(plane.astype(np.float64) * spread + low), low, low + spread)
        return values.reshape(self.image.shape)

    def measure(self, decoded: Array) -> Measures:
        """Return the error of decoded stored integers."""
        statistics = ErrorStatistics(self.ranges)
        statistics.add(self.image, decoded)
        return statistics.result()


@lru_cache(maxsize=1)
def load(name: str, arrays: str | None, slab: int) -> Volume:
    """Read a volume.

    Parameters
    ----------
    name : str
        s01 to s12.
    arrays : str or None
        A folder of .npy files (`save` writes them) to read instead of the scans.
    slab : int
        Values to keep at least: the central slices of z; 0 for all.
    """
    if arrays is not None:
        image = np.load(Path(arrays) / f"{name}.npy", allow_pickle=False)
    else:
        from inrstore.sources import read_source

        image = np.asarray(read_source(scan(name)).voxels)
    depth = image.shape[-3]
    each = image.size // depth
    keep = depth if not slab else min(depth, -(-slab // each))
    first = (depth - keep) // 2
    image = np.ascontiguousarray(image[..., first : first + keep, :, :], image.dtype.newbyteorder("="))
    return Volume(name, image, "all" if keep == depth else f"z {first}:{first + keep} of {depth}")


def scan(name: str) -> Path:
    """Return the file of a volume."""
    return next(DATA.glob(f"sub-{name}*/*/*.nii.gz"))


def save(names: list[str], folder: Path) -> None:
    """Write volumes as .npy, for machines without nibabel or the scans."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        np.save(folder / f"{name}.npy", load(name, None, 0).image, allow_pickle=False)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a result file; none if there is no file."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    return rows


def write_rows(path: Path, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Replace a result file; a row is a line, so that changes can be read."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    text = json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n]\n}}\n'
    beside = path.with_suffix(".tmp")
    beside.write_text(text)
    beside.replace(path)
