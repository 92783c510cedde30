"""Images -> integer neighbourhood networks (specification section 13): float first, then with rounding in the loop.

The loss is that of Nagoor et al., "Lossless compression for volumetric medical images using deep neural network with
local sampling" (2020): mean absolute error + lambda (1 - |Pearson correlation|). Needs numpy and torch alone.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inrstore import limits
from inrstore.chunk.neural.neighbourhood import CENTRE, Neighbourhood, Volume
from inrstore.chunk.neural.network import AMPLITUDE, MAX_SHIFT, UNIT, Network
from inrstore.chunk.neural.scale import LEVELS, gain_of
from inrstore.errors import ConfigurationError

_SMALL = Neighbourhood((2, 2, 2))
_ALONE = 0.15
"""Share of the steps in which the mean absolute error is the only loss."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What network to train, and how.

    Parameters
    ----------
    neighbourhood : Neighbourhood
    widths : tuple of int
        Units of the hidden layers.
    local : bool
        Inputs are differences from the mean of near neighbours; otherwise the image's range becomes -1..1.
    steps, batch : int
        Optimiser steps, and values in each.
    rate : float
        Peak learning rate of Adam.
    correlation : float
        Lambda of the joint loss.
    relative : bool
        Errors are divided by how much the near neighbours differ: nearer to code length.
    leak, clip : int
        As in `Network`.
    coarseness : tuple of float
        Root mean square of the integer weights, at most, of the first layer and of the others.
    seed : int
    """

    neighbourhood: Neighbourhood = _SMALL
    widths: tuple[int, ...] = (32, 32)
    local: bool = True
    steps: int = 3000
    batch: int = 4096
    rate: float = 2e-3
    correlation: float = 1.0
    relative: bool = False
    leak: int = 3
    clip: int = 2047
    coarseness: tuple[float, float] = (10.0, 6.0)
    seed: int = 0


class _Samples:
    """Values of images with their neighbourhoods, drawn at random."""

    def __init__(self, images: Sequence[npt.NDArray[Any]], plan: Plan, device: torch.device) -> None:
        self._plan, self._device = plan, device
        self._random = torch.Generator(device=device).manual_seed(plan.seed)
        self._images = []
        for image in images:
            volume = Volume(image.shape, plan.neighbourhood)
            gain, offset = gain_of(image, plan.local, plan.clip)
            flat = torch.from_numpy(volume.padded(image).reshape(-1).astype(np.float32)).to(device)
            shifts = [torch.from_numpy(volume.shifts(o)).to(device) for o in (plan.neighbourhood.offsets, CENTRE)]
            self._images.append((volume, flat, shifts, gain / UNIT, offset))
        share = np.array([image.size for image in images], np.float64)
        self._choice, self._share = np.random.default_rng(plan.seed), share / share.sum()

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs (count, K), what they are to give, and how much near neighbours differ."""
        which = int(self._choice.choice(len(self._images), p=self._share))
        volume, flat, (shifts, near_shifts), gain, offset = self._images[which]
        pick = torch.randint(volume.values, (count,), generator=self._random, device=self._device)
        _, lz, ly, lx = volume.lengths
        _, pz, py, px = volume.shape
        before, beside = volume.pads
        rest, x = pick // lx, pick % lx
        rest, y = rest // ly, rest % ly
        m, z = rest // lz, rest % lz
        places = ((m * pz + z + before) * py + y + beside) * px + x + beside
        near = flat[places[:, None] + near_shifts]
        mean = torch.floor(near.mean(1))
        centre = mean if self._plan.local else torch.full_like(mean, offset)
        wanted = (flat[places] - centre) * gain
        inputs = (flat[places[:, None] + shifts] - centre[:, None]) * gain
        inputs = torch.floor(inputs).clamp_(-self._plan.clip, self._plan.clip)
        return inputs, wanted, (near - mean[:, None]).abs().mean(1) * gain


def joint_loss(found: Tensor, wanted: Tensor, weights: Tensor | None, correlation: float) -> Tensor:
    """Return MAE + lambda (1 - |PCC|); with weights, of the weighted errors."""
    error = (found - wanted).abs()
    mae = error.mean() if weights is None else (error * weights).mean()
    if not correlation:
        return mae
    one, other = found - found.mean(), wanted - wanted.mean()
    pcc = (one * other).mean() / (one.square().mean() * other.square().mean() + 1e-12).sqrt()
    return mae + correlation * (1 - pcc.abs())


