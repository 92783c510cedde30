"""Problems -> tensors: coordinates and normalised measurements of a batch of chunks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inrstore.chunk.fit_task import FitTask


@dataclass(frozen=True)
class Measurements:
    """One chunk, ready to fit: zero mean in each channel, unit variance over all, errors weighted by 1 / scale.

    Parameters
    ----------
    problem : FitTask
    values : ndarray of float32, shape (points, channels)
        At the points of the box in C order, or those of them with a value inside the mask. NaN is a value outside.
    places : ndarray of int64, shape (points,), or None
        Which points of the box these are; None is all.
    extents : tuple of int
        Points along each axis that has a coordinate.
    mean : ndarray of float64, shape (channels,)
        Stored units.
    unit : ndarray of float64, shape (channels,)
        Stored units for one unit of `values`.
    noise : float
        Mean square error in units of `values` that is exactly on target; values outside count as exact.
    published : bool
        Each measurement runs from 0 to 1 instead.
    """

    problem: FitTask
    values: npt.NDArray[np.float32]
    places: npt.NDArray[np.int64] | None
    extents: tuple[int, ...]
    mean: npt.NDArray[np.float64]
    unit: npt.NDArray[np.float64]
    noise: float
    published: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Chunks of equal key (axes, channels) can share a batch."""
        return len(self.extents), self.values.shape[1]

    @property
    def seed(self) -> int:
        """A hash of the content, so that a result does not depend on which chunks are fitted beside it."""
        return int.from_bytes(hashlib.sha256(self.values.tobytes()).digest()[:6], "little")

    def psnr(self, distortion: float) -> float:
        """Return dB for a mean square error relative to the target's, over the range of each measurement.

        Published data are scaled to their range, other measurements come with theirs as scale; where there is none, it
        is the range of the box.
        """
        target, core = self.problem.target, self.problem.core
        assert target.rmse is not None
        if self.published:
            found = distortion * self.noise
        else:
            peak = 1.0 if target.scale is not None else float(core.max()) - float(core.min())
            found = distortion * (target.rmse / peak) ** 2
        return -10 * math.log10(found) if found > 0 else math.inf


def prepare(problem: FitTask, *, published: bool = False) -> Measurements:
    """Normalise the box of a chunk, or what is inside its mask; as published each measurement to 0..1."""
    axis = problem.channel_axis
    core = problem.core if axis is not None else problem.core[None]
    space = np.moveaxis(core, axis or 0, -1)
    extents = tuple(n for n in space.shape[:-1] if n > 1)
    flat = space.reshape(-1, space.shape[-1]).astype(np.float64)  # (points, channels)
    places, inside = _inside(problem)
    if places is not None:
        flat = flat[places]
    share = 1.0
    if inside is None:
        mean = flat.mean(0)
    else:
        mean, share = (flat * inside).sum(0) / np.maximum(1, inside.sum(0)), float(inside.mean())
        flat[~inside] = np.nan
    assert problem.target.rmse is not None
    if published:
        mean = np.nanmin(flat, 0)
        unit = np.nanmax(flat, 0) - mean
        unit[~(unit > 0)] = 1.0
        noise = float(np.mean((problem.target.rmse * problem.scale / unit) ** 2)) * share
        return Measurements(problem, ((flat - mean) / unit).astype(np.float32), places, extents, mean, unit, noise,
                            published=True)  # fmt: skip
    scaled = (flat - mean) / problem.scale
    spread = float(np.sqrt(np.mean(scaled**2 if inside is None else scaled[inside] ** 2))) or 1.0
    return Measurements(problem, (scaled / spread).astype(np.float32), places, extents, mean, problem.scale * spread,
                        (problem.target.rmse / spread) ** 2 * share)  # fmt: skip


