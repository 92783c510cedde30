"""Measured cells of a grid -> the trade-off point of Sheibanifard et al. (2025), equations 6 to 9; the Pareto front.

A cell is a network of three settings: DS, the scale of the coarse grid (1/2, 1/4, 1/8), NC, the channels of the second
network, and SN, the neurons of a layer of the first. Of each cell PSNR, SSIM and CR are known, where

    CR = 1 - parameters / voxels        (equation 6: a weight counts as much as a voxel, whatever their bits)
    bit rate = 32 parameters / voxels   (equation 4, weights of 32 bits)

The point (equations 7 and 8) is the cell with the least

    L = f - sum alpha_i c_i + beta / 2 sum c_i^2,    f = 1 / PSNR + (1 - |SSIM|) + (1 - CR),  PSNR in dB,  CR in 0..1
    c_1 = (DS - DS_max) / (DS_max - DS_min),  c_2 = (NC - NC_min) / (NC_max - NC_min),  c_3 likewise for SN

The paper gives no alpha, no beta, and no units of c. Here c is in parts of the range of the grid, so that neurons do
not outweigh the rest (0 for an axis of one value); alpha is 0, and beta is 10, with which the published tables 4 to 6
give the published point, NC 4, DS 1/2, SN 30. Beta decides: below 0.96 the same tables give 70 neurons, as f alone
does, and up to 3.7 they give 50. The three constraints name one cell, so for any large beta that cell is the point,
whatever was measured.

Marginals (equation 9) are means over the two other axes, though the paper writes sums: so its table 7 follows from its
tables 4 to 6, with the columns of NC and DS exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BETA = 10.0
AXES = ("downsample", "channels", "neurons")
_BITS = 32


@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """Settings of one network.

    Parameters
    ----------
    downsample : int
        How many times coarser the grid of the first network is: 1 / DS.
    channels : int
        NC, of the second network; 0 without one.
    neurons : int
        SN.
    """

    downsample: int
    channels: int
    neurons: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of a cell.

    Parameters
    ----------
    cell : Cell
    psnr : float
        dB of what a reader decodes; the paper's 1 is the range of the whole image. Infinite where nothing differs.
    psnr_patch : float
        The same over the range of the patch, which is the smaller one.
    ssim : float
        With the range of the whole image.
    parameters : int
        Weights and biases of all networks of the cell.
    voxels : int
        Of the patch.
    bytes : int
        Of the chunk as it is stored.
    bits_raw : int
        Of a voxel as the image stores it.
    seconds : float
        Of the fit.
    """

    cell: Cell
    psnr: float
    psnr_patch: float
    ssim: float
    parameters: int
    voxels: int
    bytes: int
    bits_raw: int
    seconds: float

    @property
    def compression_rate(self) -> float:
        """CR of equation 6, 0..1; negative for more parameters than voxels."""
        return 1 - self.parameters / self.voxels

    @property
    def bit_rate(self) -> float:
        """Bits per voxel as the paper counts."""
        return _BITS * self.parameters / self.voxels

    @property
    def stored_bit_rate(self) -> float:
        """Bits per voxel on the disk."""
        return 8 * self.bytes / self.voxels

    @property
    def stored_compression_rate(self) -> float:
        """1 - bytes on the disk / bytes of the image."""
        return 1 - self.stored_bit_rate / self.bits_raw

    @property
    def cost(self) -> float:
        """F of equation 7; infinite where PSNR is not above 0."""
        if not self.psnr > 0:
            return math.inf
        return 1 / self.psnr + (1 - abs(self.ssim)) + (1 - self.compression_rate)


@dataclass(frozen=True, kw_only=True)
class Marginal:
    """Means over the cells of one value of an axis.

    Parameters
    ----------
    axis : str
        One of `AXES`.
    value : int
    inverse_psnr, dissimilarity, rest : float
        Means of 1 / PSNR, 1 - |SSIM| and 1 - CR.
    """

    axis: str
    value: int
    inverse_psnr: float
    dissimilarity: float
    rest: float


def trade_off(
    rows: Sequence[Row], *, alpha: Sequence[float] = (0.0, 0.0, 0.0), beta: float = BETA
) -> Row:  # fmt: skip
    """Return the row of the trade-off point; the first in the order of cells where several are equal.

    Parameters
    ----------
    rows : sequence of Row
        At least one.
    alpha : sequence of float
        Multipliers of the constraints on DS, NC and SN.
    beta : float
        Their penalty; 0 (and alpha 0) leaves the cost of equation 7.
    """
    cells = [row.cell for row in rows]

    def lagrangian(row: Row) -> float:
        c = constraints(row.cell, cells)
        linear = sum(a * one for a, one in zip(alpha, c, strict=True))
        return row.cost - linear + beta / 2 * sum(one * one for one in c)

    return min(sorted(rows, key=lambda row: row.cell), key=lagrangian)


def constraints(cell: Cell, grid: Iterable[Cell]) -> tuple[float, float, float]:
    """Return c_1, c_2 and c_3 of a cell, in parts of the range of the grid."""
    cells = list(grid)
    scales = [1 / one.downsample for one in cells]
    first = (1 / cell.downsample - max(scales)) / ((max(scales) - min(scales)) or 1.0)
    others = []
    for name in ("channels", "neurons"):
        values = [getattr(one, name) for one in cells]
        others.append((getattr(cell, name) - min(values)) / ((max(values) - min(values)) or 1))
    return first, others[0], others[1]


def marginals(rows: Sequence[Row]) -> list[Marginal]:
    """Return the marginals of each axis, in ascending order of its values."""
    out = []
    for axis in AXES:
        for value in sorted({getattr(row.cell, axis) for row in rows}):
            held = [row for row in rows if getattr(row.cell, axis) == value]
            means = [sum(values) / len(held) for values in zip(*map(_parts, held), strict=True)]
            out.append(Marginal(axis=axis, value=value, inverse_psnr=means[0], dissimilarity=means[1], rest=means[2]))
    return out


def _parts(row: Row) -> tuple[float, float, float]:
    inverse = 1 / row.psnr if row.psnr > 0 else math.inf
    return inverse, 1 - abs(row.ssim), 1 - row.compression_rate


def pareto(rows: Sequence[Row], *, stored: bool = False) -> list[Row]:
    """Return the rows that no other beats in PSNR and size, the smallest first.

    Parameters
    ----------
    rows : sequence of Row
    stored : bool
        Size is bytes on the disk; otherwise parameters, as the paper counts.
    """
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.bytes if stored else r.parameters, -r.psnr, r.cell)):
        if not front or row.psnr > front[-1].psnr:
            front.append(row)
    return front
