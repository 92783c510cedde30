"""Mean fractional anisotropy of every diffusion image in an archive, computed lazily with xarray and dask.

    python examples/fa_per_subject.py ARCHIVE

Chunks are decoded where they are needed, a tensor is fitted to each of their voxels, and what remains of an image are
two maps and a number. Nothing is written, to the archive or anywhere else. With `--scheduler ADDRESS` the workers of a
dask.distributed cluster that can see the archive do the work.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import xarray

import inrstore

LOW_B = 50.0
"""b-values up to here, in s/mm², count as none."""

TENSOR_B = 1500.0
"""Up to this b-value the signal falls about as a tensor says (Basser and Pierpaoli 1996)."""


def diffusion_images(archive: str) -> Iterator[tuple[str, xarray.Dataset]]:
    """Yield the images of an archive that have gradients for at least six directions, with their names."""
    for found in inrstore.open_archive(archive):
        if "t" in found.record.dims:
            image = found.open()
            if {"bval", "bvec"} <= set(image.coords) and (image.bval > LOW_B).sum() >= 6:
                yield found.record.name, image


def choose_volumes(bval: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """Return which volumes the tensor is fitted to: those of low b if they have enough directions, else all."""
    chosen = bval <= TENSOR_B
    return chosen if (chosen & (bval > LOW_B)).sum() >= 6 else np.ones(bval.shape, bool)


def fit_fa(
    signal: npt.NDArray[Any], bval: npt.NDArray[np.floating[Any]], bvec: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float32]:
    """Fit a tensor to the logarithm of the signal, by weighted least squares, and return its fractional anisotropy.

    The weights are the squared signals that an unweighted fit predicts (Salvador et al. 2005, Veraart et al. 2013).

    Parameters
    ----------
    signal : ndarray
        (..., t), in any unit.
    bval : ndarray
        (t,), in s/mm².
    bvec : ndarray
        (t, 3), unit vectors.

    Returns
    -------
    ndarray
        (...), 0 where there is no signal.
    """
    gx, gy, gz = bvec.T.astype(np.float64)
    b = bval.astype(np.float64) / 1000
    # Columns: Dxx, Dyy, Dzz, Dxy, Dxz, Dyz, log S0.                                        (t, 7)
    design = np.stack([gx**2, gy**2, gz**2, 2 * gx * gy, 2 * gx * gz, 2 * gy * gz], axis=1) * -b[:, None]
    design = np.concatenate([design, np.ones((len(b), 1))], axis=1)
    values = signal.reshape(-1, len(b)).astype(np.float64)
    some = values.max(axis=1, initial=0) > 0
    out = np.zeros(len(values), np.float32)
    if not some.any():
        return out.reshape(signal.shape[:-1])
    values = values[some]  # (voxel, t)
    log = np.log(np.maximum(values, 1e-3 * values.max(axis=1, keepdims=True)))
    predicted = log @ np.linalg.pinv(design).T @ design.T
    weights = np.exp(2 * (predicted - predicted.max(axis=1, keepdims=True)))
    products = (design[:, :, None] * design[:, None, :]).reshape(len(b), 49)
    normal = (weights @ products).reshape(-1, 7, 7)
    ridge = 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(7)
    right = (weights * log) @ design
    tensor = np.linalg.solve(normal + ridge, right[..., None])[..., 0]
    diagonal, off = tensor[:, :3], tensor[:, 3:6]
    mean = diagonal.mean(axis=1, keepdims=True)
    # FA from the entries of D: the norm of its deviation from a sphere over its own (no eigenvalues needed).
    deviation = ((diagonal - mean) ** 2).sum(axis=1) + 2 * (off**2).sum(axis=1)
    whole = (diagonal**2).sum(axis=1) + 2 * (off**2).sum(axis=1)
    out[some] = np.clip(np.sqrt(1.5 * deviation / np.maximum(whole, 1e-30)), 0, 1)
    return out.reshape(signal.shape[:-1])


def maps(image: xarray.Dataset) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Return the FA and the mean signal without diffusion weighting, (z, y, x), lazily.

    Parameters
    ----------
    image : Dataset
        As `inrstore.open` gives it; or any with `image` (t, z, y, x), `bval` (t) and `bvec` (t, component).
    """
    image = image.isel(t=choose_volumes(image.bval.values))
    fa = xarray.apply_ufunc(
        fit_fa,
        image.image.chunk(t=-1),
        kwargs={"bval": image.bval.values, "bvec": image.bvec.values},
        input_core_dims=[["t"]],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    unweighted = image.bval.values <= max(LOW_B, image.bval.values.min())
    return fa, image.image.isel(t=unweighted).mean("t")


def mean_fa(image: xarray.Dataset) -> tuple[float, int]:
    """Return the mean FA of an image and the number of voxels it is the mean of.

    They are those with more than a quarter of the signal that bright tissue has (its 99th percentile), which leaves
    out air; a brain mask would also leave out the scalp.
    """
    fa, signal = dask.compute(*maps(image))  # both from one decoding of each chunk
    bright = np.percentile(signal.values, 99)
    inside = signal.values > 0.25 * bright
    return float(fa.values[inside].mean()), int(inside.sum())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Mean FA of every diffusion image in an archive.")
    parser.add_argument("archive", help="path or URL")
    parser.add_argument("--scheduler", help="address of a dask.distributed scheduler")
    options = parser.parse_args()
    if options.scheduler:
        from dask.distributed import Client

        Client(options.scheduler)
    print(f"{'image':62} {'volumes':>7} {'voxels':>8} {'mean FA':>8}")
    for name, image in diffusion_images(options.archive):
        value, voxels = mean_fa(image)
        print(f"{name:62} {image.sizes['t']:7d} {voxels:8,d} {value:8.4f}")


if __name__ == "__main__":
    main()