def _inside(problem: FitTask) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.bool_] | None]:
    """Return the points of the box to fit, and which of their channels count if not all do; None is all."""
    mask, axis = problem.envelope.mask, problem.channel_axis
    if mask is None:
        return None, None
    if axis is None or mask.shape[axis] == 1:
        space = mask if axis is None else mask.squeeze(axis)
        lengths = [n for a, n in enumerate(problem.core.shape) if a != axis]
        return np.flatnonzero(np.broadcast_to(space, lengths)), None
    full = np.moveaxis(np.broadcast_to(mask, problem.core.shape), axis, -1)
    flat = full.reshape(-1, full.shape[-1])  # (points, channels)
    places = np.flatnonzero(flat.any(1))
    return places, flat[places]


class Batch:
    """Tensors of several chunks of one key.

    Attributes
    ----------
    coordinates : Tensor, shape (nets, points, axes)
        Half voxels from the centre of the box, divided by the longest extent: the same length on every axis.
    values : Tensor, shape (nets, points, channels)
    counts : Tensor, shape (nets,)
        Points that are real; the rest is padding.
    noise : Tensor, shape (nets,)
    holes : bool
        Whether any of the values is NaN.
    floor : Tensor, shape (nets, 1, channels), or None
        The smallest value of each chunk; with it outputs below are raised to it.
    """

    def __init__(self, items: Sequence[Measurements], device: torch.device, *, limited: bool = False) -> None:
        self.items = list(items)
        most = max(len(m.values) for m in items)
        self.values = torch.zeros((len(items), most, items[0].values.shape[1]), device=device)
        self.coordinates = torch.zeros((len(items), most, len(items[0].extents)), device=device)
        for i, item in enumerate(items):
            self.values[i, : len(item.values)] = torch.from_numpy(item.values)
            points = grid(item.extents)
            self.coordinates[i, : len(item.values)] = points if item.places is None else points[item.places]
        self.counts = torch.tensor([len(m.values) for m in items], device=device)
        self.noise = torch.tensor([m.noise for m in items], device=device, dtype=torch.float64)
        floors = [(float(m.problem.core.min()) - m.mean) / m.unit for m in items] if limited else []
        self.floor = torch.from_numpy(np.stack(floors)[:, None]).float().to(device) if limited else None
        self.holes = any(bool(np.isnan(m.values).any()) for m in items if m.places is not None)

    def subset(self, keep: Sequence[int]) -> Batch:
        """Return the batch of some of the chunks."""
        other = object.__new__(Batch)
        index = torch.tensor(list(keep), device=self.values.device)
        other.items = [self.items[i] for i in keep]
        other.values, other.coordinates = self.values[index], self.coordinates[index]
        other.counts, other.noise, other.holes = self.counts[index], self.noise[index], self.holes
        other.floor = None if self.floor is None else self.floor[index]
        return other

    def limited(self, found: Tensor) -> Tensor:
        """Return outputs as readers limit them, if they are fitted so."""
        return found if self.floor is None else torch.maximum(found, self.floor)

    def sample(self, fraction: Tensor) -> tuple[Tensor, Tensor]:
        """Return coordinates and values at fractions in [0, 1) of each chunk's points, (nets, samples, ...)."""
        index = (fraction[None, :] * self.counts[:, None]).long()
        index = torch.minimum(index, self.counts[:, None] - 1)
        nets = torch.arange(len(self.items), device=index.device)[:, None]
        return self.coordinates[nets, index], self.values[nets, index]

    def wanted(self, values: Tensor, found: Tensor) -> Tensor:
        """Return values with what was found in place of NaN: there nothing is wrong and nothing is to be learnt."""
        return torch.where(values.isnan(), found.detach(), values) if self.holes else values


def length_unit(extents: tuple[int, ...]) -> int:
    """Return the half voxels in one unit of coordinate."""
    return max(extents)


def grid(extents: tuple[int, ...]) -> Tensor:
    """Return the coordinates of every point of a box in C order, (points, axes)."""
    unit = length_unit(extents)
    axes = [(2 * torch.arange(n) - (n - 1)).float() / unit for n in extents]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(extents))
