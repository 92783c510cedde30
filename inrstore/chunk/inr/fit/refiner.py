"""Refining networks in torch: floats, the same rounded as readers do, and the integers (specification section 17).

Real outputs of 1 are 128 of a layer, so that they are clamped near 8. Rounding lets gradients through, as in
`quantise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inrstore import limits
from inrstore.chunk.inr import layers
from inrstore.chunk.superres.network import COORDINATES, Convolution, Dense, Lengths, Operator, Plan, Refiner

UNIT = 128
"""An output of 1."""
NORM = 256
"""One standard deviation of keys and values."""
_TOP = layers.AMPLITUDE / UNIT
_BIAS_MULTIPLIER = 1 << 23
"""Biases have steps of half an output."""
_COARSENESS = 7.0
"""Root mean square of the integer weights of a layer: some five bits each."""
_PLACE = 1 << 10


class RefinerModel:
    """A refining network that is fitted.

    Parameters
    ----------
    plan : Dense or Operator
    reach, scales : tuple of int
        As in `Refiner`.
    seed : int
    device : torch.device
    """

    def __init__(self, plan: Plan, reach: Lengths, scales: Lengths, seed: int, device: torch.device) -> None:
        self.plan, self.reach, self.scales = plan, reach, scales
        self.shapes = list(plan.convolutions(max(scales)))
        source = torch.Generator().manual_seed(seed)
        self.weights = [self._drawn(one, source).to(device).requires_grad_() for one in self.shapes]
        self.biases = [torch.zeros(one.outputs, device=device, requires_grad=True) for one in self.shapes[:-1]]
        self.steps: list[Tensor] | None = None
        """Of the weights of each layer, once they are rounded."""

    @classmethod
    def of(cls, refiner: Refiner, gain: float, device: torch.device) -> RefinerModel:
        """Return a model of integers that stay as they are; `gain` is the real output for a product-sum."""
        model = cls(refiner.plan, refiner.reach, refiner.scales, 0, device)
        steps = [layer.multiplier / 2.0**layers.UNIT_BITS for layer in refiner.layers] + [gain * UNIT]
        matrices = [*(layer.weights for layer in refiner.layers), refiner.readout]
        with torch.no_grad():
            for weight, matrix, step in zip(model.weights, matrices, steps, strict=True):
                kernel = weight.shape[2:]
                whole = torch.from_numpy(matrix.astype(np.float32)).reshape(len(matrix), *kernel, -1)
                weight.copy_(whole.movedim(-1, 1) * step)
            for bias, layer in zip(model.biases, refiner.layers, strict=True):
                scale = refiner.bias_multiplier / 2.0**layers.UNIT_BITS / UNIT
                bias.copy_(torch.from_numpy(layer.biases.astype(np.float32)) * scale)
        model.steps = [torch.tensor(step, device=device) for step in steps]
        for tensor in model.tensors:
            tensor.requires_grad_(False)
        return model

    @property
    def tensors(self) -> list[Tensor]:
        """All parameters."""
        return [*self.weights, *self.biases]

    @property
    def halo(self) -> int:
        """Coarse positions at the edge of a patch whose refinement knows too little of what lies beyond."""
        return min(4, self.plan.layers)

    def round(self) -> None:
        """Choose the steps of weights; from now on all is rounded."""
        with torch.no_grad():
            self.steps = [
                torch.maximum(w.square().mean().sqrt() / _COARSENESS, w.abs().max() / (0.9 * limits.MAX_SYMBOL))
                for w in self.weights
            ]

    def __call__(self, coarse: Tensor, places: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return images and refinements on the fine grid, (patches, slices, rows, columns).

        Parameters
        ----------
        coarse : Tensor, shape (patches, slices, rows, columns)
            No mean, a deviation of about 1.
        places : sequence of Tensor
            What `place` gives for the fine lengths of the patches.
        """
        factors = tuple(float(1 << e) for e in self.scales)
        image = functional.interpolate(coarse[:, None], scale_factor=factors, mode="trilinear")
        inputs = self._output(coarse[:, None], -_TOP)
        if isinstance(self.plan, Dense):
            return image[:, 0], self._dense(self.plan, inputs)
        return image[:, 0], self._operator(self.plan, inputs, image, places)

    # ---- SRDenseNet ----------------------------------------------------------------------------------------

    def _dense(self, plan: Dense, x: Tensor) -> Tensor:
        apart = self.reach[0] == 0 and self.scales[0] == 0
        patches = len(x)
        if apart:  # slices are images of their own: convolutions in two dimensions are much faster
            x = x.transpose(1, 2).flatten(0, 1)[:, :, None]
        maps, number = [self._layer(0, x)], 1
        for _ in range(plan.blocks):
            first = len(maps)
            for layer in range(plan.layers):
                seen = maps[first:] if layer else maps[:first]
                maps.append(self._layer(number, torch.cat(seen, 1) if len(seen) > 1 else seen[0]))
                number += 1
        x = self._layer(number, torch.cat(maps, 1))
        for doubling in range(max(self.scales)):
            for axis, e in enumerate(self.scales, 2):
                if doubling < e:
                    x = torch.stack([x, torch.zeros_like(x)], axis + 1).flatten(axis, axis + 1)
            x = self._layer(number + doubling + 1, x)
        x = self._sums(len(self.shapes) - 1, x)[:, 0]
        return x[:, 0].reshape(patches, -1, *x.shape[2:]) if apart else x

    # ---- SRNO ----------------------------------------------------------------------------------------------

    def _operator(self, plan: Operator, x: Tensor, image: Tensor, places: Sequence[Tensor]) -> Tensor:
        for number in range(plan.layers):
            x = self._layer(number, x)
        factors = tuple(float(1 << e) for e in self.scales)
        x = self._output(functional.interpolate(x, scale_factor=factors, mode="trilinear"), -_TOP)
        shape = image.shape[2:]
        along = [p.reshape([-1 if a == axis else 1 for a in range(3)]).expand(shape) for axis, p in enumerate(places)]
        around = torch.stack(along)[None].expand(len(x), -1, -1, -1, -1)
        inputs = torch.cat([x, self._output(image, -_TOP), around], 1).flatten(2)
        hidden, number = self._at(plan.layers, inputs), plan.layers + 1
        for _ in range(plan.attentions):
            split = self._at(number, hidden)
            split = split.reshape(len(split), 3, plan.heads, -1, split.shape[2])  # patches, 3, heads, units, points
            queries, keys, values = split[:, 0], self._normalised(split[:, 1]), self._normalised(split[:, 2])
            points = keys.shape[0] * keys.shape[3]
            kernel = torch.einsum("nhip,nhjp->hij", keys, values) / points  # over all patches: they are of one image
            if self.steps is not None:
                kernel = _rounded(kernel, 1.0 / _PLACE)
            seen = torch.einsum("nhip,hij->nhjp", queries, kernel).flatten(1, 2)
            seen = self._output(seen + hidden, -_TOP)
            hidden = self._output(hidden + self._at(number + 2, self._at(number + 1, seen)), -_TOP)
            number += 3
        hidden = self._at(number, hidden)
        weight = self._weight(number + 1)
        sums: Tensor = weight.flatten(1) @ hidden
        return sums.reshape(len(sums), *shape)

    def _normalised(self, units: Tensor) -> Tensor:
        apart = units - units.mean(2, keepdim=True)
        out = apart / (apart.square().mean(2, keepdim=True) + 1e-5).sqrt()
        return out if self.steps is None else _rounded(out, 1.0 / NORM)

    # ---- layers --------------------------------------------------------------------------------------------

    def _layer(self, number: int, x: Tensor) -> Tensor:
        x = self._sums(number, x, self._bias(number))
        return self._output(x, self._low(number))

    def _sums(self, number: int, x: Tensor, bias: Tensor | None = None) -> Tensor:
        weight = self._weight(number)
        if x.shape[2] == 1 and weight.shape[2] == 1:
            padding = [k // 2 for k in weight.shape[3:]]
            return functional.conv2d(x[:, :, 0], weight[:, :, 0], bias, padding=padding)[:, :, None]
        return functional.conv3d(x, weight, bias, padding=[k // 2 for k in weight.shape[2:]])

    def _at(self, number: int, x: Tensor) -> Tensor:
        """Return the outputs (patches, outputs, points) of a layer at positions."""
        x = self._weight(number).flatten(1) @ x + self._bias(number)[:, None]
        return self._output(x, self._low(number))

    def _low(self, number: int) -> float:
        return 0.0 if self.shapes[number].activation is layers.RELU else -_TOP

    def _output(self, x: Tensor, low: float) -> Tensor:
        x = x.clamp(low, _TOP)
        return x if self.steps is None else _rounded(x, 1.0 / UNIT)

    def _weight(self, number: int) -> Tensor:
        weight = self.weights[number]
        return weight if self.steps is None else _rounded(weight, self.steps[number], limits.MAX_SYMBOL)

    def _bias(self, number: int) -> Tensor:
        bias = self.biases[number]
        return bias if self.steps is None else _rounded(bias, _BIAS_STEP, limits.MAX_SYMBOL)

    def _drawn(self, one: Convolution, source: torch.Generator) -> Tensor:
        kernel = [1 + 2 * r if one.wide else 1 for r in self.reach]
        fan = one.inputs * math.prod(kernel)
        if one.doublings:  # zeros between positions
            fan = max(1, fan // 2 ** sum(e >= one.doublings for e in self.scales))
        spread = math.sqrt((2 if one.activation is layers.RELU else 1) / fan)
        if one.activation is None:
            spread *= 0.1
        weight = torch.randn(one.outputs, one.inputs, *kernel, generator=source) * spread
        if isinstance(self.plan, Operator) and one.doublings is None and one.inputs == self.plan.channels + COORDINATES:
            weight[:, -3:] *= UNIT / _PLACE * 2  # places are large
        return weight

    # ---- into the format -----------------------------------------------------------------------------------

    @torch.no_grad()
    def refiner(self) -> Refiner:
        """Return the integers; rows whose sums could be inexact lose some of their weight."""
        if self.steps is None:
            self.round()
        assert self.steps is not None
        matrices, most = [], (limits.EXACT_FLOAT32 - 1) // layers.AMPLITUDE
        for weight, step in zip(self.weights, self.steps, strict=True):
            whole = (weight / step).round().clamp(-limits.MAX_SYMBOL, limits.MAX_SYMBOL)
            matrix = whole.movedim(1, -1).flatten(1).cpu().numpy().astype(np.int64)
            share = np.minimum(1, most / np.maximum(1, np.abs(matrix).sum(1)))
            matrices.append(np.trunc(matrix * share[:, None]).astype(np.int64))
        made = []
        for one, matrix, bias, step in zip(self.shapes[:-1], matrices[:-1], self.biases, self.steps[:-1], strict=True):
            assert one.activation is not None
            symbols = (bias / _BIAS_STEP).round().clamp(-limits.MAX_SYMBOL, limits.MAX_SYMBOL)
            multiplier = min(max(1, round(float(step) * 2.0**layers.UNIT_BITS)), (1 << 32) - 1)
            made.append(layers.Layer(one.activation, matrix, symbols.cpu().numpy().astype(np.int64), multiplier))
        out = Refiner(self.plan, self.reach, self.scales, tuple(made), _BIAS_MULTIPLIER, matrices[-1])
        out.check()
        return out


_BIAS_STEP = _BIAS_MULTIPLIER / 2.0**layers.UNIT_BITS / UNIT


def place(length: int, exponent: int, device: torch.device) -> Tensor:
    """Return where fine positions along an axis lie in their coarse cells, as inputs are counted."""
    scale = 1 << exponent
    inside = 2 * (torch.arange(length, device=device) % scale) + 1 - scale
    return inside.float() * (_PLACE >> exponent) / UNIT


def _rounded(value: Tensor, step: Tensor | float, most: float = math.inf) -> Tensor:
    """Round to a step, with the gradient of what is not rounded."""
    rounded = torch.round(value / step).clamp(-most, most) * step
    return value + (rounded - value).detach()
