"""The pass with rounded weights: each network's steps grow while it keeps its target, its rate falls to zero.

At the end the integers are evaluated by the reader's own decoder; only a network that keeps its target there
is returned.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inrstore.chunk import quality
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.fit.data import Batch, Measurements
from inrstore.chunk.inr.fit.networks import Networks
from inrstore.chunk.inr.fit.quantise import Quantiser, equal_slope_steps, finest_steps, to_format
from inrstore.chunk.inr.fit.trainer import Schedule, Trainer, distortion

_log = logging.getLogger(__name__)

AIM = 0.994
"""Distortion aimed at, relative to the target: what is left goes to rounding of outputs and offsets."""
STILL_TO_COME = 0.12
"""Part of the distortion that a whole pass takes away at constant steps; measured on diffusion MRI."""
COARSEST = 1.0
"""Steps that alone would use up the target; beyond, rounding in the loop does not settle."""
REPAIRS = 3
LOSS = 0.1
"""Decibels that rounding may cost where nothing else is promised."""
_LOOK = 16384
_HALVINGS = 9
_DOUBLINGS = 6


class Report(Protocol):
    """Called now and then."""

    def __call__(self, step: int, distortion: Tensor) -> None:
        """Take the step and each network's distortion relative to its target."""


@dataclass
class _Found:
    coarseness: float
    networks: Networks


def round_in_the_loop(
    batch: Batch, networks: Networks, schedule: Schedule, omega_0: float, report: Report
) -> list[siren.Siren | None]:
    """Return the integer network of each chunk, or None where the target is out of reach.

    Parameters
    ----------
    batch : Batch
    networks : Networks
        Fitted, each under its target.
    schedule : Schedule
        Length of the pass.
    omega_0 : float
        As in the fit.
    report : callable
    """
    trainer = Trainer(batch, networks, replace(schedule, warm_up=10, turned=False), omega_0)
    float_distortion = distortion(batch, networks)
    base = equal_slope_steps(batch, networks, trainer.probe)
    slack = (1 - float_distortion).clamp(min=0.02)
    floor = finest_steps(networks)
    quantiser = Quantiser(base, slack.sqrt().float() * 1.5, floor)
    trainer.quantiser = quantiser
    # The probe sees a part of the voxels; how far it is off is known from the float networks.
    bias = float_distortion / distortion(batch, networks, trainer.probe)
    found: list[_Found | None] = [None] * len(batch.items)

    few = len(trainer.probe) * 2 > int(batch.counts.max())

    def steer(step: int, seen: Tensor) -> None:
        part = step / schedule.steps
        whole = part > (0.6 if few else 0.85)  # of many points a look takes longer than a step
        now = distortion(batch, quantiser(trainer.networks)) if whole else seen * bias
        if whole:
            for i, value in enumerate(now.tolist()):
                old = found[i]
                coarse = float(quantiser.coarseness[i])
                if value <= AIM and (old is None or coarse >= old.coarseness):
                    found[i] = _Found(coarse, trainer.networks.subset([i]))
        if step < schedule.steps:
            # The distortion still falls while the rate does, so more is allowed at first. Rounding is a small part
            # of it, so it takes a larger change of the steps to move it.
            allowed = AIM * (0.998 + STILL_TO_COME * (1 - part))
            # Towards the end the rate is too low to follow a large change.
            change = (allowed / now).pow(1.0 if part < 0.6 else 2.5).clamp(0.9, 1.1 if part < 0.8 else 1.03)
            quantiser.coarseness = (quantiser.coarseness * change.float()).clamp(max=COARSEST)
        _log.debug("step %d: distortion %s, coarseness %s", step, now.tolist(), quantiser.coarseness.tolist())
        report(step, now)

    trainer.run(steer)
    out: list[siren.Siren | None] = []
    for i, item in enumerate(batch.items):
        best = found[i] or _Found(float(quantiser.coarseness[i]), trainer.networks.subset([i]))
        own = Quantiser(base[i : i + 1], torch.full((1,), best.coarseness, device=base.device), floor[i : i + 1])
        out.append(_settle(item, batch.subset([i]), best.networks, own, schedule, omega_0))
    return out


