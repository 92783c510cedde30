"""Float networks -> integers: equal-slope step sizes, quantisation-aware passes, and the network of the format.

Steps follow from reverse water-filling: with sensitivity S (rise of the distortion for one unit of squared
error in one weight), bits are spent best when every group of weights has a step proportional to S^(-1/2).
The straight-through estimator is that of Bengio et al., arXiv:1308.3432.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inrstore import limits
from inrstore.chunk.inr import layers, siren
from inrstore.chunk.inr.fit.activations import ACTIVATIONS, Activation
from inrstore.chunk.inr.fit.data import Batch, Measurements, length_unit
from inrstore.chunk.inr.fit.networks import Networks
from inrstore.chunk.inr.fit.trainer import distortion
from inrstore.chunk.inr.network import MAX_SHIFT, MIN_SHIFT, Coordinates, Network, pack_gain, unpack_gain
from inrstore.errors import LimitExceededError

_WHOLE = 2.0**32
_BIAS_TURN = 2 * math.pi
"""Steps of biases are said for layers of this turn; those of others are in proportion, so that z has one step."""


def groups(networks: Networks) -> list[list[Tensor]]:
    """Return the tensors that share a step and a table: each hidden layer, all biases, the read-out."""
    return [*([w] for w in networks.weights[:-1]), networks.biases[:-1], [networks.weights[-1]]]


def _kinds(networks: Networks) -> list[Activation]:
    return [ACTIVATIONS[name] for name in networks.activations]


def _proportions(networks: Networks) -> list[list[float]]:
    """Return what a group's step is multiplied by for each of its tensors, in the order of `groups`."""
    biases = [kind.turn / _BIAS_TURN for kind in _kinds(networks)]
    return [[1.0] for _ in biases] + [biases, [1.0]]


class Quantiser:
    """Rounds parameters to steps, letting gradients through; the read-out's bias stays as it is.

    Parameters
    ----------
    base : Tensor, shape (nets, groups)
        Steps at coarseness 1.
    coarseness : Tensor, shape (nets,)
        The knob: every step of a network is multiplied by it.
    floor : Tensor, shape (nets, groups)
        No step is finer, see `finest_steps`.
    """

    def __init__(self, base: Tensor, coarseness: Tensor, floor: Tensor) -> None:
        self.base, self.coarseness, self.floor = base, coarseness, floor

    @property
    def steps(self) -> Tensor:
        """Steps in force, (nets, groups)."""
        return torch.maximum(self.base * self.coarseness[:, None], self.floor)

    def __call__(self, networks: Networks) -> Networks:
        """Return the rounded networks."""
        layers = len(networks.weights) - 1
        steps = self.steps.view(self.base.shape[0], self.base.shape[1], 1, 1)
        weights = [_round(w, steps[:, i]) for i, w in enumerate(networks.weights[:-1])]
        parts = _proportions(networks)[layers]
        biases = [_round(b, steps[:, layers] * part) for b, part in zip(networks.biases[:-1], parts, strict=True)]
        readout = _round(networks.weights[-1], steps[:, layers + 1])
        return networks.map([*weights, readout, *biases, networks.biases[-1]])


def _round(value: Tensor, step: Tensor) -> Tensor:
    rounded = torch.round(value / step).clamp(-limits.MAX_SYMBOL, limits.MAX_SYMBOL) * step
    return value + (rounded - value).detach()


@torch.no_grad()
def finest_steps(networks: Networks) -> Tensor:
    """Return the steps, (nets, groups), under which the largest weight would not fit a symbol, a tenth to grow.

    Nor would the products of a layer behind another stay exact in float32.
    """
    largest = [torch.stack([t.abs().amax((1, 2)) / part for t, part in zip(group, parts, strict=True)]).amax(0)
               for group, parts in zip(groups(networks), _proportions(networks), strict=True)]  # fmt: skip
    floor = torch.stack(largest, 1) / (0.9 * limits.MAX_SYMBOL)
    behind = [*range(1, len(networks.weights) - 1), -1]
    for group, weights in zip(behind, [networks.weights[i] for i in behind], strict=True):
        rows = weights.abs().sum(1).amax(1) * layers.AMPLITUDE / (0.9 * limits.EXACT_FLOAT32)
        floor[:, group] = torch.maximum(floor[:, group], rows)
    return floor


@torch.no_grad()
def equal_slope_steps(batch: Batch, networks: Networks, fraction: Tensor) -> Tensor:
    """Return steps, (nets, groups), that together raise the distortion by about one target's worth.

    Each group of each network is disturbed by uniform noise until the distortion visibly rises; the rise gives
    its sensitivity.
    """
    floor = distortion(batch, networks, fraction)
    sensitivities, proportions = [], _proportions(networks)
    for index, group in enumerate(groups(networks)):
        size, parts = sum(t[0].numel() for t in group), proportions[index]
        squares = sum((t / part).square().sum((1, 2)) for t, part in zip(group, parts, strict=True))
        spread = (squares / size).sqrt()  # type: ignore[union-attr]
        sensitivity = torch.full_like(floor, math.nan)
        for attempt, factor in enumerate((0.005, 0.01, 0.02, 0.04, 0.08, 0.16)):
            source = torch.Generator().manual_seed(1000 * index + attempt)  # whatever the others needed
            step = spread * factor
            noisy = networks.clone()
            for tensor, part in zip(groups(noisy)[index], parts, strict=True):
                noise = torch.rand(tensor.shape[1:], generator=source).to(tensor.device) - 0.5
                tensor.add_(noise * step.view(-1, 1, 1) * part)
            rise = (distortion(batch, noisy, fraction) - floor).clamp(min=1e-9)
            fresh = sensitivity.isnan() & ((rise > 0.03) | (factor == 0.16))
            sensitivity = torch.where(fresh, rise / (size * step.double().square()), sensitivity)
            if not sensitivity.isnan().any():
                break
        sensitivities.append(sensitivity)
    parameters = sum(t[0].numel() for g in groups(networks) for t in g)
    return (torch.stack(sensitivities, 1) * parameters).rsqrt().float()


