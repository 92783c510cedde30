"""A series of volumes and what became of it -> temporal SNR, correlation of the series, connectivity of a seed.

- *Detrended*: a voxel's series less its polynomial of order 2, by least squares.
- *tSNR*: mean of the series over the standard deviation of the detrended one.
- *Correlation*: of a voxel's detrended series before and after; 0 where one of them became constant.
- *Connectivity*: correlation of each voxel's detrended series with the mean one of the seed, a cube of 3 voxels. By
  default it is at the point of the mask that lies in its middle in x and z and a quarter of its depth from its rear
  end, which is about the precuneus of an axial scan of a whole head.
"""

from __future__ import annotations

import numpy as np

from inrstore.errors import ConfigurationError
from inrstore.evaluate.findings import Finding, Floats, Image, Result, Truth, errors, foreground, value

LEAST_VOLUMES = 10
TREND = 2
_BLOCK = 1 << 16
"""Series looked at together."""


class Series:
    """The source, whose maps every candidate is compared with.

    Parameters
    ----------
    voxels : ndarray
        (t, z, y, x), stored units, 10 volumes or more.
    slope, inter : float
        Signal = slope x stored + inter.
    mask : ndarray of bool, optional
        (z, y, x); by default what Otsu's threshold of the smoothed mean volume finds.
    seed : tuple of int, optional
        (x, y, z) of the voxel in the middle of the seed.
    rear : {-1, 1}
        Whether y grows towards the rear (1) or the front (-1).

    Raises
    ------
    ConfigurationError
        If there are too few volumes, or the seed is not in the image.
    MissingDependencyError
        Without dipy, if no mask is given.
    """

    kind = "fmri"

    def __init__(
        self, voxels: Image, *, slope: float = 1.0, inter: float = 0.0, mask: Truth | None = None,
        seed: tuple[int, int, int] | None = None, rear: int = -1,
    ) -> None:  # fmt: skip
        if len(voxels) < LEAST_VOLUMES:
            raise ConfigurationError(f"{len(voxels)} volumes are too few for a series; {LEAST_VOLUMES} are needed")
        self.voxels, self._slope, self._inter = voxels, slope, inter
        self.mask = mask if mask is not None else foreground(_mean(voxels))
        trend = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(voxels)), TREND)
        self._trend = np.linalg.qr(trend)[0]  # (t, order + 1), orthonormal
        self.seed = seed if seed is not None else _default_seed(self.mask, rear)
        self._seeded = self._cube(self.seed)
        self.maps = self._derive(voxels)

    def compare(self, voxels: Image) -> Result:
        """Compare a candidate, (t, z, y, x), stored units, with the source."""
        found = self._derive(voxels)
        alike = np.concatenate([
            _correlation(self._detrended(self.voxels, part)[0], self._detrended(voxels, part)[0])
            for part in self._blocks()
        ])  # fmt: skip
        findings: list[Finding] = list(errors("tSNR", "brain", self.maps["tSNR"], found["tSNR"]))
        findings += [
            value("correlation of the series, median", "brain", np.median(alike)),
            value("correlation of the series, 5 % are below", "brain", np.percentile(alike, 5)),
        ]
        before, after = self.maps["connectivity"], found["connectivity"]
        findings += errors("connectivity, r", "brain", before, after, relative=False)
        same = _correlation((before - before.mean())[None], (after - after.mean())[None])[0]
        findings.append(value("correlation of the connectivity maps", "brain", same))
        maps = {
            "tSNR": self.spread(found["tSNR"]),
            "correlation": self.spread(alike),
            "connectivity": self.spread(found["connectivity"]),
        }
        return Result(findings=tuple(findings), maps=maps)

    def describe(self) -> tuple[Finding, ...]:
        """Return what the source itself is like."""
        x, y, z = self.seed
        return (
            value("voxels", "brain", np.count_nonzero(self.mask), "voxels"),
            value("tSNR, median", "brain", np.median(self.maps["tSNR"])),
            value("seed x", "brain", x),
            value("seed y", "brain", y),
            value("seed z", "brain", z),
        )

    def reference_maps(self) -> dict[str, Image]:
        """Return the pictures of the source."""
        return {"tSNR": self.spread(self.maps["tSNR"]), "connectivity": self.spread(self.maps["connectivity"])}

    def spread(self, values: Image) -> Image:
        """Return values of the voxels of the mask, (n,), as an image, NaN outside."""
        out = np.full(self.mask.shape, np.nan, np.float32)
        out[self.mask] = values
        return out

    def _blocks(self) -> list[tuple[Image, ...]]:
        where = np.nonzero(self.mask)
        return [
            tuple(axis[start : start + _BLOCK] for axis in where) for start in range(0, len(where[0]), _BLOCK)
        ]  # fmt: skip

    def _detrended(self, voxels: Image, where: tuple[Image, ...]) -> tuple[Floats, Floats]:
        """Return detrended series, (n, t), and their means, (n,)."""
        stored = np.stack([np.asarray(volume[where], np.float64) for volume in voxels], axis=1)
        series = np.nan_to_num(stored * self._slope + self._inter, posinf=0.0, neginf=0.0)
        left = series - (series @ self._trend) @ self._trend.T
        # What is left of a constant series is rounding.
        left[np.ptp(series, axis=1) == 0] = 0.0
        return left, np.asarray(series.mean(axis=1))

    def _derive(self, voxels: Image) -> dict[str, Floats]:
        """Return tSNR and connectivity of the voxels of the mask, (n,) each."""
        course = self._detrended(voxels, self._seeded)[0].mean(axis=0, keepdims=True)
        ratios, links = [], []
        freedom = len(voxels) - TREND - 1
        for part in self._blocks():
            left, mean = self._detrended(voxels, part)
            noise = np.sqrt(np.square(left).sum(axis=1) / freedom)
            # A series that became constant has no noise to speak of, not an infinite ratio.
            ratios.append(np.divide(mean, noise, out=np.full_like(mean, np.nan), where=noise > 0))
            links.append(_correlation(left, course))
        return {"tSNR": np.concatenate(ratios), "connectivity": np.concatenate(links)}

    def _cube(self, seed: tuple[int, int, int]) -> tuple[Image, ...]:
        shape = self.mask.shape[::-1]
        if not all(0 <= at < length for at, length in zip(seed, shape, strict=True)):
            raise ConfigurationError(f"seed {seed}: not a voxel of an image of {' x '.join(map(str, shape))}")
        near = np.zeros(self.mask.shape, np.bool_)
        near[tuple(slice(max(0, at - 1), at + 2) for at in seed[::-1])] = True
        inside = near & self.mask
        return tuple(np.nonzero(inside if inside.any() else near))


def _mean(voxels: Image) -> Image:
    total = np.zeros(voxels.shape[1:], np.float64)
    for volume in voxels:
        total += np.nan_to_num(volume.astype(np.float64), posinf=0.0, neginf=0.0)
    return (total / len(voxels)).astype(np.float32)


def _correlation(a: Floats, b: Floats) -> Floats:
    """Return the correlation of rows that have the mean 0."""
    size = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    return np.asarray(np.divide((a * b).sum(axis=1), size, out=np.zeros(len(a)), where=size > 0))


def _default_seed(mask: Truth, rear: int) -> tuple[int, int, int]:
    z, y, x = np.nonzero(mask)
    wanted = np.array([np.median(z), np.percentile(y, 25 if rear < 0 else 75), np.median(x)])
    nearest = int(np.argmin(np.square(np.stack([z, y, x], axis=1) - wanted).sum(axis=1)))
    return int(x[nearest]), int(y[nearest]), int(z[nearest])
