"""A source -> what else might be done to it: denoising, smoothing, and other codecs at the bytes of a store.

None of these is a store; their errors say what an error of a store is worth. All give stored units, rounded as a file
would have them.

- *MP-PCA*: `mppca` of dipy, patches of 5 x 5 x 5 voxels (Veraart et al., NeuroImage 142, 2016), in the mask. Of an
  image of fewer slices they are flat, and as wide as it takes to have 1.5 voxels a measurement.
- *Smoothing*: Gaussian, FWHM of 1.5 voxels, each volume by itself.
- *JPEG 2000*: irreversible, planes of z of all measurements as one mosaic of 16 bits, each measurement scaled to its
  range.
- *PCA+SPERR*: principal components over the measurements, the first k of them coded by SPERR with the same error; of a
  few k the one that is closest to the source.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.evaluate.findings import Image, Truth, needs

FWHM = 1.5
_TRIALS = 9
_CLOSE = 0.01
"""Part of the bytes that a codec may stay below those it is given."""


def stored(values: Image, dtype: np.dtype[Any]) -> Image:
    """Return values as a file of the dtype has them: rounded and cut to its range if it holds integers."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)


def denoised(voxels: Image, mask: Truth | None = None) -> Image:
    """Return a 4-D image without the noise that MP-PCA finds, (t, z, y, x).

    Raises
    ------
    MissingDependencyError
        Without dipy.
    """
    try:
        from dipy.denoise.localpca import mppca
    except ImportError as error:
        raise needs("dipy") from error
    image = np.ascontiguousarray(voxels.T, np.float32)  # dipy takes (x, y, z, t)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of voxels that no patch covers
        found = mppca(image, mask=None if mask is None else mask.T, patch_radius=_radius(image.shape),
                      out_dtype=np.float32)  # fmt: skip
    found = np.where(np.isfinite(found), found, image)
    if mask is not None:
        found = np.where(mask.T[..., None], found, image)
    return stored(found.T, voxels.dtype)


