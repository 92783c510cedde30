"""A network as a module of torch, with the numbers of its integers as float parameters, to be trained further."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from inrstore.chunk.inr.real import RealNetwork

_TURN = {"sine": 2 * math.pi}
"""Radians for an argument of 1; of other activations the argument has no unit."""


def _activated(name: str, sums: Tensor) -> Tensor:
    if name == "sine":
        return torch.sin(sums)
    if name == "tanh":
        return torch.tanh(sums)
    return sums.clamp(0.0 if name == "relu" else -1.0, 1.0)


class Place(nn.Module):
    """A network of a place: voxel indices of an image -> stored values.

    Parameters
    ----------
    real : RealNetwork
    outputs : ndarray of int
        Those wanted.
    axes : sequence of (int or None)
        For each input of the network the index (0 is i, 1 is j, 2 is k) that it follows; None is held at the centre.
    centres : sequence of float
        The index, along each of these, that an input of 0 stands for.
    longest : float
        Half voxels that a coordinate of 1 stands for: all parameters then have usual sizes.
    limits : tuple of float
        Outputs are limited to this range, as they are in the image; what is limited has no gradient.
    scale, offset : float
        A value is output x scale + offset.
    box : tuple of sequence of int
        First voxel and that after the last, along i, j, k, of which the network tells.
    fill : float
        Value of every other place, a constant of the chunk's envelope.

    Attributes
    ----------
    weights, biases : ParameterList
        Of each hidden layer, (units, inputs) and (units,), for sums in radians; then of the linear read-out, whose
        outputs are normalised to the range.
    limited : bool
        Whether outputs are limited.
    surrounded : bool
        Whether places outside the box get their constant, without a gradient; or what the network makes of them.
    """

    def __init__(
        self, real: RealNetwork, outputs: npt.NDArray[np.intp], axes: Sequence[int | None], centres: Sequence[float],
        longest: float, limits: tuple[float, float], scale: float, offset: float,
        box: tuple[Sequence[int], Sequence[int]], fill: float, dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__()
        self.limited = self.surrounded = True
        self._names, self._axes = [layer.name for layer in real.layers], list(axes)
        self._output, self._range = (scale, offset), limits
        self._box, self._fill = (list(box[0]), list(box[1])), fill
        low, high = limits
        self._middle, self._half = (high + low) / 2, max(high - low, 1.0) / 2
        self._centres, self._longest = list(centres), longest
        weights, biases = [], []
        for number, layer in enumerate(real.layers):
            turn = _TURN.get(layer.name, 1.0)
            weights.append(layer.weights * turn * (longest if number == 0 else 1.0))
            biases.append(
                (np.remainder(layer.biases + 0.5, 1.0) - 0.5 if layer.name == "sine" else layer.biases) * turn
            )
        weights.append(real.readout[outputs] / self._half)
        biases.append((real.offsets[outputs] - self._middle) / self._half)
        self.weights = nn.ParameterList([nn.Parameter(torch.tensor(w, dtype=dtype)) for w in weights])
        self.biases = nn.ParameterList([nn.Parameter(torch.tensor(b, dtype=dtype)) for b in biases])

    def coordinates(self, points: Tensor) -> Tensor:
        """Return the inputs (points, inputs) of voxel indices (points, 3): -1..1 along the longest axis of the box."""
        columns = [torch.zeros_like(points[:, 0]) if axis is None else (points[:, axis] - centre) * (2 / self._longest)
                   for axis, centre in zip(self._axes, self._centres, strict=True)]  # fmt: skip
        return torch.stack(columns, 1) if columns else points[:, :0]

    def forward(self, points: Tensor) -> Tensor:
        """Return stored values, (points, outputs), at voxel indices, (points, 3)."""
        hidden = self.coordinates(points).to(self.weights[0].dtype)
        for name, weight, bias in zip(self._names, self.weights, self.biases, strict=False):
            hidden = _activated(name, functional.linear(hidden, weight, bias))
        found = functional.linear(hidden, self.weights[-1], self.biases[-1]) * self._half + self._middle
        if self.limited:
            found = found.clamp(*self._range)
        scale, offset = self._output
        found = found * scale + offset
        if not self.surrounded:
            return found
        first, stop = (torch.as_tensor(edge, device=points.device, dtype=points.dtype) for edge in self._box)
        nearest = torch.floor(points + 0.5)
        inside = ((nearest >= first) & (nearest < stop)).all(1, keepdim=True)
        return torch.where(inside, found, torch.full_like(found, self._fill))