def _settle(
    item: Measurements, batch: Batch, networks: Networks, quantiser: Quantiser, schedule: Schedule, omega_0: float
) -> siren.Siren | None:
    """Return the integers of a network that keeps its target as decoded; mend near misses with finer steps."""
    for attempt in range(REPAIRS + 1):
        network = to_format(item, networks, 0, quantiser.steps[0].double().cpu().numpy())
        if network is None:
            return None
        excess = decoded_distortion(item, network)
        if excess <= 1:
            return network
        if excess > 1.2 or attempt == REPAIRS:
            return None
        quantiser.coarseness = quantiser.coarseness * (0.94 if attempt == 0 else 0.88)
        mend = replace(schedule, steps=max(60, schedule.steps // 8), warm_up=5, rate=schedule.rate / 4, turned=False)
        Trainer(batch, networks, mend, omega_0, quantiser).run()
    return None


def round_after(item: Measurements, batch: Batch, networks: Networks, *, found: bool) -> siren.Siren | None:
    """Return the integers of one fitted network, with the largest steps that keep a target; nothing is learnt.

    Parameters
    ----------
    item, batch
        The chunk, and the batch of it alone.
    networks : Networks
        One.
    found : bool
        The target is the error of the network before, and `LOSS` decibels; not that of the chunk.

    Returns
    -------
    siren.Siren or None
        With what is found, one that loses more where no steps are fine enough; None if the target of the chunk is
        missed.
    """
    whole = distortion(batch, networks)
    asked = item.problem.target
    assert asked.rmse is not None
    aim = whole * 10 ** (LOSS / 10) if found else torch.ones_like(whole)
    if not bool(torch.isfinite(aim).all()) or float(aim) <= 0:
        return None
    if found:
        rmse = math.sqrt(_mean_square(item, batch, networks) * 10 ** (LOSS / 10) + _of_rounding(item))
        item = replace(item, problem=replace(item.problem, target=replace(asked, rmse=rmse)))
    near = batch.subset([0])
    near.noise = batch.noise * aim
    fraction = (torch.arange(_LOOK) + 0.5) / _LOOK
    fraction = fraction.to(batch.values.device)
    base, floor = equal_slope_steps(near, networks, fraction), finest_steps(networks)
    low, high = -12.0, 0.0  # log2 of the coarseness
    best: siren.Siren | None = None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        steps = torch.maximum(base * 2**middle, floor)
        network = to_format(item, networks, 0, steps[0].double().cpu().numpy())
        if network is not None and decoded_distortion(item, network) <= 1:
            best, low = network, middle
        else:
            high = middle
    if best is not None or not found:
        return best
    for coarser in range(_DOUBLINGS):  # the finest that the format holds
        steps = torch.maximum(base * 2**low, floor) * 2**coarser
        network = to_format(item, networks, 0, steps[0].double().cpu().numpy())
        if network is not None:
            return network
    return None


@torch.no_grad()
def _mean_square(item: Measurements, batch: Batch, networks: Networks) -> float:
    """Return the mean square error of a network as the target of its chunk counts it."""
    weight = torch.from_numpy(item.unit / item.problem.scale).to(batch.values.device)
    total, count, step = 0.0, 0, 1 << 14
    for begin in range(0, len(item.values), step):
        place = slice(begin, min(begin + step, len(item.values)))
        found = batch.limited(networks(batch.coordinates[:, place]))
        error = (found - batch.wanted(batch.values[:, place], found))[0].double() * weight
        total += float(error.square().sum())
        count += error.numel() if not batch.holes else int((~batch.values[0, place].isnan()).sum())
    return total / count


def _of_rounding(item: Measurements) -> float:
    """Return the mean square error of rounding values to integers, if they are some."""
    return float(np.mean(item.problem.scale**-2.0)) / 12 if item.problem.core.dtype.kind in "iu" else 0.0


def decoded_distortion(item: Measurements, network: siren.Siren) -> float:
    """Return the mean square error of what readers decode, relative to the target's; 1 is on target."""
    core = item.problem.core
    decoded = siren.evaluate(network, core.dtype, core.shape, [np.arange(n) for n in core.shape])
    axis = item.problem.channel_axis
    mask = item.problem.envelope.mask
    inside = None if mask is None else np.broadcast_to(mask, core.shape)
    total, count = 0.0, core.size if inside is None else int(inside.sum())
    for channel, scale in enumerate(item.problem.scale):
        place = (...,) if axis is None else (slice(None),) * axis + (channel,)
        error = decoded[place].astype(np.float64) - core[place].astype(np.float64)
        if inside is not None:
            error = error[inside[place]]
        total += quality.sum_of_squares(error) / float(scale) ** 2
    assert item.problem.target.rmse is not None
    value = total / count / item.problem.target.rmse**2
    return value if math.isfinite(value) else math.inf
