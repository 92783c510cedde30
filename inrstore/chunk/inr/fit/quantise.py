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
from inrstore.chunk.inr import exact, siren
from inrstore.chunk.inr.fit.data import Batch, Measurements, length_unit
from inrstore.chunk.inr.fit.networks import Networks
from inrstore.chunk.inr.fit.trainer import distortion

_TURN = 2 * math.pi
_PHASE = 2.0**32


def groups(networks: Networks) -> list[list[Tensor]]:
    """Return the tensors that share a step and a table: each sine layer, all phase biases, the read-out."""
    sine = networks.weights[:-1]
    return [*([w] for w in sine), networks.biases[:-1], [networks.weights[-1]]]


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
        biases = [_round(b, steps[:, layers]) for b in networks.biases[:-1]]
        readout = _round(networks.weights[-1], steps[:, layers + 1])
        return Networks([*weights, readout], [*biases, networks.biases[-1]])


def _round(value: Tensor, step: Tensor) -> Tensor:
    rounded = torch.round(value / step).clamp(-limits.MAX_SYMBOL, limits.MAX_SYMBOL) * step
    return value + (rounded - value).detach()


@torch.no_grad()
def finest_steps(networks: Networks) -> Tensor:
    """Return the steps, (nets, groups), under which the largest weight would not fit a symbol; a tenth to grow."""
    largest = [torch.stack([t.abs().amax((1, 2)) for t in group]).amax(0) for group in groups(networks)]
    return torch.stack(largest, 1) / (0.9 * limits.MAX_SYMBOL)


@torch.no_grad()
def equal_slope_steps(batch: Batch, networks: Networks, fraction: Tensor) -> Tensor:
    """Return steps, (nets, groups), that together raise the distortion by about one target's worth.

    Each group of each network is disturbed by uniform noise until the distortion visibly rises; the rise gives
    its sensitivity.
    """
    floor = distortion(batch, networks, fraction)
    source = torch.Generator().manual_seed(3)
    sensitivities = []
    for index, group in enumerate(groups(networks)):
        size = sum(t[0].numel() for t in group)
        spread = (sum(t.square().sum((1, 2)) for t in group) / size).sqrt()  # type: ignore[union-attr]
        sensitivity = torch.full_like(floor, math.nan)
        for factor in (0.005, 0.01, 0.02, 0.04, 0.08, 0.16):
            step = spread * factor
            noisy = networks.clone()
            for tensor in groups(noisy)[index]:
                noise = torch.rand(tensor.shape[1:], generator=source).to(tensor.device) - 0.5
                tensor.add_(noise * step.view(-1, 1, 1))
            rise = (distortion(batch, noisy, fraction) - floor).clamp(min=1e-9)
            fresh = sensitivity.isnan() & ((rise > 0.03) | (factor == 0.16))
            sensitivity = torch.where(fresh, rise / (size * step.double().square()), sensitivity)
        sensitivities.append(sensitivity)
    parameters = sum(t[0].numel() for g in groups(networks) for t in g)
    return (torch.stack(sensitivities, 1) * parameters).rsqrt().float()


def estimated_bits(networks: Networks, steps: Tensor) -> Tensor:
    """Return the entropy in bits of each rounded network, every group with a table of its own, (nets,)."""
    total = torch.zeros(steps.shape[0], dtype=torch.float64)
    for i, group in enumerate(groups(networks)):
        for net in range(steps.shape[0]):
            step = steps[net, i]
            symbols = torch.cat([torch.round(t[net].detach() / step).flatten() for t in group])
            _, counts = torch.unique(symbols, return_counts=True)
            share = counts.double() / counts.sum()
            total[net] -= float((share.log2() * counts).sum())
    return total


# ---- into the format ---------------------------------------------------------------------------------------


def to_format(item: Measurements, networks: Networks, net: int, steps: npt.NDArray[np.float64]) -> siren.Network | None:
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
    core, layers = item.problem.core, len(networks.weights) - 1
    matrices = [w[net].detach().double().cpu().numpy().T for w in networks.weights]
    phases = np.concatenate([b[net].detach().double().cpu().numpy() for b in networks.biases[:-1]])
    added = networks.biases[-1][net, 0].detach().double().cpu().numpy()
    biases = np.remainder(phases + math.pi, _TURN) - math.pi

    units = [_TURN * length_unit(item.extents)] + [_TURN * exact.AMPLITUDE] * (layers - 1) + [_TURN]
    multipliers = [round(float(s) / u * _PHASE) for s, u in zip(steps, units, strict=False)]
    if not all(0 < m < _PHASE for m in multipliers):
        return None
    integers = [_symbols(m, s) for m, s in zip([*matrices[:-1], biases, matrices[-1]], steps, strict=True)]

    exponent = _exponent(item)
    if exponent is None:
        return None
    grain = 2.0**exponent
    gain = steps[-1] / exact.AMPLITUDE * item.unit / grain
    shared = np.ptp(gain) <= 1e-9 * gain.max()
    gain = gain[:1] if shared else gain
    shift = min(siren.MAX_SHIFT, math.floor(26.9 - math.log2(gain.max())))
    if shift < 4:
        return None
    codes = np.array([siren.pack_gain(g * 2.0**shift) for g in gain])
    offsets = np.rint((item.mean + added * item.unit) / grain * 16).astype(np.int64)
    low, high = math.ceil(core.min() / grain), math.floor(core.max() / grain)
    most = 2**31 - 1
    if max(abs(low), abs(high), int(np.abs(offsets).max())) > most or low > high:
        return None
    weights, quantised_biases, readout = integers[:layers], integers[layers], integers[-1]
    if any(np.abs(m).sum(1).max() * exact.AMPLITUDE >= limits.EXACT_FLOAT32 for m in (*weights[1:], readout)):
        return None
    return siren.Network(
        channel_axis=item.problem.channel_axis, weights=weights, biases=quantised_biases, multipliers=multipliers,
        readout=readout, gains=siren.unpack_gain(codes), offsets=offsets, shift=shift, exponent=exponent,
        low=low, high=high,
    )  # fmt: skip


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
