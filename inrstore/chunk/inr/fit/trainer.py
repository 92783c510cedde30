"""The loop: warm-up, cosine schedule, clipping, divergence restarts, networks that leave the batch.

Every rate, norm and restart is kept for each network alone, so that fitting chunks together gives each the same
path as fitting it by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrstore.chunk.inr.fit.activations import ACTIVATIONS
from inrstore.chunk.inr.fit.basis import Basis
from inrstore.chunk.inr.fit.data import Batch
from inrstore.chunk.inr.fit.networks import Networks

Quantiser = Callable[[Networks], Networks]
"""Maps free parameters to the quantised ones that a forward pass uses."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast.

    Parameters
    ----------
    steps : int
        Optimiser steps.
    samples : int
        Voxels of each chunk in a step.
    rate : float
        Peak learning rate of the hidden layers.
    warm_up : int
        Steps of linear rise.
    check_every : int
        Steps between looks at the distortion.
    turned : bool
        Each matrix is optimised in a basis of its own, which takes some steps to be known.
    plain : bool
        Adam as it comes, as in publications: all points in each step, one rate, nothing clipped or sent back, and the
        best iterate kept.
    """

    steps: int
    samples: int
    rate: float
    warm_up: int = 100
    check_every: int = 100
    turned: bool = True
    plain: bool = False


CLIP = 1.0
"""Largest norm of the gradient of one network (its loss is of order 1)."""
BETA_1, BETA_2, EPSILON = 0.9, 0.99, 1e-8
PLAIN_BETA_2 = 0.999
WORSE = 1.6
"""A distortion this many times the best one so far is a divergence."""


class Trainer:
    """Adam over a batch of networks, in the basis of each matrix; one instance is one schedule.

    Parameters
    ----------
    batch : Batch
    networks : Networks
        Changed in place.
    schedule : Schedule
    omega_0 : float
        Rates of the first layer follow the size of its weights.
    quantiser : callable, optional
        For quantisation-aware fitting.
    """

    def __init__(
        self,
        batch: Batch,
        networks: Networks,
        schedule: Schedule,
        omega_0: float,
        quantiser: Quantiser | None = None,
    ) -> None:
        self.batch, self.networks, self.schedule, self.quantiser = batch, networks, schedule, quantiser
        layers = len(networks.weights) - 1
        first = ACTIVATIONS[networks.activations[0]].first_rate(omega_0)
        self.relative = [first] + [1.0] * layers + [3.0] * layers + [1.0]
        if schedule.plain:  # the factor omega_0 of a published sine is part of its weights here
            own = [omega_0 if ACTIVATIONS[name].integer.wraps else 1.0 for name in networks.activations]
            self.relative = [*own, 1.0] * 2
        self.first = [torch.zeros_like(t) for t in networks.tensors]
        self.second = [torch.zeros_like(t) for t in networks.tensors]
        # Weights behind the first layer are matrices large enough for a basis of their own.
        self.bases = [Basis(t) if schedule.turned and not schedule.plain and 0 < i <= layers else None
                      for i, t in enumerate(networks.tensors)]  # fmt: skip
        count, device = len(batch.items), batch.values.device
        self.patience = torch.ones(count, device=device)  # each network's own factor on the rate
        self.best = torch.full((count,), math.inf, dtype=torch.float64, device=device)
        self.kept = networks.clone()
        self.restarts = 0
        self.source = torch.Generator().manual_seed(1)
        self.probe = self._stratified(
            min(4 * schedule.samples, int(batch.counts.max())), torch.Generator().manual_seed(2)
        )

    def run(self, report: Callable[[int, Tensor], bool | None] | None = None) -> None:
        """Train; `report(step, relative distortion of each network)` may end it early by returning True."""
        schedule = self.schedule
        for step in range(1, schedule.steps + 1):
            self._step(step)
            if step % schedule.check_every == 0 or step == schedule.steps:
                distortion = self._last() if schedule.plain else self.guard()
                if report is not None and report(step, distortion):
                    return

    def guard(self) -> Tensor:
        """Measure each network on fixed voxels; send back those that diverged, at half their rate."""
        distortion = self.distortion(self.probe)
        bad = ~(distortion < self.best * WORSE)
        bad &= torch.isfinite(self.best)
        if bad.any():
            self.restarts += int(bad.sum())
            choose = bad.view(-1, 1, 1)
            with torch.no_grad():
                for now, kept, m, v in zip(self.networks.tensors, self.kept.tensors, self.first, self.second,
                                           strict=True):  # fmt: skip
                    now.copy_(torch.where(choose, kept, now))
                    m.masked_fill_(choose, 0)
                    v.copy_(torch.where(choose, v.nan_to_num(posinf=1.0).clamp(max=1.0), v))
            for basis in self.bases:
                if basis is not None:
                    basis.forget(bad)
            self.patience = torch.where(bad, self.patience / 2, self.patience)
            distortion = torch.where(bad, self.best, distortion)
        self._keep(distortion)
        return distortion

    def _last(self) -> Tensor:
        """Return the distortion of each network on all points, and keep those that are better."""
        distortion = self.distortion()
        self._keep(distortion)
        return distortion

    def _keep(self, distortion: Tensor) -> None:
        """Keep the networks whose distortion is the smallest so far."""
        better = distortion < self.best
        if better.any():
            choose = better.view(-1, 1, 1)
            for now, kept in zip(self.networks.tensors, self.kept.tensors, strict=True):
                kept.copy_(torch.where(choose, now.detach(), kept))
            self.best = torch.where(better, distortion, self.best)

    def keep_only(self, nets: Sequence[int]) -> None:
        """Drop every other network from the batch."""
        index = torch.tensor(list(nets), device=self.batch.values.device)
        self.batch, self.networks, self.kept = (
            self.batch.subset(nets), self.networks.subset(nets), self.kept.subset(nets))  # fmt: skip
        self.first = [t[index] for t in self.first]
        self.second = [t[index] for t in self.second]
        for basis in self.bases:
            if basis is not None:
                basis.keep_only(index)
        self.patience, self.best = self.patience[index], self.best[index]

    @torch.no_grad()
    def distortion(self, fraction: Tensor | None = None) -> Tensor:
        """Return each network's mean square error over its target's, at fractions of the points or at all."""
        used = self.networks if self.quantiser is None else self.quantiser(self.networks)
        return distortion(self.batch, used, fraction)

    # ---- one step -------------------------------------------------------------------------------------------

    def _step(self, step: int) -> None:
        if self.schedule.plain:
            self._plain_step(step)
            return
        coordinates, values = self.batch.sample(self._stratified(self.schedule.samples, self.source))
        for tensor in self.networks.tensors:
            tensor.requires_grad_(True)
        used = self.networks if self.quantiser is None else self.quantiser(self.networks)
        found = self.batch.limited(used(coordinates))
        values = self.batch.wanted(values, found)
        loss = torch.nn.functional.mse_loss(found, values, reduction="none").mean((1, 2)).sum()
        gradients = torch.autograd.grad(loss, self.networks.tensors)
        self._update(step, gradients)

    def _plain_step(self, step: int) -> None:
        batch = self.batch
        for tensor in self.networks.tensors:
            tensor.requires_grad_(True)
        found = batch.limited(self.networks(batch.coordinates))
        real = torch.arange(found.shape[1], device=found.device) < batch.counts[:, None]
        error = (found - batch.wanted(batch.values, found)).square().mean(2) * real
        loss = error.sum(1) / batch.counts
        gradients = torch.autograd.grad(loss.sum(), self.networks.tensors)
        self._keep(loss.detach().double() / batch.noise)
        self._update(step, gradients)

    @torch.no_grad()
    def _update(self, step: int, gradients: tuple[Tensor, ...]) -> None:
        beta_2 = PLAIN_BETA_2 if self.schedule.plain else BETA_2
        # The first layer's gradient is measured in its own, larger unit before it joins the norm.
        norm = sum((g * r).square().sum((1, 2)) for g, r in zip(gradients, self.relative, strict=True))
        shrink = (CLIP / (norm.sqrt() + 1e-12)).clamp(max=1.0).view(-1, 1, 1)  # type: ignore[union-attr]
        rate = self.schedule.rate * self._shape(step) * self.patience.view(-1, 1, 1)
        if self.schedule.plain:
            shrink = torch.ones_like(shrink)
        lean_1, lean_2 = 1 - BETA_1**step, 1 - beta_2**step
        for p, g, m, v, r, basis in zip(self.networks.tensors, gradients, self.first, self.second, self.relative,
                                        self.bases, strict=True):  # fmt: skip
            p.requires_grad_(False)
            g = g * shrink
            m.lerp_(g, 1 - BETA_1)
            change = m
            if basis is not None:
                basis.see(g, step)
                g, change = basis.into(g), basis.into(m)
            v.mul_(beta_2).addcmul_(g, g, value=1 - beta_2)
            change = change / ((v / lean_2).sqrt() + EPSILON)
            p.sub_(rate * r / lean_1 * (change if basis is None else basis.back(change)))

    def _shape(self, step: int) -> float:
        if self.schedule.plain:
            return 1.0
        rise = min(1.0, step / self.schedule.warm_up)
        return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / self.schedule.steps)))

    def _stratified(self, count: int, source: torch.Generator) -> Tensor:
        """Return one random fraction in each of `count` equal parts of [0, 1)."""
        jitter = torch.rand(count, generator=source)
        return ((torch.arange(count) + jitter) / count).to(self.batch.values.device)


@torch.no_grad()
def distortion(batch: Batch, networks: Networks, fraction: Tensor | None = None) -> Tensor:
    """Return mean square error / target's mean square error, (nets,), float64."""
    if fraction is not None:
        coordinates, values = batch.sample(fraction)
        found = batch.limited(networks(coordinates))
        error = (found - batch.wanted(values, found)).square().mean((1, 2), dtype=torch.float64)
        return error / batch.noise
    total = torch.zeros_like(batch.noise)
    block = 1 << 14
    for begin in range(0, batch.values.shape[1], block):
        place = slice(begin, begin + block)
        found = batch.limited(networks(batch.coordinates[:, place]))
        error = (found - batch.wanted(batch.values[:, place], found)).square().sum(2)
        real = torch.arange(begin, begin + error.shape[1], device=error.device) < batch.counts[:, None]
        total += (error * real).sum(1, dtype=torch.float64)
    return total / (batch.counts * batch.values.shape[2]) / batch.noise
