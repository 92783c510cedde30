"""Batched networks: independent networks of one architecture, evaluated in one batched matrix product a layer.

An architecture is data: a list of layers, each an activation of the table in `activations` and a width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrstore.chunk.inr.fit.activations import ACTIVATIONS


@dataclass(frozen=True, order=True)
class Layer:
    """One hidden layer: units, and the name of their activation."""

    width: int
    activation: str


@dataclass(frozen=True, order=True)
class Architecture:
    """The hidden layers of a network, in order; a linear read-out follows them."""

    layers: tuple[Layer, ...]

    @property
    def width(self) -> int:
        """Units in the widest layer."""
        return max(layer.width for layer in self.layers)

    @property
    def activations(self) -> tuple[str, ...]:
        """Name of each layer's activation."""
        return tuple(layer.activation for layer in self.layers)

    def parameters(self, inputs: int, outputs: int) -> int:
        """Return the number of weights and biases."""
        widths = [inputs, *(layer.width for layer in self.layers), outputs]
        return sum(a * b + b for a, b in itertools.pairwise(widths))


def uniform(activations: Sequence[str], width: int) -> Architecture:
    """Return the architecture of layers of one width; a SIREN is `uniform(["sine"] * 4, 64)`, say."""
    return Architecture(tuple(Layer(width, name) for name in activations))


@dataclass
class Networks:
    """Parameters of N networks.

    Parameters
    ----------
    weights : list of Tensor
        (nets, in, out) for each hidden layer and the linear read-out.
    biases : list of Tensor
        (nets, 1, out) likewise.
    activations : tuple of str
        Of each hidden layer.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    activations: tuple[str, ...]

    @property
    def tensors(self) -> list[Tensor]:
        """All parameters, weights first."""
        return [*self.weights, *self.biases]

    def __call__(self, coordinates: Tensor) -> Tensor:
        """Return the outputs (nets, points, channels) for inputs (nets, points, inputs), coordinates mostly."""
        hidden = coordinates
        for weight, bias, name in zip(self.weights[:-1], self.biases[:-1], self.activations, strict=True):
            hidden = ACTIVATIONS[name].forward(torch.baddbmm(bias, hidden, weight))
        return torch.baddbmm(self.biases[-1], hidden, self.weights[-1])

    def map(self, tensors: Sequence[Tensor]) -> Networks:
        """Return networks of the same shape made of other tensors in the order of `tensors`."""
        half = len(self.weights)
        return Networks(list(tensors[:half]), list(tensors[half:]), self.activations)

    def clone(self) -> Networks:
        """Return a detached copy."""
        return self.map([t.detach().clone() for t in self.tensors])

    def subset(self, keep: Sequence[int]) -> Networks:
        """Return a detached copy of some of the networks."""
        index = torch.tensor(list(keep), device=self.weights[0].device)
        return self.map([t.detach()[index].clone() for t in self.tensors])


def initialise(
    architecture: Architecture, inputs: int, outputs: int, omega_0: float, seeds: Sequence[int], device: torch.device,
    *, published: bool = False,
) -> Networks:  # fmt: skip
    """Draw N networks, each from its own seed.

    As it was published weights of sines start within sqrt(6 / inputs) / omega_0, of the first layer within 1 / inputs,
    biases as the weights beside them, and what a sine is taken of is omega_0 times its sum; here that factor is part of
    weights and biases.
    """
    layers, kinds = architecture.layers, [ACTIVATIONS[name] for name in architecture.activations]
    drawn: list[list[Tensor]] = []
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)

        def draw(*shape: int, bound: float, source: torch.Generator = source) -> Tensor:
            return (torch.rand(*shape, generator=source) * 2 - 1) * bound

        if published:
            sizes = [inputs, *(layer.width for layer in layers)]
            bounds = [math.sqrt(6 / max(1, n)) for n in sizes]
            if kinds[0].integer.wraps:
                bounds[0] = omega_0 / max(1, inputs)
            if kinds[-1].integer.wraps:
                bounds[-1] /= omega_0
            shapes = [*itertools.pairwise(sizes), (sizes[-1], outputs)]
            weights = [draw(a, b, bound=bound) for (a, b), bound in zip(shapes, bounds, strict=True)]
            biases = [draw(1, b, bound=bound) for (_, b), bound in zip(shapes, bounds, strict=True)]
            drawn.append([*weights, *biases])
            continue
        weights = [draw(inputs, layers[0].width, bound=kinds[0].first(omega_0, inputs))]
        weights += [draw(a.width, b.width, bound=math.sqrt(6 / a.width)) for a, b in itertools.pairwise(layers)]
        weights += [draw(layers[-1].width, outputs, bound=math.sqrt(6 / layers[-1].width) / 3)]
        biases = [draw(1, layer.width, bound=kind.bias) for layer, kind in zip(layers, kinds, strict=True)]
        drawn.append([*weights, *biases, torch.zeros(1, outputs)])
    stacked = [torch.stack(t).to(device) for t in zip(*drawn, strict=True)]
    half = len(layers) + 1
    return Networks(stacked[:half], stacked[half:], architecture.activations)


def join(parts: Sequence[Networks]) -> Networks:
    """Return all networks of several batches of one architecture in one batch."""
    return parts[0].map([torch.cat(t) for t in zip(*(p.tensors for p in parts), strict=True)])