class _Model:
    """Float parameters, and what makes integers of them."""

    def __init__(self, plan: Plan, device: torch.device, scale_in: float, scale_out: float) -> None:
        self._plan = plan
        self._scales = [scale_in, scale_out]
        random = torch.Generator().manual_seed(plan.seed)
        sizes = [len(plan.neighbourhood.offsets), *plan.widths, 1]
        self.weights, self.biases = [], []
        for number, (a, b) in enumerate(itertools.pairwise(sizes)):
            spread = math.sqrt(2 / a) * (0.1 if number + 2 == len(sizes) else 1.0)
            self.weights.append((torch.randn(b, a, generator=random) * spread).to(device).requires_grad_())
            self.biases.append(torch.zeros(b, device=device, requires_grad=True))
        self.factors: list[tuple[float, int]] | None = None
        """Of each layer: its units of activation, and its shift; known once it is rounded."""

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.weights, *self.biases]

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return outputs in units of the input."""
        return self._floats(inputs)[-1] if self.factors is None else self._rounded(inputs)

    def _floats(self, inputs: Tensor) -> list[Tensor]:
        out, x = [], inputs / self._scales[0]
        for number, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.nn.functional.linear(x, w, b)
            if number + 1 < len(self.weights):
                x = torch.maximum(x, x * 2.0**-self._plan.leak)
                out.append(x)
        return [*out, x[:, 0] * self._scales[1]]

    def calibrate(self, inputs: Tensor) -> None:
        """Choose the units of every layer, so that activations fill their range and weights are coarse enough."""
        with torch.no_grad():
            hidden = self._floats(inputs)[:-1]
            tops = [float(torch.quantile(h.abs().amax(1)[:65536], 0.999)) for h in hidden]
            units = [self._scales[0], *[AMPLITUDE / max(t, 1e-6) for t in tops], UNIT * self._scales[1]]
            self.factors = []
            for number, w in enumerate(self.weights):
                scaled = w * (units[number + 1] / units[number])
                most = float(self._plan.clip if number == 0 else AMPLITUDE)
                bound = 0.7 * limits.EXACT_FLOAT32 / (float(scaled.abs().sum(1).max()) * most + 1e-9)
                rms = self._plan.coarseness[min(number, 1)] / (float(scaled.square().mean().sqrt()) + 1e-9)
                peak = 800 / (float(scaled.abs().max()) + 1e-9)
                if number + 1 == len(self.weights):
                    rms = peak  # few weights, and the output is what counts
                shift = min(MAX_SHIFT, max(0, math.floor(math.log2(min(bound, rms, peak)))))
                if min(bound, peak) < 1:  # units of the next layer are too fine
                    units[number + 1] *= min(bound, peak)
                self.factors.append((units[number + 1], shift))

    def integers(self) -> list[tuple[Tensor, Tensor, int]]:
        """Return weights and biases, rounded with the gradient of what was rounded, and shifts."""
        assert self.factors is not None
        out, before = [], self._scales[0]
        for w, b, (unit, shift) in zip(self.weights, self.biases, self.factors, strict=True):
            whole = _straight(
                (w * (unit / before * 2.0**shift)).clamp(-limits.MAX_SYMBOL, limits.MAX_SYMBOL), torch.round
            )
            half = 2.0 ** (shift - 1) if shift else 0.0
            out.append((whole, _straight(b * (unit * 2.0**shift) + half, torch.round), shift))
            before = unit
        return out

    def _rounded(self, inputs: Tensor) -> Tensor:
        assert self.factors is not None
        x, layers = inputs, self.integers()
        for number, (w, b, shift) in enumerate(layers):
            x = _straight(torch.nn.functional.linear(x, w, b) * 2.0**-shift, torch.floor)
            if number + 1 < len(layers):
                x = torch.maximum(x, _straight(x * 2.0**-self._plan.leak, torch.floor)).clamp(-AMPLITUDE, AMPLITUDE)
        return x[:, 0] / UNIT

    def network(self) -> Network:
        """Return the integer network; rows whose sums could be inexact lose some of their weight."""
        weights, biases, shifts = [], [], []
        with torch.no_grad():
            for number, (w, b, shift) in enumerate(self.integers()):
                whole = w.cpu().numpy().astype(np.int64)
                bias = np.clip(b.cpu().numpy().astype(np.int64), -(1 << 23), 1 << 23)
                most = self._plan.clip if number == 0 else AMPLITUDE
                room = (limits.EXACT_FLOAT32 - 1 - np.abs(bias)) / most
                share = np.minimum(1, room / np.maximum(1, np.abs(whole).sum(1)))
                weights.append(np.trunc(whole * share[:, None]).astype(np.int64))
                biases.append(bias)
                shifts.append(shift)
        plan = self._plan
        made = Network(
            plan.neighbourhood, plan.local, plan.leak, plan.clip, tuple(shifts), tuple(weights), tuple(biases)
        )
        made.check()
        return made


def _straight(x: Tensor, how: Callable[[Tensor], Tensor]) -> Tensor:
    """Round, with the gradient of the identity."""
    return x + (how(x) - x).detach()


def train(images: Sequence[npt.NDArray[Any]], plan: Plan, device: str = "cpu", *, seconds: float | None = None,
          report: Callable[[int, float], None] | None = None) -> Network:  # fmt: skip
    """Fit a network to images and return its integers.

    Parameters
    ----------
    images : sequence of ndarray of int, shape (m, z, y, x)
        Values 0..65535, the least of each image being 0.
    plan : Plan
        The same images, plan and kind of device give the same network, unless `seconds` is given; on the CPU the
        same number of torch's threads, too.
    device : str
        For torch.
    seconds : float, optional
        Choose the number of steps so that it takes about this long.
    report : callable, optional
        Called with the step and the mean absolute error (in units of the input) now and then.

    Raises
    ------
    ConfigurationError
        CUDA is asked for, and there is none.
    """
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(f"device {device}: torch finds no GPU here")
    # Integers up to 2047 are exact in TF32, too, and the float phase does not need more.
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return _train(_Samples(images, plan, where), plan, where, seconds, report)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _train(samples: _Samples, plan: Plan, where: torch.device, seconds: float | None,
           report: Callable[[int, float], None] | None) -> Network:  # fmt: skip
    inputs, wanted, _ = samples.draw(16384)
    model = _Model(plan, where, float(inputs.square().mean().sqrt()) + 1e-3, float(wanted.abs().mean()) + 1e-3)
    scale = float(wanted.abs().mean()) + 1e-3
    optimiser = torch.optim.Adam(model.parameters, lr=plan.rate, betas=(0.9, 0.98), fused=where.type == "cuda")
    steps, started, step = plan.steps, time.perf_counter(), 0
    while step < steps:
        if seconds is not None and step == 300:
            if where.type == "cuda":
                torch.cuda.synchronize()
            # Steps that round take about 1.5 times as long.
            steps = max(900, int(300 * seconds / (time.perf_counter() - started) / 1.17))
        if model.factors is None and step >= 2 * steps // 3 and step > 300:
            model.calibrate(samples.draw(16384)[0])
        done = step / steps
        rate = plan.rate * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = rate
        inputs, wanted, around = samples.draw(plan.batch)
        weights = None
        if plan.relative:
            weights = 1 / (around + 0.25 * LEVELS)
            weights = weights / weights.mean()
        found = model(inputs)
        # At first outputs are small and of any sign, and |PCC| would be content with -1.
        correlation = plan.correlation if step >= _ALONE * steps else 0.0
        loss = joint_loss(found / scale, wanted / scale, weights, correlation)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
        optimiser.step()
        if report is not None and step % 500 == 0:
            report(step, float((found.detach() - wanted).abs().mean()))
        step += 1
    if model.factors is None:
        model.calibrate(samples.draw(16384)[0])
    return model.network()


def save(path: Any, network: Network) -> None:
    """Write the integers of a network as .npz; `network.data` is what stores carry."""
    np.savez_compressed(path, data=np.frombuffer(network.data, np.uint8))


class Exact:
    """The corrections of `inrstore.chunk.neural.network.Evaluator`, made by torch on any device, to the same bits.

    Every sum is one of integers below 2^24: float32 gives it exactly in any order, as long as TF32 is off.

    Parameters
    ----------
    device : str
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._held: tuple[npt.NDArray[np.uint16], Tensor] | None = None
        self._network: tuple[Network, list[tuple[Tensor, Tensor, float]]] | None = None

    def __call__(self, network: Network, gain: int, values: npt.NDArray[np.uint16], neighbours: npt.NDArray[np.int64],
                 places: npt.NDArray[np.int64], centre: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:  # fmt: skip
        """Return the corrections at some places of the flat array of values with zeros around."""
        if torch.backends.cuda.matmul.allow_tf32:
            raise RuntimeError("products with TF32 are not exact")
        if self._held is None or self._held[0] is not values:
            self._held = values, torch.from_numpy(values.astype(np.float32)).to(self._device)
        if self._network is None or self._network[0] is not network:
            layers = [
                (torch.from_numpy(w.astype(np.float32)).to(self._device),
                 torch.from_numpy(b.astype(np.float32)).to(self._device), 2.0**-s)
                for w, b, s in zip(network.weights, network.biases, network.shifts, strict=True)
            ]  # fmt: skip
            self._network = network, layers
        layers = self._network[1]
        with torch.no_grad():
            where = torch.from_numpy(places).to(self._device)[:, None]
            x = self._held[1][where + torch.from_numpy(neighbours.reshape(1, -1)).to(self._device)]
            x -= torch.from_numpy(centre.astype(np.float32)).to(self._device)[:, None]
            most = (network.clip + 1) * UNIT // gain + 1
            x = torch.floor(x.clamp_(-most, most) * gain / UNIT).clamp_(-network.clip, network.clip)
            for number, (weights, biases, scale) in enumerate(layers):
                x = torch.floor((x @ weights.T + biases) * scale)
                if number + 1 < len(layers):
                    x = torch.maximum(x, torch.floor(x * 2.0**-network.leak)).clamp_(-AMPLITUDE, AMPLITUDE)
            found = x[:, 0].cpu().numpy().astype(np.int64)
        return found * UNIT // gain
