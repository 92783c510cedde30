"""Activations as they are fitted: for each entry of `layers.ACTIVATIONS`, its float function, start and units.

Sitzmann et al., arXiv:2006.09661 for the sine: first-layer frequencies uniform in +-omega_0 per unit of coordinate,
later weights uniform in +-sqrt(6 / width), phases anywhere in a turn. The others begin after He et al.,
arXiv:1502.01852. Outputs of a layer that does not wrap are clamped while it is fitted, as they will be in integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrstore.chunk.inr import layers

TOP = 8.0
"""Real output that an output of 1023 stands for, where activations have no bound of their own."""


@dataclass(frozen=True)
class Activation:
    """How a layer is fitted.

    Parameters
    ----------
    integer : layers.Activation
        The entry of the decoder's table.
    forward : callable
        Real sums -> real outputs.
    top : float
        Real output that an integer output of 1023 stands for.
    turn : float
        Real sum that z = 2^32 stands for.
    first : callable
        omega_0 and number of inputs -> bound of the first layer's weights, which start uniform within it.
    bias : float
        The same of biases.
    first_rate : callable
        omega_0 -> learning rate of the first layer's weights, relative to later ones.
    """

    integer: layers.Activation
    forward: Callable[[Tensor], Tensor]
    top: float
    turn: float
    first: Callable[[float, int], float]
    bias: float
    first_rate: Callable[[float], float]


def _in_units(integer: layers.Activation, low: float) -> Activation:
    """Return an activation that counts in units of z, clamped to low..TOP."""
    return Activation(
        integer, lambda sums: sums.clamp(low, TOP), TOP, 2.0 ** (32 - layers.UNIT_BITS) * TOP / layers.AMPLITUDE,
        lambda omega_0, inputs: math.sqrt(6 / max(1, inputs)), 1.0, lambda omega_0: 1.0,
    )  # fmt: skip


ACTIVATIONS = {
    "linear": _in_units(layers.LINEAR, -TOP),
    "sine": Activation(
        layers.SINE, torch.sin, 1.0, 2 * math.pi, lambda omega_0, inputs: omega_0, math.pi,
        lambda omega_0: omega_0 * 1.5,
    ),
    "relu": _in_units(layers.RELU, 0.0),
    "tanh": Activation(
        layers.TANH, torch.tanh, 1.0, 8.0, lambda omega_0, inputs: math.sqrt(6 / max(1, inputs)), 1.0,
        lambda omega_0: 1.0,
    ),
}  # fmt: skip
"""By name, as in `layers.BY_NAME`."""
