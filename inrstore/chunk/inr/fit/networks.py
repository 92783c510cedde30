"""Batched networks: independent SIRENs of one size, evaluated in one batched matrix product a layer.

Sitzmann et al., arXiv:2006.09661: sine layers, hidden weights uniform in +-sqrt(6 / width). The first layer's
frequencies are drawn uniform in +-omega_0 per unit of coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, order=True)
class Size:
    """Sine layers and units in each."""

    layers: int
    width: int

    def parameters(self, axes: int, channels: int) -> int:
        """Return the number of weights and biases."""
        w = self.width
        return axes * w + (self.layers - 1) * w * w + self.layers * w + channels * w + channels


@dataclass
class Networks:
    """Parameters of N networks.

    Parameters
    ----------
    weights : list of Tensor
        (nets, in, out) for each sine layer and the linear read-out.
    biases : list of Tensor
        (nets, 1, out) likewise.
    """

    weights: list[Tensor]
    biases: list[Tensor]

    @property
    def tensors(self) -> list[Tensor]:
        """All parameters, weights first."""
        return [*self.weights, *self.biases]

    def __call__(self, coordinates: Tensor) -> Tensor:
        """Return the outputs (nets, points, channels) at coordinates (nets, points, axes)."""
        hidden = coordinates
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = torch.sin(torch.baddbmm(bias, hidden, weight))
        return torch.baddbmm(self.biases[-1], hidden, self.weights[-1])

    def map(self, tensors: Sequence[Tensor]) -> Networks:
        """Return networks of the same shape made of other tensors in the order of `tensors`."""
        half = len(self.weights)
        return Networks(list(tensors[:half]), list(tensors[half:]))

    def clone(self) -> Networks:
        """Return a detached copy."""
        return self.map([t.detach().clone() for t in self.tensors])

    def subset(self, keep: Sequence[int]) -> Networks:
        """Return a detached copy of some of the networks."""
        index = torch.tensor(list(keep), device=self.weights[0].device)
        return self.map([t.detach()[index].clone() for t in self.tensors])


def initialise(
    size: Size, axes: int, channels: int, omega_0: float, seeds: Sequence[int], device: torch.device
) -> Networks:
    """Draw N networks, each from its own seed."""
    drawn: list[list[Tensor]] = []
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)

        def uniform(*shape: int, bound: float, source: torch.Generator = source) -> Tensor:
            return (torch.rand(*shape, generator=source) * 2 - 1) * bound

        hidden = math.sqrt(6 / size.width)
        weights = [uniform(axes, size.width, bound=omega_0)]
        weights += [uniform(size.width, size.width, bound=hidden) for _ in range(size.layers - 1)]
        weights += [uniform(size.width, channels, bound=hidden / 3)]
        biases = [uniform(1, size.width, bound=math.pi) for _ in range(size.layers)] + [torch.zeros(1, channels)]
        drawn.append(weights + biases)
    stacked = [torch.stack(t).to(device) for t in zip(*drawn, strict=True)]
    return Networks(stacked[: size.layers + 1], stacked[size.layers + 1 :])


def join(parts: Sequence[Networks]) -> Networks:
    """Return all networks of several batches of one size in one batch."""
    return parts[0].map([torch.cat(t) for t in zip(*(p.tensors for p in parts), strict=True)])
