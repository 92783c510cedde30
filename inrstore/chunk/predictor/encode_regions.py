"""Weights by place: fits those of every region, and tells whether they pay (specification section 12.5).

All that a fit needs of a place are sums of products, so these are taken once for small cells; a region is some
cells, and its weights are drawn to those of the whole stage as by `_PRIOR` more values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from inrstore import limits
from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.linear import Doubles, products
from inrstore.chunk.predictor.encode_stage import StageFit
from inrstore.chunk.predictor.regions import Differences, RegionGrid, write_differences
from inrstore.chunk.predictor.regression import Stage, reach
from inrstore.chunk.products import product, two_rows

SETS = 4
_CELL, _MOST_CELLS = 32, 400
_CELLS_A_SIDE = (1, 2, 3, 4)
_PRIOR = 60.0
_PER_POSITION = 5  # values that the sums of a cell are taken of, for each position in a plane
_AT_ONCE = 4096
_BITS_PER_WEIGHT = 1.44  # how much better weights look on what they were fitted to than on what they were not
_PRECISION = 8  # bits of a difference behind the point; finer ones cost more than they save


@dataclass(frozen=True)
class Moments:
    """Weighted sums of products of the regressors and the wanted value, of cells and sets.

    Parameters
    ----------
    grid : RegionGrid
        The cells.
    sums : ndarray of float64, shape (cells, sets, K + 2, K + 2)
        The wanted value is the last row and column.
    counts : ndarray of float64, shape (cells, sets)
        Values in the sums.
    share : float
        Values in the sums, of all that are coded.
    """

    grid: RegionGrid
    sums: Doubles
    counts: Doubles
    share: float

    def merged(self, side: int) -> tuple[RegionGrid, Ints]:
        """Return regions of side x side cells, and the region of each cell."""
        cells = self.grid
        grid = RegionGrid(
            min(cells.rows * side, cells.shape[0]), min(cells.columns * side, cells.shape[1]), cells.shape
        )
        down, across = np.divmod(np.arange(cells.count), cells.across)
        return grid, down // side * grid.across + across // side


def cells_of(shape: tuple[int, int]) -> RegionGrid:
    """Return the cells of a plane."""
    side = max(_CELL, math.sqrt(shape[0] * shape[1] / _MOST_CELLS))
    rows, columns = (-(-n // max(1, round(n / side))) for n in shape)
    return RegionGrid(rows, columns, shape)


def moments(fit: StageFit, stage: Stage, grid: RegionGrid, thin: int) -> Moments:
    """Return the sums of cells; of many planes only some rows, and of these one in `thin`."""
    cells, across, planes = grid.count, grid.across, fit.known.shape[2]
    size, sets = fit.neighbourhood.regressors + 2, len(stage.thresholds) + 1
    out, counts = np.zeros((cells, sets, size, size)), np.zeros((cells, sets))
    every = thin * max(1, round(planes / _PER_POSITION))
    two = two_rows(stage.activity)
    seen = 0
    for cell in range(cells):
        y, x = grid.rows * (cell // across), grid.columns * (cell % across)
        columns = range(x, min(x + grid.columns, fit.columns))
        down, at_once = range(y, min(y + grid.rows, fit.rows), every), max(1, _AT_ONCE // (len(columns) * planes))
        for first in range(0, len(down), at_once):
            whole = fit.block(down[first : first + at_once], columns)
            active = product(two, np.abs(whole[:-1]))[0]
            whole *= 1 / np.sqrt((active / np.float32(256) + np.float32(0.05)) ** 2 + np.float32(0.1))
            which = stage.thresholds.searchsorted(active)
            for one in range(sets):
                mine = np.flatnonzero(which == one)
                if mine.size:
                    part = whole.take(mine, 1)
                    out[cell, one] += products(part, part)
                    counts[cell, one] += mine.size
            seen += len(active)
    return Moments(grid, out, counts, max(1, seen) / max(1, fit.coded))


def fitted(found: Moments, stage: Stage, side: int) -> tuple[Ints, Stage]:
    """Return the region of each cell, where a region is so many cells, and the stage with their weights."""
    grid, region = found.merged(side)
    sets = found.sums.shape[1]
    sums = np.zeros((grid.count, *found.sums.shape[1:]))
    np.add.at(sums, region, found.sums)
    prior = found.sums.sum(0) * (_PRIOR / np.maximum(1, found.counts.sum(0)))[:, None, None]
    ridge = np.eye(sums.shape[-1] - 1) * 1e-6
    exact = (sums + prior)[..., :-1, :-1] + ridge * (1 + np.diagonal(prior[..., :-1, :-1], axis1=1, axis2=2)[:, None])
    local = np.linalg.solve(exact, (sums + prior)[..., :-1, -1:])[..., 0]
    one, common = 1 << stage.fraction, stage.weights
    shift = max(0, stage.fraction - _PRECISION)
    most = limits.EXACT_FLOAT32 >> shift
    matrix = np.rint((local * one - common) / (1 << shift)).clip(-most, most).astype(np.int64)
    weights = common + (matrix << shift)
    matrix[(reach(weights, stage.clip) >= limits.EXACT_FLOAT32).any(1)] = 0
    differences = Differences(shift, matrix.reshape(grid.count * sets, -1))
    return region, replace(stage, grid=grid, differences=differences)


def common_of(fit: StageFit, found: Moments, stage: Stage) -> Stage:
    """Return the stage with the weights that suit the whole plane best, of the sets of `found`."""
    sums = found.sums.sum(0)
    sums[:, range(sums.shape[1] - 1), range(sums.shape[1] - 1)] *= 1 + 1e-5
    sums += np.eye(sums.shape[1]) * 1e-6
    local = np.linalg.solve(sums[:, :-1, :-1], sums[:, :-1, -1:])[..., 0]
    fraction, clip, whole = fit.exact(local, stage.activity[None], stage.fraction)
    return replace(stage, fraction=fraction, clip=clip, weights=whole)


def bits(found: Moments, region: Ints, stage: Stage) -> float:
    """Return about how many bits a stage takes with the weights of regions, these included."""
    assert stage.differences is not None
    weights = stage.differences.weights(stage.weights)[region] / (1 << stage.fraction)
    full = np.concatenate([weights, np.full((*weights.shape[:2], 1), -1.0)], 2)
    squares = np.einsum("csi,csij,csj->cs", full, found.sums, full, optimize=True)
    mean = np.maximum(squares, 0) / np.maximum(found.counts, 1) + 1e-3
    coded = float((found.counts * np.log2(mean)).sum()) / 2 / found.share
    fitted_weights = np.count_nonzero(np.abs(stage.differences.matrix).sum(1)) * stage.differences.matrix.shape[1]
    return float(coded + 8 * len(write_differences(stage.differences)) + _BITS_PER_WEIGHT * fitted_weights)


def _few_sets(fit: StageFit, plain: Stage, grid: RegionGrid, thin: int) -> tuple[Moments, Stage, float]:
    """Return sums, the stage with fewer sets for the whole plane, and the bits that these cost more."""
    stage = replace(plain, thresholds=fit.thresholds(SETS))
    found = moments(fit, stage, grid, thin)
    stage = common_of(fit, found, stage)
    return found, stage, fit.coded * (fit.loss(stage) - fit.loss(plain))


def _saved(found: Moments, stage: Stage, side: int) -> tuple[float, Stage]:
    """Return the bits that regions of so many cells save, and the stage with them."""
    region, regional = fitted(found, stage, side)
    assert regional.differences is not None
    same = replace(regional, differences=replace(regional.differences, matrix=0 * regional.differences.matrix))
    return bits(found, region, same) - bits(found, region, regional), regional


def choose_region(fit: StageFit, shape: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of the regions that suit a stage best, or None if it needs none."""
    found, stage, lost = _few_sets(fit, fit.fitted(), cells_of(shape), 2)
    best, most = None, lost
    for side in _CELLS_A_SIDE:
        grid, _ = found.merged(side)
        if grid.count > 1 and grid.fits(fit.size):
            saved, _ = _saved(found, stage, side)
            if saved > most:
                best, most = (grid.rows, grid.columns), saved
    return best


def with_regions(fit: StageFit, plain: Stage, grid: RegionGrid) -> Stage:
    """Return the stage with weights for each region where they pay, or with the same everywhere."""
    plain = replace(plain, grid=grid)
    if grid.count < 2 or not grid.fits(fit.size):
        return plain
    found, stage, lost = _few_sets(fit, plain, grid, 1)
    saved, regional = _saved(found, stage, 1)
    return regional if saved > lost else plain
