"""An image and what became of it -> measures of any image: errors, PSNR by slices, structural similarity.

- *PSNR, each measurement*: errors relative to the range of their own measurement (volume), as this project promises.
- *PSNR, whole range*: relative to the range of the whole image, which is the usual one.
- *PSNR, by slices*: each measurement of each slice in x and y scaled to 0..1 by its own least and largest value, the
  PSNR of a slice from the mean over its measurements, then the mean over slices (SirenMRI, Mancini et al., 2022).
  Slices without an error do not count.
- *SSIM*: of slices, window of 7 x 7, in the range of each measurement, as scikit-image computes it; the mean of all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.evaluate.findings import Finding, Image, Result, Truth, value
from inrstore.evaluate.metrics import ErrorStatistics, Ranges

WINDOW = 7
"""Side of the window of the structural similarity, in voxels (smaller for smaller slices)."""


class Plain:
    """Measures of one image that any number of candidates are compared by.

    Parameters
    ----------
    voxels : ndarray
        The source in stored units, (..., z, y, x).
    leading : int
        Its axes that count measurements.
    shown : tuple of int
        For each of these axes and for z the position of the slice whose maps are kept.
    """

    def __init__(self, voxels: Image, leading: int, shown: tuple[int, ...]) -> None:
        self.voxels, self.leading, self.shown = voxels, leading, shown

    def compare(self, decoded: Image, inside: Truth | None = None) -> Result:
        """Measure a candidate.

        Parameters
        ----------
        decoded : ndarray
            Like the source in shape and dtype (but for the byte order).
        inside : ndarray of bool, optional
            The voxels that count, (1, ..., z, y, x); others may be anything.

        Returns
        -------
        Result
            "SSIM" is missing without scikit-image, and for slices of less than 3 voxels.
        """
        ranges = Ranges.of(self.voxels, self.leading, inside)
        statistics = ErrorStatistics(ranges)
        statistics.add(self.voxels, decoded, inside=inside)
        found = statistics.result()
        slices = self._by_slices(decoded, inside, ranges)
        findings: list[Finding] = [
            value("PSNR, each measurement", "image", found.psnr, "dB"),
            value("PSNR, whole range", "image", found.psnr_range, "dB"),
            value("PSNR, by slices", "image", slices["psnr"], "dB"),
            value("MSE", "image", found.rmse**2, "stored units²"),
            value("largest error", "image", found.max_error, "stored units"),
        ]
        maps = {"error": slices["error"]}
        if slices["ssim"] is not None:
            findings.insert(3, value("SSIM", "image", slices["ssim"]))
            maps["SSIM"] = slices["ssim map"]
        return Result(findings=tuple(findings), maps=maps)

    def _by_slices(self, decoded: Image, inside: Truth | None, ranges: Ranges) -> dict[str, Any]:
        """Go through the slices in x and y, each of all measurements."""
        stacked = self.voxels.reshape(-1, *_spatial(self.voxels.shape, self.leading))
        other = decoded.reshape(stacked.shape)
        spreads = ranges.each.reshape(-1)
        kept = (
            None if inside is None else np.broadcast_to(inside, (1,) * self.leading + self.voxels.shape[self.leading :])
        )
        where = None if kept is None else kept.reshape(stacked.shape[1:])
        similarity = _similarity(stacked.shape[2:])
        number = int(np.ravel_multi_index(self.shown[:-1], self.voxels.shape[: self.leading])) if self.leading else 0
        levels: list[float] = []
        total, count = 0.0, 0
        out: dict[str, Any] = {"psnr": None, "ssim": None}
        for z in range(stacked.shape[1]):
            counts = np.ones(stacked.shape[2:], np.bool_) if where is None else where[z]
            squares, values = 0.0, 0
            for t in range(len(stacked)):
                a, b = (_finite(image[t, z]) for image in (stacked, other))
                b = np.where(counts, b, a)
                squares += _relative_square(a, b, counts)
                values += int(np.count_nonzero(counts))
                if (t, z) == (number, self.shown[-1]):
                    out["error"] = b - a
                if similarity is not None:
                    local = similarity(a, b, spreads[t])
                    total, count = total + float(local[counts].sum()), count + int(np.count_nonzero(counts))
                    if (t, z) == (number, self.shown[-1]):
                        out["ssim map"] = local
            if values and 0 < squares < math.inf:
                levels.append(-10 * math.log10(squares / values))
        out["psnr"] = float(np.mean(levels)) if levels else None
        out["ssim"] = total / count if count else None
        return out


def _spatial(shape: tuple[int, ...], leading: int) -> tuple[int, int, int]:
    """Return z, y, x of an image that may lack some."""
    space = (1, 1, 1, *shape[leading:])[-3:]
    return space[0], space[1], space[2]


def _finite(plane: Image) -> npt.NDArray[np.float64]:
    return np.nan_to_num(plane.astype(np.float64), posinf=0.0, neginf=0.0)


def _relative_square(a: Image, b: Image, counts: Truth) -> float:
    """Return the sum of squared errors of a slice whose least value counts as 0 and its largest as 1."""
    first, second = a[counts], b[counts]
    if not first.size:
        return 0.0
    spread = float(first.max() - first.min()) or 1.0
    return float(np.square((second - first) / spread).sum())


def _similarity(shape: tuple[int, ...]) -> Any:
    """Return the structural similarity of two slices as a function of (a, b, range), or None."""
    window = min(WINDOW, *(length - 1 + length % 2 for length in shape))
    if window < 3:
        return None
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        return None

    def similarity(a: Image, b: Image, spread: float) -> Image:
        if np.array_equal(a, b):
            return np.ones(a.shape)
        _, local = structural_similarity(a, b, data_range=float(spread), win_size=window, full=True)
        return np.asarray(local)

    return similarity
