"""A CT image and what became of it -> errors in Hounsfield units, by ranges of the source's values.

The ranges are those of air, lung, fat, soft tissue (water and blood among it) and bone; between them lie edges and
mixtures, which count for "image" alone.
"""

from __future__ import annotations

import numpy as np

from inrstore.evaluate.findings import Finding, Image, Result, Truth, errors, value

RANGES = {
    "air": (-1100.0, -950.0),
    "lung": (-950.0, -500.0),
    "fat": (-150.0, -30.0),
    "soft tissue": (-30.0, 100.0),
    "bone": (300.0, 3000.0),
}
"""Name -> least value, first value beyond, HU."""


class Tomography:
    """The source, which every candidate is compared with.

    Parameters
    ----------
    voxels : ndarray
        (z, y, x), stored units.
    slope, inter : float
        HU = slope x stored + inter.
    mask : ndarray of bool, optional
        (z, y, x), the voxels that count; all by default.
    """

    kind = "ct"

    def __init__(self, voxels: Image, *, slope: float = 1.0, inter: float = 0.0, mask: Truth | None = None) -> None:
        self.voxels, self._slope, self._inter = voxels, slope, inter
        self.mask = mask if mask is not None else np.ones(voxels.shape, np.bool_)

    def compare(self, voxels: Image) -> Result:
        """Compare a candidate, (z, y, x), stored units, with the source."""
        before, after = self._hounsfield(self.voxels), self._hounsfield(voxels)
        findings: list[Finding] = []
        for name, part in self._regions(before).items():
            findings += errors("HU", name, before[part], after[part], "HU", relative=False)
        return Result(findings=tuple(findings), maps={"HU error": np.where(self.mask, after - before, np.nan)})

    def describe(self) -> tuple[Finding, ...]:
        """Return how many voxels each range has."""
        regions = self._regions(self._hounsfield(self.voxels))
        return tuple(value("voxels", name, np.count_nonzero(part), "voxels") for name, part in regions.items())

    def reference_maps(self) -> dict[str, Image]:
        """Return the pictures of the source."""
        return {}

    def _hounsfield(self, voxels: Image) -> Image:
        real = voxels.astype(np.float32) * np.float32(self._slope) + np.float32(self._inter)
        return np.asarray(np.nan_to_num(real, posinf=0.0, neginf=0.0))

    def _regions(self, hounsfield: Image) -> dict[str, Truth]:
        found = {name: self.mask & (hounsfield >= low) & (hounsfield < high) for name, (low, high) in RANGES.items()}
        return {**{name: part for name, part in found.items() if part.any()}, "image": self.mask}