def estimated_bits(networks: Networks, steps: Tensor) -> Tensor:
    """Return the entropy in bits of each rounded network, every group with a table of its own, (nets,)."""
    total = torch.zeros(steps.shape[0], dtype=torch.float64)
    for i, (group, parts) in enumerate(zip(groups(networks), _proportions(networks), strict=True)):
        for net in range(steps.shape[0]):
            step = steps[net, i]
            symbols = torch.cat([torch.round(t[net].detach() / (step * part)).flatten()
                                 for t, part in zip(group, parts, strict=True)])  # fmt: skip
            _, counts = torch.unique(symbols, return_counts=True)
            share = counts.double() / counts.sum()
            total[net] -= float((share.log2() * counts).sum())
    return total


# ---- into the format ---------------------------------------------------------------------------------------


def to_format(item: Measurements, networks: Networks, net: int, steps: npt.NDArray[np.float64]) -> siren.Siren | None:
    """Return the integer network of one rounded net, or None when its numbers do not fit the format.

    Parameters
    ----------
    item : Measurements
        The chunk it was fitted to.
    networks : Networks
        Free (not yet rounded) parameters.
    net : int
        Which one.
    steps : ndarray of float64, shape (groups,)
    """
    core, kinds = item.problem.core, _kinds(networks)
    hidden = _hidden(networks, net, steps, 1 / length_unit(item.extents))
    if hidden is None:
        return None
    exponent = _exponent(item)
    if exponent is None:
        return None
    grain = 2.0**exponent
    gain = steps[-1] * kinds[-1].top / layers.AMPLITUDE * item.unit / grain
    shared = np.ptp(gain) <= 1e-9 * gain.max()
    gain = gain[:1] if shared else gain
    added = networks.biases[-1][net, 0].detach().double().cpu().numpy()
    offsets = np.rint((item.mean + added * item.unit) / grain * 16).astype(np.int64)
    largest = int(np.abs(offsets).max())
    exact = 4 + (limits.EXACT_SUM - 1).bit_length() - largest.bit_length()  # offsets stay exact in float64
    shift = min(MAX_SHIFT, math.floor(26.9 - math.log2(gain.max())), exact)
    if shift < MIN_SHIFT:
        return None
    codes = np.array([pack_gain(g * 2.0**shift) for g in gain])
    low, high = math.ceil(core.min() / grain), math.floor(core.max() / grain)
    most = 2**31 - 1
    if max(abs(low), abs(high), largest) > most or low > high:
        return None
    readout = _symbols(_matrix(networks, -1, net), steps[-1])
    network = Network(Coordinates(len(item.extents)), hidden, round(float(steps[-2]) / _BIAS_TURN * _WHOLE), readout,
                      unpack_gain(codes), offsets, shift)  # fmt: skip
    try:
        network.check()
        network.check_reach([n - 1 for n in item.extents])
    except LimitExceededError:
        return None
    return siren.Siren(item.problem.channel_axis, network, exponent, low, high)


def _hidden(
    networks: Networks, net: int, steps: npt.NDArray[np.float64], unit: float
) -> tuple[layers.Layer, ...] | None:
    """Return the integers of the hidden layers; an input of 1 is `unit` in the real network."""
    out = []
    for i, kind in enumerate(_kinds(networks)):
        multiplier = round(float(steps[i]) * unit / kind.turn * _WHOLE)
        if not 0 < multiplier < _WHOLE:
            return None
        biases = networks.biases[i][net, 0].detach().double().cpu().numpy()
        if kind.integer.wraps:
            biases = np.remainder(biases + kind.turn / 2, kind.turn) - kind.turn / 2
        out.append(layers.Layer(
            kind.integer, _symbols(_matrix(networks, i, net), steps[i]),
            _symbols(biases, steps[-2] * kind.turn / _BIAS_TURN), multiplier,
        ))  # fmt: skip
        unit = kind.top / layers.AMPLITUDE
    return tuple(out) if 0 < round(float(steps[-2]) / _BIAS_TURN * _WHOLE) < _WHOLE else None


def _matrix(networks: Networks, index: int, net: int) -> npt.NDArray[np.float64]:
    """Return a layer's weights, (out, in)."""
    matrix: npt.NDArray[np.float64] = networks.weights[index][net].detach().double().cpu().numpy().T
    return matrix


def _symbols(values: npt.NDArray[np.float64], step: np.float64) -> npt.NDArray[np.int64]:
    return np.clip(np.rint(values / step), -limits.MAX_SYMBOL, limits.MAX_SYMBOL).astype(np.int64)


def _exponent(item: Measurements) -> int | None:
    """Return the power of two in which outputs are counted: fine against the target, within 27 bits."""
    core = item.problem.core
    most = max(abs(float(core.min())), abs(float(core.max())), float(np.abs(item.mean).max()), 1e-300)
    assert item.problem.target.rmse is not None
    fine = item.problem.target.rmse * float(item.problem.scale.min()) / 64
    exponent = max(math.floor(math.log2(fine)), math.ceil(math.log2(most)) - 26)
    if core.dtype.kind in "iu":
        exponent = max(0, math.ceil(math.log2(most)) - 26)
    return exponent if 2.0**exponent <= max(fine * 8, 1.0 if core.dtype.kind in "iu" else 0.0) else None