def _radius(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return how far a patch reaches along x, y and z: no patch of 5 voxels fits into fewer."""
    *space, count = shape
    flat = np.array([length < 5 for length in space])
    reach = 2
    while (
        flat.any()
        and (2 * reach + 1) ** np.count_nonzero(~flat) < 1.5 * count
        and 2 * reach + 3 <= min((length for length in space if length >= 5), default=0)
    ):
        reach += 1
    return np.where(flat, 0, reach)


def smoothed(voxels: Image) -> Image:
    """Return an image smoothed by a Gaussian, (..., z, y, x).

    Raises
    ------
    MissingDependencyError
        Without scipy.
    """
    try:
        from scipy.ndimage import gaussian_filter
    except ImportError as error:
        raise needs("scipy") from error
    sigma = FWHM / math.sqrt(8 * math.log(2))
    out = np.empty_like(voxels)
    for index in np.ndindex(voxels.shape[:-3]):
        out[index] = stored(gaussian_filter(voxels[index].astype(np.float64), sigma), voxels.dtype)
    return out


@dataclass(frozen=True)
class Coded:
    """What a codec made of an image.

    Parameters
    ----------
    voxels : ndarray
        Decoded, like the image.
    nbytes : int
        What a decoder needs.
    setting : str
    """

    voxels: Image
    nbytes: int
    setting: str


class Codecs:
    """Other codecs on one image.

    Parameters
    ----------
    voxels : ndarray
        (t, z, y, x) or (z, y, x), integers.
    """

    def __init__(self, voxels: Image) -> None:
        self.voxels = voxels
        self._stacked = voxels.reshape(-1, *voxels.shape[-3:])
        self._low = self._stacked.min(axis=(1, 2, 3), keepdims=True).astype(np.float64)
        spread = self._stacked.max(axis=(1, 2, 3), keepdims=True).astype(np.float64) - self._low
        self._spread = np.where(spread > 0, spread, 1.0)
        self._scaling = 2 * voxels.itemsize * len(self._stacked)

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the codecs that can be had: none without imagecodecs."""
        return ("JPEG 2000", "PCA+SPERR") if find_spec("imagecodecs") else ()

    def code(self, name: str, nbytes: int) -> Coded | None:
        """Return an image coded with at most so many bytes; None if the codec does not get there."""
        return self._jpeg2000(nbytes) if name == "JPEG 2000" else self._components(nbytes)

    def _unit(self) -> npt.NDArray[np.float32]:
        return np.asarray((self._stacked - self._low) / self._spread, np.float32)

    def _back(self, unit: Image) -> Image:
        """Return scaled measurements as stored values, in the range of each."""
        found = np.clip(unit.reshape(self._stacked.shape), 0, 1) * self._spread + self._low
        return stored(found, self.voxels.dtype).reshape(self.voxels.shape)

    def _jpeg2000(self, nbytes: int) -> Coded | None:
        mosaic = np.round(self._unit() * 65535).astype(np.uint16).reshape(-1, self._stacked.shape[-1])

        def encode(level: float) -> list[bytes]:
            return [_codecs().jpeg2k_encode(mosaic, level=level, codecformat="J2K", reversible=False, numthreads=1)]

        found = _largest(encode, nbytes - self._scaling, 45.0, (1.0, 120.0))
        if found is None:
            return None
        parts, level = found
        unit = _codecs().jpeg2k_decode(parts[0], numthreads=1) / np.float32(65535)
        return Coded(self._back(unit), sum(map(len, parts)) + self._scaling, f"{level:.1f} dB")

    def _components(self, nbytes: int) -> Coded | None:
        unit = self._unit().reshape(len(self._stacked), -1)  # (t, voxel)
        count = len(unit)
        _, vectors = np.linalg.eigh(unit @ unit.T)
        basis = np.ascontiguousarray(vectors[:, ::-1].T)  # (component, t), strongest first
        best: Coded | None = None
        least = math.inf
        for k in sorted({min(count, k) for k in (max(1, count // 4), max(1, count // 2), count)}):
            # SPERR ends the process at a volume of one slice; it takes pictures.
            shape = self._stacked.shape[2 if self._stacked.shape[1] == 1 else 1 :]
            images = (basis[:k] @ unit).reshape(k, *shape)
            spans = [20 * math.log10(max(float(np.ptp(image)), 1e-9)) for image in images]
            extra = 4 * k * count + self._scaling

            def encode(level: float, images: Image = images, spans: list[float] = spans) -> list[bytes]:
                return [
                    _codecs().sperr_encode(
                        np.ascontiguousarray(image),
                        max(level + span, 0.1),
                        "psnr",
                        numthreads=1,
                        **({"chunks": image.shape} if image.ndim == 3 else {}),
                    )
                    for image, span in zip(images, spans, strict=True)
                ]

            found = _largest(encode, nbytes - extra, 40.0, (-40.0, 120.0))
            if found is None:
                continue
            parts, level = found
            components = [_codecs().sperr_decode(part, numthreads=1) for part in parts]
            back = self._back(basis[:k].T @ np.stack(components).reshape(k, -1).astype(np.float32))
            error = back.reshape(self._stacked.shape) - self._stacked.astype(np.float64)
            off = float(np.square(error / self._spread).mean())
            if off < least:
                least, best = off, Coded(back, sum(map(len, parts)) + extra, f"k = {k}, {level:.1f} dB")
        return best


def _codecs() -> Any:
    return import_module("imagecodecs")


def _largest(
    encode: Callable[[float], list[bytes]], nbytes: int, start: float, bounds: tuple[float, float]
) -> tuple[list[bytes], float] | None:
    """Return the best quality whose parts fit into some bytes, and these parts."""
    low: tuple[float, int] | None = None
    high: tuple[float, int] | None = None
    best: tuple[list[bytes], float] | None = None
    level = start
    for number in range(_TRIALS):
        parts = encode(level)
        size = max(1, sum(map(len, parts)))
        if size <= nbytes:
            low, best = (level, size), (parts, level)
            if size >= (1 - _CLOSE) * nbytes or level >= bounds[1]:
                break
        else:
            high = (level, size)
            if level <= bounds[0]:
                break
        if low is None or high is None:
            # The size doubles with every 5 dB or so, less often at high rates: the steps grow until they are enough.
            step = 5 * 1.5**number * math.log2(max(nbytes, 1) * (1 - _CLOSE / 2) / size)
            level = min(max(level + step, bounds[0]), bounds[1])
            continue
        part = math.log(nbytes * (1 - _CLOSE / 2) / low[1]) / max(1e-9, math.log(high[1] / low[1]))
        part = 0.5 if number % 4 == 3 else min(max(part, 0.03), 0.97)
        level = low[0] + part * (high[0] - low[0])
    return best
